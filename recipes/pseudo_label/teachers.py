"""Opens a teacher, of either kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from recipes.contract import RecipeExit, RecipeFailure
from recipes.pseudo_label.heard import Heard
from recipes.pseudo_label.spec import PseudoLabelSpec, fault_of_whisper


class Teacher(Protocol):
    """What both kinds are."""

    batch_size: int

    @property
    def longest_s(self) -> float:
        """Seconds that it hears at once: a longer clip goes to it in pieces."""

    def call(self, sources: Sequence[Any]) -> list[Heard]:
        """What it hears in files (Path) and samples ((n,), 16 kHz), in order."""


def open_teacher(spec: PseudoLabelSpec, log: Path, warn: Callable[[str], None]) -> Teacher:
    """A teacher that is ready to hear. RecipeFailure (bad input) for one that is not there or is none."""
    if spec.kind == "whisper":
        fault = fault_of_whisper(Path(spec.model))
        if fault is not None:
            raise RecipeFailure(RecipeExit.BAD_INPUT, f"model {spec.model}: {fault}.")
        from recipes.models.quiet import quieten
        from recipes.pseudo_label.whisper_teacher import WhisperTeacher

        quieten(log)
        return WhisperTeacher(spec, warn)
    from recipes.evaluate.offline import open_model
    from recipes.pseudo_label.nemo_teacher import NemoTeacher

    return NemoTeacher(open_model(spec.model, spec.device, log, spec.trust_base), spec, warn)
