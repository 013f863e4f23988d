"""`launcher init`: a commented job.yaml and budgets.yaml to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.cli import common_options, context

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.money import Usd

NO_MANIFEST = (".csv", ".tsv", ".txt")
ELSE = "another: a path ending in .nemo, or a pretrained name"


@click.command(short_help="Write a commented job.yaml and budgets.yaml.")
@click.argument("folder", metavar="[DIR]", default=".")
@click.option("--manifest", metavar="FILE", help="Your recordings: a NeMo manifest (launcher import makes one).")
@click.option("--general", metavar="FILE", help="Everyday speech that the model must not forget: a NeMo manifest.")
@click.option("--base", metavar="MODEL", help="The model to start from: a .nemo file, or a pretrained name.")
@click.option("--per-run", metavar="USD", help="The most one run may cost, in dollars.")
@click.option("--force", is_flag=True, help="Overwrite a job.yaml or budgets.yaml that is there.")
@common_options
def command(
    folder: str, manifest: str | None, general: str | None, base: str | None, per_run: str | None, force: bool
) -> int:
    """Write a commented job.yaml and budgets.yaml into DIR (default: here), asking where there is a terminal."""
    from pathlib import Path

    from launcher import starter
    from launcher.budgets import FILE_NAME

    out = context().out
    target = Path(folder).expanduser().absolute()
    if not force:  # before any question is asked
        starter.refuse_existing(target, (starter.JOB, FILE_NAME))
    if out.interactive:
        manifest, base, per_run = _ask(manifest, base, per_run)
    found, everyday = _place(target, manifest, "--manifest"), _place(target, general, "--general")
    files = {
        starter.JOB: starter.job_yaml(found or "data/manifest.jsonl", _base(target, base), everyday),
        FILE_NAME: starter.budgets_yaml(_dollars(per_run)),
    }
    written = starter.write_starter(target, files)
    for path in written:
        out.say(f"wrote {path}")
    plan = f"launcher plan {written[0]}"
    out.say(f"next: {plan}" if found else f"next: launcher import RECORDINGS --out {target / 'data'}, then {plan}")
    out.result({"files": [str(path) for path in written]})
    return 0


def _ask(manifest: str | None, base: str | None, per_run: str | None) -> tuple[str | None, str | None, str | None]:
    """Ask for what was not given; Ctrl-C ends the command with nothing written."""
    import questionary

    from launcher.budgets import BUILT_IN
    from recipes.models.bases import BASES

    if manifest is None:
        asked = questionary.path("Your manifest (empty: none yet)", validate=_is_file_or_empty).unsafe_ask()
        manifest = asked.strip() or None
    if base is None:
        choices = [questionary.Choice(f"{b.name}  ({b.languages}; {b.note})", b.name) for b in BASES if b.recommended]
        base = questionary.select("The model to start from", [*choices, questionary.Choice(ELSE, "")]).unsafe_ask()
        base = base or questionary.text("Which", validate=_is_base).unsafe_ask().strip() or None
    if per_run is None:
        usual = str(BUILT_IN.budgets[BUILT_IN.default].per_run_usd)
        per_run = questionary.text("The most one run may cost, in dollars", usual, validate=_is_money).unsafe_ask()
    return manifest, base, per_run


def _is_file_or_empty(text: str) -> bool | str:
    from pathlib import Path

    if not text.strip():
        return True
    path = Path(text.strip()).expanduser()
    if not path.is_file():
        return "no such file"
    if path.suffix.lower() in NO_MANIFEST:
        return "a table, not a manifest; launcher import makes one of it"
    return True


def _is_base(text: str) -> bool | str:
    from pathlib import Path

    from recipes.models.bases import refusal

    name = text.strip()
    if name.endswith(".nemo"):
        return Path(name).expanduser().is_file() or "no such file"
    return (refusal(name) or True) if name else "a path ending in .nemo, or a pretrained name"


def _is_money(text: str) -> bool | str:
    from launcher.errors import BadInputError

    try:
        _dollars(text)
    except BadInputError as error:
        return error.problem
    return True


def _dollars(text: str | None) -> Usd | None:
    from launcher.errors import BadInputError
    from launcher.money import Usd

    if text is None:
        return None
    try:
        amount = Usd(text.strip().removeprefix("$"))
    except ValueError:
        amount = Usd(-1)
    if amount < 0:
        raise BadInputError(
            "is not an amount of dollars.", key="--per-run", value=text, fix="Such as: --per-run 2.50"
        )
    return amount


def _place(folder: Path, given: str | None, option: str) -> str | None:
    """A file the user named from where they stand, as it is to be written in a file of `folder`."""
    import os
    from pathlib import Path

    from launcher.errors import BadInputError

    if given is None:
        return None
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        fix = "" if option == "--base" else "Make one with: launcher import RECORDINGS --out DIR"
        raise BadInputError(f"no such file: {given}.", key=option, value=given, fix=fix)
    if option != "--base" and path.suffix.lower() in NO_MANIFEST:
        fix = "Make one of it with: launcher import RECORDINGS --out DIR"
        raise BadInputError(f"{given} is a table, not a manifest.", key=option, value=given, fix=fix)
    near = os.path.relpath(path, folder)
    return str(path) if near.startswith("../..") else near


def _base(folder: Path, given: str | None) -> str | None:
    from launcher.errors import BadInputError
    from recipes.models.bases import refusal

    if given is None:
        return None
    if given.endswith(".nemo"):
        place = _place(folder, given, "--base")
        return place if place is None or place.startswith(("/", ".")) else f"./{place}"
    why = refusal(given)
    if why:
        raise BadInputError(why, key="--base", value=given)
    return given
