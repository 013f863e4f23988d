"""Time and memory of a fine-tune from arithmetic alone: parameters, audio-seconds, and the machine's usable rate."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

from launcher.estimate.judgement import Estimate
from launcher.job import Job
from launcher.offers.offer import Offer
from launcher.prepare import Prepared

ENCODER_FRAMES_PER_S = 12.5  # a FastConformer makes one frame of 80 ms (8 x 10 ms hops)
FLOP_PER_PARAMETER_FRAME = 6  # 2 forward + 4 backward; 46 GFLOP an audio-second for 0.6B agrees
# Usable FLOP/s: a fraction of peak that fine-tuning was seen to reach. Rounded down on purpose.
GPU_FLOPS, CPU_FLOPS_PER_CORE = 2.0e13, 1.0e10
STEP_OVERHEAD_S = 0.12  # Lightning's and NeMo's own work a step, seen on 2 cores with a model of 0.3 M parameters
PROCESS_START_S = 15.0  # importing NeMo and restoring a small model; three processes a run
P90_OVER_P50 = 2.5  # arithmetic without a measurement: wide on purpose
DECODE_SHARE = 0.5  # transcribing costs less than training an audio-second: no backward pass
WEIGHT_BYTES = 4  # a .nemo holds float32
ADAMW_BYTES_PER_PARAMETER = 16  # mixed precision AdamW: weight, gradient, two moments
FROZEN_BYTES_PER_PARAMETER = 4
ENCODER_SHARE = 0.985  # of a 0.6B Parakeet's parameters
GPU_BASE_GB = 1.5  # CUDA context and NeMo's own
ACTIVATION_GB_PER_AUDIO_S = 0.04  # encoder without checkpointing, bf16: 0.7-0.8 GB a 20 s clip
DEFAULT_PARAMETERS = 6.2e8


def arithmetic(job: Job, prepared: Prepared, offer: Offer) -> Estimate:
    """How long this job takes on this offer, and the GPU memory it needs."""
    spec = job.spec
    parameters = parameters_of(str(getattr(spec, "base", None) or getattr(spec, "model", "")))
    flops = GPU_FLOPS if offer.count else CPU_FLOPS_PER_CORE * _cores()
    per_audio_s = FLOP_PER_PARAMETER_FRAME * parameters * ENCODER_FRAMES_PER_S / flops
    batch = _whole(getattr(spec, "batch_size", 1), 8) * _whole(getattr(spec, "accumulate_grad_batches", 1), 1)
    epoch_steps = max(1, round(prepared.train_rows / batch))
    steps = 0
    if job.recipe == "finetune":
        steps = _whole(getattr(spec, "max_steps", "auto"), _whole(getattr(spec, "max_epochs", 10), 10) * epoch_steps)
    mean_clip_s = prepared.train_hours * 3600 / max(1, prepared.train_rows)
    train_s = steps * (STEP_OVERHEAD_S + batch * mean_clip_s * per_audio_s)
    held_out_s = (prepared.validation_hours + prepared.general_hours) * 3600
    score_s = 2 * held_out_s * per_audio_s * DECODE_SHARE
    total = 3 * PROCESS_START_S + train_s + score_s
    frozen = getattr(spec, "method", "full") == "frozen_encoder"
    trained = parameters * ((1 - ENCODER_SHARE) if frozen else 1.0)
    weights_gb = (trained * ADAMW_BYTES_PER_PARAMETER + (parameters - trained) * FROZEN_BYTES_PER_PARAMETER) / 1e9
    longest_s = min(prepared.longest_s, float(getattr(spec, "max_duration_s", 20.0)))
    scale = parameters / DEFAULT_PARAMETERS
    activations_gb = _whole(getattr(spec, "batch_size", 1), 4) * longest_s * ACTIVATION_GB_PER_AUDIO_S * scale
    needs_gb = round(GPU_BASE_GB + weights_gb + activations_gb, 1)
    fits = not offer.count or needs_gb <= offer.vram_gb
    trains = job.recipe == "finetune"
    asked = getattr(spec, "method", "full")
    phases = {"baseline": PROCESS_START_S + score_s / 2, "train": PROCESS_START_S + train_s}
    phases["evaluate"] = phases["baseline"]
    return Estimate(
        fits=fits,
        why_not="" if fits else f"needs {needs_gb:.1f} GB of GPU memory, it has {offer.vram_gb:.1f}",
        needs_gb=needs_gb,
        phases={name: round(seconds, 1) for name, seconds in phases.items()},
        method=asked if trains else "",
        batch_size=_whole(getattr(spec, "batch_size", 1), 8),
        accumulate_grad_batches=_whole(getattr(spec, "accumulate_grad_batches", 1), 1),
        seconds_p50=round(total, 1),
        seconds_p90=round(total * P90_OVER_P50, 1),
        steps=steps,
        parameters=int(parameters),
        source="arithmetic",
    )


def parameters_of(base: str) -> float:
    """How many parameters a base has: from the size of its weights, else from its name (0.6b, 110m)."""
    path = Path(base)
    if base.endswith(".nemo") and path.is_file():
        try:
            with tarfile.open(path) as archive:
                sizes = [member.size for member in archive if member.name.endswith((".ckpt", ".safetensors"))]
        except (tarfile.TarError, OSError):
            sizes = []
        if sizes:
            return max(sizes) / WEIGHT_BYTES
    named = re.search(r"(\d+(?:\.\d+)?)([bm])\b", base.lower())
    if named:
        return float(named[1]) * (1e9 if named[2] == "b" else 1e6)
    return DEFAULT_PARAMETERS


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
