from __future__ import annotations

import json
import random
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.data import SplitResult, split_manifest
from launcher.errors import BadInputError
from recipes.manifest import read_manifest

CATEGORIES = ["drug", "procedure", "anatomy", None]


def manifest(folder: Path, rows: list[dict[str, Any]], contents: list[bytes] | None = None) -> Path:
    """A manifest whose recordings hold the given bytes (distinct ones by default): a split never decodes them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, row in enumerate(rows):
        name = row.get("audio_filepath", f"{index:05}.wav")
        if not (folder / name).exists():
            (folder / name).write_bytes(contents[index] if contents else f"sound {index}".encode())
        lines.append(json.dumps({"audio_filepath": name, "text": f"text {index}", "duration": 1.0, **row}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "manifest.jsonl"


def sides(made: SplitResult) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return read_manifest(made.train), read_manifest(made.validation)


def drawn(values: list[str | None], key: str) -> list[dict[str, Any]]:
    return [{key: value} if value is not None else {} for value in values]


@settings(max_examples=60, deadline=None)
@given(
    categories=st.lists(st.sampled_from(CATEGORIES), min_size=4, max_size=60),
    seed=st.integers(0, 5),
    fraction=st.sampled_from([0.05, 0.2, 0.29, 0.5, 0.9]),
)
def test_a_split_is_disjoint_complete_stratified_and_the_same_in_any_order(
    categories: list[str | None], seed: int, fraction: float
) -> None:
    rows = drawn(categories, "entity_category")
    have = Counter(categories)
    with tempfile.TemporaryDirectory() as folder:
        path = manifest(Path(folder), rows)
        if max(have.values()) < 2:
            with pytest.raises(BadInputError, match="single recording"):
                split_manifest(path, Path(folder) / "out")
            return
        made = split_manifest(path, Path(folder) / "out", val_fraction=fraction, seed=seed)
        train, validation = sides(made)
        both = [row["text"] for row in train + validation]
        assert sorted(both) == sorted(row["text"] for row in read_manifest(path))
        assert len(set(both)) == len(rows)
        held = Counter(row.get("entity_category") for row in validation)
        for category, n in have.items():
            # the seed document's own rule: max(1, int(fraction * n)), singletons to training
            assert held[category] == (0 if n < 2 else max(1, int(n * round(fraction * 100) // 100)))
        lines = path.read_text().splitlines()
        random.Random(seed).shuffle(lines)
        path.write_text("\n".join(lines))
        again = split_manifest(path, Path(folder) / "again", val_fraction=fraction, seed=seed)
        assert sorted(map(str, sides(again)[1])) == sorted(map(str, validation))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(CATEGORIES)), min_size=2, max_size=60),
    seed=st.integers(0, 5),
)
def test_groups_never_straddle_and_neither_side_is_empty(rows: list[tuple[int, str | None]], seed: int) -> None:
    data = [{"voice_id": f"v{voice}", **({"entity_category": c} if c else {})} for voice, c in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = manifest(Path(folder), data)
        if len({voice for voice, _ in rows}) < 2:
            with pytest.raises(BadInputError, match="same voice_id"):
                split_manifest(path, Path(folder) / "out", group_by="voice_id")
            return
        made = split_manifest(path, Path(folder) / "out", group_by="voice_id", seed=seed)
        train, validation = sides(made)
        assert train
        assert validation
        assert len(train) + len(validation) == len(rows)
        assert not {r["voice_id"] for r in train} & {r["voice_id"] for r in validation}


@settings(max_examples=60, deadline=None)
@given(copies=st.lists(st.integers(0, 12), min_size=3, max_size=40), grouped=st.booleans(), seed=st.integers(0, 3))
def test_the_same_audio_bytes_never_lie_on_both_sides(copies: list[int], grouped: bool, seed: int) -> None:
    contents = [b"x" * 9000 + bytes([copy]) for copy in copies]  # alike but for the last byte
    rows = [{"voice_id": f"v{i % 4}"} if grouped else {} for i in range(len(copies))]
    with tempfile.TemporaryDirectory() as folder:
        path = manifest(Path(folder), rows, contents)
        try:
            made = split_manifest(path, Path(folder) / "o", seed=seed, group_by="voice_id" if grouped else None)
        except BadInputError as error:
            assert "same recording" in str(error) or "tie all groups" in str(error)
            return
        train, validation = ({Path(r["audio_filepath"]).read_bytes() for r in side} for side in sides(made))
        assert validation
        assert not train & validation


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=8, max_size=30), seed=st.integers(0, 3))
def test_groups_are_chosen_to_come_near_the_fraction(sizes: list[int], seed: int) -> None:
    rows = [{"voice_id": f"v{v}"} for v, size in enumerate(sizes) for _ in range(size)]
    with tempfile.TemporaryDirectory() as folder:
        made = split_manifest(manifest(Path(folder), rows), Path(folder) / "o", group_by="voice_id", seed=seed)
        assert abs(made.rows("validation") - 0.2 * len(rows)) <= max(sizes) / 2 + 1


def test_groups_are_chosen_to_cover_every_category(tmp_path: Path) -> None:
    rows = [
        {"voice_id": f"v{voice}", "entity_category": category}
        for voice in range(20)
        for category in (["drug"] * 3 + (["procedure"] if voice in (4, 11, 17) else []))
    ]
    for seed in range(5):
        made = split_manifest(manifest(tmp_path, rows), tmp_path / "o", group_by="voice_id", seed=seed)
        assert made.counts["procedure"]["validation"] == 1
        assert 9 <= made.counts["drug"]["validation"] <= 15
        assert made.warnings == ("procedure has 3 rows: what the 1 held out say will be noisy",)


def test_another_seed_holds_out_other_rows(tmp_path: Path) -> None:
    path = manifest(tmp_path, [{}] * 50)
    held = [
        tuple(r["text"] for r in read_manifest(split_manifest(path, tmp_path / "o", seed=s).validation))
        for s in range(4)
    ]
    assert len(set(held)) == 4


def test_a_moved_data_set_is_split_as_before(tmp_path: Path) -> None:
    rows = drawn([CATEGORIES[i % 3] for i in range(40)], "entity_category")
    first = split_manifest(manifest(tmp_path / "here", rows), tmp_path / "o1")
    second = split_manifest(manifest(tmp_path / "there/deeper", rows), tmp_path / "o2")
    assert [r["text"] for r in sides(first)[1]] == [r["text"] for r in sides(second)[1]]


def test_a_single_row_of_a_category_goes_to_training_with_a_warning(tmp_path: Path) -> None:
    path = manifest(tmp_path, drawn(["drug"] * 10 + ["lab"], "entity_category"))
    made = split_manifest(path, tmp_path / "o")
    assert made.counts == {"drug": {"train": 8, "validation": 2}, "lab": {"train": 1, "validation": 0}}
    assert made.warnings == ("lab has a single row: it went to training, nothing will measure it",)


@pytest.mark.parametrize("have", [0, 1, 4])
def test_too_few_rows_of_a_priority_category_are_refused_with_the_way_out(tmp_path: Path, have: int) -> None:
    path = manifest(tmp_path, drawn(["drug"] * have + ["procedure"] * 9, "entity_category"))
    with pytest.raises(BadInputError, match=rf"{have} rows of drug.*Record at least {5 - have} more"):
        split_manifest(path, tmp_path / "o", priority=["procedure", "drug"])
    assert not (tmp_path / "o").exists()
    assert split_manifest(path, tmp_path / "o", priority=["procedure"]).counts["procedure"]["validation"] == 1


def test_a_misspelt_priority_names_the_category_it_may_mean(tmp_path: Path) -> None:
    path = manifest(tmp_path, drawn(["procedure"] * 9, "entity_category"))
    with pytest.raises(BadInputError, match="Did you mean procedure"):
        split_manifest(path, tmp_path / "o", priority=["procedures"])


def test_relative_paths_still_resolve_from_the_new_folder(tmp_path: Path) -> None:
    (tmp_path / "set/wavs").mkdir(parents=True)
    path = manifest(tmp_path / "set", [{"audio_filepath": f"wavs/{i}.wav"} for i in range(10)])
    made = split_manifest(path, tmp_path / "elsewhere/o")
    for row in [*read_manifest(made.train), *read_manifest(made.validation)]:
        assert Path(row["audio_filepath"]).is_file()
        assert Path(row["audio_filepath"]).is_absolute()


def test_copies_of_a_recording_are_kept_together_with_a_warning(tmp_path: Path) -> None:
    path = manifest(tmp_path, [{}] * 10, [b"same"] * 2 + [bytes([i]) * 4 for i in range(8)])
    made = split_manifest(path, tmp_path / "o")
    assert "1 recording occurs more than once, under other names (lines 1 and 2)" in made.warnings[0]


def test_rows_without_the_group_are_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = manifest(tmp_path, [{"voice_id": "a"}, {"voice_id": "b"}, {}])
    with pytest.raises(BadInputError, match=r"manifest\.jsonl:3  voice_id: 1 of 3 rows have no voice_id"):
        split_manifest(path, tmp_path / "o", group_by="voice_id")
    with pytest.raises(BadInputError, match="Did you mean voice_id"):
        split_manifest(manifest(tmp_path / "x", [{"voice_id": "a"}] * 2), tmp_path / "o", group_by="voice")


def test_groups_tied_together_by_one_recording_are_an_error(tmp_path: Path) -> None:
    path = manifest(tmp_path, [{"voice_id": "a"}, {"voice_id": "b"}], [b"same", b"same"])
    with pytest.raises(BadInputError, match="identical recordings under different voice_id"):
        split_manifest(path, tmp_path / "o", group_by="voice_id")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 2.0, float("nan"), float("inf")])
def test_a_fraction_that_is_none_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(BadInputError, match="not between 0 and 1"):
        split_manifest(manifest(tmp_path, [{}] * 4), tmp_path / "o", val_fraction=fraction)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 rows cannot be split"),
        ('{"audio_filepath": "a.wav", "text": "x"}\n', "one row cannot be split"),
        ("{\n", ":1: not JSON"),
        ("[]\n", ":1: expected one JSON object"),
        ('{"text": "x"}\n', ":1  audio_filepath: names no recording"),
        ('{"audio_filepath": "a.wav", "duration": null}\n', ":1  duration: is not a positive number"),
        (
            '{"audio_filepath": "gone.wav"}\n{"audio_filepath": "gone2.wav"}\n',
            "no such .*2 recordings are missing",
        ),
    ],
)
def test_a_broken_manifest_is_one_error_with_its_line_and_writes_nothing(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(BadInputError, match=message):
        split_manifest(tmp_path / "m.jsonl", tmp_path / "o")
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_split_never_overwrites_what_it_splits(tmp_path: Path) -> None:
    path = manifest(tmp_path, [{}] * 4).rename(tmp_path / "train.jsonl")
    with pytest.raises(BadInputError, match="would be overwritten"):
        split_manifest(path, tmp_path)


def test_thousands_of_groups_are_split_as_well_as_a_few(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [
        {"voice_id": f"v{rng.randrange(1500)}", "entity_category": rng.choice(["drug", "lab"])} for _ in range(4000)
    ]
    made = split_manifest(manifest(tmp_path, rows), tmp_path / "o", group_by="voice_id")
    by_voice = defaultdict(set)
    for side, part in zip(("train", "validation"), sides(made), strict=True):
        for row in part:
            by_voice[row["voice_id"]].add(side)
    assert all(len(found) == 1 for found in by_voice.values())
    for count in made.counts.values():
        assert count["validation"] / sum(count.values()) == pytest.approx(0.2, abs=0.01)
