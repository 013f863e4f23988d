"""The receipt: scores before and after, what was forgotten, dollars charged, proof of release, what came home."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.clock import parse_iso
from launcher.errors import ExitCode
from launcher.layers import rescues
from launcher.ledger import Ledger, Run
from launcher.money import ZERO, Usd
from launcher.plan import Plan
from launcher.runner.steps import AFTER, BEFORE, TUNED
from launcher.viewer.state import clock_words
from recipes.contract import COMPLETE, sha256_of
from recipes.pseudo_label.spec import LABELLED

if TYPE_CHECKING:
    from launcher.cli.output import Output


def build_receipt(run: Run, plan: Plan, run_dir: Path, ledger: Ledger, *, code: ExitCode, charged: Usd,
                  released: bool, scores: dict[str, Any], decision: dict[str, Any] | None,
                  gate: dict[str, Any] | None, leaderboards: list[str]) -> dict[str, Any]:  # fmt: skip
    """The receipt as JSON-ready fields; also what `launcher run --json` prints."""
    choice = plan.choice
    leases, reservation = ledger.leases(run.run), ledger.reservation(run.run)
    return {
        "run": run.run,
        "state": str(run.state),
        "exit": int(code),
        "reason": run.reason,
        "created": run.created_at,
        "recipe": plan.recipe,
        "base": plan.spec.get("base", plan.spec.get("model")),
        "where": {"provider": choice.offer.provider, "gpu": choice.offer.gpu, "offer_id": choice.offer.offer_id},
        "usd": {
            "expected_p50": str(choice.usd_p50),
            "ceiling": str(plan.ceiling_usd),
            "reserved": str(reservation.amount_usd if reservation else ZERO),
            "charged": str(charged),
            "charged_source": ", ".join(dict.fromkeys(each.source for each in ledger.charges(run.run))) or "no lease",
        },
        "seconds": seconds_by_state(ledger.events(run.run)),
        "artifacts": _artifacts(run_dir),
        "scores": {name: scores.get(name) for name in (BEFORE, AFTER)},
        "gate": gate,
        "decision": decision,
        "training": _training(run_dir),
        "leaderboards": leaderboards,
        "report": str(run_dir / "report.html"),
        "receipt": str(run_dir / "receipt.json"),
        "released": released,
        "leases": [
            {"lease": x.lease, "provider": x.provider, "state": str(x.state), "proof": x.proof or []} for x in leases
        ],
        "rescues": rescues(ledger, run.run),
        "warnings": [*plan.data.get("warnings", []), *over_ceiling(charged, plan.ceiling_usd, choice.offer.provider)],
    }


def over_ceiling(charged: Usd, ceiling: Usd, provider: str) -> list[str]:
    """The alarm when a provider charges more than the ceiling that was approved; else nothing."""
    if charged <= ceiling:
        return []
    return [f"{provider} charged ${charged - ceiling} more than the ${ceiling} approved: ask it why"]


def seconds_by_state(events: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds a run spent in each state of its lease (and before it had one), from the journal's own times."""
    marks: list[tuple[str, str]] = []
    for event in events:
        kind, _, state = event["kind"].partition(".")
        if kind in ("run", "lease") and state and (kind == "lease" or state in ("planned", "collected", "settled")):
            marks.append((state, event["at"]))
    spent: dict[str, float] = {}
    for (state, since), (_, until) in pairwise(marks):
        seconds = (parse_iso(until) - parse_iso(since)).total_seconds()
        spent[state] = round(spent.get(state, 0.0) + seconds, 3)
    return spent


def _artifacts(run_dir: Path) -> list[dict[str, Any]]:
    """What came home, as it lies there now, the recipe's most worth first."""
    try:
        listed = json.loads((run_dir / COMPLETE).read_text(encoding="utf-8"))["artifacts"]
    except (OSError, ValueError, KeyError):
        return []
    found = []
    for item in listed:
        path = run_dir / item["path"]
        if path.is_file():
            found.append({"path": str(path), "sha256": sha256_of(path), "bytes": path.stat().st_size})
    return found


def _training(run_dir: Path) -> dict[str, Any] | None:
    try:
        held: dict[str, Any] = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    metrics: dict[str, Any] = held.get("metrics", {})
    return metrics


def _money(usd: dict[str, Any]) -> str:
    """What it cost, by whose word, of what was approved; and what the plan had expected."""
    expected = f"; expected ${usd['expected_p50']}" if Usd(usd["ceiling"]) > ZERO else ""
    return f"${usd['charged']} charged ({usd['charged_source']}) of ${usd['ceiling']} approved{expected}"


def show_receipt(receipt: dict[str, Any], out: Output) -> None:
    """Print a receipt for a person: the leaderboard before and after, then what it all came to."""
    from rich.table import Table
    from rich.text import Text

    from launcher.report.leaderboard import score_table

    if "scores" not in receipt:  # refused or cancelled before it began
        _show_short(receipt, out)
        return
    scores = receipt["scores"]
    out.say("")
    for part, title in (("target", ""), ("general", "general set")):
        old, new = ((scores.get(when) or {}).get(part) for when in (BEFORE, AFTER))
        shown = new or old
        if shown:
            out.say(score_table(shown, old if new else None, title=title))
            out.say("")
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for index, (name, words) in enumerate((name, words) for name, words in _lines(receipt) if words):
        mark, style = _mark(receipt) if index == 0 else ("", "dim")
        table.add_row(Text(mark, style=style), Text(name, style=style), Text(words))
    out.say(table)
    usd = receipt["usd"]
    for words in over_ceiling(Usd(usd["charged"]), Usd(usd["ceiling"]), receipt["where"]["provider"]):
        out.warn(words)
    _warn_of_release(receipt, out)


