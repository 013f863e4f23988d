"""Other clouds: SkyPilot and gpuhunt for real, on catalogs laid out by hand, in a process of their own."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from strangers import NOW, StillClock, Stranger

from launcher.home import Home
from launcher.money import Usd
from launcher.offers import Market, SourceReport, ask_market, others
from launcher.offers.catalogs import GPUHUNT
from launcher.providers.traits import SKYPILOT_CLOUDS

SKY_HEAD = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice\n"
HUNT_HEAD = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags\n"


def sky_row(instance: str, gpu: str, count: float, price: float | str, region: str, gib: int) -> str:
    cards = [{"Name": gpu, "Manufacturer": "NVIDIA", "Count": count, "MemoryInfo": {"SizeInMiB": gib * 1024}}]
    info = {"Gpus": cards, "TotalGpuMemoryInMiB": gib * 1024}
    return f'{instance},{gpu},{count},30.0,200.0,{price},{region},"{info}",\n'


def hunt_row(instance: str, gpu: str, price: float, region: str, gb: int, spot: bool = False) -> str:
    return f"{instance},{region},{price},30,200.0,1,{gpu},{gb}.0,{spot},,nvidia,\n"


def put(path: Path, text: str, age: timedelta = timedelta(hours=2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    moment = (NOW - age).timestamp()
    os.utime(path, (moment, moment))


@pytest.fixture
def sky(alone: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """SkyPilot's folder of catalogs; there is nobody to download one from."""
    return tmp_path / "user" / ".sky" / "catalogs" / "v8"


def ask(home: Home, *clouds: str) -> tuple[Market, SourceReport]:
    market = ask_market(home, StillClock(), providers=clouds)
    return market, market.sources[0]


def test_the_clouds_asked_for_are_skypilots_and_never_those_of_our_own_sources() -> None:
    assert set(others.PROVIDERS) < set(SKYPILOT_CLOUDS)
    assert set(GPUHUNT.values()) <= set(others.PROVIDERS)
    assert not {"vastai", "vast", "runpod"} & {*GPUHUNT, *others.PROVIDERS}


