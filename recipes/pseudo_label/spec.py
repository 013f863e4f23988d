"""The settings of recipe `pseudo_label`; no torch here, so that the launcher can show and check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.evaluate.spec import DecodingSpec

Kind = Literal["nemo", "whisper"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

#: Below it a row is filtered, unless the job says another. Whisper's is openai-whisper's own bound of a failed
#: decoding (transcribe.py, logprob_threshold -1.0) as a probability. Of a NeMo model's there is no published one:
#: docs/pseudo-labels.md has what ours was chosen by, and report.md of each run what another would keep.
LEAST_CONFIDENCE: dict[Kind, float] = {"nemo": 0.8, "whisper": 0.37}


class PseudoLabelSpec(DecodingSpec):
    """Which teacher hears which audio, and which of what it hears is kept."""

    model: str = Field(
        description="the teacher: a .nemo file or its pretrained name, or a Whisper model of transformers, as a "
        "folder or a name such as aadel4/kid-whisper-small-en-myst"
    )
    teacher_kind: Literal["auto", "nemo", "whisper"] = Field(
        "auto", description="auto: whisper for a folder and for a name that says whisper, else nemo"
    )
    teacher_name: str | None = Field(None, description="what each row calls its teacher; absent: the model's name")
    trust_base: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of a .nemo whose weights may run its maker's programs"
    )
    manifest: str = Field(description="a folder of audio, or a NeMo manifest; a text in it is replaced")
    language: str | None = Field(
        None, description="spoken language, for a multilingual Whisper (en, es, ...); absent: it listens for it"
    )
    text_style: Literal["as_heard", "plain"] = Field(
        "as_heard",
        description="plain: lower case without punctuation, for a student whose tokenizer has neither",
    )
    min_confidence: Share | Literal["auto"] = Field(
        "auto",
        description="rows below are filtered, 0-1; auto: 0.8 for a .nemo, 0.37 for a Whisper (exp of openai's "
        "avg_logprob bound of -1), none where keep_fraction is given",
    )
    keep_fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="of the rows that pass all else, keep this share, the most confident"
    )
    min_clip_s: float = Field(0.5, ge=0, description="seconds; shorter clips are not transcribed: hardly a word fits")
    max_clip_s: float = Field(
        20.0, gt=0, description="seconds; longer clips are not transcribed: finetune leaves them out by default"
    )
    min_characters_per_s: float = Field(
        1.0, ge=0, description="fewer: most of the speech was not heard; 0: any (speech has about 15)"
    )
    max_characters_per_s: float = Field(30.0, gt=0, description="more: nobody speaks so fast, it was made up")
    max_repeats: int = Field(
        4, ge=1, description="the same words (1 to 8) in a row more often than this: a teacher caught in a loop"
    )
    max_compression_ratio: float = Field(
        2.4, gt=0, description="text bytes over zlib's; more is a loop (openai-whisper's compression_ratio_threshold)"
    )
    max_no_speech: Share = Field(
        0.6,
        description="of a Whisper: above it, with avg_logprob below -1, there was no speech (openai's thresholds)",
    )

    @model_validator(mode="after")
    def _ranges(self) -> PseudoLabelSpec:
        if self.min_clip_s >= self.max_clip_s:
            raise ValueError("min_clip_s must be below max_clip_s")
        if self.min_characters_per_s >= self.max_characters_per_s:
            raise ValueError("min_characters_per_s must be below max_characters_per_s")
        if self.language is not None and self.kind == "nemo":
            raise ValueError("language is for a Whisper teacher: a .nemo hears what it has learned")
        return self

    @property
    def kind(self) -> Kind:
        """Which kind of teacher it is."""
        return kind_of(self.model) if self.teacher_kind == "auto" else self.teacher_kind

    @property
    def name(self) -> str:
        """What each row calls its teacher."""
        return self.teacher_name or (Path(self.model).name if Path(self.model).exists() else self.model)

    @property
    def least_confidence(self) -> float | None:
        """The confidence below which a row is filtered; None: there is no such bound."""
        if self.min_confidence != "auto":
            return self.min_confidence
        return LEAST_CONFIDENCE[self.kind] if self.keep_fraction is None else None


def kind_of(model: str) -> Kind:
    """Which kind of teacher a name means: a folder is a Whisper of transformers, and so is a name that says so."""
    if model.endswith(".nemo"):
        return "nemo"
    return "whisper" if Path(model).is_dir() or "whisper" in model.rsplit("/", 1)[-1].lower() else "nemo"


def fault_of_whisper(folder: Path) -> str | None:
    """What keeps a folder from being a Whisper of transformers, by its config.json; None for any other place."""
    if not folder.is_dir():
        return None
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        return "no config.json in it: a teacher's folder is one that transformers' save_pretrained wrote"
    except (OSError, ValueError, AttributeError) as error:
        return f"its config.json cannot be read ({error})"
    return None if kind == "whisper" else f"its config.json says model_type {kind}, not whisper"


SPEC = PseudoLabelSpec
LABELLED, FILTERED = "labelled.jsonl", "filtered.jsonl"  # in OUT
SUMMARY = "Let a teacher, a .nemo or a Whisper, transcribe unlabelled audio into a manifest to learn from."
#: Filled in by the launcher from a job's `data`.
DATA_FIELDS = ("manifest",)
