"""`python -m recipes.extend_vocabulary SPEC.json OUT/`: extends the vocabulary, then trains as `finetune`.

Files and exit codes as recipes/contract.py says; 14 (the gate) when the old language's transcripts changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.contract import EventLog
from recipes.extend_vocabulary.spec import ExtendVocabularySpec
from recipes.finetune.beside import Beside
from recipes.finetune.command import Command
from recipes.finetune.data import Sets
from recipes.finetune.spec import FinetuneSpec


def _check(spec: FinetuneSpec, sets: Sets) -> None:
    from recipes.extend_vocabulary.checking import check

    check(spec, sets)


def _prepare(spec: FinetuneSpec, out: Path, sets: Sets, events: EventLog) -> tuple[FinetuneSpec, Beside]:
    from recipes.extend_vocabulary.extending import prepare  # torch and NeMo: only once the input is known to be good

    return prepare(spec, out, sets, events)


EXTEND = Command("extend_vocabulary", ExtendVocabularySpec, _check, _prepare)


def main(argv: Sequence[str]) -> int:
    """Run the recipe; returns its exit code. Every ending is one line on stderr."""
    return EXTEND.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
