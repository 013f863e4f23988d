"""Everything around the training of a run: getting a machine ready, moving data, measuring before and after."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from launcher.errors import BadInputError
from launcher.estimate.speed import Rates, transcribe_s
from launcher.estimate.workload import Workload
from launcher.offers.offer import Offer
from recipes.constants import figure
from recipes.extend_vocabulary.spec import ExtendVocabularySpec

UPLINK, DOWNLINK = "LAUNCHER_UPLINK_MBPS", "LAUNCHER_DOWNLINK_MBPS"
_SECONDS_A_GB = 8000.0  # on a line of 1 Mbps
_SLOWEST_MBPS = 0.1


class Setup(NamedTuple):
    """Seconds of what depends on the host and its line; 0 on this machine, but for the model."""

    provision: float
    image: float
    upload: float
    model: float
    collect: float


class Course(NamedTuple):
    """How a run on one offer goes: seconds, the chance that the machine fails, seconds lost when it does."""

    setup: Setup
    seconds_p50: float
    seconds_p90: float
    failure_chance: float
    lost_s: float


class Line(NamedTuple):
    """The machine's bandwidths in megabits a second, as its offer tells them; a cautious figure where it does not."""

    down: float
    up: float


@dataclass(frozen=True)
class Around:
    """What is the same for every offer with one kind of machine; `course` adds what is one offer's own.

    `work` holds the p50 seconds of baseline, train and evaluate; `uncertain_s` is the part of them (on this machine
    all of it) that is as uncertain as the machine's speed.
    """

    here: bool
    work: dict[str, float]
    uncertain_s: float
    spread: float  # p90 over p50 of that part
    upload_gb: float
    hub_gb: float
    artefact_gb: float
    disk_gb: float
    user_up_mbps: float
    user_down_mbps: float

    @property
    def down_gb(self) -> float:
        """What the machine receives: data, a base of the user's, image, environment, a base of the hub's."""
        return self.hub_gb if self.here else self.upload_gb + self.hub_gb + _figures().system_gb

    @property
    def up_gb(self) -> float:
        """What it sends."""
        return 0.0 if self.here else self.artefact_gb

    def course(self, offer: Offer) -> Course:
        """The run on one offer. Called for tens of thousands: arithmetic alone."""
        known = _figures()
        working_s = sum(self.work.values())
        if self.here:
            mbps = min(known.hub_mbps, self.user_down_mbps)
            setup = Setup(0.0, 0.0, 0.0, self.hub_gb * _SECONDS_A_GB / mbps, 0.0)
        else:
            down, up = line_of(offer)
            setup = Setup(
                (known.direct_s if offer.boot_s is None else offer.boot_s)
                + (known.engine_s if offer.via == "skypilot" else 0.0),
                known.system_gb * _SECONDS_A_GB / down + known.unpacking_s,
                self.upload_gb * _SECONDS_A_GB / min(self.user_up_mbps, down),
                self.hub_gb * _SECONDS_A_GB / min(known.hub_mbps, down),
                self.artefact_gb * _SECONDS_A_GB / min(self.user_down_mbps, up) + known.teardown_s,
            )
        setup_s = sum(setup)
        p50 = working_s + setup_s
        rest_s = p50 - self.uncertain_s
        p90 = p50 + math.hypot(self.uncertain_s * (self.spread - 1), rest_s * (known.setup_spread - 1))
        if offer.trust == "own":
            return Course(setup, p50, p90, 0.0, 0.0)
        before_s = setup_s - setup.collect
        start, per_h = known.failing(offer)
        later = (1 - start) * -math.expm1(-per_h * p50 / 3600)
        lost_s = start * before_s + later * (before_s + known.work_lost * (p50 - before_s))
        return Course(setup, p50, p90, min(0.95, start + later), lost_s / (start + later))


@dataclass(frozen=True)
class _Figures:
    """The figures that every offer needs, looked up once."""

    system_gb: float
    unpacking_s: float
    hub_mbps: float
    direct_s: float
    engine_s: float
    teardown_s: float
    setup_spread: float
    work_lost: float
    outage_h: float
    interruptions_per_h: float
    by_trust: dict[bool, tuple[float, float, float]]  # a stranger's? -> Mbps, chance of a bad start, reliability

    def failing(self, offer: Offer) -> tuple[float, float]:
        """(chance of a bad start, failures an hour later on)."""
        _, start, reliability = self.by_trust[offer.trust == "marketplace"]
        per_h = (1 - (reliability if offer.reliability is None else offer.reliability)) / self.outage_h
        return start, per_h + (self.interruptions_per_h if offer.interruptible else 0.0)


@cache
def _figures() -> _Figures:
    arming_s = figure("phases.arming_s")
    kinds = {True: "marketplace", False: "secure"}
    return _Figures(
        system_gb=figure("phases.image_gb") + figure("phases.environment_gb"),
        unpacking_s=figure("phases.image_gb") / figure("phases.image_unpack_gb_per_s")
        + figure("phases.environment_s"),
        hub_mbps=figure("phases.hub_mbps"),
        direct_s=figure("phases.provision_direct_s") + arming_s,
        engine_s=figure("phases.provision_skypilot_s"),
        teardown_s=figure("phases.teardown_s"),
        setup_spread=figure("spread.setup"),
        work_lost=figure("hosts.work_lost_share"),
        outage_h=figure("hosts.outage_h"),
        interruptions_per_h=figure("hosts.interruptions_per_h"),
        by_trust={
            stranger: (
                figure(f"phases.host_mbps_{kind}"),
                figure(f"hosts.bad_start_chance_{kind}"),
                figure(f"hosts.reliability_{kind}"),
            )
            for stranger, kind in kinds.items()
        },
    )


