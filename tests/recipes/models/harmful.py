"""Model files that do harm to whoever loads them, made as an attacker would make them."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HARMLESS = b"\x80\x02}q\x00."  # the pickle of a state dict with nothing in it


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


class Runs(Touches):
    """Unpickled, it runs a command."""

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.marker}",)


def torch_file(*pickles: bytes, name: str = "archive/data.pkl", how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip as torch writes it, with these pickles at the same name."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", how) as archive:
        for number, one in enumerate(pickles):
            archive.writestr(name if number == 0 else name.replace("data", f"data{number}"), one)
        archive.writestr("archive/version", b"3\n")
    return held.getvalue()


def weights(marker: Path) -> dict[str, bytes]:
    """Each way to hide a program among weights, and its file."""
    evil = pickle.dumps({"a": Runs(marker)}, protocol=2)
    renamed = io.BytesIO()
    with zipfile.ZipFile(renamed, "w") as archive:  # a second list of contents hides the first file
        archive.writestr("archive/data.pkl", evil)
    return {
        "a command": torch_file(evil),
        "a call": torch_file(pickle.dumps([Touches(marker)], protocol=2)),
        "a name made while it runs": torch_file(pickle.dumps(Runs(marker), protocol=4)),
        "an old protocol": torch_file(pickle.dumps(Runs(marker), protocol=0)),
        "an instance": torch_file(b"(S'touch x'\nios\nsystem\n."),
        "an extension": torch_file(b"\x80\x02\x82\x01."),
        "eval of builtins": torch_file(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."),
        "a name with dots": torch_file(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n."),
        "torch's own loader": torch_file(b"\x80\x02ctorch.serialization\nload\nX\x01\x00\x00\x00x\x85R."),
        "a second pickle": torch_file(HARMLESS, evil),
        "a program": torch_file(HARMLESS).replace(b"archive/version", b"archive/code/.p"),
        "packed": torch_file(HARMLESS, how=zipfile.ZIP_DEFLATED),
        "something before": renamed.getvalue() + torch_file(HARMLESS),
        "something after": torch_file(HARMLESS) + b"tail",
        "a torn pickle": torch_file(HARMLESS[:-1]),
    }


def member(name: str, content: bytes = b"", **facts: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info, content


def members(marker: Path) -> dict[str, list[tuple[tarfile.TarInfo, bytes]]]:
    """Each way to do harm by a member of the archive."""
    evil = torch_file(pickle.dumps(Runs(marker), protocol=2))
    return {
        "a path out": [member("../evil", b"x")], "a path in the middle": [member("a/../../evil", b"x")],
        "an absolute path": [member("/tmp/evil", b"x")], "a line in its name": [member("a\nb", b"x")],
        "Windows' path": [member("..\\evil", b"x")],
        "a link": [member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
        "a hard link": [member("x", type=tarfile.LNKTYPE, linkname="../../etc/passwd")],
        "a device": [member("x", type=tarfile.CHRTYPE, devmajor=1, devminor=5)],
        "a pipe": [member("x", type=tarfile.FIFOTYPE)],
        "weights twice": [member("model_weights.ckpt", evil)],
        "weights twice by another spelling": [member("./././model_weights.ckpt", evil)],
        "another pickle": [member("tokenizer.pkl", pickle.dumps(Runs(marker)))],
        "weights of a part": [member("encoder.CKPT", evil)],
    }  # fmt: skip


CONFIG = b"target: nemo.collections.asr.models.EncDecCTCModelBPE\nencoder: {_target_: nemo.x.Encoder}\n"
CONFIGS = {
    "a loader": b"a: {_target_: torch.hub.load, repo_or_dir: x}\n",
    "another package": b"a: {_target_: os.system, command: ls}\n",
    "the environment": b"a: ${oc.env:RUNPOD_API_KEY}\n",
    "the environment by its old name": b"a: '${ env:HOME}'\n",
}


def nemo(path: Path, weights: bytes = torch_file(HARMLESS), config: bytes = CONFIG,
         extra: list[tuple[tarfile.TarInfo, bytes]] | None = None, mode: str = "w") -> Path:  # fmt: skip
    """A .nemo of these parts."""
    opened: Callable[..., tarfile.TarFile] = tarfile.open
    with opened(path, mode) as archive:
        whole = [member("./model_config.yaml", config), member("./model_weights.ckpt", weights)]
        for info, content in [*whole, *(extra or [])]:
            archive.addfile(info, io.BytesIO(content))
    return path
