"""The steps of a run: which recipe each one calls, with which spec, on which of the bundle's manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.bundle import TOKENIZER, place_of
from launcher.job import looks_like_path
from launcher.plan import Plan
from recipes.finetune.spec import DATA_FIELDS

BEFORE, FINETUNE, AFTER = "before", "finetune", "after"
LABELS = "labels"
TUNED = "adapted_model.nemo"


@dataclass(frozen=True)
class Step:
    """One recipe process. `spec` has box-relative paths under `paths`; `rows` maps output folder -> manifest name."""

    name: str
    recipe: str
    spec: dict[str, Any]
    paths: tuple[str, ...]
    rows: dict[str, str] = field(default_factory=dict)

    def spec_there(self, path_of: Any) -> dict[str, Any]:
        """The spec with absolute paths of that machine."""
        return {k: path_of(v) if k in self.paths and v is not None else v for k, v in self.spec.items()}


def steps_of(plan: Plan) -> list[Step]:
    """What a run of this plan does, in order."""
    has_general = plan.data.get("general_validation") is not None
    named = str(plan.spec.get("base", plan.spec.get("model", "")))
    base_is_file = looks_like_path(named)
    base: str | None = place_of(named) if base_is_file else plan.spec.get("base", plan.spec.get("model"))
    if plan.recipe == "pseudo_label":
        spec = {
            **plan.spec, "model": base, "manifest": "data/unlabelled.jsonl",
            "teacher_name": plan.spec.get("teacher_name") or (Path(named).name if base_is_file else named),
        }  # fmt: skip
        there = ("manifest", "model") if base_is_file else ("manifest",)
        return [Step(LABELS, "pseudo_label", spec, there, {"": "unlabelled"})]
    if plan.recipe == "evaluate":
        return [_evaluate(BEFORE, base, base_is_file, has_general, plan.spec)]
    tokenizer = {"tokenizer": f"data/{TOKENIZER}"} if plan.spec.get("tokenizer") else {}
    finetune = {
        **plan.spec,
        **tokenizer,
        "base": base,
        "train_manifest": "data/train.jsonl",
        "validation_manifest": "data/validation.jsonl",
        "general_manifest": "data/general_train.jsonl" if has_general else None,
        "general_validation_manifest": "data/general_validation.jsonl" if has_general else None,
    }
    paths: tuple[str, ...] = DATA_FIELDS + tuple(tokenizer) + (("base",) if base_is_file else ())
    return [
        _evaluate(BEFORE, base, base_is_file, has_general, {"trust_base": plan.spec.get("trust_base")}),
        Step(FINETUNE, plan.recipe, finetune, paths, {"": "validation"}),
        _evaluate(AFTER, f"out/{FINETUNE}/{TUNED}", True, has_general, {}),
    ]


def _evaluate(name: str, model: Any, is_file: bool, has_general: bool, given: dict[str, Any]) -> Step:
    spec = {
        **given,
        "model": model,
        "manifest": "data/validation.jsonl",
        "general_manifest": "data/general_validation.jsonl" if has_general else None,
    }
    paths = ("manifest", "general_manifest", "model") if is_file else ("manifest", "general_manifest")
    rows = {"": "validation", **({"general": "general_validation"} if has_general else {})}
    return Step(name, "evaluate", spec, paths, rows)
