"""Expected total cost of a run on an offer: time, disk, traffic, and the chance of a machine that fails.

Floats inside, because a forecast is no amount of money; what leaves is Usd, rounded up to the micro-dollar.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from launcher.estimate.judgement import Estimate
from launcher.money import Usd
from launcher.offers.offer import Offer

HOURS_A_MONTH = 730.0  # as providers count a disk's month (Offer.disk_usd_per_gb_month)
_MICRO = Decimal("0.000001")


def expected_usd(offer: Offer, estimate: Estimate) -> tuple[Usd, Usd]:
    """What the whole run is expected to cost on this offer: (p50, p90), each rounded up to a micro-dollar.

    (rate + disk) x (time + expected retries x time lost a failure) + traffic x (1 + expected retries). A failure
    chance of p makes p / (1 - p) retries. Nothing here is a ceiling: that is the plan's.
    """
    p50, p90 = expected_floats(offer, estimate)
    return rounded_up(p50), rounded_up(p90)


def expected_floats(offer: Offer, estimate: Estimate) -> tuple[float, float]:
    """The same in plain dollars, for ranking; never shown, never reserved."""
    return dollars(
        offer, seconds=(estimate.seconds_p50, estimate.seconds_p90), disk_gb=estimate.disk_gb,
        up_gb=estimate.transfer_up_gb, down_gb=estimate.transfer_down_gb,
        failing=(estimate.failure_chance, estimate.lost_s),
    )  # fmt: skip


def dollars(
    offer: Offer, *, seconds: tuple[float, float], disk_gb: float, up_gb: float, down_gb: float,
    failing: tuple[float, float],
) -> tuple[float, float]:  # fmt: skip
    """(p50, p90) from the parts: seconds are p50 and p90; `failing` the chance, and the seconds then lost."""
    per_s = (float(offer.usd_per_hour) + float(offer.disk_usd_per_gb_month) * disk_gb / HOURS_A_MONTH) / 3600
    chance, lost_s = failing
    retries = chance / (1 - chance)
    again = retries * lost_s
    traffic = float(offer.usd_per_gb_down) * down_gb * (1 + retries) + float(offer.usd_per_gb_up) * up_gb
    return per_s * (seconds[0] + again) + traffic, per_s * (seconds[1] + again) + traffic


def rounded_up(dollars: float) -> Usd:
    """A forecast as money, never shown too low."""
    return Usd(Decimal(repr(dollars)).quantize(_MICRO, rounding=ROUND_CEILING))
