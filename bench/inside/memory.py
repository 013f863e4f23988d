"""One measurement of bench/memory.py, in the recipe environment and a process of its own.

python memory.py ASKED  ->  one JSON object; ASKED is JSON with `what`: saved, peak or encoder
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from recipes.constants import figure
from recipes.methods.contract import MethodSettings
from recipes.methods.registry import METHODS
from recipes.models.shape import Shape, shape_of
from recipes.optimizers.facts import Saving

TOKENS_A_SECOND = 4.1  # as the reported figures have it


def saved(asked: dict[str, Any]) -> dict[str, Any]:
    """Bytes kept for backward by encoders of so many layers over so many seconds; parameters' copies not counted."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    half, bf16 = asked["kind"] == "half", asked["kind"] == "bf16"
    if half:
        as_cuda_autocast()
    if bf16:
        with_small_masks()
    counted = []
    for layers, seconds in asked["runs"]:
        with FakeTensorMode(allow_non_fake_inputs=True):
            encoder = conformer(asked["width"], layers, asked["heads"])
            if bf16:
                in_bf16(encoder)
            parameters = sum(p.numel() for p in encoder.parameters())
            if "adapters" in asked:
                adapt(encoder, asked["adapters"])
            own = {t.untyped_storage()._cdata for t in (*encoder.parameters(), *encoder.buffers())}
            # Beside adapters a weight's copy is told by its form: not every frozen weight has one.
            held = list(encoder.parameters()) if "adapters" in asked else []
            forms = {form for p in held for form in (tuple(p.shape), tuple(p.shape[::-1]))}
            kept: dict[int, Any] = {}

            def keep(
                tensor: Any, own: set[int] = own, kept: dict[int, Any] = kept, forms: set[tuple[int, ...]] = forms
            ) -> Any:
                storage = tensor.untyped_storage()
                copy_of_weights = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in forms
                if storage._cdata not in own and not copy_of_weights:
                    kept[storage._cdata] = storage
                return tensor

            frames = int(seconds * 100)
            signal, lengths = torch.randn(1, 128, frames), torch.full((1,), frames)
            signal = signal.to(torch.bfloat16) if bf16 else signal
            hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
            with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                encoder(audio_signal=signal, length=lengths)
            copies = 0.0 if held or not half else parameters * figure("memory.half_copy_bytes_per_parameter")
            counted.append(sum(storage.nbytes() for storage in kept.values()) - copies)
    return {"bytes": counted}


