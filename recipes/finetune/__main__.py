"""`python -m recipes.finetune SPEC.json OUT/`: exit codes and files as recipes/contract.py says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.contract import RESULT, EventLog, RecipeExit, RecipeFailure, write_json
from recipes.entry import load_spec
from recipes.finetune.data import load_sets
from recipes.finetune.spec import FinetuneSpec
from recipes.models.opening import check_base
from recipes.models.quiet import import_nemo_quietly

USAGE = "usage: python -m recipes.finetune SPEC.json OUT/"


def read_spec(path: Path) -> FinetuneSpec:
    """The spec in a file, paths absolute. Raises RecipeFailure(BAD_INPUT): file, field, value, fix."""
    return load_spec(path, FinetuneSpec).resolved(path.absolute().parent)


def main(argv: Sequence[str]) -> int:
    """Run the recipe; returns its exit code. Every ending is one line on stderr."""
    if len(argv) != 2:
        print(USAGE, file=sys.stderr)  # noqa: T201
        return int(RecipeExit.BAD_INPUT)
    out, started = Path(argv[1]).absolute(), False
    try:
        spec = read_spec(Path(argv[0]))
        events = EventLog(out)
        started = True
        events.emit("phase", name="loading")
        sets = load_sets(spec, lambda message: events.emit("warning", message=message))
        check_base(spec.base, is_path=spec.base_is_path, allow_unsupported=spec.allow_unsupported_base)
        import_nemo_quietly(out / "nemo.log")  # takes seconds: only once the input is known to be good
        from recipes.finetune.run import finetune

        code, line = finetune(spec, out, sets)
    except RecipeFailure as failure:
        code, line = failure.code, failure.message
        if started:
            EventLog(out).emit("failure", code=int(code), message=line)
            status = code.name.lower()
            write_json(out / RESULT, {"status": status, "metrics": {"reason": line}, "artifacts": []})
    print(f"finetune: {line}", file=sys.stderr)  # noqa: T201
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
