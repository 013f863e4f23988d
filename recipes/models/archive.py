"""Looks into a .nemo before anything unpacks it: a tar with a config and weights, and nothing that could do harm.

Needs no torch. A .nemo holds a YAML config whose `_target_` keys name classes to build, and a pickled state
dict; both come from strangers. Weights that NeMo saved are plain tensors. Others run their maker's programs when they
are loaded: that is done for a file that is trusted by its very SHA-256, and for nothing else that is wrong with one.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from recipes.contract import sha256_of
from recipes.models.pickles import ForeignCode, ForeignPickle, check_torch_file

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"

#: Packages whose classes a model config may name: no functions that fetch, load or run something are in them.
TRUSTED = ("nemo.", "torch.nn.", "torch.optim.", "torchaudio.transforms.", "lightning.pytorch.", "pytorch_lightning.")
_MOST_CONFIG_BYTES = 16 << 20
_MOST_MEMBERS = 10_000
_MOST_BYTES = 256 << 30  # of all members; no speech model comes near
_MOST_RATIO = 50  # to one that a packed archive may hold; weights hardly shrink at all
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill")
_SECRETIVE = re.compile(r"\$\{\s*(?:oc\.)?env\s*:")  # OmegaConf would put the environment into the model


class BadModelFile(Exception):  # noqa: N818  (says what it is about)
    """A .nemo that we will not load; the message names the file, the member and why."""


class HarmfulModelFile(BadModelFile):
    """One that would do something else than be a model: write elsewhere, run a program, fill a disk."""


class ForeignWeights(HarmfulModelFile):
    """Sound but for weights that run programs when loaded; `trusted`, the file's SHA-256, would let it pass."""

    def __init__(self, message: str, sha256: str) -> None:
        super().__init__(message)
        self.sha256 = sha256


def read_config(path: Path, *, trusted: str | None = None) -> dict[str, Any]:
    """The model config of a .nemo after checking every member of the archive.

    Raises BadModelFile for anything but a readable tar (plain or gzip) with a config and weights, for members
    with absolute or climbing paths, links or devices, for classes outside NeMo and torch, and for weights that are
    more than tensors, unless `trusted` is the SHA-256 of this very file.
    """
    if not path.is_file():
        raise BadModelFile(f"{path}: no such file")
    try:
        with tarfile.open(path, "r:*") as archive:
            by_name = _members(path, archive)
            if CONFIG not in by_name or WEIGHTS not in by_name:
                raise BadModelFile(f"{path}: not a .nemo model: it lacks {CONFIG} or {WEIGHTS}")
            if by_name[CONFIG].size > _MOST_CONFIG_BYTES:
                raise BadModelFile(f"{path}: its {CONFIG} is too large to be one")
            config_file, weights_file = archive.extractfile(by_name[CONFIG]), archive.extractfile(by_name[WEIGHTS])
            text = config_file.read().decode("utf-8") if config_file else ""
            if weights_file is None or not zipfile.is_zipfile(weights_file):
                raise BadModelFile(f"{path}: its {WEIGHTS} is not a torch file")
            _check_weights(path, weights_file, by_name[WEIGHTS].size, trusted)
    except ForeignPickle as error:
        raise HarmfulModelFile(
            f"{path}: its {WEIGHTS} is more than weights: {error}; not loaded. NeMo's own hold tensors alone"
        ) from error
    except zipfile.BadZipFile as error:
        raise BadModelFile(f"{path}: its {WEIGHTS} is not a torch file ({error})") from error
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError) as error:
        raise BadModelFile(f"{path}: not a readable .nemo ({error}); fetch it again") from error
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadModelFile(f"{path}: {CONFIG} is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise BadModelFile(f"{path}: {CONFIG} is not a mapping")
    if _SECRETIVE.search(text):
        raise HarmfulModelFile(f"{path}: its {CONFIG} reads the environment; not loaded")
    _check_classes(path, config)
    return config


def _check_weights(path: Path, file: IO[bytes], size: int, trusted: str | None) -> None:
    try:
        check_torch_file(file, size)
    except ForeignCode as error:
        found = sha256_of(path)
        if trusted == found:
            return
        raise ForeignWeights(
            f"{path}: its {WEIGHTS} is more than weights: {error}; not loaded. NeMo's own hold tensors alone", found
        ) from error


def _members(path: Path, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The members by their plain names, each of them harmless, and no more of them than a disk holds."""
    found: dict[str, tarfile.TarInfo] = {}
    total, most = 0, min(_MOST_BYTES, max(1 << 30, _MOST_RATIO * path.stat().st_size))
    for member in archive:  # a packed one is read no further than to the first that is too much
        _check_member(path, member)
        name = str(PurePosixPath(member.name))
        if name in found and not member.isdir():
            raise HarmfulModelFile(f"{path}: holds {member.name!r} twice; not loaded")
        found[name] = member
        total += member.size
        if len(found) > _MOST_MEMBERS or total > most:
            raise HarmfulModelFile(f"{path}: would unpack to far more than a model; not loaded")
    return found


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in member.name or not member.name.isprintable():
        raise HarmfulModelFile(f"{path}: member {member.name!r} would be written outside; not loaded")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise HarmfulModelFile(f"{path}: member {member.name!r} is a link or a device; not loaded")
    if parts.name.lower().endswith(_PICKLED) and parts.name != WEIGHTS:
        raise HarmfulModelFile(f"{path}: member {member.name!r} is a pickle: a program, when loaded; not loaded")


def _check_classes(path: Path, node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("_target_", "target", "cls", "_partial_target_") and isinstance(value, str):
                named_class = re.fullmatch(r"[A-Za-z_][\w.]*", value)
                if named_class and "." in value and not value.startswith(TRUSTED):
                    raise HarmfulModelFile(f"{path}: its config would build {value}, not a NeMo class; not loaded")
            _check_classes(path, value)
    elif isinstance(node, list):
        for value in node:
            _check_classes(path, value)
