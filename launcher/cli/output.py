"""What a verb says, in one of three modes: human, quiet, or one JSON object on stdout."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

NARROWEST = 60  # columns: below it a table loses figures, so lines are broken by the terminal instead
WIDTH_OF_A_FILE = 120  # columns of a table where there is no terminal to ask


def complain(text: str) -> None:
    """Write one line to stderr; on a terminal it is broken between words, paths and commands kept whole."""
    from launcher.redact import redact
    from launcher.visible import one_line

    text = one_line(redact(text))
    if sys.stderr.isatty():
        import shutil
        import textwrap

        columns = shutil.get_terminal_size().columns
        text = textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    sys.stderr.write(f"{text}\n")


def tell(text: str) -> None:
    """Write some lines to stderr as they are, without what is secret or would act on a terminal."""
    from launcher.redact import redact
    from launcher.visible import visible

    sys.stderr.write(visible(redact(text)))


class Output:
    """Where a verb's words go. With `json_mode`, stdout carries one object and nothing else."""

    # No dataclass and no json at the top: `launcher --help` imports this module.
    def __init__(self, json_mode: bool = False, quiet: bool = False) -> None:
        self.json_mode, self.quiet = json_mode, quiet
        self._console: Console | None = None
        self._emitted = False

    @property
    def console(self) -> Console:
        """The rich console for people: stdout, or stderr when stdout belongs to JSON."""
        if self._console is None:
            self._console = _console(stderr=self.json_mode, quiet=self.quiet)
            if not self._console.is_terminal and "COLUMNS" not in os.environ:
                self._console.width = WIDTH_OF_A_FILE
            # COLUMNS=0: nothing at all would be shown before the prompt
            self._console.width = max(self._console.width, NARROWEST)
        return self._console

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: a terminal on both ends, and not JSON."""
        ends = (sys.stdin, sys.stdout)  # None where the caller has closed it
        return not self.json_mode and all(end is not None and end.isatty() for end in ends)

    def say(self, text: RenderableType = "", style: str | None = None) -> None:
        """Tell a person (rich markup is off for plain strings: user data must not be read as markup)."""
        # A file or a pipe gets whole lines: a path broken in two can neither be searched for nor opened.
        whole = isinstance(text, str) and not self.console.is_terminal
        text = _shown(text) if isinstance(text, str) else text
        self.console.print(text, style=style, markup=False, soft_wrap=whole)

    def line(self, text: str) -> None:
        """Tell a person one thing that must stay one line, however long, such as a line of a log."""
        from launcher.redact import redact
        from launcher.visible import one_line

        self.console.print(one_line(redact(text)), markup=False, soft_wrap=True)

    def answer(self, text: str, style: str | None = None) -> None:
        """Say the one word that was asked for: with -q, too."""
        if self.quiet and not self.json_mode:
            sys.stdout.write(f"{_shown(text)}\n")
        else:
            self.say(text, style)

    def ask(self, prompt: str) -> None:
        """Show a prompt and stay on its line: with -q, too."""
        sys.stdout.write(_shown(prompt))
        sys.stdout.flush()

    def warn(self, text: str) -> None:
        """Tell a person something they should not miss, on stderr, in every mode."""
        complain(f"warning: {text}")

    def result(self, payload: dict[str, Any]) -> None:
        """The verb's answer: printed as the one JSON object in JSON mode, dropped otherwise."""
        if not self.json_mode:
            return
        import json

        if self._emitted:
            raise RuntimeError("a verb may answer once")
        self._emitted = True
        ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        from launcher.redact import redacted
        from launcher.visible import escaped

        text = json.dumps(redacted(payload), ensure_ascii=ascii_only, default=str)
        sys.stdout.write(escaped(text) + "\n")
        sys.stdout.flush()


def _shown(text: str) -> str:
    """A person's text: its line ends stay, all else that a terminal acts on is spelled out, no secret is in it."""
    from launcher.redact import redact
    from launcher.visible import visible

    return visible(redact(text))


def _console(*, stderr: bool, quiet: bool) -> Console:
    """A console that draws what strangers wrote (in tables, too) as text: no markup, no escape codes of theirs."""
    from rich.console import Console

    from launcher.visible import visible

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for part in super().render(renderable, options):
                yield part if part.control or part.text.isprintable() else part._replace(text=visible(part.text))

    return Plain(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=False, markup=False, emoji=False)
