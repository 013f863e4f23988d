"""Only a typed YES at a terminal, or a pre-approval that a budget allows, may spend: everything else is nothing."""

from __future__ import annotations

import pytest
from fast import FastGround
from jobs import Launcher
from paid import PaidGround, Terminal, offer

from launcher.money import Usd

PROMPT = "Type YES"


@pytest.fixture
def paid(fast: FastGround, launcher: Launcher) -> PaidGround:
    return PaidGround(fast, launcher)


def prompted(paid: PaidGround, *args: object, **more: object) -> Terminal:
    terminal = Terminal(paid, "run", paid.job(), "--offers", paid.offers_file, *args, **more)  # type: ignore[arg-type]
    terminal.wait_for(PROMPT)
    return terminal


@pytest.mark.parametrize(
    "typed",
    ["yes\n", "y\n", "YES please\n", "\n", "YES \n", " YES\n", "Y\n", "JA\n", "\x04", "YE\x04\x04", "\u202eYES\n"],
    ids=repr,
)
def test_anything_but_yes_cancels_and_says_that_nothing_was_created(paid: PaidGround, typed: str) -> None:
    terminal = prompted(paid)
    terminal.send(typed)
    assert terminal.end() == 3, terminal.shown
    assert "Nothing was created" in terminal.shown
    assert "Traceback" not in terminal.shown
    paid.assert_nothing_happened()


def test_ctrl_c_at_the_prompt_cancels(paid: PaidGround) -> None:
    terminal = prompted(paid)
    terminal.send("\x03")
    assert terminal.end() == 130, terminal.shown
    assert "Nothing was created" in terminal.shown
    paid.assert_nothing_happened()


def test_a_closed_terminal_at_the_prompt_creates_nothing(paid: PaidGround) -> None:
    terminal = prompted(paid)
    assert terminal.hang_up() != 0
    paid.assert_nothing_happened()


def test_silence_cancels(paid: PaidGround) -> None:
    terminal = prompted(paid, before="import launcher.approval; launcher.approval.PATIENCE_S = 1")
    assert terminal.end() == 3, terminal.shown
    assert "no answer in 1 s" in terminal.shown
    paid.assert_nothing_happened()


def test_half_a_word_and_silence_cancels(paid: PaidGround) -> None:
    terminal = prompted(paid, before="import launcher.approval; launcher.approval.PATIENCE_S = 1")
    terminal.send("YES")
    assert terminal.end() == 3, terminal.shown
    paid.assert_nothing_happened()


def test_what_was_typed_before_the_plan_was_shown_is_no_answer(paid: PaidGround) -> None:
    early = "sys.stdout.write('ready'); sys.stdout.flush(); sys.stdin.buffer.peek(1)"
    before = f"import launcher.approval; launcher.approval.PATIENCE_S = 2; {early}"
    terminal = Terminal(paid, "run", paid.job(), "--offers", paid.offers_file, before=before)
    terminal.wait_for("ready")
    terminal.send("x\nYES\n")
    terminal.wait_for(PROMPT)
    assert terminal.end() == 3, terminal.shown
    paid.assert_nothing_happened()


def test_yes_rents_and_the_ledger_knows_who_approved_what(paid: PaidGround) -> None:
    terminal = prompted(paid)
    terminal.send("YES\n")
    assert terminal.end() == 0, terminal.shown
    ledger = paid.ledger
    (run,) = ledger.runs()
    approval = ledger.approval(run.run)
    assert approval is not None
    assert approval["how"] == "typed"
    assert approval["who"]
    assert approval["at"]
    assert approval["digest"]
    assert approval["allowed"]["providers"] == ["scripted"]
    reserved = ledger.reservation(run.run)
    assert reserved is not None
    assert reserved.amount_usd == Usd(run.plan["candidates"][run.plan["chosen"]]["ceiling"]["usd"])
    assert ledger.spent(run.run) == paid.billed() > 0
    assert reserved.settled_at is not None
    assert paid.billed() <= reserved.amount_usd


