"""`python -m recipes.pseudo_label SPEC.json OUT/`: a teacher's texts become a manifest to learn from.

OUT/labelled.jsonl  rows that are kept: NeMo's manifest (audio_filepath, text, duration), confidence, teacher, and
                    of a Whisper avg_logprob and no_speech_prob; fields of the manifest that was given stay, a text
                    it had is in text_before
OUT/filtered.jsonl  the others, with `reason` and `why` (recipes/pseudo_label/filtering.py)
OUT/report.json     how many and how long by reason, confidences, and what other bounds would keep; report.md says it

Killed and started again with the same OUT it goes on where it was (journal.jsonl). A file STOP, SIGTERM or SIGINT:
the batch is finished, what is labelled is written, and the exit code is 13.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.contract import EventLog, RecipeExit, RecipeFailure, complete, sha256_of
from recipes.entry import main
from recipes.finetune.stopping import StopRequest
from recipes.manifest import ManifestError
from recipes.pseudo_label.filtering import before_hearing
from recipes.pseudo_label.heard import Heard, joined
from recipes.pseudo_label.journal import Journal
from recipes.pseudo_label.report import write_report
from recipes.pseudo_label.sorting import sort_out
from recipes.pseudo_label.sources import Source, sources_of
from recipes.pseudo_label.spec import FILTERED, LABELLED, PseudoLabelSpec
from recipes.pseudo_label.teachers import Teacher, open_teacher

BATCHES_A_CALL = 4  # how often it is kept, and shown; a call of NeMo's has a cost of its own


def pseudo_label(spec: PseudoLabelSpec, out: Path, events: EventLog) -> None:
    """The whole recipe: look at every file, hear what is not heard yet, filter, write."""
    try:
        sources = sources_of(spec.manifest)
    except ManifestError as error:
        raise RecipeFailure(RecipeExit.BAD_INPUT, str(error)) from error
    stop = StopRequest(out)
    wanted = [source for source in sources if before_hearing(source, spec) is None]
    _tell_unread(sources, events)
    if all(source.clip is None for source in sources):
        raise RecipeFailure(
            RecipeExit.BAD_INPUT, f"{spec.manifest}: none of its audio can be read: {sources[0].fault}"
        )
    journal = Journal(out, _head(spec))
    if journal.of_another:
        events.emit("warning", message="what an earlier attempt heard is of another teacher: all is heard anew")
    left = [source for source in wanted if source.key not in journal.heard]
    if len(left) < len(wanted):
        events.emit("note", message=f"{len(wanted) - len(left)} of {len(wanted)} clips were heard before: kept")
    if left:
        _hear(spec, out, events, stop, journal, left, len(wanted))
    events.emit("phase", name="filtering")
    sorted_out = sort_out(sources, journal.heard, spec)
    sorted_out.write(out)
    metrics = write_report(out, sorted_out, spec)
    if not sorted_out.labelled:
        events.emit("warning", message=f"no row was kept: {FILTERED} has the reason of each")
    stopped = sorted_out.unheard > 0
    complete(out, "stopped" if stopped else "done", metrics, [LABELLED, FILTERED, "report.json", "report.md"])
    if stopped:
        words = f"stopped by {stop.reason}: {metrics['rows'] - sorted_out.unheard} of {metrics['rows']} rows are done"
        raise RecipeFailure(RecipeExit.STOPPED_AT_LIMIT, words)


def _hear(spec: PseudoLabelSpec, out: Path, events: EventLog, stop: StopRequest, journal: Journal,
          left: Sequence[Source], total: int) -> None:  # fmt: skip
    """Hear what is left, part by part, each kept before the next begins."""
    events.emit("phase", name="loading", model=spec.model)
    teacher = open_teacher(spec, out / "nemo.log", lambda message: events.emit("warning", message=message))
    stop.arm()
    events.emit("phase", name="transcribing", model=spec.model)
    began, seconds, done = time.monotonic(), 0.0, total - len(left)
    for part in parts(left, teacher.batch_size * BATCHES_A_CALL, spec.seed):
        if stop.reason is not None:
            return
        journal.add((source.key, heard) for source, heard in zip(part, _heard(teacher, part), strict=True))
        done += len(part)
        seconds += sum(source.clip.duration_s for source in part if source.clip)
        events.emit("progress", step=done, total=total)
        passed_s = max(time.monotonic() - began, 1e-9)
        events.emit("throughput", audio_seconds_per_second=round(seconds / passed_s, 2))


def parts(sources: Sequence[Source], size: int, seed: int) -> list[list[Source]]:
    """Clips of like length together, the longest first: what memory cannot hold shows at once. The rest is shuffled.

    So a run that is stopped has labelled short clips and long ones alike.
    """
    by_length = sorted(sources, key=lambda source: -(source.clip.duration_s if source.clip else 0.0))
    found = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    rest = found[1:]
    random.Random(seed).shuffle(rest)
    return found[:1] + rest


def _heard(teacher: Teacher, part: Sequence[Source]) -> list[Heard]:
    """What is heard in each clip; a long one in pieces cut at pauses, one whose audio is damaged not at all."""
    from recipes.evaluate import audio

    pieces: list[Any] = []
    cuts: list[int | str] = []  # of each clip how many pieces it is, or what is wrong with it
    for source in part:
        assert source.clip
        try:
            samples = audio.read(source.clip)
        except RecipeFailure as failure:  # a sound header is no sound file
            cuts.append(failure.message)
            continue
        if len(samples) < audio.SHORTEST_S * audio.RATE:
            cuts.append(f"{source.clip.path}: its audio ends after {len(samples) / audio.RATE:.2f} s")
            continue
        whole = source.clip.plain and source.clip.duration_s <= teacher.longest_s
        found: list[Any] = [source.clip.path] if whole else list(audio.windows(samples, teacher.longest_s))
        pieces += found
        cuts.append(len(found))
    heard = teacher.call(pieces) if pieces else []
    answers = []
    for cut in cuts:
        if isinstance(cut, str):
            answers.append(Heard("", 0, 0.0, fault=cut))
            continue
        answers.append(joined(heard[:cut]))
        heard = heard[cut:]
    return answers


def _head(spec: PseudoLabelSpec) -> dict[str, Any]:
    """What a text depends on: the teacher's own bytes where it is here, and the settings it hears by."""
    path = Path(spec.model)
    weights = {}
    if path.is_file():
        weights = {path.name: sha256_of(path)}
    elif path.is_dir():
        weights = {file.name: sha256_of(file) for file in sorted(path.iterdir()) if file.is_file()}
    settings = {name: getattr(spec, name) for name in ("language", "max_duration_s", "precision", "max_no_speech")}
    return {"model": None if weights else spec.model, "weights": weights, "kind": spec.kind, **settings}


def _tell_unread(sources: Sequence[Source], events: EventLog) -> None:
    count = sum(source.clip is None for source in sources)
    if count:
        message = f"{count} of {len(sources)} files cannot be read as audio: {FILTERED} says which, and why"
        events.emit("warning", message=message)


if __name__ == "__main__":
    sys.exit(main(PseudoLabelSpec, pseudo_label))
