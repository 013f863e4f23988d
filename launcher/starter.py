"""The commented job.yaml and budgets.yaml that a newcomer starts from, written out of the models' own settings.

Every comment comes from the description of the setting it stands above, so that these files cannot fall behind
the program.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from launcher.budgets import BUILT_IN, FILE_NAME, Budget
from launcher.catalog import Setting, recipe
from launcher.errors import BadInputError
from launcher.job import JobData
from launcher.money import Usd

JOB = "job.yaml"
WIDTH = 100
SHOWN = ("base", "method", "max_steps")  # written out; the rest stand beneath, commented out at their defaults


def job_yaml(manifest: str, base: str | None = None, general: str | None = None, name: str = "finetune") -> str:
    """A job file for the recipe `name`; paths as they are to stand in it."""
    settings = [setting for setting in recipe(name).settings if not setting.from_data]
    given = {"base": base} if base else {}
    shown = [setting for setting in settings if setting.name in SHOWN]
    rest = [setting for setting in settings if setting.name not in SHOWN]
    general_line = f"  general: {scalar(general)}" if general else "  # general: data/general.jsonl"
    lines = [
        "# A job: what to train, on which recordings, within which budget.",
        f"# Read it before it runs, spending nothing: launcher plan {JOB}. Run it: launcher run {JOB}",
        f"recipe: {name}",
        "",
        f"spec:  # the recipe's settings (launcher recipes show {name}); with a #: at their default",
        *(line for setting in shown for line in _setting(setting, given)),
        *(line for setting in rest for line in _setting(setting, None)),
        "",
        "data:",
        *_comment(JobData, "manifest", 2),
        f"  manifest: {scalar(manifest)}",
        *_comment(JobData, "general", 2),
        general_line,
        *_comment(JobData, "validation", 2),
        "  # validation: data/validation.jsonl",
        *_comment(JobData, "group_by", 2),
        "  group_by: auto",
        *_comment(JobData, "sensitivity", 2),
        "  sensitivity: public  # public, internal or phi",
        "",
        "# Measure the base first, and tune only if it is worth it. Take these lines out for no gate.",
        "gate:",
        "  baseline: auto",
        "  priority: []  # entity categories that matter most, such as [drug, procedure]",
        "  cycle: 1  # which round of tuning this is",
        "",
        f"# budget: {BUILT_IN.default}  # a name in {FILE_NAME}; absent means its default",
        "resources:",
        "  providers: [local, vast, runpod, brev]  # local first where it fits: it costs nothing",
        "  gpus: any  # or a list, such as [RTX4090, L40S]",
        "on_overrun: stop  # when the forecast breaks the approved money: stop, ask, or trim the schedule",
    ]
    return "\n".join(lines) + "\n"


def budgets_yaml(per_run_usd: Usd | None = None) -> str:
    """A budgets file with one budget; day and month grow with a per-run cap above the usual one."""
    name, usual = BUILT_IN.default, BUILT_IN.budgets[BUILT_IN.default]
    per_run = usual.per_run_usd if per_run_usd is None else per_run_usd
    caps = {
        "per_run_usd": per_run,
        "per_day_usd": max(usual.per_day_usd, per_run),
        "per_month_usd": max(usual.per_month_usd, per_run),
    }
    values = {field: caps.get(field, getattr(usual, field)) for field in Budget.model_fields}
    lines = [
        "# Budgets: hard caps in US dollars and hours; all of a budget's caps apply at once.",
        "# Nothing is rented above them, whoever types YES. What is left: launcher budget",
        f"default: {name}  # the budget of a job that names none",
        f"time_zone: {BUILT_IN.time_zone}  # where a day and a month begin, such as Europe/Zurich",
        "budgets:",
        f"  {name}:",
    ]
    for field, value in values.items():
        lines += [*_comment(Budget, field, 4), f"    {field}: {_plain(value)}"]
    return "\n".join([*lines, *_FOR_CI]) + "\n"


_FOR_CI = (
    "  # A second budget, for CI or a batch at night, when nobody is there to type YES:",
    "  # nightly:",
    "  #   per_run_usd: 2.00",
    "  #   per_day_usd: 4.00",
    "  #   per_month_usd: 20.00",
    "  #   max_usd_per_hour: 1.00",
    "  #   max_hours: 6",
    "  #   providers: [vast, runpod]",
    "  #   approval: [preapproved]  # launcher run job.yaml --confirm YES --max-cost 2.00",
)


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Raise BadInputError when one of the files is already in the folder."""
    there = [name for name in names if (folder / name).exists()]
    if there:
        fix = "Name another folder, or overwrite with --force."
        raise BadInputError(f"already holds {' and '.join(there)}; nothing was written.", file=folder, fix=fix)


def write_starter(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write the files, over any that are there; BadInputError when the folder cannot be written."""
    parts: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            part = folder / f".{name}.{os.getpid()}.part"
            part.write_text(text, encoding="utf-8")
            parts.append((part, folder / name))
        for part, path in parts:
            part.replace(path)
    except OSError as error:
        for part, _ in parts:
            part.unlink(missing_ok=True)
        raise BadInputError(
            f"cannot be written: {error.strerror}.", file=folder, fix="Name another folder."
        ) from None
    return [path for _, path in parts]


def scalar(text: str) -> str:
    """Text as a YAML scalar: plain where YAML reads it back as the same text, else in double quotes."""
    if re.fullmatch(r"[\w./~-]+", text, re.ASCII) and yaml.safe_load(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_plain(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _comment(model: type[BaseModel], field: str, indent: int) -> list[str]:
    return _wrapped(model.model_fields[field].description or "", indent)


def _wrapped(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    return textwrap.wrap(
        " ".join(text.split()), WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False
    )


def _setting(setting: Setting, given: dict[str, str] | None) -> list[str]:
    """The lines of one setting: live when `given` is a mapping, else commented out."""
    value = (given or {}).get(setting.name, setting.default)
    text = scalar(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    live = "  " if given is not None else "  #"
    return [*_wrapped(setting.description, 2), f"{live}{setting.name}: {text}"]
