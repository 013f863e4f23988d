"""The Job: the user's file, parsed once and then trusted."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from launcher.budgets import PROVIDERS, ProviderName, Sensitivity
from launcher.configfile import ConfigFile, KeyPath, dotted
from launcher.errors import BadInputError, nearest
from launcher.offers.gpus import check_gpu
from recipes.models.bases import refusal
from recipes.pseudo_label.spec import PseudoLabelSpec, fault_of_whisper

LABELS = "pseudo_label"  # the recipe that needs no texts
TRAINING_RECIPES = ("finetune", "extend_vocabulary")
RECIPES_OF_A_JOB = (*TRAINING_RECIPES, "evaluate", LABELS)
GpuName = Annotated[str, AfterValidator(check_gpu)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobData(_Part):
    """What the job trains and measures on. Paths are relative to the job file."""

    manifest: Path = Field(
        description="NeMo manifest; split into training and validation unless `validation` is given. Of "
        "pseudo_label: a manifest, its texts not needed, or a folder of audio"
    )
    validation: Path | None = Field(None, description="held-out manifest; then all of `manifest` is for training")
    general: Path | None = Field(
        None, description="everyday speech the model must not forget: a part is replayed, the rest is scored"
    )
    sensitivity: Sensitivity = Field("public", description="phi never leaves for a marketplace host")
    val_fraction: Annotated[float, Field(gt=0, lt=1, description="share of rows held out")] = 0.2
    seed: int = Field(42, description="seed of the split")
    group_by: str = Field(
        "auto", description="a row field whose groups never straddle; auto: voice_id if it can; none"
    )


class JobGate(_Part):
    """Whether tuning must first prove worth it."""

    baseline: Path | Literal["auto"] = Field("auto", description="per_sample.json of an earlier evaluation, or auto")
    priority: tuple[str, ...] = Field((), description="entity categories that matter most")
    cycle: Annotated[int, Field(ge=1, description="which round of tuning this is")] = 1
    advisory: bool = Field(False, description="true: say what the gate says, and go on whatever it is")


class JobResources(_Part):
    """Where it may run."""

    providers: tuple[ProviderName, ...] = Field(
        PROVIDERS, min_length=1, description="who may be used"
    )
    gpus: Literal["any"] | tuple[GpuName, ...] = Field("any", description="any, or GPU names")
    nodes: Annotated[int, Field(ge=1, le=64, description="machines")] = 1
    provision_timeout_s: Annotated[float, Field(ge=10, le=7200)] | None = Field(
        None, description="seconds until a rented machine must answer, or the next is tried; absent: the provider's"
    )
    via: Literal["auto", "direct", "skypilot"] = Field(
        "auto", description="engine, where both can rent: auto takes SkyPilot for RunPod, ourselves for Vast and Brev"
    )


class JobFile(_Part):
    """The file as written; `spec` is checked against the recipe's own settings by `load_job`."""

    recipe: str = Field("finetune", description="which recipe")
    spec: dict[str, Any] = Field(default_factory=dict, description="the recipe's own settings")
    data: JobData
    gate: JobGate | None = Field(None, description="absent means no gate")
    budget: str | None = Field(None, description="a name in budgets.yaml; absent means its default")
    resources: JobResources = JobResources()
    on_overrun: Literal["stop", "ask", "trim"] = Field("stop", description="when the forecast breaks the ceiling")

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, data: Any) -> Any:
        """A section left empty (`spec:` with nothing under it) means its defaults."""
        if isinstance(data, dict):
            return {k: v for k, v in data.items() if v is not None or k in ("data", "recipe")}
        return data


@dataclass(frozen=True)
class Job:
    """A job whose every value has been checked, its paths made absolute."""

    path: Path
    recipe: str
    spec: BaseModel
    spec_given: dict[str, Any]
    data: JobData
    gate: JobGate | None
    budget: str | None
    resources: JobResources
    on_overrun: Literal["stop", "ask", "trim"]


def recipe_module(name: str) -> Any:
    """The torch-free `recipes.<name>.spec` module: SPEC (pydantic model), SUMMARY, DATA_FIELDS."""
    return importlib.import_module(f"recipes.{name}.spec")


def load_job(path: Path, config: ConfigFile | None = None) -> Job:
    """Parse and check a job file (or the form of it that a batch gives); raises BadInputError with file and line."""
    path = _resolved(path, Path.cwd())
    config = config or ConfigFile(path)
    file = config.parse(JobFile)
    if file.recipe not in RECIPES_OF_A_JOB:
        close = nearest(file.recipe, RECIPES_OF_A_JOB)
        raise BadInputError(
            f"{file.recipe!r} is no recipe a job can run.",
            fix=f"Did you mean {close}?" if close else f"There is: {', '.join(RECIPES_OF_A_JOB)}.",
            file=path, line=config.line_of(("recipe",)), key="recipe", value=file.recipe,
        )  # fmt: skip
    given = dict(file.spec)
    for key in ("base", "model"):
        named = given.get(key)
        is_folder = file.recipe == LABELS and isinstance(named, str) and (path.parent / named).is_dir()
        if isinstance(named, str) and (looks_like_path(named) or is_folder):
            given[key] = str(_resolved(named, path.parent, config, ("spec", key)))
    if isinstance(given.get("tokenizer"), str):
        given["tokenizer"] = str(_resolved(given["tokenizer"], path.parent, config, ("spec", "tokenizer")))
    for key, verb in (("hypotheses", "score REF HYP"), ("against", "evaluate MODEL MANIFEST --against HYP")):
        if file.recipe == "evaluate" and given.get(key) is not None:
            raise BadInputError(
                "a job transcribes with a model.", fix=f"Transcripts made elsewhere: launcher {verb}",
                file=path, line=config.line_of(("spec", key)), key=f"spec.{key}", value=given[key],
            )  # fmt: skip
    spec = check_spec(config, file.recipe, given)
    data = file.data.model_copy(
        update={
            name: _resolved(value, path.parent, config, ("data", name))
            for name in ("manifest", "validation", "general")
            if (value := getattr(file.data, name)) is not None
        }
    )
    if file.recipe == LABELS:
        _refuse_beside_labels(config, file)
    for name in ("manifest", "validation", "general"):
        value = getattr(data, name)
        if value is not None and not value.is_file() and not (file.recipe == LABELS and value.is_dir()):
            raise BadInputError(
                "no such file.", fix="Make one with: launcher import RECORDINGS --out DIR",
                file=path, line=config.line_of(("data", name)), key=f"data.{name}", value=str(value),
            )  # fmt: skip
    _refuse_faulty_whole(config, file.recipe, spec, has_general=data.general is not None)
    gate = file.gate
    if gate is not None and isinstance(gate.baseline, Path):
        baseline = _resolved(gate.baseline, path.parent, config, ("gate", "baseline"))
        if not baseline.is_file():
            raise BadInputError(
                "no such file.", fix="Name a per_sample.json of an earlier evaluation, or write: baseline: auto",
                file=path, line=config.line_of(("gate", "baseline")), key="gate.baseline", value=str(baseline),
            )  # fmt: skip
        from recipes.scoring import read_per_sample

        read_per_sample(baseline)  # its faults are said now, not after an hour
        gate = gate.model_copy(update={"baseline": baseline})
    return Job(path, file.recipe, spec, given, data, gate, file.budget, file.resources, file.on_overrun)


def _refuse_beside_labels(config: ConfigFile, file: JobFile) -> None:
    """A job that labels neither trains nor measures: what is only for that is a mistake of the job's."""
    data = file.data
    given = {("data", "validation"): data.validation, ("data", "general"): data.general, ("gate",): file.gate}
    for keys, value in given.items():
        if value is not None:
            raise BadInputError(
                "is not for a job that labels: it neither trains nor scores.",
                fix="Remove it here; name the labels as data.manifest of a finetune job.",
                file=config.path, line=config.line_of(keys), key=".".join(keys),
            )  # fmt: skip


def _resolved(given: str | Path, folder: Path, config: ConfigFile | None = None, keys: KeyPath = ()) -> Path:
    """An absolute path; BadInputError for a name that no file can have."""
    try:
        path = (folder / Path(given).expanduser()).resolve()
        path.is_file()
        str(path).encode()
    except (OSError, RuntimeError, ValueError) as error:
        words = (error.strerror or "cannot be read") if isinstance(error, OSError) else "is not a path of this system"
        raise BadInputError(
            f"{words}.", fix="Give the path of a file.", file=config.path if config else None,
            line=config.line_of(keys) if config else None, key=dotted(keys) or "JOB", value=str(given),
        ) from None  # fmt: skip
    return path


