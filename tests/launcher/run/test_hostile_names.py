"""One rented run of private data in which every name is hostile: nothing of it is run, and nothing is left or open.

Names of job, base, folder and recordings hold commands, quotes, line ends, leading dashes and signs of all scripts;
the process's umask is 000. While the machine is deleted, its disk is looked at: the data is gone already.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from door import Asked, door
from fast import FastGround, write_base
from rented import BUDGETS, RentedGround

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "31")
YES = ("--confirm", "YES", "--max-cost", "3")
EVIL = "$(touch pwned)`touch pwned`';touch pwned;\"\n&& touch pwned | é中文 [bold]\u202ex -rf"
NAMED = EVIL.replace("\u202e", "")  # in a job file: one that turns a line is refused when it is read
RECORDINGS = (
    "-rf.wav", "--delete.wav", "a b.wav", "new\nline.wav", "qu'o\"te.wav", "$(touch pwned).wav", "`touch pwned`.wav",
    ";touch pwned;.wav", "été 中文.wav", "*?[a].wav", "back\\slash.wav", "x.wav\n$(touch pwned).wav",
)


def hostile_job(fast: FastGround) -> Path:
    """A job whose folder, base, recordings and manifest are named like that."""
    folder = fast.folder / f"-{EVIL.replace('/', '')}"
    folder.mkdir()
    held = sorted(fast.folder.glob("*.wav"))
    rows = []
    for number, name in enumerate(RECORDINGS):
        (folder / name).write_bytes(held[number % len(held)].read_bytes() + bytes(2 * number))
        rows.append({"audio_filepath": name, "duration": 0.2, "text": f"phrase {EVIL} number {number}"})
    manifest = folder / f"{NAMED}.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = folder / f"{NAMED}.nemo"
    write_base(base, {"trace": "/tmp/trace.jsonl"})
    job = folder / f"{EVIL}.yaml"
    held_job = {
        "recipe": "finetune", "spec": {"base": f"./{base.name}", "max_steps": 3},
        "data": {"manifest": manifest.name, "sensitivity": "phi"},
        "resources": {"providers": ["runpod"], "via": "direct"},
    }  # fmt: skip
    job.write_text(json.dumps(held_job), encoding="utf-8")  # JSON is YAML, and may escape what a terminal acts on
    text = BUDGETS.replace("approval:", "sensitivity: {phi: [own, secure]}, approval:")
    (folder / "budgets.yaml").write_text(text, encoding="utf-8")
    return job


class Disks:
    """What lies in the leases' folders on the rented machines, seen from outside of them."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.open: set[str] = set()  # files of the launcher's that others could read while it ran
        self._over = threading.Event()
        self.seen: set[str] = set()
        self.when_deleted: list[str] = []

    @staticmethod
    def now() -> list[str]:
        found, seen = [], {Path("/proc/self/ns/mnt").readlink()}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                space = (process / "ns" / "mnt").readlink()
                if space not in seen:
                    seen.add(space)
                    held = process / "root" / "root" / "parakeet"
                    found += [str(path) for path in held.rglob("*") if path.is_file()] if held.is_dir() else []
        return found

    def watch(self) -> None:
        while not self._over.wait(0.3):
            self.seen.update(self.now())
            with suppress(OSError):  # what is temporary goes while it is looked at
                self.open.update(open_to_others(self._home))

    def deleting(self, asked: Asked) -> None:
        if b"podTerminate" in asked.body:
            self.when_deleted += self.now()

    def end(self) -> None:
        self._over.set()


def test_hostile_names_run_nothing_private_data_is_wiped_and_every_file_is_private(ground: RentedGround) -> None:
    job = hostile_job(ground.fast)
    disks = Disks(ground.launcher.home)
    before = os.umask(0)
    watcher = threading.Thread(target=disks.watch)
    try:
        with door(ground.cloud) as held:

            held.instead = disks.deleting
            watcher.start()
            code, outcome, err = ground.run("run", job, *YES, **held.env)
            ground.run("reap", **held.env)
    finally:
        os.umask(before)
        disks.end()
        watcher.join()
    assert (code, outcome.get("state"), outcome.get("released")) == (0, "settled", True), (outcome, err)
    ground.assert_all_released(outcome["run"], outcome["usd"]["ceiling"])
    assert not [c for c in err if not c.isprintable() and c != "\n"], err
    for folder in (ground.fast.folder, ground.launcher.home, Path.cwd(), Path("/root")):
        assert not list(folder.rglob("pwned") if folder != Path("/root") else folder.glob("pwned"))
    rows = [json.loads(line) for line in (run_dir(ground, outcome) / "offline_hyps.jsonl").read_text().splitlines()]
    assert {Path(row["audio_filepath"]).name for row in rows} <= set(RECORDINGS)
    (lease,) = ground.ledger.leases(outcome["run"])  # other tests' machines stand beside ours
    assert len([path for path in disks.seen if lease.label in path]) > 20, "nobody ever saw the data there"
    assert not [path for path in disks.when_deleted if lease.label in path]
    kinds = [event["kind"] for event in events(ground, outcome) if event["kind"] in ("wiped", "lease")]
    assert kinds == ["wiped", "lease"]
    assert [event["done"] for event in events(ground, outcome) if event["kind"] == "wiped"] == [True]
    assert open_to_others(ground.launcher.home) == []
    assert disks.open == set()


def run_dir(ground: RentedGround, outcome: dict[str, Any]) -> Path:
    return ground.launcher.home / "runs" / str(outcome["run"])


def events(ground: RentedGround, outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir(ground, outcome) / "events.jsonl").read_text().splitlines()]


def open_to_others(home: Path) -> list[str]:
    """Everything under a home, itself included, that anybody but its owner may read, write or enter."""
    found = []
    for path in (home, *home.rglob("*")):
        with suppress(FileNotFoundError):  # the ledger's own log goes with whoever read it last
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & 0o077:
                found.append(f"{stat.filemode(mode)} {path}")
    return found
