"""Each source against a server or program that speaks the real shapes: what it asks, and what it makes of answers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from strangers import BREV_ITEM, BREV_ROW, RUNPOD_ROW, VAST_ROW, StillClock, Stranger

from launcher.money import Usd
from launcher.offers import brev, market, runpod, vast
from launcher.offers.offer import Offer
from launcher.offers.source import Context, NotAskedError

KEY = "rpa_SECRET0123456789"


@pytest.fixture
def ctx(clock: StillClock) -> Context:
    return Context(clock, 60.0, time.monotonic() + 10)


def program(folder: Path, says: object, code: int = 0, complains: str = "") -> Path:
    """A `brev` that writes down how it was called, and says this."""
    folder.mkdir(exist_ok=True)
    (folder / "says").write_text(says if isinstance(says, str) else json.dumps(says))
    path = folder / "brev"
    said = f"echo '{complains}' >&2\n" if complains else ""
    path.write_text(f'#!/bin/sh\necho "$@" > {folder}/called\n/bin/cat {folder}/says\n{said}exit {code}\n')
    path.chmod(0o755)
    return path


# --- The registry -------------------------------------------------------------------------------------------


def test_every_module_that_calls_itself_a_source_is_asked_and_has_what_a_source_needs() -> None:
    package = Path(market.__file__).parent
    named = {path.stem for path in package.glob("*.py") if "\nNAME = " in path.read_text(encoding="utf-8")}
    assert named == set(market.SOURCES)
    for module in market.source_modules():
        assert module.__name__.rpartition(".")[2] == module.NAME
        assert module.PROVIDERS and all(isinstance(name, str) for name in module.PROVIDERS)
        assert 0 < module.TIMEOUT_S <= 60
        assert module.KEPT_S >= 0 and isinstance(module.REDIRECTS, tuple) and callable(module.offers)


def test_no_two_sources_bring_the_same_provider() -> None:
    held = [name for module in market.source_modules() for name in module.PROVIDERS]
    assert len(held) == len(set(held))


# --- Vast ---------------------------------------------------------------------------------------------------


@pytest.fixture
def vast_key(alone: pytest.MonkeyPatch, server: Stranger) -> None:
    alone.setenv("VAST_URL", server.url)
    alone.setenv("VAST_API_KEY", KEY)


def vast_offers(ctx: Context, server: Stranger, *rows: dict[str, Any]) -> list[Offer]:
    server.says = {"success": True, "offers": [VAST_ROW | row for row in rows]}
    return vast.offers(ctx)


@pytest.mark.usefixtures("vast_key")
def test_vast_is_asked_by_its_sdk_for_on_demand_hosts_by_total_price_with_our_disk(
    ctx: Context, server: Stranger
) -> None:
    vast_offers(ctx, server, {})
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/api/v0/bundles/")
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.body["order"] == [["dph_total", "asc"]]
    assert (asked.body["type"], asked.body["allocated_storage"]) == ("on-demand", 60.0)
    assert asked.body["disk_space"] == {"gte": 60.0}
    assert asked.body["verified"] == asked.body["rentable"] == {"eq": True}
    assert asked.body["rented"] == asked.body["external"] == {"eq": False}


@pytest.mark.usefixtures("vast_key")
def test_a_vast_row_becomes_an_offer_with_rent_disk_and_traffic_apart(ctx: Context, server: Stranger) -> None:
    (offer,) = vast_offers(ctx, server, {})
    assert offer == Offer(
        provider="vast", offer_id="12345678", gpu="RTX 4090", count=1, vram_gb=24.0, usd_per_hour=Usd("0.30"),
        disk_usd_per_gb_month=Usd("0.152083"), usd_per_gb_up=Usd("0.00456"), usd_per_gb_down=Usd("0.00123"),
        region="Saxony, DE", reliability=0.9962, trust="marketplace", inet_down_mbps=914.7, inet_up_mbps=823.4,
        dlperf=98.5, available=True, as_of="2026-11-21T10:00:00.000Z",
    )  # fmt: skip
    # Rent and 60 GB of disk together are what Vast quotes as its total.
    quoted = Usd("0.3") + Usd("0.15") * 60 / 720
    assert abs(offer.usd_per_hour + offer.disk_usd_per_gb_month * 60 / 730 - quoted) < Usd("0.0001")


@pytest.mark.usefixtures("vast_key")
@pytest.mark.parametrize(
    ("row", "trust"),
    [({"hosting_type": 1}, "secure"), ({"hosting_type": 1, "verification": "unverified"}, "marketplace"),
     ({"hosting_type": 0}, "marketplace"), ({"hosting_type": None}, "marketplace")],
)  # fmt: skip
def test_only_a_verified_data_centre_of_vasts_is_more_than_a_strangers_machine(
    ctx: Context, server: Stranger, row: dict[str, Any], trust: str
) -> None:
    assert [offer.trust for offer in vast_offers(ctx, server, row)] == [trust]


@pytest.mark.usefixtures("vast_key")
def test_vast_rows_that_nobody_should_rent_are_left_out_and_counted(ctx: Context, server: Stranger) -> None:
    rows = [
        {"id": 1}, {"id": 2, "dph_total": 0, "dph_base": 0, "storage_total_cost": 0},
        {"id": 3, "dph_total": None, "dph_base": None}, {"id": 4, "dph_base": -1, "dph_total": -1},
        {"id": 5, "dph_base": 5000.0, "dph_total": 5000.0}, {"id": 6, "cuda_max_good": 12.4},
        {"id": 7, "gpu_arch": "amd"}, {"id": None}, {"id": 9, "num_gpus": 0}, {"id": 10, "storage_cost": "free"},
        {"id": 11, "gpu_name": "MI300X"},
    ]  # fmt: skip
    assert [offer.offer_id for offer in vast_offers(ctx, server, *rows)] == ["1"]
    assert dict(ctx.left_out) == {
        "price 0": 1, "price missing": 1, "price below 0": 1, "price above $1,000 an hour per GPU": 1,
        "driver older than CUDA 13.0": 1, "not NVIDIA": 2, "unreadable id": 1, "no number of GPUs": 1,
        "storage_cost not a number": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("vast_key")
def test_nan_and_infinity_in_a_vast_row_are_no_prices(ctx: Context, server: Stranger) -> None:
    row = json.dumps(VAST_ROW | {"dph_base": None})
    rows = [row.replace("0.312329", word) for word in ("NaN", "Infinity", "-Infinity", "1e999", '"0.31 EUR"')]
    server.says = f'{{"offers": [{", ".join(rows)}]}}'.encode()
    assert vast.offers(ctx) == []
    assert dict(ctx.left_out) == {"price not a number": 5}


# --- RunPod -------------------------------------------------------------------------------------------------


@pytest.fixture
def runpod_key(alone: pytest.MonkeyPatch, server: Stranger) -> None:
    alone.setenv("RUNPOD_API_BASE_URL", server.url)
    alone.setenv("RUNPOD_API_KEY", KEY)


@pytest.mark.usefixtures("runpod_key")
def test_runpods_secure_cloud_is_secure_and_its_community_a_marketplace_and_no_stock_is_told(
    ctx: Context, server: Stranger
) -> None:
    server.says = {"data": {"gpuTypes": [RUNPOD_ROW]}}
    secure, community = runpod.offers(ctx)
    (asked,) = server.asked
    assert asked.path == "/graphql"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in asked.path and KEY not in json.dumps(asked.body)
    assert (secure.usd_per_hour, secure.trust, secure.available, secure.region) == (Usd("0.69"), "secure", True, "US")
    assert (community.usd_per_hour, community.trust, community.available) == (Usd("0.34"), "marketplace", False)
    assert {secure.gpu, community.gpu} == {"RTX 4090"}
    card = "NVIDIA GeForce RTX 4090"
    assert {secure.offer_id, community.offer_id} == {f"{card}/secure", f"{card}/community"}


@pytest.mark.usefixtures("runpod_key")
def test_runpod_rows_are_priced_at_the_larger_figure_and_left_out_without_one(ctx: Context, server: Stranger) -> None:
    only = {"communityCloud": False}
    server.says = {"data": {"gpuTypes": [
        RUNPOD_ROW | only | {"id": "NVIDIA L4", "securePrice": 0.5, "secure": {"uninterruptablePrice": 0.43}},
        RUNPOD_ROW | only | {"id": "NVIDIA L40", "securePrice": None},
        RUNPOD_ROW | only | {"id": "NVIDIA L40S", "securePrice": 0, "secure": None},
        RUNPOD_ROW | only | {"id": "AMD Instinct MI300X OAM", "manufacturer": "AMD"},
        RUNPOD_ROW | {"id": "NVIDIA A40", "secureCloud": False, "communityCloud": False},
    ]}}  # fmt: skip
    priced = [(offer.gpu, offer.usd_per_hour) for offer in runpod.offers(ctx)]
    assert priced == [("L4", Usd("0.5")), ("L40", Usd("0.69"))]
    assert dict(ctx.left_out) == {"price 0": 1, "not NVIDIA": 1}


def test_runpods_key_is_read_where_its_own_tools_keep_it(
    ctx: Context, server: Stranger, alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone.setenv("RUNPOD_API_BASE_URL", server.url)
    (tmp_path / "user" / ".runpod").mkdir()
    (tmp_path / "user" / ".runpod" / "config.toml").write_text(f'[default]\napi_key = "{KEY}"\n')
    server.says = {"data": {"gpuTypes": []}}
    assert runpod.offers(ctx) == []
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "written", ["", "[default]\n", "default = 3\n", "[default]\napi_key = 7\n", "not toml", "[x]\n"]
)
def test_without_a_key_runpod_is_not_asked_whatever_its_file_holds(
    ctx: Context, alone: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    (tmp_path / "user" / ".runpod").mkdir()
    (tmp_path / "user" / ".runpod" / "config.toml").write_text(written)
    with pytest.raises(NotAskedError, match=r"no key \(RUNPOD_API_KEY\)"):
        runpod.offers(ctx)


# --- Brev ---------------------------------------------------------------------------------------------------

L40S = Offer(
    provider="brev", offer_id="g6e.xlarge", instance_type="g6e.xlarge", gpu="L40S", count=1, vram_gb=44.7,
    usd_per_hour=Usd("1.861"), disk_usd_per_gb_month=Usd("0.10001"), region="aws, us-east-1", trust="secure",
    boot_s=420, as_of="2026-11-21T10:00:00.000Z",
)  # fmt: skip


def test_brevs_public_endpoint_is_asked_where_its_command_line_is_not_installed(
    ctx: Context, server: Stranger, alone: pytest.MonkeyPatch
) -> None:
    alone.setenv("BREV_PUBLIC_API_URL", server.url)
    server.says = {"items": [BREV_ITEM]}
    assert brev.offers(ctx) == [L40S]
    assert [(asked.method, asked.path) for asked in server.asked] == [("GET", "/v1/instance/types")]


def test_brevs_command_line_says_the_same(ctx: Context, alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin", "A new version of brev is available\n" + json.dumps([BREV_ROW], indent=2))
    (offer,) = brev.offers(ctx)
    assert offer == L40S.model_copy(update={"disk_usd_per_gb_month": Usd("0.1"), "region": "aws"})
    assert (tmp_path / "bin" / "called").read_text() == "search gpu --json\n"


def test_brev_items_in_another_currency_or_by_another_maker_are_left_out(
    ctx: Context, server: Stranger, alone: pytest.MonkeyPatch
) -> None:
    alone.setenv("BREV_PUBLIC_API_URL", server.url)
    card = BREV_ITEM["supported_gpus"][0]
    server.says = {"items": [
        BREV_ITEM | {"base_price": {"currency": "EUR", "amount": "1.5"}},
        BREV_ITEM | {"base_price": {"currency": "USD", "amount": "1,50"}},
        BREV_ITEM | {"base_price": {"currency": "USD", "amount": "0"}},
        BREV_ITEM | {"supported_gpus": [card | {"manufacturer": "Habana", "name": "HL-205"}]},
        BREV_ITEM | {"supported_gpus": []},
        BREV_ITEM | {"type": "two", "supported_gpus": [card | {"count": 2}]},
    ]}  # fmt: skip
    assert [(offer.offer_id, offer.count) for offer in brev.offers(ctx)] == [("two", 2)]
    assert dict(ctx.left_out) == {"price in EUR": 1, "price not a number": 1, "price 0": 1, "not NVIDIA": 1}


def test_of_one_brev_type_at_several_prices_the_dearest_is_expected(
    ctx: Context, server: Stranger, alone: pytest.MonkeyPatch
) -> None:
    alone.setenv("BREV_PUBLIC_API_URL", server.url)
    server.says = {"items": [BREV_ITEM, BREV_ITEM | {"base_price": {"currency": "USD", "amount": "2.10"}}]}
    assert brev.offers(ctx)[0].usd_per_hour == Usd("2.10")