def _show_short(receipt: dict[str, Any], out: Output) -> None:
    """What there is to say of a run that never began, or whose plan nobody can read any more."""
    why = f" ({receipt['reason']})" if receipt.get("reason") else ""
    out.say(f"run {receipt['run']}: {receipt['state']}{why}; ${receipt['usd']['charged']} charged")
    _warn_of_release(receipt, out)


def _warn_of_release(receipt: dict[str, Any], out: Output) -> None:
    if not receipt["released"]:
        out.warn("something may still bill: release is not proven; see launcher status")


def _mark(receipt: dict[str, Any]) -> tuple[str, str]:
    code = ExitCode(receipt["exit"])
    if code is ExitCode.OK:
        return ("!", "bold yellow") if _headline(receipt) == "rejected model" else ("✓", "bold green")
    return ("!", "bold yellow") if code in (ExitCode.STOPPED_AT_LIMIT, ExitCode.GATE_SAID_NO) else ("✗", "bold red")


def _lines(receipt: dict[str, Any]) -> list[tuple[str, str]]:
    tuned = next((a for a in receipt["artifacts"] if Path(a["path"]).name == TUNED), None)
    size = f"\n{tuned['bytes'] / 1e6:,.1f} MB   sha256 {tuned['sha256'][:8]}…" if tuned else ""
    head = _headline(receipt)
    scores, decision = receipt["scores"], receipt["decision"]
    usd = receipt["usd"]
    proofs = [line for lease in receipt["leases"] for line in lease["proof"]]
    labels = next((a["path"] for a in receipt["artifacts"] if Path(a["path"]).name == LABELLED), None)
    return [
        (head, tuned["path"] + size if tuned else labels or receipt.get("reason") or ""),
        ("labels", _labels(receipt["training"]) if labels else ""),
        ("keywords missed", _change(scores, "target", "macro", "ker")),
        ("WER", _change(scores, "target", "micro", "wer") + _p_value(decision)),
        ("general set WER", _change(scores, "general", "micro", "wer")),
        ("gate", f"{receipt['gate']['decision']}: {' '.join(receipt['gate']['reasons'])}" if receipt["gate"] else ""),
        ("decision", f"{decision['decision']}: {' '.join(decision['reasons'])}" if decision else ""),
        ("money", _money(usd)),
        ("time", _time(receipt["seconds"])),
        ("released", " · ".join(proofs)),
        ("rescued", _rescued(receipt)),
        ("leaderboards", "\n".join(receipt["leaderboards"])),
        ("report", receipt["report"]),
    ]


def _labels(found: dict[str, Any] | None) -> str:
    """How much of the audio was kept, and why the rest was not."""
    held = found or {}
    why = {name.removeprefix("filtered_"): n for name, n in held.items() if name.startswith("filtered_")}
    rest = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in why.items())
    kept = f"{held.get('kept')} of {held.get('rows')} rows kept ({held.get('hours_kept')} of {held.get('hours')} h)"
    return f"{kept}; filtered: {rest}" if rest else kept


def _rescued(receipt: dict[str, Any]) -> str:
    """Which layers stepped in, one after another, where the runner died."""
    return " · ".join(f"{each['at'][11:19]} the {each['layer']} {each['did']}" for each in receipt.get("rescues", []))


def _headline(receipt: dict[str, Any]) -> str:
    if receipt["exit"] == ExitCode.OK:
        decision = (receipt["decision"] or {}).get("decision")
        words = {"keep": "better model", "expand": "better model", "reject_forgets": "rejected model", None: "done"}
        return words.get(decision, "tuned model")
    if receipt["exit"] == ExitCode.STOPPED_AT_LIMIT:
        return "stopped early"
    return {"refused": "not tuned", "cancelled": "cancelled"}.get(receipt["state"], "failed")


def _change(scores: dict[str, Any], part: str, group: str, name: str) -> str:
    old, new = (_leaf(scores.get(when), part, group, name) for when in (BEFORE, AFTER))
    if old is None:
        return ""
    return _percent(old) + (f" → {_percent(new)}" if new is not None else "")


def _leaf(score: dict[str, Any] | None, part: str, group: str, name: str) -> dict[str, Any] | None:
    leaf: dict[str, Any] | None = ((score or {}).get(part) or {}).get(group, {}).get(name)
    return leaf if leaf and leaf.get("rate") is not None else None


def _percent(leaf: dict[str, Any]) -> str:
    text = f"{100 * leaf['rate']:.1f}%"
    if leaf.get("ci95"):
        text += f" [{100 * leaf['ci95'][0]:.0f}–{100 * leaf['ci95'][1]:.0f}]"
    return text


def _p_value(decision: dict[str, Any] | None) -> str:
    p = ((decision or {}).get("deltas", {}).get("paired") or {}).get("wer", {}).get("p_value")
    if p is None:
        return ""
    return f"   (paired p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"


def _time(seconds: dict[str, float]) -> str:
    return " · ".join(f"{name} {clock_words(spent)}" for name, spent in seconds.items() if spent >= 1)
