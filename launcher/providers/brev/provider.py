"""NVIDIA Brev, rented through its own `brev` command (see command.py): an instance for each lease, by its label.

What proves that an instance is gone. Brev's command knows one question, the list of an organization's instances, and
that names no account and can be empty by mistake. So a label counts as absent only when
- the organization of the lease is the one that is asked, before and after the list;
- the list is whole JSON and shows neither the label nor its id; from an empty one on, thrice the same;
- its end was asked for, if it ever was seen: before that, a list without it is lag or a lie;
- the list shows every other lease of ours that should be there;
- nothing answers at its address with the host key that was pinned for it.
`delete` returns at once and takes minutes; `stop` keeps the disk, and its bill, and is never used.

What this cannot see: a create that was never answered, and lists that keep hiding its instance alone; and from
another computer, which knows of a lease what the ledger knows, lists that lie the same way each time.

What Brev does not have, and what is done about it:
- no maximum price: the type's price in `brev search` is looked at just before the create and after it, and the dearer
  one is the machine's rate, which the launcher holds against the approval. Brev tells no rate of an instance;
- no way to give an ssh key: the startup script puts the lease's public key into authorized_keys. Brev's own key of
  all instances never leaves this computer, and is not used;
- `--type A,B` falls back to B without a word: one type alone is given, on standard input, with the size of its disk;
- nothing on the machine may end it: the box timer stops all work and wipes it, and the bill goes on until the reaper
  or a person deletes it.

When Brev's bill begins is not documented: the GPU is counted from `RUNNING` on, the disk from the create.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.clock import Clock, iso, parse_iso
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.rented import rented_host
from launcher.money import Usd
from launcher.offers.source import MOST_USD_PER_GPU_HOUR, text
from launcher.providers.base import (
    Charge,
    CreateRefusedError,
    Intent,
    Listing,
    Machine,
    MachineFailedError,
    Presence,
    ProviderError,
    SoldOutError,
    by_rate,
)
from launcher.providers.brev.command import CREATE_S, BrevCommand, Org, has_login, user_folder
from launcher.providers.brev.creating import STARTUP, disk_of, disk_rate, rate_of, row_of, why_not
from launcher.providers.brev.known import LABEL, Known
from launcher.providers.traits import Traits, traits_of_provider
from launcher.watchdog import watch

UNTOLD_USD_PER_HOUR = Usd(MOST_USD_PER_GPU_HOUR)  # what a rate counts as that nobody tells: no approval allows it
PROBE_S = 5.0
MISSED = 3  # looks in a row after which a machine that is not listed counts as failed; not as gone
_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/=]+( [A-Za-z0-9@._-]+)?")

# brev-cli, pkg/entity: of an instance, and of its build. RUNNING is said as UNHEALTHY where its health is that.
_UP = ("RUNNING", "UNHEALTHY")
_ENDED = ("FAILURE", "STOPPED", "STOPPING", "DELETING")
_BROKEN = ("CREATE_FAILED",)
_NOT_FOUND = re.compile(r"not found|no instance named", re.IGNORECASE)


class _AnotherOrgError(ProviderError):
    """The login is not of the organization that the lease was rented in."""


class BrevProvider:
    """Instances of one organization. The user's login stays here: neither it nor Brev's ssh key goes to a machine."""

    name = "brev"

    def __init__(self, home: Home, clock: Clock) -> None:
        traits = traits_of_provider(self.name, "direct")
        assert traits
        self.traits: Traits = traits
        self._known, self._clock = Known(home), clock
        self._missed: dict[str, int] = {}  # looks in a row that did not show a machine which should be there
        self.create_s = CREATE_S

    def unusable(self) -> str | None:
        """Without the command or a login."""
        import shutil

        if shutil.which("brev") is None:
            return "the brev command is not installed. Install NVIDIA's brev command line, then: brev login"
        if not has_login():
            where = "Log in with brev login, or set BREV_API_KEY and BREV_ORG_ID"
            return f"there is no login to Brev in {user_folder()}. {where}"
        return None

    def create(self, intent: Intent) -> Machine:
        """Exactly one type, at no more than the intent's rate; see the contract."""
        if intent.keys is None or not _KEY.fullmatch(intent.keys.public):
            raise CreateRefusedError("without keys of its own nobody could enter the instance: it was not asked for.")
        if not LABEL.fullmatch(intent.label) or not _KIND.fullmatch(intent.offer.instance_type):
            raise CreateRefusedError(f"Brev knows no instance type {intent.offer.instance_type!r} by that name.")
        problem = self.unusable()
        if problem:
            raise CreateRefusedError(f"Brev cannot be asked: {problem}.")
        try:
            command = self._command(intent.label)
            org = command.orgs()[0]
            if org is None:
                raise ProviderError("Brev did not say which organization is active.", fix="brev set NAME")
            command.set_up(org)
            row = row_of(command, intent.offer.instance_type)
        except ProviderError as error:
            self.forget(intent.label)
            raise CreateRefusedError(f"{error.problem} No instance was asked for.", fix=error.fix) from None
        rate, kind = rate_of(row), intent.offer.instance_type
        if rate is None or rate > intent.max_usd_per_hour:
            self.forget(intent.label)
            now = "no longer" if rate is None else f"at ${rate} an hour now; ${intent.max_usd_per_hour} is approved"
            raise SoldOutError(f"Brev offers {kind} {now}.")
        disk_gb = disk_of(row, intent.disk_gb)
        self._known.learn(
            intent.label, org=org.id, org_name=org.name, kind=kind, asked_at=iso(self._clock.now()),
            usd_per_hour=str(rate), disk_usd_per_hour=disk_rate(row, disk_gb), keys=str(intent.keys.folder),
        )  # fmt: skip
        self._create(command, intent, disk_gb)
        self._known.learn(intent.label, created=True)
        with suppress(ProviderError):  # what cannot be asked for now leaves the price of before
            rate = max(rate, rate_of(row_of(command, kind)) or rate)
        self._known.learn(intent.label, usd_per_hour=str(rate))
        machine = self.find(intent.label)[1]
        return machine or Machine(intent.label, intent.label, rate, self._known.facts(intent.label))

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """By its label, or its id, in the list of its organization; see this module's words for what is proof."""
        try:
            return self._find(label)
        finally:
            self._known.tidy(label)

    def _find(self, label: str) -> tuple[Presence, Machine | None]:
        known = self._known.of(label)
        try:
            command = self._command(label)
            row = _of(command.instances(), label, known)
            if row is None:  # only an absence needs more than one question
                command, rows = self._look(label)
                row = _of(rows, label, known)
            if row is not None:
                self._missed.pop(label, None)
                return Presence.PRESENT, self._priced(self._machine(row, label), command)
        except (ProviderError, OSError):
            return Presence.UNKNOWN, None
        young = self._known.is_young(label, self._clock.now(), self.traits.listing_lag_s)
        if self._known.is_due(label):
            self._missed[label] = 0 if young else self._missed.get(label, 0) + 1
            return Presence.UNKNOWN, None
        if young or self._missing(rows, command.org) or self._answers(known):
            return Presence.UNKNOWN, None
        return Presence.ABSENT, None

    def listing(self) -> Listing:
        """Every instance of the active organization and of those that hold a lease of ours."""
        machines: dict[str, Machine] = {}
        asked: dict[str, list[dict[str, Any]]] = {}
        try:
            for label in (nobodys := self._known.nobodys(), *self._known.labels()):
                if str(self._known.of(label).get("org")) in asked:
                    continue
                command, rows = self._look(label)
                asked[command.org] = rows
                for row in rows:
                    machines[row["id"]] = self._machine(row, row["name"])
        except (ProviderError, OSError):
            return Listing(tuple(machines.values()), complete=False)
        finally:
            self._known.tidy(nobodys)
        missing = self._missing([row for rows in asked.values() for row in rows])
        return Listing(tuple(machines.values()), complete=not missing)

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """Where `brev refresh` says that it answers; None until it runs."""
        self._known.meet(machine)
        presence, seen = self.find(machine.label)
        if seen is None:
            if presence is Presence.ABSENT or self._missed.get(machine.label, 0) >= MISSED:
                raise MachineFailedError("Brev does not list the instance any more.")
            return None
        status, build = text(seen.facts.get("status")), text(seen.facts.get("build_status"))
        if status in _ENDED or build in _BROKEN:
            raise MachineFailedError(f"Brev says that the instance is {build if build in _BROKEN else status}.")
        if status not in _UP:
            return None
        try:
            address = self._command(machine.label).address_of(machine.label)
        except ProviderError:
            return None  # asked again
        except ValueError as error:
            raise MachineFailedError(f"Brev gives no ssh address for this instance: {error}.") from None
        if address is None:
            return None
        self._known.learn(
            machine.label, host=address.host, port=address.port, user=address.user, keys=str(keys.folder)
        )
        return rented_host(address, keys, machine.label, self._clock)

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """Start the box timer: at the deadline all work there ends and is wiped. It cannot end the instance."""
        watch(host, deadline, None, self._clock, self.name)
        return ("box timer stops all work",)

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """Its disk from the create on, its GPU from `RUNNING` on, in begun minutes, at the rate of its type."""
        known = self._known.last(machine.label)
        facts = machine.facts | known
        disk = {"disk_usd_per_hour": facts.get("disk_usd_per_hour", "0")}
        stored = by_rate(replace(machine, usd_per_hour=Usd(0), facts=disk), since, until, self.traits.billing_step_s)
        if facts.get("never_ran"):
            return stored
        # Where nobody saw it begin to run, it is taken to have run at once.
        running = max(since, parse_iso(str(facts.get("running_at") or iso(since))))
        used = by_rate(replace(machine, facts={}), running, until, self.traits.billing_step_s)
        return Charge(Usd(stored.amount + used.amount), used.source)

    def destroy(self, machine: Machine) -> None:
        """Ask for the end of every instance with the lease's label, and of its id. Takes minutes."""
        label, ref = machine.label, self._known.of(machine.label).get("ref")
        self._known.meet(machine)
        command = self._command(label)
        try:
            rows = command.instances()
            if _of(rows, label, {"ref": ref}) is None:
                rows = self._look(label)[1]
        except _AnotherOrgError:
            raise
        except (ProviderError, OSError):  # the delete needs no list of ours
            rows = []
        doomed = [row for row in rows if row["name"] == label or row["id"] == ref]
        for row in doomed:
            self._machine(row, label)  # whether it runs is of interest a last time
        known, gone = self._known.of(label), True
        for name in [row["id"] for row in doomed] or [str(known.get("ref") or label)]:
            done = command.ask("delete", name)
            if done.code and not _NOT_FOUND.search(done.err + done.out):
                raise ProviderError(f"Brev did not accept the delete: {done.words}.")
            gone = gone and done.code != 0
        if not known.get("deleted_at") and (not gone or self._is_believed_gone(label)):
            never_ran = True if doomed and not known.get("running_at") else None
            self._known.learn(label, deleted_at=iso(self._clock.now()), never_ran=never_ran)

    def _is_believed_gone(self, label: str) -> bool:
        """Whether a machine that `delete` did not find counts as ended all the same, by somebody else.

        What is not found may be too new, or its list a lie. It is believed where its own sshd was known and does not
        answer, or once it has not been found for twice as long as a delete takes.
        """
        known, now = self._known.of(label), self._clock.now()
        if _pin(known):
            return not self._answers(known)
        if self._known.is_young(label, now, self.traits.listing_lag_s):
            return False
        since = known.get("not_found_at") or iso(now)
        self._known.learn(label, not_found_at=since)
        return (now - parse_iso(str(since))).total_seconds() >= 2 * self.traits.delete_s

    def forget(self, label: str) -> None:
        """Remove the lease's home here, and all that it knows."""
        self._known.forget(label)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _command(self, label: str) -> BrevCommand:
        """The command in a lease's home, in its organization; in the user's active one for a lease not known here."""
        known = self._known.of(label)
        command = BrevCommand(self._known.home(label))
        command.set_up(Org(str(known["org"]), str(known.get("org_name") or "")) if known.get("org") else None)
        return command

    def _look(self, label: str) -> tuple[BrevCommand, list[dict[str, Any]]]:
        """The instances of a lease's organization. Raises ProviderError where it is not sure to be that one."""
        command, org = self._command(label), self._known.of(label).get("org")
        before = command.orgs()[0]
        rows = command.settled_instances(self._clock)
        after = command.orgs()[0]
        if before is None or after is None or before.id != after.id:
            raise ProviderError("Brev did not say whose instances it listed.")
        if org is not None and before.id != org:
            raise _AnotherOrgError(
                f"the login to Brev is of organization {before.id}; the lease was rented in {org}.",
                fix="Log in as a member of that organization: brev login",
            )
        command.org = before.id
        return command, rows

    def _create(self, command: BrevCommand, intent: Intent, disk_gb: int | None) -> None:
        """`brev create`, detached. Raises as the contract says; a lease that nothing was made for is forgotten."""
        assert intent.keys
        script = command.home / "startup.sh"
        script.write_text(STARTUP.replace("{key}", intent.keys.public), encoding="utf-8")
        wanted: dict[str, Any] = {"type": intent.offer.instance_type}
        if disk_gb is not None:
            wanted["target_disk_gb"] = disk_gb
        done = command.ask("create", intent.label, "--detached", "--startup-script", f"@{script}",
                           stdin=json.dumps([wanted]), seconds=self.create_s)  # fmt: skip
        if done.code == 0:
            return
        error = why_not(done)
        if isinstance(error, CreateRefusedError):
            self.forget(intent.label)
        raise error

    def _machine(self, row: dict[str, Any], label: str) -> Machine:
        """An instance's row, with what is known of the lease; Brev does not tell the rate of any other."""
        known, status = self._known.of(label), text(row["status"])
        facts = {
            "status": status,
            "build_status": text(row.get("build_status")),
            "kind": text(row.get("instance_type")),
        }
        if not known.get("org"):  # rented by another computer, or not by us
            return Machine(row["id"], label, UNTOLD_USD_PER_HOUR, {**facts, "rate_untold": True})
        now, since = iso(self._clock.now()), known.get("running_at")
        if not since and status in _UP:  # at the latest from the last look at which it did not run
            since = known.get("not_running_at") or known.get("asked_at")
        self._known.learn(
            label, ref=row["id"], not_found_at="", running_at=since, not_running_at=None if since else now
        )
        facts |= self._known.facts(label)
        return Machine(row["id"], label, Usd(str(known.get("usd_per_hour", UNTOLD_USD_PER_HOUR))), facts)

    def _priced(self, machine: Machine, command: BrevCommand) -> Machine:
        """A machine that another computer rented, at its type's price of now: Brev tells no other."""
        if "rate_untold" not in machine.facts:
            return machine
        rate = rate_of(row_of(command, str(machine.facts["kind"])))
        facts = {name: value for name, value in machine.facts.items() if name != "rate_untold"}
        return (
            machine if rate is None else replace(machine, usd_per_hour=rate, facts=facts | {"rate_of": "brev search"})
        )

    def _missing(self, rows: list[dict[str, Any]], org: str | None = None) -> list[str]:
        """Leases of ours (in one organization, or in all) that these rows should show, and do not."""
        shown = {row["name"] for row in rows} | {row["id"] for row in rows}
        due = [label for label in self._known.labels() if self._known.is_due(label)]
        return [label for label in due if label not in shown and org in (None, self._known.of(label).get("org"))]

    def _answers(self, known: dict[str, Any]) -> bool:
        """Whether the machine still answers at its address, as itself: with the key that was pinned for the lease."""
        pinned = _pin(known)
        return bool(pinned) and _host_key(Address(str(known["host"]), int(known["port"])), str(pinned)) == pinned


def _pin(known: dict[str, Any]) -> str | None:
    """The host key that a machine showed when it was entered; None for one that nobody has entered from here."""
    if not known.get("host") or not known.get("port") or not known.get("keys"):
        return None
    return LeaseKeys(Path(str(known["keys"]))).pinned


def _of(rows: Iterable[dict[str, Any]], label: str, known: dict[str, Any]) -> dict[str, Any] | None:
    return next((row for row in rows if row["name"] == label or row["id"] == known.get("ref")), None)


def _host_key(address: Address, like: str) -> str | None:
    """The host key that a machine shows now, of the same kind as one it showed; None when nothing answers."""
    import paramiko

    ends = time.monotonic() + PROBE_S
    try:
        with socket.create_connection((address.host, address.port), PROBE_S) as line:
            transport = paramiko.Transport(line)
            try:
                transport.get_security_options().key_types = [like.split(maxsplit=1)[0]]
                transport.start_client(timeout=max(0.1, ends - time.monotonic()))
                key = transport.get_remote_server_key()
                return f"{key.get_name()} {key.get_base64()}"
            finally:
                transport.close()
    except (OSError, EOFError, paramiko.SSHException, ValueError):
        return None
