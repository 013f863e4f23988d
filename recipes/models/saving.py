"""Saves a model as a .nemo that stock NeMo restores and that says nothing of the machine it was made on."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from recipes.models.tokenizer import without_training_paths

#: Config keys that hold places on the maker's disk.
_PLACES = (
    "manifest_filepath",
    "tarred_audio_filepaths",
    "dir",
    "data_dir",
    "cache_dir",
    "exp_dir",
    "nemo_file",
    "init_from_nemo_model",
    "init_from_ptl_ckpt",
)


class CleanConnector(SaveRestoreConnector):  # type: ignore[misc]
    """NeMo's connector, with the config scrubbed and the archive free of owner, time and order of the day."""

    @staticmethod
    def _make_nemo_file_from_folder(filename: str, source_dir: str) -> None:
        folder = Path(source_dir)
        config_file = folder / "model_config.yaml"
        config = OmegaConf.load(config_file)
        OmegaConf.save(scrubbed(config), config_file)
        for tokenizer in folder.glob("*.model"):
            tokenizer.write_bytes(without_training_paths(tokenizer.read_bytes()))
        with tarfile.open(filename, "w:", format=tarfile.PAX_FORMAT) as archive:
            for path in [folder, *sorted(folder.iterdir())]:
                name = "." if path == folder else f"./{path.name}"
                info = archive.gettarinfo(path, name)
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                info.mtime = 0
                info.mode = 0o755 if path.is_dir() else 0o644
                if path.is_dir():
                    archive.addfile(info)
                else:
                    with path.open("rb") as file:
                        archive.addfile(info, file)


def scrubbed(config: DictConfig) -> DictConfig:
    """A copy of a model config without places on a disk and without the optimizer of the run that made it.

    `validation_ds` stays a mapping: with null there, NeMo's transcribe() fails.
    """
    clean = config.copy()
    OmegaConf.set_struct(clean, False)
    with open_dict(clean):
        clean.pop("optim", None)
        for key in ("train_ds", "validation_ds", "test_ds"):
            section = clean.get(key)
            if section is not None and not isinstance(section, DictConfig):
                clean.pop(key)
        _clear_places(clean)
    return clean


def _clear_places(node: Any) -> None:
    if isinstance(node, DictConfig):
        for key in list(node.keys()):
            value = node._get_node(key)
            if key in _PLACES and _is_place(node[key]):
                node[key] = "" if key == "dir" else None
            elif isinstance(value, DictConfig | ListConfig):
                _clear_places(node[key])
    elif isinstance(node, ListConfig):
        for value in node:
            _clear_places(value)


def _is_place(value: Any) -> bool:
    if isinstance(value, ListConfig):
        return True
    return isinstance(value, str) and bool(value) and not value.startswith("nemo:")


def save_model(model: Any, path: Path) -> None:
    """Write `path` whole or not at all, synced; scratch files lie beside it and are gone afterwards.

    The model keeps its own config: only the saved copy is scrubbed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    earlier, connector = tempfile.tempdir, model._save_restore_connector
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as scratch:
        tempfile.tempdir = scratch
        try:
            part = Path(scratch) / "model.nemo"
            model._save_restore_connector = CleanConnector()
            model.save_to(str(part))
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            tempfile.tempdir, model._save_restore_connector = earlier, connector
