"""The shape of a base as memory and time see it: read from the .nemo, or known by name. Needs no torch."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.constants import figure
from recipes.models.archive import WEIGHTS, BadModelFile, ForeignWeights, read_config
from recipes.models.bases import Kind, known_base

WEIGHT_BYTES = 4  # a .nemo holds float32
_PARAMETERS_A_LAYER = 24  # of d_model squared: two feed-forwards 16, attention 5, convolution 3


@dataclass(frozen=True)
class Shape:
    """Sizes of one model. `extra` are the outputs of a joint beside its tokens (durations of a TDT, blank)."""

    parameters: float
    encoder_parameters: float
    kind: Kind
    width: int  # d_model
    layers: int
    heads: int
    vocabulary: int
    extra: int
    joint_hidden: int
    fused_batch_size: int | None  # None: the joint takes the whole batch at once
    frames_per_s: float
    file_gb: float  # of the .nemo
    told_by: str  # where these come from, in words

    @property
    def head_parameters(self) -> float:
        """What `frozen_encoder` trains."""
        return max(0.0, self.parameters - self.encoder_parameters)

    def tokens(self, characters: float) -> float:
        """About how many tokens a text of so many characters has; rather too many than too few."""
        if self.vocabulary >= 512:
            return characters / figure("shape.characters_per_token_large_vocabulary")
        return characters / (figure("shape.characters_per_token_small_vocabulary") if self.vocabulary >= 64 else 1.0)


def shape_of(base: str) -> Shape:
    """The shape of a .nemo file, or of a pretrained name. Never raises: a file that is none has a name, too."""
    path = Path(base)
    if base.endswith(".nemo") and path.is_file():
        try:
            return _of_file(path)
        except (BadModelFile, tarfile.TarError, OSError, KeyError, TypeError, ValueError):
            pass  # the recipe, which has to open it, says what is wrong with it
    return _of_name(base)


def shape_of_config(config: dict[str, Any], *, parameters: float, file_gb: float, told_by: str) -> Shape:
    """The shape that a NeMo config tells, of a model with so many parameters."""
    encoder = config["encoder"]
    width, layers = int(encoder["d_model"]), int(encoder["n_layers"])
    joint = config.get("joint") or {}
    net = joint.get("jointnet") or {}
    defaults = config.get("model_defaults") or {}
    extra = int(joint.get("num_extra_outputs") or 0)
    decoder = config.get("decoder") or {}
    told = joint.get("num_classes") or decoder.get("vocab_size") or decoder.get("num_classes") or 0
    vocabulary = max(0, int(told)) or len(joint.get("vocabulary") or decoder.get("vocabulary") or ())
    preprocessor = config.get("preprocessor") or {}
    hop_s = float(preprocessor.get("window_stride") or 0.01)
    channels = int(encoder.get("subsampling_conv_channels") or -1)
    mels = int(encoder.get("feat_in") or preprocessor.get("features") or 80)
    encoder_parameters = _encoder_parameters(width, layers, channels if channels > 0 else width, mels)
    kind: Kind = "ctc" if not joint else "hybrid" if config.get("aux_ctc") else "tdt" if extra else "rnnt"
    fused = joint.get("fused_batch_size") if joint.get("fuse_loss_wer") else None
    return Shape(
        parameters=parameters,
        encoder_parameters=min(parameters, encoder_parameters),
        kind=kind,
        width=width,
        layers=layers,
        heads=int(encoder.get("n_heads") or 8),
        vocabulary=vocabulary or 1024,
        extra=extra + 1,
        joint_hidden=int(net.get("joint_hidden") or defaults.get("joint_hidden") or width) if joint else 0,
        fused_batch_size=int(fused) if isinstance(fused, int) and fused > 0 else None,
        frames_per_s=1 / (hop_s * float(encoder.get("subsampling_factor") or 8)),
        file_gb=file_gb,
        told_by=told_by,
    )


def _encoder_parameters(width: int, layers: int, channels: int = 256, mels: int = 128) -> float:
    """Of a FastConformer: its layers, the convolutions of the subsampling and the linear after them."""
    return layers * _PARAMETERS_A_LAYER * width**2 + 2 * channels**2 + channels * mels // 8 * width


def _of_file(path: Path) -> Shape:
    try:
        config = read_config(path)
    except ForeignWeights as error:  # whether it is loaded is for others to say: here it is only measured
        config = read_config(path, trusted=error.sha256)
    with tarfile.open(path) as archive:
        weights = next(member.size for member in archive if member.name.endswith(WEIGHTS))
    size_gb = path.stat().st_size / 1e9
    return shape_of_config(
        config, parameters=weights / WEIGHT_BYTES, file_gb=size_gb, told_by=f"read from {path.name}"
    )


def _of_name(base: str) -> Shape:
    known = known_base(base)
    name = (known.name if known else base).lower()
    if known:
        millions = float(known.parameters_millions)
    else:
        sized = re.search(r"(\d+(?:\.\d+)?)([bm])\b", name)
        millions = float(sized[1]) * (1000 if sized[2] == "b" else 1) if sized else 618.0
    width, layers = (512, 17) if millions < 300 else (1024, 24) if millions < 850 else (1024, 42)
    kind: Kind = known.kind if known else "ctc" if "ctc" in name and "tdt" not in name else "tdt"
    has_joint = kind != "ctc"
    return Shape(
        parameters=millions * 1e6,
        encoder_parameters=min(millions * 1e6, _encoder_parameters(width, layers)),
        kind=kind,
        width=width,
        layers=layers,
        heads=8,
        vocabulary=8192 if "v3" in name or (known and known.languages != "en") else 1024,
        extra=6 if kind in ("tdt", "hybrid") else 1,
        joint_hidden=640 if has_joint else 0,
        fused_batch_size=int(figure("shape.fused_batch_size")) if has_joint else None,
        frames_per_s=figure("shape.frames_per_audio_s"),
        file_gb=millions * 1e6 * WEIGHT_BYTES / 1e9,
        told_by=f"{millions:g} M parameters by the name {base}",
    )
