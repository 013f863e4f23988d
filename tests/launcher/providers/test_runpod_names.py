"""A lease's pod is known by its name, whichever engine gave it."""

import pytest

from launcher.providers.runpod_api import carries, label_of

LABEL = "pl-root-vm-1904ec-e607afa2-20261121T164826"


def of_skypilot(label: str) -> str:
    """A cluster's name as SkyPilot itself writes it for RunPod."""
    common = pytest.importorskip("sky.utils.common_utils")
    written: str = common.make_cluster_name_on_cloud(label, max_length=120)
    return written


@pytest.mark.parametrize("label", [LABEL, "pl-a.b_c-1904ec-e607afa2-20261121T164826"])
@pytest.mark.parametrize("node", ["head", "worker"])
def test_a_pod_that_skypilot_named_is_the_leases(label: str, node: str) -> None:
    assert carries(f"{of_skypilot(label)}-{node}", label)


def test_the_label_itself_is_the_leases_and_is_read_back() -> None:
    assert carries(LABEL, LABEL)
    assert label_of(f"{of_skypilot(LABEL)}-head") == LABEL
    assert label_of(LABEL) == LABEL


@pytest.mark.parametrize("name", [
    "", "head", f"{LABEL}-head", f"{LABEL}-0123456-head", f"{LABEL.lower()}x-01234567-head",
    f"x{LABEL.lower()}-01234567-head", f"{LABEL.lower()}-01234567-head2", f"{LABEL.lower()}-01234567",
    "pl-root-vm-1904ec-e607afa3-20261121t164826-01234567-head", LABEL.lower(),
])  # fmt: skip
def test_any_other_name_is_somebody_elses(name: str) -> None:
    assert not carries(name, LABEL)


@pytest.mark.parametrize("name", ["a-cluster-01234567-head", "my-pod", "train-20260101t000000-01234567-worker"])
def test_a_name_that_is_none_of_our_labels_stays_as_it_is(name: str) -> None:
    assert label_of(name) == name
