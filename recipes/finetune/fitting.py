"""What `auto` means on one machine: the method and the batch that its memory holds, and why. Needs no torch.

The launcher judges every offer by this and writes what it chose into the spec; a recipe that is started with
`auto` asks it about its own GPU. The rows that make a step never depend on the machine: where a batch does not
fit, smaller ones are accumulated, so that what is learned does not depend on which machine was cheap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from recipes.finetune.spec import FinetuneSpec
from recipes.methods.contract import MethodName
from recipes.methods.registry import METHODS
from recipes.models.memory import training_need
from recipes.models.shape import Shape
from recipes.optimizers.facts import IN_BACKWARD, Saving

FEWEST_ROWS, MOST_ROWS = 8, 32  # a step, when auto decides
AUTO: tuple[MethodName, ...] = ("full", "lora_decoder", "frozen_encoder")  # what learns most comes first
STEPS_AN_EPOCH = 32  # that auto wants at least: a small set in large batches learns little
#: The joint takes more rows at once than its base says where no more than this share of the memory is needed for it.
PLENTY = 0.7


@dataclass(frozen=True)
class Load:
    """What the data asks of memory: rows an epoch (replayed ones included), the longest clip and its tokens."""

    epoch_rows: int
    longest_s: float
    longest_tokens: float


@dataclass(frozen=True)
class Machine:
    """One GPU, or the host's memory where there is none. GB are 10^9 bytes; None: not known, anything fits."""

    memory_gb: float | None
    half: bool
    on_gpu: bool
    devices: int = 1  # such as this one, which share every step: of all machines together
    nodes: int = 1

    @property
    def words(self) -> str:
        """Such as: 24.0 GB of GPU memory."""
        return f"{self.memory_gb or 0:.1f} GB of {'GPU memory' if self.on_gpu else 'memory'}"


@dataclass(frozen=True)
class Fitting:
    """Method and each device's batch as resolved. `words`: what auto chose and why. `why_not`: empty when it fits."""

    method: MethodName
    batch_size: int
    accumulate: int
    needs_gb: float
    words: tuple[str, ...] = ()
    why_not: str = ""
    devices: int = 1
    activation_checkpointing: bool = False
    fused_batch_size: int | None = None  # None: as the base has it

    @property
    def rows_per_step(self) -> int:
        """Rows an optimizer step learns from, of all devices together."""
        return self.batch_size * self.accumulate * self.devices

    @property
    def fits(self) -> bool:
        """Whether the machine's memory holds it."""
        return not self.why_not


def rounded_up(gb: float) -> float:
    """To a tenth: what needs a little more than there is never looks as if it fitted."""
    return math.ceil(round(gb * 10, 6)) / 10


def wanted_rows(epoch_rows: int) -> int:
    """Rows a forward pass that auto wants: a power of two that leaves an epoch some steps, never above it."""
    size = FEWEST_ROWS
    while size < MOST_ROWS and epoch_rows >= 2 * size * STEPS_AN_EPOCH:
        size *= 2
    return max(1, min(size, epoch_rows))


