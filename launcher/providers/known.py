"""What this launcher knows of its leases at one provider beside the ledger: whose account, which machine, since when.

A label alone proves little: an empty answer may be a lie, a lag, or another account's truth. So each lease's account
is noted before its create, and its machine's id after; a later process asks for exactly that id. One small file a
lease under the launcher's home, removed with it. It holds no secret, and a lease without one is merely harder to
prove.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from typing import Any

from launcher.clock import iso, parse_iso
from launcher.failpoints import effect
from launcher.home import Home
from launcher.providers.base import Machine, each_of
from recipes.contract import write_json

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Known:
    """Facts of leases by label: `account`, `refs` (ids of machines), `asked_at` (of the create), and others."""

    def __init__(self, home: Home, provider: str) -> None:
        self._folder = home.root / "rented" / provider
        self._held: dict[str, dict[str, Any]] = {}
        self._account = ""  # that answered first: another one later, to the same key, is no answer

    def of(self, label: str) -> dict[str, Any]:
        """What is known of a lease; empty for one that nobody here has heard of."""
        if label not in self._held:
            self._held[label] = self._read(label)
        return self._held[label]

    @effect("provider.note")
    def learn(self, label: str, **facts: Any) -> None:
        """Keep facts; those that are None change nothing. `ref` is added to the lease's ids."""
        with suppress(OSError):  # a full disk here must not keep a machine from being ended
            self._keep(label, facts)

    def meet(self, machine: Machine) -> None:
        """Learn from a machine that the ledger kept."""
        facts = machine.facts
        for one in each_of(machine):
            self.learn(machine.label, ref=one.ref, account=facts.get("account"), asked_at=facts.get("billed_from"))

    def refs(self, label: str) -> list[str]:
        """The ids of a lease's machines."""
        return [str(ref) for ref in self.of(label).get("refs", [])]

    def labels(self) -> list[str]:
        """Every lease that is noted here and not yet forgotten."""
        noted = {path.stem for path in self._folder.glob("*.json")} if self._folder.is_dir() else set()
        return sorted(noted | {label for label, held in self._held.items() if held})

    def account_of(self, label: str, told: str) -> str:
        """The account that is noted for a lease, else the one that tells of its machine.

        Once one is noted, an answer that names another is a lie at least about that.
        """
        return str(self.of(label).get("account") or told)

    def is_account_of(self, label: str, account: str) -> bool:
        """Whether this account's answers count for the lease: it is rented there.

        Where that is not noted, it must be one that this home has rented in; a home that never rented takes the
        first account that answers for the right one.
        """
        named = self.of(label).get("account")
        if named:
            return bool(account == named)
        if not self._account and account in (self._accounts or [account]):
            self._account = account
        return account == self._account

    def is_account_of_all(self, account: str) -> bool:
        """Whether this account's answers count for every lease that is noted here."""
        return self.is_account_of("", account) and all(self.is_account_of(label, account) for label in self.labels())

    @property
    def _accounts(self) -> list[str]:
        """Those that were rented in from here."""
        try:
            held = json.loads((self._folder / "accounts").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return held if isinstance(held, list) else []

    def is_young(self, label: str, now: datetime, lag_s: float) -> bool:
        """Whether its machine may be so new that the provider's answers do not show it yet."""
        try:
            return (now - parse_iso(str(self.of(label)["asked_at"]))).total_seconds() < lag_s
        except (KeyError, ValueError):
            return False

    def are_all(self, label: str) -> bool:
        """Whether the ids of all machines that were asked for as this lease are known."""
        return len(self.refs(label)) >= int(self.of(label).get("nodes", 1))

    def asked(self, label: str, now: datetime, account: str, nodes: int = 1) -> None:
        """Note a create that is about to be asked for, of so many machines."""
        self._account = account
        if account not in self._accounts:
            write_json(self._folder / "accounts", [*self._accounts, account])
        # Nothing is created that cannot be noted.
        self._keep(label, {"asked_at": iso(now), "account": account, "nodes": nodes if nodes > 1 else None})

    def forget(self, label: str) -> None:
        """The lease is over."""
        self._held.pop(label, None)
        if _PLAIN.fullmatch(label):
            (self._folder / f"{label}.json").unlink(missing_ok=True)

    def _keep(self, label: str, facts: dict[str, Any]) -> None:
        held = dict(self.of(label))
        ref = facts.pop("ref", None)
        if ref is not None and ref not in held.get("refs", []):
            held["refs"] = [*held.get("refs", []), ref]
        held |= {name: value for name, value in facts.items() if value is not None}
        if held == self.of(label):
            return
        self._held[label] = held
        if _PLAIN.fullmatch(label):
            write_json(self._folder / f"{label}.json", held)

    def _read(self, label: str) -> dict[str, Any]:
        if not _PLAIN.fullmatch(label):
            return {}
        try:
            held = json.loads((self._folder / f"{label}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}
