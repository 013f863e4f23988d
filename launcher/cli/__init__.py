"""The command line: one file per verb, imported only when that verb is called."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.output import Output, complain, tell
from launcher.cli.unheard import open_streams

if TYPE_CHECKING:
    from pathlib import Path

# verb -> (module, one-line help). The help lives here so that `launcher --help` imports no verb.
VERBS: dict[str, tuple[str, str]] = {
    "tune": ("launcher.cli.tune", "The whole story: recordings in, a better model and a receipt out."),
    "doctor": ("launcher.cli.doctor", "What works here, and the fix for what does not."),
    "init": ("launcher.cli.init", "Write a commented job.yaml and budgets.yaml."),
    "import": ("launcher.cli.import_", "Turn a folder of recordings and transcripts into a manifest."),
    "manifest": ("launcher.cli.manifest", "Check or split a manifest."),
    "evaluate": ("launcher.cli.evaluate", "Transcribe a manifest with a model and score it."),
    "transcribe": ("launcher.cli.transcribe", "Try a model on your own clips."),
    "merge": ("launcher.cli.merge", "A plain .nemo from a base and an adapter."),
    "gate": ("launcher.cli.gate", "Is tuning worth it?"),
    "score": ("launcher.cli.score", "WER, CER, KER and SER with intervals."),
    "decide": ("launcher.cli.decide", "Keep the tuned model, or not?"),
    "recipes": ("launcher.cli.recipes", "List the recipes and their settings."),
    "offers": ("launcher.cli.offers", "What can be rented now, at what price."),
    "plan": ("launcher.cli.plan", "Choose where to run; spends nothing."),
    "render": ("launcher.cli.render", "The SkyPilot task that a plan would use, as YAML."),
    "run": ("launcher.cli.run", "Plan, confirm, execute."),
    "batch": ("launcher.cli.batch", "Many jobs under one budget and one YES."),
    "status": ("launcher.cli.status", "Runs and what they hold."),
    "logs": ("launcher.cli.logs", "What a run printed."),
    "attach": ("launcher.cli.attach", "Watch a run again."),
    "stop": ("launcher.cli.stop", "Collect what there is, then release."),
    "resume": ("launcher.cli.resume", "Go on from the journal."),
    "reap": ("launcher.cli.reap", "Free what dead runs hold; release what is ours and should be gone."),
    "budget": ("launcher.cli.budget", "What is left of each budget."),
    "costs": ("launcher.cli.costs", "What was spent, expected against charged."),
    "report": ("launcher.cli.report", "The report, leaderboards and receipt of a run."),
}


class Context:
    """What every verb gets: where state lives and how to speak."""

    def __init__(self, out: Output, home: Path | None = None) -> None:
        self.out, self.home = out, home


class _LazyGroup(click.Group):
    """A click group that knows its verbs by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(VERBS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from launcher.errors import nearest

            close = nearest(args[0], VERBS) if args else None
            if close:
                error.message += f" Did you mean {close}?"
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().ensure_object(dict)["json"] = True


def _set_quiet(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().ensure_object(dict)["quiet"] = True


def _set_home(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value:
        ctx.find_root().ensure_object(dict)["home"] = value


def common_options(command: Any) -> Any:
    """The options every verb takes: `--json`, `-q` and `--home DIR` (also accepted before the verb)."""
    for option in (
        click.option("--home", metavar="DIR", expose_value=False, callback=_set_home, is_eager=True,
                     help="Where runs and the ledger live (default: $LAUNCHER_HOME)."),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_set_quiet, is_eager=True,
                     help="Say only what must be said."),
        click.option("--json", is_flag=True, expose_value=False, callback=_set_json, is_eager=True,
                     help="One JSON object on stdout; everything else on stderr."),
    ):  # fmt: skip
        command = option(command)
    return command


def context() -> Context:
    """The current verb's context, from the options given before or after the verb."""
    root = click.get_current_context().find_root()
    given: dict[str, Any] = root.ensure_object(dict)
    if "context" not in given:
        from pathlib import Path

        from launcher import redact

        redact.install()  # from here on no secret leaves this process by its streams or its files

        home = Path(given["home"]).expanduser() if given.get("home") else None
        given["context"] = Context(Output(bool(given.get("json")), bool(given.get("quiet"))), home)
    ready: Context = given["context"]
    return ready


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@common_options
@click.version_option(package_name="parakeet-launcher", prog_name="launcher")
def root() -> None:
    """Recordings with transcripts in, a better speech model and an honest score out.

    Begin with: launcher doctor, then launcher tune FOLDER
    """


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected error is one line, never a traceback."""
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    finally:
        if argv is not None and "launcher.redact" in sys.modules:  # who called us goes on to other things
            sys.modules["launcher.redact"].uninstall()


def _main(args: list[str]) -> int:
    json_mode = "--json" in args
    open_streams()
    try:
        _end_on_sigterm()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a file name may be no text at all
        code = root.main(args=args, prog_name="launcher", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        # Python remembers an interrupt that met an exec of text (a dataclass being made, during an import) as one
        # that nobody handled, and would kill itself at exit instead of returning 130; the next exec makes it forget.
        exec("")  # noqa: S102
        if json_mode:
            Output(json_mode=True).result({"error": {"message": "interrupted"}, "exit": 130})
        sys.stderr.write("interrupted\n")
        return 130
    except click.ClickException as error:
        if json_mode:
            Output(json_mode=True).result({"error": {"message": error.format_message()}, "exit": 2})
        said = io.StringIO()
        error.show(said)
        tell(said.getvalue())
        return 2
    except BrokenPipeError:  # who read our output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  what we did not foresee is told in a line, too
        from launcher.errors import BadInputError, LauncherError, StateError
        from recipes.manifest import ManifestError

        if isinstance(error, ManifestError):
            error = BadInputError(
                error.problem, fix=error.fix, file=error.file, line=error.line, key=error.key, value=error.value
            )
        elif isinstance(error, OSError):  # a full disk, a folder that may not be written, a file that went away
            error = StateError(f"{error.strerror or error}.", file=error.filename)
        if not isinstance(error, LauncherError):
            return _fault(error, json_mode)
        if json_mode:
            Output(json_mode=True).result({"error": error.as_json(), "exit": int(error.exit_code), **error.facts})
        complain(f"error: {error}")
        return int(error.exit_code)


def _fault(error: Exception, json_mode: bool) -> int:
    """Tell of a fault of our own: one line, and a file with the whole story for whoever mends it. Exit code 1."""
    from launcher import crash
    from launcher.home import Home

    told = crash.words(error, crash.keep(error, Home.find().root))
    if json_mode:
        Output(json_mode=True).result({"error": {"message": told}, "exit": 1})
    complain(f"error: {told}")
    return 1


def _end_on_sigterm() -> None:
    """SIGTERM ends a verb as Ctrl-C does: what it started here is ended too, and the exit code says so."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
