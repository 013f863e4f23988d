"""How much memory training takes at its peak: sums of what is kept, figure by figure. Needs no torch.

bench/memory.py measures the same on the real architecture and says how far off this is.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipes.constants import figure
from recipes.methods.contract import MethodName, MethodSettings
from recipes.methods.registry import METHODS
from recipes.models.shape import Shape
from recipes.optimizers.facts import Saving


@dataclass(frozen=True)
class Need:
    """Peak memory in GB (10^9 bytes) by what holds it; `total` has the safety margin in it."""

    fixed: float  # CUDA context, or the process on a CPU
    static: float  # weights, gradients, moments, half-precision copies
    encoder: float  # activations kept for backward
    joint: float  # logits, their gradients, the joint's hidden layer
    stepping: float  # weights, gradients, moments and what the optimizer's step holds, without activations

    @property
    def total(self) -> float:
        """The peak, with the margin: activations and the optimizer's step never stand at the same time."""
        peak = self.fixed + max(self.static + self.encoder + self.joint, self.stepping)
        return peak * (1 + figure("memory.margin_share"))


def training_need(
    shape: Shape, method: MethodName, batch: int, *, longest_s: float, longest_tokens: float, half: bool,
    on_gpu: bool, fused_batch_size: int | None = None, together: bool = False,
    settings: MethodSettings | None = None, saving: Saving | None = None,
) -> Need:  # fmt: skip
    """The peak of a training step on the longest clip with the longest text, `batch` of them at once.

    `half` is mixed precision (bf16 or fp16), else float32; `saving` may hold the weights themselves in bf16.
    `fused_batch_size` overrides the base's own. `together`: with other devices, gradients exchanged after each step.
    """
    settings, saving = settings or MethodSettings(), saving or Saving()
    backward = METHODS[method].encoder_backward
    trained = METHODS[method].trained(shape, settings)
    frozen = shape.parameters + METHODS[method].added(shape, settings) - trained
    kept = trained * saving.bytes_per_parameter + frozen * figure("memory.frozen_bytes_per_parameter")
    # A frozen weight's half-precision copy is kept, too, where gradients pass back through its layer, unless that is
    # run again.
    copied = trained
    if backward == "inputs" and not saving.activation_checkpointing:
        copied += shape.encoder_parameters
    copies = copied * figure("memory.half_copy_bytes_per_parameter") if half and not saving.bf16_weights else 0.0
    step = saving.step_bytes(trained) if on_gpu else 0.0
    frames = longest_s * shape.frames_per_s
    kind = "bf16" if saving.bf16_weights else "half" if half else "full"
    a_layer = _layer(shape, frames, kind)
    subsampling = frames * figure(f"memory.subsampling_{kind}_bytes_per_frame")
    joint = _joint(shape, batch, frames, longest_tokens + 1, kind, on_gpu, fused_batch_size)
    if backward != "none" and saving.activation_checkpointing:  # each layer's input; one layer at a time in full
        a_unit = figure(f"memory.layer_input_{kind}_bytes_per_frame_width")
        inputs = batch * shape.layers * frames * shape.width * a_unit
        one = a_layer if backward == "weights" else _layer_of_inputs(shape, frames, kind, settings)
        encoder = inputs + max(0.0, batch * max(subsampling, one) - joint)
    elif backward == "weights":
        encoder = batch * (subsampling + shape.layers * a_layer)
    elif backward == "inputs":  # the subsampling lies before the first adapter: in flight alone, then gone
        encoder = batch * max(subsampling + a_layer, shape.layers * _layer_of_inputs(shape, frames, kind, settings))
    else:  # a frozen one keeps nothing: one layer at a time is in flight, and gone when the joint begins
        encoder = max(0.0, batch * (subsampling + a_layer) - joint)
    return Need(
        fixed=(figure("memory.cuda_context_gb") if on_gpu else figure("memory.process_gb"))
        + (figure("memory.exchange_gb") if on_gpu and together else 0.0),
        static=(kept + copies) / 1e9,
        encoder=encoder / 1e9,
        joint=joint / 1e9,
        stepping=(kept + step) / 1e9,
    )


def _layer(shape: Shape, frames: float, kind: str) -> float:
    """Bytes that a layer saves for the gradients of its weights and inputs."""
    a_unit = figure(f"memory.layer_{kind}_bytes_per_frame_width")
    a_pair = figure(f"memory.layer_{kind}_bytes_per_frame_pair_head")
    return frames * shape.width * a_unit + frames**2 * shape.heads * a_pair


def _layer_of_inputs(shape: Shape, frames: float, kind: str, settings: MethodSettings) -> float:
    """Bytes that a layer saves for the gradients of its inputs and its adapters."""
    a_unit = figure(f"memory.inputs_layer_{kind}_bytes_per_frame_width")
    if settings.lora_targets != "attention":
        a_unit += figure(f"memory.inputs_layer_{kind}_feed_forward_bytes_per_frame_width")
    a_pair = figure(f"memory.inputs_layer_{kind}_bytes_per_frame_pair_head")
    return frames * shape.width * a_unit + frames**2 * shape.heads * a_pair


def _joint(
    shape: Shape, batch: int, frames: float, tokens: float, kind: str, on_gpu: bool, fused: int | None
) -> float:
    """Bytes of the loss: a transducer's grow with frames x tokens x vocabulary."""
    outputs = shape.vocabulary + shape.extra
    ctc = batch * frames * outputs * figure("memory.ctc_bytes") if shape.kind in ("ctc", "hybrid") else 0.0
    if shape.kind == "ctc":
        return ctc
    cells = frames * tokens
    hidden = batch * cells * shape.joint_hidden * figure(f"memory.joint_hidden_{kind}_bytes")
    if not on_gpu and shape.kind != "rnnt":
        return ctc + hidden + batch * cells * outputs * figure("memory.joint_cpu_bytes")
    passing = min(batch, fused or shape.fused_batch_size or batch)
    logits = batch * figure("memory.joint_gradient_bytes") + passing * figure("memory.joint_passing_bytes")
    return ctc + hidden + cells * outputs * logits
