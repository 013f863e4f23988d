"""Which cases there are: every failpoint of one traced run, at each provider, for each way in which it is rescued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Rescue = Literal["resume", "sentinel", "reaper", "watchdog"]
RESCUES: tuple[Rescue, ...] = ("resume", "sentinel", "reaper", "watchdog")
LAYER = {"resume": "L0", "sentinel": "L1", "reaper": "L2", "watchdog": "L3"}

#: Effects whose every passing is another step of the protocol with ledger or provider; of the others (a file, a
#: request to the machine) the first passing stands for all.
EACH_PASSING = ("ledger.write", "provider.request")
#: Where a machine that nobody remembers could be left, and where one is at work: what the slower layers are tried at.
_LATE = ("provider.create", "provider.arm", "host.put", "host.start", "step.spec", "event.pull", "artifact.fetch",
         "artifact.place", "provider.destroy", "provider.listing")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One death: who is killed where, and which layer alone has to do the rest."""

    provider: str
    recipe: str  # what the run does
    who: str  # runner, sentinel, both
    point: str  # NAME.before|after:N
    rescue: Rescue

    @property
    def key(self) -> str:
        return f"{self.provider}/{self.recipe} {self.who} {self.point} {self.rescue}"

    def told(self) -> dict[str, Any]:
        return {"case": self.key, **asdict(self)}


def passed(log: Path, who: str = "runner") -> Counter[str]:
    """How often each failpoint was passed by the process of that name, by its log."""
    rows = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return Counter(row[3] for row in rows if row[0] == who)


def points(seen: Counter[str], rescue: Rescue) -> Iterator[str]:
    """The failpoints to die at, `NAME:N`, in the order in which a run first passes them."""
    for name, count in seen.items():
        effect = name.rpartition(".")[0]
        if rescue in ("resume", "sentinel"):
            numbers = range(1, count + 1 if effect in EACH_PASSING else 2)
        elif effect == "ledger.write":
            numbers = range(4, count + 1, 2)  # from the create on
        else:
            numbers = range(1, 2 if effect in _LATE else 1)
        for number in numbers:
            yield f"{name}:{number}"


def recipe_of(provider: str, rescue: Rescue) -> str:
    """Training at RunPod, with checkpoints and a model to bring home; elsewhere one measurement: a third of it."""
    return "finetune" if provider == "runpod" and rescue in ("resume", "sentinel") else "evaluate"


def cases(provider: str, recipe: str, seen: Counter[str], rescues: tuple[Rescue, ...]) -> list[Case]:
    """All of one provider's and recipe's."""
    who = {"resume": "runner", "sentinel": "runner", "reaper": "both", "watchdog": "both"}
    return [
        Case(provider, recipe, who[rescue], point, rescue)
        for rescue in rescues if recipe_of(provider, rescue) == recipe for point in points(seen, rescue)
    ]  # fmt: skip
