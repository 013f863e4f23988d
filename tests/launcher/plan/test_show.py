"""A plan as a person sees it: inside the columns there are, its figures under one another, each with its unit."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from offered import LOCAL_CPU, job_of, offer, plan_of
from rich.console import Console

from launcher.cli.output import Output
from launcher.cli.show_plan import cents, show_plan, span_words
from launcher.money import Usd
from launcher.plan import Plan
from launcher.prepare import Prepared


def shown(plan: Plan, prepared: Prepared, columns: int, *, every: bool = False, colour: bool = False) -> str:
    out = Output()
    out._console = Console(
        file=io.StringIO(), width=columns, highlight=False, force_terminal=colour, no_color=not colour
    )
    show_plan(SimpleNamespace(plan=plan, prepared=prepared), out, every)  # type: ignore[arg-type]
    text = out.console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


@pytest.fixture
def plan(folder: Path, prepared: Prepared) -> Plan:
    offers = [
        LOCAL_CPU, offer(region="DE", reliability=0.991), offer("runpod", "2.20", "H100 SXM", 80),
        offer("runpod", "0.80", "L40S", 48), offer("vast", "2.60", "H200", 141), offer("vast", "0.05", "T4", 16),
    ]  # fmt: skip
    return plan_of(job_of(folder), prepared, offers)


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("every", [False, True])
def test_no_line_is_wider_than_the_terminal(plan: Plan, prepared: Prepared, columns: int, every: bool) -> None:
    lines = shown(plan, prepared, columns, every=every).splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in "".join(lines), "something was cut off"


@pytest.mark.parametrize("columns", [80, 120])
def test_money_and_time_stand_under_one_another(plan: Plan, prepared: Prepared, columns: int) -> None:
    rows = [line for line in shown(plan, prepared, columns).splitlines() if re.search(r"\$\d+\.\d\d +\$\d", line)]
    assert len(rows) == 2
    assert len({line.index("$", line.index("$") + 1) + len(re.findall(r"\$[\d.]+", line)[1]) for line in rows}) == 1
    assert len({re.search(r"(min|h|s) +\$", line).end(1) for line in rows}) == 1  # type: ignore[union-attr]


def test_cheapest_fastest_and_this_machine_stand_beside_each_other_with_hours_and_dollars(
    plan: Plan, prepared: Prepared
) -> None:
    text = shown(plan, prepared, 200)
    for label in ("cheapest", "fastest", "here"):
        (row,) = [line for line in text.splitlines() if re.match(rf"[› ] {label}\b", line)]
        assert re.search(r"\d–[\d,.]+ (min|h)", row)
    for words in ("At most", "Deadline", "Budget", "Released", "Worst", "A forgotten night (8 h)", "a month"):
        assert words in text
    assert "may take" in text, "why this machine does not fit"


def test_without_colour_there_is_no_escape_and_with_it_the_words_are_the_same(
    plan: Plan, prepared: Prepared
) -> None:
    bare, coloured = (shown(plan, prepared, 100, colour=colour) for colour in (False, True))
    assert "\x1b" not in bare
    assert "\x1b[1;36m$" in coloured, "money is what stands out"
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == bare


def test_the_worst_case_promises_no_end_that_the_provider_does_not(folder: Path, prepared: Prepared) -> None:
    words = {name: plan_of(job_of(folder), prepared, [offer(name)]).worst_case for name in ("vast", "runpod", "brev")}
    assert "not the disk, which Vast goes on charging" in words["vast"]
    assert "auto-pay" in words["runpod"]
    assert "not documented" in words["brev"]


def test_a_free_plan_says_so_and_speaks_of_no_ceiling(folder: Path, prepared: Prepared) -> None:
    gpu = LOCAL_CPU.model_copy(update={"gpu": "RTX 4090", "count": 1, "vram_gb": 24.0})
    text = shown(plan_of(job_of(folder), prepared, [gpu, offer()]), prepared, 80)
    assert "Free: this machine costs nothing" in text
    assert "At most" not in text
    assert re.search(r"cheapest.*\$0\.\d\d", text), "what money would buy in time"


@pytest.mark.parametrize(
    ("low_s", "high_s", "words"),
    [(31 * 60, 44 * 60, "31–44 min"), (7560, 10440, "2.1–2.9 h"), (5, 8, "5–8 s"), (60, 60, "60 s"),
     (36 * 3600, 90 * 3600, "36–90 h"), (300 * 3600, 5000 * 3600, "300–5,000 h")],
)  # fmt: skip
def test_an_interval_has_one_unit(low_s: float, high_s: float, words: str) -> None:
    assert span_words(low_s, high_s) == words


@pytest.mark.parametrize(("usd", "words"), [("0.241", "$0.25"), ("0", "$0.00"), ("1234.5", "$1,234.50")])
def test_an_amount_is_never_shown_too_low(usd: str, words: str) -> None:
    assert cents(Usd(usd)) == words


def test_the_method_stands_beside_each_machine_where_the_launcher_chose_it(folder: Path, prepared: Prepared) -> None:
    job = job_of(folder, spec="base: nvidia/parakeet-tdt-0.6b-v2, method: auto")
    offers = [offer("vast", "0.05", "RTX 3060 12GB", 12), offer("runpod", "2.2", "H100 SXM", 80)]
    plan = plan_of(job, prepared, offers)
    text = shown(plan, prepared, 120, every=True)
    (small,) = [line for line in text.splitlines() if "RTX 3060" in line and "–" in line]
    (large,) = [line for line in text.splitlines() if "H100" in line and "–" in line]
    assert "lora_decoder" in small
    assert " full " in large
