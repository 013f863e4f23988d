"""Fetches recorded human speech with its words: the English prompts of Debian's Asterisk packages.

    python examples/phone-prompts/fetch.py --out demo/phone-prompts [--rows 200] [--format g722|wav]

Leaves OUT/recordings/ as a user would bring it: the recordings (16 kHz G.722, or 8 kHz WAV) and transcripts.csv;
and beside it what the tiny base needs: OUT/base/ and OUT/general/ (synthetic, ordinary phrases), OUT/corpus.txt.

Needs apt-get and dpkg-deb (Debian, Ubuntu), not root: packages are downloaded, never installed, and kept in a
cache. The speech is by Allison Smith, CC BY-SA 3.0 (Digium, Inc.). Exit code 3: not possible on this system.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "synthetic"))

import general
from voices import speakers

WORDS = "asterisk-core-sounds-en"
NOT_HERE = 3
VOICE = "allison"


class CannotFetchError(RuntimeError):
    """The packages cannot be had here; the message says why."""


def cache_dir() -> Path:
    """Where packages and their content are kept: $LAUNCHER_CACHE, else the user's own cache directory."""
    named = os.environ.get("LAUNCHER_CACHE")
    if named:
        return Path(named) / "phone-prompts"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "parakeet-launcher" / "phone-prompts"


def fetch(package: str, cache: Path) -> Path:
    """The unpacked content of a Debian package, from the cache where it is there; needs no root."""
    unpacked = cache / package
    if unpacked.is_dir():
        return unpacked
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise CannotFetchError(f"no {tool} here: these recordings come as Debian packages.")
    part = cache / f".{package}.{os.getpid()}"
    part.mkdir(parents=True)
    try:
        _download(package, part, cache / "lists")
        (found,) = part.glob("*.deb")
        _run(["dpkg-deb", "-x", str(found), str(part / "x")], part)
        (part / "x").replace(unpacked)
    finally:
        shutil.rmtree(part)
    return unpacked


def _download(package: str, folder: Path, lists: Path) -> None:
    """Into `folder`, by the system's package lists or, where they are missing, by lists of our own."""
    sandbox = ["-o", "APT::Sandbox::User="]  # as root, apt would drop to a user who cannot write here
    try:
        _run(["apt-get", *sandbox, "download", package], folder)
        return
    except CannotFetchError:
        (lists / "partial").mkdir(parents=True, exist_ok=True)
    own = [*sandbox, "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={lists.parent / 'apt'}"]
    (lists.parent / "apt" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    _run(["apt-get", *own, "update"], folder)
    _run(["apt-get", *own, "download", package], folder)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CannotFetchError(f"{' '.join(command)} failed: {last}")


def transcripts(content: Path) -> dict[str, str]:
    """Prompt name to the words said, lower case without punctuation; tones and other sounds left out."""
    (listing,) = (content / "usr/share/doc").rglob("core-sounds-en.txt.gz")
    said = {}
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8").splitlines():
        name, colon, text = line.partition(":")
        if line.startswith(";") or not colon or "[" in text or "(" in text or re.search(r"\d", text):
            continue  # [a beep], (said softly), and figures that could be read in several ways
        words = re.sub(r"[^a-z' ]+", " ", text.lower().replace("’", "'")).split()
        if words:
            said[name.strip()] = " ".join(words)
    return said


def lay_out(out: Path, suffix: str, rows: int | None, seed: int = 1) -> int:
    """Write OUT/recordings and the base's material; `rows` takes a random but fixed part. Returns the rows."""
    said = transcripts(fetch(WORDS, cache_dir()))
    (sounds,) = (fetch(f"{WORDS}-{suffix}", cache_dir()) / "usr/share/asterisk/sounds").iterdir()
    names = sorted(name for name in said if (sounds / f"{name}.{suffix}").is_file())
    if rows is not None:
        names = sorted(random.Random(seed).sample(names, min(rows, len(names))))
    folder = out / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "transcripts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "text", "voice_id"])
        for name in names:
            flat = f"{name.replace('/', '-')}.{suffix}"
            shutil.copyfile(sounds / f"{name}.{suffix}", folder / flat)
            writer.writerow([flat, said[name], VOICE])
    people = speakers(seed, speaker=10, teacher=14)
    general.record(out / "general", people["speaker"], seed)
    general.record(out / "base", people["teacher"], seed)
    # As a real base's tokenizer does, this one's knows pieces of words that the base was never taught to hear.
    (out / "corpus.txt").write_text("\n".join([*general.PHRASES, *said.values()]) + "\n", encoding="utf-8")
    return len(names)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="only so many prompts, the same ones each time")
    parser.add_argument("--format", choices=["g722", "wav"], default="g722")
    args = parser.parse_args(argv)
    try:
        rows = lay_out(args.out, args.format, args.rows)
    except CannotFetchError as error:
        print(f"phone-prompts: {error}", file=sys.stderr)
        return NOT_HERE
    print(json.dumps({"recordings": str(args.out / "recordings"), "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
