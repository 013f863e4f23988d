"""One job against many offers: what is the same for all is computed once, what differs is remembered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from launcher.estimate.cost import dollars
from launcher.estimate.judgement import PHASES, Estimate
from launcher.estimate.measured import Measured, Speed, gpu_name
from launcher.estimate.phases import Around, around, line_of
from launcher.estimate.speed import Rates, exchange_s, rates_of, step_s, trained
from launcher.estimate.workload import workload_of
from launcher.job import Job
from launcher.offers import canonical
from launcher.offers.offer import Offer
from launcher.prepare import Prepared
from recipes.constants import figure
from recipes.finetune.fitting import Fitting, Machine, fit, rounded_up, sharing, wanted_rows_per_step
from recipes.finetune.spec import FinetuneSpec
from recipes.methods.registry import METHODS
from recipes.models.memory import training_need

if TYPE_CHECKING:
    from launcher.ledger import Throughput


class Weighed:
    """An offer in a few numbers, to rank thousands by. Dollars are floats: `expected_usd` is for what is kept."""

    __slots__ = ("_estimator", "_offer", "fits", "seconds_p50", "seconds_p90", "usd_p50", "usd_p90", "why_not")

    def __init__(self, estimator: Estimator, offer: Offer, there: _OnGpu) -> None:
        self._estimator, self._offer = estimator, offer
        self.fits, self.why_not = there.fitting.fits, there.fitting.why_not
        around = there.around
        course = around.course(offer)
        self.seconds_p50, self.seconds_p90 = course.seconds_p50, course.seconds_p90
        self.usd_p50, self.usd_p90 = dollars(
            offer, seconds=(course.seconds_p50, course.seconds_p90), disk_gb=around.disk_gb, up_gb=around.up_gb,
            down_gb=around.down_gb, failing=(course.failure_chance, course.lost_s),
        )  # fmt: skip

    @property
    def estimate(self) -> Estimate:
        """The whole estimate: made when it is asked for."""
        return self._estimator.judge(self._offer)


@dataclass(frozen=True)
class _OnGpu:
    """What is the same for all offers with one kind of GPU and so much memory."""

    rates: Rates
    fitting: Fitting
    half: bool
    speed: Speed
    around: Around


class Estimator:
    """One for each job. `weigh` is for all offers (microseconds each), `judge` for the ones that are kept.

    `measured` are the ledger's rows of earlier runs, of any GPU: the newest weigh most.
    """

    def __init__(self, job: Job, prepared: Prepared, measured: Sequence[Throughput] = ()) -> None:
        self._work = workload_of(job, prepared)
        self._measured = {
            method: Measured(measured, method=method, parameters=self._work.shape.parameters)
            for method in METHODS
        }
        self._on_gpu: dict[tuple[Any, ...], _OnGpu] = {}

    def weigh(self, offer: Offer) -> Weighed:
        """Does it fit, how long, what it is expected to cost; without words."""
        return Weighed(self, offer, self._there(offer))

    def judge(self, offer: Offer) -> Estimate:
        """Whether the job fits on this offer, how long it takes, what `auto` becomes there, and why."""
        work, there = self._work, self._there(offer)
        fitting, speed, around = there.fitting, there.speed, there.around
        course = around.course(offer)
        phases = {**course.setup._asdict(), **around.work}
        asked = work.finetune.asked_precision if work.finetune else "auto"
        return Estimate(
            fits=fitting.fits,
            why_not=fitting.why_not,
            needs_gb=rounded_up(fitting.needs_gb),
            seconds_p50=round(course.seconds_p50, 1),
            seconds_p90=round(course.seconds_p90, 1),
            phases={name: round(phases[name], 1) for name in PHASES},
            source=speed.source,
            sources=self._sources(there, offer),
            steps=work.numbers.total_steps if work.numbers else 0,
            parameters=int(work.shape.parameters),
            audio_s=round(work.audio_s, 1),
            audio_s_per_s=round(speed.audio_s_per_s, 2) if work.finetune else 0.0,
            method=fitting.method if work.finetune else "",
            batch_size=fitting.batch_size * fitting.devices,
            accumulate_grad_batches=fitting.accumulate,
            activation_checkpointing=fitting.activation_checkpointing,
            fused_batch_size=fitting.fused_batch_size,
            devices=max(1, fitting.devices // offer.nodes),
            precision=_precision(asked, half=there.half),
            choices=_choices(offer, fitting),
            transfer_up_gb=round(around.up_gb, 3),
            transfer_down_gb=round(around.down_gb, 3),
            disk_gb=round(around.disk_gb, 1),
            failure_chance=round(course.failure_chance, 4),
            lost_s=round(course.lost_s, 1),
        )

    def _there(self, offer: Offer) -> _OnGpu:
        key = (offer.provider == "local", offer.gpu, offer.count, offer.vram_gb, offer.nodes)
        return self._on_gpu.get(key) or self._on_gpu.setdefault(key, self._judge_machine(offer))

    def _judge_machine(self, offer: Offer) -> _OnGpu:
        """Fit and speed on one kind of machine."""
        work, on_gpu, here = self._work, offer.count > 0, offer.provider == "local"
        rates = rates_of(offer.gpu, offer.vram_gb, on_gpu=on_gpu, cores=_cores() if here else 2)
        asked = work.finetune.asked_precision if work.finetune else "auto"
        half = on_gpu and (asked == "16-mixed" or (rates.has_bf16 and asked in ("auto", "bf16-mixed", "bf16-true")))
        memory_gb = offer.vram_gb if on_gpu else _memory_gb() if here else None
        fitting = self._fit(Machine(memory_gb, half=half, on_gpu=on_gpu, nodes=offer.nodes), offer)
        if asked == "bf16-true" and on_gpu and not rates.has_bf16:
            fitting = replace(fitting, why_not=f"precision bf16-true: {offer.gpu} does not compute in bf16")
        arithmetic = self._audio_rate(rates, fitting, offer.nodes, half=half)
        speed = self._speed(offer, fitting, arithmetic, half=half)
        around_it = around(
            work, rates, here=here, train_s=work.audio_s / speed.audio_s_per_s, spread=speed.spread, half=half,
            faster=speed.audio_s_per_s / arithmetic, trained=trained(work, fitting.method),
        )  # fmt: skip
        return _OnGpu(rates, fitting, half, speed, around_it)

    def _speed(self, offer: Offer, fitting: Fitting, arithmetic: float, *, half: bool) -> Speed:
        """How fast this kind of machine trains: as measured, scaled or by arithmetic."""
        if not self._work.finetune:
            return Speed(arithmetic, figure("spread.arithmetic"), "arithmetic", "")

        def elsewhere(name: str, count: int) -> float:
            known = canonical(name)
            if known is None:
                return 0.0
            there = rates_of(name, known.vram_gb, on_gpu=True)
            there_too = replace(fitting, devices=max(1, count))
            return self._audio_rate(there, there_too, 1, half=known.supports_bf16 and half)

        precision = _precision(self._work.finetune.asked_precision, half=half)
        name = gpu_name(offer.gpu, offer.count)
        kind = (name, offer.count if offer.nodes == 1 else -offer.nodes)  # several machines: nothing of it is kept
        return self._measured[fitting.method].speed(kind, precision, arithmetic, elsewhere, on_gpu=offer.count > 0)

    def _fit(self, machine: Machine, offer: Offer) -> Fitting:
        work = self._work
        if work.finetune:
            return self._fit_training(work.finetune, machine, offer)
        need = training_need(
            work.shape, "frozen_encoder", 1, longest_s=min(120.0, work.longest_held_out_s), longest_tokens=0,
            half=False, on_gpu=machine.on_gpu,
        )  # fmt: skip
        short = machine.memory_gb is not None and need.total > machine.memory_gb
        why = f"transcribing needs {rounded_up(need.total):.1f} GB of {machine.words}" if short else ""
        return Fitting("frozen_encoder", 1, 1, need.total, (), why)

    def _fit_training(self, spec: FinetuneSpec, machine: Machine, offer: Offer) -> Fitting:
        """On as many of its devices as share a step evenly, or on as many as the job asks for."""
        there = max(1, offer.count)
        _, rows = wanted_rows_per_step(spec, self._work.load.epoch_rows, offer.nodes)
        most = sharing(rows, there, offer.nodes) or 1  # where not even one each can, `fit` says why
        used = most if spec.devices == "auto" else spec.devices
        fitting = fit(self._work.shape, spec, self._work.load, replace(machine, devices=used * offer.nodes))
        if used > there and machine.on_gpu:
            return replace(fitting, why_not=f"the job asks for {used} devices, and it has {there} GPUs")
        return fitting

    def _audio_rate(self, rates: Rates, fitting: Fitting, nodes: int, *, half: bool) -> float:
        """Audio seconds a second of training by arithmetic, padding paid for but not counted."""
        if not self._work.finetune:
            return 1.0
        a_step = step_s(
            self._work, rates, fitting.method, fitting.batch_size, fitting.accumulate, half=half,
            again=fitting.activation_checkpointing,
        )  # fmt: skip
        a_step += exchange_s(self._work, fitting.method, fitting.devices, nodes)
        return fitting.rows_per_step * self._work.mean_s / a_step

    def _sources(self, there: _OnGpu, offer: Offer) -> dict[str, str]:
        assumed = f"assumed {line_of(offer).down:g} Mbps: the offer does not tell"
        return {
            "speed": f"{there.speed.source}: {there.speed.words}" if self._work.finetune else "arithmetic",
            "gpu": there.rates.known,
            "memory": "recipes/constants.toml, with a margin of " + f"{figure('memory.margin_share'):.0%}",
            "base": self._work.shape.told_by,
            "bandwidth": "the offer" if offer.inet_down_mbps or offer.provider == "local" else assumed,
        }


def _choices(offer: Offer, fitting: Fitting) -> tuple[str, ...]:
    words, used = fitting.words, fitting.devices // offer.nodes
    if offer.nodes > 1:
        words = (*words, f"{offer.nodes} machines train as one: all are paid, the first alone measures and saves")
    if offer.count > max(1, used):
        rows = f"{fitting.rows_per_step} rows a step"
        words = (*words, f"uses {used} of {offer.count} GPUs, as many as share {rows} evenly: all are paid")
    return words


def _precision(asked: str, *, half: bool) -> str:
    if asked == "bf16-true":
        return asked
    return ("16-mixed" if asked == "16-mixed" else "bf16-mixed") if half else "32"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float:
    """GB of this machine's memory that programs could have now."""
    import psutil

    return float(psutil.virtual_memory().available) / 1e9
