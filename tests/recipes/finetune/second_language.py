"""A second language for the tone corpus: words with letters that the first cannot spell, each two tones in a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from finetune_harness import RATE

WORDS = ["mañana", "canción", "señor", "buenos", "días", "хорошо", "спасибо", "дом"]


def second_language(manifest: Path, rows: int, seed: int) -> Path:
    """Write a manifest of `rows` utterances of two to four words; audio beside it, named relatively."""
    chance = np.random.default_rng(seed)
    folder = manifest.parent / f"{manifest.stem}_audio"
    folder.mkdir(parents=True)
    at = np.arange(RATE // 10) / RATE
    lines = []
    for number in range(rows):
        words = list(chance.choice(WORDS, size=int(chance.integers(2, 5))))
        parts = [np.zeros(800)]
        for word in words:
            place = WORDS.index(word)
            tones = (700 + 220 * place, 4200 - 170 * place)
            parts += [0.4 * np.hanning(len(at)) * np.sin(2 * np.pi * tone * at) for tone in tones] + [np.zeros(800)]
        samples = np.concatenate(parts)
        samples += chance.normal(scale=0.003, size=len(samples))
        soundfile.write(folder / f"{number:03d}.wav", samples, RATE)
        row = {"audio_filepath": f"{folder.name}/{number:03d}.wav", "text": " ".join(words)}
        lines.append(json.dumps(row | {"duration": round(len(samples) / RATE, 4)}, ensure_ascii=False))
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest
