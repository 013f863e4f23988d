"""Recipe evaluate: one process transcribes and scores with any kind of model, or scores given hypotheses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from recipes.contract import RecipeExit, damaged, read_complete, read_events
from recipes.manifest import write_manifest

FILES = ["score.json", "per_sample.json", "results.csv", "offline_hyps.jsonl"]


def evaluate(python: Path, repo: Path, run: Path, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    run.mkdir(exist_ok=True)
    (run / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    command = [str(python), "-m", "recipes.evaluate", str(run / "spec.json"), str(run / "out")]
    return subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def corpus(folder: Path, name: str, rows: int) -> Path:
    """A manifest of noise with words beside it: an untrained model hears something else, which is enough."""
    noise = np.random.default_rng(len(name))
    (folder / "audio").mkdir(exist_ok=True)
    listed = []
    for number in range(rows):
        clip = noise.normal(0, 0.1, 8000 + 2400 * number).astype(np.float32)
        soundfile.write(folder / "audio" / f"{name}{number}.wav", clip, 16000)
        row = {"audio_filepath": f"audio/{name}{number}.wav", "duration": len(clip) / 16000}
        listed.append(row | {"text": "play some quiet music", "term": "music", "entity_category": "lab"})
    write_manifest(folder / f"{name}.jsonl", listed)
    return folder / f"{name}.jsonl"


@pytest.mark.nemo
@pytest.mark.parametrize("kind", ["tdt", "ctc"])
def test_any_kind_of_model_is_scored_on_both_sets_by_one_process(
    recipe_python: Path, repo: Path, tmp_path: Path, tiny_bases: Path, kind: str
) -> None:
    spec = {
        "model": str(tiny_bases / f"{kind}.nemo"),
        "manifest": str(corpus(tmp_path, "target", 5)),
        "general_manifest": str(corpus(tmp_path, "general", 3)),
        "batch_size": 2,
        "bootstrap": 20,
    }
    done = evaluate(recipe_python, repo, tmp_path / "run", spec)
    assert done.returncode == RecipeExit.DONE, done.stderr[-2000:]
    out = tmp_path / "run" / "out"
    listed = read_complete(out)
    assert listed is not None and not damaged(out, listed)
    assert [a.path for a in listed] == [*FILES, *(f"general/{name}" for name in FILES), "result.json"]
    score = read_json(out / "score.json")
    assert score["rows"] == 5 and score["micro"]["wer"]["total"] == 20 and score["macro"]["ker"]["total"] == 5
    assert read_json(out / "general" / "score.json")["rows"] == 3
    heard = [row["pred_text"] for row in read_json(out / "per_sample.json")]
    assert any(heard)  # it transcribed
    assert read_json(out / "result.json")["metrics"]["wer"] == score["micro"]["wer"]["rate"]
    events = [event for _, event in read_events(out / "events.jsonl")]
    assert [e["name"] for e in events if e["kind"] == "phase"] == ["loading", "transcribing", "scoring"]
    assert [(e["step"], e["total"]) for e in events if e["kind"] == "progress"][-1] == (8, 8)
    assert any(e["kind"] == "throughput" and e["audio_seconds_per_second"] > 0 for e in events)

    # Scoring the transcripts it wrote gives the score it wrote, in the launcher's environment, without torch.
    again = {key: spec[key] for key in ("manifest", "bootstrap")}
    again["hypotheses"] = str(out / "offline_hyps.jsonl")
    done = evaluate(Path(sys.executable), repo, tmp_path / "again", again)
    assert done.returncode == RecipeExit.DONE, done.stderr[-2000:]
    assert read_json(tmp_path / "again" / "out" / "score.json") == score


BACKING_OFF = """
import json, sys
import torch
from recipes.contract import RecipeFailure
from recipes.evaluate.audio import look
from recipes.evaluate.offline import Transcriber, open_model
from recipes.evaluate.spec import EvaluateSpec
from pathlib import Path

