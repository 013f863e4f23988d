"""A stand-in for the recipe environment's Python: real contract files, no NeMo, a whole run in about two seconds.

It takes what that Python is asked by the launcher: `supervise.py STEP_DIR -- ...`, which it hands to the real
one, and `-m recipes.evaluate|finetune|pseudo_label SPEC OUT`. The base "model" is a JSON file that says how it
behaves:

{"trace": FILE, "step_s": 0.01, "finetune": {"exit": 11, "say": "no memory"}, "before": {...}, "after": {...}}

and each step's own part may hold: exit, say, kill (signal number), complete (none | torn | damaged | missing),
deaf (SIGTERM is ignored and it never ends), at (the training step before which it misbehaves), sleep_s, leak (said in
events, in the log and as the reason of an exit; written backwards).

With {"held": [PLACE, FILE]} it stands still for as long as the file is there, so that what must happen in its midst
does on a slow machine too: PLACE is a number of training steps, or before, after.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import signal
import socket
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

TOLD = ("NODE_RANK", "NODE_IPS", "NUM_NODES", "NUM_GPUS_PER_NODE")  # by SkyPilot, to each of several nodes
PORT, JOIN_S = 29555, 120.0
WORDS = ("turn", "on", "the", "kitchen", "lights")


def main(argv: list[str]) -> int:
    if argv[:1] != ["-m"]:
        os.execv(sys.executable, [sys.executable, *argv])  # supervise.py, as any Python would run it
    spec, out = json.loads(Path(argv[2]).read_text(encoding="utf-8")), Path(argv[3])
    model = Path(spec["base"] if "base" in spec else spec["model"])
    nature = nature_of(model)
    step = "finetune" if "base" in spec else "after" if "trained" in nature else "before"
    step = "labels" if argv[1] == "recipes.pseudo_label" else step
    mine: dict[str, Any] = nature.get(step, {})
    out.mkdir(parents=True, exist_ok=True)
    with Trace(nature, step):
        if step == "labels":
            return Recipe(spec, out, nature, mine).label()
        return (
            Recipe(spec, out, nature, mine).finetune()
            if step == "finetune"
            else Recipe(spec, out, nature, mine).evaluate()
        )


def nature_of(model: Path) -> dict[str, Any]:
    """How a model behaves: a base is an archive with that in it; a trained one is that alone."""
    held = model.read_bytes()
    if tarfile.is_tarfile(io.BytesIO(held)):
        with tarfile.open(model) as archive:
            member = archive.extractfile("nature.json")
            assert member is not None
            held = member.read()
    nature: dict[str, Any] = json.loads(held)
    return nature


def wait_for(told: dict[str, str]) -> list[socket.socket]:
    """As the first of several nodes: hold training until each of the others has called from an address of theirs."""
    others = told["NODE_IPS"].split()[1:]
    with socket.create_server(("", PORT)) as door:
        door.settimeout(JOIN_S)
        lines = [door.accept() for _ in others]
    assert sorted(address for _, (address, _) in lines) == sorted(others)
    assert sorted(int(line.recv(64)) for line, _ in lines) == list(range(1, int(told["NUM_NODES"])))
    return [line for line, _ in lines]


def join(told: dict[str, str]) -> int:
    """As another node: train with the first one until it is done; writes nothing."""
    ends = time.monotonic() + JOIN_S
    while True:
        try:
            with socket.create_connection((told["NODE_IPS"].split()[0], PORT), 5) as line:
                line.settimeout(JOIN_S)
                line.sendall(told["NODE_RANK"].encode())
                return 0 if line.recv(64) == b"done" else 1
        except ConnectionRefusedError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


class Trace:
    """One line for each start of a recipe, outside the box; says when two of them shared an OUT."""

    def __init__(self, nature: dict[str, Any], step: str) -> None:
        self._file, self._step = Path(nature["trace"]), step

    def __enter__(self) -> None:
        lock = os.open(f"{self._file}.{self._step}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            word = "start"
        except BlockingIOError:
            word = "double"
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self._step, "word": word, "pid": os.getpid()}) + "\n")

    def __exit__(self, *_: object) -> None:
        """The lock goes with the process."""


class Recipe:
    def __init__(self, spec: dict[str, Any], out: Path, nature: dict[str, Any], mine: dict[str, Any]) -> None:
        from recipes.contract import EventLog

        self.spec, self.out, self.nature, self.mine = spec, out, nature, mine
        self.events = EventLog(out)
        self.stopped = False
        (out / "COMPLETE.json").unlink(missing_ok=True)
        self.events.emit("phase", name="loading")

    def misbehave(self) -> None:
        if self.mine.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(0.05)
        if "kill" in self.mine:
            os.kill(os.getpid(), self.mine["kill"])
        if "leak" in self.mine:  # written backwards, so that the base itself does not hold it
            said = self.mine["leak"][::-1]
            for kind in ("note", "warning"):
                self.events.emit(kind, message=f"{kind} {said}", **{said: said})
            sys.stderr.write(f"its settings are {said}\n")
        if "exit" in self.mine:
            words = self.mine.get("say", "it went wrong") + self.mine.get("leak", "")[::-1]
            sys.stderr.write(f"\x1b[31mfinetune: {words}\x1b[0m\n")
            raise SystemExit(self.mine["exit"])

    def stand_still(self, place: int | str) -> None:
        at, held = self.nature.get("held", (None, ""))
        while place == at and Path(held).exists() and not self.stopped and not (self.out / "STOP").exists():
            time.sleep(0.02)

    def finetune(self) -> int:
        signal.signal(signal.SIGTERM, self._stop)
        total = int(self.spec["max_steps"])
        told = {name: os.environ.get(f"SKYPILOT_{name}", "") for name in TOLD}
        if told["NODE_RANK"] not in ("", "0"):
            return join(told)
        joined = wait_for(told) if told["NODE_RANK"] else None
        from recipes.contract import write_json
        from recipes.finetune.checkpoints import Checkpoints

        newest, _ = (checkpoints := Checkpoints(self.out / "checkpoints", 50)).newest("step")
        done = newest.step if newest else 0
        self.events.emit("note", message=f"begins after step {done}")
        planned, begun = total, done
        while done < total and not self.stopped and not (self.out / "STOP").exists():
            if done >= self.mine.get("at", 0):
                self.misbehave()
            time.sleep(self.nature.get("step_s", 0.01))
            self.stand_still(done)
            done += 1
            made = checkpoints.save("step", done, lambda path: path.write_bytes(b"weights"), {})
            self.events.emit("checkpoint", name=made.folder.name, bytes=7)
            with contextlib.suppress(FileNotFoundError):
                total = max(done, min(total, json.loads((self.out / "TRIM.json").read_text())["max_steps"]))
            said = self.nature.get("says_s", self.nature.get("step_s", 0.01))
            pace = {"seconds_per_step": said, "averaged_steps": min(20, done - begun)}
            learnt = {"loss": 1.0 / done, "metrics": {"val_wer": 1.0 / done}}
            self.events.emit("progress", step=done, total=total, **learnt, **pace)
            if "audio_s_per_s" in self.nature:
                self.events.emit("throughput", audio_seconds_per_second=self.nature["audio_s_per_s"])
        if done >= total:
            self.misbehave()
        for line in joined or ():
            line.sendall(b"done")
            line.close()
        write_json(self.out / "adapted_model.nemo", {**self.nature, "trained": done, "told": told})
        rows = self._rows(self.spec["validation_manifest"])
        hypotheses = self.out / "offline_hyps.jsonl"
        hypotheses.write_text(
            "".join(json.dumps({"audio_filepath": r["audio_filepath"], "pred_text": r["text"]}) + "\n" for r in rows)
        )
        status = "done" if done >= planned else "stopped_at_limit"
        self._complete(status, {"steps": done}, ["adapted_model.nemo", "offline_hyps.jsonl"])
        return 0 if status == "done" else 13

    def evaluate(self) -> int:
        time.sleep(self.mine.get("sleep_s", self.nature.get("evaluate_s", 0.0)))
        self.stand_still("after" if "trained" in self.nature else "before")
        self.misbehave()
        from recipes.scoring import score_rows, write_score

        files = []
        for name, key in (("", "manifest"), ("general", "general_manifest")):
            if self.spec.get(key):
                rows = self._rows(self.spec[key])
                # The base hears nothing of the last two words; the tuned model hears all but the last.
                heard = {r["audio_filepath"]: " ".join(r["text"].split()[: -1 if "trained" in self.nature else -2])
                         for r in rows}  # fmt: skip
                score = score_rows(rows, heard, bootstrap=0)
                files += [f"{name}/{f}" if name else f for f in write_score(self.out / name, score)]
        self._complete("done", {}, files)
        return 0

    def label(self) -> int:
        signal.signal(signal.SIGTERM, self._stop)
        from recipes.manifest import write_manifest
        from recipes.pseudo_label.heard import Heard
        from recipes.pseudo_label.journal import Journal

        rows, labels = self._rows(self.spec["manifest"]), []
        journal = Journal(self.out, {"model": "fast"})
        self.events.emit("note", message=f"{len(journal.heard)} of {len(rows)} clips were heard before: kept")
        for row in rows:
            if self.stopped:
                break
            if row["audio_filepath"] not in journal.heard:
                time.sleep(self.nature.get("step_s", 0.01))
                journal.add([(row["audio_filepath"], Heard("turn on the lights", 4, 0.9))])
            heard = journal.heard[row["audio_filepath"]]
            labels.append({**row, "text": heard.text, "confidence": 0.9, "teacher": self.spec["teacher_name"]})
            self.events.emit("progress", step=len(labels), total=len(rows))
        write_manifest(self.out / "labelled.jsonl", labels[1:])
        filtered = [{**row, "reason": "empty", "why": f"{row['audio_filepath']}: silence"} for row in labels[:1]]
        write_manifest(self.out / "filtered.jsonl", filtered)
        status = "stopped" if self.stopped else "done"
        kept = {"rows": len(rows), "kept": len(labels) - 1, "hours": 0.01, "hours_kept": 0.01, "filtered_empty": 1}
        self._complete(status, kept, ["labelled.jsonl", "filtered.jsonl"])
        return 13 if self.stopped else 0

    def _complete(self, status: str, metrics: dict[str, Any], files: list[str]) -> None:
        from recipes.contract import COMPLETE, complete

        complete(self.out, status, metrics, files)
        how, first = self.mine.get("complete"), self.out / files[0]
        if how == "none":
            (self.out / COMPLETE).unlink()
        elif how == "torn":
            (self.out / COMPLETE).write_text((self.out / COMPLETE).read_text()[:40])
        elif how == "damaged":
            first.write_bytes(first.read_bytes()[:-7])
        elif how == "missing":
            first.unlink()

    def _stop(self, *_: object) -> None:
        self.stopped = True

    @staticmethod
    def _rows(manifest: str) -> list[dict[str, Any]]:
        from recipes.manifest import read_manifest

        return read_manifest(manifest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
