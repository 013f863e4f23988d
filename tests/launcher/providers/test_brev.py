"""Brev rented through the simulated cloud's `brev` command: what it has, and what it lacks."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.hosts.link import Patience
from launcher.hosts.ssh import SshHost
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.base import (
    CreateRefusedError,
    Intent,
    Machine,
    MachineFailedError,
    Presence,
    ProviderError,
    SoldOutError,
)
from launcher.providers.brev import BrevProvider
from launcher.providers.brev import command as brev_command
from launcher.providers.brev.command import BrevCommand, address_in
from tests.cloud.conftest import Standing, cloud, standing  # noqa: F401  (fixtures)
from tests.patience import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
KIND = "l40s-48gb.1x"


@pytest.fixture
def brev(cloud: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrevProvider]:  # noqa: F811
    for name, value in cloud.env.items():
        monkeypatch.setenv(name, f"{value}:{os.environ['PATH']}" if name == "PATH" else value)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr("launcher.providers.brev.command.PAUSE_S", 0.05)
    (tmp_path / "user").mkdir()
    yield BrevProvider(Home(tmp_path / "home"), SystemClock())
    assert sorted(p.name for p in (tmp_path / "user").iterdir()) == [], "the user's own home is left as it was"


def intent(tmp_path: Path, label: str = "pl-ann-abc123-lease1-20260101T000000", *, kind: str = KIND,
           most: str = "2.00", disk_gb: int = 60) -> Intent:  # fmt: skip
    offer = Offer(provider="brev", offer_id=kind, instance_type=kind, gpu="L40S", count=1, vram_gb=48,
                  usd_per_hour=Usd("1.50"))  # fmt: skip
    keys = LeaseKeys.create(tmp_path / "keys" / label)
    return Intent(label, offer, Usd(most), "2026-01-01T00:00:00Z", disk_gb=disk_gb, keys=keys)


def alive(cloud: Standing) -> list[str]:  # noqa: F811
    return [row["label"] for row in cloud.bill()["machines"] if row["state"] != "terminated"]


def opened(brev: BrevProvider, machine: Machine, asked: Intent) -> SshHost:
    """The machine's host, once ssh answers with the lease's key."""
    assert asked.keys
    host = until(lambda: brev.connect(machine, asked.keys))  # type: ignore[arg-type]
    assert isinstance(host, SshHost)
    host._link.patience = Patience(connect_s=5, total_s=60)
    host.running_steps()
    return host


def test_a_lease_is_rented_entered_with_its_own_key_armed_and_released(
    brev: BrevProvider, cloud: Standing, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    asked = intent(tmp_path)
    assert brev.unusable() is None
    assert brev.find(asked.label)[0] is Presence.ABSENT
    machine = brev.create(asked)
    assert (machine.label, machine.usd_per_hour, machine.facts["org"]) == (asked.label, Usd("1.50"), "org-simulated")
    assert json.loads(json.dumps(machine.facts)) == machine.facts

    host = opened(brev, machine, asked)
    assert host.root == f"/home/ubuntu/parakeet/{asked.label}"
    said = brev.arm(machine, host, datetime.now(UTC) + timedelta(hours=1))
    assert (said, host.running_steps()) == (("box timer stops all work",), ["watchdog"])
    (tmp_path / "data").write_text("hello")
    host.put(tmp_path / "data", "data")
    assert host.read("data") == b"hello"

    other = BrevProvider(Home(tmp_path / "elsewhere"), SystemClock())  # another computer, with the ledger alone
    presence, seen = other.find(asked.label)
    assert (presence, seen and seen.ref) == (Presence.PRESENT, brev.find(asked.label)[1].ref)  # type: ignore[union-attr]
    assert [m.label for m in brev.listing().machines] == [asked.label]
    assert brev.listing().complete

    began = datetime.now(UTC)
    other.destroy(machine)
    brev.destroy(machine)  # idempotent
    until(lambda: brev.find(asked.label)[0] is Presence.ABSENT)
    brev.destroy(machine)
    assert (brev.listing().complete, brev.listing().machines) == (True, ())
    assert other.find(asked.label)[0] is Presence.ABSENT
    host.close()

    billed = next(row for row in cloud.bill()["machines"] if row["label"] == asked.label)
    since, until_ = datetime.fromisoformat(machine.facts["billed_from"]), datetime.now(UTC)
    charge = brev.charged(machine, since, until_)
    step = Decimal("1.50") / 60
    assert began > since
    assert abs(Decimal(charge.amount) - Decimal(billed["usd"])) <= step
    brev.forget(asked.label)
    assert brev.charged(machine, since, until_) == charge, "what is asked for after the lease is over"
    assert not (tmp_path / "home" / "rented" / "brev" / asked.label).exists()


def test_the_home_of_a_lease_holds_no_key_of_the_account(brev: BrevProvider, tmp_path: Path) -> None:
    asked = intent(tmp_path)
    machine = brev.create(asked)
    host = opened(brev, machine, asked)
    home = tmp_path / "home" / "rented" / "brev" / asked.label
    assert not (home / ".brev" / "brev.pem").exists()
    assert (home / ".brev" / "credentials.json").stat().st_mode & 0o077 == 0
    line = asked.keys.public.encode()  # type: ignore[union-attr]
    assert line in host.read("/home/ubuntu/.ssh/authorized_keys")
    host.close()


def test_a_price_above_the_approval_is_not_rented_and_a_dearer_one_after_it_is_told(
    brev: BrevProvider, cloud: Standing, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    with pytest.raises(SoldOutError, match=r"at \$1\.50 an hour now; \$1\.40 is approved"):
        brev.create(intent(tmp_path, most="1.40"))
    with pytest.raises(SoldOutError, match="no longer"):
        brev.create(intent(tmp_path, kind="withdrawn.1x"))
    assert alive(cloud) == []

    cloud.fault("price_change", provider="brev", factor=2.0)  # between our look and the create
    assert brev.create(intent(tmp_path)).usd_per_hour == Usd("3.00")


def test_a_type_that_is_sold_out_is_not_replaced_by_another(
    brev: BrevProvider, cloud: Standing, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    cloud.fault("sold_out", provider="brev", offer=KIND)
    with pytest.raises(SoldOutError, match="currently unavailable"):
        brev.create(intent(tmp_path))
    assert alive(cloud) == []
    assert brev.find(intent(tmp_path).label)[0] is Presence.ABSENT


@pytest.mark.parametrize("fault", ["error_after_create", "timeout_after_create"])
def test_a_create_that_fails_after_it_created_is_found_by_its_label(
    brev: BrevProvider, cloud: Standing, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setattr("launcher.providers.brev.provider.CREATE_S", 3.0)
    cloud.fault(fault, provider="brev")
    asked = intent(tmp_path)
    with pytest.raises(ProviderError) as raised:
        brev.create(asked)
    assert not isinstance(raised.value, CreateRefusedError)
    presence, machine = brev.find(asked.label)
    assert (presence, machine and machine.usd_per_hour) == (Presence.PRESENT, Usd("1.50"))


def test_what_brev_refuses_has_created_nothing(brev: BrevProvider, cloud: Standing, tmp_path: Path) -> None:  # noqa: F811
    first = intent(tmp_path)
    brev.create(first)
    with pytest.raises(CreateRefusedError, match="exists already"):
        brev.create(first)
    with pytest.raises(CreateRefusedError, match="without keys"):
        brev.create(Intent("pl-x", first.offer, Usd("2"), ""))
    assert alive(cloud) == [first.label]


@pytest.mark.parametrize(
    "fault", ["empty_list", "partial_list", "malformed_list", "wrong_account", "error", "unauthorized"]
)
def test_an_answer_that_is_not_to_be_believed_proves_nothing(
    brev: BrevProvider, cloud: Standing, tmp_path: Path, fault: str  # noqa: F811
) -> None:  # fmt: skip
    asked = intent(tmp_path)
    machine = brev.create(asked)
    assert brev.find(asked.label)[0] is Presence.PRESENT
    cloud.fault(fault, provider="brev", count="always")
    assert brev.find(asked.label) == (Presence.UNKNOWN, None)
    assert not brev.listing().complete
    cloud.fault("heal", provider="brev")
    cloud.fault("end_all")
    assert machine.label == asked.label


@pytest.mark.parametrize("fault", ["empty_list", "partial_list", "malformed_list", "wrong_account"])
def test_another_computer_that_was_told_by_the_ledger_believes_no_lie_either(
    brev: BrevProvider, cloud: Standing, tmp_path: Path, fault: str  # noqa: F811
) -> None:  # fmt: skip
    asked = intent(tmp_path)
    assert asked.keys
    machine = brev.create(asked)
    other = BrevProvider(Home(tmp_path / "elsewhere"), SystemClock())
    until(lambda: other.connect(machine, asked.keys))  # type: ignore[arg-type]
    cloud.fault(fault, provider="brev", count="always")
    assert other.find(asked.label) == (Presence.UNKNOWN, None)
    assert not other.listing().complete
    with suppress(ProviderError):
        other.destroy(machine)  # "not found", by the same list
    assert other.find(asked.label) == (Presence.UNKNOWN, None)
    cloud.fault("clear")
    other.destroy(machine)
    until(lambda: other.find(asked.label)[0] is Presence.ABSENT)


def test_a_run_that_begins_while_an_empty_list_is_asked_for_again_does_not_spoil_it(
    brev: BrevProvider, cloud: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    ask, begun, asked = BrevCommand.instances, [], intent(tmp_path)

    def instances(command: BrevCommand) -> list[dict[str, object]]:
        rows = ask(command)
        if not begun:
            assert rows == []
            begun.append(asked.label)
            brev.create(asked)
        return rows

    monkeypatch.setattr(BrevCommand, "instances", instances)
    colleague = BrevProvider(Home(tmp_path / "elsewhere"), SystemClock())
    listing = colleague.listing()
    assert (listing.complete, [machine.label for machine in listing.machines]) == (True, begun)


def test_a_list_that_comes_and_goes_proves_nothing(
    brev: BrevProvider, cloud: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    brev.create(intent(tmp_path))
    ask, asked = BrevCommand.instances, []

    def instances(command: BrevCommand) -> list[dict[str, object]]:
        asked.append(1)
        return ask(command) if len(asked) % 3 == 0 else []  # twice nothing, then one, then nothing again

    monkeypatch.setattr(BrevCommand, "instances", instances)
    colleague = BrevProvider(Home(tmp_path / "elsewhere"), SystemClock())
    assert not colleague.listing().complete
    assert colleague.find("pl-ann-abc123-lease1-20260101T000000") == (Presence.UNKNOWN, None)


def test_an_accepted_delete_that_is_not_done_is_never_taken_for_gone(
    brev: BrevProvider, cloud: Standing, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    asked = intent(tmp_path)
    machine = brev.create(asked)
    opened(brev, machine, asked).close()
    cloud.fault("delete_ignored", provider="brev")
    brev.destroy(machine)
    cloud.fault("empty_list", provider="brev", count=9)  # and its list lies, three times over
    assert brev.find(asked.label) == (Presence.UNKNOWN, None), "it still answers with the lease's host key"
    assert cloud.events("delete_ignored")


def test_a_machine_too_new_to_be_listed_is_not_taken_for_gone(
    brev: BrevProvider, cloud: Standing, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    cloud.fault("listing_lag", provider="brev", seconds=20.0)
    machine = brev.create(intent(tmp_path))
    brev.destroy(machine)  # "not found"
    assert brev.find(machine.label) == (Presence.UNKNOWN, None)
    assert not brev.listing().complete
    until(lambda: brev.find(machine.label)[0] is Presence.PRESENT)
    brev.destroy(machine)
    until(lambda: brev.find(machine.label)[0] is Presence.ABSENT)


def test_a_refused_delete_is_said(brev: BrevProvider, cloud: Standing, tmp_path: Path) -> None:  # noqa: F811
    machine = brev.create(intent(tmp_path))
    cloud.fault("delete_refused", provider="brev")
    with pytest.raises(ProviderError, match="did not accept the delete"):
        brev.destroy(machine)
    assert brev.find(machine.label)[0] is Presence.PRESENT


def test_a_machine_that_brev_gave_up_on_is_failed_and_one_that_boots_is_awaited(
    brev: BrevProvider, cloud: Standing, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    cloud.fault("never_boots", provider="brev")
    asked = intent(tmp_path)
    machine = brev.create(asked)
    assert asked.keys
    assert brev.connect(machine, asked.keys) is None
    brev.destroy(machine)
    charge = brev.charged(machine, datetime.now(UTC) - timedelta(minutes=5), datetime.now(UTC))
    assert charge.amount == Usd(0), "its GPU was never billed, and this type's disk is in its price"
    running = intent(tmp_path, "pl-ann-abc123-lease2-20260101T000000")
    machine = brev.create(running)
    until(lambda: brev.find(running.label)[1].facts["status"] == "RUNNING")  # type: ignore[union-attr]
    brev._command(running.label).ask("stop", running.label)
    with pytest.raises(MachineFailedError, match="STOPPED"):
        brev.connect(machine, asked.keys)


def test_the_size_of_the_disk_is_what_was_planned_and_billed(
    brev: BrevProvider, cloud: Standing, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    machine = brev.create(intent(tmp_path, kind="g6e.xlarge", disk_gb=73))
    assert Decimal(machine.facts["disk_usd_per_hour"]) == pytest.approx(
        Decimal("0.10") * 73 / 730, rel=Decimal("1e-4")
    )
    cloud.fault("clock_jump", seconds=3600)
    billed = next(row for row in cloud.bill()["machines"] if row["id"] == machine.ref)
    assert Decimal(billed["disk_usd"]) == pytest.approx(Decimal("0.01"), rel=Decimal("0.05"))


def test_a_login_that_is_renewed_here_is_renewed_for_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = tmp_path / "user" / ".brev"
    users.mkdir(parents=True)
    (users / "credentials.json").write_text('{"access_token": "old", "refresh_token": "r"}')
    (users / "active_org.json").write_text('{"id": "org-1", "name": "one"}')
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("BREV_API_KEY", raising=False)
    command = BrevCommand(tmp_path / "lease")
    command.set_up(None)
    (tmp_path / "lease/.brev/credentials.json").write_text('{"access_token": "new"}')  # as brev-cli overwrites it
    assert json.loads((users / "credentials.json").read_text()) == {"access_token": "new"}
    assert json.loads((tmp_path / "lease/.brev/active_org.json").read_text())["id"] == "org-1"
    command.set_up(brev_command.Org("org-2", "two"))
    assert json.loads((users / "active_org.json").read_text())["id"] == "org-1", "the user's choice stays"
    assert json.loads((tmp_path / "lease/.brev/active_org.json").read_text())["id"] == "org-2"


def test_a_key_for_ci_is_bound_to_its_organization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREV_API_KEY", "bak-planted")
    monkeypatch.setenv("BREV_ORG_ID", "org-ci")
    command = BrevCommand(tmp_path / "lease")
    command.set_up(None)
    assert command.orgs()[0] == brev_command.Org("org-ci"), "brev-cli may not list organizations with such a key"
    assert (tmp_path / "lease/.brev/credentials.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("script", "said"),
    [("sleep 60", "did not end within 1 s"), ("yes", "said more than"), ("echo nope >&2; exit 1", "failed: nope"),
     ("echo '{\"workspaces\": ['", "without whole JSON"), ("echo '{}'", "did not list the instances"),
     ("echo '{\"workspaces\": [{\"name\": \"a\"}]}'", "without a name"),
     ("echo eyJhbGciOiJSUzI1NiIsInR5cCI6 >&2; exit 1", r"failed: \*\*\*\.")],
)  # fmt: skip
def test_a_command_that_hangs_floods_or_babbles_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    program = tmp_path / "bin" / "brev"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(inspect.unwrap(BrevCommand.ask), "__kwdefaults__", {"stdin": None, "seconds": 1.0})
    monkeypatch.setattr(brev_command, "MOST_BYTES", 100_000)
    command = BrevCommand(tmp_path / "lease")
    command.set_up(None)
    with pytest.raises(ProviderError, match=said):
        command.instances()


def test_without_the_command_or_a_login_it_is_unusable_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BREV_API_KEY", raising=False)
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    brev = BrevProvider(Home(tmp_path / "home"), SystemClock())
    assert "Install NVIDIA's brev" in str(brev.unusable())
    (tools / "brev").symlink_to(shutil.which("true", path="/bin:/usr/bin") or "/bin/true")
    assert "brev login" in str(brev.unusable())
    assert brev.find("pl-x")[0] is Presence.UNKNOWN
    assert not brev.listing().complete


def test_an_address_is_read_from_what_brev_writes() -> None:
    config = (
        "# included in x\nHost other\n  Hostname 9.9.9.9\n  User brev\n  Port 1\n\nHost mine\n  Hostname 1.2.3.4\n"
        '  IdentityFile "/k"\n  User ubuntu\n  Port 2022\n  RequestTTY yes\n\nHost mine-host\n  Hostname 5.5.5.5\n'
    )
    assert str(address_in(config, "mine")) == "ubuntu@1.2.3.4:2022"
    assert address_in(config, "min") is None
    assert address_in("Host mine\n  Hostname -\n  Port 22\n", "mine") is None
    with pytest.raises(ValueError, match="proxy"):
        address_in("Host mine\n  ProxyCommand cloudflared access ssh\n  User ubuntu\n", "mine")
    with pytest.raises(ValueError, match="ssh address"):
        address_in("Host mine\n  Hostname -oProxyCommand=x\n", "mine")