@pytest.mark.parametrize(
    ("args", "env", "code", "named"),
    [
        ((), {}, 3, "no terminal"),
        (("--confirm", "yes", "--max-cost", "5"), {}, 3, "exactly YES"),
        (("--confirm", "YES"), {}, 3, "--max-cost"),
        (("--max-cost", "5"), {}, 3, "--confirm"),
        (("--confirm", "YES", "--max-cost", "0.01"), {}, 3, "$0.01 approves no ceiling"),
        (("--confirm", "YES", "--max-cost", "nan"), {}, 2, "--max-cost"),
        (("--confirm", "YES", "--max-cost", "1e9"), {}, 2, "--max-cost"),
        (("--confirm", "YES", "--max-cost", "5,00"), {}, 2, "a point, not a comma"),
        (("--confirm", "YES", "--max-cost", "-5"), {}, 2, "--max-cost"),
        (("--confirm", "YES", "--max-cost", "5 USD"), {}, 2, "--max-cost"),
        (("--confirm", "YES", "--max-cost", "inf"), {}, 2, "--max-cost"),
        ((), {"LAUNCHER_CONFIRM": "YES"}, 3, "--max-cost"),
        ((), {"LAUNCHER_CONFIRM": "Yes", "LAUNCHER_MAX_COST": "5"}, 3, "exactly YES"),
        (("--confirm", "YES", "--max-cost", "5"), {"CI": "true"}, 4, "--ephemeral-ledger"),
    ],
    ids=repr,
)
def test_a_wrong_approval_without_a_terminal_never_passes_and_never_waits(
    paid: PaidGround, args: tuple[str, ...], env: dict[str, str], code: int, named: str
) -> None:
    got, answer, err = paid.run("run", paid.job(), "--offers", paid.offers_file, *args, **env)
    assert got == code, err
    assert named in answer["error"]["message"]
    assert "Nothing was created" in err
    paid.assert_nothing_happened()


