"""One simulated cloud for all grounds, and a launcher that rents there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from grounds import GROUNDS, Ground
from renting import PLANTED, Renting, hurried

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.ledger import Lease, LeaseState, Ledger
from launcher.providers import release as releasing
from launcher.providers.skypilot.lodging import Lodging
from tests.cloud import catalog, image
from tests.cloud.conftest import Standing, command, raise_cloud

WHOLE = os.environ.get("LAUNCHER_TEST_WHOLE") == "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
    for ground in GROUNDS:
        if ground.rows:
            arrange(ground, config, items)


def arrange(ground: Ground, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put a ground's rows in its order where the last of them is, and leave out those that it does not name."""
    rows = [item for item in items if ground in getattr(getattr(item, "callspec", None), "params", {}).values()]
    if not rows:
        return
    ranks = {item: rank_of(row_of(item, ground), ground.rows) for item in rows}
    last = items.index(rows[-1])
    kept = sorted((item for item in rows if WHOLE or ranks[item] < len(ground.rows)), key=ranks.__getitem__)
    left_out = [item for item in rows if item not in kept]
    items[:] = [*(i for i in items[:last] if i not in rows), *kept, *items[last + 1 :]]
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def row_of(item: pytest.Item, ground: Ground) -> str:
    """A row's name and what it is given: `some_test-one-two`."""
    name, _, given = item.name.removeprefix("test_").partition("[")
    return "-".join([name, *(part for part in given.removesuffix("]").split("-") if part not in ("", ground.name))])


def rank_of(row: str, rows: tuple[str, ...]) -> int:
    return next((n for n, named in enumerate(rows) if row == named or row.startswith(f"{named}-")), len(rows))


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """One cloud for a worker's tests; Vast's machines may end themselves here, so that the call for it is heard."""
    state = tmp_path_factory.mktemp("cloud") / "state"
    try:
        yield raise_cloud(state, "--seed", "11", "--set", "quick.boot_s=0.3", "--set", "vast.self_destroy=true")
    finally:
        assert command(state, "down").returncode == 0


@pytest.fixture(params=GROUNDS, ids=[ground.name for ground in GROUNDS])
def ground(request: pytest.FixtureRequest) -> Ground:
    held: Ground = request.param
    return held


@dataclass
class Base:
    """Where one worker rents through an engine: a cloud of its own, and machines that rows hand on to each other."""

    cloud: Standing
    home: Home
    ledger: Ledger
    idle: list[Lease] = field(default_factory=list)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Base]]:
    held: dict[str, Base] = {}
    yield held
    for base in held.values():
        for folder in (base.home.root / "skypilot").glob("[!.]*"):
            Lodging(base.home, "runpod", folder.name, SystemClock()).remove()
        assert command(base.cloud.state, "down").returncode == 0


def base_of(ground: Ground, bases: dict[str, Base], folders: pytest.TempPathFactory) -> Base:
    """The ground's; made when a row first needs it."""
    if ground.name not in bases:
        folder = folders.mktemp(ground.name)
        words = ("--seed", "12", "--providers", ground.cloud, "--layer", str(image.ensure()))
        cloud = raise_cloud(folder / "state", *words, "--set", "quick.boot_s=0.3")
        home = Home(folder / "home").ensure()
        catalog.place(home.root)
        bases[ground.name] = Base(cloud, home, Ledger.open(home, rng=random.Random()))
    return bases[ground.name]


@pytest.fixture
def renting(ground: Ground, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
            tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renting]:  # fmt: skip
    base = None
    if ground.engine:
        base = base_of(ground, request.getfixturevalue("bases"), tmp_path_factory)
    standing: Standing = base.cloud if base else request.getfixturevalue("standing")
    for name, value in {**standing.env, **PLANTED}.items():
        monkeypatch.setenv(name, f"{value}:{os.environ['PATH']}" if name == "PATH" else value)
    monkeypatch.setattr(releasing, "_ASK_AGAIN_S", 0.5)
    monkeypatch.setattr("launcher.providers.brev.command.PAUSE_S", 0.05)
    home = base.home if base else Home(tmp_path / "home").ensure()
    ledger = base.ledger if base else Ledger.open(home, rng=random.Random())
    provider = hurried(ground.make(home, SystemClock()), ground)
    held = Renting(standing, ground, home, provider, ledger, Home(tmp_path / "elsewhere"))
    if base is None:
        yield held
        standing.fault("end_all")
        return
    held.idle = base.idle
    yield held
    standing.fault("clear")
    hand_on(held, base)


def hand_on(renting: Renting, base: Base) -> None:
    """What a row left as it found it is for the next one; the rest is ended."""
    base.idle = renting.idle = []
    bills = renting.billing()
    for lease in base.ledger.leases():
        if lease.label not in bills:
            renting.provider.forget(lease.label)
        elif lease.state == LeaseState.CREATED:
            base.idle.append(lease)
        else:
            renting.release(lease)
