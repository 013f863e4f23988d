"""What a run decides by arithmetic alone: settings, order of rows, replay, stopping, checkpoints, refusals."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from finetune_harness import corpus
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recipes.contract import RecipeExit
from recipes.finetune.__main__ import main
from recipes.finetune.checkpoints import Checkpoints
from recipes.finetune.data import load, load_sets, publish, stats
from recipes.finetune.plan import make_plan, plan_warnings
from recipes.finetune.rules import Stops, Validation, collapsed_share, wer
from recipes.finetune.spec import DATA_FIELDS, FinetuneSpec
from recipes.finetune.stopping import TRIM_FILE, TrimRequest

REQUIRED = {"train_manifest": "train.jsonl", "validation_manifest": "validation.jsonl"}


def spec(**settings: object) -> FinetuneSpec:
    return FinetuneSpec.model_validate(REQUIRED | settings)


def plan_of(given_spec: FinetuneSpec, rows: int = 100, hours: float = 1.0, batch: int = 8):  # type: ignore[no-untyped-def]
    size = batch if given_spec.batch_size == "auto" else given_spec.batch_size
    accumulate = given_spec.accumulate_grad_batches
    return make_plan(
        given_spec, epoch_rows=rows, train_hours=hours, batch_size=size, accumulate=accumulate, precision="32"
    )


# --- settings ---------------------------------------------------------------------------------------------


def test_every_setting_is_described_and_the_data_fields_are_settings() -> None:
    for name, field in FinetuneSpec.model_fields.items():
        assert field.description, name
    assert set(DATA_FIELDS) <= FinetuneSpec.model_fields.keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_step": 3},
        {"max_steps": 0},
        {"max_steps": "soon"},
        {"max_steps": 2.5},
        {"max_epochs": 31},
        {"learning_rate": -1e-4},
        {"learning_rate": float("nan")},
        {"precision": "fp8"},
        {"replay_fraction": 1.0},
        {"min_duration_s": 30.0},
        {"method": "lore"},
        {"method": "qlora"},
        {"lora_rank": 0},
        {"lora_dropout": 1.0},
        {"lora_targets": "everything"},
        {"base": ""},
        {"num_workers": -1},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec(**wrong)


def test_auto_becomes_the_recommended_numbers() -> None:
    little, much = plan_of(spec(), hours=19.9), plan_of(spec(), hours=20.1)
    assert (little.learning_rate, much.learning_rate) == (3e-5, 1e-4)
    assert little.total_steps == 125  # 10 epochs of 100 rows, 8 a step
    assert little.validation_interval_steps == 13 == little.checkpoint_interval_steps
    assert little.warmup_steps == 5
    assert plan_of(spec(max_steps=1000, batch_size=4)).warmup_steps == 20
    assert plan_of(spec(batch_size=4, accumulate_grad_batches=2)).rows_per_step == 8
    assert "40 epochs" in plan_warnings(spec(max_steps=500), plan_of(spec(max_steps=500)))[0]


@given(st.integers(1, 600), st.integers(1, 6))
def test_backing_off_ends_at_one_row_and_never_changes_the_rows_a_step(batch: int, accumulate: int) -> None:
    plan = plan_of(spec(batch_size=batch, accumulate_grad_batches=accumulate))
    rows, sizes = plan.rows_per_step, [plan.batch_size]
    while (smaller := plan.smaller()) is not None:
        plan = smaller
        assert plan.rows_per_step == rows and plan.batch_size <= sizes[-1] / 2
        sizes.append(plan.batch_size)
    assert plan.batch_size == 1


# --- stopping ---------------------------------------------------------------------------------------------


def history(*wers: float, losses: list[float] | None = None, collapsed: list[float] | None = None) -> Stops:
    stops = Stops(patience=3)
    for number, value in enumerate(wers):
        loss = None if number == 0 else (losses or [1.0] * 99)[number - 1]
        stops.add(Validation(number * 10, value, loss, (collapsed or [0.0] * 99)[number]))
    return stops


def test_training_stops_after_three_validations_without_a_better_wer() -> None:
    assert history(0.5, 0.4, 0.4, 0.41).stop_reason() is None
    stops = history(0.5, 0.4, 0.4, 0.41, 0.4)
    assert "not improved for 3" in str(stops.stop_reason())
    assert stops.best is not None and stops.best.step == 10


def test_a_model_that_does_not_speak_yet_is_given_time() -> None:
    assert history(1.0, 1.0, 1.0, 1.0, 1.0, 1.0).stop_reason() is None


def test_overfitting_stops_early_and_only_when_the_loss_really_falls() -> None:
    assert "overfitting" in str(history(0.5, 0.3, 0.4, 0.5, losses=[3.0, 2.0, 1.0]).stop_reason())
    assert history(0.5, 0.3, 0.4, 0.5, losses=[3.0, 2.0, 2.5]).stop_reason() is None


def test_collapse_is_told_from_silence_while_learning() -> None:
    assert "100%" in str(history(0.2, 1.0, 1.0, collapsed=[0.0, 1.0, 1.0]).collapse())
    assert history(0.2, 1.0, 0.3, collapsed=[0.0, 1.0, 0.0]).collapse() is None
    assert history(1.0, 1.0, 1.0, collapsed=[0.0, 1.0, 1.0]).collapse() is None  # it knew nothing before either


def test_blank_and_unknown_hypotheses_count_as_collapsed() -> None:
    assert collapsed_share(["", " ", "⁇ ⁇", "<unk> <unk> a", "good text"]) == 0.8
    assert collapsed_share([]) == 0.0


def test_a_validation_made_for_a_stop_is_forgotten_on_resume() -> None:
    stops = history(0.5, 0.4)
    stops.add(Validation(13, 0.39, 1.0, 0.0))
    resumed = Stops(patience=3)
    resumed.load(json.loads(json.dumps(stops.as_json())), every=10)
    assert [v.step for v in resumed.history] == [0, 10]


def test_wer_counts_errors_over_all_words() -> None:
    assert wer(["a b c", "d"], ["a x c", ""]) == 0.5
    assert wer([""], [""]) == 0.0
    assert wer([""], ["two words"]) == 2.0


# --- checkpoints ------------------------------------------------------------------------------------------


def test_a_checkpoint_is_whole_or_absent_and_old_ones_go(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 15):
        kept.save("step", step, lambda path: path.write_bytes(b"weights" * 100), {"n": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]

    def dies(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        kept.save("step", 20, dies, {})
    newest, passed_over = Checkpoints(tmp_path, keep=2).newest("step")
    assert newest is not None and newest.step == 15 and passed_over == []
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize("damage", ["truncated", "changed", "no sidecar", "broken sidecar"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    kept = Checkpoints(tmp_path, keep=2)
    for step in (5, 10):
        kept.save("step", step, lambda path: path.write_bytes(b"weights" * 100), {})
    state, sidecar = tmp_path / "step-00000010" / "state.pt", tmp_path / "step-00000010" / "checkpoint.json"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:-1])
    elif damage == "changed":
        state.write_bytes(b"x" + state.read_bytes()[1:])
    elif damage == "no sidecar":
        sidecar.unlink()
    else:
        sidecar.write_text("{")
    newest, passed_over = kept.newest("step")
    assert newest is not None and newest.step == 5
    assert len(passed_over) == 1 and "step-00000010" in passed_over[0]


# --- input ------------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    corpus(tmp_path / "train.jsonl", 4, 1)
    corpus(tmp_path / "validation.jsonl", 2, 2)
    return {name: str(tmp_path / file) for name, file in REQUIRED.items()}


def run_main(tmp_path: Path, raw: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path = tmp_path / "spec.json"
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw), encoding="utf-8")
    code = main([str(path), str(tmp_path / "out")])
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"audio_filepath": "train_audio/none.wav", "text": "a"}', "no such file"),
        ('{"text": "a", "duration": 1.0}', "audio_filepath: missing"),
        ('{"audio_filepath": "train_audio/000.wav", "duration": 1.0}', "text: missing"),
        ('{"audio_filepath": "train.jsonl", "text": "a"}', "cannot be opened as audio"),
        ('{"audio_filepath": "train_audio/000.wav", "text": "a", "duration": -1}', "duration"),
        ('{"audio_filepath": "train_audio/000.wav", "text": "a", "duration": "1"}', "duration"),
        ('{"audio_filepath": "train_audio/000.wav", "text": "a", "offset": 2}', "offset"),
        ('{"audio_filepath": "train_audio/001.wav", "text": "again"}', "earlier row"),
        ('{"audio_filepath"', "not JSON"),
    ],
)
def test_a_bad_row_ends_with_exit_10_and_one_line_naming_file_line_and_field(
    tmp_path: Path, good: dict[str, str], capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    manifest = tmp_path / "train.jsonl"
    rows = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*rows[1:], line]) + "\n")
    code, said = run_main(tmp_path, good, capsys)
    assert code == RecipeExit.BAD_INPUT and len(said.splitlines()) == 1
    assert f"{manifest}:4" in said and told in said and "train_manifest" in said


def test_bad_settings_and_bases_end_with_exit_10_before_anything_heavy_is_imported(
    tmp_path: Path, good: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    foreign, climbing = tmp_path / "foreign.nemo", tmp_path / "climbing.nemo"
    foreign.write_bytes(b"not a tar at all" * 100)
    with tarfile.open(climbing, "w") as archive:
        archive.add(foreign, "../../evil")
    for changed, told in (
        ({"max_stepz": 3}, "Did you mean max_steps"),
        ({"max_steps": "soon"}, "max_steps"),
        ({"base": "nvidia/nemotron-speech-streaming-en-0.6b"}, "nvidia/parakeet-tdt-0.6b-v2"),
        ({"base": str(tmp_path / "absent.nemo")}, "no such file"),
        ({"base": str(foreign)}, "not a readable .nemo"),
        ({"base": str(climbing)}, "would be written outside"),
        ({"train_manifest": str(tmp_path / "absent.jsonl")}, "absent.jsonl"),
        ({"max_duration_s": 0.2}, "no row to learn from"),
    ):
        code, said = run_main(tmp_path, good | changed, capsys)
        assert code == RecipeExit.BAD_INPUT and told in said, (changed, said)
    assert run_main(tmp_path, "{", capsys)[0] == RecipeExit.BAD_INPUT
    assert main([]) == RecipeExit.BAD_INPUT


def test_what_cannot_be_learned_is_left_out_and_said(tmp_path: Path, good: dict[str, str]) -> None:
    manifest = tmp_path / "train.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[0]["text"], rows[1]["duration"] = "  ", 500.0
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: list[str] = []
    sets = load_sets(spec(**good | {"validation_manifest": str(manifest)}), said.append)
    assert len(sets.train) == 2 and len(sets.validation) == 4
    assert [any(word in line for line in said) for word in ("empty text", "longer than 20 s", "flatters")] == [
        True
    ] * 3


def test_published_rows_reach_the_audio_without_naming_where_it_lies(tmp_path: Path, good: dict[str, str]) -> None:
    rows = load(good["train_manifest"], "train_manifest")
    publish(tmp_path / "out", "train", rows)
    text = (tmp_path / "out" / "data" / "train.jsonl").read_text()
    assert str(tmp_path) not in text
    named = [json.loads(line)["audio_filepath"] for line in text.splitlines()]
    assert all((tmp_path / "out" / "data" / name).is_file() for name in named)
    assert stats(load(str(tmp_path / "out" / "data" / "train.jsonl"), "train_manifest")) == stats(rows)


def test_relative_paths_are_taken_from_the_folder_of_the_spec(tmp_path: Path) -> None:
    made = spec(base="models/a.nemo").resolved(tmp_path)
    assert made.train_manifest == str(tmp_path / "train.jsonl") and made.base == str(tmp_path / "models" / "a.nemo")
    assert spec(base="nvidia/parakeet-tdt-1.1b").resolved(tmp_path).base == "nvidia/parakeet-tdt-1.1b"


# --- a schedule that is shortened -------------------------------------------------------------------------


@given(
    st.integers(1, 5000), st.integers(0, 60), st.lists(st.tuples(st.integers(1, 5200), st.floats(0, 1)), max_size=4)
)
def test_a_shortened_schedule_goes_on_from_where_it_is_and_comes_to_the_planned_end(
    steps: int, warmup: int, trims: list[tuple[int, float]]
) -> None:
    plan = plan_of(spec(max_steps=steps, warmup_steps=warmup))
    done = 0
    for asked, share in trims:
        done = round(done + share * (plan.total_steps - done))
        before, shorter = plan, plan.shortened(asked, done)
        if shorter is None:
            assert max(asked, done) >= before.total_steps  # never lengthened
            continue
        plan = type(before)(**json.loads(json.dumps(shorter.as_json())))
        assert plan.total_steps == max(asked, done) < before.total_steps and plan.planned_steps == steps
        for step in range(max(0, done - 50), done + 1):  # what is behind stays
            assert plan.place(step) == pytest.approx(before.place(step), abs=1e-6)
        places = [plan.place(step) for step in range(plan.total_steps + 1)]
        assert places == sorted(places)
        if plan.total_steps > done:
            assert places[-1] == steps


def test_a_running_warm_up_keeps_its_pace_where_there_is_room_for_it() -> None:
    plan = plan_of(spec(max_steps=1000, warmup_steps=20))
    roomy, tight = plan.shortened(100, 5), plan.shortened(30, 5)
    assert roomy is not None and tight is not None
    assert [roomy.place(step) for step in (5, 12, 20)] == [5, 12, 20] and roomy.place(100) == 1000
    assert tight.place(6) == 5 + 995 / 25


def test_a_trim_file_that_says_nothing_is_told_of_once(tmp_path: Path) -> None:
    said: list[str] = []
    request = TrimRequest(tmp_path, said.append)
    assert request.max_steps() is None and said == []
    for number, text in enumerate(('{"max_steps": 0}', '{"max_steps": true}', "[]", "{", '{"steps": 3000}')):
        (tmp_path / TRIM_FILE).write_text(text + " " * number)
        assert request.max_steps() is None and request.max_steps() is None
        assert len(said) == number + 1 and TRIM_FILE in said[-1]
    (tmp_path / TRIM_FILE).write_text('{"max_steps": 12}')
    assert request.max_steps() == 12 and request.max_steps() is None
