from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def launcher(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launcher", *map(str, args)], capture_output=True, text=True, check=False
    )


def rows(folder: Path, categories: list[str]) -> Path:
    lines = []
    for index, category in enumerate(categories):
        (folder / f"{index}.wav").write_text(f"sound {index}")
        lines.append(json.dumps({
            "audio_filepath": f"{index}.wav", "text": "x", "duration": 1.0, "entity_category": category,
            "voice_id": f"v{index % 4}",
        }))  # fmt: skip
    (folder / "m.jsonl").write_text("\n".join(lines))
    return folder / "m.jsonl"


def test_split_answers_one_object_with_the_fields_of_the_contract(tmp_path: Path) -> None:
    ran = launcher("manifest", "split", rows(tmp_path, ["drug"] * 10 + ["lab"]), "--out", tmp_path / "o", "--json")
    answer = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert answer["train"] == str(tmp_path / "o/train.jsonl")
    assert answer["validation"] == str(tmp_path / "o/validation.jsonl")
    assert answer["counts"] == {"drug": {"train": 8, "validation": 2}, "lab": {"train": 1, "validation": 0}}
    assert answer["warnings"] == ["lab has a single row: it went to training, nothing will measure it"]


def test_split_shows_a_person_each_category_and_warns_on_stderr(tmp_path: Path) -> None:
    ran = launcher("manifest", "split", rows(tmp_path, ["drug"] * 10 + ["lab"]), "--out", tmp_path / "o")
    assert ["drug", "8", "2", "20%"] in [line.split() for line in ran.stdout.splitlines()]
    assert "warning: lab has a single row" in ran.stderr


def test_too_few_priority_rows_end_with_exit_2_and_nothing_written(tmp_path: Path) -> None:
    path = rows(tmp_path, ["drug"] * 3 + ["lab"] * 9)
    ran = launcher("manifest", "split", path, "--out", tmp_path / "o", "--priority", "drug,lab")
    assert ran.returncode == 2
    assert "3 rows of drug" in ran.stderr
    assert not (tmp_path / "o").exists()
