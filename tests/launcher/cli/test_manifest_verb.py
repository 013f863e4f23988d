from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile


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


def test_check_answers_with_every_finding_and_ends_with_2(tmp_path: Path) -> None:
    lines = ['{"audio_filepath": "gone.wav", "text": "x", "duration": 1.0}'] * 30
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    ran = launcher("manifest", "check", tmp_path / "m.jsonl", "--json", "--max-duration", "0.5")
    answer = json.loads(ran.stdout)
    assert ran.returncode == 2
    assert (answer["rows"], answer["categories"], answer["warnings"]) == (30, {}, [])
    assert answer["dropped"] == {"rows": 30, "hours": round(30 / 3600, 6)}
    assert len(answer["errors"]) == 59  # 30 missing recordings, 29 rows that repeat the first
    assert answer["errors"][0] == {
        "line": 1,
        "field": "audio_filepath",
        "problem": "no such file: 'gone.wav'.",
        "fix": "Correct the path, or remove the row.",
    }


def test_check_prints_a_person_the_first_findings_and_the_sum(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "gone\\u001b[2J.wav", "text": "x"}\n' * 30)
    ran = launcher("manifest", "check", tmp_path / "m.jsonl", "--limit", "3")
    assert ran.returncode == 2
    assert ran.stdout.count("m.jsonl:") == 3
    assert "more errors. In all, by field: " in ran.stdout
    assert "\x1b[2J" not in ran.stdout


def test_check_of_a_manifest_with_only_warnings_ends_with_0(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.1), 16_000)
    row = {"audio_filepath": "a.wav", "text": "x", "duration": 1.0, "entity_category": "fruit"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    ran = launcher("manifest", "check", tmp_path / "m.jsonl")
    assert ran.returncode == 0
    assert "0 errors, 1 warning\n" in ran.stdout


def test_check_of_an_absent_file_is_one_line_and_exit_2(tmp_path: Path) -> None:
    ran = launcher("manifest", "check", tmp_path / "absent.jsonl")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)


def test_quiet_check_still_says_why_it_fails(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "gone.wav", "text": "x", "duration": 1}')
    ran = launcher("manifest", "check", tmp_path / "m.jsonl", "-q")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "1 at fault, the first in line 1" in ran.stderr
