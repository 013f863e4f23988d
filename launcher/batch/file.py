"""The batch file: a list of jobs, a matrix over keys of a job, or both, parsed into checked jobs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from launcher.batch.overrides import Changes, load_changed
from launcher.configfile import ConfigFile, KeyPath, dotted
from launcher.errors import BadInputError, nearest
from launcher.job import Job
from launcher.money import ZERO, Usd
from recipes.contract import sha256_of

MOST_JOBS = 500  # a matrix of five keys with four values each is twice that: a slip, or a year of renting
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Listed(_Part):
    """One job of the list: its file, and the keys of it that this batch writes over."""

    job: str = Field(min_length=1, description="path of a job file, relative to the batch file")
    name: str | None = Field(None, min_length=1, max_length=60, description="what tables call it")
    changes: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="keys of the job file to write over: {spec.max_steps: 200}"
    )


class Matrix(_Part):
    """Every combination of values over keys of one job."""

    job: str = Field(min_length=1, description="path of a job file, relative to the batch file")
    over: dict[str, list[Any]] = Field(description="key of the job file -> its values: {spec.seed: [1, 2]}")


class BatchFile(_Part):
    """The file as written; the jobs it names are read by `load_batch`."""

    name: str = Field("", max_length=60, description="part of what makes it this batch: change it to run again")
    budget: str | None = Field(None, description="a name in budgets.yaml for the whole batch; absent: the jobs' own")
    total_usd: Usd | None = Field(None, description="most the whole batch may cost, across midnight too")
    pack: bool = Field(True, description="let jobs share a machine, one after another, where that is cheaper")
    concurrency: int | None = Field(None, ge=1, description="runs at the same time")
    wait_hours: Annotated[float, Field(ge=0, le=744, description="longest it waits with nothing running")] = 24.0
    jobs: list[Listed] = Field(default_factory=list, description="job files")
    matrix: Matrix | None = None
    notify: list[str] = Field(default_factory=list, description="names of environment variables, not addresses")

    @field_validator("jobs", mode="before")
    @classmethod
    def _plain_paths(cls, jobs: Any) -> Any:
        """`- a.yaml` is short for `- job: a.yaml`."""
        if not isinstance(jobs, list):
            raise ValueError("must be a list: a line - a.yaml, or - {job: a.yaml, with: {…}}, for each job")
        return [{"job": job} if isinstance(job, str) else job for job in jobs]

    @field_validator("total_usd")
    @classmethod
    def _positive(cls, total: Usd | None) -> Usd | None:
        if total is not None and total <= ZERO:
            raise ValueError("an amount of dollars must be more than 0 (leave it out where all is free)")
        return total

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, data: Any) -> Any:
        """A section left empty (`notify:` with nothing under it) means none."""
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


@dataclass(frozen=True)
class Item:
    """One job of a batch. `same_as` is the index of an earlier item that is the very same run."""

    index: int
    name: str
    job: Job
    key: str
    same_as: int | None = None


@dataclass(frozen=True)
class Batch:
    """A batch file whose every job has been checked."""

    path: Path
    file: BatchFile
    items: tuple[Item, ...]
    config: ConfigFile  # where each key stands

    @property
    def key(self) -> str:
        """The same for the same jobs under the same name, budget and amount: what a killed batch is found by."""
        own = [self.file.name, self.file.budget, str(self.file.total_usd), [item.key for item in self.items]]
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()

    @property
    def title(self) -> str:
        """What to call it."""
        return self.file.name or self.path.stem


def load_batch(path: Path) -> Batch:
    """Parse a batch file and every job it names; raises BadInputError naming file, line, key, value and fix."""
    if not path.exists():
        raise BadInputError("no such file.", file=path, fix="Write one: jobs: [job.yaml] is enough to begin with.")
    config = ConfigFile(path)
    if "recipe" in config.data or "data" in config.data:
        raise BadInputError("is a job, not a batch.", file=path, fix=f"Run it: launcher run {path}")
    _refuse_addresses(config)
    file = config.parse(BatchFile)
    found: list[tuple[str | None, str, Changes, KeyPath]] = [
        (each.name, each.job, each.changes, ("jobs", index, "with")) for index, each in enumerate(file.jobs)
    ]
    if file.matrix is not None:
        found += [(None, file.matrix.job, one, ("matrix", "over")) for one in _combinations(file.matrix, config)]
    if not found:
        raise BadInputError(
            "names no job.", file=path, fix="List job files under jobs:, or combine values under matrix:."
        )
    if len(found) > MOST_JOBS:
        raise BadInputError(
            f"{len(found):,} jobs are more than a batch may have ({MOST_JOBS}).", file=path,
            line=config.line_of(("jobs",)), key="jobs", fix="Split the file.",
        )  # fmt: skip
    items: list[Item] = []
    digests: dict[Path, str] = {}
    for name, given, changes, at in found:
        _refuse_odd_keys(changes, config, at)
        job = load_changed(_path(given, config, at), changes, config, at)
        key = _key(job, digests)
        same = next((item.index for item in items if item.key == key and item.same_as is None), None)
        shown = _unique(name or _words(Path(given).stem, changes), items)
        items.append(Item(len(items), shown, job, key, same))
    if file.budget is None:
        _refuse_two_budgets(items, path)
    else:
        items = [replace(item, job=replace(item.job, budget=file.budget)) for item in items]
    return Batch(path.absolute(), file, tuple(items), config)


def _combinations(matrix: Matrix, config: ConfigFile) -> list[Changes]:
    """Every combination of the matrix, the last key turning fastest."""
    count = 1
    for key, values in matrix.over.items():
        if not values:
            where = ("matrix", "over", key)
            raise BadInputError(
                "has no values.", file=config.path, line=config.line_of(where), key=f"matrix.over.{key}",
                fix=f"List them: {key}: [1, 2]",
            )  # fmt: skip
        count *= len(values)
    if count > MOST_JOBS:
        shape = " × ".join(str(len(values)) for values in matrix.over.values())
        raise BadInputError(
            f"{shape} = {count:,} combinations are more than a batch may have ({MOST_JOBS}).", file=config.path,
            line=config.line_of(("matrix", "over")), key="matrix.over", fix="Leave values out, or split the file.",
        )  # fmt: skip
    return [dict(zip(matrix.over, values, strict=True)) for values in itertools.product(*matrix.over.values())]


def _refuse_addresses(config: ConfigFile) -> None:
    """An address under notify: is a secret. Refused without repeating it, before anything else could show it."""
    given = config.data.get("notify")
    if given is None:
        return
    for index, name in enumerate(given if isinstance(given, list) else [given]):
        if not isinstance(given, list) or not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise BadInputError(
                "must be a list of names of environment variables: an address holds a secret, and does not belong "
                "into a file.",
                file=config.path, line=config.line_of(("notify", index)), key="notify",
                fix="Write notify: [LAUNCHER_NOTIFY], and in your shell: export LAUNCHER_NOTIFY='<the address>'",
            )  # fmt: skip


def _refuse_odd_keys(changes: Changes, config: ConfigFile, at: KeyPath) -> None:
    for key, value in changes.items():
        where = {"file": config.path, "line": config.line_of((*at, key)), "key": str(key), "value": value}
        if not isinstance(key, str) or not all(key.split(".")):
            raise BadInputError("is no key of a job file.", fix="Write it with dots: spec.max_steps", **where)
        if key == "budget":
            raise BadInputError("one budget holds for the whole batch.", fix="Write budget: beside jobs:.", **where)


def _refuse_two_budgets(items: list[Item], path: Path) -> None:
    named = {item.job.budget: item for item in items}
    if len(named) > 1:
        words = ", ".join(f"{item.job.path.name} names {budget or 'none'}" for budget, item in named.items())
        raise BadInputError(
            f"its jobs stand under different budgets ({words}).", file=path, key="budget",
            fix="Write budget: NAME in the batch file: one holds for the whole batch.",
        )  # fmt: skip


def _path(given: str, config: ConfigFile, at: KeyPath) -> Path:
    keys = (*at[:-1], "job")
    path = (config.path.absolute().parent / Path(given).expanduser()).resolve()
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if there:
        return path
    folder = path.parent
    close = nearest(path.name, [each.name for each in folder.glob("*.y*ml")]) if folder.is_dir() else None
    raise BadInputError(
        "no such job file.", file=config.path, line=config.line_of(keys), key=dotted(keys), value=given,
        fix=f"Did you mean {close}?" if close else "Paths are relative to the batch file.",
    )  # fmt: skip


def _key(job: Job, digests: dict[Path, str]) -> str:
    """The same for the same recipe, settings, data and gate: such jobs are one run."""
    for path in (job.data.manifest, job.data.validation, job.data.general):
        if path is not None and path not in digests:
            digests[path] = sha256_of(path)
    data = job.data.model_dump(mode="json")
    contents = [digests[path] for path in (job.data.manifest, job.data.validation, job.data.general) if path]
    gate = job.gate.model_dump(mode="json") if job.gate else None
    text = json.dumps([job.recipe, job.spec.model_dump(mode="json"), data, contents, gate], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def has_data_of(item: Item) -> bool:
    """Whether a job's data is still what it was when the batch was read."""
    try:
        return _key(item.job, {}) == item.key
    except OSError:
        return False


def _words(stem: str, changes: Changes) -> str:
    """A name for tables: `base method=full learning_rate=0.0001`."""
    parts = [f"{key.rpartition('.')[2]}={_value(value)}" for key, value in changes.items()]
    return " ".join([stem, *parts])[:60]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unique(name: str, items: list[Item]) -> str:
    taken = {item.name for item in items}
    if name not in taken:
        return name
    return next(f"{name} ({n})" for n in itertools.count(2) if f"{name} ({n})" not in taken)
