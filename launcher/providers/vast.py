"""Vast.ai rented directly: one exact offer, through vastai-sdk's own client.

What proves that an instance is gone: its own id is unknown to the account it was rented in. Where no id is known (a
create that never answered), two questions apart must agree: the list of instances, whole by its own count, does not
show the label, and the contracts of that label (`/contracts/fetch/`) name no instance that still answers by its id.
An empty or a shortened list alone proves nothing. That Vast knows a label's contract from its create on is taken from
the SDK's words, not verified; where it does not answer that question, such a lease stays unproven.

Vast bills storage from the creation and the GPU from `running` (docs.vast.ai).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any

from launcher.clock import Clock, iso, parse_iso
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.rented import rented_host
from launcher.money import Usd
from launcher.offers import vast as market
from launcher.offers.source import NotAskedError, number, text
from launcher.providers.asking import ANSWER_S, CREATE_S, UNTOLD_USD_PER_HOUR, Line, Said, moment_of, rate_of
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
from launcher.providers.known import Known
from launcher.providers.traits import Traits, traits_of_provider

#: PyTorch's own image on CUDA 12.8, Python 3.11 (hub.docker.com/r/pytorch/pytorch): kept on many of Vast's hosts.
#: The recipes bring their own torch; of the image they use the driver's libraries and Python.
IMAGE = "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime"
MOST_PAGES = 40  # of 25 instances
MOST_CONTRACTS = 25  # of one account, that a list does not show, are looked up by their ids

# Vast puts an ssh server into any image; rsync and Python are the image's affair.
_ONSTART = "command -v rsync && command -v python3 || { apt-get update && apt-get install -y rsync python3; }"
_ENDED = ("exited", "stopped", "offline")
_SOLD_OUT = re.compile(r"no_such_ask|not available|unavailable|already rented|no longer")
_NOT_FOUND = re.compile(r"no_such_instance|not found|no such instance|not_found")


@dataclass
class _Look:
    """The account's instances as they are listed, and what was asked for by id."""

    account: str
    listed: dict[str, Machine] = field(default_factory=dict)
    exact: dict[str, Machine | None] = field(default_factory=dict)
    whole: bool = True

    @property
    def machines(self) -> dict[str, Machine]:
        return self.listed | {ref: machine for ref, machine in self.exact.items() if machine}

    @property
    def consistent(self) -> bool:
        """Whether all that exists by its id is listed."""
        return self.whole and all(ref in self.listed for ref, machine in self.exact.items() if machine)


