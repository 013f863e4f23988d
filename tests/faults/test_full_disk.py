"""The disk full from a write of the ledger on: two of a run's, or, in `make faults`, every one."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher.clock import SystemClock
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.money import Usd
from launcher.offers.offer import Offer
from launcher.providers.base import Intent
from launcher.providers.registry import provider_named
from tests.faults.field import Field
from tests.faults.full_disk import play, writes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

WHOLE = os.environ.get("LAUNCHER_FAULTS") == "all"
AT_ONCE = 4
#: The verb's reservation; and the runner's word that its machine was created: nobody else knows of that.
QUICK = (("launcher", 4, False), ("runner", 3, True))
FOREIGN = ("somebody-elses", "pl-dana-laptop-0ddba1-00c0ffee-20991231T000000")  # the second: a colleague's live run


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    with tempfile.TemporaryDirectory(prefix="launcher-disk-", ignore_cleanup_errors=True) as folder:
        field = Field(Path(folder))
        for name, value in field.cloud.env.items():
            if name != "PATH":
                monkeypatch.setenv(name, value)
        try:
            for label in FOREIGN:
                _rent(Home(Path(folder) / "colleague").ensure(), label)
            yield field
        finally:
            field.close()


def test_a_disk_that_is_full_from_any_write_of_the_ledger_on_leaves_no_machine_and_is_told(ground: Field) -> None:
    asked = [(who, number) for who, number, _ in QUICK]
    if WHOLE:
        counts = writes(ground, "runpod")
        asked = [(who, number) for who in counts for number in range(1, counts[who] + 1)]
        assert counts["launcher"] >= 4, counts
        assert counts["runner"] >= 15, counts
    with ThreadPoolExecutor(AT_ONCE) as pool:
        played = list(pool.map(lambda each: play(ground, "runpod", *each), asked))
    for result in played:
        sys.stdout.write(f"{result.told_briefly()}\n")
    assert [result for result in played if not result.reached] == []
    assert [result for result in played if result.faults] == []
    rented = {(result.who, result.number): result.rented for result in played}
    assert [rented[who, number] for who, number, _ in QUICK] == [rents for *_, rents in QUICK]
    standing = {row["label"] for row in ground.cloud.bill()["machines"] if row["state"] != "terminated"}
    assert standing == set(FOREIGN)


def _rent(home: Home, label: str) -> None:
    """A machine of the same account that is none of this launcher's runs'."""
    offer = Offer(provider="runpod", offer_id="NVIDIA L40S/secure", gpu="L40S", count=1, vram_gb=48,
                  usd_per_hour=Usd("0.86"))  # fmt: skip
    keys = LeaseKeys.create(home.root / "keys" / label, label)
    intent = Intent(label, offer, offer.usd_per_hour, "", disk_gb=20, keys=keys)
    provider_named("runpod", home, SystemClock()).create(intent)
