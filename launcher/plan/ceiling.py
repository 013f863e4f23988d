"""What a run may cost at most, and what it would cost if every guard failed."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from launcher.estimate import Estimate
from launcher.money import ZERO, Usd
from launcher.offers.offer import Offer
from launcher.plan.model import Ceiling
from launcher.providers.traits import Traits

COLLECT_S = 900.0  # artefacts home, over a slow link: 2.4 GB at 25 Mbit/s
TEARDOWN_S = 600.0  # the release, its retries and its proof; Brev's delete takes minutes
ATTEMPTS = 2  # a machine that never answers is released, and the next candidate is tried once
RATE_ROOM = Decimal("1.10")  # a quote may move this much between the plan and the renting without a new YES
RUN_ROOM = 1.15  # the run may take this much longer than its p90 before it is stopped
LEAST_ROOM_S = 300.0
HOURS_OF_A_MONTH = 730  # providers' own month for disk prices
IDLE_NIGHT_H = 8


def ceiling_of(offer: Offer, guess: Estimate, traits: Traits, *, max_rate: Usd, max_hours: float, cap: Usd,
               approved_rate: Usd | None = None, after_s: float = 0.0) -> Ceiling:  # fmt: skip
    """The ceiling of renting this offer: with room above p90 where `cap` (USD) buys it, never less than p90 needs.

    `max_rate` (USD an hour) and `max_hours` are the budget's. At price 0 only the budget's hours bound the run. With
    an `approved_rate` the quote may move up to that, instead of by the usual room. `after_s`: seconds kept for the
    runs that get the machine after this one.
    """
    if offer.usd_per_hour == ZERO:
        return Ceiling(run_s=max_hours * 3600)
    rate = min(max_rate, _cents_up(offer.usd_per_hour * RATE_ROOM)) if approved_rate is None else approved_rate
    rate = max(rate, offer.usd_per_hour)
    works_s = guess.seconds_p90 - guess.phases.get("provision", 0.0)
    roomy_s = max(works_s * RUN_ROOM, works_s + LEAST_ROOM_S)
    roomy_s = max(works_s, min(roomy_s, max_hours * 3600 - after_s))
    roomy = _ceiling(offer, guess, traits, rate, roomy_s, after_s)
    if roomy.usd <= cap:
        return roomy
    # Less room where the money ends sooner: what the cap buys, but never less than the run may well need.
    bare = _ceiling(offer, guess, traits, rate, works_s, after_s)
    spare = (cap - bare.usd) / (roomy.usd - bare.usd) if bare.usd < cap else Decimal(0)
    run_s = works_s + float(spare) * (roomy_s - works_s) * 0.999
    return _ceiling(offer, guess, traits, rate, run_s, after_s)


def _ceiling(offer: Offer, guess: Estimate, traits: Traits, rate: Usd, run_s: float, after_s: float) -> Ceiling:
    billed_s = traits.provision_timeout_s + run_s + after_s + COLLECT_S + TEARDOWN_S
    hours = Decimal(str(round(billed_s / 3600, 6)))
    machine = _up(rate * hours)
    disk = _up(offer.disk_usd_per_gb_month * Decimal(str(round(guess.disk_gb, 3))) * hours / HOURS_OF_A_MONTH)
    transfer = _up(
        offer.usd_per_gb_down * Decimal(str(round(guess.transfer_down_gb, 6)))
        + offer.usd_per_gb_up * Decimal(str(round(guess.transfer_up_gb, 6)))
    )
    lost_s = max(traits.provision_timeout_s, guess.lost_s)
    lost = rate * Decimal(str(round(lost_s, 3))) / 3600 + disk * Decimal(str(round(lost_s / billed_s, 6)))
    retry = _up((lost + transfer) * (ATTEMPTS - 1))
    return Ceiling(
        usd=_cents_up(machine + disk + transfer + retry), max_usd_per_hour=rate,
        provision_s=traits.provision_timeout_s, run_s=round(run_s, 1), after_s=round(after_s, 1), collect_s=COLLECT_S,
        teardown_s=TEARDOWN_S, attempts=ATTEMPTS, machine_usd=machine,
        disk_usd=disk, transfer_usd=transfer, retry_usd=retry,
    )  # fmt: skip


def idle_usd(offer: Offer, guess: Estimate, hours: int) -> Usd:
    """What the machine would cost if nobody released it for so many hours: rate and disk."""
    disk = offer.disk_usd_per_gb_month * Decimal(str(round(guess.disk_gb, 3))) / HOURS_OF_A_MONTH
    return _up((offer.usd_per_hour + Decimal(disk)) * hours)


def worst_case(offer: Offer, guess: Estimate, traits: Traits) -> tuple[Usd, str]:
    """A month of billing that nobody ends, and in words what would stop it."""
    if offer.usd_per_hour == ZERO:
        return ZERO, "this machine is yours: nothing can be charged"
    month, day = idle_usd(offer, guess, HOURS_OF_A_MONTH), idle_usd(offer, guess, 24)
    end = traits.at_zero or (
        f"only your prepaid balance at {offer.provider} would end it" if traits.prepaid
        else f"nothing at {offer.provider} would end it"
    )  # fmt: skip
    return month, f"${_round(day)} a day, ${_round(month)} a month; {end}"


def _cents_up(amount: Decimal) -> Usd:
    return Usd(amount.quantize(Decimal("0.01"), rounding=ROUND_CEILING))


def _up(amount: Decimal) -> Usd:
    return Usd(Decimal(amount).quantize(Decimal("0.000001"), rounding=ROUND_CEILING))


def _round(amount: Usd) -> str:
    return f"{_cents_up(amount):.2f}"
