"""Offers from a file (CSV, JSON, JSON lines): for tests, for machines without a network, for one's own quotes."""

from __future__ import annotations

import csv
import gc
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from launcher.clock import Clock, iso
from launcher.configfile import explain
from launcher.errors import BadInputError, nearest
from launcher.money import Usd
from launcher.offers.cache import KEPT_FOR_FAILURE
from launcher.offers.gpus import canonical, nearest_gpu
from launcher.offers.offer import Offer, Trust
from launcher.offers.source import refuse_price

MOST_BYTES = 64_000_000  # 30,000 offers are 4 MB
CLOCKS_MAY_DIFFER = timedelta(minutes=5)
FIELDS = (*Offer.model_fields, "currency", "example")
# What people call a column, and what it is here: with its unit.
_MEANT = {
    "usd_per_hour": {"price", "cost", "usd", "dollars", "hourly", "rate", "dph", "dph_total", "price_per_hour",
                     "usd_per_h", "usd_hour", "price_usd", "hourly_usd", "eur_per_hour", "gbp_per_hour"},
    "disk_usd_per_gb_month": {"disk", "disk_price", "storage", "storage_cost", "disk_usd", "disk_usd_per_gb"},
    "vram_gb": {"vram", "memory", "gpu_ram", "gpu_memory", "vram_gib", "vram_mb", "memory_gb"},
    "gpu": {"gpu_name", "accelerator", "card"}, "count": {"gpus", "num_gpus", "gpu_count"},
    "inet_down_mbps": {"inet_down", "down", "download"}, "inet_up_mbps": {"inet_up", "up", "upload"},
    "offer_id": {"id"}, "boot_s": {"boot", "boot_time", "boot_time_seconds"}, "interruptible": {"spot"},
}  # fmt: skip
_OFFERS = TypeAdapter(list[Offer])
Place = tuple[int | None, str]  # line of the file, and a prefix of the key such as `offers[3].`


def read_offers(path: Path, clock: Clock) -> tuple[list[Offer], bool, str]:
    """Every offer of the file, whether it is an example, and what was left out in words.

    Raises BadInputError with the file, the line or row, the key, the value and the fix. A row without `as_of` is
    taken for a price of now; one dated more than a day ago is stale.
    """
    reader = _Reader(path, clock.now())
    with _no_garbage_collection():  # half of the time goes there otherwise, and nothing here is garbage
        return reader.read(_text(path))


