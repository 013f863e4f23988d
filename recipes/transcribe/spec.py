"""The settings of recipe `transcribe`; no torch here, so that the launcher can show and check them."""

from __future__ import annotations

from pydantic import Field

from recipes.evaluate.spec import DecodingSpec


class TranscribeSpec(DecodingSpec):
    """Which model hears which clips."""

    model: str = Field(description="a .nemo file, or a pretrained name such as nvidia/parakeet-…")
    audio: list[str] = Field(min_length=1, description="audio files: WAV, FLAC, MP3, OGG; any rate and channels")
    against: str | None = Field(None, description="another model, to show where the two differ")


SPEC = TranscribeSpec
SUMMARY = "Try a model on clips of your own, and see where another hears something else."
#: Filled in by the launcher from a job's `data`: nothing, the clips are named one by one.
DATA_FIELDS: tuple[str, ...] = ()