def test_what_skypilot_can_rent_comes_once_at_the_larger_price_in_its_cheapest_region(
    home: Home, sky: Path, alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(sky / "lambda" / "vms.csv", SKY_HEAD
        + sky_row("gpu_1x_a100_sxm4", "A100", 1.0, 1.29, "us-east-1", 40)
        + sky_row("gpu_1x_a100_sxm4", "A100", 1.0, 1.39, "us-west-1", 40)
        + sky_row("gpu_8x_h100_sxm5", "H100-SXM", 8.0, 23.92, "us-east-1", 80)
        + sky_row("gpu_free", "A10", 1.0, 0.0, "us-east-1", 24)
        + sky_row("gpu_unpriced", "A10", 1.0, "", "us-east-1", 24)
        + sky_row("gpu_shared", "A10", 0.5, 0.3, "us-east-1", 24))  # fmt: skip
    put(sky / "do" / "vms.csv", SKY_HEAD + sky_row("gpu-l40s", "L40S", 1.0, 1.57, "tor1", 48), age=timedelta(days=40))
    hunted = tmp_path / "gpuhunt"
    put(hunted / "lambdalabs.csv", HUNT_HEAD
        + hunt_row("gpu_1x_a100_sxm4", "A100", 1.45, "us-east-1", 40)  # dearer now than SkyPilot's catalog has it
        + hunt_row("gpu_1x_b200", "B200", 4.99, "us-east-1", 180))  # fmt: skip
    put(hunted / "verda.csv", HUNT_HEAD
        + hunt_row("1A100.22V", "A100", 1.19, "FIN-01", 80)
        + hunt_row("1A100.22V", "A100", 0.5, "FIN-01", 80, spot=True))  # fmt: skip
    put(hunted / "runpod.csv", HUNT_HEAD + hunt_row("NVIDIA L4", "L4", 0.43, "US", 24))
    alone.setenv("GPUHUNT_CATALOG_DIR", str(hunted))
    market, told = ask(home, "lambda", "verda", "do", "runpod", "cudo")
    found = {(o.provider, o.instance_type): o for o in market.offers}
    assert {key: (o.gpu, o.count, o.usd_per_hour, o.region) for key, o in found.items()} == {
        ("lambda", "gpu_1x_a100_sxm4"): ("A100 40GB", 1, Usd("1.39"), "us-west-1"),
        ("lambda", "gpu_8x_h100_sxm5"): ("H100 SXM", 8, Usd("23.92"), "us-east-1"),
        ("do", "gpu-l40s"): ("L40S", 1, Usd("1.57"), "tor1"),
        ("verda", "1A100.22V"): ("A100 80GB", 1, Usd("1.19"), "FIN-01"),
    }
    assert {(o.via, o.trust, o.available) for o in market.offers} == {("skypilot", "secure", None)}
    assert [o.offer_id for o in market.offers if o.provider == "do"] == ["do/gpu-l40s/tor1"]
    assert [o.provider for o in market.offers if o.stale] == ["do"]  # a catalog that nobody renews
    told = next(source for source in market.sources if source.name == "others")
    assert told.ok and told.stale
    assert "price 0" in told.note and "not in SkyPilot's catalog" in told.note
    assert "1 of 4 catalogs failed (cudo): cannot be reached" in told.note


def test_gpuhunts_published_catalogs_stand_in_for_one_that_skypilot_cannot_fetch(
    home: Home, sky: Path, alone: pytest.MonkeyPatch, server: Stranger
) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("verda.csv", HUNT_HEAD + hunt_row("1A100.22V", "A100", 1.19, "FIN-01", 80))
    answers = {"/verda/version": b"20261118-114\n", "/verda/20261118-114/catalog.zip": held.getvalue()}
    server.says = lambda path: answers.get(path, b"none")
    alone.setenv("GPUHUNT_CATALOG_URL", server.url)
    market, told = ask(home, "verda")
    (offer,) = market.offers
    assert (offer.usd_per_hour, offer.gpu, offer.note) == (Usd("1.19"), "A100 80GB", "price by gpuhunt")
    assert (offer.as_of, offer.stale) == ("2026-11-18T00:00:00.000Z", True)  # the day it was collected
    assert told.ok


def test_without_any_catalog_it_is_one_reason(home: Home, sky: Path) -> None:
    market, told = ask(home, "lambda")
    assert market.offers == []
    assert told.error == "no catalog could be read: cannot be reached"


def test_a_damaged_catalog_hides_no_other(home: Home, sky: Path) -> None:
    put(sky / "lambda" / "vms.csv", "<html>502</html>")
    put(sky / "do" / "vms.csv", SKY_HEAD + sky_row("gpu-l40s", "L40S", 1.0, 1.57, "tor1", 48))
    market, told = ask(home, "lambda", "do")
    assert [offer.provider for offer in market.offers] == ["do"]
    assert told.ok and told.note.startswith("1 of 2 catalogs failed (lambda): KeyError")


def test_without_skypilot_they_are_not_asked(home: Home, alone: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    alone.setattr(others, "distribution", absent)
    assert ask(home, "lambda")[1].error == (
        "not asked: SkyPilot is not installed. Fix: pip install 'parakeet-launcher[cloud]'"
    )


def test_asking_does_not_import_skypilot_here(home: Home, sky: Path) -> None:
    put(sky / "do" / "vms.csv", SKY_HEAD + sky_row("gpu-l40s", "L40S", 1.0, 1.57, "tor1", 48))
    before = set(sys.modules)
    assert ask(home, "do")[0].offers
    assert not {"sky", "gpuhunt", "pandas"} & (set(sys.modules) - before)


def test_what_came_before_the_time_was_over_is_shown(
    home: Home, sky: Path, alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in that says one cloud and then nothing more: a download that hangs."""
    line = {"from": "sky", "cloud": "do", "as_of": "", "rows": [["gpu-l40s", "tor1", "L40S", 1.0, 48.0, 1.57]]}
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho '{json.dumps(line)}'\nexec /bin/sleep 600\n")
    stand_in.chmod(0o755)
    alone.setattr(sys, "executable", str(stand_in))
    alone.setattr(others, "TIMEOUT_S", 2.0)
    market, told = ask(home, "do", "lambda")
    assert [offer.offer_id for offer in market.offers] == ["do/gpu-l40s/tor1"]
    assert told.ok and told.note == "the rest did not answer in time"
