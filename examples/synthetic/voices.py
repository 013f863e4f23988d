"""Invented speakers: each an espeak-ng accent and voice with its own pace and pitch, none in two sets."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from espeak import Samples, speak

RATE = 16000  # Hz
ACCENTS = ("gmw/en-US", "gmw/en-US", "gmw/en")  # American twice as often as British
VARIANT_NAMES = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Alicia Andy Annie Denis Diogo Henrique Hugo Lee Mario Michael "
    "Mike Nguyen Reed adam aunty belinda benjamin boris caleb david edward edward2 ian john kaukovalta linda "
    "marcelo max michel miguel norbert pablo quincy rob robert shelby steph travis victor zac"
)


@dataclass(frozen=True)
class Speaker:
    """One invented person."""

    voice_id: str
    voice: str  # espeak-ng's name
    words_per_minute: int
    pitch: int  # 0 to 99

    def say(self, text: str, vary: random.Random) -> tuple[Samples, int]:
        """`text` as this person says it this time: samples (n,) with a peak of about 0.5, and their rate."""
        pace = round(self.words_per_minute * vary.uniform(0.95, 1.05))
        pitch = min(99, max(0, self.pitch + vary.randint(-4, 4)))
        samples, rate = speak(text, self.voice, words_per_minute=pace, pitch=pitch)
        return samples * (vary.uniform(0.35, 0.6) / max(1e-6, float(np.abs(samples).max()))), rate


def speakers(seed: int, **sets: int) -> dict[str, list[Speaker]]:
    """So many speakers for each named set; no espeak-ng variant serves two sets."""
    pick = random.Random(f"speakers {seed}")
    variants = pick.sample(VARIANT_NAMES.split(), sum(sets.values()))
    people: dict[str, list[Speaker]] = {}
    for name, count in sets.items():
        people[name] = []
        for number in range(1, count + 1):
            voice = f"{pick.choice(ACCENTS)}+{variants.pop()}"
            speaker = Speaker(f"{name}{number:02d}", voice, pick.randint(145, 185), pick.randint(35, 65))
            people[name].append(speaker)
    return people


def resample(samples: Samples, rate: int, to: int) -> Samples:
    """Band-limited resampling of a whole clip, (n,) to (m,), in the frequency domain."""
    if rate == to:
        return samples
    count = round(len(samples) * to / rate)
    spectrum = np.fft.rfft(samples, rate * (-(-len(samples) // rate)))  # whole seconds: bins of 1/k Hz
    seconds = -(-len(samples) // rate)
    wanted = np.zeros(to * seconds // 2 + 1, dtype=spectrum.dtype)
    kept = min(len(wanted), len(spectrum))
    wanted[:kept] = spectrum[:kept]
    made = np.fft.irfft(wanted, to * seconds) * (to / rate)
    return made[:count].astype(np.float32)


def add_noise(samples: Samples, snr_db: float, noise: np.random.Generator) -> Samples:
    """The clip, (n,), under noise with the clip's own average spectrum, at this ratio of their powers."""
    spectrum = np.abs(np.fft.rfft(samples))
    smooth = np.convolve(spectrum, np.ones(101) / 101, mode="same")
    phases = np.exp(2j * np.pi * noise.random(len(smooth)))
    hiss = np.fft.irfft(smooth * phases, len(samples))
    wanted = float((samples**2).mean()) / 10 ** (snr_db / 10)
    hiss *= np.sqrt(wanted / max(1e-12, float((hiss**2).mean())))
    return (samples + hiss).astype(np.float32)
