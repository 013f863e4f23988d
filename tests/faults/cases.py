"""Which cases there are: every failpoint of one traced run, at each provider, for each way in which it is rescued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

#: runner: it lives, and does the rest itself; again: the user launches the same job again.
Rescue = Literal["resume", "sentinel", "reaper", "watchdog", "runner", "again"]
RESCUES: tuple[Rescue, ...] = ("resume", "sentinel", "reaper", "watchdog", "runner", "again")
LAYER = {"resume": "L0", "sentinel": "L1", "reaper": "L2", "watchdog": "L3", "runner": "L0", "again": "L0"}

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
    who: str  # runner, both (with its sentinel), sentinel, launcher (at the terminal); `+server`: SkyPilot's, too
    point: str  # NAME.before|after:N; of `sentinel, runner` both, in that order
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
    """All of one provider's and recipe's, but for those below."""
    who = {"resume": "runner", "sentinel": "runner", "reaper": "both", "watchdog": "both"}
    return [
        Case(provider, recipe, who[rescue], point, rescue)
        for rescue in rescues if rescue in who and recipe_of(provider, rescue) == recipe
        for point in points(seen, rescue)
    ]  # fmt: skip


#: When a sentinel dies that is not at work, and when its runner dies later: before anybody has looked whether it
#: lives (every two seconds), or long after. The second runner death is in each case the last there is.
_PAIRS = (
    ("sentinel.start.after", "provider.create.before"), ("sentinel.start.after", "provider.create.after"),
    ("provider.create.before", "provider.create.after"), ("provider.create.after", "provider.arm.after"),
    ("provider.create.after", "artifact.place.before"), ("provider.arm.after", "host.start.after"),
    ("provider.arm.after", "provider.destroy.before"), ("host.start.after", "provider.destroy.after"),
    ("artifact.place.after", "provider.destroy.before"),
)  # fmt: skip


def of_the_sentinel(provider: str) -> Iterator[Case]:
    """Deaths of a sentinel whose runner lives, for good or for a while."""
    for effect in _LATE:
        for side in ("before", "after"):
            yield Case(provider, "evaluate", "sentinel", f"{effect}.{side}:1", "runner")
    for first, then in _PAIRS:
        yield Case(provider, "evaluate", "sentinel, runner", f"{first}:1, {then}:1", "sentinel")


def of_the_launcher(provider: str, seen: Counter[str]) -> Iterator[Case]:
    """Deaths of `launcher run`, at everything that it does itself, and while its runner is at work."""
    for name, count in seen.items():
        for number in range(1, count + 1 if name.rpartition(".")[0] in EACH_PASSING else 2):
            yield Case(provider, "evaluate", "launcher", f"{name}:{number}", "again")
    for name in ("provider.create.before", "provider.create.after", "provider.arm.after", "host.start.after",
                 "artifact.place.before", "provider.destroy.before", "provider.destroy.after"):  # fmt: skip
        yield Case(provider, "evaluate", "launcher", f"runner@{name}:1", "again")


def through_skypilot() -> Iterator[Case]:
    """RunPod's machine, rented through SkyPilot; with the lease's API server dead, too, or working on."""
    for who, rescue, names in (
        ("runner", "resume", ("skypilot.serve.after", "skypilot.ask.before", "skypilot.ask.after",
                              "provider.create.after", "provider.arm.before", "provider.arm.after",
                              "provider.destroy.before", "provider.destroy.after")),
        ("runner+server", "resume", ("skypilot.ask.after", "provider.create.after", "provider.arm.before")),
        ("runner", "sentinel", ("skypilot.ask.after", "provider.create.after", "provider.arm.after")),
        ("runner+server", "sentinel", ("skypilot.ask.after", "provider.create.after")),
        ("both", "reaper", ("skypilot.ask.after", "provider.create.after", "provider.arm.after")),
        ("both+server", "reaper", ("skypilot.ask.after", "provider.create.after")),
        ("both", "watchdog", ("provider.create.after", "provider.arm.after")),
    ):  # fmt: skip
        for name in names:
            yield Case("skypilot", "evaluate", who, f"{name}:1", rescue)  # type: ignore[arg-type]
