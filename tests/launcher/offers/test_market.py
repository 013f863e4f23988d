"""All sources at once: a bad one is a line of its own, never a hang, never the end of the others."""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from strangers import (
    BREAKS_OFF,
    BREV_ITEM,
    FLOODS,
    NO_HTTP,
    NOW,
    RUNPOD_ROW,
    SAYS_NOTHING,
    TRICKLES,
    VAST_ROW,
    StillClock,
    Stranger,
    stranger,
)  # fmt: skip

from launcher.home import Home
from launcher.offers import Market, SourceReport, ask_market, brev, runpod, vast
from launcher.offers.source import MOST_OFFERS

KEY = "rpa_SECRET0123456789"
WEB_PAGE = b"<!DOCTYPE html><html><title>502 Bad Gateway</title></html>"
REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def asked(alone: pytest.MonkeyPatch, server: Stranger) -> Stranger:
    """RunPod, with a key, at a server of ours; all others unreachable."""
    alone.setenv("RUNPOD_API_BASE_URL", server.url)
    alone.setenv("RUNPOD_API_KEY", KEY)
    server.says = {"data": {"gpuTypes": [RUNPOD_ROW]}}
    return server


def report(market: Market, name: str) -> SourceReport:
    return next(source for source in market.sources if source.name == name)


def ask(home: Home, clock: StillClock, *names: str, **more: Any) -> Market:
    return ask_market(home, clock, providers=names or None, **more)


# --- Failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (WEB_PAGE, "answered with a web page (HTML)"), (b"", "answered with nothing"),
        (b"{", "answered with no JSON"), (b"\xff\xfe\x00", "answered with no JSON"),
        (b'{"data": ' + b"9" * 10_000 + b"}", "answered with no JSON"),
        (b"[" * 200_000, "answered with JSON nested too deeply"), ([], "answered without gpuTypes"),
        ({"data": None}, "answered without gpuTypes"), ({"data": {"gpuTypes": "none"}}, "answered without gpuTypes"),
        ({"errors": [{"message": "bad \x1b[31m question"}]}, "refused the question: bad [31m question"),
        (NO_HTTP, "broke off: SSH-2.0-OpenSSH_9.2"), (BREAKS_OFF, "broke off in the middle of its answer"),
        (FLOODS, "answered with more than 32 MB"),
    ],
)  # fmt: skip
def test_a_source_that_answers_badly_is_one_clear_line_beside_the_others(
    home: Home, clock: StillClock, asked: Stranger, says: Any, error: str
) -> None:
    asked.says = says
    market = ask(home, clock, "local", "runpod")
    told = report(market, "runpod")
    assert not told.ok and told.error.startswith(error)
    assert told.error.isprintable() and len(told.error) <= 200
    assert [offer.provider for offer in market.offers] == ["local"]
    assert report(market, "local").ok


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, "does not accept our key (HTTP 401)"), (403, "does not accept our key (HTTP 403)"),
     (429, "asks us to come back later (HTTP 429)"), (500, "answered HTTP 500"),
     (302, "sends us elsewhere (HTTP 302); an address may be wrong")],
)  # fmt: skip
def test_a_refusal_says_what_was_refused(
    home: Home, clock: StillClock, asked: Stranger, status: int, error: str
) -> None:
    asked.status = status
    assert report(ask(home, clock, "runpod"), "runpod").error == error


def test_a_key_does_not_follow_where_an_answer_points(home: Home, clock: StillClock, asked: Stranger) -> None:
    with stranger() as elsewhere:
        asked.status, asked.headers = 307, {"Location": f"{elsewhere.url}/graphql"}
        assert not report(ask(home, clock, "runpod"), "runpod").ok
        assert elsewhere.asked == []


def test_no_key_is_ever_shown_even_when_a_server_repeats_it(home: Home, clock: StillClock, asked: Stranger) -> None:
    asked.says = {"errors": [{"message": f"unknown key {KEY}"}]}
    assert report(ask(home, clock, "runpod"), "runpod").error == "refused the question: unknown key ***"


def test_nobody_at_the_address_is_a_reason(home: Home, clock: StillClock, alone: pytest.MonkeyPatch) -> None:
    told = report(ask(home, clock, "brev"), "brev")
    assert told.error == "cannot be reached: Connection refused"


