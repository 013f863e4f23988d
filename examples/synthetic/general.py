"""Ordinary phrases by invented speakers: what a tiny base learns, and what it must not forget afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import soundfile
from voices import RATE, Speaker, resample

PHRASES = (
    "turn on the kitchen lights",
    "play some quiet music",
    "what is the weather today",
    "set a timer for ten minutes",
    "call my brother tomorrow",
    "open the garage door",
    "send the letter to my boss",
    "book a room in the city",
    "stop the washing machine",
    "read my last message",
    "the patient has a mild fever",
    "give her two tablets every day",
    "the left arm is painful",
    "we need a blood sample now",
    "please check the heart rate",
    "he takes one dose at night",
    "start the treatment on monday",
    "the doctor will see you soon",
    "write a note for the nurse",
    "there is no sign of infection",
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen jugs",
    "every morning i drink coffee",
    "the train leaves at seven",
    "she bought a new jacket",
    "children play in the park",
    "we walked along the river",
    "it was a very cold winter",
    "my zebra likes yellow flowers",
    "the level of the water is high",
)


def record(folder: Path, people: Sequence[Speaker], seed: int) -> Path:
    """Every speaker says every phrase: 16 kHz mono FLAC in `folder` and `folder`/manifest.jsonl, returned."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows = []
    for speaker in people:
        vary = random.Random(f"{seed} {speaker.voice_id}")
        for number, text in enumerate(PHRASES):
            samples = resample(*speaker.say(text, vary), RATE)
            path = folder / "audio" / f"{speaker.voice_id}-{number:02d}.flac"
            soundfile.write(path, samples, RATE, subtype="PCM_16")
            row = {"audio_filepath": f"audio/{path.name}", "duration": round(len(samples) / RATE, 4)}
            rows.append(row | {"text": text, "voice_id": speaker.voice_id})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest
