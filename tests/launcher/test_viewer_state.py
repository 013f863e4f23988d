from launcher.viewer.state import Progress, clock_words, sparkline


def test_plain_lines_are_few_and_say_the_figures() -> None:
    seen = Progress()
    lines = [seen.fold({"kind": "phase", "step": "runner", "name": "finetune"})]
    for step in range(1, 201):
        event = {"kind": "progress", "step": "finetune", "at_step": step, "total": 200, "loss": 5.0 - step / 50,
                 "seconds_per_step": 0.5, "metrics": {}}  # fmt: skip
        lines.append(seen.fold(event))
    said = [line for line in lines if line]
    assert said[0] == "fine-tuning"
    assert len(said) <= 13
    assert "200/200" in said[-1]
    assert "loss 1.00" in said[-1]


def test_a_validation_is_always_worth_a_line_and_the_best_is_remembered() -> None:
    seen = Progress()
    seen.fold({"kind": "phase", "step": "runner", "name": "finetune"})
    for step, wer in ((10, 0.5), (11, 0.3), (12, 0.4)):
        line = seen.fold({"kind": "progress", "at_step": step, "total": 1000, "metrics": {"val_wer": wer}})
        assert line is not None
    assert "val WER 40.0% (best 30.0% at 11)" in seen.line()


def test_a_null_loss_from_a_diverged_step_breaks_nothing() -> None:
    seen = Progress()
    seen.fold({"kind": "progress", "at_step": 1, "total": 2, "loss": None, "metrics": None})
    assert seen.loss is None


def test_durations_are_said_as_people_say_them() -> None:
    assert [clock_words(s) for s in (3, 89, 600, 7200)] == ["3 s", "89 s", "10 min", "2.0 h"]


def test_a_sparkline_never_outgrows_its_width() -> None:
    assert len(sparkline([float(n) for n in range(1000)], width=24)) == 24
    assert sparkline([1.0]) == ""
    assert sparkline([2.0, 2.0]) == "▁▁"


def test_measuring_says_nothing_of_the_training_before_it_and_nothing_twice() -> None:
    seen = Progress()
    seen.fold({"kind": "phase", "step": "runner", "name": "finetune"})
    seen.fold({"kind": "progress", "at_step": 9, "total": 10, "loss": 1.5, "metrics": {"val_wer": 0.2}})
    seen.fold({"kind": "phase", "step": "runner", "name": "after"})
    first = seen.fold({"kind": "progress", "at_step": 75, "total": 75})
    assert first == "  75/75"
    assert seen.fold({"kind": "progress", "at_step": 75, "total": 75}) is None


def test_the_stage_of_a_new_language_is_said_when_it_changes_and_stands_beside_the_figures() -> None:
    seen = Progress()
    seen.fold({"kind": "phase", "step": "runner", "name": "finetune"})
    lines = []
    for step, name in ((0, "random"), (10, "mute"), (20, "mute"), (30, "basic")):
        seen.fold({"kind": "progress", "step": "finetune", "at_step": step, "total": 40, "metrics": {"val_wer": 0.9}})
        lines.append(seen.fold({"kind": "stage", "step": "finetune", "at_step": step, "name": name, "message": "so"}))
    assert lines == ["  stage: random (so)", "  stage: mute (so)", None, "  stage: basic (so)"]
    assert "· stage: basic" in seen.line()
    seen.fold({"kind": "phase", "step": "runner", "name": "after"})
    assert "stage" not in seen.line()
