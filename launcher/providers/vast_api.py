"""Vast's REST, through vastai-sdk 1.9.1's own client: an account and its instances, one offer, a create, an end."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

from launcher.clock import Clock, iso
from launcher.money import Usd
from launcher.offers import vast as market
from launcher.offers.source import NotAskedError, number, text
from launcher.providers.account import Look
from launcher.providers.asking import ANSWER_S, UNTOLD_USD_PER_HOUR, Line, Said, moment_of, rate_of
from launcher.providers.base import CreateRefusedError, Intent, Machine, ProviderError, SoldOutError

#: PyTorch's own image on CUDA 12.8, Python 3.11 (hub.docker.com/r/pytorch/pytorch): kept on many of Vast's hosts.
#: The recipes bring their own torch; of the image they use the driver's libraries and Python.
IMAGE = "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime"
MOST_PAGES = 40  # of 25 instances
MOST_CONTRACTS = 25  # of one account, that a list does not show, are looked up by their ids

# Vast puts an ssh server into any image; rsync and Python are the image's affair.
_ONSTART = """
command -v rsync && command -v python3 || { apt-get update && apt-get install -y rsync python3; }
[ -x /usr/bin/python3 ] || [ -x /usr/local/bin/python3 ] || ln -s "$(command -v python3)" /usr/local/bin/python3
"""
ENDED = ("exited", "stopped", "offline")
_SOLD_OUT = re.compile(r"no_such_ask|not available|unavailable|already rented|no longer")
_NOT_FOUND = re.compile(r"no_such_instance|not found|no such instance|not_found")


class Api:
    """One account's interface. `running`: since when each instance was seen to run, and its GPU is billed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.running: dict[str, str] = {}
        self._accounts: dict[str, str] = {}  # key -> whose it is

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

    def account(self) -> str:
        """Whose key it is; asked once, since a key does not change hands."""
        key = self._client().api_key
        if key in self._accounts:
            return self._accounts[key]
        said = self._asked("GET", "/users/current")
        found = _id(said.body.get("id")) if said.good and isinstance(said.body, dict) else ""
        if not found:
            raise ProviderError("Vast did not say whose account it is.")
        self._accounts[key] = found
        return found

    def refuse_if_dearer(self, intent: Intent) -> None:
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

    def create(self, intent: Intent, seconds: float) -> str:
        """The id of an instance made of the offer. A price would make it a bid, which can be outbid: none is sent."""
        from vastai.api.instances import build_create_instance_payload

        body = build_create_instance_payload(
            image=intent.image or IMAGE, disk=intent.disk_gb, env={}, label=intent.label, onstart_cmd=_ONSTART,
            ssh=True, direct=True, cancel_unavail=True,
        )  # fmt: skip
        path = f"/asks/{intent.offer.offer_id}/"
        said = self._asked("PUT", path, body, seconds=seconds)
        if said.good and isinstance(said.body, dict) and said.body.get("success") is True:
            if ref := _id(said.body.get("new_contract")):
                return ref
            raise ProviderError("Vast's answer to the create names no instance: there may be one.")
        refused = isinstance(said.body, dict) and said.body.get("success") is False
        if refused and said.status < 500 and said.status not in (408, 429):
            words = _words(said)
            if _SOLD_OUT.search(words):
                raise SoldOutError(f"Vast: the offer is gone ({words}).")
            raise CreateRefusedError(f"Vast refused: {words}.")
        raise ProviderError(f"Vast answered HTTP {said.status} to the create: there may be an instance.")

    def contracts(self, label: str | None) -> list[str]:
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

    def agrees(self, look: Look) -> bool:
        """Whether no contract of the account that the list does not show still answers by its id."""
        hidden = [ref for ref in self.contracts(None) if ref not in look.listed]
        look.exact |= {ref: self.exact(ref, look.account) for ref in hidden[:MOST_CONTRACTS]}
        return True  # `consistent` compares

    def look(self, refs: list[str]) -> Look:
        """The list, page by page, and single instances."""
        look = Look(self.account())
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
        look.exact = {ref: self.exact(ref, look.account) for ref in refs}
        return look

    def single(self, refs: list[str]) -> Look:
        """Single instances, without the list."""
        account = self.account()
        return Look(account, exact={ref: self.exact(ref, account) for ref in refs})

    def exact(self, ref: str, account: str) -> Machine | None:
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

    def attach(self, ref: str, public_key: str) -> bool:
        """Let a key into one instance; whether Vast accepted it."""
        try:
            return self._asked("POST", f"/instances/{ref}/ssh/", {"ssh_key": public_key}).good
        except ProviderError:
            return False

    def delete(self, ref: str) -> bool:
        """Ask for an instance's end; False where Vast does not know it. Raises ProviderError where not accepted."""
        said = self._asked("DELETE", f"/instances/{ref}/", {})
        if said.good and _is(said.body, "success"):
            return True
        if _NOT_FOUND.search(_words(said)):
            return False
        raise ProviderError(f"Vast did not accept the delete (HTTP {said.status}).")

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
        if status == "running" and ref not in self.running:
            minutes = number(uptime_mins) or 0.0
            self.running[ref] = iso(self._clock.now() - timedelta(minutes=min(minutes, 1e6)))
        return self.running.get(ref)


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
