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
from launcher.hosts.gang import nodes_of
from launcher.hosts.lease_keys import LeaseKeys
from launcher.offers import runpod as market
from launcher.providers.account import AccountProvider
from launcher.providers.base import (
    Charge,
    CreateRefusedError,
    Intent,
    Machine,
    MachineFailedError,
    ProviderError,
    by_rate_of_each,
    each_of,
)
from launcher.providers.runpod_api import ENDED, Api, Look, carries, label_of


class RunPodProvider(AccountProvider[Look]):
    """Pods of one account, one for each lease. Of the account's key no pod is told; each has its own from RunPod."""

    name = "runpod"
    key_variable = "RUNPOD_API_KEY"

    def __init__(self, home: Home, clock: Clock) -> None:
        super().__init__(home, clock, market.account_key)
        self._api = Api(clock)

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

    def intend(self, label: str, nodes: int = 1) -> str:
        """Note whose account a lease's pods will be in, before a create by whatever engine; the account.

        Without it, that nothing was created is never proven. Raises CreateRefusedError where RunPod does not answer.
        """
        account = self._account()
        self._known.asked(label, self._clock.now(), account=account, nodes=nodes)
        return account

    def connect(self, machine: Machine, keys: LeaseKeys) -> Host | None:
        """The public port 22 of each of its pods; None while RunPod does not tell them all."""
        now = self._now(machine)
        ended = next((one for one in now if one.facts.get("status") in ENDED), None)
        if ended is not None:
            raise MachineFailedError(f"RunPod says that the pod has ended ({ended.facts['status']}).")
        return self._hosts(machine, sorted(now, key=self._rank) or each_of(machine), keys)

    def arm(self, machine: Machine, host: Host, deadline: datetime) -> tuple[str, ...]:
        """The pod ends itself: podTerminate with the key that RunPod gave to this pod alone (RUNPOD_API_KEY)."""
        from launcher.watchdog import Request, watch

        body = {"query": 'mutation { podTerminate(input: {podId: "${RUNPOD_POD_ID}"}) }'}
        call = Request("POST", "${RUNPOD_API_BASE_URL:-https://api.runpod.io}/graphql", body=json.dumps(body),
                       headers={"Content-Type": "application/json", "Authorization": "Bearer ${RUNPOD_API_KEY}",
                                "User-Agent": "parakeet-launcher"})  # fmt: skip
        for node in nodes_of(host):
            watch(node, deadline, call, self._clock, self.name)
        return ("box ends itself (its own key; that RunPod grants it this is documented, not verified)",
                "reaper (CI or timer)")  # fmt: skip

    def charged(self, machine: Machine, since: datetime, until: datetime) -> Charge:
        """Rate and disk by the second, as docs.runpod.io/accounts-billing/billing says."""
        return by_rate_of_each(machine, since, until, self.traits.billing_step_s)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _account(self) -> str:
        """Whose key it is, asked before anything can be created by it; raises CreateRefusedError."""
        try:
            return self._api.look([]).account
        except ProviderError as error:
            raise CreateRefusedError(f"{error.problem} No pod was asked for.", fix=error.fix) from None

    def _now(self, machine: Machine) -> list[Machine]:
        """What RunPod says of its pods now, as far as it does; raises MachineFailedError when one of them is gone."""
        self._known.meet(machine)
        try:
            look = self._api.look(self._known.refs(machine.label))
        except ProviderError:
            return []
        ours = self._known.is_account_of(machine.label, look.account)
        if None in look.exact.values() and ours and not self._is_young(machine.label):
            raise MachineFailedError("RunPod does not know the pod any more.")
        return [now for now in look.exact.values() if now is not None]

    def _look(self, refs: list[str]) -> Look:
        return self._api.look(refs)

    def _delete(self, ref: str, look: Look | None) -> bool:
        return self._api.terminate(ref)

    def _leaves_nothing_out(self, look: Look) -> bool:
        return look.explained

    def _is_agreed_with(self, look: Look) -> bool:
        return look.explained

    def _carries(self, machine: Machine, label: str) -> bool:
        return carries(machine.label, label)

    def _rank(self, machine: Machine) -> tuple[bool, str]:
        """SkyPilot's first machine comes first; of all others the order is that of their ids."""
        return (not machine.label.endswith("-head"), machine.ref)

    def _label_of(self, machine: Machine) -> str:
        """The label of a pod that is not known by its id: of our own leases, else its name, as we wrote it."""
        known = next((one for one in self._known.labels() if carries(machine.label, one)), None)
        return known or label_of(machine.label)
