"""The providers that the suite holds to the contract, each on its ground. A provider joins by adding a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from launcher.clock import Clock
from launcher.home import Home
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.base import Provider
from launcher.providers.brev import BrevProvider
from launcher.providers.runpod import RunPodProvider
from launcher.providers.skypilot import SkyPilotProvider
from launcher.providers.vast import VastProvider


@dataclass(frozen=True)
class Ground:
    """One way to rent from the simulated cloud. What a provider cannot be put through, it says here, and why."""

    name: str  # of the row
    cloud: str  # as the simulated cloud calls the provider
    make: Callable[[Home, Clock], Provider]
    offers: tuple[Offer, Offer]  # two that can be rented at the same time
    key: str  # the setting that holds the account's key
    redirect: str = ""  # the setting that sends its questions elsewhere, where it asks over HTTP itself
    gpu_from_running: bool = False  # before a machine runs, only its disk is billed
    ends_itself: bool = False  # with a right of its own, where its provider grants that (this cloud does)
    slow: float = 1.0  # how many times the patience it takes: it is asked through a program
    door: str = "/root/.ssh/authorized_keys"
    other_keys: int = 0  # of the account, which the provider puts there itself
    deletes_by_list: bool = False  # its delete looks the name up in the list: while that lies, nothing can be ended
    # Lies of a list that a provider with no other question cannot see through: from another computer, which knows
    # nothing of the leases; and about a create that was never answered.
    blind_elsewhere: tuple[str, ...] = ()
    blind_to_lost: tuple[str, ...] = ()
    # An engine between us and the provider: its create goes on until the provider shows the machine, it ends by
    # itself what it could not create in order, and what it did not set up is never entered. A launch takes half a
    # minute, so rows that only look share machines, and `rows` are those of `make test`, in the order that costs the
    # fewest launches; the others follow with LAUNCHER_TEST_WHOLE=1 (make test-skypilot).
    engine: bool = False
    rows: tuple[str, ...] = ()
    patience_s: float = 60.0  # for a machine to be entered
    lag_s: float = 1.5  # of a list that does not show what is new
    delete_s: float = 2.5  # how long a release waits for the provider's delete

    @property
    def listing_lag_s(self) -> float:
        """What the launcher believes of the lag."""
        return self.lag_s + 0.5 * self.slow


def _offer(provider: str, offer_id: str, usd: str, **how: Any) -> Offer:
    return Offer(provider=provider, offer_id=offer_id, gpu="L40S", count=1, vram_gb=48, usd_per_hour=Usd(usd),
                 **{"instance_type": offer_id, **how})  # fmt: skip


#: Of the SkyPilot ground: rows that find nothing rented; then those that only look; then those that end a machine.
SKYPILOT_ROWS = (
    "an_empty_account_is_listed_whole",
    "a_create_without_keys_is_refused",
    "without_a_key_nothing_can_be_rented_and_the_reason_is_told",
    "an_offer_that_is_gone_is_sold_out_and_leaves_nothing",
    "a_create_that_did_not_answer_is_found_by_its_label-error_after_create",
    "a_create_that_did_not_answer_and_is_not_listed_yet_is_ended-False",
    "a_machine_that_is_not_listed_yet_is_not_believed_gone",
    "a_machine_is_rented_entered_armed_and_released_with_proof",
    "no_key_of_an_account_is_on_the_machine",
    "only_the_leases_own_key_opens_it",
    "a_list_that_lies_is_not_complete_and_proves_no_absence",
    "a_wrong_key_rents_nothing_and_proves_nothing",
    "another_process_finds_enters_charges_and_ends_it_by_the_ledger_alone",
    "a_lie_never_ends_in_released_while_a_lost_machine_bills-empty_list",
    "somebody_elses_machine_is_left_alone",
    "a_machine_that_is_known_is_ended_whatever_the_list_says-wrong_account",
    "a_delete_that_is_accepted_and_not_done_is_asked_for_again",
    "a_provider_that_does_not_end_it_leaves_the_release_pending-delete_refused",
)


GROUNDS = (
    Ground(
        "runpod", "runpod", RunPodProvider,
        (_offer("runpod", "NVIDIA L40S/secure", "0.86"), _offer("runpod", "NVIDIA A40/community", "0.35")),
        key="RUNPOD_API_KEY", redirect="RUNPOD_API_BASE_URL", ends_itself=True,
    ),
    Ground(
        "vast", "vast", VastProvider,
        (_offer("vast", "12345690", "0.60"), _offer("vast", "12345678", "0.28")),
        key="VAST_API_KEY", redirect="VAST_URL", gpu_from_running=True, ends_itself=True,
    ),
    Ground(
        "brev", "brev", BrevProvider, (_offer("brev", "l40s-48gb.1x", "1.50"), _offer("brev", "g6e.xlarge", "1.861")),
        key="BREV_API_KEY", gpu_from_running=True, slow=8.0, door="/home/ubuntu/.ssh/authorized_keys", other_keys=1,
        lag_s=12.0, delete_s=20.0, deletes_by_list=True,
        blind_elsewhere=("empty_list", "partial_list", "wrong_account"), blind_to_lost=("partial_list",),
    ),
    Ground(
        "skypilot", "runpod", partial(SkyPilotProvider, "runpod"),
        (_offer("runpod", "NVIDIA L40S/secure", "0.86", via="skypilot", instance_type="NVIDIA L40S", region="US"),
         _offer("runpod", "NVIDIA A40/community", "0.35", via="skypilot", instance_type="NVIDIA A40", region="CA")),
        key="RUNPOD_API_KEY", ends_itself=True, engine=True, rows=SKYPILOT_ROWS, patience_s=300.0, lag_s=15.0,
        delete_s=20.0,
    ),
)  # fmt: skip
