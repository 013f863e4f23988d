"""No answer that a stranger can give brings the market down, or an offer into it that cannot be."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strangers import BREV_ITEM, BREV_ROW, RUNPOD_ROW, VAST_ROW, StillClock

from launcher.cli.show_offers import as_json
from launcher.home import Home
from launcher.offers import ask_market, bounded

KEY = "rpa_SECRET0123456789"
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400)
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


def rows_like(row: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    """Rows of the right shape with some of their values replaced by anything."""
    changes = st.dictionaries(st.sampled_from(sorted(row)), ANYTHING, max_size=4)
    return st.lists(changes.map(lambda change: row | change) | ANYTHING, max_size=4)


@given(
    anything=ANYTHING, vast_rows=rows_like(VAST_ROW) | ANYTHING, runpod_rows=rows_like(RUNPOD_ROW) | ANYTHING,
    brev_rows=rows_like(BREV_ITEM) | ANYTHING, brev_list=rows_like(BREV_ROW) | ANYTHING, wrapped=st.booleans(),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_no_answer_whatsoever_crashes_the_market_or_brings_an_offer_that_cannot_be(
    home: Home, alone: pytest.MonkeyPatch, anything: Any, vast_rows: Any, runpod_rows: Any, brev_rows: Any,
    brev_list: Any, wrapped: bool,
) -> None:  # fmt: skip
    says = {
        "bundles": {"offers": vast_rows}, "graphql": {"data": {"gpuTypes": runpod_rows}},
        "types": {"items": brev_rows},
    }  # fmt: skip
    alone.setenv("VAST_API_KEY", KEY)
    alone.setenv("RUNPOD_API_KEY", KEY)

    def ask_nobody(_ctx: object, url: str, **_: Any) -> bounded.Reply:
        held = next(answer for part, answer in says.items() if part in url) if wrapped else anything
        return bounded.Reply(200, json.dumps(held).encode(errors="surrogatepass"))

    alone.setattr(bounded, "ask", ask_nobody)
    alone.setattr(bounded, "run", lambda *_: iter([json.dumps(brev_list).encode(errors="surrogatepass")]))
    with mock.patch("shutil.which", return_value="brev" if wrapped and vast_rows else None):
        market = ask_market(home, StillClock(), providers=["vast", "runpod", "brev"], fresh=True)
    for source in market.sources:
        assert source.asked and source.error.isprintable() and not source.error.startswith("failed"), source
    for offer in market.offers:
        assert 0 < offer.usd_per_hour <= 1000 * offer.count and offer.count >= 1 and offer.vram_gb > 0
        assert all(text.isprintable() and len(text) <= 200 for text in (offer.gpu, offer.region, offer.note))
    as_json(market.offers, market.sources)
