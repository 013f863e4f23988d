"""NVIDIA Brev's instance types: from its command line where it is installed, else from its public endpoint."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from launcher.money import ZERO
from launcher.offers import bounded
from launcher.offers.offer import Offer
from launcher.offers.source import Context, number, rows_of, text, usd

NAME = "brev"
PROVIDERS: tuple[str, ...] = ("brev",)
TIMEOUT_S = 20.0
KEPT_S = 300.0
REDIRECTS: tuple[str, ...] = ("BREV_PUBLIC_API_URL", "PATH")  # PATH: which brev answers

# brev-cli pkg/cmd/gpusearch/gpusearch.go: unitMultipliers, hoursInMonth, and the duration expressions.
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(TiB|TB|GiB|GB|MiB|MB)")
_IN_GB = {"TiB": 1024.0, "TB": 1000.0, "GiB": 1.0, "GB": 1.0, "MiB": 1 / 1024, "MB": 1 / 1000}
_DURATION = re.compile(r"(\d+)([hms])")
_SECONDS = {"h": 3600, "m": 60, "s": 1}
_HOURS_A_MONTH = Decimal(730)


def offers(ctx: Context) -> list[Offer]:
    """Every GPU instance type that Brev lists; neither way needs a login."""
    program = shutil.which("brev")
    rows = _from_program(ctx, program) if program else _from_endpoint(ctx)
    found = [offer for offer in (ctx.offer(**row) for row in rows) if offer]
    # `brev create` takes a type alone: where one is listed at several prices, the dearest is the one to expect.
    return sorted(found, key=lambda offer: -offer.usd_per_hour)


def _from_program(ctx: Context, program: str) -> Iterator[dict[str, Any]]:
    """`brev search gpu --json`: a list of objects (GPUInstanceInfo). It drops the currency; Brev quotes in USD."""
    said = b"\n".join(bounded.run(ctx, [program, "search", "gpu", "--json"]))
    start = said.find(b"[")  # a notice of a newer version may stand before it
    held = bounded.Reply(200, said[max(start, 0) :]).json()
    for row in rows_of(held, "a list of instance types"):
        if number(row.get("gpu_count")) == 0:
            continue  # a CPU machine
        yield _fields(
            row.get("type"), row.get("gpu_name"), row.get("gpu_count"), number(row.get("vram_per_gpu_gb")),
            row.get("price_per_hour"), disk=row.get("disk_price_per_gb_mo"),
            boot_s=number(row.get("boot_time_seconds")),
            region=text(row.get("cloud")) or text(row.get("provider")), arch=text(row.get("arch")),
        )  # fmt: skip


def _from_endpoint(ctx: Context) -> Iterator[dict[str, Any]]:
    """GET v1/instance/types: {"items": [InstanceType, …]}."""
    base = os.environ.get("BREV_PUBLIC_API_URL") or "https://api.brev.dev"
    held = bounded.ask(ctx, f"{base.rstrip('/')}/v1/instance/types").json()
    for row in rows_of(held.get("items") if isinstance(held, dict) else None, "items"):
        cards = row.get("supported_gpus")
        for card in cards if isinstance(cards, list) else ():
            if not isinstance(card, dict):
                continue
            price, disk, arch = _part(row, "base_price"), _storage(row), row.get("supported_architectures")
            maker = text(card.get("manufacturer"))
            if "NVIDIA" not in maker.upper():
                ctx.left_out["not NVIDIA"] += 1
                continue
            if text(price.get("currency")).upper() not in ("USD", ""):
                ctx.left_out[f"price in {text(price.get('currency'))}"] += 1
                continue
            yield _fields(
                row.get("type"), card.get("name"), card.get("count"), _gb(card), price.get("amount"), disk=disk,
                boot_s=_duration(text(row.get("estimated_deploy_time"))),
                region=", ".join(filter(None, (text(row.get("provider")), text(row.get("location"))))),
                arch=text(arch[0]) if isinstance(arch, list) and arch else "",
            )  # fmt: skip


def _fields(kind: object, gpu: object, count: object, vram_gb: float | None, price: object, *, disk: object,
            boot_s: float | None, region: str, arch: str) -> dict[str, Any]:  # fmt: skip
    return {
        "gpu": text(gpu), "vram_gb": vram_gb or None, "usd_per_hour": price, "provider": "brev", "count": count,
        "offer_id": text(kind), "instance_type": text(kind), "disk_usd_per_gb_month": disk, "region": region,
        "trust": "secure", "boot_s": boot_s or None, "note": "" if arch in ("", "-", "x86_64", "amd64") else arch,
    }  # fmt: skip


def _part(row: dict[str, Any], key: str) -> dict[str, Any]:
    held = row.get(key)
    return held if isinstance(held, dict) else {}


def _storage(row: dict[str, Any]) -> object:
    """Dollars a GB-month of the first storage that may be sized (a fixed one is in the hourly price)."""
    kinds = row.get("supported_storage")
    first = kinds[0] if isinstance(kinds, list) and kinds and isinstance(kinds[0], dict) else {}
    if not (first.get("min_size") and first.get("max_size")):
        return ZERO
    amount = _part(first, "price_per_gb_hr").get("amount")
    try:
        return usd(amount, "disk price") * _HOURS_A_MONTH if amount else ZERO
    except ValueError:
        return "?"  # the offer is left out, with the reason


def _gb(card: dict[str, Any]) -> float | None:
    """GPU memory: "22GiB360MiB", else {"value": 24, "unit": "GiB"}."""
    told = sum(float(figure) * _IN_GB[unit] for figure, unit in _SIZE.findall(text(card.get("memory"))))
    if told:
        return told
    held = _part(card, "memory_bytes")
    value, unit = number(held.get("value")), text(held.get("unit"))
    return value * _IN_GB[unit] if value and unit in _IN_GB else None


def _duration(written: str) -> float | None:
    """Seconds of Go's "7m0s"."""
    parts = _DURATION.findall(written)
    return float(sum(int(figure[:6]) * _SECONDS[unit] for figure, unit in parts)) if parts else None
