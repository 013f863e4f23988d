"""Offers from a file: what it may look like, and one line with file, place, key, value and fix when it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strangers import StillClock

from launcher.errors import BadInputError
from launcher.home import Home
from launcher.money import Usd
from launcher.offers import ask_market
from launcher.offers.file import read_offers
from launcher.offers.offer import Offer

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "offers" / "february-2026.csv"
ROW: dict[str, Any] = {"provider": "vast", "gpu": "RTX 4090", "usd_per_hour": "0.40"}


def written(tmp_path: Path, text: str | bytes, name: str = "offers.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(tmp_path: Path, text: str | bytes, name: str = "offers.csv") -> list[Offer]:
    return read_offers(written(tmp_path, text, name), StillClock())[0]


def fault(tmp_path: Path, text: str | bytes, name: str = "offers.csv") -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, text, name)
    assert caught.value.file == str(tmp_path / name)
    assert "\n" not in str(caught.value)
    return caught.value


# --- What it may look like ------------------------------------------------------------------------------------


def test_three_columns_make_an_offer_and_the_rest_follows(tmp_path: Path) -> None:
    (offer,) = read(tmp_path, "provider,gpu,usd_per_hour\nvast,NVIDIA GeForce RTX 4090,0.40\n")
    assert offer == Offer(
        provider="vast", offer_id="offers:2", gpu="RTX 4090", count=1, vram_gb=24, usd_per_hour=Usd("0.40"),
        trust="marketplace", as_of="2026-11-21T10:00:00.000Z",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "provider,gpu,usd_per_hour\nvast,RTX 4090,0.40\n"),
        ("a.csv", "\ufeff# a remark\n\nprovider;gpu;usd_per_hour\r\nvast;RTX 4090;0.40\r\n"),
        ("a.csv", "provider, gpu, usd_per_hour, region\nvast,RTX 4090,0.40,\n"),
        ("a.tsv", "provider\tgpu\tusd_per_hour\nvast\tRTX 4090\t0.40\n"),
        ("a.json", json.dumps([ROW])), ("a.json", json.dumps({"offers": [ROW], "currency": "USD"})),
        ("a.json", '{"offers": [{"provider": "vast", "gpu": "RTX 4090", "usd_per_hour": 0.40}], "sources": []}'),
        ("a.jsonl", json.dumps(ROW) + "\n\n"), ("a", json.dumps([ROW])),
    ],
)  # fmt: skip
def test_csv_of_any_separator_json_and_json_lines_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (offer,) = read(tmp_path, text, name)
    assert (offer.provider, offer.gpu, offer.usd_per_hour) == ("vast", "RTX 4090", Usd("0.40"))


def test_a_number_of_json_keeps_every_digit(tmp_path: Path) -> None:
    text = '[{"provider": "vast", "gpu": "L4", "usd_per_hour": 0.100001, "disk_usd_per_gb_month": 1}]'
    (offer,) = read(tmp_path, text, "a.json")
    assert (offer.usd_per_hour, offer.disk_usd_per_gb_month) == (Usd("0.100001"), Usd(1))


def test_what_json_prints_can_be_given_back(tmp_path: Path, home: Home, clock: StillClock) -> None:
    from launcher.cli.show_offers import as_json

    path = written(tmp_path, "provider,gpu,usd_per_hour,reliability\nvast,L4,0.2,0.99\nrunpod,A40,0.3,\n")
    first = ask_market(home, clock, file=path)
    again = ask_market(
        home, clock, file=written(tmp_path, json.dumps(as_json(first.offers, first.sources)), "b.json")
    )
    assert [o for o in again.offers if o.provider != "local"] == [o for o in first.offers if o.provider != "local"]
    assert again.sources[-1].note == "1 left out: this machine is asked itself"


def test_only_the_file_and_this_machine_are_asked(tmp_path: Path, home: Home, clock: StillClock) -> None:
    market = ask_market(
        home, clock, file=written(tmp_path, "provider,gpu,usd_per_hour\nvast,L4,0.2\nrunpod,L4,0.3\n")
    )
    assert [(source.name, source.ok) for source in market.sources] == [("local", True), ("file", True)]
    narrowed = ask_market(home, clock, file=tmp_path / "offers.csv", providers=["runpod"])
    assert [offer.provider for offer in narrowed.offers] == ["runpod"]


def test_the_example_of_february_2026_says_that_it_is_old(home: Home, clock: StillClock) -> None:
    market = ask_market(home, clock, file=EXAMPLE, providers=["vast", "runpod", "lambda", "brev"])
    assert len(market.offers) == 9 and all(offer.stale for offer in market.offers)
    told = market.sources[-1]
    assert (told.name, told.ok, told.example, told.stale) == ("file", True, True, True)
    assert told.as_of == "2026-02-08T00:00:00.000Z"


@pytest.mark.parametrize(
    ("as_of", "stale"),
    [("2026-11-21T09:00:00Z", False), ("2026-11-20T09:59:00Z", True), ("2026-11-21T12:00:00+02:00", False),
     ("2026-11-21", False)],
)  # fmt: skip
def test_a_price_of_more_than_a_day_ago_is_stale(tmp_path: Path, as_of: str, stale: bool) -> None:
    (offer,) = read(tmp_path, f"provider,gpu,usd_per_hour,as_of\nvast,L4,0.2,{as_of}\n")
    assert offer.stale is stale


def test_a_gpu_of_ones_own_needs_only_its_memory(tmp_path: Path) -> None:
    (offer,) = read(tmp_path, "provider,gpu,usd_per_hour,vram_gb\nvast,Prototype X,0.2,32\n")
    assert (offer.gpu, offer.vram_gb) == ("Prototype X", 32.0)


# --- What is wrong with it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "words"),
    [
        ("0", "price 0: nobody rents at that."), ("-0.40", "price below 0: nobody rents at that."),
        ("1500", "price above $1,000 an hour per GPU"), ("5,00", "a point, not a comma: 2.50"),
        ("1e9", "not an amount of dollars: '1e9'"), ("NaN", "not an amount of dollars: 'NaN'"),
        ("inf", "not an amount of dollars: 'inf'"), ("$0.40", "not an amount of dollars: '$0.40'"),
        ("0.40 EUR", "not an amount of dollars: '0.40 EUR'"), ("0.40/h", "not an amount of dollars"),
        ("٠٫٤", "not an amount of dollars"), ("9" * 40, "no amount of dollars is that large"),
    ],
)  # fmt: skip
def test_a_price_that_is_none_is_refused_with_its_line(tmp_path: Path, price: str, words: str) -> None:
    error = fault(tmp_path, f'# prices\nprovider,gpu,usd_per_hour\nrunpod,L4,0.3\nvast,L4,"{price}"\n')
    assert (error.line, error.key) == (4, "usd_per_hour")
    assert words in error.problem


@pytest.mark.parametrize(
    ("row", "key", "words"),
    [
        ({"provider": "vats"}, "provider", "Did you mean vast?"), ({"provider": 7}, "provider", "is no provider"),
        ({"gpu": "RTX 409"}, "gpu", "Did you mean RTX 4090?"), ({"gpu": 4090}, "gpu", "text"),
        ({"gpu": "Prototype"}, "gpu", "say its vram_gb"), ({"usd_per_hour": None}, "usd_per_hour", ""),
        ({"currency": "EUR"}, "currency", "prices are in US dollars here, not 'EUR'. Convert them"),
        ({"as_of": "yesterday"}, "as_of", "is no date"), ({"as_of": "2026-11-21T10:00"}, "as_of", "is no date"),
        ({"as_of": "2026-11-21T10:06:00Z"}, "as_of", "has not come yet"), ({"as_of": 2026}, "as_of", "is no date"),
        ({"vram_gb": -1}, "vram_gb", "at least 0"), ({"vram_gb": "1e9"}, "vram_gb", "at most 10000"),
        ({"vram_gb": "NaN"}, "vram_gb", ""), ({"count": 0.5}, "count", "integer"),
        ({"count": -1}, "count", "at least 0"), ({"count": 0}, "count", "0 GPUs, but "),
        ({"usd_per_gb_up": "-1"}, "usd_per_gb_up", "cannot be negative"),
        ({"usd_per_gb_down": "-0.01"}, "usd_per_gb_down", "cannot be negative"),
        ({"disk_usd_per_gb_month": "-0.1"}, "disk_usd_per_gb_month", "cannot be negative"),
        ({"reliability": "99%"}, "reliability", "a number"), ({"reliability": 99}, "reliability", "at most 1"),
        ({"trust": "own"}, "trust", "vast is not your own machine. It can be secure or marketplace."),
        ({"trust": "full"}, "trust", "own or secure or marketplace"), ({"via": "ssh"}, "via", "direct or skypilot"),
        ({"price": 1}, "price", "Did you mean usd_per_hour?"), ({"vram": 24}, "vram", "Did you mean vram_gb?"),
        ({"eur_per_hour": 1}, "eur_per_hour", "usd_per_hour?"), ({"usd_per_hr": 1}, "usd_per_hr", "usd_per_hour?"),
        ({"colour": 1}, "colour", "Valid: provider, offer_id"), ({"region": ["DE"]}, "region", "text"),
    ],
)  # fmt: skip
def test_each_fault_names_its_row_its_key_and_the_fix(
    tmp_path: Path, row: dict[str, Any], key: str, words: str
) -> None:
    good = ROW | {"gpu": "L4"}
    error = fault(tmp_path, json.dumps({"offers": [good, ROW | row]}), "a.json")
    assert error.key == f"offers[1].{key}"
    assert words in str(error)
    lines = fault(tmp_path, f"{json.dumps(good)}\n\n{json.dumps(ROW | row)}\n", "a.jsonl")
    assert (lines.line, lines.key, lines.problem) == (3, key, error.problem.replace("key.", "column."))


@pytest.mark.parametrize("missing", list(ROW))
def test_a_row_without_what_it_needs_says_what(tmp_path: Path, missing: str) -> None:
    error = fault(tmp_path, json.dumps([{key: value for key, value in ROW.items() if key != missing}]), "a.json")
    assert (error.key, error.problem) == (f"offers[0].{missing}", "is missing.")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "no offers in it"), ("a.csv", "provider,gpu,usd_per_hour\n", "no offers in it"),
        ("a.csv", "provider,gpu,usd_per_hour\nvast,L4,5,00\n", "4 cells, the header names 3"),
        ("a.csv", "provider,gpu,gpu,usd_per_hour\n", "this column is there twice"),
        ("a.csv", b"provider,gpu,usd_per_hour\nvast,\xff,1\n", "is no UTF-8 text"),
        ("a.csv", 'provider,gpu,usd_per_hour\nvast,"' + "x" * 200_000 + '",1\n', "is no CSV: field larger"),
        ("a.json", "{", "is no JSON"), ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "7", "is not a list of offers"),
        ("a.json", "[" + "9" * 10_000 + "]", "a number without end"),
        ("a.json", '{"offer": []}', "Did you mean offers?"),
        ("a.json", "{}", "is not a list of offers"), ("a.json", "[[]]", "is not an offer"),
        ("a.json", "[]", "no offers in it"),
        ("a.json", "<html></html>", "is no JSON"), ("a.jsonl", "<html></html>", "is no JSON"),
        ("a.jsonl", "3\n", "is not an offer"),
        ("a.csv", "<html></html>", "no such column"),
        ("a.csv", "provider,gpu,usd_per_hour,offer_id\nvast,L4,1,7\nvast,L4,2,7\n", "line 2 is the same offer"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_offers_is_said_in_a_line(
    tmp_path: Path, name: str, text: str | bytes, words: str
) -> None:
    assert words in str(fault(tmp_path, text, name))


def test_a_file_that_cannot_be_read_is_said_in_a_line(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.csv", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(BadInputError, match=words):
            read_offers(path, StillClock())


def test_a_file_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    with (tmp_path / "offers.csv").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(BadInputError, match="is larger than 64 MB"):
        read_offers(tmp_path / "offers.csv", StillClock())


KEYS = st.sampled_from([*ROW, "count", "as_of", "offers", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)).map(json.dumps)


@given(
    st.one_of(st.text(), st.binary(), ANY_JSON),
    st.sampled_from(["a.csv", "a.json", "a.jsonl", "a"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_any_file_whatever_is_read_or_refused_in_one_line(tmp_path: Path, text: str | bytes, name: str) -> None:
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    try:
        offers = read(tmp_path, raw, name)
    except BadInputError as error:
        assert error.file == str(tmp_path / name)
    else:
        assert all(offer.usd_per_hour > 0 for offer in offers)
