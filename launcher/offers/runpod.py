"""RunPod's GPU types over its GraphQL interface: secure and community prices, and whether there is stock."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from launcher.money import ZERO, Usd
from launcher.offers import bounded
from launcher.offers.offer import Offer, Trust
from launcher.offers.source import Context, NotAskedError, SourceError, clean, number, rows_of, text, usd

NAME = "runpod"
PROVIDERS: tuple[str, ...] = ("runpod",)
TIMEOUT_S = 15.0
KEPT_S = 300.0
REDIRECTS: tuple[str, ...] = ("RUNPOD_API_BASE_URL",)  # as the runpod package and SkyPilot have it

DISK_USD_PER_GB_MONTH = Usd("0.10")  # container disk while the pod runs: docs.runpod.io/pods/storage
# Fields and input as SkyPilot's fetch_runpod.py and gpuhunt's runpod.py ask for them.
_PRICE = "{ uninterruptablePrice stockStatus countryCode }"
QUERY = f"""query GpuTypes {{
  gpuTypes {{
    id displayName manufacturer memoryInGb secureCloud communityCloud securePrice communityPrice
    secure: lowestPrice(input: {{gpuCount: 1, secureCloud: true}}) {_PRICE}
    community: lowestPrice(input: {{gpuCount: 1, secureCloud: false}}) {_PRICE}
  }}
}}"""
_CLOUDS: tuple[tuple[str, Trust], ...] = (("secure", "secure"), ("community", "marketplace"))


def offers(ctx: Context) -> list[Offer]:
    """One GPU of each type, in the secure cloud and from the community, on demand."""
    key = account_key()
    ctx.secrets.append(key)
    reply = bounded.ask(ctx, address(), body={"query": QUERY},
                        headers={"Authorization": f"Bearer {key}"}).json()  # fmt: skip
    held = reply if isinstance(reply, dict) else {}
    faults = held.get("errors")
    data = held.get("data")
    if faults and not data:
        first = faults[0] if isinstance(faults, list) else faults
        raise SourceError(
            f"refused the question: {clean(first.get('message') if isinstance(first, dict) else first)}"
        )
    rows = rows_of(data.get("gpuTypes") if isinstance(data, dict) else None, "gpuTypes")
    found = (_offer(ctx, row, cloud, trust) for row in rows for cloud, trust in _CLOUDS if row.get(f"{cloud}Cloud"))
    return [offer for offer in found if offer]


def _offer(ctx: Context, row: dict[str, Any], cloud: str, trust: Trust) -> Offer | None:
    """One GPU type in one of the two clouds; without stock it is shown as sold out."""
    maker = row.get("manufacturer")
    if isinstance(maker, str) and maker.lower() != "nvidia":
        ctx.left_out["not NVIDIA"] += 1
        return None
    lowest = row.get(cloud)
    lowest = lowest if isinstance(lowest, dict) else {}
    try:
        listed, now = (
            usd(price or 0, "price") for price in (row.get(f"{cloud}Price"), lowest.get("uninterruptablePrice"))
        )
    except ValueError as error:
        ctx.left_out[str(error)] += 1
        return None
    name = row.get("id")
    return ctx.offer(
        text(name) or text(row.get("displayName")), number(row.get("memoryInGb")),
        # The list price is what a pod was seen to cost; whichever is larger, so that nothing is promised too low.
        max(listed, now) if ZERO not in (listed, now) else listed + now,
        provider="runpod", offer_id=f"{name}/{cloud}" if isinstance(name, str) else "", count=1,
        disk_usd_per_gb_month=DISK_USD_PER_GB_MONTH, region=text(lowest.get("countryCode")), trust=trust,
        instance_type=text(name), available=bool(lowest.get("stockStatus")),
    )  # fmt: skip


def address() -> str:
    """Where RunPod's GraphQL is asked."""
    base = os.environ.get("RUNPOD_API_BASE_URL") or "https://api.runpod.io"
    return f"{base.rstrip('/')}/graphql"


def account_key() -> str:
    """The account's key, from where RunPod's own tools keep it; it goes into one header and nowhere else.

    Raises NotAskedError when there is none.
    """
    key = os.environ.get("RUNPOD_API_KEY", "")
    if not key:
        try:
            held = tomllib.loads((Path.home() / ".runpod" / "config.toml").read_text(encoding="utf-8"))
            key = held["default"]["api_key"]
        except (OSError, ValueError, KeyError, TypeError):
            key = ""
    if not isinstance(key, str) or not key.strip():
        raise NotAskedError("no key (RUNPOD_API_KEY). Fix: export RUNPOD_API_KEY=…, or runpod config")
    if not key.strip().isprintable() or not key.strip().isascii():
        raise NotAskedError("RUNPOD_API_KEY is not a key: it holds characters that no header may")
    return key.strip()
