"""Methods that are asked for and that we do not offer: why not, and what to take instead."""

from __future__ import annotations

from collections.abc import Collection

REFUSED = {
    "qlora": "weights quantized to 4 bits save some 1 GB of a 0.6B model, which is not what fills a GPU, and NeMo "
    "cannot train them. Take lora_decoder (2.4 GB of weights, float32)",
    "prefix_tuning": "learned tokens before each attention layer suit text; here convolutions subsample sound before "
    "it, and nobody has shown it to work on TDT, RNNT or CTC. Take lora",
    "prompt_tuning": "a TDT, RNNT or CTC model is not steered by a prompt: it has no text decoder that reads one. "
    "Take lora for new sound, lora_decoder for new words",
    "linear_adapter": "NeMo's adapters gave NaN losses on TDT and RNNT, and cannot be merged: the result is no plain "
    "model. Take lora",
}
#: Those that can be had all the same, by the field of the spec that says so.
OVERRIDES = {"linear_adapter": "allow_linear_adapter"}


def refusal(name: object, allowed: Collection[str] = ()) -> str | None:
    """Why a method of this name is not offered, or None for any other name.

    `allowed`: the fields of OVERRIDES that are set.
    """
    method = str(name).lower().replace("-", "_")
    override = OVERRIDES.get(method)
    if method not in REFUSED or override in allowed:
        return None
    instead = f", or set {override}: true" if override else ""
    return f"{name} is not offered: {REFUSED[method]}{instead}."
