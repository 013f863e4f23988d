"""What travels: the recipes' code, manifests rewritten to resolve there, only the audio they name, hashes.

code/recipes/...           the recipes, as they are here: what ran is what was hashed
data/<name>.jsonl          manifests; audio_filepath relative to data/
data/audio/<sha256>.<ext>  the audio, named by its content
data/tokenizer.model       the tokenizer of a new language, when the job names one
base.nemo                  the base model, when it is a file of the user's
base/                      a teacher's folder, when it is one of the user's
bundle.json                every file with its size and SHA-256, and where each audio file came from
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recipes
from launcher.errors import BadInputError, RecipeError
from recipes.contract import sha256_of, write_json
from recipes.manifest import read_manifest, write_manifest
from recipes.pseudo_label.spec import FILTERED, LABELLED

INDEX = "bundle.json"
TOKENIZER = "tokenizer.model"  # in data/


@dataclass(frozen=True)
class Bundle:
    """A staged folder, and the way back: bundle audio path -> the path as the user wrote it."""

    root: Path
    digest: str
    bytes: int
    homeward: dict[str, str]

    @classmethod
    def load(cls, root: Path) -> Bundle:
        """A bundle staged earlier; raises FileNotFoundError when it was not finished."""
        index = json.loads((root / INDEX).read_text(encoding="utf-8"))
        return cls(root, index["digest"], index["bytes"], index["homeward"])


def audio_path(row: Mapping[str, Any], manifest: Path) -> Path:
    """Where a row's audio is: absolute, or relative to its manifest's folder."""
    return (manifest.parent / Path(str(row["audio_filepath"])).expanduser()).absolute()


def stage(
    root: Path, manifests: Mapping[str, Path], base: Path | None, *, link: bool, tokenizer: Path | None = None
) -> Bundle:
    """Build a bundle in `root` (replaced when half-built, reused when whole).

    `link` puts symbolic links instead of copies of audio and base: for a host that sees the same disk.
    Raises BadInputError when audio that a manifest names is missing.
    """
    try:
        return Bundle.load(root)
    except (FileNotFoundError, ValueError, KeyError):
        shutil.rmtree(root, ignore_errors=True)
    audio_dir = root / "data" / "audio"
    audio_dir.mkdir(parents=True)
    rows = {name: read_manifest(path) for name, path in manifests.items()}
    sources = sorted({audio_path(row, manifests[name]) for name, held in rows.items() for row in held})
    names = _content_names(sources)
    files: dict[str, dict[str, Any]] = {}
    for source, name in names.items():
        relative = f"data/audio/{name}"
        if relative not in files:
            _place(source, root / relative, link=link)
            files[relative] = {"bytes": source.stat().st_size, "sha256": name[:64]}
    homeward: dict[str, str] = {}
    for name, held in rows.items():
        there = []
        side = "train" if name.endswith("train") else "validation"  # so that a score can say what it is of
        split = {} if name == "unlabelled" else {"split": side}
        for row in held:
            moved = f"audio/{names[audio_path(row, manifests[name])]}"
            homeward[f"{name}:{moved}"] = str(row["audio_filepath"])
            there.append({**row, "audio_filepath": moved, **split})
        write_manifest(root / "data" / f"{name}.jsonl", there)
        files[f"data/{name}.jsonl"] = _facts(root / "data" / f"{name}.jsonl")
    for source, place in _files_of_base(base):
        (root / place).parent.mkdir(exist_ok=True)
        _place(source, root / place, link=link)
        files[place] = _facts(source)
    if tokenizer is not None:
        _place(tokenizer, root / "data" / TOKENIZER, link=link)
        files[f"data/{TOKENIZER}"] = _facts(tokenizer)
    stage_code(root / "code")
    for path in sorted((root / "code").rglob("*.py")):
        files[path.relative_to(root).as_posix()] = _facts(path)
    total = sum(int(facts["bytes"]) for facts in files.values())
    write_json(root / "files.json", files)
    digest = sha256_of(root / "files.json")
    write_json(root / INDEX, {"digest": digest, "bytes": total, "files": files, "homeward": homeward})
    return Bundle(root, digest, total, homeward)


def place_of(base: str) -> str:
    """Where in a bundle a base of the user's lies."""
    return "base.nemo" if base.endswith(".nemo") else "base"


def _files_of_base(base: Path | None) -> list[tuple[Path, str]]:
    """The file of a base, or what of a teacher's folder it is opened from: (where it is, its place in the bundle)."""
    if base is None:
        return []
    if not base.is_dir():
        return [(base, place_of(str(base)))]
    found = sorted(file for file in base.iterdir() if file.is_file() and not file.name.startswith("."))
    weights = [file for file in found if file.suffix == ".safetensors"]
    weights = weights or [file for file in found if file.name.startswith("pytorch_model") and file.suffix == ".bin"]
    rest = [file for file in found if file.suffix in (".json", ".txt")]
    return [(file, f"{place_of(str(base))}/{file.name}") for file in [*weights, *rest]]


