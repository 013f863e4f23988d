"""No planted secret comes through the redactor, in whatever form it is written; and what is no secret stays."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import redact
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.ledger import Ledger, RunState
from launcher.visible import escaped, one_line, visible

KEY = "planted/+Key=0123456789&\"quoted'é"
SHAPED = (
    "hf_AbCdEfGh0123456789", "rpa_ABCDEFGHIJ0123456789", "bak-0123456789-abcdefgh", "AKIAABCDEFGHIJKLMNOP",
    "ghp_0123456789abcdefghijABCDEFGHIJ", "github_pat_11ABCDEFG0123456789_abcdefghij", "xoxb-1234567890-abcdefghij",
    "nvapi-0123456789abcdefghij_ABCDE", "sk-proj-0123456789abcdefghijABCD",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
)  # fmt: skip


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAST_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


@pytest.mark.parametrize("written", [
    str, json.dumps, lambda key: json.dumps(key, ensure_ascii=False), repr, quote_plus, html.escape,
    lambda key: quote(key, safe=""), lambda key: base64.b64encode(key.encode()).decode(),
])  # fmt: skip
def test_a_key_is_found_however_it_is_written(written: object) -> None:
    assert callable(written)
    said = redact.redact(f"no such user: {written(KEY)}, says the provider")
    assert "planted" not in said
    assert "0123456789" not in said
    assert base64.b64encode(KEY.encode()).decode()[:12] not in said
    assert said.startswith("no such user: ")
    assert said.endswith(", says the provider")


@pytest.mark.parametrize("key", SHAPED)
@pytest.mark.parametrize("around", ["key {} given", "{}", '{{"token": "{}"}}', "https://x.y/?a={}&b=1", "K={};"])
def test_a_key_that_nobody_named_is_known_by_its_shape(key: str, around: str) -> None:
    said = redact.redact(around.format(key))
    assert key not in said
    assert key[8:] not in said


@pytest.mark.parametrize(("text", "secret"), [
    ("postgresql://ann:s3cret-word@db.example/ledger", "s3cret-word"),
    ("GET https://rest.example/v1?api_key=0a1b2c3d HTTP/1.1", "0a1b2c3d"),
    ("PATH=/bin\nRUNPOD_API_KEY=0a1b2c3d4e5f6071\nHOME=/root", "0a1b2c3d4e5f6071"),
    ("Authorization: Bearer 0a1b2c3d4e5f60718293", "0a1b2c3d4e5f60718293"),
    ("curl -H 'Authorization: Basic dXNlcjpwYXNzd29yZDE='", "dXNlcjpwYXNzd29yZDE="),
])  # fmt: skip
def test_what_stands_where_a_key_stands_is_taken_out(text: str, secret: str) -> None:
    assert secret not in redact.redact(text)
    assert "***" in redact.redact(text)


@pytest.mark.parametrize("text", [
    "val WER 9.8% (best 9.6% at 700)", "https://console.vast.ai/?page=2", "RUNPOD_API_KEY: is not set.",
    "export RUNPOD_API_KEY=…, or runpod config", "sha256 " + "9c1e2b7f00a1c2d3" * 4,
    "task-0123456789-abcdefghijklmnopqrst", "basic understanding of transformers", "max_tokens=1024, MAX_TOKEN=12",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq2rq3O0v1 pl-me-abcdef", "git@github.com:a/b.git at 12:30",
])  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact.redact(text) == text


def test_a_variable_that_only_sounds_secret_hides_no_ordinary_word() -> None:
    found = redact.secrets({
        "SORT_KEY": "filename", "SSH_KEY": "/root/.ssh/id_ed25519", "HF_TOKEN": "short", "CI_JOB_TOKEN": "0" * 20,
        "TITLE_TOKEN": "a title with 20 words", "HOME": "/nowhere",
    })  # fmt: skip
    assert found - redact._learnt == {"0" * 20}


def test_the_providers_own_files_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "user"
    held = {
        ".runpod/config.toml": '[default]\napi_key = "toml-0123456789"\n',
        ".config/vastai/vast_api_key": "bare-0123456789\n",
        ".brev/credentials.json": '{"access_token": "jay-0123456789", "api_key": ""}',
        ".lambda_cloud/lambda_keys": "api_key = ini-0123456789",
        ".aws/credentials": "[default]\naws_secret_access_key = aws/0123456789+x\n",
    }
    for name, text in held.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    said = redact.redact("toml-0123456789 bare-0123456789 jay-0123456789 ini-0123456789 aws/0123456789+x")
    assert said == " ".join(["***"] * 5)
    (home / ".config/vastai/vast_api_key").write_text("another-0123456789\n")  # changed while we run
    assert redact.redact("another-0123456789") == "***"


def test_a_leases_private_key_is_taken_out_whole_torn_or_quoted(tmp_path: Path) -> None:
    keys = LeaseKeys.create(tmp_path / "keys")
    private = keys.private.read_text()
    body = private.splitlines()[1:-1]
    for text in (private, json.dumps({"log": private}), "\n".join(body), private[: len(private) // 2], body[-2]):
        said = redact.redact(text)
        assert not [line for line in body[:-1] if line in said], said
    assert redact.redact(json.dumps({"log": private, "then": "kept"})).endswith('"then": "kept"}')
    assert redact.redact(keys.public) == keys.public


@given(before=st.text(max_size=30), after=st.text(max_size=30))
def test_what_is_redacted_is_still_the_same_json(before: str, after: str) -> None:
    held = {"a": f"{before}{KEY}{after}", "b": [1, None, SHAPED[0]], KEY: True}
    for text in (json.dumps(held), json.dumps(held, ensure_ascii=False)):
        found = json.loads(redact.redact(text))
        assert set(found) == {"a", "b", "***"}
        assert "planted" not in found["a"]
        assert found["b"] == [1, None, "***"]


def test_the_ledger_keeps_no_secret(tmp_path: Path) -> None:
    ledger = Ledger.open(Home(tmp_path / "home"))
    run, _ = ledger.create_run(f"key {KEY}", {"spec": {"note": KEY, "n": 3}}, "digest")
    ledger.move_run(run.run, RunState.CANCELLED, reason=f"the provider said {KEY} and {SHAPED[0]}", exit_code=5)
    assert ledger.run(run.run).reason == "the provider said *** and ***"
    assert ledger.run(run.run).plan == {"spec": {"note": "***", "n": 3}}
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file():
            assert b"planted" not in path.read_bytes(), path


def test_a_crash_is_one_line_and_a_private_file_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    script = (
        "import os, sys; sys.argv = ['launcher', 'status', '--json']\n"
        "import launcher.ledger as held\n"
        "def fail(*_): raise KeyError('key ' + os.environ['VAST_API_KEY'])\n"
        "held.Ledger.open = fail\n"
        "from launcher.__main__ import main; main()\n"
    )
    env = {**os.environ, "LAUNCHER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "planted" not in done.stderr + done.stdout
    assert "a fault of the launcher (KeyError" in done.stderr
    assert json.loads(done.stdout)["exit"] == 1
    (kept,) = (tmp_path / "home" / "crashes").iterdir()
    assert str(kept) in done.stderr
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in kept.read_text()
    assert "planted" not in kept.read_text()


def test_streams_and_tracebacks_of_a_process_that_installed_it_say_no_secret(tmp_path: Path) -> None:
    script = (
        "import os, sys, threading, warnings; from launcher import redact; redact.install()\n"
        "key = os.environ['VAST_API_KEY']; print('out', key); sys.stderr.writelines(['err ', key, chr(10)])\n"
        "warnings.warn(key)\n"
        "def die(): raise ValueError('thread ' + key)\n"
        "t = threading.Thread(target=die); t.start(); t.join()\n"
        "raise RuntimeError('main ' + key)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for word in ("out ***", "err ***", "thread ***", "main ***"):
        assert word in done.stdout + done.stderr
    assert "planted" not in done.stdout + done.stderr


def test_installing_is_undone(capsys: pytest.CaptureFixture[str]) -> None:
    streams = sys.stdout, sys.stderr
    redact.uninstall()  # what a command line that another test ran in this process installed
    sys.stdout, sys.stderr = streams
    before = sys.stdout, sys.stderr, sys.excepthook
    redact.install()
    redact.install()
    print("a", KEY)  # noqa: T201
    redact.uninstall()
    assert (sys.stdout, sys.stderr, sys.excepthook) == before
    assert capsys.readouterr().out == "a ***\n"


HOSTILE = "a\x1b[2J\x1b]0;title\x07b\u202ec\nd\re\x9bf\u2028g\x00h\ud800"


def test_nothing_that_a_terminal_acts_on_is_left() -> None:
    assert one_line(HOSTILE).isprintable()
    assert visible(HOSTILE).replace("\n", "").isprintable()
    assert visible("été  café — $0.41/h … 中文 می\u200cخواهم") == "été  café — $0.41/h … 中文 می\u200cخواهم"
    text = escaped(json.dumps({"a": HOSTILE, "b": "é中"}, ensure_ascii=False))
    assert text.isprintable()
    assert json.loads(text) == {"a": HOSTILE, "b": "é中"}


def test_a_table_draws_markup_and_escapes_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.table import Table
    from rich.text import Text

    from launcher.cli.output import Output

    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    table = Table()
    table.add_column("[bold]name[/bold]")
    table.add_row(f"[red]cheap[/red] {HOSTILE}")
    table.add_row(Text(f"x {HOSTILE}"))
    out = Output()
    out.say(table)
    out.say(f"[blink]said[/blink] {HOSTILE}")
    out.line(HOSTILE)
    said = shown.getvalue()
    assert not [c for c in said if not c.isprintable() and c != "\n"], said
    assert "[red]cheap[/red]" in said
    assert "[blink]said[/blink]" in said
