"""What a recipe that prepares a base and then trains as `finetune` does adds to the training and to its artefacts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Beside:
    """Nothing, for `finetune` itself.

    `base_identity`: what the prepared base was made from; two runs with the same one may share checkpoints, even
    where the bytes of the base differ. `artifacts`: paths relative to OUT, worth less than the model. `metrics`: for
    result.json. `tells_stage`: whether validations say how far a new language has come (stages.py).
    """

    recipe: str = "finetune"
    base_identity: str | None = None
    artifacts: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    tells_stage: bool = False
