"""`launcher offers` as its user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[3]
EXAMPLE = REPO / "examples" / "offers" / "february-2026.csv"
NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there
FIELDS = {"provider", "offer_id", "gpu", "count", "vram_gb", "usd_per_hour", "disk_usd_per_gb_month", "region",
          "reliability", "interruptible", "trust", "as_of"}  # fmt: skip


def environment(folder: Path, columns: int = 80) -> dict[str, str]:
    """Without any key, and at a loopback address where nobody listens."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    env |= {
        "PYTHONPATH": str(REPO), "HOME": str(folder), "LAUNCHER_HOME": str(folder / "home"), "COLUMNS": str(columns),
        "XDG_CONFIG_HOME": str(folder), "PATH": str(folder), "BREV_PUBLIC_API_URL": NOBODY,
        "GPUHUNT_CATALOG_URL": NOBODY, "HTTPS_PROXY": NOBODY, "HTTP_PROXY": NOBODY, "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    return env


def launcher(folder: Path, *arguments: object, columns: int = 80) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", "offers", *map(str, arguments)]
    env = environment(folder, columns)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


def answer(folder: Path, *arguments: object) -> dict[str, Any]:
    done = launcher(folder, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    held: dict[str, Any] = json.loads(done.stdout)
    return held


def test_json_has_every_field_of_the_contract(tmp_path: Path) -> None:
    held = answer(tmp_path, "--offers", EXAMPLE)
    assert len(held["offers"]) == 10  # nine of the file, and this machine
    for offer in held["offers"]:
        assert set(offer) >= FIELDS
        assert isinstance(offer["usd_per_hour"], str) and isinstance(offer["disk_usd_per_gb_month"], str)
    for source in held["sources"]:
        assert set(source) >= {"name", "ok", "error", "as_of"}


@pytest.mark.parametrize("columns", [80, 120])
def test_people_get_a_table_cheapest_first_that_fits_and_says_its_age(tmp_path: Path, columns: int) -> None:
    done = launcher(tmp_path, "--offers", EXAMPLE, "--gpu", "a100", "--gpu", "rtx 4090", columns=columns)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].split()[:5] == ["$/GPU-h", "GPU", "memory", "provider", "whose"]
    prices = [float(line.split()[0]) for line in lines[1:] if line[:9].strip().replace(".", "").isdigit()]
    assert prices == sorted(prices) and len(prices) == 7
    assert all("of 2026-02-08" in line for line in lines if "0.280" in line or "0.330" in line)
    assert "✓  file     9 offers: example prices of February 2026" in [line.rstrip() for line in lines]


def test_a_limit_says_how_many_more_there_are_and_json_obeys_it(tmp_path: Path) -> None:
    done = launcher(tmp_path, "--offers", EXAMPLE, "--limit", 2)
    assert "and 8 more, dearer or sold out: --limit 0 shows all" in done.stdout
    assert len(answer(tmp_path, "--offers", EXAMPLE, "--limit", 2)["offers"]) == 2


def test_a_provider_narrows_to_it(tmp_path: Path) -> None:
    held = answer(tmp_path, "--offers", EXAMPLE, "--provider", "lambda", "--provider", "brev")
    assert {offer["provider"] for offer in held["offers"]} == {"lambda", "brev"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--gpu", "rtx409"], "Did you mean RTX 4090?"), (["--gpu", "banana"], "There is: "),
     (["--provider", "runpd"], "Did you mean runpod?"), (["--offers", "none.csv"], "none.csv: no such file."),
     (["--limit", "-1"], "-1"), (["--limit", "many"], "not a valid integer")],
)  # fmt: skip
def test_a_wrong_word_is_one_line_with_the_right_one_and_exit_2(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = launcher(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and "Traceback" not in done.stderr
    held = json.loads(launcher(tmp_path, *arguments, "--json").stdout)
    assert held["exit"] == 2 and words in held["error"]["message"]


def test_a_fault_in_the_file_names_file_line_key_and_value_and_asks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("provider,gpu,usd_per_hour\nvast,L4,1e9\n")
    done = launcher(tmp_path, "--offers", path, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert (error["file"], error["line"], error["key"], error["value"]) == (str(path), 2, "usd_per_hour", "'1e9'")
    assert done.stderr.count("\n") == 1


def test_sources_that_cannot_be_asked_say_why_and_the_others_are_shown(tmp_path: Path) -> None:
    done = launcher(tmp_path, "--provider", "local", "--provider", "runpod", "--provider", "brev", columns=120)
    assert done.returncode == 0, done.stderr
    assert "–  runpod   not asked: no key (RUNPOD_API_KEY). Fix: " in done.stdout
    assert "✗  brev     cannot be reached: Connection refused" in done.stdout
    assert "✓  local    " in done.stdout


def test_it_fails_only_when_every_source_that_was_asked_failed(tmp_path: Path) -> None:
    assert launcher(tmp_path, "--provider", "brev").returncode == 4
    assert launcher(tmp_path, "--provider", "runpod").returncode == 0  # not asked: no key
    held = json.loads(launcher(tmp_path, "--provider", "brev", "--json").stdout)
    assert held["offers"] == [] and held["sources"][0]["error"] == "cannot be reached: Connection refused"


def test_interrupted_while_a_program_is_asked_it_leaves_none_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lives")
    (tmp_path / "brev").write_text(f"#!/bin/sh\nexec 3> {tmp_path}/lives\necho begun >&3\n/bin/sleep 600 & wait\n")
    (tmp_path / "brev").chmod(0o755)
    command = [sys.executable, "-m", "launcher", "offers", "--provider", "brev"]
    with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True) as process:
        with (tmp_path / "lives").open() as lives:
            assert lives.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert lives.read() == ""  # comes back when nobody holds the other end any more
        assert process.stderr is not None and process.stderr.read().strip() == "interrupted"
