"""Runs a recipe here and now, in the foreground: what `evaluate` and `transcribe` do, and `tune` for its baseline."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.bundle import stage_code
from launcher.clock import Clock
from launcher.environment import recipe_python
from launcher.errors import BadInputError, LauncherError, RecipeError
from launcher.hosts.local import inherited_environment
from recipes.contract import EVENTS, RESULT, RecipeExit, damaged, read_complete, read_events, write_json

PATIENCE_S = 10.0


def run_here(recipe: str, spec: dict[str, Any], out: Path, clock: Clock,
             on_event: Callable[[dict[str, Any]], None], within_s: float = math.inf) -> dict[str, Any]:  # fmt: skip
    """Run `recipes.<recipe>` to its end and return its result.json; artefacts are checked against COMPLETE.json.

    Raises BadInputError (exit 2) for what the recipe calls bad input, RecipeError (exit 5) for any other failure,
    such as not being done within `within_s` seconds.
    Ctrl-C ends the recipe before it is raised again.
    """
    python = recipe_python()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="launcher-") as scratch:
        folder = Path(scratch)
        stage_code(folder / "code")
        write_json(folder / "spec.json", spec)
        with (out / "log.txt").open("ab") as log:
            begins = log.tell()
            process = subprocess.Popen(
                [str(python), "-m", f"recipes.{recipe}", str(folder / "spec.json"), str(out)],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**inherited_environment(), "PYTHONPATH": str(folder / "code"), "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        code = _follow(process, out, clock, on_event, within_s)
    listed = read_complete(out)
    if code != RecipeExit.DONE or listed is None:
        raise _failure(recipe, code, out / "log.txt", begins)
    bad = damaged(out, listed)
    if bad:
        raise RecipeError(f"{recipe} left damaged files: {', '.join(bad)}", file=out)
    result: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return result


def _follow(process: subprocess.Popen[bytes], out: Path, clock: Clock,
            on_event: Callable[[dict[str, Any]], None], within_s: float) -> int:  # fmt: skip
    ends = clock.monotonic() + within_s
    offset = (out / EVENTS).stat().st_size if (out / EVENTS).exists() else 0
    try:
        while True:
            code = process.poll()  # asked before reading: what it wrote last is still read
            for after, event in read_events(out / EVENTS, offset):
                offset = after
                on_event(event)
            if code is not None:
                return code
            if clock.monotonic() > ends:
                raise RecipeError(f"it was not done within {within_s:.0f} s", file=out)
            clock.sleep(0.1)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _failure(recipe: str, code: int, log: Path, begins: int) -> LauncherError:
    with log.open("rb") as file:
        file.seek(begins)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    words = lines[-1] if lines else f"exit code {code}"
    if code == RecipeExit.BAD_INPUT:
        return BadInputError(words.removeprefix("error: "))
    return RecipeError(f"{recipe} failed: {words}", file=log, fix="The log has the whole story.")
