"""Machines of one account that is asked over an interface by us: what RunPod and Vast share.

A provider's own module says how its account is asked, how a machine carries a label, and what is proof that nothing
was left out. Here stands what is concluded from that: present, absent, unknown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

from launcher.clock import Clock
from launcher.home import Home
from launcher.hosts.base import Host
from launcher.hosts.lease_keys import Address, LeaseKeys
from launcher.hosts.rented import rented_hosts
from launcher.offers.source import NotAskedError
from launcher.providers.asking import CREATE_S
from launcher.providers.base import Listing, Machine, Presence, ProviderError, as_one, each_of
from launcher.providers.known import Known
from launcher.providers.traits import Traits, traits_of_provider


@dataclass
class Look:
    """One answer about the account: who, what it lists, and what was asked for by id."""

    account: str
    listed: dict[str, Machine] = field(default_factory=dict)
    exact: dict[str, Machine | None] = field(default_factory=dict)
    whole: bool = True  # every row was understood

    @property
    def machines(self) -> dict[str, Machine]:
        """All that exists, as far as this answer goes, by id."""
        return self.listed | {ref: machine for ref, machine in self.exact.items() if machine}

    @property
    def consistent(self) -> bool:
        """Whether all that exists by its id is listed."""
        return self.whole and all(ref in self.listed for ref, machine in self.exact.items() if machine)


OneLook = TypeVar("OneLook", bound=Look)


class AccountProvider(ABC, Generic[OneLook]):
    """One account's machines, one for each lease. See each provider's module for what proves that one is gone."""

    name: ClassVar[str]
    key_variable: ClassVar[str]  # names the account's key in the environment

    def __init__(self, home: Home, clock: Clock, account_key: Callable[[], Any]) -> None:
        traits = traits_of_provider(self.name, "direct")
        assert traits
        self.traits: Traits = traits
        self.create_s = CREATE_S  # how long a create is waited for
        self._clock, self._account_key = clock, account_key
        self._known = Known(home, self.name)
        self._ending: set[str] = set()  # ids whose end was asked for by this process
        self._deleted: set[str] = set()  # those whose delete the provider has accepted

    def unusable(self) -> str | None:
        """Without a key (or what asks with it); whether the provider accepts it, only the provider can say."""
        try:
            self._account_key()
        except NotAskedError as error:
            return f"{error}."
        return None

    def find(self, label: str) -> tuple[Presence, Machine | None]:
        """By its id where one is known, else by the label; see the provider's module for what is proof."""
        refs = self._known.refs(label)
        try:
            look = self._look_for(label, refs)
        except ProviderError:
            return Presence.UNKNOWN, None
        found = [m for ref, m in look.machines.items() if ref in refs or self._carries(m, label)]
        if found:
            account = self._known.account_of(label, look.account)
            for one in found:
                self._known.learn(label, ref=one.ref, account=account)
            machine = as_one(sorted(found, key=self._rank))
            return Presence.PRESENT, replace(machine, label=label, facts={**machine.facts, "account": account})
        if not self._known.is_account_of(label, look.account):
            return Presence.UNKNOWN, None  # another account's truth, for all that is known here
        if refs:
            unseen = self._is_young(label) and not set(refs) <= self._deleted
            # One of several that was never shown may be there all the same.
            unseen = unseen or not (self._known.are_all(label) or self._leaves_nothing_out(look))
            return (Presence.UNKNOWN if unseen else Presence.ABSENT), None
        return (Presence.ABSENT if self._leaves_nothing_out(look) else Presence.UNKNOWN), None

    def listing(self) -> Listing:
        """The account's machines; complete when it is our leases' account, and more than the list speaks for it."""
        held = {ref: label for label in self._known.labels() for ref in self._known.refs(label)}
        try:
            look = self._look(sorted(held))
            agreed = any(look.exact.get(ref, ...) is None for ref in self._ending) or self._is_agreed_with(look)
        except ProviderError:
            return Listing((), complete=False)
        ours = self._known.is_account_of_all(look.account)
        machines = tuple(replace(m, label=held.get(ref) or self._label_of(m)) for ref, m in look.machines.items())
        return Listing(machines, complete=ours and agreed and look.consistent)

    def destroy(self, machine: Machine) -> None:
        """Delete it, also any other machine that carries the label; that one is unknown there is no proof."""
        self._known.meet(machine)
        doomed = [one.ref for one in each_of(machine)]
        self._ending.update(doomed)
        try:
            look = self._look(doomed)
        except ProviderError:
            look = None
        ours = look is None or self._known.is_account_of(machine.label, look.account)
        if look is not None and ours:
            doomed += [r for r, m in look.listed.items() if r not in doomed and self._carries(m, machine.label)]
        for ref in doomed:
            if self._delete(ref, look):
                self._deleted.add(ref)
            elif not ours:
                raise ProviderError("the key is of another account than the machine.",
                                    fix=f"Set {self.key_variable} to the key that it was rented with.")  # fmt: skip

    def forget(self, label: str) -> None:
        """Remove what is noted of the lease."""
        self._known.forget(label)

    # -- what each provider says ------------------------------------------------------------------------------------

    @abstractmethod
    def _look(self, refs: list[str]) -> OneLook:
        """The account's list, and these ids. Raises ProviderError."""

    def _look_for(self, label: str, refs: list[str]) -> OneLook:
        """What shows a lease's machine, if it is there: by its ids, or by whatever its label is known by."""
        return self._look(refs)

    @abstractmethod
    def _delete(self, ref: str, look: OneLook | None) -> bool:
        """Ask for an id's end; False for one that is not known there. Raises ProviderError where not accepted."""

    @abstractmethod
    def _leaves_nothing_out(self, look: OneLook) -> bool:
        """Whether an answer without the label proves that nothing carries it."""

    @abstractmethod
    def _is_agreed_with(self, look: OneLook) -> bool:
        """Whether more than the list itself says that it is whole. Raises ProviderError where that is not told."""

    def _carries(self, machine: Machine, label: str) -> bool:
        return machine.label == label

    def _rank(self, machine: Machine) -> Any:
        """What the machines of one lease are sorted by: the first of them is the one that speaks for all."""
        return machine.ref

    def _label_of(self, machine: Machine) -> str:
        """The label of a listed machine that is not known by its id."""
        return machine.label

    # -- for all of them --------------------------------------------------------------------------------------------

    def _host(self, machine: Machine, facts: dict[str, Any], keys: LeaseKeys) -> Host | None:
        """The host behind the address in `facts["ssh"]`; None while there is none that makes sense."""
        found = _door(facts)
        return rented_hosts([found], keys, machine.label, self._clock) if found else None

    def _hosts(self, machine: Machine, nodes: Sequence[Machine], keys: LeaseKeys) -> Host | None:
        """The host of a lease of one or several machines, by rank; None until each asked for has an address."""
        doors = [door for door in (_door(one.facts) for one in nodes) if door is not None]
        if not doors or len(doors) < len(self._known.refs(machine.label)) or not self._known.are_all(machine.label):
            return None
        return rented_hosts(doors, keys, machine.label, self._clock)

    def _is_young(self, label: str) -> bool:
        return self._known.is_young(label, self._clock.now(), self.traits.listing_lag_s)


def _door(facts: dict[str, Any]) -> Address | None:
    """Where a machine's ssh server answers, where that makes sense."""
    address = facts.get("ssh")
    try:
        return Address(str(address[0]), int(address[1])) if address else None
    except (ValueError, TypeError, IndexError):
        return None
