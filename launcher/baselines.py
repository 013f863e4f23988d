"""Baselines, cached: a base model on the same rows with the same scorer is measured once."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from launcher.bundle import audio_path, code_digest
from launcher.home import Home
from launcher.plan import Plan
from recipes.contract import COMPLETE, read_complete, sha256_of
from recipes.manifest import read_manifest


def key_of(plan: Plan) -> str:
    """Model, held-out rows with their audio's size and time, settings of evaluation and the scorer's own code."""
    base = str(plan.spec.get("base", plan.spec.get("model", "")))
    model = sha256_of(Path(base)) if base.endswith(".nemo") and Path(base).is_file() else base
    parts = [model, plan.recipe, code_digest("evaluate", "scoring", "transcribe")]
    if plan.recipe == "evaluate":
        parts.append(json.dumps(plan.spec, sort_keys=True))
    for name in ("validation", "general_validation"):
        path = plan.data.get(name)
        if path:
            parts.append(sha256_of(Path(path)))
            for row in read_manifest(Path(path)):
                stat = audio_path(row, Path(path)).stat()
                parts.append(f"{stat.st_size}:{stat.st_mtime_ns}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def restore(home: Home, plan: Plan, target: Path) -> bool:
    """Put a cached baseline in place; False when there is none."""
    cached = home.baselines / key_of(plan)
    if read_complete(cached) is None:
        return False
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(cached, part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return True


def keep(home: Home, plan: Plan, source: Path) -> None:
    """Cache a baseline that was just measured."""
    cached = home.baselines / key_of(plan)
    if read_complete(cached) is not None or not (source / COMPLETE).exists():
        return
    cached.parent.mkdir(parents=True, exist_ok=True)
    part = cached.with_name(f".{cached.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    shutil.rmtree(cached, ignore_errors=True)
    part.rename(cached)
