"""When a merged model is made here of its adapter, and that it is fetched wherever that does not come out right."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.clock import SystemClock
from launcher.errors import RecipeError
from launcher.runner import merging_here
from launcher.runner.mirror import Mirror
from recipes.contract import EVENTS, Artifact, read_events

MODEL = Artifact("adapted_model.nemo", 2_400_000_000, "0" * 64)  # 192 s on a line of 100 Mbps
OFFER = SimpleNamespace(inet_up_mbps=100.0, inet_down_mbps=900.0, trust="secure")


class Ground:
    """A run whose adapter has come home; `merge` stands for the recipe."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.base, self.asked, self.as_trained = folder / "run", folder / "base.nemo", [], True
        self.home.mkdir()
        self.base.write_bytes(b"base")
        (self.home / "adapter.safetensors").write_bytes(b"adapter")
        self.target, self.rented, self.within_s = self.home / MODEL.path, True, math.nan
        monkeypatch.setenv("LAUNCHER_DOWNLINK_MBPS", "100")
        monkeypatch.setattr(merging_here, "run_here", self.merge)
        monkeypatch.setattr(merging_here, "recipe_python", lambda: Path("python"))
        monkeypatch.setattr(merging_here, "is_rented", lambda host: self.rented)

    def merge(self, recipe: str, spec: dict[str, Any], out: Path, clock: object, on_event: Callable[..., None],
              within_s: float) -> dict[str, Any]:  # fmt: skip
        assert recipe == "merge"
        self.asked.append(spec)
        self.within_s = within_s
        out.mkdir()
        (out / "merged.nemo").write_bytes(b"merged")
        return {"metrics": {"as_trained": self.as_trained}}

    def makes(self, artifact: Artifact = MODEL, base: str = "") -> bool:
        plan = SimpleNamespace(recipe="finetune", spec={"base": base or str(self.base), "trust_base": "f" * 64})
        aboard = SimpleNamespace(candidate=SimpleNamespace(offer=OFFER), host=None)
        make = merging_here.maker(aboard, plan, Mirror(self.home), SystemClock())  # type: ignore[arg-type]
        return make(artifact, self.home / artifact.path)

    @property
    def notes(self) -> str:
        return "; ".join(event["message"] for _, event in read_events(self.home / EVENTS))


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground(tmp_path, monkeypatch)


def test_a_model_that_would_take_minutes_to_fetch_is_merged_here(ground: Ground) -> None:
    assert ground.makes()
    assert ground.target.read_bytes() == b"merged"
    adapter = str(ground.home / "adapter.safetensors")
    assert ground.asked == [{"base": str(ground.base), "adapter": adapter, "trust_base": "f" * 64}]
    assert ground.within_s == pytest.approx(96)  # half of what fetching takes: it may have to be fetched after all
    assert sorted(path.name for path in ground.home.iterdir()) == [
        "adapted_model.nemo", "adapter.safetensors", "events.jsonl"
    ]  # fmt: skip


def test_what_is_here_sooner_when_fetched_is_fetched(ground: Ground, tmp_path: Path) -> None:
    assert not ground.makes(Artifact(MODEL.path, 700_000_000, MODEL.sha256))  # 56 s
    assert not ground.makes(Artifact("other.nemo", MODEL.bytes, MODEL.sha256))
    assert not ground.makes(base="nvidia/parakeet-tdt-0.6b-v2")  # where its file is, nobody here knows
    assert not ground.makes(base=str(tmp_path / "moved.nemo"))
    ground.rented = False
    assert not ground.makes()
    ground.rented = True
    (ground.home / "adapter.safetensors").unlink()  # a method without one
    assert not ground.makes()
    assert ground.asked == []


@pytest.mark.parametrize("wrong", ["other weights", "recipe", "environment", "disk"])
def test_what_cannot_be_merged_here_is_fetched_and_said(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RecipeError("it was not done within 96 s")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    ground.as_trained = wrong != "other weights"
    if wrong != "other weights":
        name = "recipe_python" if wrong == "environment" else "run_here"
        monkeypatch.setattr(merging_here, name, full if wrong == "disk" else fails)
    assert not ground.makes()
    assert not ground.target.exists()
    assert sorted(path.name for path in ground.home.iterdir()) == ["adapter.safetensors", "events.jsonl"]
    told = {"other weights": "its weights differ from those that were trained", "disk": "No space left on device"}
    why = told.get(wrong, "it was not done within 96 s")
    assert f"adapted_model.nemo is fetched: it could not be merged here: {why}" in ground.notes
