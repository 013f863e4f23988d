"""RunPod rented directly, over GraphQL as runpod 1.10.1 and SkyPilot 0.14.1 call it.

What proves that a pod is gone: an answer that names the account it was rented in, and in which the pod's own id is
unknown. Where no id is known (a create that never answered), the list of pods must be whole, must not show the label,
and must explain what the account spends at that moment (`currentSpendPerHr`, of the same answer): an empty or a
shortened list does not. Serverless workers and volumes spend too, and then such a lease stays unproven.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

from launcher.clock import Clock
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.rented import rented_host
from launcher.offers import runpod as market
from launcher.offers.source import NotAskedError
from launcher.providers.asking import CREATE_S
from launcher.providers.base import (
    Charge,
    CreateRefusedError,
    Intent,
    Listing,
    Machine,
    MachineFailedError,
    Presence,
    ProviderError,
    by_rate,
)
from launcher.providers.known import Known
from launcher.providers.runpod_api import ENDED, Api, carries, label_of
from launcher.providers.traits import Traits, traits_of_provider


class RunPodProvider:
    """Pods of one account, one for each lease. Of the account's key no pod is told; each has its own from RunPod."""

    name = "runpod"

    def __init__(self, home: Home, clock: Clock) -> None:
        traits = traits_of_provider(self.name, "direct")
        assert traits
        self.traits: Traits = traits
        self.create_s = CREATE_S  # how long a create is waited for
        self._clock, self._api = clock, Api(clock)
        self._known = Known(home, self.name)
        self._ending: set[str] = set()  # ids whose end was asked for by this process
        self._deleted: set[str] = set()  # those whose delete RunPod has accepted

    def unusable(self) -> str | None:
        """Without a key; whether RunPod accepts it, only RunPod can say."""
        try:
            market.account_key()
        except NotAskedError as error:
            return f"{error}."
        return None

    def create(self, intent: Intent) -> Machine:
        """A pod of exactly the offer's GPU type and cloud, on demand, named by the label; see the contract."""
        if intent.keys is None:
            raise CreateRefusedError("without keys of its own nobody could enter the pod: it was not asked for.")
        account = self.intend(intent.label)
        try:
            machine = self._api.create(intent, account, self.create_s)
        except CreateRefusedError:
            self._known.forget(intent.label)
            raise
        self._known.learn(intent.label, ref=machine.ref)
        return replace(machine, label=intent.label)

    def intend(self, label: str) -> str:
        """Note whose account a lease's pod will be in, before a create by whatever engine; the account.

        Without it, that nothing was created is never proven. Raises CreateRefusedError where RunPod does not answer.
        """
        account = self._account()
        self._known.asked(label, self._clock.now(), account=account)
        return account

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """By its id where one is known, else by the name; see this module's words for what is proof."""
        refs = self._known.refs(label)
        try:
            look = self._api.look(refs)
        except ProviderError:
            return Presence.UNKNOWN, None
        found = [m for ref, m in look.machines.items() if ref in refs or carries(m.label, label)]
        if found:
            account = self._known.account_of(label, look.account)
            machine = replace(found[0], label=label, facts={**found[0].facts, "account": account})
            self._known.learn(label, ref=machine.ref, account=account)
            return Presence.PRESENT, machine
        if not self._known.is_account_of(label, look.account):
            return Presence.UNKNOWN, None  # another account's truth, for all that is known here
        if refs:
            unseen = self._is_young(label) and not set(refs) <= self._deleted
            return (Presence.UNKNOWN if unseen else Presence.ABSENT), None
        return (Presence.ABSENT if look.explained else Presence.UNKNOWN), None

    def listing(self) -> Listing:
        """The account's pods; complete when it is our leases' account, and its spending or a pod's end agrees."""
        labels = self._known.labels()
        held = {ref: label for label in labels for ref in self._known.refs(label)}
        try:
            look = self._api.look(sorted(held))
        except ProviderError:
            return Listing((), complete=False)
        ours = self._known.is_account_of_all(look.account)
        gone = any(look.exact.get(ref, ...) is None for ref in self._ending)
        machines = tuple(replace(m, label=held.get(ref) or self._label_of(m)) for ref, m in look.machines.items())
        return Listing(machines, complete=ours and look.consistent and (look.explained or gone))

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """The pod's public port 22; None while RunPod does not tell it."""
        now = self._now(machine)
        if now is not None and now.facts.get("status") in ENDED:
            raise MachineFailedError(f"RunPod says that the pod has ended ({now.facts['status']}).")
        address = (now or machine).facts.get("ssh")
        try:
            found = Address(str(address[0]), int(address[1])) if address else None
        except (ValueError, TypeError, IndexError):
            return None
        return rented_host(found, keys, machine.label, self._clock) if found else None

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """The pod ends itself: podTerminate with the key that RunPod gave to this pod alone (RUNPOD_API_KEY)."""
        from launcher.watchdog import Request, watch

        body = {"query": 'mutation { podTerminate(input: {podId: "${RUNPOD_POD_ID}"}) }'}
        call = Request("POST", "${RUNPOD_API_BASE_URL:-https://api.runpod.io}/graphql", body=json.dumps(body),
                       headers={"Content-Type": "application/json", "Authorization": "Bearer ${RUNPOD_API_KEY}",
                                "User-Agent": "parakeet-launcher"})  # fmt: skip
        watch(host, deadline, call, self._clock, self.name)
        return ("box ends itself (its own key; that RunPod grants it this is documented, not verified)",
                "reaper (CI or timer)")  # fmt: skip

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """Rate and disk by the second, as docs.runpod.io/accounts-billing/billing says."""
        return by_rate(machine, since, until, self.traits.billing_step_s)

    def destroy(self, machine: Machine) -> None:
        """podTerminate, also of any other pod that carries the label; that one is unknown there is no proof."""
        self._known.meet(machine)
        doomed = [machine.ref]
        self._ending.add(machine.ref)
        try:
            look = self._api.look(doomed)
        except ProviderError:
            look = None
        ours = look is None or self._known.is_account_of(machine.label, look.account)
        if look is not None and ours:
            doomed += [r for r, m in look.listed.items() if r != machine.ref and carries(m.label, machine.label)]
        for ref in doomed:
            if self._api.terminate(ref):
                self._deleted.add(ref)
            elif not ours:
                raise ProviderError("the key is of another account than the pod.",
                                    fix="Set RUNPOD_API_KEY to the key that it was rented with.")  # fmt: skip

    def forget(self, label: str) -> None:
        """Remove what is noted of the lease."""
        self._known.forget(label)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _account(self) -> str:
        """Whose key it is, asked before anything can be created by it; raises CreateRefusedError."""
        try:
            return self._api.look([]).account
        except ProviderError as error:
            raise CreateRefusedError(f"{error.problem} No pod was asked for.", fix=error.fix) from None

    def _now(self, machine: Machine) -> Machine | None:
        """What RunPod says of a pod now, None where it says nothing; raises MachineFailedError when it is gone."""
        self._known.meet(machine)
        try:
            look = self._api.look([machine.ref])
        except ProviderError:
            return None
        now = look.exact[machine.ref]
        ours = self._known.is_account_of(machine.label, look.account)
        if now is None and ours and not self._is_young(machine.label):
            raise MachineFailedError("RunPod does not know the pod any more.")
        return now

    def _is_young(self, label: str) -> bool:
        return self._known.is_young(label, self._clock.now(), self.traits.listing_lag_s)

    def _label_of(self, machine: Machine) -> str:
        """The label of a pod that is not known by its id: of our own leases, else its name, as we wrote it."""
        known = next((one for one in self._known.labels() if carries(machine.label, one)), None)
        return known or label_of(machine.label)
