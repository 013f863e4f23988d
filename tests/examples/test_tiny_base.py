"""The tiny bases: four kinds of model that stock NeMo restores, the same each time, naming no folder."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

PHRASES = ["turn on the kitchen lights", "play some quiet music", "it's a cold winter"]

RESTORE = """
import json, logging, sys, warnings
warnings.filterwarnings("ignore")
import numpy as np
import nemo.collections.asr as nemo_asr
from nemo.utils import logging as nemo_logging
nemo_logging.setLevel(logging.ERROR)
found = {}
for path in sys.argv[1:]:
    model = nemo_asr.models.ASRModel.restore_from(path, map_location="cpu")
    text = model.transcribe([np.zeros(16000, dtype=np.float32)], verbose=False)[0].text
    ids = model.tokenizer.text_to_ids("zigzag's")
    found[path] = [type(model).__name__, type(text).__name__, model.tokenizer.ids_to_text(ids)]
print("FOUND" + json.dumps(found))
"""


def run(python: Path, *args: object, cwd: Path, cache: Path) -> str:
    env = os.environ | {"LAUNCHER_CACHE": str(cache)}
    done = subprocess.run(
        [str(python), *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.nemo
def test_every_kind_of_tiny_base_restores_in_stock_nemo_and_a_second_build_comes_from_the_cache(
    recipe_python: Path, repo: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(PHRASES), encoding="utf-8")
    build = [repo / "examples" / "tiny_base" / "build.py", "--kind", "all", "--corpus", corpus]
    run(recipe_python, *build, "--out", tmp_path / "one", cwd=repo, cache=tmp_path / "cache")
    again = run(recipe_python, *build, "--out", tmp_path / "two", cwd=repo, cache=tmp_path / "cache")
    made = [json.loads(line) for line in again.splitlines() if line.startswith("{")]
    assert [row["cached"] for row in made] == [True] * 4

    paths = sorted((tmp_path / "one").glob("*.nemo"))
    for path in paths:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        with tarfile.open(path) as archive:
            names = [name for name in archive.getnames() if name.endswith("model_config.yaml")]
            text = archive.extractfile(names[0]).read().decode()  # type: ignore[union-attr]
        assert str(tmp_path) not in text and "/tmp" not in text and str(repo) not in text

    out = run(recipe_python, "-c", RESTORE, *paths, cwd=repo, cache=tmp_path / "cache")
    found = json.loads(out.split("FOUND")[1])
    kinds = {Path(path).stem: row for path, row in found.items()}
    assert {kind: row[0] for kind, row in kinds.items()} == {
        "tdt": "EncDecRNNTBPEModel",
        "rnnt": "EncDecRNNTBPEModel",
        "ctc": "EncDecCTCModelBPE",
        "hybrid": "EncDecHybridRNNTCTCBPEModel",
    }
    assert all(row[1:] == ["str", "zigzag's"] for row in kinds.values())  # words it never saw still encode