def wanted_rows_per_step(spec: FinetuneSpec, epoch_rows: int, nodes: int = 1) -> tuple[int, int]:
    """(rows a pass of all devices, rows a step) before memory is asked; the same on every kind of machine.

    Where a job asks for several machines, auto is a multiple of their number.
    """
    wanted = spec.batch_size
    if wanted == "auto":
        wanted = math.ceil(wanted_rows(epoch_rows // spec.accumulate_grad_batches) / nodes) * nodes
    return wanted, wanted * spec.accumulate_grad_batches


def sharing(rows: int, devices: int, nodes: int = 1) -> int:
    """How many of a machine's devices share `rows` rows a step evenly, on `nodes` such machines; 0: not even one."""
    return next((used for used in range(devices, 0, -1) if rows % (used * nodes) == 0), 0)


def fit(shape: Shape, spec: FinetuneSpec, load: Load, machine: Machine) -> Fitting:
    """The first that fits: where method is auto of those in AUTO, larger batches before smaller."""
    methods: tuple[MethodName, ...] = AUTO if spec.method == "auto" else (spec.method,)
    together, rows = wanted_rows_per_step(spec, load.epoch_rows, machine.nodes)
    devices = machine.devices
    if rows % devices:
        why = f"{devices} devices cannot share the {rows} rows of a step (batch_size x accumulate_grad_batches)"
        return Fitting(methods[-1], 1, rows, 0.0, (), why)
    each = rows // devices
    wanted = next(size for size in range(max(1, together // devices), 0, -1) if each % size == 0)
    missed: list[tuple[MethodName, str]] = []
    tried = ((method, again) for method in methods for again in _run_again(spec, method))
    for method, again in tried:
        larger: tuple[int, float] | None = None
        for batch in _sizes(wanted, auto=spec.batch_size == "auto" and spec.optimizer != IN_BACKWARD):
            for fused, share in _fused_sizes(shape, spec, machine, batch):
                needs_gb = _needs(shape, spec, load, machine, method, batch, fused, again=again)
                if machine.memory_gb is None or needs_gb <= share * machine.memory_gb:
                    found = Fitting(method, batch, each // batch, needs_gb, (), "", devices, again, fused)
                    return replace(found, words=_words(spec, machine, found, larger, missed))
            larger = (batch, needs_gb)
        batch, needs_gb = larger or (wanted, 0.0)
        lean = " with activation checkpointing" if again else ""
        missed.append((method, f"{method}{lean} needs {rounded_up(needs_gb):.1f} GB at batch {batch}"))
    hint = ""
    if wanted > 1 and (spec.batch_size != "auto" or spec.optimizer == IN_BACKWARD):
        smallest = _needs(shape, spec, load, machine, method, 1, None, again=again)
        fix = "1" if spec.optimizer == IN_BACKWARD else "auto"
        hint = f" ({rounded_up(smallest):.1f} GB at batch 1: batch_size: {fix})"
    why = f"{', '.join(text for _, text in missed)} of {machine.words}{hint}"
    return Fitting(method, batch, each // batch, needs_gb, (), why, devices, again)


def _run_again(spec: FinetuneSpec, method: MethodName) -> tuple[bool, ...]:
    """Whether to try with activation checkpointing, in order. A frozen encoder keeps nothing to begin with."""
    if METHODS[method].encoder_backward == "none":
        return (False,)
    return (False, True) if spec.activation_checkpointing == "auto" else (spec.activation_checkpointing,)


def _sizes(wanted: int, *, auto: bool) -> list[int]:
    """The wanted batch and its halves, each a divisor, so that the rows of a step stay the same."""
    sizes = [wanted]
    while auto and sizes[-1] > 1:
        half = next(size for size in range(sizes[-1] // 2, 0, -1) if wanted % size == 0)
        sizes.append(half)
    return sizes


def _fused_sizes(shape: Shape, spec: FinetuneSpec, machine: Machine, batch: int) -> list[tuple[int | None, float]]:
    """Rows that the joint may take at once (None: as the base has it), largest first; the share of memory for each.

    A base whose joint takes the whole batch is one of `batch` rows.
    """
    if spec.fused_batch_size != "auto":
        return [(spec.fused_batch_size, 1.0)]
    if shape.kind == "ctc" or not machine.on_gpu or machine.memory_gb is None:
        return [(None, 1.0)]
    own = min(batch, shape.fused_batch_size or batch)
    sizes = sorted({max(1, batch // 2**halvings) for halvings in range(batch.bit_length())} | {own}, reverse=True)
    return [(None if size == own else size, 1.0 if size <= own else PLENTY) for size in sizes]


def _needs(
    shape: Shape, spec: FinetuneSpec, load: Load, machine: Machine, method: MethodName, batch: int,
    fused: int | None, *, again: bool,
) -> float:
    return training_need(
        shape, method, batch, longest_s=load.longest_s, longest_tokens=load.longest_tokens,
        half=machine.half, on_gpu=machine.on_gpu, fused_batch_size=fused,
        together=machine.devices > 1, settings=spec.method_settings,
        saving=Saving(spec.optimizer, again, spec.asked_precision == "bf16-true"),
    ).total  # fmt: skip


def _words(
    spec: FinetuneSpec, machine: Machine, found: Fitting, larger: tuple[int, float] | None,
    missed: list[tuple[MethodName, str]],
) -> tuple[str, ...]:
    words = []
    if spec.method == "auto":
        others = [text for method, text in missed if method != found.method]
        because = f"{others[-1]} of {machine.words}" if others else "it fits"
        words.append(f"method {found.method}: {because}")
    if spec.batch_size == "auto":
        passes = f" x {found.accumulate} accumulated" if found.accumulate > 1 else ""
        because = (
            f"{larger[0]} would need {rounded_up(larger[1]):.1f} GB of {machine.words}"
            if larger
            else f"needs {rounded_up(found.needs_gb):.1f} GB of {machine.words}"
            if machine.memory_gb is not None
            else "it fits"
        )
        words.append(f"batch {found.batch_size}{passes}: {because}")
    if found.fused_batch_size and spec.fused_batch_size == "auto":
        words.append(f"the joint network takes {found.fused_batch_size} of a pass's {found.batch_size} rows at once")
    if found.activation_checkpointing and spec.activation_checkpointing == "auto":
        words.append(f"activation checkpointing, a third more time: {missed[-1][1]} of {machine.words}")
    if found.devices > 1:
        passes = f" x {found.accumulate} accumulated" if found.accumulate > 1 else ""
        share = f"{found.batch_size} rows on each of {found.devices} devices{passes}"
        words.append(f"{share}: {found.rows_per_step} rows a step, as on one")
    return tuple(words)
