"""All sources asked at once: each with its own time-out, its own reason when it fails, and minutes of memory."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType

from launcher.clock import Clock, iso, parse_iso
from launcher.home import Home
from launcher.offers import cache
from launcher.offers.offer import Offer
from launcher.offers.source import Context, NotAskedError, SourceError, clean, refuse_price

SOURCES: tuple[str, ...] = ("local", "vast", "runpod", "brev", "others")
GRACE_S = 0.5  # between a source's own time-out, which knows why, and ours, which only knows that
DISK_STEP_GB = 20
CLOCKS_MAY_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True)
class SourceReport:
    """How one source answered. `error` is the reason in one line, `note` what was left out of a good answer."""

    name: str
    ok: bool
    error: str = ""
    as_of: str = ""  # ISO 8601 UTC of the oldest price in it
    count: int = 0  # offers it brought
    stale: bool = False  # at least one price is older than prices are kept
    example: bool = False  # not a quote at all: an example's prices
    asked: bool = True  # False: it could not be asked here (no key, not installed)
    note: str = ""


@dataclass(frozen=True)
class Market:
    """Every offer of every source that answered, and how each source did."""

    offers: list[Offer]
    sources: list[SourceReport]


@dataclass
class _Question:
    """One source, asked in a thread of its own that nobody waits for longer than it may take."""

    source: ModuleType
    ctx: Context
    kept_at: Path
    answer: list[Offer] | None = None
    error: str = ""
    asked: bool = True


def source_modules(names: Iterable[str] = SOURCES) -> list[ModuleType]:
    """The sources as modules, in the order that reports show them."""
    return [import_module(f"launcher.offers.{name}") for name in names]


def ask_market(home: Home, clock: Clock, *, providers: Collection[str] | None = None, file: Path | None = None,
               fresh: bool = False, disk_gb: float = 60.0) -> Market:  # fmt: skip
    """Ask every source that has offers of `providers` (all, when None), at once; never raises for one that fails.

    With `file`, only that file and this machine are asked; a fault in the file raises BadInputError. `fresh` skips
    what was kept: no price older than this question is in the answer.
    """
    wanted = _wanted(providers)
    disk_gb = math.ceil(disk_gb / DISK_STEP_GB) * DISK_STEP_GB  # jobs of about the same size share what is kept
    asked = source_modules(("local",) if file else SOURCES)
    modules = [module for module in asked if wanted is None or wanted & {*module.PROVIDERS}]
    offers: list[Offer] = []
    reports: list[SourceReport] = []
    questions: list[_Question] = []
    for module in modules:
        ctx = Context(clock, disk_gb, time.monotonic() + module.TIMEOUT_S, wanted)
        depends_on = [f"{name}={os.environ.get(name, '')}" for name in module.REDIRECTS]
        if wanted is not None and len(module.PROVIDERS) > 1:
            depends_on.append(f"providers={','.join(sorted(wanted & {*module.PROVIDERS}))}")
        kept_at = cache.path_of(home, module.NAME, f"disk_gb={disk_gb:g}", *depends_on)
        questions.append(_Question(module, ctx, kept_at))
    known = {id(question): None if fresh else _still_good(question) for question in questions}
    _ask_at_once([q for q in questions if known[id(q)] is None])
    for question in questions:
        kept = known[id(question)]
        found, report = _kept(question, kept) if kept else _answered(question, fresh)
        offers += found
        reports.append(report)
    if file:
        from launcher.offers.file import read_offers

        found, example, note = read_offers(file, clock)
        offers += found
        reports.append(_report("file", found, example=example, note=note))
    if wanted is not None:
        offers = [offer for offer in offers if offer.provider in wanted]
    return Market(offers, reports)


def _wanted(providers: Collection[str] | None) -> frozenset[str] | None:
    if providers is None:
        return None
    from launcher.providers.traits import allowed_providers

    return allowed_providers(tuple(providers))


def _ask_at_once(questions: list[_Question]) -> None:
    """Put every question; come back when all are answered or their time is over."""
    done: queue.SimpleQueue[tuple[_Question, list[Offer] | None, str, bool]] = queue.SimpleQueue()
    for question in questions:
        # A daemon: a thread that hangs in a foreign library must not keep the process alive.
        threading.Thread(target=_ask, args=(question, done), name=question.source.NAME, daemon=True).start()
    open_ = {id(question): question for question in questions}
    while open_:
        left = max(question.ctx.ends for question in open_.values()) + GRACE_S - time.monotonic()
        try:
            question, answer, error, asked = done.get(timeout=max(0.0, left))
        except queue.Empty:
            break
        question.answer, question.error, question.asked = answer, error, asked
        open_.pop(id(question), None)
    for question in open_.values():
        question.error = f"did not answer in {question.source.TIMEOUT_S:g} s"


def _ask(question: _Question, done: queue.SimpleQueue[tuple[_Question, list[Offer] | None, str, bool]]) -> None:
    """Ask one source; whatever happens in it becomes an answer or one line."""
    ctx, answer, asked = question.ctx, None, True
    try:
        answer, error = question.source.offers(ctx), ""
    except NotAskedError as why:
        error, asked = f"not asked: {why}", False
    except SourceError as why:
        error = str(why)
    except BaseException as why:  # noqa: BLE001 - foreign code: even SystemExit must not hide the other sources
        error = f"failed: {type(why).__name__}: {why}"
    for secret in ctx.secrets:
        error = error.replace(secret, "***")
    done.put((question, answer, clean(error), asked))


def _still_good(question: _Question) -> cache.Kept | None:
    at_most = timedelta(seconds=question.source.KEPT_S)
    return cache.read(question.kept_at, question.ctx.clock.now(), at_most) if at_most else None


def _answered(question: _Question, fresh: bool) -> tuple[list[Offer], SourceReport]:
    """A question's offers and report; after a failure the last known prices, marked stale."""
    source, ctx = question.source, question.ctx
    now = ctx.clock.now()
    if question.answer is not None:
        found = _sane(question.answer, ctx)
        note = "; ".join(filter(None, (_left_out(ctx), *ctx.notes)))
        if source.KEPT_S:
            cache.write(question.kept_at, cache.Kept(now, found, note))
        return found, _report(source.NAME, found, note=note, as_of=iso(now))
    if question.asked and source.KEPT_S and not fresh:
        kept = cache.read(question.kept_at, now, cache.KEPT_FOR_FAILURE)
        if kept:
            found = [offer.model_copy(update={"stale": True}) for offer in kept.offers]
            note = f"its prices of {iso(kept.asked_at)[:16].replace('T', ' ')} UTC are shown"
            report = _report(source.NAME, found, ok=False, as_of=iso(kept.asked_at), error=question.error, note=note)
            return found, replace(report, stale=True)
    return [], SourceReport(source.NAME, ok=False, error=question.error, asked=question.asked)


