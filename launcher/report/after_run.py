"""What is decided and written from a run's row files: the gate between steps, the reports when all is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.errors import BadInputError, ExitCode
from launcher.failpoints import effect
from launcher.ledger import Ledger, Run
from launcher.money import Usd
from launcher.plan import Plan
from launcher.report.html import render_html
from launcher.report.leaderboard import leaderboard, leaderboard_name
from launcher.report.receipt import build_receipt
from launcher.runner.steps import AFTER, BEFORE, FINETUNE
from recipes.contract import COMPLETE, EVENTS, read_events, write_atomic, write_json
from recipes.manifest import read_manifest
from recipes.scoring import decide, gate, read_per_sample, read_score

Scores = dict[str, dict[str, Any]]


def gate_of(plan: Plan, baseline: Path) -> dict[str, Any] | None:
    """The gate's decision from the rows in the baseline's folder; None when the job has no gate."""
    if plan.gate is None:
        return None
    rows = [row for name in ("train", "validation") for row in read_manifest(Path(plan.data[name]))]
    given = plan.gate.get("baseline", "auto")
    source = baseline if given == "auto" else Path(given)
    if not source.exists():
        raise BadInputError("no such file.", key="gate.baseline", value=str(source), fix="Or write: baseline: auto")
    priority = tuple(plan.gate.get("priority", ()))
    return gate(rows, read_per_sample(source), priority=priority, cycle=int(plan.gate.get("cycle", 1))).as_json()


def scores_of(run_dir: Path) -> dict[str, Scores]:
    """{before, after} -> {target, general} -> score.json, of those that were measured."""
    found: dict[str, Scores] = {}
    for name in (BEFORE, AFTER):
        if not (run_dir / name / COMPLETE).is_file():  # a part of it may have come home before a kill
            continue
        for part, folder in (("target", run_dir / name), ("general", run_dir / name / "general")):
            if (folder / "score.json").is_file():
                found.setdefault(name, {})[part] = read_score(folder)[0]
    return found


def decision_of(plan: Plan, run_dir: Path) -> dict[str, Any] | None:
    """Keep the tuned model? None when it was not measured both before and after."""
    held = scores_of(run_dir)
    if BEFORE not in held or AFTER not in held:
        return None
    rows = read_per_sample(run_dir / BEFORE), read_per_sample(run_dir / AFTER)
    priority = tuple((plan.gate or {}).get("priority", ()))
    return decide(
        held[BEFORE]["target"], held[AFTER]["target"],
        held[BEFORE].get("general"), held[AFTER].get("general"), priority=priority, rows=rows,
    ).as_json()  # fmt: skip


@effect("report.write")
def write_reports(run: Run, plan: Plan, run_dir: Path, ledger: Ledger, *, code: ExitCode, charged: Usd,
                  released: bool) -> dict[str, Any]:  # fmt: skip
    """Write decision, leaderboards, report.html and receipt.json; returns what `run --json` prints."""
    decision = decision_of(plan, run_dir)
    if decision is not None:
        write_json(run_dir / "decision.json", decision)
    held = scores_of(run_dir)
    cycle = int((plan.gate or {}).get("cycle", 1))
    files = _leaderboards(run_dir, held, cycle, decision)
    receipt = build_receipt(
        run, plan, run_dir, ledger, code=code, charged=charged, released=released,
        scores=held, decision=decision, gate=_read(run_dir / "gate.json"), leaderboards=files,
    )  # fmt: skip
    write_json(run_dir / "receipt.json", receipt)
    write_atomic(run_dir / "report.html", render_html(_page(run_dir, receipt, held)))
    return receipt


@effect("report.receipt")
def write_receipt_alone(run: Run, plan: Plan, run_dir: Path, ledger: Ledger, *, code: ExitCode, charged: Usd,
                        released: bool, warning: str) -> dict[str, Any]:  # fmt: skip
    """Write receipt.json without what the row files say: for a run whose files a report cannot be made of."""
    receipt = build_receipt(
        run, plan, run_dir, ledger, code=code, charged=charged, released=released,
        scores={}, decision=None, gate=None, leaderboards=[],
    )  # fmt: skip
    receipt |= {"training": None, "report": "", "warnings": [*receipt["warnings"], warning]}
    write_json(run_dir / "receipt.json", receipt)
    return receipt


def _leaderboards(run_dir: Path, held: dict[str, Scores], cycle: int,
                  decision: dict[str, Any] | None) -> list[str]:  # fmt: skip
    files = []
    if BEFORE in held:
        path = run_dir / leaderboard_name(cycle)
        write_atomic(path, leaderboard(held[BEFORE]["target"], general=held[BEFORE].get("general"), cycle=cycle))
        files.append(str(path))
    if AFTER in held:
        path = run_dir / leaderboard_name(cycle + 1)
        before = held.get(BEFORE, {})
        write_atomic(
            path,
            leaderboard(
                held[AFTER]["target"], before=before.get("target"), general=held[AFTER].get("general"),
                general_before=before.get("general"), cycle=cycle + 1, decision=decision,
            ),
        )  # fmt: skip
        files.append(str(path))
    return files


def _page(run_dir: Path, receipt: dict[str, Any], held: dict[str, Scores]) -> dict[str, Any]:
    """What render_html takes."""
    rows = {name: read_per_sample(run_dir / name) for name in held}
    scores = {
        key: held.get(when, {}).get(part)
        for key, when, part in (
            ("before", BEFORE, "target"), ("after", AFTER, "target"),
            ("general_before", BEFORE, "general"), ("general_after", AFTER, "general"),
        )
    }  # fmt: skip
    told = ("usd", "seconds", "where", "leases", "released", "training", "leaderboards", "warnings")
    return {
        "run": receipt["run"],
        "base": receipt["base"],
        "created": receipt["created"],
        "state": receipt["state"],
        "scores": {key: score for key, score in scores.items() if score},
        "rows": rows,
        "decision": receipt["decision"],
        "gate": receipt["gate"],
        "events": [
            {**event, "step": event.get("at_step")}
            for _, event in read_events(run_dir / EVENTS)
            if event.get("step") == FINETUNE
        ],
        "receipt": {key: receipt[key] for key in told if receipt[key]},
        "artifacts": receipt["artifacts"],
    }


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
