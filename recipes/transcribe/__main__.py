"""`python -m recipes.transcribe SPEC.json OUT/`: writes OUT/transcripts.json, {"rows": [...]}.

A row holds audio_filepath, duration (s), pred_text; with `against` also against_text and diff, a list of
[kind, words of against, words of model], kind being equal, replace, delete (only against hears it) or insert.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

from recipes.contract import EventLog, complete, write_json
from recipes.entry import main
from recipes.transcribe.spec import TranscribeSpec

ROWS = "transcripts.json"


def difference(against: str, text: str) -> list[list[str]]:
    """Word by word, how `text` differs from `against`: [[kind, words of against, words of text], ...]."""
    old, new = against.split(), text.split()
    steps = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [[kind, " ".join(old[a:b]), " ".join(new[c:d])] for kind, a, b, c, d in steps]


def transcribe(spec: TranscribeSpec, out: Path, events: EventLog) -> None:
    """The whole recipe: look at every file first, then one model after the other."""
    from recipes.evaluate.audio import look

    clips = [look(Path(name)) for name in spec.audio]
    from recipes.evaluate.offline import Transcriber, open_model

    names = [spec.model] if spec.against is None else [spec.model, spec.against]
    heard: list[list[str]] = []
    for number, name in enumerate(names):
        events.emit("phase", name="loading", model=name)
        model = open_model(name, spec.device, out / "nemo.log")
        transcriber = Transcriber(model, spec, warn=lambda message: events.emit("warning", message=message))
        events.emit("phase", name="transcribing", model=name)

        def progress(done: int, _seconds: float, before: int = number * len(clips)) -> None:
            events.emit("progress", step=before + done, total=len(names) * len(clips))

        heard.append(transcriber.texts(clips, progress))
        del model, transcriber  # two large models need not fit at once
    rows: list[dict[str, Any]] = []
    for number, (name, clip) in enumerate(zip(spec.audio, clips, strict=True)):
        row = {"audio_filepath": name, "duration": round(clip.duration_s, 3), "pred_text": heard[0][number]}
        if spec.against is not None:
            other = heard[1][number]
            row |= {"against_text": other, "diff": difference(other, heard[0][number])}
        rows.append(row)
    write_json(out / ROWS, {"rows": rows})
    complete(out, "done", {"rows": len(rows)}, [ROWS])


if __name__ == "__main__":
    sys.exit(main(TranscribeSpec, transcribe))
