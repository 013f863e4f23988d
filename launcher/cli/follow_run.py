"""What `run` and `tune` share: launch a planned job, follow its run, show its receipt, answer with its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.approval import Consent
    from launcher.cli.output import Output
    from launcher.clock import Clock
    from launcher.home import Home
    from launcher.ledger import Ledger, Run
    from launcher.workflow import Planned


def launch(planned: Planned, consent: Consent, home: Home, clock: Clock, out: Output) -> tuple[Ledger, Run]:
    """Show the plan, get its YES, reserve and start; or find the run that this job has already."""
    from launcher.cli.show_plan import show_plan
    from launcher.ledger import Ledger
    from launcher.reaper import reap_quietly
    from launcher.reaper.behind import reap_behind
    from launcher.workflow import begin, refuse_pending, secure, start

    show_plan(planned, out)
    ledger = Ledger.open(home, clock)
    for freed in reap_quietly(home, ledger, clock):
        out.say(f"Freed run {freed['run']}: {freed['why']}.")
    reap_behind(home, ledger)
    if not planned.plan.is_free:
        ledger.refuse_clock_skew()
    live = ledger.live_run(planned.plan.run_key)
    if live is not None:  # nothing is spent twice, so nothing is asked
        begin(home, ledger, live, clock)
        out.say(f"This job is running already: run {live.run}")
        return ledger, live
    refuse_pending(ledger, planned.plan)  # before anybody is asked
    planned, approval = secure(planned, consent, home, clock, out, lambda again: show_plan(again, out))
    try:
        run, new = start(planned, home, ledger, clock, approval)
    except KeyboardInterrupt:  # after the YES: what became of it, and of the money, must not be guessed
        held = ledger.live_run(planned.plan.run_key)
        out.warn(f"run {held.run} was told to stop and to release what there is: launcher attach {held.run}"
                 if held else "interrupted before anything was created; what was approved is void.")  # fmt: skip
        raise
    if not new:
        out.say(f"This job is running already: run {run.run}")
    return ledger, run


def follow(home: Home, ledger: Ledger, run_id: str, out: Output, clock: Clock,
           extra: dict[str, Any] | None = None) -> int:  # fmt: skip
    """Attach, then print the receipt (and the JSON outcome); returns the exit code of the verb."""
    from launcher.report.receipt import show_receipt
    from launcher.runner.control import ask_to_stop, is_running
    from launcher.viewer import attach

    found = ledger.run(run_id)
    if found.over and found.outcome is not None and not is_running(home.run_dir(run_id)):
        show_receipt(found.outcome, out)  # nothing is left to watch
        out.result({**found.outcome, **(extra or {})})
        return int(found.outcome.get("exit", found.exit_code or 0))
    try:
        code = attach(home, ledger, run_id, out, clock)
    except KeyboardInterrupt:  # before anybody watched; without a terminal it means what it means while watching
        if out.interactive:
            raise
        ask_to_stop(home.run_dir(run_id), "now")
        code = attach(home, ledger, run_id, out, clock)
    run = ledger.run(run_id)
    if run.outcome is not None:
        show_receipt(run.outcome, out)
    gone = all(lease.state == "released" for lease in ledger.leases(run_id))
    outcome = run.outcome or {"run": run.run, "state": str(run.state), "exit": code or 0, "released": gone}
    out.result({**outcome, **(extra or {})})
    return code or 0
