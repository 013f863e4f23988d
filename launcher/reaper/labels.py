"""What a machine's label says without a ledger: whose it is, of which run, and until when it may live."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

MARGIN = timedelta(minutes=10)  # beyond a deadline, by the provider's own clock: for a release that is under way
#: The same where the provider's time is not known, and this computer's clock may be an hour off.
UNSURE = timedelta(minutes=70)
_LABEL = re.compile(r"pl-(?P<owner>.+)-(?P<lease>(?P<run>[0-9a-f]{6})-[0-9a-f]{8})-(?P<ends>\d{8}T\d{6})", re.ASCII)


@dataclass(frozen=True)
class Label:
    """pl-OWNER-RUN-LEASE-DEADLINE, as the ledger writes it; the deadline is UTC."""

    text: str
    owner: str
    run: str
    ends: datetime
    lease: str  # the id of the lease that was meant when it was written

    @classmethod
    def read(cls, text: str) -> Label | None:
        """The label, or None for a machine that is not ours: foreign, or only named a little like it."""
        found = _LABEL.fullmatch(text)
        if found is None or not all(sign.isalnum() or sign == "-" for sign in found["owner"]):
            return None
        try:
            ends = datetime.strptime(found["ends"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        except ValueError:  # the 31st of a month that has none: nobody of ours wrote that
            return None
        return cls(text, found["owner"], found["run"], ends, found["lease"])


@dataclass(frozen=True)
class Over:
    """Runs, and owners of runs, that somebody knows to be over: what is theirs need not reach its deadline."""

    runs: frozenset[str] = field(default_factory=frozenset)
    owners: frozenset[str] = field(default_factory=frozenset)

    def __bool__(self) -> bool:
        return bool(self.runs or self.owners)

    def names(self, label: Label | None) -> bool:
        """Whether a label's run or owner is among them."""
        return label is not None and (label.run in self.runs or label.owner in self.owners)


NOBODY = Over()
