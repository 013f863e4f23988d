"""report.html of a run: one page that needs nothing beside it. A dict in, text out.

Every value of the dict is a stranger's and is escaped; the page runs no script and loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from launcher.report.leaderboard import gravest_first, headline_rows, rate_text, scope, worst_first
from launcher.report.svg import line_chart
from recipes.scoring.align import word_chunks
from recipes.scoring.normalise import normaliser

_WORST_TERMS, _WORST_ROWS, _NUMBERS, _RECEIPT = 15, 12, 30, 80
_GROUPS = (("entity_category", "category"), ("ipa_source", "pronunciation source"), ("noise_level", "noise level"))
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1c1f23;--soft:#5c636b;--rule:#dfe3e7;--fill:#f5f6f8;--accent:#0b63c4;
--good:#1a7f37;--bad:#b42318;--goodbg:#e3f5e8;--badbg:#fde8e6}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--ink:#e4e7ea;--soft:#9aa3ac;--rule:#2d3339;--fill:#1d2126;
--accent:#6cb0ff;--good:#5fce7e;--bad:#ff8f84;--goodbg:#173423;--badbg:#43201d}}
*{box-sizing:border-box}body{margin:0 auto;max-width:62rem;padding:2rem 1.25rem 4rem;background:var(--bg);
color:var(--ink);font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;
margin:2.2rem 0 .6rem}p{margin:.4rem 0}.soft,caption,.tick{color:var(--soft)}.soft{font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.75rem;margin:1.2rem 0}
.tile{background:var(--fill);border-radius:8px;padding:.8rem 1rem}.tile b{display:block;font-size:1.35rem;
font-variant-numeric:tabular-nums}.decision{border-left:4px solid var(--accent);padding:.2rem 0 .2rem 1rem;
margin:1.2rem 0}.decision b{font-size:1.2rem}.decision.bad{border-color:var(--bad)}.decision.good{border-color:
var(--good)}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}caption{text-align:left;
font-size:.9rem;padding:.2rem 0}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--rule);
vertical-align:top;overflow-wrap:anywhere}th{font-weight:600}.n{text-align:right;white-space:nowrap}
.wide{overflow-x:auto}.wide+.wide{margin-top:1rem}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1rem}
.chart{width:100%;height:auto}.grid{stroke:var(--rule)}.line{fill:none;stroke:var(--accent);stroke-width:2;
stroke-linejoin:round}.dot{fill:var(--accent)}.tick,.mark{font-size:11px;fill:var(--soft)}.mark{fill:var(--ink);
font-weight:600}del{background:var(--badbg);color:var(--bad);border-radius:3px;padding:0 .15em}
ins{background:var(--goodbg);color:var(--good);border-radius:3px;padding:0 .15em;text-decoration:none}
.warn{color:var(--bad)}code{font-size:.88em;overflow-wrap:anywhere}
"""


