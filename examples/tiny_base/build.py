"""Builds the tiny FastConformer bases of the examples and tests: Parakeet's classes and config, few weights.

Runs in the recipe environment:

    python examples/tiny_base/build.py --kind tdt --out tiny.nemo --corpus phrases.txt
    python examples/tiny_base/build.py --kind all --out bases/ --corpus phrases.txt
    python examples/tiny_base/build.py --kind tdt --out base.nemo --corpus phrases.txt \
        --train general.jsonl --steps 400

Without --train the weights are random (seeded): enough to test formats, losses and errors. With it the model
learns that NeMo manifest, so that an example has something worth adapting. A model once built is kept in a
cache under the hash of these scripts, the texts, the audio and the settings, and copied from there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from shapes import KINDS, model_config  # noqa: E402  (its folder is on the path only now)

LETTERS = " ".join("abcdefghijklmnopqrstuvwxyz'")


@dataclass(frozen=True)
class Settings:
    """What a tiny base is made from, apart from its texts and audio."""

    kind: str = "tdt"
    vocab: int = 96  # BPE pieces
    width: int = 64  # d_model
    layers: int = 2
    seed: int = 0
    steps: int = 0  # of training; 0 leaves the weights random
    batch_size: int = 8
    learning_rate: float = 4e-3


def cache_dir() -> Path:
    """Where built models are kept: $LAUNCHER_CACHE, else the user's own cache directory."""
    named = os.environ.get("LAUNCHER_CACHE")
    if named:
        return Path(named) / "tiny_base"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "parakeet-launcher" / "tiny_base"


def cache_key(settings: Settings, texts: Sequence[str], train: Sequence[dict[str, Any]]) -> str:
    """Hash of all a model depends on: these scripts, versions, settings, texts, the bytes of the audio."""
    digest = hashlib.sha256()
    for script in sorted(HERE.glob("*.py")):
        digest.update(script.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("nemo_toolkit", "torch")]
    digest.update(json.dumps([versions, asdict(settings), list(texts)], sort_keys=True).encode())
    for row in train:
        digest.update(row["text"].encode() + b"\0" + Path(row["audio_filepath"]).read_bytes())
    return digest.hexdigest()[:24]


def train_tokenizer(texts: Sequence[str], folder: Path, vocab: int) -> None:
    """SentencePiece BPE over `texts`, every letter covered, in the three files NeMo looks for."""
    import sentencepiece as spm

    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join([*texts, LETTERS]) + "\n", encoding="utf-8")
    spm.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=vocab,
        model_type="bpe",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    pieces = (folder / "tokenizer.vocab").read_text(encoding="utf-8").splitlines()[1:]  # without <unk>
    names = [piece.split("\t")[0].replace("\u2581", "##") for piece in pieces]
    (folder / "vocab.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def build(
    out: Path, texts: Sequence[str], settings: Settings, train: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Write the model to `out` (from the cache where it is there); returns {path, cached, key, steps}."""
    key = cache_key(settings, texts, train)
    kept = cache_dir() / f"{settings.kind}-{key}.nemo"
    cached = kept.exists()
    if not cached:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f".{os.getpid()}.part.nemo")
        try:
            _make(part, texts, settings, train)
            part.replace(kept)
        finally:
            part.unlink(missing_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    copy = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.copyfile(kept, copy)
    copy.replace(out)
    return {"path": str(out), "cached": cached, "key": key, "steps": settings.steps}


def _make(out: Path, texts: Sequence[str], settings: Settings, train: Sequence[dict[str, Any]]) -> None:
    warnings.filterwarnings("ignore")
    import logging

    import nemo.collections.asr as nemo_asr
    import torch
    from nemo.utils import logging as nemo_logging
    from omegaconf import OmegaConf

    nemo_logging.setLevel(logging.ERROR)
    classes = {
        "tdt": nemo_asr.models.EncDecRNNTBPEModel,
        "rnnt": nemo_asr.models.EncDecRNNTBPEModel,
        "ctc": nemo_asr.models.EncDecCTCModelBPE,
        "hybrid": nemo_asr.models.EncDecHybridRNNTCTCBPEModel,
    }
    torch.manual_seed(settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, Path(folder), settings.vocab)
        cfg = model_config(settings.kind, Path(folder), width=settings.width, layers=settings.layers)
        model = classes[settings.kind](cfg=OmegaConf.create(cfg))
        if settings.steps:
            from learn import learn

            learn(model, train, settings)
        model.cfg.tokenizer.dir = ""  # the files travel inside the .nemo; this path would only name the maker
        model.save_to(str(out))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; prints one JSON object a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="tdt")
    parser.add_argument("--out", type=Path, required=True, help="the .nemo; for --kind all a folder")
    parser.add_argument("--corpus", type=Path, required=True, help="text the tokenizer learns, a line each")
    parser.add_argument("--train", type=Path, help="NeMo manifest the model learns")
    parser.add_argument("--steps", type=int, default=400, help="training steps, with --train")
    for name in ("vocab", "width", "layers", "seed", "batch_size"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Settings, name))
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    args = parser.parse_args(argv)
    texts = args.corpus.read_text(encoding="utf-8").splitlines()
    train: list[dict[str, Any]] = []
    if args.train:
        train = [json.loads(line) for line in args.train.read_text(encoding="utf-8").splitlines() if line]
        for row in train:  # a relative path is relative to its manifest
            row["audio_filepath"] = str(args.train.parent / row["audio_filepath"])
    for kind in KINDS if args.kind == "all" else [args.kind]:
        settings = Settings(
            kind=kind,
            vocab=args.vocab,
            width=args.width,
            layers=args.layers,
            seed=args.seed,
            steps=args.steps if train else 0,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
        )
        out = args.out / f"{kind}.nemo" if args.kind == "all" else args.out
        print(json.dumps(build(out, texts, settings, train)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
