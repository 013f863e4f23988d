"""Vast.ai rented directly: one exact offer, through vastai-sdk's own client.

What proves that an instance is gone: its own id is unknown to the account it was rented in. Where no id is known (a
create that never answered), two questions apart must agree: the list of instances, whole by its own count, does not
show the label, and the contracts of that label (`/contracts/fetch/`) name no instance that still answers by its id.
An empty or a shortened list alone proves nothing. That Vast knows a label's contract from its create on is taken from
the SDK's words, not verified; where it does not answer that question, such a lease stays unproven.

Vast bills storage from the creation and the GPU from `running` (docs.vast.ai).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal

from launcher.clock import Clock, iso, parse_iso
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import Usd
from launcher.offers import vast as market
from launcher.providers.account import AccountProvider, Look
from launcher.providers.base import (
    Charge,
    CreateRefusedError,
    Intent,
    Machine,
    MachineFailedError,
    ProviderError,
    by_rate,
)
from launcher.providers.vast_api import ENDED, Api


class VastProvider(AccountProvider[Look]):
    """Instances of one account, one for each lease. The account's key and its ssh keys stay out of them."""

    name = "vast"
    key_variable = "VAST_API_KEY"

    def __init__(self, home: Home, clock: Clock) -> None:
        super().__init__(home, clock, market.account_key)
        self._api = Api(clock)
        self._never_ran: set[str] = set()  # ids that had not run yet when they were deleted
        self._attached: set[tuple[str, bool]] = set()

    def create(self, intent: Intent) -> Machine:
        """The exact offer, if it is still there at no more than the intent's rate; see the contract."""
        offer = intent.offer.offer_id
        if not offer.isdecimal() or not offer.isascii():
            raise CreateRefusedError(f"{offer!r} is not an offer of Vast's.")
        if intent.keys is None:
            raise CreateRefusedError("without keys of its own nobody could enter the instance: it was not asked for.")
        try:
            account = self._api.account()
            self._api.refuse_if_dearer(intent)
        except CreateRefusedError:
            raise
        except ProviderError as error:
            raise CreateRefusedError(f"{error.problem} No instance was asked for.", fix=error.fix) from None
        self._known.asked(intent.label, self._clock.now(), account=account)
        try:
            ref = self._api.create(intent, self.create_s)
        except CreateRefusedError:
            self._known.forget(intent.label)
            raise
        self._known.learn(intent.label, ref=ref)
        try:
            machine = self._api.exact(ref, account)
        except ProviderError:
            machine = None
        if machine is None:  # too new to be shown: the offer's price is what it was rented at, and is looked at again
            facts = {"account": account, "rate_of": "the offer", "billed_from": iso(self._clock.now())}
            return Machine(ref, intent.label, intent.offer.usd_per_hour, facts)
        return replace(machine, label=intent.label)

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """The instance's own port 22; None while Vast does not tell it. The lease's key is attached on the way."""
        self._known.meet(machine)
        try:
            account = self._api.account()
            now = self._api.exact(machine.ref, account)
        except ProviderError:
            now, account = machine, ""  # not asked: where it was, it may still be
        if now is None:
            if self._known.is_account_of(machine.label, account) and not self._is_young(machine.label):
                raise MachineFailedError("Vast does not know the instance any more.")
            return None
        status = str(now.facts.get("status", ""))
        if status in ENDED:
            raise MachineFailedError(f"Vast says that the instance is {status}. {now.facts.get('said', '')}".strip())
        if account:
            self._attach(machine.ref, keys, runs=status == "running")
        return self._host(machine, now.facts, keys)

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """Work ends at the deadline; the instance asks for its own end with the key that Vast gave to it alone."""
        from launcher.watchdog import Request, watch

        call = Request("DELETE", "${VAST_URL:-https://console.vast.ai}/api/v0/instances/${CONTAINER_ID}/",
                       headers={"Authorization": "Bearer ${CONTAINER_API_KEY}", "Content-Type": "application/json",
                                "User-Agent": "parakeet-launcher"}, body="{}")  # fmt: skip
        watch(host, deadline, call, self._clock, self.name)
        return ("box timer stops all work (that the box's own key may also end it is unverified)",
                "reaper (CI or timer)")  # fmt: skip

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """Storage by the second from the creation; the GPU from `running`, from the creation where that is untold."""
        step = self.traits.billing_step_s
        ran = self._api.running.get(machine.ref) or machine.facts.get("running_at")
        disk = Decimal(str(machine.facts.get("disk_usd_per_hour", 0)))
        gpu_from = max(since, min(parse_iso(str(ran)), until)) if ran else since
        if not ran and machine.ref in self._never_ran:
            gpu_from = until
        gpu = by_rate(replace(machine, facts={}), gpu_from, until, step)
        seconds = (Decimal(str(max(0.0, (until - since).total_seconds()))) / step).to_integral_value(ROUND_CEILING)
        stored = (disk * seconds * step / 3600).quantize(Decimal("0.000001"), rounding=ROUND_CEILING)
        return Charge(gpu.amount + Usd(stored), gpu.source)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _attach(self, ref: str, keys: LeaseKeys, *, runs: bool) -> None:
        """The lease's key, for this instance alone; once before it runs, and once when it does: it may be lost."""
        if (ref, runs) in self._attached or (ref, True) in self._attached:
            return
        if self._api.attach(ref, keys.public):  # else it is tried again at the next look
            self._attached.add((ref, runs))

    def _look(self, refs: list[str]) -> Look:
        return self._api.look(refs)

    def _look_for(self, label: str, refs: list[str]) -> Look:
        """Where no id is known, the contracts of that label name them."""
        return self._api.single(refs) if refs else self._api.look(self._api.contracts(label))

    def _delete(self, ref: str, look: Look | None) -> bool:
        accepted = self._api.delete(ref)
        if accepted and look is not None and look.machines.get(ref) and ref not in self._api.running:
            self._never_ran.add(ref)
        return accepted

    def _leaves_nothing_out(self, look: Look) -> bool:
        return look.whole

    def _is_agreed_with(self, look: Look) -> bool:
        return self._api.agrees(look)
