"""Files that change while a batch runs: what nobody approved is not run, what is being edited is waited for."""

from __future__ import annotations

from whole import Sweep, kill, killed_at_the_end

from tests.patience import until

TWO_STEPS = "matrix:\n  job: base.yaml\n  over: {spec.max_steps: [3, 4]}\n"


def test_a_job_whose_data_changes_in_the_middle_is_refused_not_trained_on_what_nobody_approved(sweep: Sweep) -> None:
    sweep.budget(at_once=1)
    sweep.file("total_usd: 9\n", TWO_STEPS)
    process = sweep.batch("--confirm", "YES", "--max-cost", "9")
    with killed_at_the_end(process):
        until(sweep.created, name="the first machine")
        manifest = sweep.ground.folder / "m.jsonl"
        manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
        code, outcome, err = sweep.ended(process)
    assert code == 4, err
    assert len(sweep.created()) == 1
    assert "its data changed since the batch was approved" in outcome["refused"][0]["why"]


def test_half_a_budgets_file_refuses_no_job_for_good(sweep: Sweep) -> None:
    sweep.budget(at_once=1)
    sweep.file("total_usd: 9\n", TWO_STEPS)
    budgets = sweep.ground.folder / "budgets.yaml"
    whole = budgets.read_text()
    process = sweep.batch("--confirm", "YES", "--max-cost", "9")
    with killed_at_the_end(process):
        until(sweep.created, name="the first machine")
        budgets.write_text("default: [")
        until(lambda: "not valid YAML" in sweep.said(), name="the second job meets half a file")
        kill(process)
    budgets.write_text(whole)
    code, outcome, err = sweep()
    assert code == 0, err
    assert outcome["refused"] == []
    assert len(sweep.created()) == 2
