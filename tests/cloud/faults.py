"""The faults that a test can script: what each does, where it strikes by default, and how often."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

#: name -> (operation it strikes, its parameters with their defaults)
FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    # of a call
    "error": ("any", {"status": 500}),
    "rate_limited": ("any", {"retry_after_s": 1}),
    "unauthorized": ("any", {}),
    "error_after_create": ("create", {"status": 500}),
    "timeout_after_create": ("create", {"seconds": 600.0}),
    "sold_out": ("create", {"offer": None, "listed": False}),  # listed: gone only when it is asked for
    "price_change": ("create", {"factor": 2.0}),
    "empty_list": ("list", {}),
    "partial_list": ("list", {}),  # the older half, and nothing says that there is more
    "malformed_list": ("list", {}),  # cut off in the middle
    "wrong_account": ("list", {}),  # another account's machines
    "delete_refused": ("delete", {"status": 500}),
    "delete_ignored": ("delete", {}),  # accepted, and not done
    # of a machine: of `machine`, at once, else of the next that is created
    "listing_lag": ("machine", {"seconds": 5.0}),  # not listed, not found, for so long after its creation
    "never_boots": ("machine", {}),  # its image is never pulled
    "never_ssh": ("machine", {}),  # said to run; nothing answers
    "slow_link": ("machine", {"mbit": 20.0, "delay_ms": 0.0}),  # one way
    "partition": ("machine", {"seconds": None}),  # None: until it is healed
    "host_death": ("machine", {"after_s": 0.0}),  # the machine is gone; the provider goes on saying that it runs
    "disk_full": ("machine", {}),
    # of the provider's clock
    "clock_jump": ("clock", {"seconds": 3600.0}),
    # the end of faults
    "heal": ("machine", {}),
}
ALWAYS = 10**9


class UnknownFaultError(ValueError):
    """A fault that no one has written, or a parameter that it does not take."""


@dataclass
class Fault:
    """One scripted fault. `count`: how many times it strikes yet; `skip`: how many calls it lets through first."""

    fault: str
    operation: str
    provider: str | None = None
    machine: str | None = None
    count: int = 1
    skip: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    struck: int = 0

    @classmethod
    def parse(cls, asked: dict[str, Any]) -> Fault:
        held = dict(asked)
        name = held.pop("fault", None)
        if name not in FAULTS:
            raise UnknownFaultError(f"no such fault: {name!r}. There are: {', '.join(sorted(FAULTS))}")
        operation, defaults = FAULTS[name]
        common = {key: held.pop(key) for key in ("provider", "operation", "machine", "skip") if key in held}
        count = held.pop("count", 1)
        params = defaults | {key: held.pop(key) for key in list(held) if key in defaults}
        if held:
            raise UnknownFaultError(
                f"{name} takes no {', '.join(held)}. It takes: {', '.join(defaults) or 'nothing'}"
            )
        return cls(name, **{"operation": operation, **common}, params=params,
                   count=ALWAYS if count in ("always", None) else int(count))  # fmt: skip

    def strikes(self, provider: str, operation: str) -> bool:
        """Whether it strikes this call; then it is one nearer to its end."""
        if self.count <= 0 or self.provider not in (None, provider) or self.operation not in ("any", operation):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.count -= 1
        self.struck += 1
        return True

    def told(self) -> dict[str, Any]:
        return asdict(self)


class Script:
    """The faults in force, oldest first."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def take(self, provider: str, operation: str, *names: str, offer: str | None = None) -> Fault | None:
        """The first of these faults that strikes this call."""
        for fault in self.faults:
            only = fault.params.get("offer")
            if (
                fault.fault in names
                and (only is None or str(only) == str(offer))
                and fault.strikes(provider, operation)
            ):
                return fault
        return None

    def standing(self, provider: str, name: str) -> list[Fault]:
        """Faults of this name that have strikes left, without using one."""
        here = [f for f in self.faults if f.fault == name and f.count > 0 and f.provider in (None, provider)]
        return [f for f in here if not f.params.get("listed")]
