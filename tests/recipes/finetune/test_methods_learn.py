"""Small methods learn a channel, larger ones new words, of a base that knows some words; none forgets what it knew.

LAUNCHER_TEST_METHODS=1 (make test-methods): lora_decoder on the channel, too, and rows that chance alone brings
together beside those of like length.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import soundfile
from finetune_harness import RATE, WORDS, Recipe, corpus

from recipes.contract import RecipeExit

pytestmark = pytest.mark.nemo
WHOLE = pytest.mark.slow("LAUNCHER_TEST_METHODS")

#: A base with biases of zero in its encoder: it computes the same, and BitFit has something to learn.
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
KNOWN, TERMS = WORDS[:11], WORDS[11:]
RATES, STEPS = {"full": 3e-3, "lora_decoder": 8e-3}, {"full": 300, "lora_decoder": 400}
WORSE = 0.05  # more of the general set's WER than this is forgetting


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
def base(recipe: Recipe, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a TDT base that knows eleven words clearly spoken, and of what it shall learn."""
    folder = tmp_path_factory.mktemp("learn")
    corpus(folder / "general.jsonl", 160, 3, KNOWN)
    corpus(folder / "general_validation.jsonl", 40, 4, KNOWN)
    corpus(folder / "terms.jsonl", 60, 1, [*KNOWN[:4], *TERMS])
    corpus(folder / "terms_validation.jsonl", 30, 2, [*KNOWN[4:8], *TERMS])  # in a company that is new, too
    for name, rows, seed in (("phone", 60, 5), ("phone_validation", 30, 6)):
        corpus(folder / f"{name}.jsonl", rows, seed, KNOWN)
        through_a_telephone(folder / f"{name}.jsonl", seed)
    (folder / "texts.txt").write_text(" ".join(WORDS) + "\n", encoding="utf-8")
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", "tdt", "--out", folder / "base.nemo"]
    build += ["--corpus", folder / "texts.txt", "--train", folder / "general.jsonl", "--steps", "1000"]
    subprocess.run([str(recipe.python), *map(str, build)], check=True, capture_output=True, timeout=900)
    return folder


@pytest.fixture(scope="module")
def biased(recipe: Recipe, base: Path) -> Path:
    """The same base with biases of zero in its encoder."""
    made = base / "biased.nemo"
    command = [recipe.python, "-c", WITH_BIASES, base / "base.nemo", made]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=300)
    return made


def trained(recipe: Recipe, data: Path, work: Path, method: str, what: str, **settings: object) -> dict[str, float]:
    """The metrics of a run that was to learn `what`."""
    files = {"train": what, "validation": f"{what}_validation"}
    files |= {"general": "general", "general_validation": "general_validation"}
    given: dict[str, object] = {f"{name}_manifest": str(data / f"{file}.jsonl") for name, file in files.items()}
    given |= {"base": str(data / "base.nemo"), "method": method, "batch_size": 8, "replay_fraction": 0.5}
    code, errors = recipe.run(recipe.spec(work, **given | {"validation_interval_steps": 50} | settings), work / "out")
    assert code == RecipeExit.DONE, errors
    found: dict[str, float] = json.loads((work / "out" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert found["general_wer_before"] < 0.1 < 0.3 < found["validation_wer_before"], found
    return found


def learned(recipe: Recipe, data: Path, work: Path, method: str, what: str, **settings: object) -> dict[str, float]:
    """The metrics of one whose general set is within WORSE of what it was."""
    found = trained(recipe, data, work, method, what, **settings)
    assert found["general_wer"] <= found["general_wer_before"] + WORSE, found
    return found


@pytest.mark.parametrize("method", ["lora", pytest.param("lora_decoder", marks=WHOLE)])
def test_adapters_learn_to_hear_through_a_telephone(recipe: Recipe, base: Path, tmp_path: Path, method: str) -> None:
    found = learned(recipe, base, tmp_path, method, "phone", max_steps=200, learning_rate=5e-3)
    assert found["validation_wer"] < 0.7 * found["validation_wer_before"]


def test_biases_alone_learn_to_hear_through_a_telephone(
    recipe: Recipe, base: Path, biased: Path, tmp_path: Path
) -> None:
    more = {"base": str(biased), "max_steps": 200, "learning_rate": 5e-3}
    found = learned(recipe, base, tmp_path, "bitfit", "phone", **more)
    assert found["validation_wer"] < 0.9 * found["validation_wer_before"]


@pytest.mark.parametrize("method", RATES)
def test_new_terms_are_learned(recipe: Recipe, base: Path, tmp_path: Path, method: str) -> None:
    found = learned(recipe, base, tmp_path, method, "terms", max_steps=STEPS[method], learning_rate=RATES[method])
    assert found["validation_wer"] < 0.5 * found["validation_wer_before"]


@WHOLE
@pytest.mark.parametrize("method", RATES)
def test_rows_of_like_length_teach_as_much_as_any(recipe: Recipe, base: Path, tmp_path: Path, method: str) -> None:
    """In steps of four rows, seven buckets an epoch; the mean of three seeds, for they differ by as much as 0.1."""
    settings = {"max_steps": 400, "batch_size": 4, "learning_rate": RATES[method]}
    by_chance, alike = (
        [
            trained(recipe, base, tmp_path / f"{on}-{seed}", method, "terms", **settings,
                    duration_bucketing=on, seed=seed)
            for seed in (1, 2, 3)
        ]
        for on in (False, True)
    )  # fmt: skip
    for wer in ("validation_wer", "general_wer"):
        assert mean(run[wer] for run in alike) <= mean(run[wer] for run in by_chance) + WORSE, (wer, by_chance, alike)
