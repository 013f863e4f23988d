"""The base models we know by name: what is recommended, what is refused and why. Needs no torch.

Sizes here choose and explain; everything a run computes with (vocabulary, mel bands, layers) is read from the
model itself, because such numbers copied into tables have been wrong before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["tdt", "rnnt", "ctc", "hybrid"]


@dataclass(frozen=True)
class Base:
    """One pretrained model. `parameters_millions` is approximate, for estimates before it is downloaded."""

    name: str
    kind: Kind
    parameters_millions: int
    languages: str
    note: str
    recommended: bool = False
    refused_because: str | None = None
    instead: str | None = None


DEFAULT_BASE = "nvidia/parakeet-tdt-0.6b-v2"

BASES: tuple[Base, ...] = (
    Base(DEFAULT_BASE, "tdt", 618, "en", "the recommended English base", recommended=True),
    Base(
        "nvidia/parakeet-tdt-0.6b-v3",
        "tdt",
        627,
        "25 European languages",
        "8 times v2's vocabulary, so 8 times its joint memory",
        recommended=True,
    ),
    Base("nvidia/parakeet-tdt-1.1b", "tdt", 1071, "en", "larger; out of memory on 24 GB at batch 2"),
    Base("nvidia/parakeet-tdt_ctc-110m", "hybrid", 114, "en", "small: a GPU of 8 GB is enough"),
    Base("nvidia/parakeet-tdt_ctc-1.1b", "hybrid", 1072, "en", "larger, with punctuation"),
    Base("nvidia/parakeet-rnnt-0.6b", "rnnt", 618, "en", "transducer without durations"),
    Base("nvidia/parakeet-rnnt-1.1b", "rnnt", 1071, "en", "transducer without durations, larger"),
    Base("nvidia/parakeet-ctc-0.6b", "ctc", 609, "en", "no joint network: the least memory a size"),
    Base("nvidia/parakeet-ctc-1.1b", "ctc", 1062, "en", "no joint network, larger"),
    Base("stt_en_conformer_ctc_large", "ctc", 121, "en", "the legacy fall-back"),
    Base("nvidia/stt_en_conformer_ctc_large", "ctc", 121, "en", "the legacy fall-back"),
    Base("nvidia/stt_en_fastconformer_ctc_large", "ctc", 115, "en", "small, CTC"),
    Base("nvidia/stt_en_fastconformer_transducer_large", "rnnt", 114, "en", "small, transducer"),
    Base("nvidia/stt_en_fastconformer_hybrid_large_pc", "hybrid", 115, "en", "small, with punctuation"),
    Base(
        "nvidia/nemotron-speech-streaming-en-0.6b",
        "rnnt",
        618,
        "en",
        "cache-aware streaming",
        refused_because="fine-tuning this streaming base is unreliable: validation collapses to unknown tokens "
        "after the first steps",
        instead=DEFAULT_BASE,
    ),
)


def known_base(name: str) -> Base | None:
    """The table's row for a pretrained name (the owner may be left out), or None."""
    short = name.rsplit("/", 1)[-1].lower()
    for base in BASES:
        if base.name.lower() == name.lower():
            return base
    return next((base for base in BASES if base.name.rsplit("/", 1)[-1].lower() == short), None)


def refusal(name: str) -> str | None:
    """Why this base should not be fine-tuned and what to take instead, or None when nothing speaks against it.

    Streaming Nemotron bases that the table does not list are refused by their name as well.
    """
    base = known_base(name)
    if base is not None and base.refused_because is not None:
        reason, instead = base.refused_because, base.instead
    elif base is None and "nemotron" in name.lower() and "streaming" in name.lower():
        reason, instead = "streaming Nemotron bases have collapsed when fine-tuned", DEFAULT_BASE
    else:
        return None
    return (
        f"{name}: {reason}. Take {instead} (a server streams it in chunks just as well), or set "
        "allow_unsupported_base: true to try all the same."
    )
