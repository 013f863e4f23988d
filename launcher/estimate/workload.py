"""What a job asks of any machine: steps, audio, padding, data to move. The same for all offers, computed once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.job import Job, looks_like_path
from launcher.prepare import Prepared
from recipes.constants import figure
from recipes.evaluate.spec import DecodingSpec
from recipes.extend_vocabulary.spec import ExtendVocabularySpec
from recipes.finetune.fitting import Load, wanted_rows_per_step
from recipes.finetune.plan import Plan, make_plan
from recipes.finetune.spec import FinetuneSpec
from recipes.finetune.stream import WINDOW_STEPS, bucket_count, replayed_rows
from recipes.models.shape import Shape, shape_of
from recipes.models.whisper_shape import WINDOW_S, whisper_shape
from recipes.pseudo_label.spec import PseudoLabelSpec


@dataclass(frozen=True)
class Workload:
    """One job in numbers. `finetune` and `numbers` are None for a job that only evaluates."""

    shape: Shape
    finetune: FinetuneSpec | None
    numbers: Plan | None  # as the recipe itself resolves them; how a step is shared out is one machine's
    load: Load
    lengths_s: tuple[float, ...]  # of the clips that are learnt, ascending, equally likely
    mean_s: float
    tokens_per_s: float
    validation_s: float
    general_s: float
    longest_held_out_s: float
    evaluation_batch: int
    data_gb: float
    base_is_file: bool
    base_is_here: bool  # a file, or in this machine's own cache of pretrained models

    @property
    def audio_s(self) -> float:
        """Audio seconds that training goes through, repeats included, padding not."""
        return self.numbers.total_steps * self.numbers.rows_per_step * self.mean_s if self.numbers else 0.0

    def padded_s(self, batch: int) -> float:
        """Seconds that a batch is padded to: the longest of `batch` clips drawn at random, or of like length."""
        parts, buckets = len(self.lengths_s), 1
        if self.finetune and self.finetune.duration_bucketing:
            rows = self.numbers.rows_per_step if self.numbers else batch
            steps = min(self.load.epoch_rows // max(rows, 1), WINDOW_STEPS)
            buckets = min(bucket_count(steps), parts)
        edges = [number * parts // buckets for number in range(buckets + 1)]
        drawn = [_longest_s(self.lengths_s[low:high], batch) for low, high in itertools.pairwise(edges)]
        return sum(drawn) / buckets


def _longest_s(lengths_s: Sequence[float], batch: int) -> float:
    """The expected longest of `batch` clips, each of any of these lengths, ascending and equally likely."""
    parts = len(lengths_s)
    return sum(length * (((n + 1) / parts) ** batch - (n / parts) ** batch) for n, length in enumerate(lengths_s))


def workload_of(job: Job, prepared: Prepared) -> Workload:
    """Read the job, its data and its base."""
    spec = job.spec
    finetune = spec if isinstance(spec, FinetuneSpec) else None
    base = finetune.base if finetune else str(getattr(spec, "model", "") or "")
    whisper = isinstance(spec, PseudoLabelSpec) and spec.kind == "whisper"
    shape = whisper_shape(base) if whisper else shape_of(base)
    if isinstance(spec, ExtendVocabularySpec):
        shape = spec.shape_in_training(shape)
    longest_s = finetune.max_duration_s if finetune else prepared.longest_s
    lengths = tuple(length for length in prepared.lengths_s if length <= longest_s) or (min(longest_s, 1.0),)
    hours = prepared.train_hours + prepared.general_train_hours
    learnt_s = max(hours * 3600, 1e-9)
    replays = bool(prepared.general_train_rows and finetune and finetune.replay_fraction > 0)
    epoch_rows = prepared.train_rows
    if replays and finetune:
        epoch_rows += replayed_rows(prepared.train_rows, finetune.replay_fraction)
    longest_text = prepared.longest_text or figure("shape.characters_per_audio_s") * lengths[-1]
    is_file = looks_like_path(base)
    return Workload(
        shape=shape,
        finetune=finetune,
        numbers=_numbers(finetune, epoch_rows, prepared.train_hours, job.resources.nodes) if finetune else None,
        load=Load(epoch_rows, lengths[-1], shape.tokens(longest_text)),
        lengths_s=lengths,
        mean_s=sum(lengths) / len(lengths),
        tokens_per_s=shape.tokens(prepared.characters / learnt_s),
        # A Whisper hears whole windows, whatever is in them.
        validation_s=prepared.validation_rows * WINDOW_S if whisper else prepared.validation_hours * 3600,
        general_s=prepared.general_hours * 3600,
        longest_held_out_s=WINDOW_S if whisper else prepared.longest_s,
        evaluation_batch=spec.batch_size if isinstance(spec, DecodingSpec) else 16,
        data_gb=prepared.audio_gb,
        base_is_file=is_file,
        base_is_here=is_file or _is_cached(base),
    )


def _numbers(spec: FinetuneSpec, epoch_rows: int, train_hours: float, nodes: int) -> Plan:
    batch, _ = wanted_rows_per_step(spec, epoch_rows, nodes)
    return make_plan(
        spec, epoch_rows=epoch_rows, train_hours=train_hours, batch_size=batch,
        accumulate=spec.accumulate_grad_batches, precision="32",
    )  # fmt: skip


def _is_cached(name: str) -> bool:
    """Whether the model hub's cache of this machine has a pretrained model."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return (home / "hub" / f"models--{name.replace('/', '--')}").is_dir()
