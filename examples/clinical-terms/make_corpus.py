"""Makes the demo's corpus: invented clinicians dictating medical terms, as a folder a user would bring.

    python examples/clinical-terms/make_corpus.py --out DIR [--seed 1]

DIR/recordings/     600 recordings (WAV, FLAC, MP3; 16 to 44.1 kHz; mono and stereo) and transcripts.csv:
                    30 speakers, 20 terms, each speaker says each term once; some under noise
DIR/general/        manifest.jsonl of ordinary phrases by 10 other speakers: what must not be forgotten
DIR/base/           manifest.jsonl of ordinary phrases by 14 more speakers: what the tiny base learns
DIR/corpus.txt      text for the base's tokenizer: the phrases, and the terms, which the base never hears

The same seed gives the same files. No network, no root; espeak-ng comes with the package espeakng-loader.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "synthetic"))

import general
import numpy as np
import soundfile
from voices import Speaker, add_noise, resample, speakers

TERMS = {
    "drug": ("lisinopril", "metoprolol", "amoxicillin", "warfarin", "omeprazole"),
    "procedure": ("colonoscopy", "bronchoscopy", "intubation"),
    "condition": ("sarcoidosis", "lymphedema", "cellulitis"),
    "anatomy": ("trachea", "pericardium", "clavicle"),
    "lab": ("troponin", "creatinine", "ferritin"),
    "role": ("hospitalist", "phlebotomist", "pulmonologist"),
}
# Each category is said in two ways; a speaker uses the one or the other for a term.
SAID = {
    "drug": (("give her two tablets of {}", "handoff"), ("the patient takes {} every day", "dictation")),
    "procedure": (("book a {} for monday", "handoff"), ("the doctor will do the {} soon", "chart_note")),
    "condition": (("there is no sign of {}", "chart_note"), ("the patient has {} today", "history")),
    "anatomy": (("the left {} is painful", "history"), ("please check the {} now", "handoff")),
    "lab": (("we need the {} level now", "handoff"), ("the {} was very high", "chart_note")),
    "role": (("call the {} tomorrow", "handoff"), ("the {} will see you soon", "dictation")),
}
# espeak-ng's own rules pronounce everything here. The field stands for where a pronunciation came from in a
# corpus made with a voice that takes it from a dictionary, and lets the per-source table be seen at work.
IPA_SOURCES = ("merriam-webster", "magpie_g2p", "override")
NOISE = (("clean", None), ("clean", None), ("clean", None), ("snr_15db", 15.0), ("snr_5db", 5.0))
# What people's recorders give: extension, rate in Hz, channels.
FORMATS = (("wav", 16000, 1), ("flac", 44100, 2), ("mp3", 44100, 1), ("wav", 22050, 1), ("flac", 16000, 1))
COLUMNS = (
    "file",
    "text",
    "voice_id",
    "term",
    "entity_category",
    "ipa_source",
    "noise_level",
    "context_type",
)


def record_terms(folder: Path, people: Sequence[Speaker], seed: int) -> int:
    """Every speaker says every term once, in the recorder format of that speaker; returns the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    terms = [(category, term) for category, some in TERMS.items() for term in some]
    rows = []
    for who, speaker in enumerate(people):
        vary = random.Random(f"{seed} {speaker.voice_id}")
        hiss = np.random.default_rng([seed, who])
        suffix, rate, channels = FORMATS[who % len(FORMATS)]
        for number, (category, term) in enumerate(terms):
            carrier, context = SAID[category][(who + number) % 2]
            noise_level, snr_db = NOISE[(who + number) % len(NOISE)]
            text = carrier.format(term)
            samples, own_rate = speaker.say(text, vary)
            if snr_db is not None:
                samples = add_noise(samples, snr_db, hiss)
            samples = resample(samples, own_rate, rate)
            name = f"{speaker.voice_id}-{term}.{suffix}"
            sound = np.stack([samples] * channels, axis=1) if channels > 1 else samples
            soundfile.write(folder / name, np.clip(sound, -1, 1), rate)
            source = IPA_SOURCES[number % len(IPA_SOURCES)]
            values = (name, text, speaker.voice_id, term, category, source, noise_level, context)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    with (folder / "transcripts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def make(out: Path, seed: int = 1, voices: int = 30) -> dict[str, object]:
    """Write the whole corpus under `out`; returns what is where, as the command line prints it."""
    people = speakers(seed, clinician=voices, speaker=10, teacher=14)
    rows = record_terms(out / "recordings", people["clinician"], seed)
    heard = general.record(out / "general", people["speaker"], seed)
    taught = general.record(out / "base", people["teacher"], seed)
    corpus = out / "corpus.txt"
    # A real base's tokenizer knows pieces of many more words than its listeners were taught; so does this one's.
    words = [*general.PHRASES, *(term for some in TERMS.values() for term in some)]
    corpus.write_text("\n".join(words) + "\n", encoding="utf-8")
    made = {"recordings": out / "recordings", "general": heard, "base": taught, "corpus": corpus}
    return {name: str(path) for name, path in made.items()} | {"rows": rows}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--voices", type=int, default=30, help="clinicians; each says every term once")
    args = parser.parse_args(argv)
    print(json.dumps(make(args.out, args.seed, args.voices)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
