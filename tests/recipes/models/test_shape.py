from __future__ import annotations

from pathlib import Path

import pytest

from recipes.models.shape import shape_of, shape_of_config

PARAKEET = {
    "preprocessor": {"window_stride": 0.01, "features": 128},
    "encoder": {
        "feat_in": 128, "d_model": 1024, "n_layers": 24, "n_heads": 8, "subsampling_factor": 8,
        "subsampling_conv_channels": 256,
    },
    "decoder": {"vocab_size": 1024},
    "joint": {
        "num_classes": 1024, "num_extra_outputs": 5, "fuse_loss_wer": True, "fused_batch_size": 4,
        "jointnet": {"joint_hidden": 640},
    },
}  # fmt: skip


def test_a_config_tells_what_memory_depends_on() -> None:
    shape = shape_of_config(PARAKEET, parameters=617.8e6, file_gb=2.5, told_by="here")
    assert shape.encoder_parameters == pytest.approx(608.9e6, rel=0.002), "as counted on the model itself"
    assert shape.head_parameters == pytest.approx(8.9e6, rel=0.2), "decoder 7.2 M and joint 1.7 M"
    assert (shape.kind, shape.vocabulary, shape.extra, shape.joint_hidden) == ("tdt", 1024, 6, 640)
    assert (shape.fused_batch_size, shape.frames_per_s) == (4, 12.5)


def test_a_joint_that_is_not_fused_takes_the_whole_batch() -> None:
    config = {**PARAKEET, "joint": {**PARAKEET["joint"], "fuse_loss_wer": False}}
    assert shape_of_config(config, parameters=6e8, file_gb=2, told_by="").fused_batch_size is None


@pytest.mark.parametrize(
    ("name", "kind", "layers", "vocabulary"),
    [
        ("nvidia/parakeet-tdt-0.6b-v2", "tdt", 24, 1024),
        ("nvidia/parakeet-tdt-0.6b-v3", "tdt", 24, 8192),
        ("parakeet-tdt-1.1b", "tdt", 42, 1024),
        ("nvidia/parakeet-rnnt-0.6b", "rnnt", 24, 1024),
        ("nvidia/parakeet-ctc-1.1b", "ctc", 42, 1024),
        ("nvidia/parakeet-tdt_ctc-110m", "hybrid", 17, 1024),
        ("somebody/unknown-0.3b", "tdt", 24, 1024),
    ],
)
def test_a_pretrained_name_has_the_shape_of_its_family(name: str, kind: str, layers: int, vocabulary: int) -> None:
    shape = shape_of(name)
    assert (shape.kind, shape.layers, shape.vocabulary) == (kind, layers, vocabulary)
    assert 0 < shape.encoder_parameters <= shape.parameters


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 half a zip", b"\x1f\x8b not gzip"])
def test_a_broken_file_still_has_a_shape_for_the_recipe_to_refuse_it_later(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken-0.6b.nemo"
    path.write_bytes(content)
    assert shape_of(str(path)).parameters == 0.6e9
