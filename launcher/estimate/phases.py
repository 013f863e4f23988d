"""Everything around the training of a run: getting a machine ready, moving data, measuring before and after."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from launcher.errors import BadInputError
from launcher.estimate.speed import Rates, transcribe_s
from launcher.estimate.workload import Workload
from launcher.offers.offer import Offer
from recipes.constants import figure

MBPS = 1e6 / 8  # bytes a second
UPLINK, DOWNLINK = "LAUNCHER_UPLINK_MBPS", "LAUNCHER_DOWNLINK_MBPS"


@dataclass(frozen=True)
class Line:
    """Bandwidths between the user, the machine and the world: megabits a second."""

    host_down: float
    host_up: float
    told_by: str

    def coarse(self, factor: float) -> tuple[int, int]:
        """The same for bandwidths within `factor`."""
        step = math.log(factor)
        return round(math.log(max(self.host_down, 0.1)) / step), round(math.log(max(self.host_up, 0.1)) / step)


@dataclass(frozen=True)
class Phases:
    """p50 seconds by phase; which of them are work at the GPU's speed; GB moved and kept."""

    seconds: dict[str, float]
    at_work_s: float  # what scales with how fast the machine computes
    up_gb: float
    down_gb: float
    disk_gb: float

    @property
    def setup_s(self) -> float:
        """Everything else: what depends on lines, disks and providers."""
        return sum(self.seconds.values()) - self.at_work_s

    @property
    def before_work_s(self) -> float:
        """What is spent before the first step: a bad host shows itself by then."""
        return sum(self.seconds[name] for name in ("provision", "image", "upload", "model"))


def line_of(offer: Offer) -> Line:
    """The machine's line as the offer tells it; a cautious figure where it does not."""
    assumed = figure("phases.host_mbps_marketplace" if offer.trust == "marketplace" else "phases.host_mbps_secure")
    told = "the offer" if offer.inet_down_mbps else f"assumed {assumed:g} Mbps: the offer does not tell"
    return Line(offer.inet_down_mbps or assumed, offer.inet_up_mbps or assumed, told)


def phases_of(
    work: Workload, offer: Offer, line: Line, rates: Rates, *, train_s: float, faster: float, half: bool
) -> Phases:
    """The phases of one run. `train_s`: of all optimizer steps; `faster`: than arithmetic, as measured."""
    here = offer.provider == "local"
    shape = work.shape
    artefact_gb = shape.parameters * figure("phases.artefact_bytes_per_parameter") / 1e9 if work.finetune else 0.01
    state_gb = shape.parameters * figure("phases.checkpoint_bytes_per_parameter") / 1e9
    image_gb, wheels_gb = figure("phases.image_gb"), figure("phases.environment_gb")
    up_gb = work.data_gb + (shape.file_gb if work.base_is_file else 0.0)
    hub_gb = 0.0 if work.base_is_file or (here and work.base_is_here) else shape.file_gb
    user_down = _own_line(DOWNLINK, "phases.user_down_mbps")
    hub_mbps = min(figure("phases.hub_mbps"), user_down if here else line.host_down)

    def transcribing(audio_s: float, batch: int) -> float:
        return transcribe_s(work, rates, audio_s, batch, half=half) / faster

    start_s = figure("phases.process_start_s") + shape.file_gb / figure("phases.open_gb_per_s")
    scoring_s = transcribing(work.validation_s + work.general_s, work.evaluation_batch)
    seconds = {
        "provision": 0.0 if here else _provision_s(offer),
        "image": 0.0 if here else _image_s(image_gb, wheels_gb, line),
        "upload": 0.0 if here else _moving_s(up_gb, min(_own_line(UPLINK, "phases.user_up_mbps"), line.host_down)),
        "model": _moving_s(hub_gb, hub_mbps),
        "baseline": start_s + scoring_s,
        "train": 0.0,
        "evaluate": 0.0,
        "collect": 0.0 if here else _moving_s(artefact_gb, min(user_down, line.host_up)),
    }
    seconds["collect"] += 0.0 if here else figure("phases.teardown_s")
    at_work_s = scoring_s
    checkpoints = 0
    if work.numbers and work.finetune:
        numbers = work.numbers
        validations = 1 + math.ceil(numbers.total_steps / numbers.validation_interval_steps)
        checkpoints = math.ceil(numbers.total_steps / numbers.checkpoint_interval_steps)
        decoding_s = validations * transcribing(work.validation_s, max(8, numbers.batch_size))
        decoding_s += 2 * transcribing(work.general_s, max(8, numbers.batch_size))
        writing_s = (checkpoints * (state_gb + artefact_gb) + artefact_gb) / figure("phases.checkpoint_gb_per_s")
        seconds["train"] = start_s + train_s + decoding_s + writing_s
        seconds["evaluate"] = start_s + scoring_s
        at_work_s += train_s + decoding_s + scoring_s
    if here:  # its own work in the background, a laptop's heat: the whole run is as uncertain as its speed
        at_work_s = sum(seconds.values()) - seconds["model"]
    kept = (work.finetune.keep_checkpoints + 1) * state_gb + 2 * artefact_gb if work.finetune else 0.0
    room = 2 * shape.file_gb + work.data_gb + kept
    system = 0.0 if here else image_gb * figure("phases.image_disk_ratio") + 2 * wheels_gb
    return Phases(
        seconds=seconds,
        at_work_s=at_work_s,
        up_gb=0.0 if here else artefact_gb,
        down_gb=hub_gb if here else up_gb + hub_gb + image_gb + wheels_gb,
        disk_gb=room + system + (0.0 if here else figure("phases.disk_spare_gb")),
    )


def failures(offer: Offer, phases: Phases) -> tuple[float, float]:
    """(chance that this machine fails before the run is over, seconds billed in vain when it does)."""
    if offer.trust == "own":
        return 0.0, 0.0
    kind = "marketplace" if offer.trust == "marketplace" else "secure"
    start = figure(f"hosts.bad_start_chance_{kind}")
    reliability = figure(f"hosts.reliability_{kind}") if offer.reliability is None else offer.reliability
    per_h = (1 - reliability) / figure("hosts.outage_h")
    per_h += figure("hosts.interruptions_per_h") if offer.interruptible else 0.0
    total_s = sum(phases.seconds.values())
    later = 1 - math.exp(-per_h * total_s / 3600)
    chance = min(0.95, 1 - (1 - start) * (1 - later))
    before_s = phases.before_work_s
    late_s = before_s + figure("hosts.work_lost_share") * (total_s - before_s)
    lost_s = (start * before_s + (1 - start) * later * late_s) / (start + (1 - start) * later)
    return chance, lost_s


def _provision_s(offer: Offer) -> float:
    boot_s = offer.boot_s if offer.boot_s is not None else figure("phases.provision_direct_s")
    engine_s = figure("phases.provision_skypilot_s") if offer.via == "skypilot" else 0.0
    return boot_s + engine_s + figure("phases.arming_s")


def _image_s(image_gb: float, wheels_gb: float, line: Line) -> float:
    unpacking_s = image_gb / figure("phases.image_unpack_gb_per_s")
    return _moving_s(image_gb + wheels_gb, line.host_down) + unpacking_s + figure("phases.environment_s")


def _moving_s(gb: float, mbps: float) -> float:
    return gb * 1e9 / (max(mbps, 0.1) * MBPS)


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
            "is no speed of a line.", key=variable, value=told, fix="Give megabits a second, such as 40."
        )
    return said
