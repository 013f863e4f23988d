from __future__ import annotations

import re
from pathlib import Path

from recipes.constants import figures

REPO = Path(__file__).resolve().parents[2]
UNITS = (
    "_bytes", "_bytes_per_", "_gb", "_gb_per_", "_gb_s", "_s", "_s_per_", "_h", "_per_h", "_mbps", "_share", "_flop",
    "flop_per_", "flops_per_", "_tflops", "_chance", "_ratio", "_runs", "frames_per_", "characters_per_",
    "tflops_per_", "times_", "share_of", "batch_size", "reliability", "bytes_moved", "usable_share",
)  # fmt: skip


def test_every_figure_has_a_source_a_way_to_measure_it_again_and_a_unit_in_its_name() -> None:
    for name, held in figures().items():
        assert len(held.source) > 10, name
        assert held.remeasure, name
        section, short = name.split(".")
        assert section == "spread" or any(unit in f"_{short}_" for unit in UNITS), f"{name}: no unit in its name"
        assert held.value > 0, name


def test_every_figure_is_used() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("recipes", "launcher")
        for path in (REPO / folder).rglob("*.py")
    )
    asked = set(re.findall(r'figure\(\s*f?"([\w.{}]+)"', code)) | set(re.findall(r'"((?:\w+)\.(?:[\w{}]+))"', code))
    for name in figures():
        patterns = [re.escape(one).replace(r"\{kind\}", "(half|full|bf16|secure|marketplace)") for one in asked]
        assert any(re.fullmatch(pattern, name) for pattern in patterns), f"{name} is used nowhere"
