"""The typed YES, and its stand-in for CI: who approves which ceiling, and what a later price may still change."""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from launcher.budgets import Budget
from launcher.errors import BadInputError, NotConfirmedError, RefusedError
from launcher.money import ZERO, Usd
from launcher.plan.model import Allowed, Plan

if TYPE_CHECKING:
    from launcher.cli.output import Output

WORD = "YES"
PATIENCE_S = 55  # prices move: a plan is not left open for an answer that comes from another room
NOTHING = "Nothing was created and nothing was reserved."


@dataclass(frozen=True)
class Consent:
    """What was given beside the prompt: --confirm and --max-cost (or their variables), --ephemeral-ledger."""

    confirm: str | None = None
    max_cost: str | None = None
    ephemeral_ledger: bool = False

    @property
    def given(self) -> bool:
        """Whether the caller means to approve without a prompt."""
        return self.confirm is not None or self.max_cost is not None


@dataclass(frozen=True)
class Approval:
    """A ceiling (USD) and an allowed set; the digest is the plan's that was seen, kept as evidence."""

    how: Literal["typed", "preapproved", "free"]
    ceiling_usd: Usd
    allowed: Allowed
    digest: str

    def covers(self, plan: Plan) -> bool:
        """Whether this plan needs no new YES."""
        if plan.is_free:
            return True
        inside = self.allowed.covers(plan.choice.offer) and plan.allowed.sensitivity == self.allowed.sensitivity
        inside = inside and plan.budget == self.allowed.budget
        return inside and plan.ceiling_usd <= self.ceiling_usd


def free(plan: Plan) -> Approval:
    """The approval of a plan that can charge nothing."""
    return Approval("free", ZERO, plan.allowed, plan.digest)


def approve(plan: Plan, budget: Budget, consent: Consent, out: Output, *, shared_ledger: bool,
            what: str = "rent") -> Approval:  # fmt: skip
    """Ask for the typed YES, or check the pre-approval that was given. Never waits without a terminal.

    Raises NotConfirmedError (exit 3), RefusedError (exit 4) or BadInputError (exit 2); KeyboardInterrupt on Ctrl-C.
    """
    if plan.is_free:
        return free(plan)
    if consent.given:
        most = preapproved(plan.ceiling_usd, plan.budget, budget, consent, shared_ledger=shared_ledger)
        return Approval("preapproved", most, plan.allowed, plan.digest)
    ask_typed(budget, plan.budget, plan.ceiling_usd, out, what)
    return Approval("typed", plan.ceiling_usd, plan.allowed, plan.digest)


def preapproved(ceiling: Usd, name: str, budget: Budget, consent: Consent, *, shared_ledger: bool) -> Usd:
    """The amount (USD) that --confirm YES --max-cost approves; raises unless the ceiling is at or under it."""
    if consent.confirm != WORD:
        given = "is missing" if consent.confirm is None else f"must be exactly {WORD}"
        raise NotConfirmedError(f"{given}. {NOTHING}", key="--confirm", value=consent.confirm,
                                fix=f"--confirm {WORD} --max-cost {ceiling}")  # fmt: skip
    if consent.max_cost is None:
        raise NotConfirmedError(f"is missing: {WORD} alone approves no amount. {NOTHING}", key="--max-cost",
                                fix=f"--confirm {WORD} --max-cost {ceiling}")  # fmt: skip
    most = amount_of(consent.max_cost)
    if "preapproved" not in budget.approval:
        raise RefusedError(
            f"budget {name} lets nobody approve beforehand (approval: {', '.join(budget.approval)}). {NOTHING}",
            fix=f"Type {WORD} at a terminal, or name a budget with approval: [preapproved].",
        )
    if ceiling > most:
        raise NotConfirmedError(
            f"${most} approves no ceiling of ${ceiling}. {NOTHING}", key="--max-cost", value=consent.max_cost,
            fix=f"Approve ${ceiling}, or lower max_steps.",
        )  # fmt: skip
    if in_ci() and not shared_ledger and not consent.ephemeral_ledger:
        raise RefusedError(
            f"in CI a ledger on the runner's own disk forgets what the month has cost. {NOTHING}",
            fix="Set LAUNCHER_LEDGER=postgresql+psycopg://… , or own up to it with --ephemeral-ledger.",
        )
    return most


def amount_of(max_cost: str) -> Usd:
    """What --max-cost names (USD); raises BadInputError for anything but a plain amount above 0."""
    try:
        most = Usd(max_cost)
    except ValueError as error:
        raise BadInputError(f"{error}. {NOTHING}", key="--max-cost", value=max_cost) from None
    if most <= ZERO:
        raise BadInputError(f"must be more than 0. {NOTHING}", key="--max-cost", value=max_cost)
    return most


def ask_typed(budget: Budget, name: str, ceiling: Usd, out: Output, what: str = "rent") -> None:
    """Return only when a person types exactly YES at the prompt; raises NotConfirmedError, or KeyboardInterrupt."""
    if not out.interactive:
        raise NotConfirmedError(
            f"this costs up to ${ceiling}, and there is no terminal to type {WORD} at. {NOTHING}",
            fix=f"--confirm {WORD} --max-cost {ceiling} (under a budget with approval: [preapproved]).",
        )
    if "typed" not in budget.approval:
        raise RefusedError(
            f"budget {name} takes no typed {WORD} (approval: {', '.join(budget.approval)}). {NOTHING}",
            fix=f"--confirm {WORD} --max-cost {ceiling}, or name another budget.",
        )
    prompt = f"Type {WORD} within {PATIENCE_S} s to {what} for at most ${ceiling} (anything else cancels): "
    try:
        answer = read_line(out, prompt, PATIENCE_S)
    except KeyboardInterrupt:
        out.say(f"\nCancelled. {NOTHING}")
        raise
    if answer is None:
        raise NotConfirmedError(f"no answer in {PATIENCE_S} s. {NOTHING}", fix="Prices move: plan again.")
    if answer != WORD:
        said = "no answer" if not answer else f"{answer[:40]!r} is not {WORD}"
        raise NotConfirmedError(f"{said}. {NOTHING}")


def read_line(out: Output, prompt: str, patience_s: float) -> str | None:
    """One line typed after the prompt was shown, without its end; None after the patience.

    A line that was not ended with Enter (end of file, a terminal that went away) is "": half a word is no answer.
    What was typed or pasted beyond the line is thrown away: it must not land in the shell.
    """
    import termios

    file = sys.stdin.fileno()
    termios.tcflush(file, termios.TCIFLUSH)  # what was typed before the plan was there is no answer to it
    out.ask(prompt)
    ends, typed = time.monotonic() + patience_s, b""
    whole_lines = bool(termios.tcgetattr(file)[3] & termios.ICANON)
    while not typed.endswith(b"\n"):
        ready, _, _ = select.select([file], [], [], max(0.0, ends - time.monotonic()))
        late = not ready or time.monotonic() >= ends
        try:
            more = b"" if late else os.read(file, 4096)
        except OSError:  # the terminal went away
            more = b""
        typed += more
        if not more or (whole_lines and not more.endswith(b"\n")):  # Ctrl-D hands over a line without its end
            out.say("")
            break
    with suppress(termios.error):
        termios.tcflush(file, termios.TCIFLUSH)
    if not typed.endswith(b"\n"):
        return None if late else ""
    return typed.removesuffix(b"\n").decode("utf-8", "replace")


def in_ci() -> bool:
    """Whether this is a CI job, as every CI service says it."""
    return os.environ.get("CI", "").lower() in ("true", "1", "yes")