def test_a_source_without_credentials_is_not_asked_and_says_what_to_do(
    home: Home, clock: StillClock, alone: pytest.MonkeyPatch
) -> None:
    market = ask(home, clock, "vast", "runpod")
    assert [(source.name, source.ok, source.asked) for source in market.sources] == [
        ("vast", False, False), ("runpod", False, False),
    ]  # fmt: skip
    assert report(market, "vast").error == "not asked: no key (VAST_API_KEY). Fix: vastai set api-key KEY"
    assert report(market, "runpod").error.startswith("not asked: no key (RUNPOD_API_KEY). Fix: ")


@pytest.mark.parametrize("says", [SAYS_NOTHING, TRICKLES], ids=["silent", "trickling"])
def test_a_server_that_never_finishes_is_left_after_its_time(
    home: Home, clock: StillClock, asked: Stranger, monkeypatch: pytest.MonkeyPatch, says: object
) -> None:
    monkeypatch.setattr(runpod, "TIMEOUT_S", 0.3)
    asked.says = says
    market = ask(home, clock, "local", "runpod")
    assert report(market, "runpod").error in ("did not answer in time", "did not answer in 0.3 s")
    assert report(market, "local").ok


def test_foreign_code_that_hangs_or_exits_is_a_line_too(
    home: Home, clock: StillClock, alone: pytest.MonkeyPatch
) -> None:
    alone.setattr(runpod, "TIMEOUT_S", 0.2)
    alone.setattr(runpod, "offers", lambda _ctx: time.sleep(60))
    alone.setattr(brev, "offers", lambda _ctx: sys.exit("no licence"))
    alone.setattr(vast, "offers", lambda _ctx: 1 / 0)
    market = ask(home, clock, "local", "vast", "runpod", "brev")
    assert report(market, "runpod").error == "did not answer in 0.2 s"
    assert report(market, "brev").error == "failed: SystemExit: no licence"
    assert report(market, "vast").error == "failed: ZeroDivisionError: division by zero"
    assert report(market, "local").ok


def test_the_process_ends_at_once_although_a_source_still_hangs() -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from launcher.clock import SystemClock; from launcher.home import Home\n"
        "from launcher.offers import ask_market, runpod\n"
        "runpod.TIMEOUT_S = 0.2; runpod.offers = lambda ctx: time.sleep(600)\n"
        "print(ask_market(Home(Path(sys.argv[1])), SystemClock(), providers=['runpod']).sources[0].error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "/nonexistent/home"], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "did not answer in 0.2 s\n")


@pytest.mark.parametrize(
    ("body", "error"),
    [("exit 3", "failed (exit 3)"), ("echo boom >&2; exit 1", "failed (exit 1): boom"),
     ("echo '<html>'", "answered with a web page"), ("exec /bin/sleep 600", "did not answer in"),
     ("/bin/sleep 600 & exec /bin/sleep 600", "did not answer in"),
     ("while :; do echo '                                        '; done", "answered with more than"),
     ("echo '[]'", "")],
)  # fmt: skip
def test_a_program_that_fails_hangs_or_floods_is_ended_with_its_children(
    home: Home, clock: StillClock, alone: pytest.MonkeyPatch, tmp_path: Path, body: str, error: str
) -> None:
    alone.setattr(brev, "TIMEOUT_S", 1.0 if "sleep" in body else 30.0)
    (tmp_path / "bin").mkdir()
    os.mkfifo(tmp_path / "open while any of them lives")
    (tmp_path / "bin" / "brev").write_text(f"#!/bin/sh\nexec 3> '{tmp_path}/open while any of them lives'\n{body}\n")
    (tmp_path / "bin" / "brev").chmod(0o755)
    lives = os.open(tmp_path / "open while any of them lives", os.O_RDONLY | os.O_NONBLOCK)
    told = report(ask(home, clock, "brev"), "brev")
    assert told.ok is (error == "") and told.error.startswith(error)
    select.select([lives], [], [], 60)
    assert os.read(lives, 1) == b""  # raises BlockingIOError while anybody holds the other end
    os.close(lives)


