"""A model file that does more than be a model is refused before any of it runs: in a plan, and on the machine."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import harmful
import pytest
from harmful import HARMLESS, Runs, member, nemo, torch_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.errors import BadInputError
from launcher.job import load_job
from launcher.workflow import _trusted
from recipes.contract import sha256_of
from recipes.models.archive import BadModelFile, HarmfulModelFile, read_config
from recipes.models.pickles import foreign_parts

REPO = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("way", harmful.weights(Path("x")))
def test_weights_that_hide_a_program_are_refused_unread(tmp_path: Path, way: str) -> None:
    marker = tmp_path / "touched"
    with pytest.raises(HarmfulModelFile, match="more than weights"):
        read_config(nemo(tmp_path / "m.nemo", harmful.weights(marker)[way]))
    assert not marker.exists()


def test_the_programs_hidden_here_do_run_when_they_are_loaded(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(harmful.weights(tmp_path / "touched")["a command"])) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize("way", harmful.members(Path("x")))
def test_members_that_do_harm_are_refused(tmp_path: Path, way: str) -> None:
    with pytest.raises(HarmfulModelFile):
        read_config(nemo(tmp_path / "m.nemo", extra=harmful.members(tmp_path / "touched")[way]))


@pytest.mark.parametrize("way", harmful.CONFIGS)
def test_configs_that_do_harm_are_refused(tmp_path: Path, way: str) -> None:
    with pytest.raises(HarmfulModelFile):
        read_config(nemo(tmp_path / "m.nemo", config=harmful.CONFIGS[way]))


def test_a_file_that_would_fill_a_disk_is_refused_before_it_does(tmp_path: Path) -> None:
    class Zeros(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, held: object) -> int:
            return len(held)  # type: ignore[arg-type]

    path = tmp_path / "m.nemo"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for info, content in (member("./model_config.yaml", harmful.CONFIG),
                              member("./model_weights.ckpt", torch_file(HARMLESS))):  # fmt: skip
            archive.addfile(info, io.BytesIO(content))
        info, _ = member("./padding")
        info.size = 1 << 50  # claimed; what would be unpacked of it comes from a few bytes
        archive.fileobj.write(info.tobuf())  # type: ignore[union-attr]
    with pytest.raises(HarmfulModelFile, match="far more than a model"):
        read_config(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_normal_file_passes_without_a_word(tmp_path: Path, mode: str) -> None:
    extra = [member("./tokenizer.model", b"x"), member("./vocab.txt", b"x"), member("./nested", type=tarfile.DIRTYPE)]
    assert read_config(nemo(tmp_path / "m.nemo", extra=extra, mode=mode))["target"].startswith("nemo.")


@given(st.binary(max_size=60) | st.builds(lambda a, b: a + b, st.just(b"\x80\x02"), st.binary(max_size=60)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_no_bytes_break_the_reader(content: bytes) -> None:
    foreign_parts(content)


@given(cut=st.integers(0, 20_000), change=st.binary(min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_a_damaged_file_is_told_of_in_a_word(tmp_path_factory: pytest.TempPathFactory, cut: int,
                                             change: bytes) -> None:  # fmt: skip
    path = nemo(tmp_path_factory.mktemp("m") / "m.nemo")
    held = bytearray(path.read_bytes())
    held[cut % len(held) : cut % len(held) + len(change)] = change
    path.write_bytes(bytes(held))
    try:
        read_config(path)
    except BadModelFile as error:
        assert len(str(error)) < 600


def test_a_harmful_base_is_refused_when_its_job_is_read(tmp_path: Path) -> None:
    marker = tmp_path / "touched"
    nemo(tmp_path / "foreign.nemo", torch_file(pickle.dumps(Runs(marker), protocol=2)))
    (tmp_path / "m.jsonl").write_text("{}\n")
    job = tmp_path / "job.yaml"
    job.write_text("recipe: finetune\nspec: {base: ./foreign.nemo}\ndata: {manifest: m.jsonl}\n")
    with pytest.raises(BadInputError) as told:
        load_job(job)
    assert "spec.base" in str(told.value)
    assert "posix.system" in str(told.value)
    assert not marker.exists()


def test_weights_that_run_programs_pass_for_the_very_file_that_is_trusted_and_nothing_else_does(
    tmp_path: Path,
) -> None:
    foreign, marker = tmp_path / "foreign.nemo", tmp_path / "touched"
    nemo(foreign, torch_file(pickle.dumps(Runs(marker), protocol=2)))
    sha256 = sha256_of(foreign)
    (tmp_path / "m.jsonl").write_text("{}\n")
    job = tmp_path / "job.yaml"
    text = "recipe: finetune\nspec: {base: %s%s}\ndata: {manifest: m.jsonl}\n"

    def told(trust: str, base: str = "./foreign.nemo") -> str:
        job.write_text(text % (base, f", trust_base: '{trust}'" if trust else ""))
        with pytest.raises(BadInputError) as error:
            load_job(job)
        return str(error.value)

    assert f"trust_base: {sha256}" in told("")
    assert "another file's SHA-256" in told("0" * 64)
    assert "trust_base" in told("yes")
    assert "not for a pretrained name" in told(sha256, "nvidia/parakeet-tdt-0.6b-v2")
    job.write_text(text % ("./foreign.nemo", f", trust_base: '{sha256}'"))
    assert load_job(job).spec.trust_base == sha256  # type: ignore[attr-defined]
    (warning,) = _trusted(load_job(job))
    assert "loading foreign.nemo runs programs of whoever made it" in warning
    for name, content in (("two", torch_file(HARMLESS, HARMLESS)), ("packed", torch_file(HARMLESS, how=8))):
        path = nemo(tmp_path / f"{name}.nemo", content)
        with pytest.raises(HarmfulModelFile, match="more than weights"):
            read_config(path, trusted=sha256_of(path))
    assert not marker.exists()


IN_NEMO = """
import json, sys, torch
from pathlib import Path
from recipes.models.opening import open_model
from recipes.contract import RecipeFailure
from recipes.models.guarded import GuardedConnector
from nemo.collections.asr.models import ASRModel
good, evil, alone = sys.argv[1:]
told = {"good": type(open_model(good, is_path=True)).__name__}
for name, call in {
    "ours": lambda: open_model(evil, is_path=True),
    "fetched by name": lambda: ASRModel.restore_from(evil, save_restore_connector=GuardedConnector()),
    "the weights alone": lambda: GuardedConnector._load_state_dict_from_disk(alone),
}.items():
    try:
        call()
        told[name] = "loaded"
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
# A model that loads, with a program among its weights: harmless but for that it runs.
import hashlib, io, os, tarfile
marker, foreign = Path(evil).with_name("ran"), Path(evil).with_name("trusted.nemo")
class Runs:
    def __reduce__(self):
        return os.system, (f"touch {marker}",)
