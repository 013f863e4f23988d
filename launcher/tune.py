"""What `launcher tune` adds to `launcher run`: recordings become a checked manifest and a job, then a baseline."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from launcher import baselines
from launcher.cli.import_ import describe_import
from launcher.cli.output import Output
from launcher.cli.progress import bar
from launcher.clock import Clock
from launcher.configfile import READ_ERRORS, dotted, explain
from launcher.data import import_recordings
from launcher.errors import BadInputError, GateError, RecipeError
from launcher.home import Home
from launcher.job import Job, fault_of_base, load_job, looks_like_path, recipe_module
from launcher.local_recipe import run_here
from launcher.report.after_run import gate_of
from launcher.viewer.state import Progress, verdict
from launcher.workflow import Planned, refuse_faulty
from recipes.contract import write_atomic
from recipes.scoring import read_score


@dataclass(frozen=True)
class Wishes:
    """What the user asked of `tune`."""

    recordings: Path
    general: Path | None
    base: str | None
    transcripts: Path | None
    out: Path | None
    group_by: str
    priority: tuple[str, ...]
    settings: tuple[str, ...]
    cycle: int
    strict_gate: bool
    budget: str | None


def prepare_job(wishes: Wishes, home: Home, out: Output) -> Job:
    """Import the recordings, check the manifest, and write the job.yaml that `launcher run` would take."""
    spec = parse_settings(wishes.settings)
    if wishes.base is not None:
        spec["base"] = str(Path(wishes.base).expanduser().absolute()) if looks_like_path(wishes.base) else wishes.base
    _refuse_wrong(spec, wishes)  # before minutes go into importing
    folder = (wishes.out or home.corpora / _slug(wishes.recordings)).absolute()
    manifest = _manifest_of(wishes.recordings, folder, wishes.transcripts, out)
    general = _manifest_of(wishes.general, folder / "general", None, out) if wishes.general else None
    for path in (manifest, general):
        if path is not None:
            refuse_faulty(path)
    job: dict[str, Any] = {
        "recipe": "finetune",
        "spec": spec,
        "data": {"manifest": str(manifest), "group_by": wishes.group_by},
        "gate": {"priority": list(wishes.priority), "cycle": wishes.cycle, "advisory": not wishes.strict_gate},
    }
    if general is not None:
        job["data"]["general"] = str(general)
    if wishes.budget is not None:
        job["budget"] = wishes.budget
    text = "# Written by `launcher tune`; run it again with: launcher run job.yaml\n"
    path = folder / "job.yaml"
    write_atomic(path, text + yaml.safe_dump(job, sort_keys=False, allow_unicode=True))
    out.say(f"Job       {path}")
    return load_job(path)


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` pairs with YAML values; raises BadInputError."""
    spec: dict[str, Any] = {}
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise BadInputError("must be KEY=VALUE.", key="--set", value=item, fix="Such as: --set max_steps=200")
        try:
            spec[key.strip()] = yaml.safe_load(value)
        except (RecursionError, *READ_ERRORS):
            raise BadInputError("has a value that cannot be read.", key="--set", value=item) from None
        if isinstance(spec[key.strip()], str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value.strip()):
            spec[key.strip()] = float(value)  # YAML 1.1 reads 1e-3 as text
    return spec


def _refuse_wrong(spec: dict[str, Any], wishes: Wishes) -> None:
    module = recipe_module("finetune")
    model: type[BaseModel] = module.SPEC
    stand_in = {name: "pending" for name in module.DATA_FIELDS if model.model_fields[name].is_required()}
    try:
        checked = model.model_validate({**stand_in, **spec})
    except ValidationError as error:
        problem, fix, keys, value = explain(error, model)
        raise BadInputError(problem, fix=fix, key=f"--set {dotted(keys)}", value=value) from None
    fault = fault_of_base(checked)
    if fault is not None:
        raise BadInputError(fault[0], fix=fault[1], key="--base", value=wishes.base)
    for option, path in (("PATH", wishes.recordings), ("--general", wishes.general)):
        if path is not None and not path.exists():
            raise BadInputError("no such file or folder.", key=option, value=str(path), file=path)


