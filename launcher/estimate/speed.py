"""How fast a machine trains and transcribes by arithmetic: work over usable rate, bytes over usable bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.estimate.workload import Workload
from launcher.offers import canonical
from launcher.offers.offer import Offer
from recipes.constants import figure
from recipes.methods.contract import MethodName, MethodSettings
from recipes.methods.registry import METHODS


@dataclass(frozen=True)
class Rates:
    """What one GPU, or a CPU, can do. FLOP/s and bytes/s are usable, not peak."""

    name: str  # canonical, or the offer's own
    on_gpu: bool
    has_bf16: bool
    flops: float
    bytes_per_s: float
    known: str  # where peak and bandwidth come from, in words


def rates_of(gpu: str, vram_gb: float, *, on_gpu: bool, cores: int = 2) -> Rates:
    """The rates of a GPU by name, or of a CPU with so many cores."""
    if not on_gpu:
        flops = figure("speed.cpu_flops_per_core") * cores
        return Rates(gpu, False, False, flops, 1e10, f"{cores} CPU cores")
    known = canonical(gpu, vram_gb)
    bandwidth = figure("speed.usable_bandwidth_share") * 1e9
    if known is None:
        tflops = figure("speed.unknown_gpu_tflops_per_gb") * vram_gb
        share, gb_s, words = (
            figure("speed.usable_share"),
            figure("speed.unknown_gpu_gb_s"),
            f"{gpu} is not in gpus.toml",
        )
        return Rates(gpu, True, True, tflops * 1e12 * share, gb_s * bandwidth, words)
    share = figure(
        "speed.usable_share_fast" if known.bf16_tflops >= figure("speed.fast_tflops") else "speed.usable_share"
    )
    peak = known.bf16_tflops * (1.0 if known.supports_bf16 else figure("speed.float32_share_of_half"))
    words = f"{known.bf16_tflops:g} TFLOPS, {known.mem_gb_s:g} GB/s: {known.source}"
    return Rates(known.name, True, known.supports_bf16, peak * 1e12 * share, known.mem_gb_s * bandwidth, words)


def rates_of_offer(offer: Offer, cores: int) -> Rates:
    """The rates of one GPU of an offer."""
    return rates_of(offer.gpu, offer.vram_gb, on_gpu=offer.count > 0, cores=cores)


#: What of the encoder's backward pass each kind of method pays: gradients of inputs cost as much as of weights.
_OF_BACKWARD = {"weights": 1.0, "inputs": 0.5, "none": 0.0}


def step_s(
    work: Workload, rates: Rates, method: MethodName, batch: int, accumulate: int, *, half: bool, again: bool = False
) -> float:
    """Seconds of one optimizer step: `accumulate` passes over `batch` rows padded to the longest, and the update.

    `again`: with activation checkpointing the forward pass runs twice.
    """
    shape = work.shape
    padded_s = work.padded_s(batch)
    audio_s = batch * padded_s
    backward = _OF_BACKWARD[METHODS[method].encoder_backward]
    passes = figure("speed.flop_per_parameter_frame_forward") * (2 if again else 1)
    passes += figure("speed.flop_per_parameter_frame_backward") * backward
    frames = audio_s * shape.frames_per_s
    cells = padded_s * shape.frames_per_s * (padded_s * work.tokens_per_s + 1) if shape.joint_hidden else 0.0
    outputs = shape.vocabulary + shape.extra
    joint_flop = 6 * batch * cells * outputs * shape.joint_hidden
    work_s = (passes * shape.encoder_parameters * frames + joint_flop) / rates.flops
    if not rates.on_gpu:
        return figure("speed.step_overhead_s") + accumulate * work_s
    moved = _encoder_bytes(work, frames, padded_s, half=half) * (
        1.0 if backward else figure("speed.forward_share_of_moved")
    )
    if again:
        moved *= 1 + figure("speed.forward_share_of_moved")
    moved += batch * cells * outputs * figure("speed.joint_bytes_moved_per_output")
    pass_s = max(
        work_s + moved / rates.bytes_per_s,
        shape.layers * figure("speed.launch_s_per_layer_pass"),
        audio_s / figure("speed.read_audio_s_per_s"),
    )
    update_s = trained(work, method) * figure("speed.optimizer_bytes_moved_per_parameter") / rates.bytes_per_s
    return accumulate * pass_s + update_s + figure("speed.step_overhead_gpu_s")


def trained(work: Workload, method: MethodName) -> float:
    """How many parameters a method trains of this job's base."""
    settings = work.finetune.method_settings if work.finetune else MethodSettings()
    return METHODS[method].trained(work.shape, settings)


def exchange_s(work: Workload, method: MethodName, devices: int, nodes: int) -> float:
    """Seconds that a step's float32 gradients take round the ring of so many devices, of all machines together."""
    if devices <= 1:
        return 0.0
    gb_per_s = figure("speed.exchange_gb_per_s" if nodes == 1 else "speed.exchange_machines_gb_per_s")
    return 2 * (devices - 1) / devices * trained(work, method) * 4 / (gb_per_s * 1e9)


def transcribe_s(work: Workload, rates: Rates, audio_s: float, batch: int, *, half: bool) -> float:
    """Seconds to transcribe so much audio in batches of clips of like length."""
    shape = work.shape
    if audio_s <= 0:
        return 0.0
    frames = audio_s * shape.frames_per_s
    flop = figure("speed.flop_per_parameter_frame_forward") * shape.encoder_parameters * frames
    if not rates.on_gpu:
        return flop * 3 * figure("speed.cpu_transcribing_share") / rates.flops
    moved = _encoder_bytes(work, frames, work.mean_s, half=half) * figure("speed.forward_share_of_moved")
    return flop / rates.flops + moved / rates.bytes_per_s + frames / batch * figure("speed.decode_s_per_frame")


def _encoder_bytes(work: Workload, frames: float, clip_s: float, *, half: bool) -> float:
    """Bytes that the encoder's kernels move, forward and backward, over so many frames of clips of such length."""
    shape, kind = work.shape, "half" if half else "full"
    a_layer = shape.width * figure(f"memory.layer_{kind}_bytes_per_frame_width")
    a_layer += clip_s * shape.frames_per_s * shape.heads * figure(f"memory.layer_{kind}_bytes_per_frame_pair_head")
    saved = shape.layers * a_layer + figure(f"memory.subsampling_{kind}_bytes_per_frame")
    return frames * saved * figure("speed.times_a_saved_byte_is_moved")
