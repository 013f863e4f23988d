"""Which bases are refused, and what a .nemo must look like before anything opens it."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from recipes.models.archive import CONFIG, WEIGHTS, BadModelFile, read_config
from recipes.models.bases import BASES, DEFAULT_BASE, known_base, refusal


def weights() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("model_weights/data.pkl", b"\x80\x02}q\x00.")
    return held.getvalue()


def nemo(path: Path, config: str, extra: list[tarfile.TarInfo] | None = None, prefix: str = "./") -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in ((CONFIG, config.encode()), (WEIGHTS, weights())):
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra or []:
            archive.addfile(info)
    return path


def link(name: str, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info


CONFIG_TEXT = "target: nemo.collections.asr.models.EncDecCTCModelBPE\nencoder: {_target_: nemo.x.Encoder}\n"


@pytest.mark.parametrize("prefix", ["./", ""])
def test_a_plain_nemo_is_read(tmp_path: Path, prefix: str) -> None:
    assert (
        read_config(nemo(tmp_path / "m.nemo", CONFIG_TEXT, prefix=prefix))["encoder"]["_target_"] == "nemo.x.Encoder"
    )


@pytest.mark.parametrize(
    ("config", "extra", "told"),
    [
        (CONFIG_TEXT, [tarfile.TarInfo("../evil")], "written outside"),
        (CONFIG_TEXT, [tarfile.TarInfo("/etc/evil")], "written outside"),
        (CONFIG_TEXT, [link("./x", "/etc/passwd")], "a link or a device"),
        ("encoder: {_target_: os.system, command: rm}\n", [], "os.system"),
        ("a: [{b: {_target_: subprocess.Popen}}]\n", [], "subprocess.Popen"),
        ("- a list\n", [], "not a mapping"),
        ("a: [\n", [], "not YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", [], "not YAML"),
    ],
)
def test_a_harmful_or_broken_nemo_is_not_opened(
    tmp_path: Path, config: str, extra: list[tarfile.TarInfo], told: str
) -> None:
    with pytest.raises(BadModelFile, match=told):
        read_config(nemo(tmp_path / "m.nemo", config, extra))


def test_files_that_are_no_model_are_told_apart_from_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="no such file"):
        read_config(tmp_path / "m.nemo")
    whole = nemo(tmp_path / "whole.nemo", CONFIG_TEXT).read_bytes()
    for name, content in (("cut", whole[:700]), ("empty", b""), ("text", b"hello" * 999)):
        path = tmp_path / f"{name}.nemo"
        path.write_bytes(content)
        with pytest.raises(BadModelFile, match="not a"):
            read_config(path)


def test_streaming_nemotron_is_refused_with_a_substitute_under_any_spelling() -> None:
    for name in (
        "nvidia/nemotron-speech-streaming-en-0.6b",
        "nemotron-speech-streaming-en-0.6b",
        "nvidia/Nemotron-Speech-Streaming-EN-0.6b",
        "nvidia/nemotron-streaming-next",
    ):
        reason = refusal(name)
        assert reason is not None and DEFAULT_BASE in reason and "allow_unsupported_base" in reason


def test_every_other_base_of_the_table_is_allowed_and_the_default_is_recommended() -> None:
    default = known_base(DEFAULT_BASE)
    assert default is not None and default.recommended
    assert [base.name for base in BASES if refusal(base.name)] == ["nvidia/nemotron-speech-streaming-en-0.6b"]
    assert refusal("my-own-model") is None and known_base("my-own-model") is None
    assert len({base.name for base in BASES}) == len(BASES)
