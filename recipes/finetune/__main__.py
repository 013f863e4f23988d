"""`python -m recipes.finetune SPEC.json OUT/`: exit codes and files as recipes/contract.py says."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from recipes.finetune.command import Command

FINETUNE = Command()


def main(argv: Sequence[str]) -> int:
    """Run the recipe; returns its exit code. Every ending is one line on stderr."""
    return FINETUNE.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
