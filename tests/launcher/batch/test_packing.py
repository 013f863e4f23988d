"""Packing: never dearer than separate machines, never mixed, never longer than the budget's hours."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.batch.packing import Option, Packable, pack
from launcher.money import Usd


def option(rate: str, setup_s: float, own_s: float, where: str = "vast RTX 4090") -> Option:
    usd = Usd(Usd(rate) * Usd(round(setup_s + own_s)) / 3600)
    return Option(where, Usd(rate), usd, setup_s, 1.3 * own_s + setup_s)


def job(index: int, own_s: float, needs: str = "base", **rates: str) -> Packable:
    options = {("vast", name): option(rate, 600, own_s, name) for name, rate in rates.items()}
    return Packable(index, needs, min(each.usd for each in options.values()), options)


def test_four_short_jobs_share_one_machine_and_pay_its_set_up_once() -> None:
    (made,) = pack([job(n, 900, a="0.36") for n in range(4)], max_hours=12)
    assert made.indexes == (0, 1, 2, 3)
    assert made.saves_usd == Usd("0.18")  # three times ten minutes at $0.36/h
    assert made.usd == Usd("0.42")


def test_jobs_with_another_base_or_image_are_not_mixed() -> None:
    jobs = [job(0, 900, "one", a="0.40"), job(1, 900, "two", a="0.40"), job(2, 900, "one", a="0.40")]
    assert [made.indexes for made in pack(jobs, 12)] == [(0, 2)]


def test_a_pack_ends_within_the_budgets_hours() -> None:
    packs = pack([job(n, 3000, a="0.40") for n in range(6)], max_hours=2.5)
    assert all(made.hours_p90 <= 2.5 for made in packs)
    assert sorted(len(made.indexes) for made in packs) == [2, 2, 2]


def test_a_machine_that_costs_nothing_is_never_given_up_for_a_pack() -> None:
    assert pack([job(n, 900, local="0", a="0.40") for n in range(3)], 12) == []


def test_a_job_moves_to_a_dearer_machine_only_where_the_shared_set_up_pays_for_it() -> None:
    jobs = [job(0, 600, a="0.40"), job(1, 600, a="0.40"), job(2, 600, a="0.42", b="0.40")]
    (made,) = pack(jobs, 12)
    assert made.indexes == (0, 1, 2)
    far = [job(0, 60_000, a="0.40"), job(1, 60_000, a="0.60", b="0.40")]
    assert pack(far, 100) == []


offers = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(st.integers(0, 300), st.integers(0, 4000), st.integers(1, 20_000)),
    min_size=1, max_size=4,
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["x", "y"]), offers), max_size=8), st.floats(0.1, 30))
@settings(max_examples=300, deadline=None)
def test_packing_is_never_dearer_than_separate_machines_and_packs_each_job_at_most_once(
    drawn: list[tuple[str, dict[str, tuple[int, int, int]]]], max_hours: float
) -> None:
    jobs = []
    for index, (needs, held) in enumerate(drawn):
        options = {
            ("vast", name): option(f"{cents / 100:.2f}", setup, own) for name, (cents, setup, own) in held.items()
        }  # fmt: skip
        jobs.append(Packable(index, needs, min(each.usd for each in options.values()), options))
    packs = pack(jobs, max_hours)
    packed = [index for made in packs for index in made.indexes]
    assert len(packed) == len(set(packed))
    for made in packs:
        assert len(made.indexes) >= 2
        assert made.usd < made.separate_usd == sum((jobs[i].usd for i in made.indexes), Usd(0))
        assert made.hours_p90 <= max_hours
        assert len({jobs[i].needs for i in made.indexes}) == 1
        assert set.intersection(*(set(jobs[i].options) for i in made.indexes))