def test_a_budget_that_wants_a_typed_yes_takes_no_other(paid: PaidGround) -> None:
    job = paid.job(budget="typed")
    code, answer, _ = paid.run("run", job, "--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    assert code == 4
    assert "lets nobody approve beforehand" in answer["error"]["message"]
    paid.assert_nothing_happened()


def test_a_budget_of_preapprovals_takes_no_typed_yes(paid: PaidGround) -> None:
    terminal = Terminal(paid, "run", paid.job(budget="preapproved"), "--offers", paid.offers_file)
    assert terminal.end() == 4, terminal.shown
    assert PROMPT not in terminal.shown
    paid.assert_nothing_happened()


def test_a_cap_of_zero_lets_nothing_that_costs_money_pass(paid: PaidGround) -> None:
    job = paid.job(budget="empty")
    code, answer, _ = paid.run("run", job, "--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    assert code == 4
    assert "the budget allows $0.00 a run" in answer["error"]["message"]
    paid.assert_nothing_happened()


def test_a_preapproval_rents_under_its_amount(paid: PaidGround) -> None:
    paid.script(fractions=[1.0])
    job = paid.job()
    code, outcome, err = paid.run("run", job, "--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    assert code == 0, err
    assert outcome["released"] is True
    assert paid.billed() <= 5
    assert outcome["usd"]["charged_source"] == "invoice"
    assert paid.ledger.approval(outcome["run"])["how"] == "preapproved"  # type: ignore[index]
    assert paid.ledger.approval(outcome["run"])["ceiling_usd"].rstrip("0") == "5."  # type: ignore[index]


def test_in_ci_an_owned_up_ledger_is_enough(paid: PaidGround) -> None:
    args = ("--confirm", "YES", "--max-cost", "5", "--ephemeral-ledger")
    code, _, err = paid.run("run", paid.job(), "--offers", paid.offers_file, *args, CI="true")
    assert code == 0, err


def test_a_price_that_moves_inside_the_approval_needs_no_new_yes(paid: PaidGround) -> None:
    terminal = prompted(paid)
    paid.offer(offer(usd_per_hour="0.43"))
    terminal.send("YES\n")
    assert terminal.end() == 0, terminal.shown
    assert "$0.43/h now, not $0.41/h" in terminal.shown
    (run,) = paid.ledger.runs()
    assert run.plan["candidates"][run.plan["chosen"]]["offer"]["usd_per_hour"] == "0.43"


def test_a_price_that_moves_outside_the_approval_asks_again_and_cancels(paid: PaidGround) -> None:
    terminal = prompted(paid)
    paid.offer(offer(usd_per_hour="0.95"))
    terminal.send("YES\n")
    terminal.wait_for("outside what was approved")
    terminal.wait_for(PROMPT, times=2)
    terminal.send("no\n")
    assert terminal.end() == 3, terminal.shown
    paid.assert_nothing_happened()


def test_a_second_yes_at_the_new_price_is_what_is_approved(paid: PaidGround) -> None:
    terminal = prompted(paid)
    paid.offer(offer(usd_per_hour="0.95"))
    terminal.send("YES\n")
    terminal.wait_for(PROMPT, times=2)
    terminal.send("YES\n")
    assert terminal.end() == 0, terminal.shown
    (run,) = paid.ledger.runs()
    assert paid.ledger.approval(run.run)["allowed"]["max_usd_per_hour"] == "1.05"  # type: ignore[index]


def test_an_offer_that_is_gone_is_replaced_inside_the_approval(paid: PaidGround) -> None:
    terminal = prompted(paid)
    paid.offer(offer("s2", "0.40"), offer("s3", "0.90"))
    terminal.send("YES\n")
    assert terminal.end() == 0, terminal.shown
    assert "is gone" in terminal.shown
    (run,) = paid.ledger.runs()
    assert run.plan["candidates"][run.plan["chosen"]]["offer"]["offer_id"] == "s2"


def test_a_machine_dearer_than_approved_is_released_at_once(paid: PaidGround) -> None:
    paid.script(rate_factor=[1.5], fractions=[0.1])
    job = paid.job()
    code, outcome, err = paid.run("run", job, "--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    assert code == 4, err
    assert "released at once" in outcome["reason"]
    assert [line["event"] for line in paid.bill()] == ["create", "end"]
    assert paid.fast.starts("before") == 0
    assert paid.ledger.spent(outcome["run"]) == paid.billed()


def test_a_second_launch_finds_the_first_and_asks_for_nothing(paid: PaidGround) -> None:
    job = paid.job(steps=400, step_s=0.02)
    args = ("run", job, "--offers", paid.offers_file, "--detach")
    code, first, err = paid.run(*args, "--confirm", "YES", "--max-cost", "5")
    assert code == 0, err
    code, second, err = paid.run(*args)
    assert code == 0, err
    assert second["run"] == first["run"]
    code, _, err = paid.run("stop", first["run"], "--now")
    assert code == 130, err
    assert [line["event"] for line in paid.bill()] == ["create", "end"]


def test_what_a_run_measured_the_next_plan_believes(paid: PaidGround) -> None:
    job = paid.job(steps=6, audio_s_per_s=321.0)
    _, before, _ = paid.run("plan", job, "--offers", paid.offers_file)
    assert before["chosen"]["estimate_source"] == "arithmetic"
    code, _, err = paid.run("run", job, "--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    assert code == 0, err
    _, after, _ = paid.run("plan", job, "--offers", paid.offers_file)
    assert after["chosen"]["estimate_source"] == "measured here"
    assert after["chosen"]["estimate"]["audio_s_per_s"] == 321.0


def test_data_that_changes_under_the_prompt_is_not_what_was_approved(paid: PaidGround) -> None:
    terminal = prompted(paid)
    manifest = paid.fast.folder / "m.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    terminal.send("YES\n")
    assert terminal.end() == 2, terminal.shown
    assert "the data changed" in " ".join(terminal.shown.split())
    paid.assert_nothing_happened()


def test_a_provider_that_refuses_release_is_loud_keeps_the_money_held_and_is_released_later(
    paid: PaidGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHER_WITHOUT", "sentinel")  # it would go on releasing
    paid.script(refuse_release=1, fractions=[0.5])
    code, outcome, err = paid.run(
        "run", paid.job(), "--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5"
    )
    assert code == 6, err
    assert outcome["released"] is False
    ledger = paid.ledger
    held = ledger.reservation(outcome["run"])
    assert held is not None
    assert held.settled_at is None, "what may still bill stays reserved"
    assert ledger.spent(outcome["run"]) == 0
    code, _, err = paid.run("reap")
    assert code == 0, err
    assert [line["event"] for line in paid.bill()] == ["create", "refused", "end"]
    assert ledger.spent(outcome["run"]) == paid.billed() > 0
    settled = ledger.reservation(outcome["run"])
    assert settled is not None
    assert settled.settled_at is not None


def test_nothing_is_rented_at_a_price_of_long_ago(paid: PaidGround) -> None:
    paid.offer(offer(as_of="2026-02-08T00:00:00Z"))
    args = ("--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    code, answer, _ = paid.run("run", paid.job(), *args)
    assert code == 4
    assert "2026-02-08" in answer["error"]["message"]
    paid.assert_nothing_happened()


def test_where_there_is_no_key_to_rent_with_nobody_is_asked_for_a_yes(paid: PaidGround) -> None:
    paid.offer(offer(provider="runpod"))
    budgets = paid.fast.folder / "budgets.yaml"
    budgets.write_text(budgets.read_text().replace("providers: [local, scripted]", "providers: [runpod]"))
    job = paid.job(text="resources: {providers: [runpod]}\n")
    terminal = Terminal(paid, "run", job, "--offers", paid.offers_file)
    assert terminal.end() == 4, terminal.shown
    assert PROMPT not in terminal.shown
    assert "nothing can be rented at runpod from here: no key (RUNPOD_API_KEY)" in " ".join(terminal.shown.split())
    paid.assert_nothing_happened()


@pytest.mark.parametrize("amount", ["three", "-1", "0", "nan", "5,00"])
def test_an_amount_that_is_none_is_refused_even_where_nothing_would_be_asked(paid: PaidGround, amount: str) -> None:
    job = paid.job(text="resources: {providers: [local]}\n")
    code, answer, err = paid.run("run", job, "--confirm", "YES", "--max-cost", amount)
    assert code == 2, err
    assert answer["error"]["key"] == "--max-cost"
    paid.assert_nothing_happened()
