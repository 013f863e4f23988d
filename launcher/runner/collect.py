"""Brings a step's artefacts home: in order of worth, hash-checked, atomically, before anything is released."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from launcher.errors import RecipeError
from launcher.failpoints import effect
from launcher.hosts.base import Host
from recipes.contract import COMPLETE, Artifact, sha256_of, write_json

#: Names in a run's folder that no machine may write: a stranger's ssh_config would be a stranger's command here.
OURS = frozenset({
    "keys", "specs", "bundle", "flac", "kept", "before", "after", "events.jsonl", "plan.json", "sent.json",
    "control.json", "question.json", "answer.json", "watched.lock", "gate.json", "decision.json", "receipt.json",
    "report.html", "leaderboard.md", "stop", "trim.json", "complete.json", "finetune.log", "before.log", "after.log",
    "labels.log",
})  # fmt: skip
Make = Callable[[Artifact, Path], bool]
TRIES = 3  # of one artefact, when what arrives does not hash as promised


@effect("artifact.collect")
def collect(host: Host, out: str, home: Path, make: Make = lambda artifact, target: False) -> list[Artifact]:
    """Fetch what COMPLETE.json lists into `home`; files that are there already and whole are not fetched again.

    Nor is one that `make` makes at its target, of those that came before it.

    Raises RecipeError when there is no whole COMPLETE.json or an artefact does not hash as it says.
    """
    listed = read_there(host, out)
    for artifact in listed:
        if not make(artifact, home / artifact.path):
            _fetch(host, out, artifact, home / artifact.path)
    write_json(home / COMPLETE, {"artifacts": [a.__dict__ for a in listed]})
    return listed


@effect("artifact.list")
def list_again(home: Path, artifacts: list[Artifact]) -> None:
    """Write COMPLETE.json anew once row files have the user's own paths: it must hold for what lies there now."""
    there = [(artifact.path, home / artifact.path) for artifact in artifacts]
    listed = [{"path": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in there]
    write_json(home / COMPLETE, {"artifacts": listed})


@effect("artifact.fetch")
def _fetch(host: Host, out: str, artifact: Artifact, target: Path) -> None:
    if target.is_file() and sha256_of(target) == artifact.sha256:
        return
    part = target.with_name(f".{target.name}.incoming")  # its own name only once it is known to be whole
    for _ in range(TRIES):
        try:
            host.get(f"{out}/{artifact.path}", part)
        except FileNotFoundError:
            raise RecipeError(f"COMPLETE.json lists {artifact.path}, which is not there") from None
        with effect("artifact.hash"):
            whole = sha256_of(part) == artifact.sha256
        if whole:
            with effect("artifact.place"):
                part.replace(target)
            return
        part.unlink()
    raise RecipeError(f"{artifact.path} came home damaged {TRIES} times")


def read_there(host: Host, out: str) -> list[Artifact]:
    """What a step's COMPLETE.json lists on its machine; a path that climbs out of the folder is refused."""
    try:
        listed = json.loads(host.read(f"{out}/{COMPLETE}", 0, 1 << 26))["artifacts"]
        found = [Artifact(str(a["path"]), int(a["bytes"]), str(a["sha256"])) for a in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError("the recipe said it was done but wrote no whole COMPLETE.json") from error
    for artifact in found:
        parts = Path(artifact.path).parts
        if not parts or Path(artifact.path).is_absolute() or ".." in parts or not artifact.path.isprintable():
            raise RecipeError(f"an artefact's path leads outside: {artifact.path!r}")
        if any(part.startswith((".", "-")) for part in parts) or parts[0].lower() in OURS or (
            parts[0].lower().startswith(("runner.", "sentinel."))
        ):
            raise RecipeError(f"an artefact has the name of a file that is the launcher's own: {artifact.path!r}")
    return found
