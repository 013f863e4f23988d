"""A base that knows its words clearly spoken learns to hear them through a telephone: adapters and biases suffice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from finetune_harness import RATE, WORDS, Recipe, corpus

from recipes.contract import RecipeExit

pytestmark = [pytest.mark.nemo, pytest.mark.slow("LAUNCHER_TEST_METHODS")]  # make test-methods

#: The same base with biases of zero in its encoder: it computes the same, and BitFit has something to learn.
WITH_BIASES = """
import sys
from nemo.collections.asr.models import ASRModel
config = ASRModel.restore_from(sys.argv[1], return_config=True)
config.encoder.use_bias = True
model = ASRModel.restore_from(sys.argv[1], override_config_path=config, map_location="cpu", strict=False)
had = ASRModel.restore_from(sys.argv[1], map_location="cpu").state_dict()
for name, tensor in model.state_dict().items():
    if name not in had:
        tensor.zero_()
model.save_to(sys.argv[2])
"""


def through_a_telephone(manifest: Path, seed: int) -> None:
    """500 to 2400 Hz, an echo after 0.1 s, noise, and an amplifier driven too hard: in place."""
    chance = np.random.default_rng(seed)
    for line in manifest.read_text(encoding="utf-8").splitlines():
        path = manifest.parent / json.loads(line)["audio_filepath"]
        samples, _ = soundfile.read(path)
        heard = np.fft.rfft(samples)
        hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
        heard *= (hertz > 500) & (hertz < 2400)
        heard = np.fft.irfft(heard, len(samples))
        heard[RATE // 10 :] += 0.4 * heard[: -RATE // 10]
        heard += chance.normal(0, 0.35 * np.sqrt((heard**2).mean()), len(heard))
        soundfile.write(path, 0.5 * np.tanh(4 * heard / np.abs(heard).max()), RATE)


@pytest.fixture(scope="module")
def phone(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TDT base that knows the clear words, the same with biases, and what it shall learn."""
    folder = tmp_path_factory.mktemp("phone")
    corpus(folder / "clear.jsonl", 160, 3)
    for name, rows, seed in (("train", 60, 1), ("validation", 16, 2)):
        corpus(folder / f"{name}.jsonl", rows, seed)
        through_a_telephone(folder / f"{name}.jsonl", seed)
    corpus(folder / "clear_validation.jsonl", 10, 4)
    (folder / "texts.txt").write_text(" ".join(WORDS) + "\n", encoding="utf-8")
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", "tdt", "--out", folder / "unbiased.nemo"]
    build += ["--corpus", folder / "texts.txt", "--train", folder / "clear.jsonl", "--steps", "1000"]
    subprocess.run([str(recipe.python), *map(str, build)], check=True, capture_output=True, timeout=900)
    command = [recipe.python, "-c", WITH_BIASES, folder / "unbiased.nemo", folder / "biased.nemo"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=300)
    return folder


@pytest.mark.parametrize(
    ("method", "kind", "left"),
    [("lora", "unbiased", 0.7), ("lora_decoder", "unbiased", 0.7), ("bitfit", "biased", 0.9)],
)
def test_a_new_channel_is_learned_and_the_clear_words_are_not_forgotten(
    recipe: Recipe, phone: Path, tmp_path: Path, method: str, kind: str, left: float
) -> None:
    files = {name: name for name in ("train", "validation")}
    files |= {"general": "clear", "general_validation": "clear_validation"}
    manifests = {f"{name}_manifest": str(phone / f"{file}.jsonl") for name, file in files.items()}
    spec = recipe.spec(
        tmp_path, base=str(phone / f"{kind}.nemo"), method=method, max_steps=200, batch_size=8, learning_rate=5e-3,
        validation_interval_steps=50, **manifests,
    )  # fmt: skip
    code, errors = recipe.run(spec, tmp_path / "out")
    assert code == RecipeExit.DONE, errors
    found = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert found["general_wer_before"] < 0.2 < 0.4 < found["validation_wer_before"]
    assert found["validation_wer"] < left * found["validation_wer_before"]
    assert found["general_wer"] < found["general_wer_before"] + 0.15
