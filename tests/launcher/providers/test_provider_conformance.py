"""What every provider keeps, on a cloud whose own bill is believed and the provider's word is not."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from renting import PLANTED, Renting

from launcher.clock import parse_iso
from launcher.hosts.lease_keys import LeaseKeys
from launcher.ledger import LeaseState
from launcher.providers import (
    CreateRefusedError,
    MachineFailedError,
    Presence,
    ProviderError,
    SoldOutError,
)
from launcher.providers.release import charge, machine_of
from tests.patience import until

LIES = ("empty_list", "partial_list", "malformed_list", "wrong_account")


def test_a_machine_is_rented_entered_armed_and_released_with_proof(renting: Renting) -> None:
    lease = renting.rent()
    machine = machine_of(lease)
    assert machine.usd_per_hour == renting.ground.offers[0].usd_per_hour
    host = renting.enter(lease)
    words = renting.provider.arm(machine, host, parse_iso(lease.deadline))
    assert words and all(isinstance(word, str) for word in words)
    renting.provider.arm(machine, host, parse_iso(lease.deadline))
    assert host.running_steps() == ["watchdog"]
    assert renting.provider.find(lease.label)[0] is Presence.PRESENT
    assert [m.label for m in renting.provider.listing().machines] == [lease.label]

    done = renting.release(lease)
    assert done.state is LeaseState.RELEASED and len(done.proof or []) == 2
    assert not renting.billing()
    row = renting.cloud.billed(machine.ref)
    charged = charge(renting.ledger, done, renting.provider)
    # Between the end and the first proof of it time passes, and is charged; so is the step that has begun.
    proven = parse_iso((done.proof or [""])[0].split()[0])
    late_s = Decimal(str(max(0.0, (proven - parse_iso(row["ended"])).total_seconds())))
    hourly = Decimal(row["usd_per_hour"]) + Decimal(str(machine.facts.get("disk_usd_per_hour", 0)))
    slack = hourly * (late_s + 2 * row["billing_step_s"]) / 3600
    assert abs(Decimal(row["usd"]) - charged) <= slack
    assert not list(renting.home.root.glob("rented/*/*.json"))


def test_an_armed_machine_ends_its_work_and_itself_when_nobody_else_does(renting: Renting) -> None:
    lease = renting.rent()
    host = renting.enter(lease)
    host.start("work", ["sleep", "600"], {})
    renting.provider.arm(machine_of(lease), host, renting.clock.now() + timedelta(seconds=1))
    if renting.ground.ends_itself:
        until(lambda: not renting.billing())
        assert renting.cloud.events("delete")[-1]["by"] == "itself"
    else:
        until(lambda: host.status("work").state != "running")
        assert renting.billing() == {lease.label}
    assert renting.release(lease).state is LeaseState.RELEASED


def test_another_process_finds_enters_charges_and_ends_it_by_the_ledger_alone(renting: Renting) -> None:
    lease = renting.rent()
    renting.enter(lease)
    other = renting.another(renting.elsewhere)
    presence, found = other.find(lease.label)
    assert presence is Presence.PRESENT and found and found.ref == machine_of(lease).ref
    assert found.usd_per_hour == machine_of(lease).usd_per_hour
    renting.enter(lease, other)
    done = renting.release(lease, other)
    assert done.state is LeaseState.RELEASED and not renting.billing()
    assert charge(renting.ledger, done, other) > 0


@pytest.mark.parametrize("fault", ["error_after_create", "timeout_after_create"])
def test_a_create_that_did_not_answer_is_found_by_its_label(renting: Renting, fault: str) -> None:
    lease = renting.intend()
    renting.lose(lease, fault)
    presence, found = renting.provider.find(lease.label)
    assert presence is Presence.PRESENT and found and found.label == lease.label
    until(renting.billing)  # where only a machine that runs bills, and its disk is free
    assert renting.billing() == {lease.label}
    lease = renting.created(lease, found)
    if renting.ground.engine:
        with pytest.raises(MachineFailedError):
            renting.enter(lease)
    else:
        renting.enter(lease)
    assert renting.release(lease).state is LeaseState.RELEASED
    assert not renting.billing()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_create_that_did_not_answer_and_is_not_listed_yet_is_ended(renting: Renting, elsewhere: bool) -> None:
    lease = renting.intend()
    renting.fault("listing_lag", seconds=renting.ground.lag_s)
    renting.fault("error_after_create")
    with pytest.raises(ProviderError):
        renting.ask(lease)
    provider = renting.another(renting.elsewhere) if elsewhere else renting.provider
    done = renting.release(lease, provider)
    assert done.state is LeaseState.RELEASED
    assert done.machine and not renting.billing()


def test_a_machine_that_is_not_listed_yet_is_not_believed_gone(renting: Renting) -> None:
    renting.fault("listing_lag", seconds=renting.ground.lag_s)
    with renting.renting() as lease:
        assert renting.provider.find(lease.label)[0] is Presence.UNKNOWN
        assert renting.provider.connect(machine_of(lease), renting.keys(lease)) is None
    assert renting.release(renting.ledger.leases()[-1]).state is LeaseState.RELEASED
    assert not renting.billing()


def test_a_create_that_failed_before_it_created_is_proven_to_have_left_nothing(renting: Renting) -> None:
    lease = renting.intend()
    renting.fault("error", operation="create")
    with pytest.raises(ProviderError) as raised:
        renting.ask(lease)
    assert not isinstance(raised.value, CreateRefusedError)
    assert renting.release(lease).state is LeaseState.RELEASED
    assert not renting.billing()


# -- lies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_list_that_lies_is_not_complete_and_proves_no_absence(renting: Renting, lie: str, elsewhere: bool) -> None:
    if elsewhere and lie in renting.ground.blind_elsewhere:
        pytest.xfail("its list is its only word, and the same lie each time is seen through by nobody")
    leases = [renting.rent(offer) for offer in renting.ground.offers]
    provider = renting.another(renting.elsewhere) if elsewhere else renting.provider
    listed = provider.listing()
    assert listed.complete and {m.label for m in listed.machines} == {lease.label for lease in leases}
    renting.fault(lie, count="always")
    assert not provider.listing().complete
    for lease in leases:
        assert provider.find(lease.label)[0] is not Presence.ABSENT


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_never_ends_in_released_while_a_lost_machine_bills(renting: Renting, lie: str) -> None:
    if lie in renting.ground.blind_to_lost:
        pytest.xfail("its list is its only word on a machine that never had an id here")
    renting.rent(renting.ground.offers[1])  # an older one, so that half of the list is something
    lease = renting.intend()
    renting.lose(lease)
    renting.fault(lie, count="always")
    done = renting.release(lease)
    assert done.state is LeaseState.RELEASE_PENDING or lease.label not in renting.billing()
    renting.cloud.fault("clear")
    assert renting.release(done).state is LeaseState.RELEASED
    assert lease.label not in renting.billing()


@pytest.mark.parametrize("lie", LIES)
def test_a_machine_that_is_known_is_ended_whatever_the_list_says(renting: Renting, lie: str) -> None:
    lease = renting.rent()
    renting.fault(lie, count="always")
    done = renting.release(lease)
    if renting.ground.deletes_by_list:
        assert done.state is LeaseState.RELEASE_PENDING
    else:
        assert lease.label not in renting.billing()
    renting.cloud.fault("clear")
    assert renting.release(done).state is LeaseState.RELEASED
    assert lease.label not in renting.billing()


def test_an_empty_account_is_listed_whole(renting: Renting) -> None:
    listed = renting.provider.listing()
    assert listed.complete and not listed.machines
    assert renting.provider.find("pl-nobody-000000-00000000-20260101T000000")[0] is Presence.ABSENT


# -- deletes ----------------------------------------------------------------------------------------------------


def test_a_delete_that_is_refused_is_asked_for_again(renting: Renting) -> None:
    lease = renting.rent()
    renting.fault("delete_refused", count=2)
    assert renting.release(lease).state is LeaseState.RELEASED
    assert not renting.billing()


def test_a_delete_that_is_accepted_and_not_done_is_asked_for_again(renting: Renting) -> None:
    lease = renting.rent()
    renting.fault("delete_ignored")
    assert renting.release(lease).state is LeaseState.RELEASED
    assert not renting.billing()


@pytest.mark.parametrize("fault", ["delete_refused", "delete_ignored"])
def test_a_provider_that_does_not_end_it_leaves_the_release_pending(renting: Renting, fault: str) -> None:
    lease = renting.rent()
    renting.fault(fault, count="always")
    done = renting.release(lease)
    assert done.state is LeaseState.RELEASE_PENDING
    assert renting.billing() == {lease.label}
    renting.cloud.fault("clear")
    assert renting.release(done).state is LeaseState.RELEASED
    assert not renting.billing()


def test_ending_it_twice_is_no_fault(renting: Renting) -> None:
    lease = renting.rent()
    renting.provider.destroy(machine_of(lease))
    until(lambda: not renting.billing())
    renting.provider.destroy(machine_of(lease))
    renting.another().destroy(machine_of(lease))


def test_somebody_elses_machine_is_left_alone(renting: Renting) -> None:
    theirs, ours = renting.rent(renting.ground.offers[1]), renting.rent()
    assert renting.release(ours).state is LeaseState.RELEASED
    assert renting.billing() == {theirs.label}
    assert renting.provider.find(theirs.label)[0] is Presence.PRESENT


# -- renting ----------------------------------------------------------------------------------------------------


def test_an_offer_that_is_gone_is_sold_out_and_leaves_nothing(renting: Renting) -> None:
    renting.fault("sold_out", offer=renting.ground.offers[0].offer_id, count="always")
    lease, before = renting.intend(), renting.cloud.events("created")
    with pytest.raises(SoldOutError):
        renting.ask(lease)
    assert not renting.billing() and renting.cloud.events("created") == before  # nor anything else instead
    assert renting.release(lease).state is LeaseState.RELEASED


def test_a_price_that_changed_while_renting_is_told_as_it_is(renting: Renting) -> None:
    renting.fault("price_change", factor=2.0)
    lease = renting.rent()
    assert machine_of(lease).usd_per_hour == 2 * renting.ground.offers[0].usd_per_hour
    assert renting.another().find(lease.label)[1].usd_per_hour == machine_of(lease).usd_per_hour


def test_a_machine_that_never_boots_is_never_entered_and_costs_what_its_provider_says(renting: Renting) -> None:
    renting.fault("never_boots")
    lease = renting.rent()
    assert renting.provider.connect(machine_of(lease), renting.keys(lease)) is None
    done = renting.release(lease)
    row = renting.cloud.billed(machine_of(lease).ref)
    assert (Decimal(row["gpu_usd"]) == 0) is renting.ground.gpu_from_running
    charged = charge(renting.ledger, done, renting.provider)
    if renting.ground.gpu_from_running:
        assert charged < Decimal(row["usd_per_hour"]) / 3600  # not a second of its GPU
    else:
        assert charged >= Decimal(row["usd"])


def test_a_machine_that_is_gone_is_said_to_have_failed(renting: Renting) -> None:
    lease = renting.rent()
    renting.enter(lease)
    renting.cloud.fault("end_all")

    def has_failed() -> bool:
        try:
            renting.provider.connect(machine_of(lease), renting.keys(lease))
        except MachineFailedError:
            return True
        return False

    until(has_failed)


def test_no_key_of_an_account_is_on_the_machine(renting: Renting) -> None:
    lease = renting.rent()
    renting.enter(lease)
    renting.provider.arm(machine_of(lease), renting.enter(lease), parse_iso(lease.deadline))
    private = renting.keys(lease).private.read_text().splitlines()[2]
    secrets = [renting.cloud.env[name] for name in renting.cloud.env if name.endswith("_API_KEY")]
    wanted = [*secrets, *PLANTED.values(), private]
    places = "/root /etc /tmp /run /var /home /opt /srv /workspace /mnt /dev/shm"
    # Whole strings come in by stdin: what searches must not be found.
    script = (
        "cat >/dev/shm/.wanted; exec 2>/dev/null; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline"
        f" | grep -acF -f /dev/shm/.wanted; grep -rlF --exclude=.wanted -f /dev/shm/.wanted {places}; true"
    )
    assert renting.inside(lease, script, "\n".join(wanted) + "\n").split() == ["0"]
    public = renting.keys(lease).public.split()[1]
    assert renting.ground.door in renting.inside(lease, script, public + "\n")  # the search finds


# -- keys -------------------------------------------------------------------------------------------------------


def test_without_a_key_nothing_can_be_rented_and_the_reason_is_told(
    renting: Renting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert renting.provider.unusable() is None
    monkeypatch.delenv(renting.ground.key)
    monkeypatch.setenv("HOME", str(renting.home.root))
    assert renting.ground.key in str(renting.provider.unusable())
    with pytest.raises(CreateRefusedError):
        renting.ask(renting.intend())
    assert renting.provider.find("a-label")[0] is Presence.UNKNOWN
    assert not renting.provider.listing().complete


def test_a_wrong_key_rents_nothing_and_proves_nothing(renting: Renting, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = renting.rent()
    monkeypatch.setenv(renting.ground.key, "wrong-key-0123456789")
    with pytest.raises(CreateRefusedError) as raised:
        renting.ask(renting.intend(renting.ground.offers[1]))
    assert "wrong-key" not in str(raised.value)
    assert renting.provider.find(lease.label)[0] is Presence.UNKNOWN
    assert not renting.provider.listing().complete
    with pytest.raises(ProviderError):
        renting.provider.destroy(machine_of(lease))
    assert renting.billing() == {lease.label}


def test_a_create_that_is_not_allowed_is_refused(renting: Renting) -> None:
    renting.fault("unauthorized", operation="create")
    with pytest.raises(CreateRefusedError):
        renting.ask(renting.intend())
    assert not renting.billing()


def test_a_create_without_keys_is_refused(renting: Renting, tmp_path: Any) -> None:
    from launcher.providers import Intent

    lease, offer = renting.intend(), renting.ground.offers[0]
    with pytest.raises(CreateRefusedError):
        renting.provider.create(Intent(lease.label, offer, offer.usd_per_hour, lease.deadline))
    assert not renting.billing()


def test_only_the_leases_own_key_opens_it(renting: Renting, tmp_path: Any) -> None:
    lease = renting.rent()
    renting.enter(lease)
    other = LeaseKeys.create(tmp_path / "other")
    script = "cat ~/.ssh/authorized_keys"
    held = renting.inside(lease, script)
    assert renting.keys(lease).public.split()[1] in held and other.public.split()[1] not in held
    assert len(set(held.split("\n")) - {""}) == 1 + renting.ground.other_keys