def _kept(question: _Question, kept: cache.Kept) -> tuple[list[Offer], SourceReport]:
    return kept.offers, _report(question.source.NAME, kept.offers, note=kept.note, as_of=iso(kept.asked_at))


def _report(name: str, found: list[Offer], *, ok: bool = True, error: str = "", as_of: str = "", note: str = "",
            example: bool = False) -> SourceReport:  # fmt: skip
    oldest = min((offer.as_of for offer in found if offer.as_of), default=as_of)
    return SourceReport(name, ok, error, oldest, len(found), any(o.stale for o in found), example, True, note)


def _sane(found: list[Offer], ctx: Context) -> list[Offer]:
    """The offers without those that no source may bring: a price nobody rents at, a time to come, a second copy."""
    kept: dict[tuple[str, str], Offer] = {}
    latest = ctx.clock.now() + CLOCKS_MAY_DIFFER
    for offer in found:
        try:
            if offer.provider != "local":
                refuse_price(offer.usd_per_hour, offer.count)
            if offer.as_of and parse_iso(offer.as_of) > latest:
                raise ValueError("dated in the future (is this computer's clock right?)")
        except ValueError as error:
            ctx.left_out[str(error)] += 1
            continue
        kept.setdefault((offer.provider, offer.offer_id), offer)
    return list(kept.values())


def _left_out(ctx: Context) -> str:
    """What was left out, in words: `3 rows left out: price 0`."""
    total = sum(ctx.left_out.values())
    if not total:
        return ""
    reasons = ctx.left_out.most_common(3)
    words = ", ".join(why if len(reasons) == 1 else f"{count} {why}" for why, count in reasons)
    more = ", …" if len(ctx.left_out) > len(reasons) else ""
    return f"{total} row{'s' * (total != 1)} left out: {words}{more}"
