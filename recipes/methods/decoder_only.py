"""`frozen_encoder` under the name that guides give it, with their warning."""

from __future__ import annotations

from typing import ClassVar

from recipes.methods.contract import MethodName
from recipes.methods.frozen_encoder import FrozenEncoder


class DecoderOnly(FrozenEncoder):
    """Prediction network, joint and durations learn; the encoder does not."""

    name: ClassVar[MethodName] = "decoder_only"
    summary = "the same as frozen_encoder, with a warning"
    warning = (
        "decoder_only teaches words, not sound: for new voices, accents, rooms or channels (such as children's "
        "speech) the encoder has to learn, too: take lora_decoder"
    )
