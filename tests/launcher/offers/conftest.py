"""A home, a clock, and an environment in which no source finds a key or reaches anybody but loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from strangers import StillClock, Stranger, stranger

from launcher.home import Home

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No key anywhere, no brev on the path, and every address points at nobody."""
    empty = tmp_path / "user"
    empty.mkdir()
    for name in ("VAST_API_KEY", "RUNPOD_API_KEY", "XDG_CONFIG_HOME", "GPUHUNT_CATALOG_DIR", "SKY_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(empty / ".config"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("VAST_URL", "RUNPOD_API_BASE_URL", "BREV_PUBLIC_API_URL", "GPUHUNT_CATALOG_URL"):
        monkeypatch.setenv(name, NOBODY)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, NOBODY)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return monkeypatch


@pytest.fixture
def server() -> Iterator[Stranger]:
    with stranger() as held:
        yield held
