"""Between the plan and the YES, and at the YES itself, nothing odd is taken for consent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fast import FastGround
from jobs import Launcher
from paid import PaidGround, Terminal, offer

PROMPT = "Type YES"


@pytest.fixture
def paid(fast: FastGround, launcher: Launcher) -> PaidGround:
    return PaidGround(fast, launcher)


def prompted(paid: PaidGround, *args: object, before: str = "") -> Terminal:
    terminal = Terminal(paid, "run", paid.job(), "--offers", paid.offers_file, *args, before=before)
    terminal.wait_for(PROMPT)
    return terminal


def words(terminal: Terminal) -> str:
    return " ".join(terminal.shown.split())


@pytest.mark.parametrize(
    "typed",
    ["YES\x04\x04", "YES\x04\n", "no\nYES\n", "\x1b[200~YES\x1b[201~\n", "YES\x00\n", "\x1b[AYES\n", "ＹＥＳ\n",
     "Y\u0395S\n", "YES\u200b\n", "YES" * 2000 + "\n", "YES\x1a\n"],
    ids=lambda typed: repr(typed[:20]),
)  # fmt: skip
def test_a_line_that_is_not_exactly_yes_and_enter_creates_nothing(paid: PaidGround, typed: str) -> None:
    terminal = prompted(paid)
    terminal.send(typed)
    assert terminal.end() == 3, terminal.shown
    assert "Nothing was created" in words(terminal)
    paid.assert_nothing_happened()


def test_yes_without_enter_in_a_terminal_that_goes_away_creates_nothing(paid: PaidGround) -> None:
    deaf = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"  # as nohup does
    terminal = prompted(paid, before=deaf)
    terminal.send("YES")
    assert terminal.hang_up() != 0
    paid.assert_nothing_happened()


def test_data_that_becomes_sensitive_under_the_prompt_goes_nowhere(paid: PaidGround) -> None:
    job = paid.job()
    terminal = Terminal(paid, "run", job, "--offers", paid.offers_file)
    terminal.wait_for(PROMPT)
    job.write_text(job.read_text().replace("data: {", "data: {sensitivity: phi, "))
    terminal.send("YES\n")
    assert terminal.end() == 4, terminal.shown
    assert "phi data may not go there" in words(terminal)
    paid.assert_nothing_happened()


def test_another_budget_under_the_prompt_is_not_what_was_approved(paid: PaidGround) -> None:
    job = paid.job()
    job.write_text(job.read_text().replace("budget: interactive\n", ""))
    terminal = Terminal(paid, "run", job, "--offers", paid.offers_file)
    terminal.wait_for(PROMPT)
    budgets = paid.fast.folder / "budgets.yaml"
    budgets.write_text(budgets.read_text().replace("default: interactive", "default: typed"))
    terminal.send("YES\n")
    terminal.wait_for(PROMPT, times=2)
    assert "budget typed now, not interactive: outside what was approved" in words(terminal)
    terminal.send("no\n")
    assert terminal.end() == 3
    paid.assert_nothing_happened()


def test_a_strangers_host_in_the_place_of_a_data_centres_is_not_what_was_approved(paid: PaidGround) -> None:
    terminal = prompted(paid)
    paid.offer(offer(trust="marketplace"))
    terminal.send("YES\n")
    terminal.wait_for(PROMPT, times=2)
    assert "it is a marketplace host now, not a secure host: outside what was approved" in words(terminal)
    terminal.send("no\n")
    assert terminal.end() == 3
    paid.assert_nothing_happened()


def test_another_machine_under_the_same_offer_id_is_said(paid: PaidGround) -> None:
    terminal = prompted(paid)
    paid.offer(offer(gpu="RTX 3090", region="US"))
    terminal.send("YES\n")
    terminal.end()
    assert "it is 1 × RTX 3090 now, not 1 × RTX 4090" in words(terminal)
    assert "it is in US now" in words(terminal)


@pytest.mark.parametrize("verb", ["plan", "offers"])
def test_a_providers_words_never_reach_the_terminal_raw(paid: PaidGround, verb: str) -> None:
    paid.offer(offer(region="\x1b]0;mine\x07\x1b[2Jhere", note="\x1b[31mred\nline", instance_type="\x9b5m"))
    terminal = Terminal(paid, verb, *([paid.job()] if verb == "plan" else []), "--offers", paid.offers_file)
    assert terminal.end() == 0, terminal.shown
    assert not [code for code in ("\x1b]0", "\x1b[2J", "\x07", "\x1b[31mred", "\x9b") if code in terminal.shown]
    assert "]0;mine" in terminal.shown  # what is left of it is plain text


def test_an_offer_whose_id_cannot_be_printed_is_refused_by_its_row(paid: PaidGround) -> None:
    paid.offer(offer(offer_id="s1\x1b[5m"))
    code, answer, _ = paid.run("plan", paid.job(), "--offers", paid.offers_file)
    assert code == 2
    assert answer["error"]["key"] == "offers[0].offer_id"


def test_without_columns_the_plan_is_shown_before_the_prompt(paid: PaidGround) -> None:
    terminal = prompted(paid, before="import os; os.environ['COLUMNS'] = '0'")
    assert "RTX" in terminal.shown
    terminal.send("no\n")
    assert terminal.end() == 3


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-"])
def test_with_its_input_closed_it_is_a_launcher_without_a_terminal(paid: PaidGround, closed: str) -> None:
    command = f'exec "$0" -m launcher --home "$1" run "$2" --offers "$3" {closed}'
    args = [sys.executable, paid.launcher.home, paid.job(), paid.offers_file]
    done = subprocess.run(
        ["sh", "-c", command, *map(str, args)], env={**os.environ, **paid.env}, cwd=paid.fast.folder,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "no terminal" in done.stderr
    paid.assert_nothing_happened()


def test_a_machine_that_may_still_bill_blocks_its_provider_and_every_verb_says_so(
    paid: PaidGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHER_WITHOUT", "sentinel,reaper")  # they would go on releasing
    paid.script(refuse_release=10**6, fractions=[0.5])
    args = ("--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    code, outcome, err = paid.run("run", paid.job(), *args)
    assert code == 6, err
    code, answer, err = paid.run("run", paid.job("other.yaml", steps=4), *args)
    assert code == 6, err
    assert "scripted has not confirmed the release" in answer["error"]["message"]
    assert "launcher reap" in answer["error"]["message"]
    assert len(paid.ledger.runs()) == 1
    for verb in (("status",), ("budget",), ("costs",), ("logs", outcome["run"]), ("report", outcome["run"]),
                 ("plan", paid.job(), "--offers", paid.offers_file)):  # fmt: skip
        code, _, err = paid.run(*verb)
        assert code == 0, err
        assert "STILL BILLING? scripted" in err
    paid.script(fractions=[0.5])
    code, _, err = paid.run("reap")
    assert code == 0, err
    code, outcome, err = paid.run("run", paid.job("other.yaml", steps=4), *args)
    assert code == 0, err
    assert "STILL BILLING" not in paid.run("status")[2]


def test_a_charge_above_the_ceiling_is_recorded_in_full_and_said_aloud(paid: PaidGround) -> None:
    paid.script(fractions=[3.0])
    args = ("--offers", paid.offers_file, "--confirm", "YES", "--max-cost", "5")
    code, outcome, err = paid.run("run", paid.job(), *args)
    assert code == 0, err
    assert paid.ledger.spent(outcome["run"]) == paid.billed()
    assert outcome["warnings"][-1].startswith("scripted charged $")
    assert "more than the $" in err
    assert "warning: scripted charged" in err