class VastProvider:
    """Instances of one account, one for each lease. The account's key and its ssh keys stay out of them."""

    name = "vast"

    def __init__(self, home: Home, clock: Clock) -> None:
        traits = traits_of_provider(self.name, "direct")
        assert traits
        self.traits: Traits = traits
        self.create_s = CREATE_S  # how long a create is waited for
        self._clock = clock
        self._known = Known(home, self.name)
        self._deleted: set[str] = set()  # ids whose delete Vast has accepted
        self._running: dict[str, str] = {}  # id -> since when its GPU is billed
        self._never_ran: set[str] = set()  # ids that had not run yet when they were deleted
        self._attached: set[tuple[str, bool]] = set()

    def unusable(self) -> str | None:
        """Without the SDK or a key; whether Vast accepts it, only Vast can say."""
        try:
            market.account_key()
        except NotAskedError as error:
            return str(error)
        return None

    def create(self, intent: Intent) -> Machine:
        """The exact offer, if it is still there at no more than the intent's rate; see the contract."""
        offer = intent.offer.offer_id
        if not offer.isdecimal() or not offer.isascii():
            raise CreateRefusedError(f"{offer!r} is not an offer of Vast's.")
        if intent.keys is None:
            raise CreateRefusedError("without keys of its own nobody could enter the instance: it was not asked for.")
        try:
            account = self._account()
            self._refuse_if_dearer(intent)
        except CreateRefusedError:
            raise
        except ProviderError as error:
            raise CreateRefusedError(f"{error.problem} No instance was asked for.", fix=error.fix) from None
        self._known.asked(intent.label, self._clock.now(), account=account, offer=offer)
        try:
            made = self._create(intent)
        except CreateRefusedError:
            self._known.forget(intent.label)
            raise
        ref = _id(made.get("new_contract"))
        if made.get("success") is not True or not ref:
            raise ProviderError("Vast's answer to the create names no instance: there may be one.")
        self._known.learn(intent.label, ref=ref)
        try:
            machine = self._exact(ref, account)
        except ProviderError:
            machine = None
        if machine is None:  # too new to be shown: the offer's price is what it was rented at, and is looked at again
            facts = {"account": account, "rate_of": "the offer", "billed_from": iso(self._clock.now())}
            return Machine(ref, intent.label, intent.offer.usd_per_hour, facts)
        return replace(machine, label=intent.label)

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """By its id where one is known, else by the label; see this module's words for what is proof."""
        try:
            refs = self._known.refs(label)
            contracts = None if refs else self._contracts(label)
            look = self._look(refs or contracts or [])
        except ProviderError:
            return Presence.UNKNOWN, None
        found = [m for ref, m in look.machines.items() if ref in refs or m.label == label]
        if found:
            self._known.learn(label, ref=found[0].ref, account=look.account)
            return Presence.PRESENT, replace(found[0], label=label)
        if not self._known.is_account_of(label, look.account):
            return Presence.UNKNOWN, None  # another account's truth, for all that is known here
        if refs:
            unseen = self._is_young(label) and not set(refs) <= self._deleted
            return (Presence.UNKNOWN if unseen else Presence.ABSENT), None
        return (Presence.ABSENT if look.whole else Presence.UNKNOWN), None

    def listing(self) -> Listing:
        """The account's instances; complete when its own count, our ids and the account's contracts agree with it."""
        labels = self._known.labels()
        held = {ref: label for label in labels for ref in self._known.refs(label)}
        try:
            look = self._look(sorted(held))
            agreed = any(machine is None for machine in look.exact.values()) or self._agrees(look)
        except ProviderError:
            return Listing((), complete=False)
        ours = self._known.is_account_of_all(look.account)
        machines = tuple(replace(m, label=held.get(ref, m.label)) for ref, m in look.machines.items())
        return Listing(machines, complete=ours and agreed and look.consistent)

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """The instance's own port 22; None while Vast does not tell it. The lease's key is attached on the way."""
        self._known.meet(machine)
        try:
            account = self._account()
            now = self._exact(machine.ref, account)
        except ProviderError:
            now, account = machine, ""  # not asked: where it was, it may still be
        if now is None:
            if self._known.is_account_of(machine.label, account) and not self._is_young(machine.label):
                raise MachineFailedError("Vast does not know the instance any more.")
            return None
        status = str(now.facts.get("status", ""))
        if status in _ENDED:
            raise MachineFailedError(f"Vast says that the instance is {status}. {now.facts.get('said', '')}".strip())
        if account:
            self._attach(machine.ref, keys, runs=status == "running")
        address = now.facts.get("ssh")
        try:
            found = Address(str(address[0]), int(address[1])) if address else None
        except (ValueError, TypeError, IndexError):
            return None
        return rented_host(found, keys, machine.label, self._clock) if found else None

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """Work ends at the deadline; the instance asks for its own end with the key that Vast gave to it alone."""
        from launcher.watchdog import Request, watch

        call = Request("DELETE", "${VAST_URL:-https://console.vast.ai}/api/v0/instances/${CONTAINER_ID}/",
                       headers={"Authorization": "Bearer ${CONTAINER_API_KEY}", "Content-Type": "application/json",
                                "User-Agent": "parakeet-launcher"}, body="{}")  # fmt: skip
        watch(host, deadline, call, self._clock)
        return ("box timer stops all work (that the box's own key may also end it is unverified)",
                "reaper (CI or timer)")  # fmt: skip

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """Storage by the second from the creation; the GPU from `running`, from the creation where that is untold."""
        step = self.traits.billing_step_s
        ran = self._running.get(machine.ref) or machine.facts.get("running_at")
        disk = Decimal(str(machine.facts.get("disk_usd_per_hour", 0)))
        gpu_from = max(since, min(parse_iso(str(ran)), until)) if ran else since
        if not ran and machine.ref in self._never_ran:
            gpu_from = until
        gpu = by_rate(replace(machine, facts={}), gpu_from, until, step)
        seconds = (Decimal(str(max(0.0, (until - since).total_seconds()))) / step).to_integral_value(ROUND_CEILING)
        stored = (disk * seconds * step / 3600).quantize(Decimal("0.000001"), rounding=ROUND_CEILING)
        return Charge(gpu.amount + Usd(stored), gpu.source)

    def destroy(self, machine: Machine) -> None:
        """Delete it, also any other instance that carries the label; that one is unknown there is no proof."""
        self._known.meet(machine)
        doomed = [machine.ref]
        try:
            look = self._look(doomed)
        except ProviderError:
            look = None
        ours = look is None or self._known.is_account_of(machine.label, look.account)
        if look is not None and ours:
            doomed += [r for r, m in look.listed.items() if r != machine.ref and m.label == machine.label]
        for ref in doomed:
            said = self._asked("DELETE", f"/instances/{ref}/", {})
            if said.good and _is(said.body, "success"):
                self._deleted.add(ref)
                if look is not None and look.machines.get(ref) and ref not in self._running:
                    self._never_ran.add(ref)
            elif not _NOT_FOUND.search(_words(said)):
                raise ProviderError(f"Vast did not accept the delete (HTTP {said.status}).")
            elif not ours:
                raise ProviderError("the key is of another Vast account than the instance.",
                                    fix="Set VAST_API_KEY to the key that it was rented with.")  # fmt: skip

    def forget(self, label: str) -> None:
        """Remove what is noted of the lease."""
        self._known.forget(label)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _asked(self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None,
               seconds: float = ANSWER_S) -> Said:  # fmt: skip
        """One call of the SDK's client. Raises CreateRefusedError for a key that Vast does not accept, and

        ProviderError for no answer.
        """
        client = self._client(seconds)
        said: Said = getattr(client, method.lower())(path, query_args=query, json_data=body).said
        return said

    def _client(self, seconds: float = ANSWER_S) -> Any:
        try:
            return _client(Line("Vast", market.account_key(), self._clock), market.account_key(), seconds)
        except NotAskedError as error:
            raise CreateRefusedError(f"Vast cannot be asked: {error}.") from None

    def _account(self) -> str:
        """Whose key it is."""
        said = self._asked("GET", "/users/current")
        found = _id(said.body.get("id")) if said.good and isinstance(said.body, dict) else ""
        if not found:
            raise ProviderError("Vast did not say whose account it is.")
        return found

    def _refuse_if_dearer(self, intent: Intent) -> None:
        """Raise SoldOutError where the offer is gone, or costs more than what was approved."""
        from vastai.api.offers import search_offers

        wanted = {"id": {"eq": int(intent.offer.offer_id)}}
        try:
            rows = search_offers(self._client(), query=wanted, storage=float(intent.disk_gb))
        except (KeyError, TypeError):
            rows = None
        if not isinstance(rows, list):
            raise ProviderError("Vast did not say whether the offer is still there.")
        row = next((r for r in rows if isinstance(r, dict) and _id(r.get("id")) == intent.offer.offer_id), None)
        if row is None:
            raise SoldOutError("Vast does not offer it any more: it is rented or withdrawn.")
        try:
            rate = market.rent_of(row)
        except ValueError as error:
            raise SoldOutError(f"Vast offers it without a price that can be read ({error}).") from None
        if rate > intent.max_usd_per_hour:
            raise SoldOutError(f"Vast offers it at ${rate} an hour now; ${intent.max_usd_per_hour} is approved.")

    def _create(self, intent: Intent) -> dict[str, Any]:
        """PUT /asks/ID/. A price would make it a bid, which can be outbid: on demand, none is sent."""
        from vastai.api.instances import build_create_instance_payload

        body = build_create_instance_payload(
            image=intent.image or IMAGE, disk=intent.disk_gb, env={}, label=intent.label, onstart_cmd=_ONSTART,
            ssh=True, direct=True, cancel_unavail=True,
        )  # fmt: skip
        path = f"/asks/{intent.offer.offer_id}/"
        said = self._asked("PUT", path, body, seconds=self.create_s)
        if said.good and isinstance(said.body, dict) and said.body.get("success") is True:
            return said.body
        refused = isinstance(said.body, dict) and said.body.get("success") is False
        if refused and said.status < 500 and said.status not in (408, 429):
            words = _words(said)
            if _SOLD_OUT.search(words):
                raise SoldOutError(f"Vast: the offer is gone ({words}).")
            raise CreateRefusedError(f"Vast refused: {words}.")
        raise ProviderError(f"Vast answered HTTP {said.status} to the create: there may be an instance.")

    def _contracts(self, label: str | None) -> list[str]:
        """Ids of the account's contracts, of one label or of all, the newest first."""
        wanted = {} if label is None else {"label": label}
        said = self._asked("POST", "/contracts/fetch/", wanted)
        rows = said.body.get("contracts") if said.good and isinstance(said.body, dict) else None
        if not isinstance(rows, list):
            raise ProviderError("Vast did not list the account's contracts.")
        ids = [_id(row.get("id")) if isinstance(row, dict) else "" for row in rows]
        if not all(ids):
            raise ProviderError("Vast listed a contract without an id.")
        return sorted(set(ids), key=int, reverse=True)

    def _agrees(self, look: _Look) -> bool:
        """Whether no contract of the account that the list does not show still answers by its id."""
        hidden = [ref for ref in self._contracts(None) if ref not in look.listed]
        look.exact |= {ref: self._exact(ref, look.account) for ref in hidden[:MOST_CONTRACTS]}
        return True  # `consistent` compares

    def _look(self, refs: list[str]) -> _Look:
        """The list, page by page, and single instances; the account is asked for before and after."""
        look = _Look(self._account())
        token, count, total = None, 0, None
        for _ in range(MOST_PAGES):
            params = {"select_filters": {}, "order_by": [{"col": "id", "dir": "asc"}], "limit": 25}
            query = params if token is None else {**params, "after_token": token}
            said = self._asked("GET", "/api/v1/instances/", query=query)
            page = said.body if said.good and isinstance(said.body, dict) else {}
            rows = page.get("instances")
            if not isinstance(rows, list):
                raise ProviderError("Vast did not list the instances.")
            for row in rows:
                machine = self._machine(row, look.account)
                look.whole = look.whole and machine is not None and machine.ref not in look.listed
                if machine is not None:
                    look.listed[machine.ref] = machine
            count, token = count + len(rows), page.get("next_token")
            total = page.get("total_instances", total)
            if not token:
                break
        look.whole = look.whole and not token and total in (None, count)
        look.exact = {ref: self._exact(ref, look.account) for ref in refs}
        if self._account() != look.account:
            raise ProviderError("the account changed between two questions.")
        return look

    def _exact(self, ref: str, account: str) -> Machine | None:
        """One instance by its id; None when Vast says that there is none."""
        said = self._asked("GET", f"/instances/{ref}/", query={"owner": "me"})
        if said.status == 404 and _NOT_FOUND.search(_words(said)):
            return None
        if not said.good or not isinstance(said.body, dict) or "instances" not in said.body:
            raise ProviderError(f"Vast did not answer about the instance (HTTP {said.status}).")
        row = said.body["instances"]
        machine = self._machine(row, account)
        if row is not None and (machine is None or machine.ref != ref):
            raise ProviderError("Vast answered about another instance than the one asked for.")
        return machine

    def _attach(self, ref: str, keys: LeaseKeys, *, runs: bool) -> None:
        """The lease's key, for this instance alone; once before it runs, and once when it does: it may be lost."""
        if (ref, runs) in self._attached or (ref, True) in self._attached:
            return
        try:
            said = self._asked("POST", f"/instances/{ref}/ssh/", {"ssh_key": keys.public})
        except ProviderError:
            return  # tried again at the next look
        if said.good:
            self._attached.add((ref, runs))

    def _is_young(self, label: str) -> bool:
        return self._known.is_young(label, self._clock.now(), self.traits.listing_lag_s)

    def _machine(self, row: Any, account: str) -> Machine | None:
        """An instance's row; None where it is none. A rate that is not told is one that no approval allows."""
        ref = _id(row.get("id")) if isinstance(row, dict) else ""
        if not ref or not isinstance(row.get("label"), str | None):
            return None
        try:
            rate: Usd | None = market.rent_of(row)
        except ValueError:
            rate = None
        status = text(row.get("actual_status")).lower()
        if text(row.get("intended_status")).lower() in ("stopped", "exited"):
            status = "stopped"
        facts = {
            "account": account, "status": status, "said": text(row.get("status_msg")) or None,
            "billed_from": moment_of(row.get("start_date")), "ssh": _door(row),
            "disk_usd_per_hour": _storage(row), "running_at": self._since(ref, status, row.get("uptime_mins")),
            "rate_untold": True if rate is None else None,
        }  # fmt: skip
        return Machine(ref, row.get("label") or "", UNTOLD_USD_PER_HOUR if rate is None else rate,
                       {name: held for name, held in facts.items() if held is not None})  # fmt: skip

    def _since(self, ref: str, status: str, uptime_mins: object) -> str | None:
        """Since when the GPU is billed: by Vast's count of minutes, else since it was first seen running."""
        if status == "running" and ref not in self._running:
            minutes = number(uptime_mins) or 0.0
            self._running[ref] = iso(self._clock.now() - timedelta(minutes=min(minutes, 1e6)))
        return self._running.get(ref)


