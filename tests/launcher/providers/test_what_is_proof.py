"""What an answer without a machine proves, where nothing but the answer itself can be asked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.money import Usd
from launcher.offers import bounded
from launcher.providers import Listing, Machine, Presence
from launcher.providers.runpod import RunPodProvider
from launcher.providers.vast import VastProvider

LABEL = "pl-me-abcdef-01234567-20260101T000000"


class Answers:
    """What a provider says, by a word of the question's address or text."""

    def __init__(self, **says: Any) -> None:
        self.says = says

    def exchange(self, _ctx: object, url: str, *, body: Any = None, **_: Any) -> bounded.Reply:
        asked = f"{url} {json.dumps(body)}"
        found = next((said for word, said in self.says.items() if word in asked), None)
        status, said = (404, {"success": False, "error": "not_found"}) if found is None else (200, found)
        return bounded.Reply(status, json.dumps(said).encode())


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    held = Answers()
    for name in ("RUNPOD_API_KEY", "VAST_API_KEY"):
        monkeypatch.setenv(name, "a-key-0123456789")
    monkeypatch.setattr(bounded, "exchange", held.exchange)
    return held


def runpod(account: str, spend: Any, *pods: dict[str, Any], exact: Any = None) -> dict[str, Any]:
    return {"data": {"myself": {"id": account, "currentSpendPerHr": spend, "pods": list(pods)}, "p0": exact}}


@pytest.mark.parametrize(
    ("spend", "presence"),
    [(0, Presence.ABSENT), (0.04, Presence.ABSENT), (0.34, Presence.UNKNOWN), (None, Presence.UNKNOWN),
     ("NaN", Presence.UNKNOWN), (-1, Presence.UNKNOWN)],
)  # fmt: skip
def test_a_list_without_pods_is_believed_when_the_account_spends_nothing(
    answers: Answers, tmp_path: Any, spend: Any, presence: Presence
) -> None:
    answers.says = {"graphql": runpod("user_1", spend)}
    provider = RunPodProvider(Home(tmp_path), SystemClock())
    assert provider.find(LABEL) == (presence, None)
    assert provider.listing() == Listing((), complete=presence is Presence.ABSENT)


def test_a_pod_that_runs_explains_what_it_costs_and_one_that_is_stopped_does_not(
    answers: Answers, tmp_path: Any
) -> None:
    pod = {"id": "a", "name": "theirs", "costPerHr": 0.86, "containerDiskInGb": 100, "desiredStatus": "RUNNING"}
    answers.says = {"graphql": runpod("user_1", 0.8737, pod)}
    provider = RunPodProvider(Home(tmp_path), SystemClock())
    assert provider.find(LABEL)[0] is Presence.ABSENT
    answers.says = {"graphql": runpod("user_1", 1.6, pod)}
    assert provider.find(LABEL)[0] is Presence.UNKNOWN
    answers.says = {"graphql": runpod("user_1", 0.86, {**pod, "desiredStatus": "EXITED"})}
    assert provider.find(LABEL)[0] is Presence.UNKNOWN


def test_a_pods_own_id_proves_its_end_whatever_else_the_account_spends(answers: Answers, tmp_path: Any) -> None:
    provider = RunPodProvider(Home(tmp_path), SystemClock())
    answers.says = {"podTerminate": {"data": {"podTerminate": None}}, "graphql": runpod("user_1", 5)}
    provider.destroy(Machine("abc", LABEL, Usd(1), {"account": "user_1"}))
    assert provider.find(LABEL) == (Presence.ABSENT, None)
    assert provider.listing().complete
    answers.says = {"graphql": runpod("user_2", 5)}  # the key was changed
    assert provider.find(LABEL) == (Presence.UNKNOWN, None)
    assert not provider.listing().complete


def test_the_key_of_an_account_that_was_never_rented_in_proves_nothing(answers: Answers, tmp_path: Any) -> None:
    answers.says = {"graphql": runpod("user_1", 0)}
    RunPodProvider(Home(tmp_path), SystemClock()).intend("pl-me-abcdef-76543210-20260101T000000")
    answers.says = {"graphql": runpod("user_2", 0)}
    provider = RunPodProvider(Home(tmp_path), SystemClock())
    assert provider.find(LABEL) == (Presence.UNKNOWN, None)
    assert not provider.listing().complete


