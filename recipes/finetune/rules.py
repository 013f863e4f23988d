"""When training stops by itself, and when what it made has collapsed: plain functions of plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from rapidfuzz.distance import Levenshtein

#: A hypothesis of which more than this share are unknown tokens counts as collapsed.
UNKNOWN_SHARE = 0.5
#: The share of collapsed hypotheses from which a validation counts as collapsed.
COLLAPSED_SHARE = 0.9
#: Above this WER a model has not begun to speak, so patience does not run yet.
NOT_YET_SPEAKING = 0.9


@dataclass
class Validation:
    """One validation: WER (errors a reference word), mean training loss since the last, collapsed hypotheses."""

    step: int
    wer: float
    train_loss: float | None
    collapsed: float


@dataclass
class Stops:
    """What early stopping remembers; goes into the checkpoints."""

    patience: int
    history: list[Validation] = field(default_factory=list)

    @property
    def best(self) -> Validation | None:
        """The best trained validation (the untrained base is step 0 and does not count); the earliest of equals."""
        trained = [v for v in self.history if v.step > 0]
        return min(trained, key=lambda v: (v.wer, v.step)) if trained else None

    def add(self, validation: Validation) -> None:
        """Append one; a repeated step (after a resume) replaces what was known of it and later."""
        self.history = [v for v in self.history if v.step < validation.step] + [validation]

    def stop_reason(self) -> str | None:
        """Why training should stop now, or None.

        Stops on `patience` validations in a row without a better WER; and, earlier, on two rises of the WER in a
        row while the training loss fell (overfitting).
        """
        trained = [v for v in self.history if v.step > 0]
        best = self.best
        if not self.patience or best is None or best.wer > NOT_YET_SPEAKING:
            return None
        since = [v for v in trained if v.step > best.step]
        if len(since) >= self.patience:
            return f"validation WER has not improved for {self.patience} validations"
        last = trained[-3:]
        rising = len(last) == 3 and last[0].wer < last[1].wer < last[2].wer
        if rising and all(_falls(a.train_loss, b.train_loss) for a, b in pairwise(last)):
            return "validation WER rises while the training loss falls (overfitting)"
        return None

    def collapse(self) -> str | None:
        """The message of a collapse, or None.

        A model that knew the words before training (WER below NOT_YET_SPEAKING) and whose hypotheses are blank or
        unknown in two validations in a row has collapsed. One that knew nothing, as with random weights, often
        passes through silence while it learns.
        """
        if len(self.history) < 3 or self.history[0].step != 0 or self.history[0].wer >= NOT_YET_SPEAKING:
            return None
        if all(v.collapsed >= COLLAPSED_SHARE for v in self.history[-2:]):
            last = self.history[-1]
            return (
                f"collapsed: {last.collapsed:.0%} of the validation hypotheses are blank or unknown tokens at step "
                f"{last.step}, {self.history[0].collapsed:.0%} before training. Lower learning_rate, or take a base "
                "that the table of bases recommends."
            )
        return None

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"history": [asdict(v) for v in self.history]}

    def load(self, state: dict[str, Any], every: int) -> None:
        """From a checkpoint of a run that validates `every` so many steps.

        A validation between, made because someone asked to stop, is forgotten: a run that was stopped and resumed
        ends where an unbroken one does.
        """
        self.history = [v for v in (Validation(**v) for v in state["history"]) if v.step % every == 0]


def _falls(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after < before


def collapsed_share(hypotheses: Sequence[str]) -> float:
    """Share of hypotheses that are empty or mostly unknown tokens (`⁇`, `<unk>`), 0 to 1."""
    if not hypotheses:
        return 0.0
    return sum(_is_collapsed(text) for text in hypotheses) / len(hypotheses)


def _is_collapsed(text: str) -> bool:
    words = text.replace("<unk>", "⁇").split()
    unknown = sum("⁇" in word for word in words)
    return not words or unknown / len(words) > UNKNOWN_SHARE


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Word edit distance (Levenshtein) and the number of reference words; plain whitespace words, no normalising."""
    ref, hyp = reference.split(), hypothesis.split()
    return int(Levenshtein.distance(ref, hyp)), len(ref)


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate over all rows together, as NeMo's val_wer: all errors / all reference words.

    Without a single reference word: 0.0 when every hypothesis is empty too, else the errors a row.
    """
    pairs = [word_errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
    errors, words = sum(e for e, _ in pairs), sum(w for _, w in pairs)
    return errors / (words or max(1, len(pairs)))
