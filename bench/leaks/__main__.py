"""`python -m bench.leaks [ROW ...]`: each row of what plain SkyPilot does, done to it and to us, side by side.

Both sides rent at a simulated RunPod (tests/cloud: real sshd, real SkyPilot 0.14.1, its own bill), each in a cloud of
its own with the same seed and faults, at the same time. The oracle is the cloud's bill: what bills when the watch is
over, and what was billed after nobody needed it; beside it stand the exit code and the last words that a user got.
Minutes are real ones: SkyPilot's shortest autodown is one idle minute. What was made shorter is named in the row.
Needs root and the extra `cloud`. Keeps each row in bench/results/leaks.json and leaks.md; exit 1 where ours fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.leaks.ours import Ours
from bench.leaks.plain import Plain
from bench.leaks.row import Row
from bench.leaks.rows import ROWS
from bench.leaks.side import ROOT, Side, utc
from bench.leaks.table import write_table

RESULT = ROOT / "bench" / "results" / "leaks.json"


def main() -> int:
    """Play the rows that were asked for, keep and print what came of them."""
    keys = [row.key for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"default: all of {' '.join(keys)}")
    parser.add_argument("--jobs", type=int, default=1, help="rows at once (default 1); each has two clouds")
    parser.add_argument("--only", choices=("plain", "ours"), help="one side alone; what is kept of the other stays")
    asked = parser.parse_args()
    if wrong := set(asked.rows) - set(keys):
        parser.error(f"no such row: {', '.join(sorted(wrong))}. There are: {', '.join(keys)}")
    if os.geteuid() != 0:
        print("left out: simulated machines are made of namespaces, which needs root")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing standing
    chosen = [row for key in asked.rows or keys for row in ROWS if row.key == key]
    sides = (asked.only,) if asked.only else ("plain", "ours")
    bad = 0
    place = tempfile.TemporaryDirectory(prefix="launcher-leaks-", ignore_cleanup_errors=True)
    with place as folder, ThreadPoolExecutor(asked.jobs) as pool:
        begun = {pool.submit(play, row, Path(folder), sides): row for row in chosen}
        for done in as_completed(begun):
            row, held = begun[done], done.result()
            for name in sides:
                record = held[name]
                print(f"{row.key}, {name}: {'holds' if record['holds'] else record['why']} "
                      f"({record.get('needless_s', 0):.0f} s needless, exit {record.get('exit')}: "
                      f"{record.get('said')})", flush=True)  # fmt: skip
            keep(row, held)
            bad += not held.get("ours", {"holds": True})["holds"]
    return 1 if bad else 0


def play(row: Row, folder: Path, sides: tuple[str, ...]) -> dict[str, Any]:
    """Both sides of a row at once: their records."""
    with ThreadPoolExecutor(len(sides)) as pool:
        told = list(pool.map(lambda name: play_side(row, folder / f"{row.key}-{name}", name), sides))
    return dict(zip(sides, told, strict=True))


def play_side(row: Row, folder: Path, name: str) -> dict[str, Any]:
    """One side, to its record; one that cannot be played holds nothing. Leaves nothing behind."""
    side = None
    try:
        side = Side(folder, *row.words, bare=row.bare)
        party: Plain | Ours = Plain(side) if name == "plain" else Ours(side)
        try:
            seen = row.plain(party) if isinstance(party, Plain) else row.ours(party)
            watched = side.watch(row.watch_s)
            record = judged(row, side, seen, watched)
        except Exception:
            if isinstance(party, Plain):
                print(f"{row.key}, plain, said last: {party.log[-1500:]}", flush=True)
            raise
        finally:
            party.close()
    except Exception as error:  # noqa: BLE001  the other side and the other rows go on
        traceback.print_exc()
        record = {"holds": False, "why": f"could not be played: {type(error).__name__}: {error}"[:500]}
    finally:
        if side is not None:
            side.close()
    return record


def judged(row: Row, side: Side, seen: Any, watched: float) -> dict[str, Any]:
    """What the bill says of it."""
    rows, (seconds, usd) = side.rows(), side.needless(seen.needed_until)
    alive = [one for one in rows if one["bills"]]
    rate = sum((Decimal(str(one["usd_per_hour"])) for one in alive), Decimal(0))
    record = {
        "did": seen.did, "exit": seen.exit, "said": seen.said, "machines": len(rows), "alive": len(alive),
        "usd_per_hour_alive": str(rate), "watched_s": round(watched, 1), "needless_s": round(seconds, 1),
        "needless_usd": f"{usd:.4f}", "billed_usd": str(sum((Decimal(str(one["usd"])) for one in rows), Decimal(0))),
        "facts": seen.facts, "measured_utc": utc(), "commit": commit(), "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    why = row.judge(record)
    return {**record, "holds": not why, "why": why}


def commit() -> str:
    """The last commit of what was measured, with a + where the tree has more than that."""
    git = ["git", "-C", str(ROOT)]
    last = [*git, "log", "-1", "--format=%h", "--", "launcher"]
    short = subprocess.run(last, capture_output=True, text=True, check=False)
    more = subprocess.run([*git, "status", "--porcelain", "launcher"], capture_output=True, text=True, check=False)
    return short.stdout.strip() + ("+" if more.stdout.strip() else "")


def keep(row: Row, held: dict[str, Any]) -> None:
    """Put a row's sides beside those that are kept; one that could not be played is told, and not kept."""
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    played = {name: record for name, record in held.items() if "did" in record}
    if not played:
        return
    kept[row.key] = {**kept.get(row.key, {}), "done": row.done, "rule": row.rule, "watch_s": row.watch_s, **played}
    ordered = {row.key: kept[row.key] for row in ROWS if row.key in kept}
    text = json.dumps(ordered, indent=1, ensure_ascii=False).replace(f"{ROOT}/", "")  # what SkyPilot said names it
    RESULT.write_text(text + "\n", encoding="utf-8")
    write_table(json.loads(text), RESULT.with_suffix(".md"))


if __name__ == "__main__":
    sys.exit(main())
