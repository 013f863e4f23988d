"""What travels is what the manifests name, once each by content, and row files find their way home."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from launcher import bundle
from launcher.errors import BadInputError
from recipes.contract import sha256_of
from recipes.manifest import read_manifest, write_manifest


def clip(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 1600), 16000)
    return path


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "corpus"
    for seed, name in enumerate(("a.wav", "b c.wav", "-dash.wav", "unused.wav")):
        clip(folder / "audio" / name, seed)
    (folder / "audio" / "twin.wav").write_bytes((folder / "audio" / "a.wav").read_bytes())
    rows = [
        {"audio_filepath": f"audio/{name}", "text": name, "duration": 0.1}
        for name in ("a.wav", "b c.wav", "-dash.wav", "twin.wav")
    ]
    write_manifest(folder / "train.jsonl", rows[:2])
    write_manifest(folder / "validation.jsonl", [rows[0], *rows[2:]])
    return {name: folder / f"{name}.jsonl" for name in ("train", "validation")}


@pytest.mark.parametrize("link", [True, False])
def test_only_named_audio_travels_and_every_file_hashes_as_the_index_says(
    tmp_path: Path, manifests: dict[str, Path], link: bool
) -> None:
    root = tmp_path / "bundle"
    made = bundle.stage(root, manifests, None, link=link)
    index = json.loads((root / "bundle.json").read_text())
    audio = list((root / "data" / "audio").iterdir())
    assert len(audio) == 4  # a, b c, -dash, and the twin of a: hypotheses are matched by path, so both stay
    assert len({sha256_of(path) for path in audio}) == 3
    assert all(path.is_symlink() is link for path in audio)
    for name, facts in index["files"].items():
        assert sha256_of(root / name) == facts["sha256"], name
    assert made.bytes == sum(facts["bytes"] for facts in index["files"].values())
    assert (root / "code" / "recipes" / "contract.py").is_file()
    assert not list((root / "code").rglob("*.pyc"))


def test_rewritten_manifests_resolve_wherever_the_bundle_lies(tmp_path: Path, manifests: dict[str, Path]) -> None:
    bundle.stage(tmp_path / "bundle", manifests, None, link=False)
    moved = tmp_path / "elsewhere"
    (tmp_path / "bundle").rename(moved)
    for name in manifests:
        rows = read_manifest(moved / "data" / f"{name}.jsonl")
        assert {row["split"] for row in rows} == {name}
        assert all((moved / "data" / row["audio_filepath"]).is_file() for row in rows)
        assert [row["text"] for row in rows] == [row["text"] for row in read_manifest(manifests[name])]


def test_a_half_built_bundle_is_built_again_and_a_whole_one_is_used_again(
    tmp_path: Path, manifests: dict[str, Path]
) -> None:
    root = tmp_path / "bundle"
    (root / "data" / "audio").mkdir(parents=True)
    (root / "data" / "audio" / "half").write_bytes(b"torn")
    first = bundle.stage(root, manifests, None, link=True)
    assert not (root / "data" / "audio" / "half").exists()
    mark = root / "untouched"
    mark.touch()
    assert bundle.stage(root, manifests, None, link=True) == first
    assert mark.exists()


def test_missing_audio_is_named_before_anything_travels(tmp_path: Path, manifests: dict[str, Path]) -> None:
    (manifests["train"].parent / "audio" / "b c.wav").unlink()
    with pytest.raises(BadInputError, match=r"1 audio files are missing, the first is .*b c\.wav"):
        bundle.stage(tmp_path / "bundle", manifests, None, link=True)


def test_row_files_come_home_under_the_paths_the_user_wrote(tmp_path: Path, manifests: dict[str, Path]) -> None:
    made = bundle.stage(tmp_path / "bundle", manifests, None, link=True)
    there = [row["audio_filepath"] for row in read_manifest(tmp_path / "bundle" / "data" / "validation.jsonl")]
    out = tmp_path / "out"
    write_manifest(out / "offline_hyps.jsonl", [{"audio_filepath": path, "pred_text": "x"} for path in there])
    (out / "per_sample.json").write_text(json.dumps([{"audio_filepath": f"/box/data/{path}"} for path in there]))
    (out / "results.csv").write_text("audio_filepath,pred_text\n" + "".join(f"{path},x\n" for path in there))
    bundle.bring_home(out, "validation", made.homeward)
    mine = [row["audio_filepath"] for row in read_manifest(manifests["validation"])]
    assert [row["audio_filepath"] for row in read_manifest(out / "offline_hyps.jsonl")] == mine
    assert [row["audio_filepath"] for row in json.loads((out / "per_sample.json").read_text())] == mine
    assert [line.split(",")[0] for line in (out / "results.csv").read_text().splitlines()[1:]] == mine
