"""The results as a table: cases by provider, who died, and the layer that made the rescue."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

LAYERS = {
    "none": "no machine was alive", "L0": "L0 resume", "L1": "L1 sentinel", "L2": "L2 reaper", "L3": "L3 watchdog",
}  # fmt: skip


def newest(results: Path) -> list[dict[str, Any]]:
    """The last result of each case."""
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return list({row["case"]: row for row in rows}.values())


def write_table(results: Path) -> None:
    """Write the table beside the results."""
    rows = newest(results)
    played = [row for row in rows if row["reached"]]
    leaks = [row for row in rows if row["alive_at_end"]]
    over = [row for row in rows if float(row["billed_usd"]) > float(row["ceiling_usd"])]
    lines = [
        "# Kills at failpoints", "",
        "Written by `make faults`. Each case kills -9 a process of ours at one failpoint of a whole rented run on",
        "the simulated cloud, switches other layers off, lets one do its work, and asks the cloud's own bill.", "",
        f"**{len(played)} cases: {len(leaks)} leaks, {len(over)} charges above the ceiling, "
        f"{sum(bool(row['faults']) for row in rows)} with any fault.** "
        f"{len(rows) - len(played)} more never came to their failpoint (the run ended before) and count for nothing.",
        "", "| provider | recipe | who died | alone left to act | " + " | ".join(LAYERS.values()) + " | cases |",
        "|---|---|---|---|" + "---:|" * (len(LAYERS) + 1),
    ]  # fmt: skip
    groups = Counter((row["provider"], row["recipe"], row["who"], row["rescue"]) for row in played)
    for group, count in sorted(groups.items()):
        here = [row for row in played if (row["provider"], row["recipe"], row["who"], row["rescue"]) == group]
        by = Counter(row["rescued_by"] for row in here)
        lines.append("| " + " | ".join([*group, *(str(by[name] or "") for name in LAYERS), str(count)]) + " |")
    by = Counter(row["rescued_by"] for row in played)
    names, alive = {row["point"].partition(":")[0] for row in played}, len(played) - by["none"]
    lines += [
        "| **all** | | | | " + " | ".join(str(by[name] or "") for name in LAYERS) + f" | **{len(played)}** |", "",
        f"Distinct failpoints: {len(names)}. In {alive} cases a machine was alive when we died.", "",
    ]  # fmt: skip
    faulty = [row for row in rows if row["faults"]]
    if faulty:
        lines += ["## Faults", "", *(f"- `{row['case']}`: {'; '.join(row['faults'])}" for row in faulty), ""]
    schedules = results.with_name("schedules.jsonl")
    if schedules.exists():
        lines += _schedules([json.loads(line) for line in schedules.read_text(encoding="utf-8").splitlines()])
    results.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


def _schedules(rows: list[dict[str, Any]]) -> list[str]:
    """The random schedules, by provider and by the layer that made the last delete."""
    leaks = [row for row in rows if row["alive_at_end"]]
    over = [row for row in rows if float(row.get("billed_usd", 0)) > float(row.get("ceiling_usd", 0))]
    deaths = sum(row["killed"] for row in rows)
    lines = [
        "# Random schedules", "",
        "Written by `python -m tests.faults.schedules`: provider faults in any mixture, kills of the runner, of its",
        "sentinel or of both at random microseconds, and whoever goes on afterwards; by the cloud's own bill.", "",
        f"**{len(rows)} schedules, {deaths} kills: {len(leaks)} leaks, {len(over)} charges above the ceiling, "
        f"{sum(bool(row['faults']) for row in rows)} with any fault.**", "",
        "| provider | no death met a machine | L0 | L1 | L2 | schedules | kills | leaks | overcharges |",
        "|---|" + "---:|" * 8,
    ]  # fmt: skip
    for provider in sorted({row["provider"] for row in rows}):
        here = [row for row in rows if row["provider"] == provider]
        by = Counter(row["rescued_by"] for row in here)
        counts = [*(by[name] for name in ("none", "L0", "L1", "L2")), len(here), sum(row["killed"] for row in here),
                  sum(row in leaks for row in here), sum(row in over for row in here)]  # fmt: skip
        lines.append("| " + " | ".join([provider, *map(str, counts)]) + " |")
    for row in rows:
        lines += [f"- {', '.join(row['steps'])}: {'; '.join(row['faults'])}"] if row["faults"] else []
    return [*lines, ""]
