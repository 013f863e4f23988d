"""The rows as a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEAD = """# What is left billing: plain SkyPilot and the launcher, on the same simulated cloud

Written by `make leaks` (`bench/leaks`). Both rent through SkyPilot 0.14.1 where the row does not say otherwise, at
the same simulated provider, with the same faults. *Needless*: what was billed after nobody needed the machine.
"""


def write_table(rows: dict[str, Any], path: Path) -> None:
    """One line a row, then each side's own words."""
    both = [row for row in rows.values() if "plain" in row and "ours" in row]
    ours, plain = (sum(row[name]["holds"] for row in both) for name in ("ours", "plain"))
    lines = [HEAD, f"Of {len(both)} rows plain SkyPilot holds {plain}, the launcher {ours}.", "",
             "| what was done | to hold is | plain SkyPilot | the launcher |", "|---|---|---|---|"]  # fmt: skip
    lines += [f"| {row['done']} | {row['rule']} | {_cell(row.get('plain'))} | {_cell(row.get('ours'))} |"
              for row in rows.values()]  # fmt: skip
    lines += ["", "## In detail", ""]
    for key, row in rows.items():
        lines.append(f"**{key}**: {row['done']}")
        lines += [f"- {name}: {_detail(row[name])}" for name in ("plain", "ours") if name in row]
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")


def _cell(record: dict[str, Any] | None) -> str:
    if record is None:
        return "not measured yet"
    how = "holds" if record["holds"] else f"**no**: {_plain(record['why'])}"
    spent = f"{record['needless_s']:.0f} s, ${record['needless_usd']} needless" if record["needless_s"] >= 1 else ""
    return "; ".join(part for part in (how, spent, f"exit {_code(record)}") if part)


def _detail(record: dict[str, Any]) -> str:
    facts = "".join(f", {name} {value}" for name, value in record["facts"].items())
    return (
        f"{record['did']}. Machines {record['machines']}, billing at the end {record['alive']}; billed "
        f"${record['billed_usd']}, needless ${record['needless_usd']} ({record['needless_s']:.0f} s){facts}. "
        f"Exit {_code(record)}. It said: {_plain(record['said'])} "
        f"({record['measured_utc']}, commit {record['commit']})"
    )


def _code(record: dict[str, Any]) -> str:
    return "never came" if record["exit"] is None else str(record["exit"])


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ").replace("<", "&lt;")
