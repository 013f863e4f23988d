"""`python -m recipes.finetune SPEC.json OUT/`: exit codes and files as recipes/contract.py says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.contract import RESULT, EventLog, RecipeExit, RecipeFailure, write_json
from recipes.entry import load_spec
from recipes.finetune.spec import FinetuneSpec
from recipes.models.bases import refusal

USAGE = "usage: python -m recipes.finetune SPEC.json OUT/"


def read_spec(path: Path) -> FinetuneSpec:
    """The spec in a file, paths absolute. Raises RecipeFailure(BAD_INPUT): file, field, value, fix."""
    spec = load_spec(path, FinetuneSpec)
    named = Path(spec.base).stem if spec.base_is_path else spec.base
    reason = None if spec.allow_unsupported_base else refusal(named)
    if reason:
        raise RecipeFailure(RecipeExit.BAD_INPUT, f"{path}  base: {reason}")
    return spec.resolved(path.absolute().parent)


def main(argv: Sequence[str]) -> int:
    """Run the recipe; returns its exit code. Every ending is one line on stderr."""
    if len(argv) != 2:
        print(USAGE, file=sys.stderr)  # noqa: T201
        return int(RecipeExit.BAD_INPUT)
    out, started = Path(argv[1]).absolute(), False
    try:
        spec = read_spec(Path(argv[0]))
        out.mkdir(parents=True, exist_ok=True)
        started = True
        from recipes.models.quiet import import_nemo_quietly

        import_nemo_quietly(out / "nemo.log")
        from recipes.finetune.run import finetune

        code, line = finetune(spec, out)
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