with tarfile.open(good) as real, tarfile.open(foreign, "w") as made:
    for info in real.getmembers():
        content = real.extractfile(info)
        held = content.read() if content else b""
        if info.name.endswith("model_weights.ckpt"):
            state = torch.load(io.BytesIO(held), weights_only=True)
            state._metadata = {**getattr(state, "_metadata", {}), "extra": Runs()}
            torch.save(state, kept := io.BytesIO())
            held = kept.getvalue()
        info.size = len(held)
        made.addfile(info, io.BytesIO(held))
for name, sha256 in (("no word", None), ("of another", "0" * 64),
                     ("of this very file", hashlib.sha256(foreign.read_bytes()).hexdigest())):
    try:
        open_model(str(foreign), is_path=True, trusted=sha256)
        told[name] = f"loaded, ran: {marker.exists()}"
    except RecipeFailure as error:
        told[name] = f"{error}, ran: {marker.exists()}"
print("TOLD" + json.dumps(told))
"""


def test_nemo_itself_never_sees_a_harmful_file_and_opens_a_good_one(
    tmp_path: Path, tiny_bases: Path, recipe_python: Path
) -> None:
    """As on the machine: a real base opens; the same with a program among its weights touches nothing."""
    marker = tmp_path / "touched"
    evil = torch_file(pickle.dumps(Runs(marker), protocol=2))
    with tarfile.open(tiny_bases / "tdt.nemo") as real, tarfile.open(tmp_path / "evil.nemo", "w") as made:
        for info in real.getmembers():
            content = real.extractfile(info)
            held = evil if info.name.endswith("model_weights.ckpt") else content.read() if content else b""
            info.size = len(held)
            made.addfile(info, io.BytesIO(held))
    (tmp_path / "weights.ckpt").write_bytes(evil)
    argv = [str(recipe_python), "-c", IN_NEMO, str(tiny_bases / "tdt.nemo"), str(tmp_path / "evil.nemo"),
            str(tmp_path / "weights.ckpt")]  # fmt: skip
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout.partition("TOLD")[2] or "{}")
    assert told, done.stderr[-2000:]
    assert told["good"].startswith("EncDec")
    assert "more than weights" in told["ours"]
    assert "more than weights" in told["fetched by name"]
    assert "loaded" not in told["the weights alone"]
    for untrusted in ("no word", "of another"):
        assert "more than weights" in told[untrusted]
        assert told[untrusted].endswith("ran: False")
    assert told["of this very file"] == "loaded, ran: True"
    assert not marker.exists()
    (tmp_path / "spec.json").write_text(json.dumps({"model": str(tmp_path / "evil.nemo"), "manifest": "m.jsonl"}))
    argv = [str(recipe_python), "-m", "recipes.evaluate", str(tmp_path / "spec.json"), str(tmp_path / "out")]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 10, done.stderr
    assert not marker.exists()


def test_the_launcher_says_it_in_one_line(tmp_path: Path) -> None:
    nemo(tmp_path / "foreign.nemo", torch_file(pickle.dumps(Runs(tmp_path / "touched"), protocol=2)))
    (tmp_path / "m.jsonl").write_text("{}\n")
    (tmp_path / "job.yaml").write_text("recipe: finetune\nspec: {base: ./foreign.nemo}\ndata: {manifest: m.jsonl}\n")
    argv = [sys.executable, "-m", "launcher", "--home", str(tmp_path / "home"), "plan", str(tmp_path / "job.yaml")]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "not loaded" in done.stderr
    assert not (tmp_path / "touched").exists()