def stage_code(target: Path) -> None:
    """Copy the recipes package alone: nothing of the launcher, nor of its environment, goes along."""
    source = Path(recipes.__file__).parent
    for path in sorted(source.rglob("*")):
        if path.is_dir() or path.suffix == ".pyc" or "__pycache__" in path.parts:
            continue
        copy = target / "recipes" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)  # not its mode: an installation's files are anybody's to read


def code_digest(*packages: str) -> str:
    """One digest over the named parts of the recipes package: it changes when what they compute may change."""
    import hashlib

    root = Path(recipes.__file__).parent
    paths = sorted(path for name in packages for path in (root / name).rglob("*.py"))
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(root).as_posix()}\0{sha256_of(path)}\n".encode())
    return total.hexdigest()


def bring_home(folder: Path, name: str, homeward: Mapping[str, str]) -> None:
    """Give row files (`offline_hyps.jsonl`, `per_sample.json`, `results.csv`) the user's own audio paths again."""
    prefix = f"{name}:"
    back = {there.removeprefix(prefix): here for there, here in homeward.items() if there.startswith(prefix)}
    for labels in (folder / LABELLED, folder / FILTERED):
        if labels.exists():
            write_manifest(labels, [_label_home(row, back, labels) for row in read_manifest(labels)])
    hypotheses = folder / "offline_hyps.jsonl"
    if hypotheses.exists():
        rows = [json.loads(line) for line in hypotheses.read_text(encoding="utf-8").splitlines() if line]
        write_manifest(hypotheses, [{**row, "audio_filepath": _back(row["audio_filepath"], back)} for row in rows])
    for file in ("per_sample.json", "score.json"):
        if (folder / file).exists():
            held = json.loads((folder / file).read_text(encoding="utf-8"))
            write_json(folder / file, _rename_paths(held, back))
    table = folder / "results.csv"
    if table.exists():
        import csv
        import io

        with table.open(newline="", encoding="utf-8") as text:
            lines = list(csv.DictReader(text))
        if lines:
            buffer = io.StringIO()
            writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({**r, "audio_filepath": _back(r["audio_filepath"], back)} for r in lines)
            from recipes.contract import write_atomic

            write_atomic(table, buffer.getvalue())


def relink(run_dir: Path, sent: Path | None = None) -> None:
    """Give the home copy of `finetune.yaml` what it names: the audio and the base, as links into the bundle.

    So NVIDIA's own script takes that file here as it did on the machine; nothing is copied. `sent`: the bundle as it
    was sent, where that is not RUN/bundle.
    """
    root = sent or run_dir / "bundle"
    data, audio = run_dir / "data", root / "data" / "audio"
    if not data.is_dir():
        return
    for manifest in sorted(data.glob("*.jsonl")):
        for row in read_manifest(manifest):
            link = data / str(row["audio_filepath"])
            source = audio / link.name
            if source.exists() and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(source, link.parent))
    base = root / "base.nemo"
    if base.exists() and not (data / "base.nemo").exists():
        (data / "base.nemo").symlink_to(os.path.relpath(base, data))


def _rename_paths(held: Any, back: Mapping[str, str]) -> Any:
    if isinstance(held, dict):
        return {
            key: _back(value, back)
            if key == "audio_filepath" and isinstance(value, str)
            else _rename_paths(value, back)
            for key, value in held.items()
        }
    return [_rename_paths(item, back) for item in held] if isinstance(held, list) else held


def _back(path: str, back: Mapping[str, str]) -> str:
    """The user's own path of a row; a recipe may have made the path absolute on its machine."""
    marker = path.rfind("audio/")
    return back.get(path[marker:] if marker >= 0 else path, path)


def _label_home(row: dict[str, Any], back: Mapping[str, str], file: Path) -> dict[str, Any]:
    """A label with the user's own path; none of audio that was not sent, which would be read, and sent, later."""
    there = str(row.get("audio_filepath"))
    here = _back(there, back)
    if here not in back.values():
        raise RecipeError("a label is of audio that was not sent", file=file, key="audio_filepath", value=there)
    why = {"why": str(row["why"]).replace(there, here)} if "why" in row else {}
    return {**row, "audio_filepath": here, **why}


def _content_names(sources: list[Path]) -> dict[Path, str]:
    missing = [path for path in sources if not path.is_file()]
    if missing:
        raise BadInputError(
            f"{len(missing)} audio files are missing, the first is {missing[0]}.",
            fix="See them all with: launcher manifest check",
        )
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(sha256_of, sources))
    names: dict[Path, str] = {}
    copies: Counter[str] = Counter()
    for path, digest in zip(sources, digests, strict=True):
        # Two files of the same bytes stay two rows: hypotheses are matched to rows by their path.
        copy = f"-{copies[digest]}" if copies[digest] else ""
        copies[digest] += 1
        names[path] = f"{digest}{copy}{path.suffix.lower()}"
    return names


def _place(source: Path, target: Path, *, link: bool) -> None:
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
