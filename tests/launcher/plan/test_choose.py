"""What is chosen, and why the others are not: over real jobs, budgets and offers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from offered import LOCAL_CPU, LOCAL_GPU, job_of, offer, plan_of, purse

from launcher.batch.packing import packable
from launcher.errors import BadInputError, RefusedError
from launcher.estimate import Estimator
from launcher.money import ZERO, Usd
from launcher.offers.offer import Offer
from launcher.plan import Allowed, Plan, Wishes
from launcher.plan.ranking import Ranking
from launcher.prepare import Prepared
from launcher.providers.traits import traits_of


def why(plan: Plan, provider: str) -> str:
    """Why offers of this provider are not chosen, as the plan says it."""
    lost = [each.why for each in plan.candidates if each.offer.provider == provider and not each.fits]
    return "; ".join([*lost, *(item.why for item in plan.left_out if item.example.startswith(provider))])


def test_this_machine_is_first_where_it_fits(folder: Path, prepared: Prepared) -> None:
    plan = plan_of(job_of(folder), prepared, [offer(), LOCAL_GPU])
    assert plan.choice.offer.provider == "local"
    assert plan.ceiling_usd == ZERO
    assert plan.cheapest is not None, "what money would buy is shown beside it"
    assert plan.candidates[plan.cheapest].offer.provider == "vast"


def test_a_cpu_that_would_take_days_is_not_chosen_although_it_is_free(folder: Path, prepared: Prepared) -> None:
    plan = plan_of(job_of(folder), prepared, [LOCAL_CPU, offer()])
    assert plan.choice.offer.provider == "vast"
    assert plan.local is not None
    here = plan.candidates[plan.local]
    assert not here.fits
    assert "the budget allows 12 h" in here.why
    assert here.estimate.seconds_p50 > 12 * 3600


def test_alone_a_cpu_that_would_take_days_is_refused(folder: Path, prepared: Prepared) -> None:
    with pytest.raises(RefusedError) as caught:
        plan_of(job_of(folder), prepared, [LOCAL_CPU])
    assert "the budget allows 12 h" in str(caught.value)
    assert caught.value.facts["when"] == "never"


def test_prefer_fastest_takes_the_faster_machine_and_local_refuses_to_rent(folder: Path, prepared: Prepared) -> None:
    job, offers = job_of(folder), [LOCAL_CPU, offer(), offer(gpu="H100 SXM", usd="2.20", vram=80)]
    assert plan_of(job, prepared, offers, wishes=Wishes(prefer="cheapest")).choice.offer.gpu == "RTX 4090"
    fastest = plan_of(job, prepared, offers, wishes=Wishes(prefer="fastest")).choice
    assert fastest.estimate.seconds_p50 == min(
        each.estimate.seconds_p50 for each in plan_of(job, prepared, offers).candidates if each.fits
    )
    with pytest.raises(RefusedError):
        plan_of(job, prepared, offers, wishes=Wishes(prefer="local"))


@pytest.mark.parametrize(
    ("made", "job_text", "data", "budget", "words"),
    [
        (offer("vast"), "", ", sensitivity: phi", {}, "phi data may not go there"),
        (offer("runpod"), "", ", sensitivity: phi", {}, "phi data may not go there"),
        (offer("vast"), "", ", sensitivity: internal", {}, "internal data may not go there"),
        (offer("vast"), "", "", {"allow_trust": ["own", "secure"]}, "marketplace host, which the budget does not"),
        (offer("vast"), "", "", {"providers": ["local", "runpod"]}, "budget does not name vast"),
        (offer("vast"), "resources: {providers: [local, runpod]}\n", "", {}, "job does not name vast"),
        (offer("lambda"), "", "", {"providers": ["skypilot", "local"]}, "job does not name lambda"),
        (offer("lambda"), "resources: {providers: [local, lambda]}\n", "",
         {"providers": ["skypilot", "local"]}, "unproven"),
        (offer("vast", via="skypilot"), "", "", {}, "your account's key"),
        (offer("vast", interruptible=True), "", "", {}, "taken away"),
        (offer("vast", available=False), "", "", {}, "sold out"),
        (offer("vast", usd="2.51"), "", "", {}, "dearer than the budget's $2.50/h"),
        (offer("vast", vram=6), "", "", {}, "GB"),
        (offer("vast"), "resources: {gpus: [L40S]}\n", "", {}, "not a GPU that was asked for"),
        (offer("vast"), "resources: {nodes: 2}\n", "", {}, "rents no 2 machines as one"),
        (offer("vast"), "", "", {"per_run_usd": "0.05"}, "the budget allows $0.05 a run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_rule_says_in_words_why_an_offer_is_no_choice(
    folder: Path, prepared: Prepared, made: Offer, job_text: str, data: str, budget: dict[str, Any], words: str
) -> None:
    try:
        plan = plan_of(job_of(folder, job_text, data=data), prepared, [LOCAL_GPU, made], purse(**budget))
    except RefusedError as error:  # a rule that this machine does not keep either
        assert words in str(error)
        return
    assert plan.choice.offer.provider == "local"
    assert words in why(plan, made.provider)


@pytest.mark.parametrize(("named", "kinds"), [("H100", 3), ("A100", 2), ("H100 SXM", 1)])
def test_the_name_of_a_family_of_gpus_lets_in_each_of_them(
    folder: Path, prepared: Prepared, named: str, kinds: int
) -> None:
    gpus = [("H100 PCIe", 80), ("H100 SXM", 80), ("H100 NVL", 94), ("A100 40GB", 40), ("A100 80GB", 80)]
    offers = [offer("vast", "1.50", gpu, vram) for gpu, vram in gpus]
    plan = plan_of(job_of(folder, f"resources: {{gpus: [{named}]}}\n"), prepared, offers)
    assert sum(each.fits for each in plan.candidates) == kinds
    assert plan_of(job_of(folder), prepared, offers, wishes=Wishes(gpu=named)).choice == plan.choice


def test_a_gpu_that_nobody_makes_is_refused_where_the_job_names_it(folder: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        job_of(folder, "resources: {gpus: [L40S, RTX4090X]}\n")
    assert "job.yaml:4  resources.gpus[1]: no such GPU. Did you mean RTX 4090?" in str(caught.value)


def test_a_budget_may_trust_a_provider_more(folder: Path, prepared: Prepared) -> None:
    job = job_of(folder, data=", sensitivity: internal")
    plan = plan_of(job, prepared, [LOCAL_CPU, offer("vast")], purse(trust={"vast": "secure"}))
    assert plan.choice.offer.provider == "vast"


def test_phi_goes_to_no_marketplace_whatever_a_budget_trusts(folder: Path, prepared: Prepared) -> None:
    """A budget may call a data centre's hosts its own word for phi; a marketplace's never."""
    job = job_of(folder, data=", sensitivity: phi")
    held = purse(sensitivity={"phi": ["own", "secure"]})
    assert plan_of(job, prepared, [LOCAL_CPU, offer("runpod")], held).choice.offer.provider == "runpod"
    for trusting in (held, purse(sensitivity={"phi": ["own", "secure"]}, trust={"vast": "secure"})):
        with pytest.raises(RefusedError):
            plan_of(job, prepared, [LOCAL_CPU, offer("vast")], trusting)


def test_phi_shares_its_machine_with_no_other_job_of_a_batch(folder: Path, prepared: Prepared) -> None:
    kinds = ["own", "secure"]
    offers, held = [offer("runpod", "0.74")], purse(sensitivity={"phi": kinds, "public": kinds})
    for sensitivity, shares in (("public", True), ("phi", False)):
        plan = plan_of(job_of(folder, data=f", sensitivity: {sensitivity}"), prepared, offers, held)
        assert bool(packable(0, plan).options) is shares


def test_time_for_runs_to_follow_is_in_the_deadline_and_in_the_money_of_that_offer_alone(
    folder: Path, prepared: Prepared
) -> None:
    one, other = offer("runpod", "0.74"), offer("runpod", "0.80", "L40S", 48)
    alone = plan_of(job_of(folder), prepared, [one, other])
    wishes = Wishes(after_s={(one.provider, one.offer_id): 1800.0})
    shared = plan_of(job_of(folder), prepared, [one, other], wishes=wishes)
    before, after = ({c.offer.offer_id: c.ceiling for c in plan.candidates} for plan in (alone, shared))
    assert after[other.offer_id] == before[other.offer_id]
    was, now = before[one.offer_id], after[one.offer_id]
    assert (now.run_s, now.after_s) == (was.run_s, 1800.0)
    assert now.deadline_h == pytest.approx(was.deadline_h + 0.5, abs=1e-3)
    half_an_hour = now.max_usd_per_hour / 2
    assert half_an_hour <= now.usd - was.usd <= half_an_hour + Usd("0.05")
    with pytest.raises(RefusedError, match="may take"):
        plan_of(job_of(folder), prepared, [one], wishes=replace(wishes, after_s={(one.provider, one.offer_id): 1e6}))


def test_phi_stays_off_a_marketplace_when_a_plan_is_asked_for_another_machine_or_resumed() -> None:
    """An approval of an older launcher, or of a changed file, may name any trust: the runner asks `Allowed` again."""
    for sensitivity, may in (("phi", False), ("internal", True), ("public", True)):
        allowed = Allowed(providers=("vast",), max_usd_per_hour=Usd(9), trust=("own", "secure", "marketplace"),
                          sensitivity=sensitivity, instead_usd_per_hour=Usd(9))  # fmt: skip
        assert (allowed.may_hold(offer("vast")), allowed.covers(offer("vast"))) == (may, may)
        assert allowed.covers_instead(offer("vast")) is may


def test_what_is_left_today_bounds_a_run_and_says_that_waiting_helps(folder: Path, prepared: Prepared) -> None:
    held = purse()
    held = replace(held, remaining={**held.remaining, "per_day_usd": Usd("0.05")})
    with pytest.raises(RefusedError) as caught:
        plan_of(job_of(folder), prepared, [offer()], held)
    assert "$0.05 left today" in str(caught.value)
    assert caught.value.facts["when"] == "now"


def test_a_ceiling_shrinks_to_what_is_left_but_never_below_what_the_run_may_need(
    folder: Path, prepared: Prepared
) -> None:
    roomy = plan_of(job_of(folder), prepared, [offer()])
    held = purse()
    tight = replace(held, remaining={**held.remaining, "per_day_usd": roomy.ceiling_usd - Usd("0.01")})
    plan = plan_of(job_of(folder), prepared, [offer()], tight)
    assert plan.ceiling_usd <= tight.now_usd
    works_s = plan.choice.estimate.seconds_p90 - plan.choice.estimate.phases.get("provision", 0.0)
    assert works_s <= plan.choice.ceiling.run_s < roomy.choice.ceiling.run_s


def test_the_ceiling_is_the_sum_that_its_docstring_says(folder: Path, prepared: Prepared) -> None:
    prices = {"disk_usd_per_gb_month": "0.20", "usd_per_gb_down": "0.01", "usd_per_gb_up": "0.02"}
    made = offer(usd="0.40", **{name: Usd(price) for name, price in prices.items()})
    plan = plan_of(job_of(folder), prepared, [made])
    parts, guess, traits = plan.choice.ceiling, plan.choice.estimate, traits_of(made)
    assert traits is not None
    hours = (traits.provision_timeout_s + parts.run_s + parts.collect_s + parts.teardown_s) / 3600
    assert parts.max_usd_per_hour == Usd("0.44")
    assert float(parts.machine_usd) == pytest.approx(0.44 * hours, abs=1e-5)
    assert float(parts.disk_usd) == pytest.approx(0.20 * guess.disk_gb * hours / 730, abs=1e-5)
    moved = 0.01 * guess.transfer_down_gb + 0.02 * guess.transfer_up_gb
    assert float(parts.transfer_usd) == pytest.approx(moved, abs=1e-5)
    lost_h = max(traits.provision_timeout_s, guess.lost_s) / 3600
    lost = 0.44 * lost_h + 0.20 * guess.disk_gb * lost_h / 730 + moved
    assert float(parts.retry_usd) == pytest.approx(lost, abs=1e-4)
    total = parts.machine_usd + parts.disk_usd + parts.transfer_usd + parts.retry_usd
    assert ZERO <= parts.usd - total < Usd("0.01")
    assert plan.choice.usd_p90 <= plan.ceiling_usd


def test_inside_an_approval_the_approved_offer_is_kept_although_a_cheaper_came(
    folder: Path, prepared: Prepared
) -> None:
    job, held = job_of(folder), offer(usd="0.40")
    first = plan_of(job, prepared, [held])
    wishes = Wishes(keep=("vast", held.offer_id), within=first.allowed, most_usd=first.ceiling_usd)
    dearer = held.model_copy(update={"usd_per_hour": Usd("0.43")})
    again = plan_of(job, prepared, [offer(usd="0.39"), dearer], wishes=wishes)
    assert again.choice.offer.offer_id == held.offer_id
    assert again.ceiling_usd <= first.ceiling_usd
    gone = plan_of(job, prepared, [offer(usd="0.42")], wishes=wishes)
    assert first.allowed.covers(gone.choice.offer)
    assert gone.ceiling_usd <= first.ceiling_usd


def test_the_digest_covers_every_field(folder: Path, prepared: Prepared) -> None:
    plan = plan_of(job_of(folder), prepared, [offer(), LOCAL_CPU])
    changed = {
        "job_path": "x", "asked": {}, "data": {}, "gate": {"cycle": 2}, "considered": 99, "worst_case": "x",
        "idle_night_usd": Usd("9"), "budget": "x", "caps": {}, "rules": {}, "remaining_usd": {}, "on_overrun": "trim",
        "nodes": 2, "sources": ({"name": "x"},), "candidates": plan.candidates[:1], "worst_case_usd": Usd("9"),
        "allowed": Allowed(providers=(), max_usd_per_hour=ZERO, trust=(), sensitivity="phi"), "left_out": (),
        "recipe": "x", "chosen": 1, "cheapest": None, "fastest": None, "local": None,
    }  # fmt: skip
    digests = {plan.model_copy(update={name: value}).digest for name, value in changed.items()
               if getattr(plan, name) != value}  # fmt: skip
    assert plan.digest not in digests
    assert set(changed) == set(Plan.model_fields), "a field that no digest test covers"


def test_a_plan_survives_the_ledger(folder: Path, prepared: Prepared) -> None:
    plan = plan_of(job_of(folder), prepared, [offer(), LOCAL_CPU])
    again = Plan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json"))))
    assert again.model_dump(mode="json") == plan.model_dump(mode="json")
    assert again.digest == plan.digest


def test_thousands_of_offers_leave_a_plan_that_a_person_can_read(folder: Path, prepared: Prepared) -> None:
    offers = [offer(usd=f"{0.2 + n / 5000:.4f}", offer_id=str(n)) for n in range(5000)]
    plan = plan_of(job_of(folder), prepared, [LOCAL_CPU, *offers])
    assert plan.considered == 5001
    assert len(plan.candidates) < 25
    assert len(json.dumps(plan.model_dump(mode="json"))) < 100_000
    assert sum(item.count for item in plan.left_out) + len(plan.candidates) >= 5000


OFFERS = st.lists(
    st.builds(
        offer,
        provider=st.sampled_from(["vast", "runpod", "brev", "lambda"]),
        usd=st.decimals("0.01", "4", places=4).map(str),
        gpu=st.sampled_from(["RTX 3060 12GB", "RTX 4090", "L40S", "A100 80GB", "H100 SXM"]),
        vram=st.sampled_from([12.0, 24.0, 48.0, 80.0]),
        interruptible=st.booleans(),
        available=st.sampled_from([None, True, False]),
        disk_usd_per_gb_month=st.sampled_from([Usd("0"), Usd("0.2")]),
        usd_per_gb_down=st.sampled_from([Usd("0"), Usd("0.02")]),
        reliability=st.sampled_from([None, 0.8, 0.99]),
    ),
    max_size=12,
)
DOLLARS = st.decimals("0", "6", places=2).map(str)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    offers=st.lists(
        st.builds(
            offer,
            provider=st.sampled_from(["vast", "runpod"]),
            usd=st.decimals("0.01", "4", places=2).map(str),
            gpu=st.sampled_from(["RTX 3060 12GB", "RTX 4090", "H100 SXM"]),
            vram=st.sampled_from([24.0, 48.0]),
            inet_down_mbps=st.sampled_from([None, 3.0, 80.0, 101.0, 114.0, 900.0, 4000.0]),
            inet_up_mbps=st.sampled_from([None, 40.0, 700.0]),
            reliability=st.sampled_from([None, 0.6, 0.99]),
            boot_s=st.sampled_from([None, 20.0, 400.0]),
            disk_usd_per_gb_month=st.sampled_from([Usd("0"), Usd("0.2")]),
            usd_per_gb_down=st.sampled_from([Usd("0"), Usd("0.02")]),
        ),
        max_size=25,
    )
)
def test_offers_are_handed_out_in_the_exact_order_although_most_are_never_judged(
    folder: Path, prepared: Prepared, offers: list[Offer]
) -> None:
    ranking = Ranking(offers, Estimator(job_of(folder), prepared))
    by_cost, by_time = list(ranking.by_cost()), list(ranking.by_time())
    assert len(by_cost) == len(by_time) == len(offers)
    assert [each.p50 for each in by_cost] == sorted(each.p50 for each in by_cost)
    times = [(each.guess.seconds_p50, each.p50) for each in by_time]
    assert times == sorted(times)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    offers=OFFERS, per_run=DOLLARS, left=DOLLARS, rate=DOLLARS, hours=st.sampled_from([0.1, 0.5, 2.0, 24.0]),
    sensitivity=st.sampled_from(["public", "internal", "phi"]), prefer=st.sampled_from([None, "cheapest", "fastest"]),
    local=st.sampled_from([[], [LOCAL_CPU], [LOCAL_GPU]]),
)  # fmt: skip
def test_whatever_is_chosen_keeps_every_rule_and_stays_under_every_cap(
    folder: Path, prepared: Prepared, offers: list[Offer], per_run: str, left: str, rate: str, hours: float,
    sensitivity: str, prefer: Any, local: list[Offer],
) -> None:  # fmt: skip
    job = job_of(folder, data=f", sensitivity: {sensitivity}")
    held = purse(per_run_usd=per_run, max_usd_per_hour=rate, max_hours=hours)
    held = replace(held, remaining={**held.remaining, "per_day_usd": Usd(left)})
    try:
        plan = plan_of(job, prepared, [*local, *offers], held, Wishes(prefer=prefer))
    except RefusedError as error:
        assert error.facts.get("when") in {"now", "never"} or not offers
        return
    choice = plan.choice
    assert choice.fits
    assert plan.ceiling_usd <= min(Usd(per_run), Usd(left)) or choice.is_local
    assert choice.estimate.seconds_p90 <= hours * 3600
    assert choice.usd_p50 <= choice.usd_p90
    if not choice.is_local:
        assert choice.usd_p90 <= plan.ceiling_usd
        assert choice.offer.usd_per_hour <= choice.ceiling.max_usd_per_hour <= Usd(rate)
        assert choice.offer.trust in held.budget.may_go(job.data.sensitivity)
        assert sensitivity != "phi"
        assert choice.offer.provider in ("vast", "runpod", "brev")
        assert not choice.offer.interruptible
        assert choice.offer.available is not False
        assert not [each for each in plan.candidates if each.is_local and each.fits] or prefer == "fastest"
    if prefer != "fastest" and not choice.is_local:
        assert choice.usd_p50 == min(each.usd_p50 for each in plan.candidates if each.fits and not each.is_local)
    for each in plan.candidates:
        assert each.fits or each.why
