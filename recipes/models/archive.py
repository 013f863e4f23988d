"""Looks into a .nemo before anything unpacks it: a tar with a config and weights, and nothing that could do harm.

Needs no torch. A .nemo holds a YAML config whose `_target_` keys name classes to build, and a pickled state
dict; both come from strangers.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"

#: Packages whose classes a model config may name.
TRUSTED = ("nemo.", "torch.", "torchaudio.", "lightning.", "pytorch_lightning.")
_MOST_CONFIG_BYTES = 64 << 20


class BadModelFile(Exception):  # noqa: N818  (says what it is about)
    """A .nemo that we will not load; the message names the file, the member and why."""


def read_config(path: Path) -> dict[str, Any]:
    """The model config of a .nemo after checking every member of the archive.

    Raises BadModelFile for anything but a readable tar (plain or gzip) with a config and weights, for members
    with absolute or climbing paths, links or devices, and for classes outside NeMo and torch.
    """
    if not path.is_file():
        raise BadModelFile(f"{path}: no such file")
    try:
        with tarfile.open(path, "r:*") as archive:
            members = archive.getmembers()
            for member in members:
                _check_member(path, member)
            by_name = {member.name.removeprefix("./"): member for member in members}
            if CONFIG not in by_name or WEIGHTS not in by_name:
                raise BadModelFile(f"{path}: not a .nemo model: it lacks {CONFIG} or {WEIGHTS}")
            if by_name[CONFIG].size > _MOST_CONFIG_BYTES:
                raise BadModelFile(f"{path}: its {CONFIG} is too large to be one")
            config_file, weights_file = archive.extractfile(by_name[CONFIG]), archive.extractfile(by_name[WEIGHTS])
            text = config_file.read().decode("utf-8") if config_file else ""
            if weights_file is None or not zipfile.is_zipfile(weights_file):
                raise BadModelFile(f"{path}: its {WEIGHTS} is not a torch file")
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError) as error:
        raise BadModelFile(f"{path}: not a readable .nemo ({error}); fetch it again") from error
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadModelFile(f"{path}: {CONFIG} is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise BadModelFile(f"{path}: {CONFIG} is not a mapping")
    _check_classes(path, config)
    return config


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts:
        raise BadModelFile(f"{path}: member {member.name!r} would be written outside; not loaded")
    if not (member.isfile() or member.isdir()):
        raise BadModelFile(f"{path}: member {member.name!r} is a link or a device; not loaded")


def _check_classes(path: Path, node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("_target_", "target", "cls", "_partial_target_") and isinstance(value, str):
                named_class = re.fullmatch(r"[A-Za-z_][\w.]*", value)
                if named_class and "." in value and not value.startswith(TRUSTED):
                    raise BadModelFile(f"{path}: its config would build {value}, not a NeMo class; not loaded")
            _check_classes(path, value)
    elif isinstance(node, list):
        for value in node:
            _check_classes(path, value)