class _Response:
    """As much of a `requests.Response` as the SDK's functions look at; `said` is what was answered."""

    def __init__(self, said: Said) -> None:
        self.said = said

    def raise_for_status(self) -> None:
        """Only the search for an offer comes here: what is no good answer has no offers."""
        if not self.said.good:
            raise ProviderError(f"Vast answered HTTP {self.said.status}.")

    def json(self) -> Any:
        return self.said.body


def _client(line: Line, key: str, seconds: float) -> Any:
    """The SDK's own client (addresses, headers, query), over a connection that has limits and asks once."""
    from vastai.api.client import VastClient

    class Bounded(VastClient):  # type: ignore[misc]
        """Reads with a deadline and a limit of size, and never sends the key after a redirect."""

        def _request(self, method: str, url: str, headers: dict[str, str], json_data: Any = None,
                     timeout: float | None = None) -> _Response:  # fmt: skip
            said = line.ask(method, url, json_data, seconds=seconds)
            if said.status in (401, 403):
                fix = "Set VAST_API_KEY to a valid key."
                raise line.error("does not accept our key", CreateRefusedError, fix=fix)
            return _Response(said)

    return Bounded(key, os.environ.get("VAST_URL") or None, retry=1)


def _id(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else ""


def _is(body: object, name: str) -> bool:
    return isinstance(body, dict) and body.get(name) is True


def _words(said: Said) -> str:
    """What Vast says of an error, in small letters on one line."""
    body = said.body if isinstance(said.body, dict) else {}
    return f"{text(body.get('error'))} {text(body.get('msg'))}".strip().lower()


def _storage(row: dict[str, Any]) -> str | None:
    """Dollars an hour for its disk, with more digits than money has: it is multiplied by seconds."""
    rate = rate_of(row.get("storage_total_cost"))
    exact = number(row.get("storage_total_cost"))
    return None if rate is None or exact is None else f"{Decimal(repr(exact)):.9f}"


def _door(row: dict[str, Any]) -> list[str | int] | None:
    """Address and port of its ssh server: its own port where it has one, else Vast's proxy."""
    ports = row.get("ports")
    mapped = ports.get("22/tcp") if isinstance(ports, dict) else None
    first = mapped[0] if isinstance(mapped, list) and mapped and isinstance(mapped[0], dict) else {}
    for ip, port in ((row.get("public_ipaddr"), first.get("HostPort")), (row.get("ssh_host"), row.get("ssh_port"))):
        if isinstance(ip, str) and ip.strip() and str(port).isdecimal():
            return [ip.strip(), int(str(port))]
    return None
