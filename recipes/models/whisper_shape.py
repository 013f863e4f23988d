"""The size of a Whisper as time and memory see it: read from its folder, or known by its name. Needs no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

from recipes.models.shape import WEIGHT_BYTES, Shape

WINDOW_S = 30.0  # an encoder of Whisper's always hears so much at once, silence included
FRAMES_PER_S = 50.0  # of its encoder
#: Millions of parameters, width, encoder layers, heads (openai-whisper's README and model.py's dimensions, 20250625).
SIZES = {
    "tiny": (39, 384, 4, 6),
    "base": (74, 512, 6, 8),
    "small": (244, 768, 12, 12),
    "medium": (769, 1024, 24, 16),
    "large": (1550, 1280, 32, 20),
    "turbo": (809, 1280, 32, 20),
}


def whisper_shape(model: str) -> Shape:
    """The shape of a Whisper's folder, or of a name such as aadel4/kid-whisper-small-en-myst. Never raises.

    A name that tells no size is taken for medium.
    """
    folder = Path(model)
    if folder.is_dir():
        try:
            return _of_folder(folder)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the recipe, which has to open it, says what is wrong with it
    name = model.rsplit("/", 1)[-1].lower()
    size = next((size for size in ("turbo", *SIZES) if re.search(rf"\b{size}\b", name)), "medium")
    millions, width, layers, heads = SIZES[size]
    return _shape(millions * 1e6, width, layers, heads, millions * 1e6 * WEIGHT_BYTES / 1e9, f"{size}, by its name")


def _of_folder(folder: Path) -> Shape:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin")]
    held = sum(file.stat().st_size for file in weights if file.suffix == ".safetensors")
    held = held or sum(file.stat().st_size for file in weights)
    half = str(config.get("dtype") or config.get("torch_dtype") or "float32").endswith("16")
    width, layers = int(config["d_model"]), int(config["encoder_layers"])
    parameters = held / (WEIGHT_BYTES / 2 if half else WEIGHT_BYTES)
    heads = int(config["encoder_attention_heads"])
    return _shape(parameters, width, layers, heads, held / 1e9, f"read from {folder.name}")


def _shape(parameters: float, width: int, layers: int, heads: int, file_gb: float, told_by: str) -> Shape:
    """An encoder's layer has 12 of width squared: attention 4, feed-forward 8. Its decoder is what is left."""
    return Shape(
        parameters=parameters, encoder_parameters=min(parameters, 12.0 * layers * width**2), kind="ctc", width=width,
        layers=layers, heads=heads, vocabulary=51_865, extra=1, joint_hidden=0, fused_batch_size=None,
        frames_per_s=FRAMES_PER_S, file_gb=file_gb, told_by=told_by,
    )  # fmt: skip
