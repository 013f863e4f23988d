"""Vast.ai's marketplace through its own SDK: each host's offer with disk, traffic prices and reliability."""

from __future__ import annotations

import os
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

from launcher.doctor import CUDA_OF_TORCH
from launcher.money import ZERO, Usd
from launcher.offers import bounded
from launcher.offers.offer import Offer
from launcher.offers.source import Context, NotAskedError, number, rows_of, text, usd

NAME = "vast"
PROVIDERS: tuple[str, ...] = ("vast",)
TIMEOUT_S = 20.0
KEPT_S = 300.0
REDIRECTS: tuple[str, ...] = ("VAST_URL",)

MOST_ROWS = 3000  # the cheapest; the whole market of verified hosts is smaller
OLDEST_CUDA = CUDA_OF_TORCH / 1000  # a host's driver runs our image only from this CUDA on
_HOURS_A_MONTH = Decimal(730) / Decimal(720)  # Vast's month has 30 days, ours 730 hours


def offers(ctx: Context) -> list[Offer]:
    """Verified hosts that can be rented now, on demand, cheapest first with `ctx.disk_gb` of disk in the price."""
    key = account_key()
    from vastai.sdk import VastAI

    ctx.secrets.append(key)
    sdk = VastAI(api_key=key, retry=1)
    sdk.client = _client(ctx, key)
    wanted = {"disk_space": {"gte": ctx.disk_gb}, "direct_port_count": {"gte": 1}}
    rows = sdk.search_offers(query=wanted, type="on-demand", order="dph_total", limit=MOST_ROWS, storage=ctx.disk_gb)
    found = (_offer(ctx, row) for row in rows_of(rows, "offers"))
    return [offer for offer in found if offer]


def account_key() -> str:
    """The account's key, found as Vast's own command line finds it; raises NotAskedError when there is none."""
    if find_spec("vastai") is None:
        raise NotAskedError("vastai-sdk is not installed. Fix: pip install 'parakeet-launcher[cloud]'")
    from vastai.sdk import VastAI

    try:
        key = str(VastAI(retry=1).client.api_key or "").strip()
    except RuntimeError:
        key = ""
    if not key:
        raise NotAskedError("no key (VAST_API_KEY). Fix: vastai set api-key KEY")
    if not key.isprintable() or not key.isascii():
        raise NotAskedError("VAST_API_KEY is not a key: it holds characters that no header may")
    return key


def _client(ctx: Context, key: str) -> Any:
    """The SDK's own client (addresses, headers, query), over a connection that has limits."""
    from vastai.api.client import VastClient

    class Bounded(VastClient):  # type: ignore[misc]
        """Reads with a deadline and a limit of size, and never sends the key after a redirect."""

        def _request(self, method: str, url: str, headers: dict[str, str], json_data: Any = None,
                     timeout: float | None = None) -> _Answer:  # fmt: skip
            return _Answer(bounded.ask(ctx, url, body=json_data, headers=headers, method=method))

    return Bounded(key, os.environ.get("VAST_URL") or None, retry=1)


class _Answer:
    """As much of a `requests.Response` as the SDK looks at."""

    def __init__(self, reply: bounded.Reply) -> None:
        self.reply = reply

    def raise_for_status(self) -> None:
        """Nothing to raise: only a good answer comes this far."""

    def json(self) -> dict[str, Any]:
        held = self.reply.json()
        return {"offers": rows_of(held.get("offers") if isinstance(held, dict) else None, "offers")}


def _offer(ctx: Context, row: dict[str, Any]) -> Offer | None:
    """One row of /bundles/. Prices: `dph_total` holds the disk asked for; Offers keep the two apart."""
    cuda = number(row.get("cuda_max_good"))
    if cuda is not None and cuda < OLDEST_CUDA:
        ctx.left_out[f"driver older than CUDA {OLDEST_CUDA:.1f}"] += 1
        return None
    if text(row.get("gpu_arch") or "nvidia") != "nvidia":
        ctx.left_out["not NVIDIA"] += 1
        return None
    try:
        rent = rent_of(row)
        disk = Usd(usd(row.get("storage_cost") or 0, "storage_cost") * _HOURS_A_MONTH)
    except ValueError as error:
        ctx.left_out[str(error)] += 1
        return None
    memory = number(row.get("gpu_ram"))
    reliability = number(row.get("reliability2", row.get("reliability")))
    # The SDK itself reads a data centre from hosting_type 1 (vastai/utils.py: postprocess_search_results). Only a
    # verified one counts as more than a stranger's machine.
    verified = row.get("verified") is True or row.get("verification") == "verified"
    secure = verified and (row.get("datacenter") is True or row.get("hosting_type") == 1)
    return ctx.offer(
        text(row.get("gpu_name")), memory / 1024 if memory else None, rent,
        provider="vast", offer_id=_id(row.get("id")), count=row.get("num_gpus"), disk_usd_per_gb_month=disk,
        usd_per_gb_up=row.get("inet_up_cost"), usd_per_gb_down=row.get("inet_down_cost"),
        region=text(row.get("geolocation")), reliability=min(reliability, 1.0) if reliability is not None else None,
        trust="secure" if secure else "marketplace", inet_down_mbps=number(row.get("inet_down")),
        inet_up_mbps=number(row.get("inet_up")), dlperf=number(row.get("dlperf")), available=True,
        interruptible=row.get("is_bid") is True,
        note="" if verified else "host not verified",
    )  # fmt: skip


def rent_of(row: dict[str, Any]) -> Usd:
    """Dollars an hour without disk: the total without its storage; the larger figure where they disagree.

    Raises ValueError where a price is missing or no number.
    """
    total = usd(row.get("dph_total"), "price")
    base = usd(row["dph_base"], "price") if row.get("dph_base") is not None else ZERO
    storage = usd(row["storage_total_cost"], "price") if row.get("storage_total_cost") is not None else None
    if storage is None:
        return base if base > ZERO else total
    return max(base, Usd(total - storage))


def _id(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
