"""Prints the names of the weights and statistics in which two .nemo files differ, as a JSON list."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from typing import Any

import torch


def weights(path: str) -> dict[str, Any]:
    with tarfile.open(path) as archive:
        file = archive.extractfile("./model_weights.ckpt")
        assert file is not None
        found: dict[str, Any] = torch.load(io.BytesIO(file.read()), map_location="cpu", weights_only=True)
        return found


one, two = weights(sys.argv[1]), weights(sys.argv[2])
assert one.keys() == two.keys()
sys.stdout.write(json.dumps([name for name in one if not torch.equal(one[name], two[name])]) + "\n")
