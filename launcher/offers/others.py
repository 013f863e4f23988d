"""The clouds that SkyPilot can rent at (Lambda, Nebius, Verda and more), from its catalogs and gpuhunt's."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from launcher.clock import iso, parse_iso
from launcher.money import Usd
from launcher.offers import bounded
from launcher.offers.offer import Offer
from launcher.offers.source import Context, NotAskedError, SourceError, number, text, usd
from launcher.providers.traits import SKYPILOT_CLOUDS, traits_of_provider

NAME = "others"
# One's own machines have no price in a catalog.
PROVIDERS: tuple[str, ...] = tuple(
    name for name in SKYPILOT_CLOUDS if name not in ("kubernetes", "slurm", "ssh", "vsphere")
)
TIMEOUT_S = 40.0  # the first time, SkyPilot downloads a catalog a cloud
KEPT_S = 3600.0  # SkyPilot's own catalogs are renewed every 7 hours
REDIRECTS: tuple[str, ...] = ("HOME", "SKY_RUNTIME_DIR", "GPUHUNT_CATALOG_DIR", "GPUHUNT_CATALOG_URL")

_OLD = timedelta(days=2)  # gpuhunt's catalogs are collected daily and dated by the day
Key = tuple[str, str, str]  # cloud, instance type, region


def offers(ctx: Context) -> list[Offer]:
    """Each instance type in its cheapest region: only what SkyPilot can rent. A catalog tells no stock."""
    try:
        distribution("skypilot")
    except PackageNotFoundError:
        raise NotAskedError("SkyPilot is not installed. Fix: pip install 'parakeet-launcher[cloud]'") from None
    clouds = sorted(set(PROVIDERS) if ctx.providers is None else set(PROVIDERS) & ctx.providers)
    held: dict[str, dict[Key, tuple[dict[str, Any], Usd]]] = {"sky": {}, "gpuhunt": {}}
    failed: dict[str, list[str]] = {}
    lines = 0
    inner = replace(ctx, ends=ctx.ends - 1)  # to end in time with what has come by then
    try:
        for line in bounded.run(inner, [sys.executable, "-m", "launcher.offers.catalogs", *clouds], _environment()):
            lines += 1
            _take(ctx, line, held, failed)
    except SourceError as error:
        if not any(held.values()):
            raise
        ctx.notes.append(f"the rest {error}")
    rows = _merged(ctx, held)
    missing = [cloud for cloud in clouds if cloud in failed and not any(key[0] == cloud for key in rows)]
    if missing:
        why = failed[missing[0]][0]
        ctx.notes.append(f"{len(missing)} of {len(clouds)} catalogs failed ({', '.join(missing[:3])}"
                         f"{', …' if len(missing) > 3 else ''}): {why}")  # fmt: skip
        if not rows:
            raise SourceError(f"no catalog could be read: {why}")
    return _cheapest_region([offer for offer in (ctx.offer(**fields) for fields in rows.values()) if offer])


def _take(ctx: Context, line: bytes, held: dict[str, dict[Key, tuple[dict[str, Any], Usd]]],
          failed: dict[str, list[str]]) -> None:  # fmt: skip
    """One line of `launcher.offers.catalogs`."""
    said = json.loads(line)
    source, cloud = said["from"], said["cloud"]
    if "error" in said:
        failed.setdefault(cloud, []).append(said["error"])
        return
    now = ctx.clock.now()
    # A file's date can be a second ahead of a clock; a price is never newer than its asking.
    moment = min(now, parse_iso(said["as_of"])) if said["as_of"] else now
    traits = traits_of_provider(cloud, "skypilot")
    for instance, region, gpu, count, memory, price in said["rows"]:
        try:
            dollars = usd(price, "price")
        except ValueError as error:
            ctx.left_out[str(error)] += 1
            continue
        fields = {
            "gpu": text(gpu), "vram_gb": number(memory), "provider": cloud, "via": "skypilot",
            "offer_id": f"{cloud}/{instance}/{region}", "instance_type": instance, "region": region,
            "count": int(count) if count == int(count) else 0,  # SkyPilot lists shares of a GPU, too
            "trust": traits.trust if traits else "marketplace", "as_of": iso(moment), "stale": now - moment > _OLD,
        }  # fmt: skip
        held[source][cloud, instance, region] = (fields, dollars)


def _merged(ctx: Context, held: dict[str, dict[Key, tuple[dict[str, Any], Usd]]]) -> dict[Key, dict[str, Any]]:
    """SkyPilot's rows at the larger of both prices; gpuhunt's where SkyPilot's catalog of a cloud is missing."""
    known = {key[0] for key in held["sky"]}
    rows = {}
    for key, (fields, price) in held["sky"].items():
        other = held["gpuhunt"].get(key)
        rows[key] = {**fields, "usd_per_hour": max(price, other[1]) if other else price}
    for key, (fields, price) in held["gpuhunt"].items():
        if key[0] not in known:
            rows[key] = {**fields, "usd_per_hour": price, "note": "price by gpuhunt"}
    unknown = sum(key[0] in known and key not in held["sky"] for key in held["gpuhunt"])
    if unknown:
        ctx.left_out["not in SkyPilot's catalog"] += unknown
    return rows


def _cheapest_region(found: list[Offer]) -> list[Offer]:
    """One offer for each machine type and GPU."""
    best: dict[tuple[str, str, str, int], Offer] = {}
    for offer in sorted(found, key=lambda offer: (offer.usd_per_hour, offer.region)):
        best.setdefault((offer.provider, offer.instance_type, offer.gpu, offer.count), offer)
    return list(best.values())


def _environment() -> dict[str, str]:
    """Ours, so that the same launcher is found, and SkyPilot reports to nobody."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return os.environ | {"PYTHONPATH": path, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