def line_of(offer: Offer) -> Line:
    """The machine's line as the offer tells it; a cautious figure where it does not."""
    assumed = _figures().by_trust[offer.trust == "marketplace"][0]
    down, up = offer.inet_down_mbps or assumed, offer.inet_up_mbps or assumed
    return Line(max(down, _SLOWEST_MBPS), max(up, _SLOWEST_MBPS))


def around(
    work: Workload, rates: Rates, *, here: bool, train_s: float, faster: float, spread: float, half: bool,
    trained: float,
) -> Around:  # fmt: skip
    """What is around the training of one job on one kind of machine.

    `train_s`: of all optimizer steps; `faster`: than arithmetic, as measured; `spread`: p90 over p50 of the speed;
    `trained`: the parameters that learn, which is what checkpoints hold.
    """
    shape = work.shape

    def transcribing(audio_s: float, batch: int) -> float:
        return transcribe_s(work, rates, audio_s, batch, half=half) / faster

    start_s = figure("phases.process_start_s") + shape.file_gb / figure("phases.open_gb_per_s")
    scoring_s = transcribing(work.validation_s + work.general_s, work.evaluation_batch)
    artefact_gb = shape.parameters * figure("phases.artefact_bytes_per_parameter") / 1e9 if work.finetune else 0.01
    seconds = {"baseline": start_s + scoring_s, "train": 0.0, "evaluate": 0.0}
    uncertain_s, kept_gb = scoring_s, 0.0
    if work.finetune:
        inside_s, writing_s, kept_gb = _inside_training(work, trained, artefact_gb, transcribing)
        seconds["train"] = start_s + train_s + inside_s + writing_s
        if isinstance(work.finetune, ExtendVocabularySpec):  # opened, extended and written before it is trained
            seconds["train"] += start_s + shape.file_gb / figure("phases.checkpoint_gb_per_s")
            kept_gb += shape.file_gb
        seconds["evaluate"] = start_s + scoring_s
        uncertain_s += train_s + inside_s + scoring_s
    disk_gb = 2 * shape.file_gb + work.data_gb + kept_gb
    if not here:
        disk_gb += figure("phases.image_gb") * figure("phases.image_disk_ratio") + figure("phases.disk_spare_gb")
        disk_gb += 2 * figure("phases.environment_gb")
    return Around(
        here=here,
        work=seconds,
        uncertain_s=sum(seconds.values()) if here else uncertain_s,  # its own work, a laptop's heat
        spread=spread,
        upload_gb=work.data_gb + (shape.file_gb if work.base_is_file else 0.0),
        hub_gb=0.0 if work.base_is_file or (here and work.base_is_here) else shape.file_gb,
        artefact_gb=artefact_gb,
        disk_gb=disk_gb,
        user_up_mbps=_own_line(UPLINK, "phases.user_up_mbps"),
        user_down_mbps=downlink_mbps(),
    )


def _inside_training(
    work: Workload, trained: float, artefact_gb: float, transcribing: Callable[[float, int], float]
) -> tuple[float, float, float]:
    """(seconds of decoding, seconds of writing, GB kept on disk) of a training, beside its steps."""
    assert work.finetune
    assert work.numbers
    numbers = work.numbers
    state_gb = trained * figure("phases.checkpoint_bytes_per_parameter") / 1e9
    learned_gb = trained * figure("phases.artefact_bytes_per_parameter") / 1e9  # best weights, an adapter
    validations = 1 + math.ceil(numbers.total_steps / numbers.validation_interval_steps)
    checkpoints = math.ceil(numbers.total_steps / numbers.checkpoint_interval_steps)
    batch = max(8, numbers.batch_size)
    decoding_s = validations * transcribing(work.validation_s, batch) + 2 * transcribing(work.general_s, batch)
    written_gb = checkpoints * (state_gb + learned_gb) + artefact_gb
    kept_gb = (work.finetune.keep_checkpoints + 1) * state_gb + learned_gb + artefact_gb
    return decoding_s, written_gb / figure("phases.checkpoint_gb_per_s"), kept_gb


def uplink_mbps() -> float | None:
    """The user's own line, upwards, Mbps: None where nobody has told it. Raises BadInputError for no speed."""
    return _own_line(UPLINK, "phases.user_up_mbps") if os.environ.get(UPLINK) else None


def downlink_mbps() -> float:
    """The user's own line, downwards, Mbps: as told, else an assumption. Raises BadInputError for no speed."""
    return _own_line(DOWNLINK, "phases.user_down_mbps")


def _own_line(variable: str, default: str) -> float:
    """The user's own line, Mbps: what the environment says, else an assumption. Raises BadInputError."""
    told = os.environ.get(variable)
    if not told:
        return figure(default)
    try:
        said = float(told)
    except ValueError:
        said = math.nan
    if not (math.isfinite(said) and said > 0):
        raise BadInputError(
            f"{told!r} is no speed of a line.", key=variable, value=told, fix="Give megabits a second, such as 40."
        )
    return said
