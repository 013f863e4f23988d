"""Artefacts come home whole, in order, and from nowhere but the step's own folder."""

import json
import sys
from pathlib import Path

import pytest

from launcher.clock import SystemClock
from launcher.errors import RecipeError
from launcher.hosts import LocalHost
from launcher.runner.collect import collect
from recipes.contract import complete


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    out = tmp_path / "box" / "out"
    out.mkdir(parents=True)
    (out / "adapted_model.nemo").write_bytes(b"weights" * 1000)
    (out / "hyps.jsonl").write_text("{}\n")
    complete(out, "done", {}, ["adapted_model.nemo", "hyps.jsonl"])
    return LocalHost(tmp_path / "box", Path(sys.executable), SystemClock())


def test_everything_listed_comes_home_most_worth_first(host: LocalHost, tmp_path: Path) -> None:
    listed = collect(host, "out", tmp_path / "home")
    assert [artifact.path for artifact in listed] == ["adapted_model.nemo", "hyps.jsonl", "result.json"]
    assert (tmp_path / "home" / "adapted_model.nemo").read_bytes() == b"weights" * 1000


def test_a_damaged_artefact_is_never_taken_for_whole(host: LocalHost, tmp_path: Path) -> None:
    (host.root / "out" / "adapted_model.nemo").write_bytes(b"weights" * 999)
    with pytest.raises(RecipeError, match=r"adapted_model\.nemo came home damaged"):
        collect(host, "out", tmp_path / "home")
    assert not (tmp_path / "home" / "COMPLETE.json").exists()


def test_what_is_home_already_and_whole_is_not_fetched_again(host: LocalHost, tmp_path: Path) -> None:
    collect(host, "out", tmp_path / "home")
    (host.root / "out" / "hyps.jsonl").unlink()
    collect(host, "out", tmp_path / "home")


def test_no_complete_no_success(host: LocalHost, tmp_path: Path) -> None:
    (host.root / "out" / "COMPLETE.json").write_text('{"artifacts": [')
    with pytest.raises(RecipeError, match=r"no whole COMPLETE\.json"):
        collect(host, "out", tmp_path / "home")


@pytest.mark.parametrize("path", [
    "keys/aa-1/ssh_config", "KEYS/x", "events.jsonl", "runner.lock", "sentinel.json", "before/per_sample.json",
    ".hidden", "data/.hidden", "-rf", "specs/finetune.json", "bundle/base.nemo",
])  # fmt: skip
def test_a_machine_may_not_write_what_is_the_launchers_own(host: LocalHost, tmp_path: Path, path: str) -> None:
    """A stranger's `keys/…/ssh_config` would be a stranger's command here."""
    held = json.loads((host.root / "out" / "COMPLETE.json").read_text())
    held["artifacts"][0]["path"] = path
    (host.root / "out" / "COMPLETE.json").write_text(json.dumps(held))
    with pytest.raises(RecipeError, match="the launcher's own"):
        collect(host, "out", tmp_path / "home")
    assert not list((tmp_path / "home").glob("*"))


@pytest.mark.parametrize("path", ["../../escaped", "/etc/escaped", "", "a\nb", "a\x1b[2J"])
def test_a_path_that_leads_outside_is_refused(host: LocalHost, tmp_path: Path, path: str) -> None:
    held = json.loads((host.root / "out" / "COMPLETE.json").read_text())
    held["artifacts"][0]["path"] = path
    (host.root / "out" / "COMPLETE.json").write_text(json.dumps(held))
    with pytest.raises(RecipeError, match="leads outside"):
        collect(host, "out", tmp_path / "home")
