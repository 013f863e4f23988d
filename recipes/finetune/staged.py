"""A training that says, at each validation, how far a language that it learns from nothing has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from recipes.finetune.data import Row
from recipes.finetune.rules import Validation
from recipes.finetune.stages import WORDS, stage_of
from recipes.finetune.training import Training


@dataclass
class StagedTraining(Training):
    """As any training, with a `stage` event beside each validation's WER."""

    _heard: list[str] = field(default_factory=list)

    def decode(self, rows: Sequence[Row]) -> list[str]:
        """Hypotheses of rows; those of the validation set are what the stage is told from."""
        texts = super().decode(rows)
        if rows is self.validation:
            self._heard = texts
        return texts

    def validate(self) -> Validation:
        """Validate, and say the stage. Raises as any training does."""
        found = super().validate()
        said, wers = [row.text for row in self.validation], [each.wer for each in self.stops.history]
        stage = stage_of(said, self._heard, wers)
        self.events.emit("stage", name=stage, step=found.step, message=WORDS[stage])
        return found
