from __future__ import annotations

from decimal import Decimal

import pytest
from estimate_jobs import OFFER, job_of, offer_of, prepared_of
from hypothesis import given
from hypothesis import strategies as st

from launcher.estimate import Estimate, Estimator, expected_usd
from launcher.estimate.cost import expected_floats
from launcher.money import Usd
from launcher.offers.offer import Offer


def made(**other: object) -> Estimate:
    held = {"fits": True, "needs_gb": 1, "seconds_p50": 3600, "seconds_p90": 7200, "phases": {}, "steps": 1}
    held |= {"source": "arithmetic", "parameters": 1}
    return Estimate.model_validate({**held, **other})


def test_the_cost_is_time_disk_traffic_and_the_chance_of_doing_it_again() -> None:
    offer = OFFER.model_copy(
        update={"usd_per_hour": Usd("1.00"), "disk_usd_per_gb_month": Usd("0.73"), "usd_per_gb_up": Usd("0.02"),
                "usd_per_gb_down": Usd("0.01")}
    )  # fmt: skip
    whole = made(disk_gb=100, transfer_up_gb=5, transfer_down_gb=10, failure_chance=0.2, lost_s=1800)
    per_hour = 1.00 + 0.10  # 100 GB at $0.73 a GB and 730 hours
    p50 = per_hour * (1 + 0.25 * 0.5) + 0.10 + 0.10 + 0.25 * 0.10
    p90 = p50 + per_hour
    assert [float(usd) for usd in expected_usd(offer, whole)] == pytest.approx([p50, p90])


def test_this_machine_costs_nothing() -> None:
    local = Offer(provider="local", offer_id="gpu0", gpu="RTX 4090", count=1, vram_gb=24, usd_per_hour=Usd(0))
    assert expected_usd(local, Estimator(job_of(), prepared_of()).judge(local)) == (Usd(0), Usd(0))


@given(st.floats(0, 1e7), st.decimals("0.000001", "50", places=6))
def test_a_forecast_is_never_rounded_down(seconds: float, rate: Decimal) -> None:
    offer = OFFER.model_copy(update={"usd_per_hour": Usd(rate)})
    guess = made(seconds_p50=seconds, seconds_p90=seconds)
    assert float(expected_usd(offer, guess)[0]) >= expected_floats(offer, guess)[0] * (1 - 1e-12)


def test_an_unreliable_host_costs_more_than_a_reliable_one_at_the_same_price() -> None:
    estimator = Estimator(job_of(), prepared_of(100))
    costs = [
        expected_usd(offer, estimator.judge(offer))[0]
        for offer in (offer_of("RTX 4090", 24, trust="marketplace", reliability=r) for r in (0.999, 0.97, 0.90, 0.5))
    ]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
