"""A merge is the sum it says it is, the same bits whatever the number of threads, and refuses what has no place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.nemo

SCRIPT = """
import json, torch
from recipes.methods.merging import AdapterMisfit, check_fit, merged_weight
torch.manual_seed(0)
weight, a, b = torch.randn(300, 70), torch.randn(5, 70), torch.randn(300, 5)
many = merged_weight(weight, a, b, 0.4)
torch.set_num_threads(1)
alone = merged_weight(weight, a, b, 0.4)
exact = (weight.double() + 0.4 * (b.double() @ a.double())).float()
one_row = merged_weight(weight[7:8], a, b[7:8], 0.4)
state = {"layer.weight": weight, "head.bias": torch.zeros(3)}
pair = {"layer.lora_A.weight": a, "layer.lora_B.weight": b}
said = []
for tensors in (
    pair | {"layer.lora_A.weight": a[:4]}, {"layer.lora_A.weight": a}, {"layer.lora_B.weight": b},
    {"other.lora_A.weight": a, "other.lora_B.weight": b}, pair | {"layer.lora_B.weight": b[:299]},
    {"head.bias": torch.zeros(4)}, {"head.bias": torch.zeros(3, dtype=torch.float64)}, {"tail": a},
):
    try:
        check_fit(state, tensors)
    except AdapterMisfit as error:
        said.append(str(error))
print(json.dumps({
    "bits": torch.equal(many, alone) and torch.equal(many[7:8], one_row), "type": str(many.dtype),
    "apart": float((many - exact).abs().max()), "moved": float((many - weight).abs().max()),
    "pairs": list(check_fit(state, pair | {"head.bias": torch.ones(3)})), "said": said,
}))
"""


def test_the_sum_its_bits_and_what_does_not_fit(recipe_python: Path, repo: Path) -> None:
    command = [str(recipe_python), "-c", SCRIPT]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["bits"] and found["type"] == "torch.float32"
    assert found["apart"] < 1e-6 < 1 < found["moved"], "rounded once"
    assert found["pairs"] == ["layer.weight"]
    shapes = "layer: (300, 5) x (4, 70) is not of the base's shape (300, 70)"
    assert len(found["said"]) == 8 and found["said"][0] == shapes
    assert "the base has no such layer" in found["said"][3]
    assert "torch.float64 (3,) in the adapter, torch.float32 (3,) in the base" in found["said"][6]
