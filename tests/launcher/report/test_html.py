"""report.html: one page, whole in itself, in which a stranger's text stays text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.report.html import render_html
from launcher.report.svg import line_chart, thinned
from recipes.scoring import decide, gate, score_rows

EVIL = "<script>alert('x')</script>&\"\x00\ud800"
VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page and holds its tags, its text and whether every tag was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(run: dict[str, Any]) -> Page:
    text = render_html(run)
    text.encode("utf-8")  # a lone surrogate would not survive being written
    read = Page(text)
    assert read.open == []
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "link", "img", "iframe", "object"}
    assert not any({"src", "href", "onload", "onclick"} & set(attributes) for _, attributes in read.tags)
    return read


def whole(mark: str = "") -> dict[str, Any]:
    term = f"aspirin{mark}"
    rows = [
        {
            "audio_filepath": f"{mark}{i}.wav",
            "text": f"give {term} 1.0 mg",
            "term": term,
            "entity_category": f"drug{mark}",
        }
        for i in range(6)
    ]
    before = score_rows(rows, {r["audio_filepath"]: "give it 10 mg" for r in rows}, bootstrap=20)
    after = score_rows(
        rows,
        {r["audio_filepath"]: r["text"] if i else f"give {mark} 10 mg" for i, r in enumerate(rows)},
        bootstrap=20,
    )
    decision = decide(before.summary, after.summary, before.summary, after.summary, rows=(before.rows, after.rows))
    return {
        "run": f"7f3a{mark}", "model": mark, "base": "base.nemo", "state": "settled",
        "scores": {"before": before.summary, "after": after.summary,
                   "general_before": before.summary, "general_after": after.summary},
        "rows": {"before": before.rows, "after": after.rows},
        "decision": decision.as_json(), "gate": gate(rows, before.rows).as_json(),
        "events": [{"kind": "progress", "step": s, "loss": 5 / s,
        "metrics": {"val_wer": 1 / s}} for s in range(1, 9)],
        "receipt": {f"usd{mark}": {"charged": "0.22"}, "released": [{"at": mark}]},
        "artifacts": [{"path": f"m{mark}.nemo", "bytes": 2_400_000_000, "sha256": "9c1e"}],
    }  # fmt: skip


def test_the_page_tells_the_whole_run() -> None:
    read = page(whole())
    for said in ("Run 7f3a", "keep", "grow", "100.0% → 16.7%", "Worst terms", "tenfold", "Receipt", "0.22", "2.4 GB"):
        assert said in read.text
    assert sum(tag == "svg" for tag, _ in read.tags) == 2
    assert {"ins", "del"} <= {tag for tag, _ in read.tags}


def test_text_of_a_stranger_stays_text_wherever_it_stands() -> None:
    read = page(whole(EVIL))
    assert "<script>alert('x')</script>" in read.text


@pytest.mark.parametrize("key", [None, *whole()])
def test_any_part_may_be_absent(key: str | None) -> None:
    run = whole()
    page({} if key is None else {name: value for name, value in run.items() if name != key})


def test_a_run_with_only_a_baseline_and_no_terms_has_a_page() -> None:
    score = score_rows([{"audio_filepath": "a", "text": "x"}], {"a": "y"}, bootstrap=0)
    read = page({"scores": {"before": score.summary}, "rows": {"before": score.rows}})
    assert "WER, micro" in read.text
    assert "Keywords" not in read.text


def test_a_validation_repeated_between_progress_events_is_one_point() -> None:
    events = [
        {"kind": "progress", "step": s, "loss": 1.0, "metrics": {"val_wer": 0.5 if s < 50 else 0.25}}
        for s in range(1, 101)
    ]
    read = page({"events": events})
    assert sum(tag == "circle" for tag, _ in read.tags) == 3  # both values, and the end


def test_a_long_receipt_is_cut_and_says_so() -> None:
    read = page({"receipt": {f"line{i}": i for i in range(100)}})
    assert "20 more lines in receipt.json" in read.text


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats()), max_size=30))
def test_a_chart_is_drawn_inside_its_box_or_not_at_all(points: list[tuple[int, float]]) -> None:
    text = line_chart(points, "loss", dots=True)
    if not text:
        usable = {x for x, y in points if abs(y) < 1e9}
        assert len(usable) < 2
        return
    read = Page(text)
    places = next(a["points"] for tag, a in read.tags if tag == "polyline") or ""
    for place in places.split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= 460
        assert 0 <= y <= 190


def test_a_long_curve_is_thinned_without_losing_its_ends() -> None:
    few = thinned([(float(i), float(i)) for i in range(10_000)])
    assert len(few) <= 400
    assert few[0][0] < 50
    assert few[-1][0] > 9950