def test_an_answer_of_another_account_that_shows_the_pod_does_not_move_it_there(
    answers: Answers, tmp_path: Any
) -> None:
    answers.says = {"graphql": runpod("user_1", 0)}
    provider = RunPodProvider(Home(tmp_path), SystemClock())
    provider.traits = replace(provider.traits, listing_lag_s=0.0)
    provider.intend(LABEL)
    pod = {"id": "abc", "name": LABEL, "costPerHr": 0.86}
    answers.says = {"graphql": runpod("user_1", 0.86, pod)}
    assert provider.find(LABEL)[0] is Presence.PRESENT
    answers.says = {"graphql": runpod("user_2", 0, exact=pod)}
    presence, found = provider.find(LABEL)
    assert presence is Presence.PRESENT and found is not None and found.facts["account"] == "user_1"
    answers.says = {"graphql": runpod("user_2", 0)}
    assert provider.find(LABEL) == (Presence.UNKNOWN, None)
    answers.says = {"graphql": runpod("user_1", 0)}
    assert provider.find(LABEL) == (Presence.ABSENT, None)


def vast(rows: list[dict[str, Any]], contracts: Any, one: Any = None, total: int | None = None) -> dict[str, Any]:
    said = {"users/current": {"id": 42}, "/v1/instances/": {"instances": rows, "total_instances": total}}
    if contracts is not None:
        said["contracts/fetch"] = {"contracts": contracts}
    return {**said, "/instances/": {"instances": one}}


@pytest.mark.parametrize(
    ("contracts", "one", "presence"),
    [
        ([], None, Presence.ABSENT),
        ([{"id": 7}], None, Presence.ABSENT),  # one that is over
        ([{"id": 7}], {"id": 7, "label": LABEL}, Presence.PRESENT),
        (None, None, Presence.UNKNOWN),  # Vast does not answer that question
        ([{"id": "seven"}], None, Presence.UNKNOWN),
        ("none", None, Presence.UNKNOWN),
    ],
)
def test_an_empty_list_of_vasts_is_believed_when_its_contracts_agree(
    answers: Answers, tmp_path: Any, contracts: Any, one: Any, presence: Presence
) -> None:
    answers.says = vast([], contracts, one)
    provider = VastProvider(Home(tmp_path), SystemClock())
    assert provider.find(LABEL)[0] is presence
    assert provider.listing().complete is (presence is Presence.ABSENT)


def test_a_list_that_is_shorter_than_its_own_count_is_not_whole(answers: Answers, tmp_path: Any) -> None:
    answers.says = vast([{"id": 8, "label": "theirs"}], [], total=2)
    provider = VastProvider(Home(tmp_path), SystemClock())
    assert provider.find(LABEL)[0] is Presence.UNKNOWN
    assert not provider.listing().complete


def test_a_rate_that_is_not_told_is_one_that_no_approval_allows(answers: Answers, tmp_path: Any) -> None:
    answers.says = vast([{"id": 7, "label": LABEL}], [])
    _, found = VastProvider(Home(tmp_path), SystemClock()).find(LABEL)
    assert found is not None and found.usd_per_hour >= 1000 and found.facts["rate_untold"]
    answers.says = {"graphql": runpod("user_1", 1, {"id": "a", "name": LABEL, "costPerHr": float(-1)})}
    _, found = RunPodProvider(Home(tmp_path), SystemClock()).find(LABEL)
    assert found is not None and found.usd_per_hour >= 1000 and found.facts["rate_untold"]


def test_a_lease_that_was_ended_elsewhere_does_not_vouch_for_an_empty_list(answers: Answers, tmp_path: Any) -> None:
    answers.says = {"podTerminate": {"data": {"podTerminate": None}}, "graphql": runpod("user_1", 0)}
    first = RunPodProvider(Home(tmp_path), SystemClock())
    first.destroy(Machine("abc", LABEL, Usd(1), {"account": "user_1"}))
    answers.says = {"graphql": runpod("user_1", 0.86)}
    assert first.listing().complete
    assert not RunPodProvider(Home(tmp_path), SystemClock()).listing().complete