def in_bf16(encoder: Any) -> None:
    """As the recipe holds weights in bf16; fake tensors cannot be cast in place."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in encoder.modules():
        if not isinstance(module, _BatchNorm):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(parameter.detach().to(torch.bfloat16))
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.is_floating_point():
                    module._buffers[name] = buffer.to(torch.bfloat16)


def adapt(encoder: Any, targets: Any) -> None:
    """Low-rank adapters as the recipe puts them in; fake tensors cannot be moved, and need not be."""
    from types import SimpleNamespace
    from unittest.mock import patch

    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    model = SimpleNamespace(encoder=encoder, parameters=encoder.parameters)
    stay = patch.object(nn.Module, "to", lambda self, *_, **__: self)
    with stay, patch.object(BaseTunerLayer, "_move_adapter_to_device_of_base_layer", lambda *_, **__: None):
        METHODS["lora"].prepare(model, MethodSettings(lora_targets=targets))
    METHODS["lora"].before_batch(model)


def as_cuda_autocast() -> None:
    """CUDA's autocast keeps layer norms and softmax in float32, and its dropout a mask of one byte: do the same."""
    import torch
    from torch.nn import functional

    norm, softmax = functional.layer_norm, torch.softmax

    def layer_norm(x: Any, *rest: Any, **named: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return norm(x.float(), *rest, **named)

    def in_float32(x: Any, dim: int, **_: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return softmax(x.float(), dim=dim)

    functional.layer_norm = layer_norm
    torch.softmax = functional.softmax = in_float32
    with_small_masks()


def with_small_masks() -> None:
    """CUDA's dropout keeps a mask of one byte: do the same."""
    import torch
    from torch.nn import functional

    def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return torch.native_dropout(x, p, training)[0] if training and p else x

    functional.dropout = dropout


def conformer(width: int, layers: int, heads: int) -> Any:
    """NeMo's encoder as Parakeet has it."""
    from recipes.models.quiet import import_nemo_quietly

    import_nemo_quietly(None)
    import nemo.collections.asr as nemo_asr

    encoder = nemo_asr.modules.ConformerEncoder(
        feat_in=128, n_layers=layers, d_model=width, use_bias=False, subsampling="dw_striding", subsampling_factor=8,
        subsampling_conv_channels=256, n_heads=heads, conv_kernel_size=9, xscaling=False, dropout=0.1,
        dropout_att=0.1, dropout_pre_encoder=0.1,
    )  # fmt: skip
    return encoder.train()


# --- the peak of real steps ---------------------------------------------------------------------------------


class Peak:
    """The most that this process held: torch.cuda's own figure, or resident memory seen every 5 ms."""

    def __init__(self) -> None:
        import threading

        self.bytes = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        import time

        while True:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.005)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(asked: dict[str, Any]) -> dict[str, Any]:
    """GB at the peak of two steps, and what the weights, gradients and moments of them are."""
    import gc

    import torch

    from recipes.models.activation_checkpointing import checkpoint_activations
    from recipes.models.precision import hold_in_bf16

    shape = shape_of(asked["base"])
    encoder = conformer(shape.width, shape.layers, shape.heads)
    gc.collect()
    on_gpu = torch.cuda.is_available()
    device, process = ("cuda" if on_gpu else "cpu"), resident()
    process -= sum(p.numel() * p.element_size() for p in encoder.parameters())
    saving = Saving(**asked["saving"])
    decoder, joint, loss = transducer(shape, on_gpu=on_gpu)
    parts = model_of(encoder=encoder, decoder=decoder, joint=joint).to(device)
    method = METHODS[asked["method"]]
    method.prepare(parts, MethodSettings(allow_few_biases=True))
    if saving.bf16_weights:
        hold_in_bf16(parts)
    checkpoint_activations(encoder, on=saving.activation_checkpointing)
    optimizer = optimizer_of(saving, [p for p in parts.parameters() if p.requires_grad])
    watch = Peak()
    for _ in range(2):
        if method.encoder_backward != "none":
            encoder.train()
        method.before_batch(parts)
        total = forward(encoder, decoder, joint, loss, asked, shape, device, half=on_gpu)
        optimizer.zero_grad()  # after the forward pass, as Lightning does: until then the last step's gradients stay
        total.backward()
        optimizer.step()
        del total
    moments = sum(bytes_of(v) for s in optimizer.state.values() for v in s.values())
    weights = sum(p.numel() * p.element_size() for p in parts.parameters())
    gradients = sum(bytes_of(p.grad) for p in parts.parameters() if p.grad is not None)
    peak_bytes = torch.cuda.max_memory_reserved() if on_gpu else watch.bytes
    return {
        "base": asked["base"], "method": asked["method"], "batch": asked["batch"], "half": on_gpu, "on_gpu": on_gpu,
        "saving": asked["saving"], "peak_gb": round(peak_bytes / 1e9, 2),
        # activations and gradients: what a step takes above weights and moments
        "above_weights_gb": round((peak_bytes - weights - moments) / 1e9 - (0 if on_gpu else process / 1e9), 2),
        "process_gb": round(process / 1e9, 2), "static_gb": round((weights + gradients + moments) / 1e9, 2),
        "parameters": sum(p.numel() for p in parts.parameters()),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }  # fmt: skip


def model_of(**parts: Any) -> Any:
    """The parts of a model, with what NeMo's whole one has to put its own adapters in."""
    import torch
    from nemo.collections.asr.modules.conformer_encoder import ConformerEncoderAdapter
    from omegaconf import OmegaConf

    class Parts(torch.nn.ModuleDict):
        cfg = OmegaConf.create({"encoder": {}})

        def replace_adapter_compatible_modules(self, *, verbose: bool) -> None:
            self["encoder"].__class__ = ConformerEncoderAdapter

        def add_adapter(self, name: str, cfg: Any) -> None:
            self["encoder"].add_adapter(name.partition(":")[2], cfg)

    return Parts(parts)


def encoder_alone(asked: dict[str, Any]) -> dict[str, Any]:
    """GB above the weights at the peak of the encoder's forward and backward pass: activations and gradients."""
    import gc
    from types import SimpleNamespace

    import torch

    from recipes.models.activation_checkpointing import checkpoint_activations

    shape, saving, method = shape_of(asked["base"]), Saving(**asked["saving"]), METHODS[asked["method"]]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = conformer(shape.width, shape.layers, shape.heads).to(device)
    model = SimpleNamespace(encoder=encoder, parameters=encoder.parameters)
    method.prepare(model, MethodSettings())
    checkpoint_activations(encoder, on=saving.activation_checkpointing)
    encoder.train()
    method.before_batch(model)
    frames = int(asked["seconds"] * 100)
    signal = torch.randn(asked["batch"], 128, frames, device=device)
    lengths = torch.full((asked["batch"],), frames, device=device)
    gc.collect()
    before, watch = resident(), Peak()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    encoded, _ = encoder(audio_signal=signal, length=lengths)
    encoded.float().pow(2).mean().backward()
    most = torch.cuda.max_memory_allocated() if device == "cuda" else watch.bytes
    told = {name: asked[name] for name in ("base", "method", "batch", "saving")}
    return told | {"above_weights_gb": round((most - before) / 1e9, 3), "device": device}


def optimizer_of(saving: Saving, parameters: list[Any]) -> Any:
    """The optimizer as the recipe makes it."""
    import torch
    from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS

    from recipes.optimizers.build import register

    if saving.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-5)
    name = register(saving.optimizer, bf16_weights=saving.bf16_weights)
    return AVAILABLE_OPTIMIZERS[name](parameters, lr=1e-5)