class _Reader:
    """One reading of one file."""

    def __init__(self, path: Path, now: datetime) -> None:
        self.path, self.now = path, now
        self.rows: list[dict[str, Any]] = []
        self.places: list[Place] = []
        self.example, self.local = False, 0
        self._seen: dict[tuple[str, str], int] = {}
        self._prices: dict[str, Usd] = {}
        self._dates: dict[str, tuple[str, bool]] = {}

    def read(self, text: str) -> tuple[list[Offer], bool, str]:
        for place, row in self._raw(text):
            self._add(row, place)
        try:
            offers = _OFFERS.validate_python(self.rows)
        except ValidationError as error:
            raise self._explained(int(error.errors()[0]["loc"][0])) from None
        for index, offer in enumerate(offers):
            try:
                refuse_price(offer.usd_per_hour, offer.count)
            except ValueError as error:
                raise self._fault(
                    self.places[index],
                    "usd_per_hour",
                    str(offer.usd_per_hour),
                    f"{error}: nobody rents at that.",
                    "Write dollars per hour for the whole machine, such as 0.41, or take the row out.",
                ) from None
        if not offers and not self.local:
            raise BadInputError("no offers in it.", file=self.path, fix="A row needs provider, gpu and usd_per_hour.")
        note = "" if not self.local else f"{self.local} left out: this machine is asked itself"
        return offers, self.example, note

    # --- Rows -----------------------------------------------------------------------------------------------

    def _raw(self, text: str) -> Iterator[tuple[Place, dict[str, Any]]]:
        kind = self.path.suffix.lower()
        if kind in (".jsonl", ".ndjson"):
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    yield (number, ""), self._object(self._json(line, number), (number, ""))
        elif kind == ".json" or (kind != ".csv" and text.lstrip()[:1] in ("{", "[")):
            yield from self._json_rows(self._json(text, None))
        else:
            yield from self._csv_rows(text)

    def _csv_rows(self, text: str) -> Iterator[tuple[Place, dict[str, Any]]]:
        lines = text.splitlines(keepends=True)
        skipped = 0
        while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].startswith("#")):
            skipped += 1
        head = lines[skipped] if skipped < len(lines) else ""
        reader = csv.reader(lines[skipped:], delimiter=max(",;\t", key=head.count))
        try:
            names = [name.strip() for name in next(reader, [])]
            for name in names:
                if name not in FIELDS:
                    raise self._unknown((skipped + 1, ""), name)
                if names.count(name) > 1:
                    raise self._fault((skipped + 1, ""), name, name, "this column is there twice.", "Keep one.")
            for cells in reader:
                if cells:
                    place = (skipped + reader.line_num, "")
                    if len(cells) != len(names):
                        raise self._fault(
                            place, "", None, f"{len(cells)} cells, the header names {len(names)}.",
                            'A cell that holds a comma stands in quotes: "Frankfurt, DE"; a price has a point: 0.41.',
                        )  # fmt: skip
                    yield place, {name: cell for name, cell in zip(names, cells, strict=True) if cell}
        except csv.Error as error:
            raise self._fault((skipped + reader.line_num, ""), "", None, f"is no CSV: {error}.", "") from None

    def _json_rows(self, held: Any) -> Iterator[tuple[Place, dict[str, Any]]]:
        common: dict[str, Any] = {}
        rows = held
        if isinstance(held, dict):
            known = ("offers", "sources", "as_of", "currency", "example", "note")
            for key in held:
                if key not in known:
                    close = nearest(key, known)
                    fix = f"Did you mean {close}?" if close else f"Valid here: {', '.join(known)}."
                    raise self._fault((None, ""), key, None, "no such setting.", fix)
            rows = held.get("offers")
            common = {key: held[key] for key in ("as_of", "currency", "example", "note") if key in held}
        if not isinstance(rows, list):
            raise self._fault((None, ""), "offers", None, "is not a list of offers.", 'Write {"offers": [{…}, …]}.')
        for index, row in enumerate(rows):
            place = (None, f"offers[{index}].")
            yield place, common | self._object(row, place)

    def _json(self, text: str, line: int | None) -> Any:
        try:
            # A number with a point keeps its text: money is never a float, and 1e9 is nobody's price.
            return json.loads(text, parse_float=str, parse_constant=str)
        except json.JSONDecodeError as error:
            at = line or error.lineno
            raise self._fault((at, ""), "", None, f"is no JSON: {error.msg.lower()}.", "") from None
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else "a number without end"
            raise self._fault((line, ""), "", None, f"is no list of offers: {why}.", "") from None

    def _object(self, row: Any, place: Place) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise self._fault(place, "", row, "is not an offer.", 'Write {"provider": …, "gpu": …, …}.')
        for name in row:
            if name not in FIELDS:
                raise self._unknown(place, name)
        return row

    def _add(self, row: dict[str, Any], place: Place) -> None:
        """Take one row: say what must be said with words of its own, fill in what follows from the rest."""
        provider = row.get("provider")
        if provider == "local":
            self.local += 1
            return
        currency = row.pop("currency", "USD")
        if str(currency).upper() != "USD":
            problem = f"prices are in US dollars here, not {str(currency)[:20]!r}."
            raise self._fault(place, "currency", currency, problem, "Convert them, and write USD.")
        self.example |= str(row.pop("example", False)).lower() in ("true", "1", "yes")
        trust = _trust(str(provider), str(row.get("via", "direct")))
        if provider is not None and trust is None:
            raise self._no_provider(place, provider)
        row.setdefault("trust", trust)
        row.setdefault("count", 1)
        row.setdefault("offer_id", f"{self.path.stem}:{place[0] or place[1][7:-2]}")
        self._gpu(row, place)
        self._price(row)
        as_of = row.get("as_of")
        row["as_of"], old = self._date(as_of, place) if as_of is not None else (iso(self.now), False)
        if old:
            row["stale"] = True
        first = self._seen.setdefault((str(provider), str(row["offer_id"])), len(self.rows))
        if first != len(self.rows):
            line, key = self.places[first]
            where = f"line {line}" if line else key.rstrip(".")
            raise self._fault(place, "offer_id", row["offer_id"], f"{where} is the same offer.", "Keep one of them.")
        self.rows.append(row)
        self.places.append(place)

    def _gpu(self, row: dict[str, Any], place: Place) -> None:
        name, vram = row.get("gpu"), row.get("vram_gb")
        if not isinstance(name, str):
            return  # pydantic says what it must be
        known = canonical(name, _float(vram))
        if known:
            row["gpu"] = known.name
            row.setdefault("vram_gb", known.vram_gb)
        elif vram is None and str(row["count"]) != "0":
            close = nearest_gpu(name)
            raise self._fault(
                place, "gpu", name, f"{name!r} is no GPU that this launcher knows.",
                f"Did you mean {close}? " * bool(close) + "For another one, say its vram_gb (GB of one GPU).",
            )  # fmt: skip
        elif vram is None:
            row["vram_gb"] = 0

    def _price(self, row: dict[str, Any]) -> None:
        """Money from text once per text; a fault is left for pydantic to meet and explain."""
        for key in ("usd_per_hour", "disk_usd_per_gb_month"):
            written = row.get(key)
            if isinstance(written, str):
                try:
                    row[key] = self._prices.get(written) or self._prices.setdefault(written, Usd(written))
                except ValueError:
                    return

    def _date(self, written: Any, place: Place) -> tuple[str, bool]:
        """(ISO 8601 UTC, whether it is old) of a date or a moment."""
        held = self._dates.get(written) if isinstance(written, str) else None
        if held:
            return held
        try:
            moment = datetime.fromisoformat(written)
            if moment.tzinfo is None and len(written) > 10:
                raise ValueError
            moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            fix = "Write 2026-02-08, or a moment with its time zone: 2026-02-08T11:00:00Z."
            raise self._fault(place, "as_of", written, f"{str(written)[:40]!r} is no date.", fix) from None
        ahead = moment - self.now
        if ahead > CLOCKS_MAY_DIFFER:
            problem = f"{written} has not come yet (it is {iso(self.now)[:16]}Z here)."
            raise self._fault(place, "as_of", written, problem, "Set this computer's clock, or correct the date.")
        self._dates[written] = held = (iso(moment), -ahead > KEPT_FOR_FAILURE)
        return held

    # --- Faults ---------------------------------------------------------------------------------------------

    def _fault(self, place: Place, key: str, value: object, problem: str, fix: str) -> BadInputError:
        line, prefix = place
        where = f"{prefix}{key}" if key else prefix.rstrip(".")
        return BadInputError(problem, fix=fix, file=self.path, line=line, key=where, value=value)

    def _explained(self, index: int) -> BadInputError:
        """The fault that pydantic found in one row, in the house's words."""
        row, place = self.rows[index], self.places[index]
        try:
            Offer.model_validate(row)
        except ValidationError as error:
            problem, fix, keys, value = explain(error, Offer)
            return self._fault(place, str(keys[0]) if keys else "", value, problem, fix)
        raise AssertionError("a row is at fault in the list, but not alone")

    def _unknown(self, place: Place, name: str) -> BadInputError:
        key = name.strip().lower()
        meant = next((field for field, names in _MEANT.items() if key in names), None) or nearest(key, FIELDS)
        fix = f"Did you mean {meant}?" if meant else f"Valid: {', '.join(FIELDS)}."
        return self._fault(place, name, name, "no such column." if place[0] else "no such key.", fix)

    def _no_provider(self, place: Place, provider: object) -> BadInputError:
        from launcher.providers.traits import known_providers

        close = nearest(str(provider), known_providers())
        fix = f"Did you mean {close}?" if close else f"There is: {', '.join(known_providers())}."
        problem = f"{str(provider)[:40]!r} is no provider of this launcher."
        return self._fault(place, "provider", provider, problem, fix)


@cache
def _trust(provider: str, via: str) -> Trust | None:
    """Whose machines a provider's are, unless the row says; None for a provider nobody knows."""
    from launcher.providers.traits import traits_of_provider

    traits = traits_of_provider(provider, via)
    return traits.trust if traits else None


def _float(value: object) -> float | None:
    try:
        return float(Decimal(str(value)))
    except (ArithmeticError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            held = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise BadInputError("no such file.", file=path, fix="There is one in examples/offers/.") from None
    except IsADirectoryError:
        raise BadInputError("is a folder.", file=path, fix="Name the file in it.") from None
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror or error}.", file=path) from None
    if len(held) > MOST_BYTES:
        fix = "Keep the offers you would take."
        raise BadInputError(f"is larger than {MOST_BYTES / 1e6:.0f} MB.", file=path, fix=fix)
    try:
        return io.TextIOWrapper(io.BytesIO(held), encoding="utf-8-sig").read()
    except UnicodeDecodeError:
        fix = "Save it as CSV (UTF-8), JSON or JSON lines."
        raise BadInputError("is no UTF-8 text.", file=path, fix=fix) from None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