def measure_baseline(planned: Planned, home: Home, out: Output, clock: Clock) -> None:
    """Score the base model here (once per model, data and scorer), say how it does, and ask the gate.

    Raises GateError (exit 7) when the gate is strict and says no.
    """
    plan, prepared = planned.plan, planned.prepared
    place = home.baselines / baselines.key_of(plan)
    if not baselines.is_whole(place):
        out.say(f"Measuring {_name(plan.spec['base'])} on {prepared.validation_rows} held-out clips …")
        home.baselines.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".measuring-{place.name}-", dir=home.baselines))  # two may measure
        spec = {"model": plan.spec["base"], "manifest": prepared.validation,
                "general_manifest": prepared.general_validation}  # fmt: skip
        try:
            with bar(out, "measuring", "clips") as progress:
                run_here("evaluate", spec, work, clock, _teller(out, progress))
            baselines.put_in_place(work, place)
        except RecipeError as error:
            if error.file == str(work / "log.txt"):
                (work / "log.txt").replace(log := home.baselines / f"{place.name}.log")
                error.file = str(log)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    score = read_score(place)[0]
    apart = f", {prepared.grouped_by} apart from training" if prepared.grouped_by else ""
    out.say(f"Baseline  {_name(plan.spec['base'])} on {prepared.validation_rows} held-out clips{apart}")
    figures = [f"WER {_percent(score['micro']['wer'])}"]
    if (score["macro"].get("ker") or {}).get("rate") is not None:
        figures.append(f"keywords missed {_percent(score['macro']['ker'])}")
    if prepared.general_validation:
        general = read_score(place / "general")[0]
        figures.append(f"general set WER {_percent(general['micro']['wer'])}")
    out.say(f"          {'  ·  '.join(figures)}")
    if plan.gate is None:
        return
    decision = gate_of(plan, place)
    if decision is not None:
        out.say(f"Worth tuning? {verdict(decision['decision'])} {' '.join(decision['reasons'])}")
        if decision["decision"] != "tune":
            if not plan.gate.get("advisory"):
                fix = "Without --gate its word is only advice."
                refusal = GateError(f"the gate says {decision['decision']}", fix=fix)
                refusal.facts = {"run": None, "state": "refused", "gate": decision, "released": True}
                raise refusal
            out.say("Going on all the same: that was advice (with --gate it ends here).")


def _manifest_of(given: Path, folder: Path, transcripts: Path | None, out: Output) -> Path:
    """The manifest itself, or the one that importing a folder makes."""
    if given.is_file() and given.suffix in (".jsonl", ".json"):
        return given.absolute()
    with bar(out, "importing", "recordings") as progress:
        found = import_recordings(given, folder, transcripts=(transcripts,) if transcripts else (), progress=progress)
    describe_import(out, found)
    return found.manifest


def _teller(out: Output, shown: Callable[[int, int], None] | None) -> Callable[[dict[str, Any]], None]:
    progress = Progress()

    def tell(event: dict[str, Any]) -> None:
        line = progress.fold(event)
        if shown is not None and event.get("kind") == "progress":
            shown(progress.at_step, progress.total)
        if line and event.get("kind") in ("warning", "note", "trim"):
            out.say(line)

    return tell


def _slug(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.absolute().name).strip("-.") or "recordings"
    return f"{name[:40]}-{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]}"


def _name(base: str) -> str:
    return Path(base).name if base.endswith(".nemo") else base


def _percent(leaf: dict[str, Any]) -> str:
    text = f"{100 * leaf['rate']:.1f}%"
    return text + (f" [{100 * leaf['ci95'][0]:.0f}–{100 * leaf['ci95'][1]:.0f}]" if leaf.get("ci95") else "")
