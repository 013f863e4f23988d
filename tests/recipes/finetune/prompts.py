"""Recorded speech in two languages as manifests: short prompts of Debian's asterisk-core-sounds, at several speeds.

Fetched as examples/phone-prompts does it (apt-get download); the recordings are CC BY-SA 3.0 and never committed.
Runs in the recipe environment, which resamples:

    python prompts.py OUT en a-z\\' 90    ->  OUT/train.jsonl, OUT/validation.jsonl, OUT/texts.txt
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO / "examples" / "phone-prompts"))

from fetch import cache_dir, fetch  # noqa: E402  (its folder is on the path only now)

LONGEST_S, MOST_WORDS, HELD_OUT = 1.6, 4, 40
#: (speed, noise): three that are trained on; the last is held out.
VARIANTS = ((1.0, 0.002), (0.94, 0.004), (1.06, 0.004), (1.025, 0.003))


def said(package: Path, language: str, letters: str) -> dict[str, str]:
    """Prompt name to the words said, lower case; tones, and figures that could be read in several ways, left out."""
    (listing,) = package.rglob(f"core-sounds-{language}.txt.gz")
    found = {}
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8", errors="replace").splitlines():
        name, colon, text = line.partition(":")
        words = re.sub(rf"[^{letters} ]+", " ", text.lower()).split()
        if colon and words and not line.startswith(";") and not re.search(r"[\[(\d]", text):
            found[name.strip()] = " ".join(words)
    return found


def main(out: Path, language: str, letters: str, rows: int) -> None:
    """Write the manifests and their audio; the same ones each time."""
    package = f"asterisk-core-sounds-{language}"
    words = said(fetch(package, cache_dir()), language, letters)
    (sounds,) = (fetch(f"{package}-wav", cache_dir()) / "usr/share/asterisk/sounds").iterdir()
    short = []
    for name, text in sorted(words.items()):
        path = sounds / f"{name}.wav"
        if path.is_file() and len(text.split()) <= MOST_WORDS:
            samples, rate = soundfile.read(path)
            if rate == 8000 and 0.3 < len(samples) / rate < LONGEST_S:
                short.append((name, text, samples))
    chance = np.random.default_rng(7)
    picked = [short[number] for number in np.random.default_rng(7).permutation(len(short))[:rows]]
    (out / "wav").mkdir(parents=True)
    train, held_out = [], []
    for name, text, samples in picked:
        for number, (speed, noise) in enumerate(VARIANTS):
            heard = soxr.resample(samples, 8000 * speed, 16000)
            heard = heard + chance.normal(0, noise, len(heard))
            file = f"wav/{name.replace('/', '-')}-{number}.wav"
            soundfile.write(out / file, heard, 16000)
            row = {"audio_filepath": file, "text": text, "duration": round(len(heard) / 16000, 4)}
            (held_out if number == len(VARIANTS) - 1 else train).append(row)
    for part, found in (("train", train), ("validation", held_out[:HELD_OUT])):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
        (out / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    (out / "texts.txt").write_text("".join(f"{text}\n" for _, text, _ in picked), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
