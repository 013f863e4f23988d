"""Every kind of base can teach: the same texts as when it is evaluated, each with NeMo's own confidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labelling_harness import HERE, Labelling

pytestmark = [pytest.mark.nemo, pytest.mark.slow("LAUNCHER_TEST_LABELS")]


def test_every_kind_of_base_hears_as_it_does_elsewhere_and_says_how_sure_it_is(
    labelling: Labelling, tiny_bases: Path, tone_folder: Path
) -> None:
    files = sorted(str(file) for file in tone_folder.glob("*.wav"))[:10]
    found = json.loads(labelling.call(HERE / "kinds_check.py", tiny_bases, *files).split("FOUND")[1])
    assert set(found) == {"tdt", "rnnt", "ctc", "hybrid"}
    for kind, one in found.items():
        assert one["same"] and one["heard"] and one["config_kept"], kind
        assert one["confidences"] == pytest.approx(one["own"], abs=1e-6), kind
        assert all(0 <= value <= 1 for value in one["confidences"]), kind
        assert len(set(one["confidences"])) > 1, kind  # an untrained one is unsure of each clip in its own way