def _refuse_faulty_whole(config: ConfigFile, recipe: str, spec: BaseModel, *, has_general: bool) -> None:
    """Raise BadInputError for what a recipe finds wrong with its settings and the data together."""
    look = getattr(recipe_module(recipe), "fault_of_job", None)
    fault = look(spec, has_general=has_general) if look else None
    if fault is not None:
        (section, name), problem, fix = fault
        value = getattr(spec, name, None) if section == "spec" else None
        where = config.line_of((section, name)) or config.line_of((section,))
        raise BadInputError(problem, fix=fix, file=config.path, line=where, key=f"{section}.{name}", value=value)


def check_spec(config: ConfigFile, recipe: str, given: dict[str, Any]) -> BaseModel:
    """The recipe's settings, checked; the fields the launcher fills from `data` may not be given."""
    module = recipe_module(recipe)
    model: type[BaseModel] = module.SPEC
    data_fields: frozenset[str] = frozenset(module.DATA_FIELDS)
    for key, value in given.items():
        if key in data_fields:
            raise BadInputError(
                "is filled in from `data`.", fix="Name the file under data: instead.",
                file=config.path, line=config.line_of(("spec", key)), key=f"spec.{key}", value=value,
            )  # fmt: skip
    # Required data fields get a stand-in, so that the user's own settings are checked now.
    stand_in = {n: "pending" for n in data_fields if model.model_fields[n].is_required()}
    spec = config.parse(model, ("spec",), {**stand_in, **given})
    fault = fault_of_base(spec)
    if fault is not None:
        key = "base" if "base" in given else "model" if "model" in given else "base"
        where = config.line_of(("spec", key))
        raise BadInputError(
            fault[0], fix=fault[1], file=config.path, line=where, key=f"spec.{key}", value=given.get(key)
        )
    return spec


def fault_of_base(spec: BaseModel) -> tuple[str, str] | None:
    """Why a recipe cannot take its base, and what to do: (problem, fix). By the name the user gave it."""
    base = getattr(spec, "base", getattr(spec, "model", None))
    if not isinstance(base, str):
        return None
    if isinstance(spec, PseudoLabelSpec) and Path(base).is_dir():
        fault = fault_of_whisper(Path(base))
        return (f"{fault}.", "Name a .nemo file, a Whisper's folder, or a pretrained model.") if fault else None
    if looks_like_path(base) and not base.endswith(".nemo"):
        return "a base on this machine must be a .nemo file.", "Name the file itself, or a pretrained model."
    if looks_like_path(base) and not Path(base).is_file():
        return "no such .nemo file.", "Give a path relative to the job file, or a pretrained name."
    trusted = getattr(spec, "trust_base", None)
    if trusted is not None and not looks_like_path(base):
        return "trust_base is for a .nemo file of yours, not for a pretrained name.", "Remove it, or name the file."
    harm = harm_in(Path(base), trusted) if looks_like_path(base) else None
    if harm is not None:
        return harm
    reason = refusal(base)
    if reason is not None and not getattr(spec, "allow_unsupported_base", False):
        return reason, ""
    return None


def harm_in(path: Path, trusted: str | None, trusting: str = "trust_base:") -> tuple[str, str] | None:
    """What a .nemo would do beside being a model, if anything, and the fix. Of a broken one the recipe tells.

    `trusted`: the SHA-256 of a file whose weights may run programs; `trusting`: what a user writes before it.
    """
    from recipes.models.archive import BadModelFile, ForeignWeights, HarmfulModelFile, read_config

    fix = "Get it from who made it, and save it with NeMo."
    try:
        read_config(path, trusted=trusted)
    except ForeignWeights as error:
        words = str(error).removeprefix(f"{path}: ")
        if trusted is not None:
            words = f"{trusting.rstrip(':')} is another file's SHA-256, and {words}"
        return f"{words}.", f"{fix} To let its maker's programs run where it is loaded: {trusting} {error.sha256}"
    except HarmfulModelFile as error:
        return f"{str(error).removeprefix(f'{path}: ')}.", fix
    except BadModelFile:
        return None
    return None


def looks_like_path(base: str) -> bool:
    """Whether a base names a file rather than a pretrained model."""
    return base.endswith(".nemo") or base.startswith((".", "/", "~"))
