"""Every method by its name."""

from __future__ import annotations

from recipes.methods.bitfit import BitFit
from recipes.methods.contract import MethodName, TuningMethod
from recipes.methods.decoder_only import DecoderOnly
from recipes.methods.dora import Dora
from recipes.methods.frozen_encoder import FrozenEncoder
from recipes.methods.full import Full
from recipes.methods.ia3 import Ia3
from recipes.methods.linear_adapter import LinearAdapter
from recipes.methods.lora import Lora
from recipes.methods.lora_decoder import LoraDecoder

METHODS: dict[MethodName, TuningMethod] = {
    method.name: method
    for method in (
        Full(), LoraDecoder(), Lora(), Dora(), Ia3(), FrozenEncoder(), DecoderOnly(), BitFit(), LinearAdapter(),
    )
}  # fmt: skip


def settings_of_others(method: MethodName) -> set[str]:
    """The fields of a spec that other methods read and this one does not: they change nothing of what it learns."""
    return {name for each in METHODS.values() for name in each.reads} - set(METHODS[method].reads)
