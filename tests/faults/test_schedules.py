"""Random schedules: provider faults in any mixture, deaths at random microseconds, and whoever goes on afterwards.

A state machine of Hypothesis, played by `make faults`: LAUNCHER_FAULTS_SCHEDULES says how many schedules (1 in `make
test`). One that fails is printed whole and not shrunk: each step costs seconds.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.faults.field import Field
from tests.faults.program import Program

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SCHEDULES = int(os.environ.get("LAUNCHER_FAULTS_SCHEDULES", "1"))
LONGEST_US = 12_000_000  # into a run that takes ten seconds on a quiet machine
PASSING = (
    {"fault": "error", "operation": "list", "count": 3}, {"fault": "rate_limited", "count": 3},
    {"fault": "error_after_create"}, {"fault": "sold_out", "listed": True}, {"fault": "price_change", "factor": 2.0},
    {"fault": "empty_list", "count": 2}, {"fault": "partial_list", "count": 2}, {"fault": "malformed_list"},
    {"fault": "wrong_account"}, {"fault": "delete_refused", "count": 2}, {"fault": "delete_ignored"},
    {"fault": "listing_lag", "seconds": 5.0}, {"fault": "partition", "seconds": 8.0},
    {"fault": "slow_link", "mbit": 2.0},
)  # fmt: skip


@pytest.fixture(scope="module")
def ground() -> Iterator[Field]:
    with tempfile.TemporaryDirectory(prefix="launcher-schedules-", ignore_cleanup_errors=True) as folder:
        field = Field(Path(folder))
        try:
            yield field
        finally:
            field.close()


def test_no_schedule_leaves_a_machine_or_charges_more_than_was_approved(ground: Field) -> None:
    class Schedule(RuleBasedStateMachine):
        """One run, from its reservation to the proof that nothing of it is left."""

        @initialize(provider=st.sampled_from(["runpod", "vast", "brev"]))
        def begin(self, provider: str) -> None:
            self.copy = ground.copy(provider, "evaluate")
            self.provider = provider
            self.runner: Program | None = None

        def lives(self) -> bool:
            return self.runner is not None and self.runner.poll() is None

        @rule(fault=st.sampled_from(PASSING))
        def strike(self, fault: dict[str, object]) -> None:
            how = {name: value for name, value in fault.items() if name != "fault"}
            ground.cloud.fault(str(fault["fault"]), provider=self.provider, **how)

        @precondition(lambda self: not self.lives())
        @rule()
        def go_on(self) -> None:
            self.runner = self.copy.program("launcher.runner", str(self.copy.root), self.copy.run)

        @precondition(lambda self: self.lives())
        @rule(after_us=st.integers(0, LONGEST_US))
        def die(self, after_us: int) -> None:
            assert self.runner
            time.sleep(after_us / 1e6)
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(self.runner.pid, signal.SIGKILL)
            self.runner.communicate()

        @precondition(lambda self: not self.lives())
        @rule()
        def reap(self) -> None:
            self.copy.verb("reap")

        def teardown(self) -> None:
            if not hasattr(self, "copy"):
                return
            try:
                if self.runner:
                    self.runner.communicate(timeout=300)
                ground.cloud.fault("clear")
                for _ in range(3):  # what a fault has left pending, the next one ends
                    code, outcome, said = self.copy.verb("resume", self.copy.run)
                    assert "Traceback" not in said, said
                    if code != 6:
                        break
                assert self.copy.alive() == [], (code, outcome, said)
                assert self.copy.billed() <= self.copy.ceiling
                assert self.copy.ledger.spent(self.copy.run) <= self.copy.ceiling + Decimal("0.03")  # begun minutes
            finally:
                ground.cloud.fault("end_all")
                ground.leave(self.copy)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Schedule, settings=settings(
            max_examples=SCHEDULES, stateful_step_count=8, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck), print_blob=True, database=None,
        ),
    )  # fmt: skip
