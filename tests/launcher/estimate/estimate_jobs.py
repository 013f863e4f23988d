"""Jobs and offers in memory, for tests of the estimate: no files, no splitting."""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import yaml

from launcher.estimate import Estimate, Estimator
from launcher.job import Job, JobData, JobResources
from launcher.ledger import Throughput
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.prepare import Prepared
from recipes.finetune.spec import FinetuneSpec

V2, V3, BIG = "nvidia/parakeet-tdt-0.6b-v2", "nvidia/parakeet-tdt-0.6b-v3", "nvidia/parakeet-tdt-1.1b"


def job_of(**settings: object) -> Job:
    """A fine-tune job with these settings of its spec."""
    given = {"base": V2, **settings}
    spec = FinetuneSpec.model_validate({"train_manifest": "t", "validation_manifest": "v", **given})
    return Job(
        Path("job.yaml"), "finetune", spec, dict(given), JobData(manifest=Path("m.jsonl")), None, None,
        JobResources(), "stop",
    )  # fmt: skip


def prepared_of(hours: float = 10.0, clip_s: float = 10.0, longest_s: float | None = None) -> Prepared:
    """So many hours to learn, in clips around `clip_s`, a tenth as much held out."""
    longest_s = longest_s or 1.9 * clip_s
    lengths = tuple(clip_s + (part - 10) / 10 * min(longest_s - clip_s, 0.9 * clip_s) for part in range(21))
    rows = max(1, round(hours * 3600 / clip_s))
    return Prepared(
        train="t", validation="v", general_train=None, general_validation=None, train_rows=rows,
        validation_rows=max(1, rows // 10), train_hours=hours, validation_hours=hours / 10, general_rows=0,
        general_hours=0.0, general_train_rows=0, general_train_hours=0.0, longest_s=max(longest_s, lengths[-1]),
        lengths_s=lengths, longest_text=round(15 * lengths[-1]), characters=round(hours * 3600 * 15),
        audio_gb=hours * 1.1 * 3600 * 32_000 / 1e9, grouped_by=None, has_terms=False, warnings=(), digests={},
    )  # fmt: skip


OFFER = Offer(
    provider="runpod", offer_id="1", gpu="A100 80GB", count=1, vram_gb=80, usd_per_hour=Usd("1.39"), trust="secure",
    inet_down_mbps=800, inet_up_mbps=800,
)  # fmt: skip


def offer_of(gpu: str, vram_gb: float, **other: object) -> Offer:
    """One machine like OFFER with another GPU."""
    return Offer.model_validate({**OFFER.model_dump(), "gpu": gpu, "vram_gb": vram_gb, **other})


def cpu_offer() -> Offer:
    """This machine without a GPU."""
    return Offer(provider="local", offer_id="cpu", gpu="none (a CPU, 2 cores)", count=0, vram_gb=0,
                 usd_per_hour=Usd(0), trust="own")  # fmt: skip


def tiny_base(path: Path, width: int, layers: int) -> Path:
    """A .nemo as far as a look inside it goes: the config of a TDT and 0.3 M float32 weights of zeros."""
    config = {
        "encoder": {"d_model": width, "n_layers": layers, "n_heads": 4, "subsampling_factor": 8},
        "joint": {"num_classes": 96, "num_extra_outputs": 5, "jointnet": {"joint_hidden": width},
                  "fuse_loss_wer": True, "fused_batch_size": 4},
        "decoder": {"vocab_size": 96},
    }  # fmt: skip
    weights = io.BytesIO()
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/data/0", bytes(300_000 * 4))
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("model_config.yaml", yaml.safe_dump(config).encode()),
            ("model_weights.ckpt", weights.getvalue()),
        ):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


ROW = Throughput(
    gpu="A100 80GB", count=1, recipe="finetune", method="full", precision="bf16-mixed", parameters=618_000_000,
    audio_s_per_s=900.0, audio_s=1e5, at="2026-01-01T00:00:00Z", run="r1",
)  # fmt: skip


def estimate(job: Job, prepared: Prepared, offer: Offer) -> Estimate:
    """One job on one offer, without what was measured."""
    return Estimator(job, prepared).judge(offer)


def measured(gpu: str, rate: float, day: int = 1, **other: object) -> Throughput:
    """A row of the ledger."""
    return replace(ROW, gpu=gpu, audio_s_per_s=rate, at=f"2026-01-{day:02}T00:00:00Z", **other)
