"""One job against many offers: what is the same for all is computed once, what differs is remembered."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.estimate.cost import expected_floats
from launcher.estimate.judgement import Estimate
from launcher.estimate.measured import Measured, Speed, gpu_name
from launcher.estimate.phases import Line, failures, line_of, phases_of
from launcher.estimate.speed import Rates, rates_of, step_s
from launcher.estimate.workload import workload_of
from launcher.job import Job
from launcher.offers import canonical
from launcher.offers.offer import Offer
from launcher.prepare import Prepared
from recipes.constants import figure
from recipes.finetune.fitting import Fitting, Machine, fit
from recipes.models.memory import training_need

if TYPE_CHECKING:
    from launcher.ledger import Throughput

COARSE = 1.15  # bandwidths within this factor are judged as one


class Weighed(NamedTuple):
    """An offer in a few numbers, to rank thousands by. Dollars are floats: `expected_usd` is for what is kept."""

    fits: bool
    usd_p50: float
    usd_p90: float
    seconds_p50: float
    seconds_p90: float
    estimate: Estimate


@dataclass(frozen=True)
class _OnGpu:
    """What is the same for all offers with one kind of GPU and so much memory."""

    rates: Rates
    fitting: Fitting
    half: bool
    speed: Speed
    step_s: float
    faster: float  # than arithmetic said, as measured


class Estimator:
    """One for each job. `weigh` is for all offers, `judge` for one; both remember what they have seen.

    `measured` are the ledger's rows of earlier runs, of any GPU: the newest weigh most. 30,000 offers take a
    fraction of a second: those that differ only in price share one Estimate object.
    """

    def __init__(self, job: Job, prepared: Prepared, measured: Sequence[Throughput] = ()) -> None:
        self._work = workload_of(job, prepared)
        self._measured = {
            method: Measured(measured, method=method, parameters=self._work.shape.parameters)
            for method in ("full", "frozen_encoder")
        }
        self._on_gpu: dict[tuple[Any, ...], _OnGpu] = {}
        self._seen: dict[tuple[Any, ...], Estimate] = {}

    def judge(self, offer: Offer) -> Estimate:
        """Whether the job fits on this offer, how long it takes, what `auto` becomes there."""
        machine = (offer.provider == "local", offer.gpu, offer.count, offer.vram_gb)
        line = line_of(offer)
        key = (machine, line.coarse(COARSE), offer.provider, offer.via, offer.trust, offer.interruptible,
               offer.boot_s, None if offer.reliability is None else round(offer.reliability, 3))  # fmt: skip
        found = self._seen.get(key)
        if found is None:
            there = self._on_gpu.get(machine)
            if there is None:
                there = self._on_gpu[machine] = self._judge_machine(offer)
            found = self._seen[key] = self._judge(offer, there, line)
        return found

    def weigh(self, offer: Offer) -> Weighed:
        """The same with the expected cost: (fits, usd p50, p90, seconds p50, p90, estimate). Cheap: 30,000 offers."""
        made = self.judge(offer)
        p50, p90 = expected_floats(offer, made)
        return Weighed(made.fits, p50, p90, made.seconds_p50, made.seconds_p90, made)

    def _judge_machine(self, offer: Offer) -> _OnGpu:
        """Fit and speed on one kind of machine."""
        work, on_gpu, here = self._work, offer.count > 0, offer.provider == "local"
        rates = rates_of(offer.gpu, offer.vram_gb, on_gpu=on_gpu, cores=_cores() if here else 2)
        asked = work.finetune.precision if work.finetune else "auto"
        half = on_gpu and (asked == "16-mixed" or (rates.has_bf16 and asked in ("auto", "bf16-mixed")))
        memory_gb = offer.vram_gb if on_gpu else _memory_gb() if here else None
        machine = Machine(memory_gb, half=half, on_gpu=on_gpu)
        fitting = self._fit(machine)
        arithmetic = self._audio_rate(rates, fitting, half=half)
        if not work.finetune:
            return _OnGpu(
                rates, fitting, half, Speed(arithmetic, figure("spread.arithmetic"), "arithmetic", ""), 0.0, 1.0
            )

        def elsewhere(name: str) -> float:
            known = canonical(name)
            if known is None:
                return 0.0
            there = rates_of(name, known.vram_gb, on_gpu=True)
            return self._audio_rate(there, fitting, half=known.supports_bf16 and half)

        precision = _precision(asked, half=half)
        name = gpu_name(offer.gpu, offer.count) if on_gpu else offer.gpu
        speed = self._measured[fitting.method].speed(name, precision, arithmetic, elsewhere, on_gpu=on_gpu)
        rows = fitting.batch_size * fitting.accumulate
        return _OnGpu(
            rates, fitting, half, speed, rows * work.mean_s / speed.audio_s_per_s, speed.audio_s_per_s / arithmetic
        )

    def _fit(self, machine: Machine) -> Fitting:
        work = self._work
        if work.finetune:
            return fit(work.shape, work.finetune, work.load, machine)
        need = training_need(
            work.shape, "frozen_encoder", 1, longest_s=min(120.0, work.longest_held_out_s), longest_tokens=0,
            half=False, on_gpu=machine.on_gpu,
        )  # fmt: skip
        short = machine.memory_gb is not None and need.total > machine.memory_gb
        why = f"transcribing needs {need.total:.1f} GB of {machine.words}" if short else ""
        return Fitting("frozen_encoder", 1, 1, need.total, (), why)

    def _audio_rate(self, rates: Rates, fitting: Fitting, *, half: bool) -> float:
        """Audio seconds a second of training by arithmetic, padding paid for but not counted."""
        if not self._work.finetune:
            return 1.0
        a_step = step_s(self._work, rates, fitting.method, fitting.batch_size, fitting.accumulate, half=half)
        return fitting.batch_size * fitting.accumulate * self._work.mean_s / a_step

    def _judge(self, offer: Offer, there: _OnGpu, line: Line) -> Estimate:
        work, fitting, speed = self._work, there.fitting, there.speed
        steps = work.numbers.total_steps if work.numbers else 0
        train_s = steps * there.step_s
        phases = phases_of(work, offer, line, there.rates, train_s=train_s, faster=there.faster, half=there.half)
        p50 = sum(phases.seconds.values())
        p90 = p50 + math.hypot(phases.at_work_s * (speed.spread - 1), phases.setup_s * (figure("spread.setup") - 1))
        chance, lost_s = failures(offer, phases)
        asked = work.finetune.precision if work.finetune else "auto"
        return Estimate(
            fits=fitting.fits,
            why_not=fitting.why_not,
            needs_gb=round(fitting.needs_gb, 1),
            seconds_p50=round(p50, 1),
            seconds_p90=round(p90, 1),
            phases={name: round(seconds, 1) for name, seconds in phases.seconds.items()},
            source=speed.source,
            sources=self._sources(there, line),
            steps=steps,
            parameters=int(work.shape.parameters),
            audio_s=round(work.audio_s, 1),
            audio_s_per_s=round(speed.audio_s_per_s, 2) if work.finetune else 0.0,
            method=fitting.method if work.finetune else "",
            batch_size=fitting.batch_size,
            accumulate_grad_batches=fitting.accumulate,
            precision=_precision(asked, half=there.half),
            choices=_choices(offer, fitting),
            transfer_up_gb=round(phases.up_gb, 3),
            transfer_down_gb=round(phases.down_gb, 3),
            disk_gb=round(phases.disk_gb, 1),
            failure_chance=round(chance, 4),
            lost_s=round(lost_s, 1),
        )

    def _sources(self, there: _OnGpu, line: Line) -> dict[str, str]:
        return {
            "speed": f"{there.speed.source}: {there.speed.words}" if self._work.finetune else "arithmetic",
            "gpu": there.rates.known,
            "memory": "recipes/constants.toml, with a margin of " + f"{figure('memory.margin_share'):.0%}",
            "base": self._work.shape.told_by,
            "bandwidth": line.told_by,
        }


def _choices(offer: Offer, fitting: Fitting) -> tuple[str, ...]:
    if offer.count > 1:
        return (*fitting.words, f"uses 1 of {offer.count} GPUs: all {offer.count} are paid, training runs on one")
    return fitting.words


def _precision(asked: str, *, half: bool) -> str:
    return ("16-mixed" if asked == "16-mixed" else "bf16-mixed") if half else "32"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float:
    """GB of this machine's memory that programs could have now."""
    import psutil

    return float(psutil.virtual_memory().available) / 1e9