def bytes_of(tensor: Any) -> int:
    """Of a tensor, or of the tensors that one in 8 bits is made of; shared tables and numbers are not counted."""
    if isinstance(tensor, int):
        return 0
    parts = getattr(tensor, "tensor_attrs", None)
    if parts is None:
        return int(tensor.numel() * tensor.element_size())
    return sum(bytes_of(getattr(tensor, name)) for name in parts if name != "qmap")


def transducer(shape: Shape, *, on_gpu: bool) -> tuple[Any, Any, Any]:
    """Prediction network, joint and TDT loss of the base's vocabulary, as Parakeet has them."""
    import nemo.collections.asr as nemo_asr
    from nemo.collections.asr.losses.rnnt import RNNTLoss

    from recipes.models.losses import CpuTdtLoss

    hidden, durations = shape.joint_hidden, [0, 1, 2, 3, 4]
    decoder = nemo_asr.modules.RNNTDecoder(
        prednet={"pred_hidden": 640, "pred_rnn_layers": 2, "t_max": None, "dropout": 0.2}, blank_as_pad=True,
        vocab_size=shape.vocabulary, normalization_mode=None, random_state_sampling=False,
    )  # fmt: skip
    joint = nemo_asr.modules.RNNTJoint(
        jointnet={"joint_hidden": hidden, "activation": "relu", "dropout": 0.2, "encoder_hidden": shape.width,
                  "pred_hidden": 640},
        num_classes=shape.vocabulary, num_extra_outputs=len(durations), vocabulary=None, log_softmax=None,
        fuse_loss_wer=False,
    )  # fmt: skip
    kwargs = {"durations": durations, "sigma": 0.02, "omega": 0.1, "fastemit_lambda": 0.0, "clamp": -1.0}
    loss = RNNTLoss(num_classes=shape.vocabulary, loss_name="tdt", loss_kwargs=kwargs)
    if not on_gpu:
        loss._loss = CpuTdtLoss(shape.vocabulary, durations, 0.02)
        loss._force_float32 = True
    return decoder, joint, loss


def forward(encoder: Any, decoder: Any, joint: Any, loss: Any, asked: dict[str, Any], shape: Shape, device: str, *,
            half: bool) -> Any:  # fmt: skip
    """The loss over random audio features and tokens; the joint in parts, as the base fuses it."""
    import torch

    batch, frames = asked["batch"], int(asked["seconds"] * 100)
    count = int(TOKENS_A_SECOND * asked["seconds"])
    signal = torch.randn(batch, 128, frames, device=device)
    lengths = torch.full((batch,), frames, device=device)
    tokens = torch.randint(0, shape.vocabulary, (batch, count), device=device)
    counts = torch.full((batch,), count, device=device)
    bf16 = asked["saving"]["bf16_weights"]
    signal = signal.to(torch.bfloat16) if bf16 else signal
    with torch.autocast(device, dtype=torch.bfloat16, enabled=half and not bf16):
        encoded, encoded_lengths = encoder(audio_signal=signal, length=lengths)
        predicted, _, _ = decoder(targets=tokens, target_length=counts)
        losses = []
        size = shape.fused_batch_size or batch
        for first in range(0, batch, size):
            part = slice(first, first + size)
            logits = joint(encoder_outputs=encoded[part], decoder_outputs=predicted[part])
            losses.append(loss(log_probs=logits, targets=tokens[part], input_lengths=encoded_lengths[part],
                               target_lengths=counts[part]))  # fmt: skip
            del logits
        return torch.stack([each.mean() for each in losses]).mean()


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    what = {"saved": saved, "peak": peak, "encoder": encoder_alone}
    print(json.dumps(what[asked["what"]](asked)))
