"""Scoring against jiwer alone: 100,000 rows of 20 words, all our metrics against jiwer's WER + CER.

    python bench/scoring.py [--rows N] [--repeat N]

Both score the same rows in one process, in turn; the ratio is what counts, not the seconds. Ours does more:
S/D/I, micro and macro WER and CER, KER in two modes with Wilson intervals and four groupings, SER, number
errors and the per-row table; no bootstrap. Rows carry punctuation, capitals, numbers with units and a term
so that no short cut for plain words flatters the result. Writes bench/results/scoring.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jiwer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.scoring import score_rows

RESULT = Path(__file__).parent / "results" / "scoring.json"
LIMIT = 3.0


def corpus(rows: int, seed: int = 1) -> tuple[list[dict[str, object]], dict[str, str]]:
    """`rows` references of 20 words and hypotheses with about one word in seven wrong."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(5000)]
    terms = [" ".join(draw.choices(words, k=draw.choice([1, 1, 2]))) for _ in range(300)]
    references: list[dict[str, object]] = []
    hypotheses: dict[str, str] = {}
    for i in range(rows):
        term = draw.choice(terms)
        said = [*draw.choices(words, k=19 - len(term.split())), *term.split(), draw.choice(words)]
        if i % 4 == 0:
            said[2:4] = [f"{draw.randint(1, 50) / 2}", "mg,"]
        heard = []
        for word in said:
            chance = draw.random()
            if chance < 0.04:
                continue
            heard.append(draw.choice(words) if chance < 0.12 else word)
            if chance > 0.98:
                heard.append(draw.choice(words))
        path = f"audio/{i}.wav"
        references.append(
            {"audio_filepath": path, "text": " ".join(said).capitalize() + ".", "duration": 8.0, "term": term,
             "entity_category": draw.choice(["drug", "procedure", "lab"]), "ipa_source": "override",
             "noise_level": draw.choice(["clean", "snr_5db"])}
        )  # fmt: skip
        hypotheses[path] = " ".join(heard)
    return references, hypotheses


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description="Scoring against jiwer alone.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    references, hypotheses = corpus(asked.rows)
    said = [str(row["text"]) for row in references]
    heard = [hypotheses[str(row["audio_filepath"])] for row in references]
    ours, theirs = [], []
    for _ in range(asked.repeat):
        start = time.perf_counter()
        jiwer.wer(said, heard)
        jiwer.cer(said, heard)
        middle = time.perf_counter()
        score_rows(references, hypotheses, bootstrap=0)
        ours.append(time.perf_counter() - middle)
        theirs.append(middle - start)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    result = {
        "rows": asked.rows, "words_per_row": 20, "ratio_to_jiwer": round(ratio, 2), "limit": LIMIT,
        "ours_s": [round(s, 2) for s in ours], "jiwer_wer_and_cer_s": [round(s, 2) for s in theirs],
        "python": platform.python_version(), "jiwer": version("jiwer"), "cpus": os.cpu_count(),
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if asked.rows >= 100_000:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if ratio <= LIMIT else 1)


if __name__ == "__main__":
    main()
