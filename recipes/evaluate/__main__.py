"""`python -m recipes.evaluate SPEC.json OUT/`: transcribes, scores, writes the row files.

OUT/score.json, per_sample.json, results.csv, offline_hyps.jsonl, and the same under OUT/general/ for the
general set, with one model load for both. With `against` the same for the other system under OUT/against/, and
OUT/comparison.json: {"against", "paired", "rows"}, as recipes/evaluate/comparing.py makes it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from recipes.contract import EventLog, RecipeExit, RecipeFailure, complete, write_json
from recipes.entry import main
from recipes.evaluate.audio import Clip, look
from recipes.evaluate.comparing import AGAINST, COMPARISON, comparison
from recipes.evaluate.spec import EvaluateSpec
from recipes.manifest import ManifestError, Row, read_rows, text_of
from recipes.scoring import Score, read_pair, score_rows, write_score


def evaluate(spec: EvaluateSpec, out: Path, events: EventLog) -> None:
    """The whole recipe: read, transcribe (or read hypotheses), score, COMPLETE."""
    try:
        # First: a fault in a file of transcripts must not cost an hour of transcribing.
        other = {AGAINST: read_pair(spec.manifest, spec.against, foreign=True)} if spec.against else {}
        scored = (_from_hypotheses(spec) if spec.hypotheses else _from_model(spec, out, events)) | other
        events.emit("phase", name="scoring")
        metrics: dict[str, Any] = {}
        files: list[str] = []
        scores: dict[str, Score] = {}
        for name, (rows, heard) in scored.items():
            score = score_rows(rows, heard, mode=spec.mode, bootstrap=spec.bootstrap, seed=spec.seed)
            scores[name] = score
            files += [f"{name}/{file}" if name else file for file in write_score(out / name, score)]
            found, prefix = score.as_json(), f"{name}_" if name else ""
            for warning in found["warnings"]:
                events.emit("warning", message=f"{name}: {warning}" if name else warning)
            leaves = found["micro"] | {"ker": found["macro"]["ker"]}
            metrics[f"{prefix}rows"] = found["rows"]
            metrics |= {f"{prefix}{key}": leaf["rate"] for key, leaf in leaves.items() if leaf is not None}
        if spec.against:
            found = comparison(scores[""].rows, scores[AGAINST].rows, spec.against, spec.seed)
            for warning in found["warnings"]:
                events.emit("warning", message=warning)
            write_json(out / COMPARISON, found)
            files.insert(0, COMPARISON)
            metrics["wer_difference"] = (found["paired"]["wer"] or {}).get("delta")
    except ManifestError as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, str(error)) from error
    complete(out, "done", metrics, files)


def _from_hypotheses(spec: EvaluateSpec) -> dict[str, tuple[list[Row], dict[str, str]]]:
    return {"": read_pair(spec.manifest, str(spec.hypotheses), foreign=True)}


def _rows(manifest: str) -> list[tuple[Row, Clip]]:
    """The rows and their audio, every one looked at now: a fault in the last must not cost an hour first."""
    rows: list[tuple[Row, Clip]] = []
    lines: dict[str, int] = {}
    for line, row in read_rows(manifest):
        path = text_of(row, "audio_filepath", manifest, line)
        text_of(row, "text", manifest, line)
        if row.get("term") is not None:
            text_of(row, "term", manifest, line)
        if path in lines:
            raise ManifestError(
                manifest, line, f"{path} is already on line {lines[path]}.", key="audio_filepath", value=path
            )
        lines[path] = line
        offset_s = row.get("offset") or 0.0
        part_s = row.get("duration") if offset_s else None
        try:
            rows.append((row, look(Path(manifest).parent / path, offset_s, part_s)))
        except RecipeFailure as failure:
            raise ManifestError(manifest, line, failure.message, key="audio_filepath", value=path) from failure
    if not rows:
        raise ManifestError(manifest, None, "no rows to score.")
    return rows


def _from_model(spec: EvaluateSpec, out: Path, events: EventLog) -> dict[str, tuple[list[Row], dict[str, str]]]:
    sets = {"": _rows(spec.manifest)}
    if spec.general_manifest is not None:
        sets["general"] = _rows(spec.general_manifest)
    events.emit("phase", name="loading")
    from recipes.evaluate.offline import Transcriber, open_model

    def warn(message: str) -> None:
        events.emit("warning", message=message)

    model = open_model(str(spec.model), spec.device, out / "nemo.log", spec.trust_base)
    transcriber = Transcriber(model, spec, warn)
    events.emit("phase", name="transcribing")
    everything = [clip for rows in sets.values() for _, clip in rows]
    began = time.monotonic()

    def progress(clips: int, seconds: float) -> None:
        events.emit("progress", step=clips, total=len(everything))
        passed_s = max(time.monotonic() - began, 1e-9)
        events.emit("throughput", audio_seconds_per_second=round(seconds / passed_s, 2))

    texts = transcriber.texts(everything, progress)  # both sets as one: the fewest batches
    found: dict[str, tuple[list[Row], dict[str, str]]] = {}
    for name, rows in sets.items():
        mine, texts = texts[: len(rows)], texts[len(rows) :]
        heard = {row["audio_filepath"]: text for (row, _), text in zip(rows, mine, strict=True)}
        found[name] = [row for row, _ in rows], heard
    return found


if __name__ == "__main__":
    sys.exit(main(EvaluateSpec, evaluate))
