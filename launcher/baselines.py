"""Baselines, cached: a base model on the same rows with the same scorer is measured once."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from launcher.bundle import audio_path, code_digest
from launcher.failpoints import effect
from launcher.home import Home
from launcher.plan import Plan
from recipes.contract import COMPLETE, damaged, read_complete, sha256_of
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


@effect("baseline.restore")
def restore(home: Home, plan: Plan, target: Path) -> bool:
    """Put a cached baseline in place; False when there is none, or none that is whole."""
    cached = home.baselines / key_of(plan)
    if not is_whole(cached):
        return False
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(cached, part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return True


@effect("baseline.keep")
def keep(home: Home, plan: Plan, source: Path) -> None:
    """Cache a baseline that was just measured; another run may be doing the same."""
    cached = home.baselines / key_of(plan)
    if is_whole(cached) or not (source / COMPLETE).exists():
        return
    cached.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{cached.name}.", dir=cached.parent))
    try:
        shutil.copytree(source, part, dirs_exist_ok=True)
        put_in_place(part, cached)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_in_place(made: Path, cached: Path) -> None:
    """Give a finished folder its name in the cache; the one that another run put there first is as good."""
    if is_whole(cached):
        shutil.rmtree(made, ignore_errors=True)
        return
    shutil.rmtree(cached, ignore_errors=True)
    try:
        made.rename(cached)
    except OSError:
        if not is_whole(cached):
            raise


def is_whole(cached: Path) -> bool:
    """Whether a cached baseline has all its files, as they were."""
    listed = read_complete(cached)
    return listed is not None and not damaged(cached, listed)