def test_a_market_of_more_rows_than_anybody_reads_is_cut(home: Home, clock: StillClock, asked: Stranger) -> None:
    asked.says = {"data": {"gpuTypes": [{"id": "x"}] * (MOST_OFFERS + 10)}}
    assert report(ask(home, clock, "runpod"), "runpod").ok


def test_what_strangers_write_reaches_no_terminal(home: Home, clock: StillClock, asked: Stranger) -> None:
    evil = "DE\x1b[2J\x07\u202egnp.exe\n" + "x" * 100_000
    secure = {"countryCode": evil, "uninterruptablePrice": 1, "stockStatus": evil}
    row = RUNPOD_ROW | {"id": f"NVIDIA {evil}", "secure": secure}
    asked.says = {"data": {"gpuTypes": [row, RUNPOD_ROW]}}
    market = ask(home, clock, "runpod")
    assert [offer.gpu for offer in market.offers] == ["RTX 4090"] * 2  # an id that cannot be given back is no offer
    assert report(market, "runpod").note == "2 rows left out: unreadable id"
    asked.says = {"data": {"gpuTypes": [row | {"id": "NVIDIA L4"}]}}
    offer = ask(home, clock, "runpod", fresh=True).offers[0]
    assert offer.region.isprintable() and len(offer.region) <= 200


# --- Time ---------------------------------------------------------------------------------------------------


def test_a_servers_clock_that_differs_from_ours_is_told(home: Home, clock: StillClock, asked: Stranger) -> None:
    asked.date = NOW + timedelta(hours=3)
    assert report(ask(home, clock, "runpod"), "runpod").note == "this computer's clock is 3.0 h behind its"
    asked.date = NOW - timedelta(minutes=20)
    told = report(ask(home, clock, "runpod", fresh=True), "runpod")
    assert told.ok and told.note == "this computer's clock is 20 min ahead of its"


def test_an_offer_dated_in_the_future_is_left_out(home: Home, clock: StillClock, asked: Stranger) -> None:
    found = runpod.offers
    late = "2026-11-21T10:05:01.000Z"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runpod, "offers", lambda ctx: [o.model_copy(update={"as_of": late}) for o in found(ctx)])
        told = report(ask(home, clock, "runpod"), "runpod")
    assert told.note == "2 rows left out: dated in the future (is this computer's clock right?)"


# --- What is kept -------------------------------------------------------------------------------------------


def test_prices_are_kept_for_five_minutes_and_fresh_asks_again(
    home: Home, clock: StillClock, asked: Stranger
) -> None:
    first = ask(home, clock, "runpod")
    clock.sleep(299)
    again = ask(home, clock, "runpod")
    assert len(asked.asked) == 1 and again == first
    assert not any(offer.stale for offer in again.offers)
    assert ask(home, clock, "runpod", fresh=True).offers[0].as_of == "2026-11-21T10:04:59.000Z"
    clock.sleep(301)
    ask(home, clock, "runpod")
    assert len(asked.asked) == 3


def test_a_failed_source_shows_its_last_prices_of_up_to_a_day_marked_stale(
    home: Home, clock: StillClock, asked: Stranger
) -> None:
    ask(home, clock, "runpod")
    asked.says = WEB_PAGE
    clock.sleep(23 * 3600)
    market = ask(home, clock, "runpod")
    told = report(market, "runpod")
    assert (told.ok, told.stale, told.count, told.as_of) == (False, True, 2, "2026-11-21T10:00:00.000Z")
    assert told.error == "answered with a web page (HTML)"
    assert told.note == "its prices of 2026-11-21 10:00 UTC are shown"
    assert all(offer.stale for offer in market.offers)
    assert ask(home, clock, "runpod", fresh=True).offers == []  # after YES no old price counts
    clock.sleep(3700)
    assert ask(home, clock, "runpod").offers == []


