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
from launcher.money import ZERO, Usd
from launcher.offers.cache import KEPT_FOR_FAILURE
from launcher.offers.gpus import canonical, nearest_gpu
from launcher.offers.offer import Offer, Trust
from launcher.offers.source import LONGEST, clean, refuse_price

MOST_BYTES = 64_000_000  # 30,000 offers are 4 MB
CLOCKS_MAY_DIFFER = timedelta(minutes=5)
LONGEST_CELL = 131_072
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
_KIND = ("provider", "via", "currency", "example", "gpu", "vram_gb", "count", "as_of", "trust")  # see `_tell`
_FEES = ("disk_usd_per_gb_month", "usd_per_gb_up", "usd_per_gb_down")
_WORDS = ("region", "note", "instance_type")
_OFFERS = TypeAdapter(list[Offer])
Place = tuple[int | None, str]  # line of the file, and a prefix of the key such as `offers[3].`


def read_offers(path: Path, clock: Clock) -> tuple[list[Offer], bool, str]:
    """Every offer of the file, whether it is an example, and what was left out in words.

    Raises BadInputError with the file, the line or row, the key, the value and the fix. A row without `as_of` is
    taken for a price of now; one dated more than a day ago is stale.
    """
    reader = _Reader(path, clock.now())
    with _no_garbage_collection():  # half of the time goes there otherwise
        return reader.read(_text(path))


class _Reader:
    """One reading of one file."""

    def __init__(self, path: Path, now: datetime) -> None:
        self.path, self.now = path, now
        self.rows: list[dict[str, Any]] = []
        self.places: list[Place] = []
        self.example, self.local = False, 0
        self._stem = path.stem
        self._kinds: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._seen: dict[tuple[Any, str], int] = {}
        self._prices: dict[str, Usd] = {}

    def read(self, text: str) -> tuple[list[Offer], bool, str]:
        for place, row in self._raw(text):
            self._add(row, place)
        try:
            offers = _OFFERS.validate_python(self.rows)
        except ValidationError as error:
            raise self._explained(int(error.errors()[0]["loc"][0])) from None
        for index, offer in enumerate(offers):
            for fee in _FEES:
                if getattr(offer, fee) < ZERO:  # it would make a ceiling smaller than what may be charged
                    problem, fix = "an amount of dollars cannot be negative.", "Write 0 or more."
                    raise self._fault(self.places[index], fee, str(getattr(offer, fee)), problem, fix)
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
        csv.field_size_limit(LONGEST_CELL)  # of the whole process: who reads transcripts has raised it
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
                    row = dict(zip(names, cells, strict=True))
                    yield place, {name: cell for name, cell in row.items() if cell} if "" in cells else row
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
        """Take one row, completed; thousands of rows share what a few dozen kinds of them have to be told."""
        kind = tuple(map(row.get, _KIND))
        try:
            told = self._kinds.get(kind)
        except TypeError:  # a list where a word should be
            told, kind = None, ()
        if told is None:
            told = self._tell(row, place)
            if kind:
                self._kinds[kind] = told
        if told.get("provider") == "local":
            self.local += 1
            return
        row.pop("currency", None)
        row.pop("example", None)
        row |= told
        offer_id = row.setdefault("offer_id", f"{self._stem}:{place[0] or place[1][7:-2]}")
        for name in _WORDS:
            words = row.get(name)
            if isinstance(words, str) and not (words.isprintable() and len(words) <= LONGEST):
                row[name] = clean(words)  # a stranger's: a terminal must not act on it
        if isinstance(offer_id, str) and not offer_id.isprintable():
            raise self._fault(place, "offer_id", offer_id, "holds signs that cannot be printed.", "Take them out.")
        self._price(row)
        first = self._seen.setdefault((row.get("provider"), str(offer_id)), len(self.rows))
        if first != len(self.rows):
            line, key = self.places[first]
            where = f"line {line}" if line else key.rstrip(".")
            raise self._fault(place, "offer_id", offer_id, f"{where} is the same offer.", "Keep one of them.")
        self.rows.append(row)
        self.places.append(place)

    def _tell(self, row: dict[str, Any], place: Place) -> dict[str, Any]:
        """What follows from the kind of a row (canonical GPU, memory, trust, age); faults in words of their own."""
        provider, trust = row.get("provider"), row.get("trust")
        if provider == "local":
            return {"provider": "local"}
        currency = row.get("currency", "USD")
        if str(currency).upper() != "USD":
            problem = f"prices are in US dollars here, not {str(currency)[:20]!r}."
            raise self._fault(place, "currency", currency, problem, "Convert them, and write USD.")
        self.example |= str(row.get("example")).lower() in ("true", "1", "yes")
        usual = _trust(str(provider), str(row.get("via", "direct")))
        if provider is not None and usual is None:
            raise self._no_provider(place, provider)
        if trust == "own":
            problem = f"{provider} is not your own machine."
            raise self._fault(place, "trust", trust, problem, "It can be secure or marketplace.")
        as_of = row.get("as_of")
        moment, old = self._date(as_of, place) if as_of else (iso(self.now), False)
        told = {"trust": trust or usual, "count": row.get("count", 1), "as_of": moment, **self._gpu(row, place)}
        return told | {"stale": True} if old else told

    def _gpu(self, row: dict[str, Any], place: Place) -> dict[str, Any]:
        name, vram = row.get("gpu"), row.get("vram_gb")
        if not isinstance(name, str):
            return {}  # pydantic says what it must be
        known = canonical(name, _float(vram))
        if known and str(row.get("count", 1)) == "0":
            problem = f"0 GPUs, but {known.name} is one."
            raise self._fault(place, "count", 0, problem, "Write how many it has.")
        if known:
            return {"gpu": known.name, "vram_gb": known.vram_gb if vram is None else vram}
        if vram is not None:
            return {"gpu": clean(name)}
        if str(row.get("count", 1)) == "0":
            return {"gpu": clean(name), "vram_gb": 0}
        close = nearest_gpu(name)
        raise self._fault(
            place, "gpu", name, f"{name[:40]!r} is no GPU that this launcher knows.",
            f"Did you mean {close}? " * bool(close) + "For another one, say its vram_gb (GB of one GPU).",
        )  # fmt: skip

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
        return iso(moment), -ahead > KEPT_FOR_FAILURE

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
    """Neither while thousands of rows are made, nor over them ever after: they hold no cycles to be found."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
