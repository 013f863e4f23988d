"""`launcher reap`: ledger against providers; ends what is ours and should be gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from launcher.cli.output import Output
    from launcher.clock import Clock
    from launcher.home import Home
    from launcher.ledger import Ledger
    from launcher.reaper import Fact, Reaped


@click.command("reap")
@click.option("--max", "most", type=click.IntRange(0), default=10, show_default=True,
              help="End at most so many machines at once; the others stay pending.")
@click.option("--run", "runs", multiple=True, metavar="RUN",
              help="A run known to be over: what is its own goes now, not at its deadline (may be repeated).")
@click.option("--owner", "owners", multiple=True, metavar="NAME",
              help="The same for all runs of one $LAUNCHER_OWNER, such as a cancelled CI run.")
@click.option("--install/--uninstall", "install", default=None,
              help="Run it on a timer from now on, or no longer; shows what it writes.")
@click.option("--timer", type=click.Choice(["systemd", "launchd", "cron"]),
              help="With --install or --uninstall: which one (default: what this system has).")
@click.option("--every", "minutes", type=click.IntRange(1, 59), default=15, show_default=True,
              metavar="MINUTES", help="With --install: how often.")
@click.option("--dry-run", is_flag=True, help="With --install or --uninstall: show it, and write nothing.")
@click.option("--env-file", type=click.Path(path_type=Path), metavar="FILE",
              help="NAME=VALUE lines for what the environment does not hold, such as keys: a timer has no shell.")
@common_options
def command(most: int, runs: tuple[str, ...], owners: tuple[str, ...], install: bool | None, timer: str | None,
            minutes: int, dry_run: bool, env_file: Path | None) -> int:  # fmt: skip
    """Release machines whose run is over or past its deadline, and free what dead runs hold. Living runs are spared.

    It needs the providers' keys alone: where no ledger knows a machine, its label says whose it is and until when.
    Exit code 6 when something may still bill; with --run or --owner also when a provider did not answer.
    """
    import os
    from dataclasses import asdict

    from launcher.clock import SystemClock
    from launcher.errors import ExitCode
    from launcher.home import Home
    from launcher.reaper import reap
    from launcher.reaper.alarm import raise_alarm
    from launcher.reaper.environment import over_of, read_environment

    ctx, clock = context(), SystemClock()
    home = Home.find(ctx.home)
    if install is not None:
        return _timer(ctx.out, home, timer, minutes, install=install, dry_run=dry_run)
    if env_file is not None:
        read_environment(env_file)
    over = over_of(runs, owners)
    ledger, problem = _ledger(home, clock)
    done = reap(home, ledger, clock, most, over)
    done.notes += [problem] if problem else []
    done.notes += raise_alarm(home, done, clock, os.environ)
    _say(ctx.out, done)
    code = ExitCode.RELEASE_PENDING if done.pending or (over and done.unknown) else ExitCode.OK
    ctx.out.result({**asdict(done), "exit": int(code)})
    return int(code)


def _ledger(home: Home, clock: Clock) -> tuple[Ledger | None, str]:
    """The ledger, and why there is none: labels alone still tell what is past its deadline."""
    from launcher.errors import LedgerError, StateError
    from launcher.ledger import Ledger

    try:
        return Ledger.open(home, clock), ""
    except (LedgerError, StateError, OSError) as error:
        return None, f"{error} Labels alone were gone by."


def _say(out: Output, done: Reaped) -> None:
    for fact in done.freed:
        money = f"${fact['reserved_usd']} of budget {fact['budget']} are free again; " if "budget" in fact else ""
        out.say(f"run {fact['run']}: {money}{fact['why']}")
    for fact in done.released:
        charged = f", ${fact['charged_usd']} charged" if "charged_usd" in fact else ""
        first, again = (text[11:19] for text in fact["proof"])  # ISO 8601: the time of day
        box = f"; its watchdog had ended all work at {fact['watchdog']['at'][11:19]}" if "watchdog" in fact else ""
        out.say(f"released {_machine(fact)}{charged}: absent {first}, absent again {again} UTC{box}", "green")
    for fact in done.seen:
        ends = f" until {fact['deadline'][:16].replace('T', ' ')} UTC" if "deadline" in fact else ""
        out.say(f"left alone {_machine(fact)}, ${fact['usd_per_hour']}/h{ends}: {fact['why']}")
    from launcher.reaper.alarm import in_words

    for fact in done.pending:
        out.warn(f"STILL BILLING? {in_words(fact)}")
    for fact in done.unknown:
        out.warn(f"{fact['provider']}: {fact['why']}. What it rents to us is unknown.")
    for note in done.notes:
        out.warn(note)
    if not any(vars(done).values()):
        out.say("nothing to reap")


def _timer(out: Output, home: Home, timer: str | None, minutes: int, *, install: bool, dry_run: bool) -> int:
    from launcher.reaper.timer import plan_timer

    planned = plan_timer(home, timer, minutes)
    done = (planned.install if install else planned.uninstall)(out.say, dry_run=dry_run)
    out.result({**done, "exit": 0})
    return 0


def _machine(fact: Fact) -> str:
    return f"{fact['provider']} {fact['label']} (run {fact['run']})"