def test_a_lost_key_hides_kept_prices(
    home: Home, clock: StillClock, asked: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(home, clock, "runpod")
    clock.sleep(600)
    monkeypatch.delenv("RUNPOD_API_KEY")
    assert ask(home, clock, "runpod").offers == []


def test_what_is_kept_is_for_the_owner_alone_and_holds_no_key(home: Home, clock: StillClock, asked: Stranger) -> None:
    ask(home, clock, "runpod")
    (kept,) = (home.root / "offers").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, kept.parent, home.root)] == [0o600, 0o700, 0o700]
    assert KEY not in kept.read_text()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"version": 2}', b'{"version": 1}', b"[" * 100_000, b"\xff",
     b'{"version": 1, "asked_at": "2026-11-21T10:00:00Z", "note": "", "offers": [{"provider": "vast"}]}',
     b'{"version": 1, "asked_at": "2026-11-21T11:00:00Z", "note": "", "offers": []}',
     b'{"version": 1, "asked_at": "2026-11-21T10:00:00", "note": "", "offers": []}',
     b'{"version": 1, "asked_at": 7}'],
)  # fmt: skip
def test_a_damaged_or_future_cache_is_asked_past_and_mended(
    home: Home, clock: StillClock, asked: Stranger, damage: bytes
) -> None:
    ask(home, clock, "runpod")
    (kept,) = (home.root / "offers").iterdir()
    kept.write_bytes(damage)
    assert len(ask(home, clock, "runpod").offers) == 2
    assert len(asked.asked) == 2
    assert json.loads(kept.read_bytes())["version"] == 1


def test_another_address_or_another_disk_is_another_answer(
    home: Home, clock: StillClock, asked: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(home, clock, "runpod")
    with stranger() as rehearsal:
        rehearsal.says = {"data": {"gpuTypes": [RUNPOD_ROW | {"securePrice": 99.0}]}}
        monkeypatch.setenv("RUNPOD_API_BASE_URL", rehearsal.url)
        assert str(ask(home, clock, "runpod").offers[0].usd_per_hour) == "99.00"
    ask(home, clock, "runpod", disk_gb=200.0)
    monkeypatch.setenv("RUNPOD_API_BASE_URL", asked.url)
    assert str(ask(home, clock, "runpod").offers[0].usd_per_hour) == "0.69"


def test_answers_that_nobody_asks_for_any_more_are_cleared_away(
    home: Home, clock: StillClock, asked: Stranger
) -> None:
    ask(home, clock, "runpod")
    (first,) = (home.root / "offers").iterdir()
    os.utime(first, (0, 0))
    ask(home, clock, "runpod", disk_gb=200.0)
    assert first not in list((home.root / "offers").iterdir())


def test_disks_of_about_one_size_share_an_answer(home: Home, clock: StillClock, asked: Stranger) -> None:
    ask(home, clock, "runpod", disk_gb=41.0)
    ask(home, clock, "runpod", disk_gb=60.0)
    assert len(asked.asked) == 1


def test_a_home_that_cannot_be_written_costs_only_the_memory(
    clock: StillClock, asked: Stranger, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(ask(Home(blocked), clock, "runpod").offers) == 2


# --- Together -----------------------------------------------------------------------------------------------


def test_all_sources_are_asked_at_the_same_time(
    home: Home, clock: StillClock, alone: pytest.MonkeyPatch, server: Stranger
) -> None:
    """Each answer waits until every question has arrived: one after the other would never end."""
    from threading import Barrier

    together = Barrier(3, timeout=30)
    with stranger() as second, stranger() as third:
        for held, variable, says in (
            (server, "VAST_URL", {"offers": [VAST_ROW]}),
            (second, "RUNPOD_API_BASE_URL", {"data": {"gpuTypes": [RUNPOD_ROW]}}),
            (third, "BREV_PUBLIC_API_URL", {"items": [BREV_ITEM]}),
        ):
            alone.setenv(variable, held.url)
            held.says = says
            held.before = together.wait
        alone.setenv("VAST_API_KEY", KEY)
        alone.setenv("RUNPOD_API_KEY", KEY)
        market = ask(home, clock, "local", "vast", "runpod", "brev")
    assert [(source.name, source.ok) for source in market.sources] == [
        ("local", True), ("vast", True), ("runpod", True), ("brev", True),
    ]  # fmt: skip
    assert {offer.provider for offer in market.offers} == {"local", "vast", "runpod", "brev"}


def test_only_the_sources_of_the_providers_asked_for_are_asked(
    home: Home, clock: StillClock, asked: Stranger
) -> None:
    assert [source.name for source in ask(home, clock, "runpod").sources] == ["runpod"]
    assert {offer.provider for offer in ask(home, clock, "local").offers} == {"local"}