def render_html(run: Mapping[str, Any]) -> str:
    """The page. Every key may be absent; what is absent is not shown.

    run        the run's id                     model, base   names or paths of the tuned and the base model
    created    ISO 8601 UTC                     state         how the run ended
    scores     {before, after, general_before, general_after}: each the content of a score.json
    rows       {before, after}: each the list of a per_sample.json (for the worst rows)
    decision   `decide`'s JSON                  gate          `gate`'s JSON
    events     the run's events (progress events draw the curves: `loss`, and a `*wer*` in `metrics`)
    receipt    the receipt: any nesting of objects, lists and plain values
    artifacts  [{path, bytes, sha256}]
    """
    scores = run.get("scores") or {}
    after, before = scores.get("after") or scores.get("before"), scores.get("before") if scores.get("after") else None
    title = f"Run {run['run']}" if run.get("run") else "Run report"
    about = " · ".join(str(run[key]) for key in ("model", "base", "created", "state") if run.get(key))
    body = [
        f"<h1>{_e(title)}</h1>",
        f'<p class="soft">{_e(about)}</p>',
        _decision(run.get("decision"), run.get("gate")),
    ]
    if after:
        body += [_tiles(after, before, scores), f'<p class="soft">{_e(scope(after))}</p>']
        body += [f'<p class="warn">{_e(warning)}</p>' for warning in after.get("warnings") or []]
    body.append(_curves(run.get("events") or []))
    if after:
        body += [_headline(after, before), _groups(after, before), _terms(after, before), _numbers(after)]
    body.append(_worst_rows(run.get("rows") or {}, (after or {}).get("mode", "clinical")))
    body += [_receipt(run.get("receipt")), _artifacts(run.get("artifacts") or [])]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_e(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _e(value: object) -> str:
    """Text from anywhere, fit for HTML: escaped, and without characters that no document may hold."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(value)))


def _section(title: str, *parts: str) -> str:
    shown = [part for part in parts if part]
    return f"<section><h2>{_e(title)}</h2>{''.join(shown)}</section>" if shown else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), caption: str = "") -> str:
    """A table of cells that are HTML already; the columns in `numbers` stand to the right."""
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        marked = (f"<{tag}{' class=n' if i in right else ''}>{c}</{tag}>" for i, c in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    lines = [line(row, "td") for row in rows]
    if not lines:
        return ""
    told = f"<caption>{_e(caption)}</caption>" if caption else ""
    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    return f'<div class="wide"><table>{told}{top}<tbody>{"".join(lines)}</tbody></table></div>'


def _decision(decision: Mapping[str, Any] | None, gate: Mapping[str, Any] | None) -> str:
    parts = []
    for what, answer in (("Gate", gate), ("Decision", decision)):
        if answer:
            word = str(answer.get("decision", ""))
            tone = (
                {"keep": " good", "reject_forgets": " bad", "grow": " bad"}.get(word, "")
                if what == "Decision"
                else ""
            )
            lines = [*(answer.get("reasons") or []), *(answer.get("warnings") or [])]
            told = "".join(f"<p>{_e(line)}</p>" for line in lines)
            parts.append(f'<div class="decision{tone}">{what}: <b>{_e(word)}</b>{told}</div>')
    return "".join(parts)


def _tiles(after: Mapping[str, Any], before: Mapping[str, Any] | None, scores: Mapping[str, Any]) -> str:
    def short(leaf: Mapping[str, Any] | None) -> str:
        return "–" if not leaf or leaf.get("rate") is None else f"{100 * leaf['rate']:.1f}%"

    def pair(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
        said = f"{short(old)} → {short(new)}" if old else short(new)
        return f'<div class="tile">{_e(name)}<b>{said}</b><span class="soft">{_e(rate_text(new))}</span></div>'

    tiles = []
    if (after.get("macro") or {}).get("ker"):
        tiles.append(pair("Keywords missed", ((before or {}).get("macro") or {}).get("ker"), after["macro"]["ker"]))
    tiles.append(pair("WER", ((before or {}).get("micro") or {}).get("wer"), (after.get("micro") or {}).get("wer")))
    general = scores.get("general_after") or scores.get("general_before")
    if general:
        old = scores.get("general_before") if scores.get("general_after") else None
        tiles.append(pair("General set WER", ((old or {}).get("micro") or {}).get("wer"), general["micro"]["wer"]))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _curves(events: Iterable[Mapping[str, Any]]) -> str:
    loss: dict[float, float] = {}
    wer: dict[float, float] = {}
    for event in events:
        step = event.get("step")
        if event.get("kind") != "progress" or not isinstance(step, (int, float)):
            continue
        if isinstance(event.get("loss"), (int, float)):
            loss[float(step)] = float(event["loss"])
        metrics = event.get("metrics")
        for name, value in metrics.items() if isinstance(metrics, Mapping) else ():
            if "wer" in str(name).lower() and isinstance(value, (int, float)):
                wer[float(step)] = float(value)
    wer = _measured(wer)
    charts = (
        ("Training loss", line_chart(list(loss.items()), "training loss")),
        ("Validation WER (lowest marked)", line_chart(list(wer.items()), "validation WER", percent=True, dots=True)),
    )
    shown = [f'<div><p class="soft">{name}</p>{chart}</div>' for name, chart in charts if chart]
    return _section("Training", f'<div class="charts">{"".join(shown)}</div>' if shown else "")


def _measured(series: Mapping[float, float]) -> dict[float, float]:
    """The points at which a value was new: progress between two validations repeats the last one."""
    steps = sorted(series)
    new = [step for i, step in enumerate(steps) if i == 0 or series[step] != series[steps[i - 1]]]
    return {step: series[step] for step in [*new, *steps[-1:]]}


def _compared(
    head: str, leaves: Iterable[tuple[str, Any]], old: Mapping[str, Any], before: bool, caption: str = ""
) -> str:
    columns = [head, *(["before"] if before else []), "after" if before else "rate [95%]", "errors / total"]
    rows = []
    for name, leaf in leaves:
        counts = f"{leaf['errors']:,.4g} / {leaf['total']:,}" if leaf else "–"
        rates = [*([_e(rate_text(old.get(name)))] if before else []), _e(rate_text(leaf))]
        rows.append([_e(name), *rates, counts])
    return _table([_e(c) for c in columns], rows, range(1, len(columns)), caption)


def _headline(after: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    old = dict(headline_rows(before)) if before else {}
    edits = after.get("edits") or {}
    words = ", ".join(f"{_e(count)} {_e(name)}" for name, count in edits.items())
    note = f'<p class="soft">Words: {words}. Intervals are 95%.</p>' if words else ""
    return _section("Scores", _compared("", headline_rows(after), old, bool(before)), note)


def _groups(after: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    tables = []
    for key, name in _GROUPS:
        leaves = (after.get("ker_by") or {}).get(key) or {}
        old = ((before or {}).get("ker_by") or {}).get(key) or {}
        tables.append(_compared(name, worst_first(leaves), old, bool(before)))
    return _section("Keywords missed, by group", *tables)


def _terms(after: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    leaves = (after.get("ker_by") or {}).get("term") or {}
    old = ((before or {}).get("ker_by") or {}).get("term") or {}
    missed = [(name, leaf) for name, leaf in worst_first(leaves) if leaf.get("errors")]
    if not leaves:
        return ""
    said = f"{len(missed)} of {len(leaves)} terms are missed at least once."
    table = _compared("term", missed[:_WORST_TERMS], old, bool(before))
    return _section("Worst terms", f'<p class="soft">{said}</p>', table)


def _numbers(after: Mapping[str, Any]) -> str:
    errors = gravest_first(after.get("number_errors") or [])
    rows = [
        [_e(str(x.get("kind", "")).replace("_", " ")), _e(x.get("reference") or "–"), _e(x.get("hypothesis") or "–"),
         f"<code>{_e(x.get('audio_filepath', ''))}</code>"]
        for x in errors[:_NUMBERS]
    ]  # fmt: skip
    more = f'<p class="soft">{len(errors) - _NUMBERS} more in score.json.</p>' if len(errors) > _NUMBERS else ""
    return _section("Numbers and units", _table(["kind", "said", "heard", "audio"], rows), more if rows else "")


def _worst_rows(rows: Mapping[str, Any], mode: str) -> str:
    after, before = rows.get("after") or rows.get("before") or [], rows.get("before") or []
    wrong = [row for row in after if row.get("wer") or row.get("ker")]
    wrong.sort(key=lambda row: (-(row.get("ker") or 0), -(row.get("wer") or 0), str(row.get("audio_filepath"))))
    earlier = {row.get("audio_filepath"): row for row in before} if rows.get("after") else {}
    normal = normaliser(mode)
    shown = []
    for row in wrong[:_WORST_ROWS]:
        said = normal(str(row.get("text") or "")).split()
        cells = [
            f"<code>{_e(row.get('audio_filepath', ''))}</code>",
            _diff(said, normal(str(row.get("pred_text") or ""))),
        ]
        if earlier:
            old = earlier.get(row.get("audio_filepath"))
            cells.insert(1, _diff(said, normal(str(old.get("pred_text") or ""))) if old else "–")
        shown.append(cells)
    head = ["audio", *(["before"] if earlier else []), "after" if earlier else "heard"]
    note = '<p class="soft">As scored: <del>said, not heard</del> <ins>heard, not said</ins></p>'
    return _section("Worst rows", note if shown else "", _table(head, shown))


def _diff(said: list[str], heard: str) -> str:
    parts = []
    for kind, reference, hypothesis in word_chunks(said, heard.split()):
        if kind == "equal":
            parts.append(_e(reference))
            continue
        parts += [f"<del>{_e(reference)}</del>"] if reference else []
        parts += [f"<ins>{_e(hypothesis)}</ins>"] if hypothesis else []
    return " ".join(parts)


def _receipt(receipt: Any) -> str:
    lines = _flat(receipt) if receipt else []
    more = f'<p class="soft">{len(lines) - _RECEIPT} more lines in receipt.json.</p>' if len(lines) > _RECEIPT else ""
    return _section(
        "Receipt", _table([], ([f"<code>{_e(name)}</code>", _e(value)] for name, value in lines[:_RECEIPT])), more
    )


def _flat(value: Any, name: str = "", depth: int = 0) -> list[tuple[str, object]]:
    """Nested objects as (dotted name, plain value) pairs."""
    if isinstance(value, Mapping) and depth < 8:
        return [p for k, v in value.items() for p in _flat(v, f"{name}.{k}" if name else str(k), depth + 1)]
    if isinstance(value, (list, tuple)) and any(isinstance(v, (Mapping, list, tuple)) for v in value) and depth < 8:
        return [p for i, v in enumerate(value, 1) for p in _flat(v, f"{name}.{i}", depth + 1)]
    if isinstance(value, (list, tuple)):
        value = ", ".join(str(v) for v in value)
    return [(name, "–" if value is None else value)]


def _artifacts(artifacts: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [f"<code>{_e(a.get('path', ''))}</code>", _size(a.get("bytes")), f"<code>{_e(a.get('sha256', ''))}</code>"]
        for a in artifacts
    ]
    return _section("What came home", _table(["file", "size", "SHA-256"], rows, [1]))


def _size(count: object) -> str:
    if not isinstance(count, (int, float)):
        return "–"
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