files = sys.argv[2:]
clips = [look(Path(path)) for path in files]
spec = EvaluateSpec(model="m", manifest="m", batch_size=8)
found = {}
for kind in ("tdt", "rnnt", "ctc", "hybrid"):
    model = open_model(f"{sys.argv[1]}/{kind}.nemo", "cpu")
    plain = Transcriber(model, spec, print).texts(clips)
    room, asked, said = 2, [], []

    def short_of_memory(paths, batch_size, real=model.transcribe, **settings):
        asked.append(batch_size)
        if batch_size > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(paths, batch_size=batch_size, **settings)

    stock = [one.text for one in model.transcribe(files, batch_size=1, verbose=False)]
    model.transcribe = short_of_memory
    careful = Transcriber(model, spec, said.append)
    same = careful.texts(clips) == plain
    batches = list(asked)
    room = 0
    try:
        careful.texts(clips)
        code, message = 0, ""
    except RecipeFailure as ending:
        code, message = int(ending.code), ending.message
    found[kind] = {
        "heard": any(plain), "same": same, "stock": stock == plain, "batches": batches, "warnings": len(said),
        "code": code, "message": message,
    }
print("FOUND" + json.dumps(found))
"""


@pytest.mark.nemo
def test_memory_running_out_halves_the_batch_and_the_texts_stay_those_of_stock_transcribe(
    recipe_python: Path, repo: Path, tmp_path: Path, tiny_bases: Path
) -> None:
    corpus(tmp_path, "clip", 6)
    clips = [str(tmp_path / "audio" / f"clip{number}.wav") for number in (3, 0, 5, 1, 4, 2)]
    command = [str(recipe_python), "-c", BACKING_OFF, str(tiny_bases), *clips]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.split("FOUND")[1])
    assert set(found) == {"tdt", "rnnt", "ctc", "hybrid"}
    for one in found.values():
        assert one["heard"] and one["same"] and one["stock"]
        assert one["batches"] == [8, 4, 2]
        assert one["warnings"] == 3  # 8 to 4, 4 to 2, and in the second round 2 to 1
        assert one["code"] == RecipeExit.OUT_OF_MEMORY and "max_duration_s" in one["message"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"audio_filepath": "audio/absent.wav", "text": "a", "duration": 1}', "rows.jsonl:2"),
        ('{"audio_filepath": "audio/rows0.wav", "text": "a", "duration": 1}', "already on line 1"),
        ('{"audio_filepath": "audio/rows1.wav", "duration": 1}', "rows.jsonl:2  text: missing"),
        ("{", "rows.jsonl:2: not JSON"),
    ],
)
def test_a_wrong_row_is_named_with_its_line_before_any_model_is_loaded(
    repo: Path, tmp_path: Path, line: str, named: str
) -> None:
    manifest = corpus(tmp_path, "rows", 2)
    first = manifest.read_text().splitlines()[0]
    manifest.write_text(f"{first}\n{line}\n", encoding="utf-8")
    # In the launcher's environment loading a model would fail with a traceback: there is no NeMo in it.
    spec = {"model": "any.nemo", "manifest": str(manifest)}
    done = evaluate(Path(sys.executable), repo, tmp_path / "run", spec)
    assert done.returncode == RecipeExit.BAD_INPUT
    assert named in done.stderr and "Traceback" not in done.stderr


def test_a_failing_rerun_leaves_no_complete_from_the_run_before(repo: Path, tmp_path: Path) -> None:
    manifest = corpus(tmp_path, "rows", 2)
    hypotheses = tmp_path / "hyps.jsonl"
    said = [{"audio_filepath": f"audio/rows{n}.wav", "pred_text": "play some music"} for n in range(2)]
    write_manifest(hypotheses, said)
    spec = {"hypotheses": str(hypotheses), "manifest": str(manifest)}
    assert evaluate(Path(sys.executable), repo, tmp_path / "run", spec).returncode == RecipeExit.DONE
    assert read_complete(tmp_path / "run" / "out") is not None
    write_manifest(hypotheses, said[:1])
    done = evaluate(Path(sys.executable), repo, tmp_path / "run", spec)
    assert done.returncode == RecipeExit.BAD_INPUT and "rows1.wav" in done.stderr
    assert read_complete(tmp_path / "run" / "out") is None
