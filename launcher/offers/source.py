"""What every source of offers stands on: how it is asked, how it says no, and which rows are refused.

A source is a module of this package with
    NAME        of the source, as reports show it
    PROVIDERS   whose offers it brings
    TIMEOUT_S   the longest anybody waits for it
    KEPT_S      how long an answer is good for (seconds); 0: asked every time
    REDIRECTS   environment variables that send its questions elsewhere: another address, another cache
    offers(ctx) all it has to offer, as Offers; raises NotAskedError or SourceError
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from launcher.clock import Clock, iso
from launcher.money import ZERO, Usd
from launcher.offers.gpus import canonical
from launcher.offers.offer import Offer

MOST_USD_PER_GPU_HOUR = 1000  # a B300 is rented at $6: above this the field holds something else
MOST_GPUS = 1000  # in one machine; NaN is below it and above 0 in no comparison
MOST_OFFERS = 50_000  # of one source
_OTHER_MAKERS = re.compile(
    r"\b(amd|instinct|radeon|mi\d{2,3}x?|gaudi\d?|hl-\d+|intel|tpu|trainium\d?|inferentia\d?)\b", re.I
)
LONGEST = 200  # characters of any text that a stranger sent
LONGEST_REGION = 60  # and of a place's name


class NotAskedError(Exception):
    """This source cannot be asked here (no key, not installed): why, and what to do."""


class SourceError(Exception):
    """This source was asked and gave no usable answer: why, in one line."""


@dataclass
class Context:
    """One question to one source."""

    clock: Clock
    disk_gb: float  # that the machine will need: where disk is part of the price
    ends: float  # time.monotonic() after which nobody listens any more
    providers: frozenset[str] | None = None  # whose offers are wanted; None: all
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> rows
    notes: list[str] = field(default_factory=list)  # what a person should know beside the offers
    secrets: list[str] = field(default_factory=list)  # never to be shown, whatever an error quotes

    @property
    def left_s(self) -> float:
        """Seconds left to answer in; raises SourceError when there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise SourceError("did not answer in time")
        return left

    def offer(self, gpu: str, vram_gb: float | None, usd_per_hour: object, **fields: Any) -> Offer | None:
        """An Offer of a stranger's row, or None when it is left out (counted with its reason)."""
        try:
            return self._offer(gpu, vram_gb, usd_per_hour, fields)
        except ValidationError as error:
            self.left_out[f"unusable {error.errors()[0]['loc'][0]}"] += 1
        except ValueError as error:
            self.left_out[str(error)] += 1
        return None

    def _offer(self, gpu: str, vram_gb: float | None, usd_per_hour: object, fields: dict[str, Any]) -> Offer:
        if _OTHER_MAKERS.search(gpu):
            raise ValueError("not NVIDIA")
        price = usd(usd_per_hour, "price")
        count = fields.get("count")
        if isinstance(count, bool) or not isinstance(count, int | float) or not 1 <= count <= MOST_GPUS:
            raise ValueError("no number of GPUs")
        refuse_price(price, int(count))
        known = canonical(gpu, vram_gb)
        memory = vram_gb or (known.vram_gb if known else None)
        if memory is None:
            raise ValueError("GPU memory not told")
        for name in ("disk_usd_per_gb_month", "usd_per_gb_up", "usd_per_gb_down"):
            fields[name] = usd(fields[name] or 0, name) if name in fields else ZERO
            if fields[name] < ZERO:
                raise ValueError(f"{name} below 0")
        for name in ("region", "instance_type", "note"):
            fields[name] = clean(fields.get(name) or "")
        if not fields.get("offer_id") or clean(fields["offer_id"]) != fields["offer_id"]:
            raise ValueError("unreadable id")
        fields["region"] = fields["region"][:LONGEST_REGION]
        fields.setdefault("as_of", iso(self.clock.now()))
        return Offer(gpu=known.name if known else clean(gpu), vram_gb=round(memory, 1), usd_per_hour=price, **fields)


def refuse_price(price: Usd, count: int) -> None:
    """Raise ValueError for a price per hour that nobody rents a GPU at."""
    if price <= 0:
        raise ValueError("price below 0" if price else "price 0")
    if price > MOST_USD_PER_GPU_HOUR * (count or 1):
        raise ValueError(f"price above ${MOST_USD_PER_GPU_HOUR:,} an hour per GPU")


def usd(value: object, what: str) -> Usd:
    """Dollars of a stranger's JSON (number or text); raises ValueError that says what is wrong in a word."""
    if isinstance(value, Usd):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{what} missing" if value is None else f"{what} not a number")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{what} not a number")
        value = f"{Decimal(repr(value)):f}"
    try:
        return Usd(value)
    except ValueError:
        raise ValueError(f"{what} not a number") from None


def number(value: object) -> float | None:
    """A finite number of at least 0, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        held = float(value)
    except OverflowError:
        return None
    return held if math.isfinite(held) and held >= 0 else None


def text(value: object) -> str:
    """A stranger's text, or nothing where it is no text."""
    return clean(value) if isinstance(value, str) else ""


def clean(value: object) -> str:
    """Text on one line, of bounded length, without anything that a terminal would act on."""
    held = str(value)[: 4 * LONGEST]
    return " ".join("".join(c if c.isprintable() else " " for c in held).split())[:LONGEST]


def rows_of(value: object, what: str) -> list[dict[str, Any]]:
    """The objects of a list; raises SourceError when it is no list. What is no object is dropped."""
    if not isinstance(value, list):
        raise SourceError(f"answered without {what}")
    return [row for row in value[:MOST_OFFERS] if isinstance(row, dict)]
