"""One name for each GPU, however it is spelt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.offers.gpus import all_gpus, canonical, matching, nearest_gpu


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("RTX_4090", "RTX 4090"), ("RTX4090", "RTX 4090"),
        ("rtx 4090 24gb", "RTX 4090"), ("RTX 4090D", "RTX 4090 D"), ("RTX 4070S Ti", "RTX 4070 Ti SUPER"),
        ("A100-80GB", "A100 80GB"), ("NVIDIA A100 80GB PCIe", "A100 80GB"), ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("A100-80GB-SXM", "A100 80GB"), ("Tesla V100-SXM2-32GB", "V100 32GB"), ("V100", "V100 16GB"),
        ("h100_sxm", "H100 SXM"), ("NVIDIA H100 80GB HBM3", "H100 SXM"), ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("H100NVL", "H100 NVL"), ("NVIDIA H200", "H200"), ("NVIDIA GH200 480GB", "GH200"), ("Tesla T4", "T4"),
        ("RTX 6000Ada", "RTX 6000 Ada"), ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("RTX6000-Ada", "RTX 6000 Ada"), ("Quadro RTX 6000", "Quadro RTX 6000"), ("RTXA6000", "RTX A6000"),
        ("NVIDIA RTX A6000", "RTX A6000"), ("A10G", "A10G"), ("NVIDIA A10", "A10"), ("L40S", "L40S"), ("L40", "L40"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000"), ("Tesla P100-PCIE-16GB", "P100"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_provider_or_a_driver_is_one_gpu(spelt: str, name: str) -> None:
    found = canonical(spelt)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "spelt",
    ["NVIDIA GeForce RTX 4070 Laptop GPU", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "AMD Instinct MI300X OAM", "", "  ",
     "Gaudi HL-205", "tpu-v5e", "none (AMD EPYC, 2 cores)", "80GB"],
)  # fmt: skip
def test_a_laptops_chip_a_slice_and_another_makers_card_are_none_of_them(spelt: str) -> None:
    assert canonical(spelt) is None


def test_memory_decides_between_two_cards_of_one_name_and_the_smaller_is_meant_without() -> None:
    assert [getattr(canonical("A100 SXM4", gb), "name", "") for gb in (None, 39.6, 79.3)] == [
        "A100 40GB", "A100 40GB", "A100 80GB",
    ]  # fmt: skip
    assert getattr(canonical("A100-80GB", 40.0), "name", "") == "A100 80GB"  # the name's own word goes first


def test_every_canonical_name_means_itself() -> None:
    assert [name for name in all_gpus() if getattr(canonical(name), "name", None) != name] == []


def test_every_figure_has_a_source_and_is_of_a_gpus_size() -> None:
    for gpu in all_gpus().values():
        assert "NVIDIA" in gpu.source, gpu
        assert 6 <= gpu.vram_gb <= 300 and 10 <= gpu.bf16_tflops <= 3000 and 150 <= gpu.mem_gb_s <= 9000, gpu


@pytest.mark.parametrize(
    ("asked", "names"),
    [("a100", ["A100 40GB", "A100 80GB"]), ("H100", ["H100 PCIe", "H100 SXM", "H100 NVL"]),
     ("rtx 4070", ["RTX 4070"]), ("rtx_4090", ["RTX 4090"]), ("a100-80gb", ["A100 80GB"]), ("rtx409", [])],
)  # fmt: skip
def test_a_person_who_asks_for_a_name_gets_every_card_of_it(asked: str, names: list[str]) -> None:
    assert [gpu.name for gpu in matching(asked)] == names


def test_a_misspelt_gpu_is_answered_with_the_nearest() -> None:
    assert nearest_gpu("rtx 409") == "RTX 4090"
    assert nearest_gpu("l40x") in ("L40", "L40S")
    assert nearest_gpu("banana") is None


@given(st.text(), st.none() | st.floats())
def test_no_name_and_no_memory_can_make_it_fail(name: str, memory: float | None) -> None:
    canonical(name, memory)
    matching(name)
    nearest_gpu(name)
