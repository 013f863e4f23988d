"""Planted keys that provider and recipe echo back: after a rented run none is in any file, word, argv or URL."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from door import Asked, Door, door
from rented import RentedGround

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
CLOUD = ("--seed", "23")
YES = ("--confirm", "YES", "--max-cost", "3")
#: RunPod is asked as Vast is, over HTTP with the key in a header: with `make fuzz` only.
PROVIDERS = ["vast", "brev", *(["runpod"] if os.environ.get("LAUNCHER_TEST_EXAMPLES") else [])]
PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret/0123456789", "HF_TOKEN": "hf_planted0123456789abcd",
    "LAMBDA_API_KEY": "planted-lambda-0123456789", "OUR_OWN_TOKEN": "planted-own-0123456789",
}  # fmt: skip


class Watched:
    """What every process on this machine (the rented ones are in it) has as its command line, while a run runs."""

    def __init__(self, home: Path) -> None:
        self._home, self._over = home, threading.Event()
        self.argv: set[bytes] = set()
        self.private: set[str] = set()  # lines of the leases' private keys, which are gone afterwards

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self.argv.add(entry.read_bytes())
            for key in self._home.glob("runs/*/keys/*/key"):
                with suppress(OSError):
                    self.private.update(key.read_text().splitlines()[1:-1])


def held_in(secrets: list[str], text: bytes) -> list[str]:
    """Which of the secrets are in it: as they are, in JSON, in base64."""
    forms = {secret: {secret.encode(), json.dumps(secret)[1:-1].encode(),
                      base64.b64encode(secret.encode()).rstrip(b"=")} for secret in secrets}  # fmt: skip
    return [secret for secret, held in forms.items() if any(form in text for form in held)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_planted_key_is_left_or_shown_anywhere(ground: RentedGround, provider: str, tmp_path: Path) -> None:
    account = ground.cloud.env[f"{provider.upper()}_API_KEY"]
    secrets = [*PLANTED.values(), *(value for name, value in ground.cloud.env.items() if name.endswith("_KEY"))]
    everything = " ".join(secrets)
    job = ground.job(provider, finetune={"exit": 1, "say": "failed with ", "leak": everything[::-1], "at": 2})
    with door(ground.cloud) as held:
        held.instead = echo(held, everything)
        env = {**PLANTED, **held.env, "HOME": str(tmp_path)}
        watched = Watched(ground.launcher.home)
        with watched.watching():
            code, outcome, err = ground.run("run", job, *YES, **env)
    assert (code, outcome["state"], outcome["released"]) == (5, "failed", True), (outcome, err)
    assert "failed with ***" in outcome["reason"]
    assert "***" in err
    assert not [row for row in ground.cloud.bill()["machines"] if row["state"] != "terminated"]
    said = [json.dumps(outcome), err]
    said += map(str, ground.run("reap", **env)[1:])
    for verb in (("logs", outcome["run"]), ("attach", outcome["run"])):
        said += ground.launcher.start(*verb, **{**ground.env, **env}).communicate(timeout=100)
    assert watched.private
    assert len(watched.argv) > 20
    secrets += sorted(watched.private)[1:]  # the last line is short, and may be in anything
    for words in said:
        assert not held_in(secrets, words.encode()), words
    for path in ground.launcher.home.rglob("*"):
        if path.is_file() and ground.launcher.home in path.resolve().parents:
            assert not held_in(secrets, path.read_bytes()), path
    for argv in watched.argv:
        assert not held_in(secrets, argv), argv
    assert [asked for asked in held.asked if asked.token == account], "the door was never asked"
    for asked in held.asked:
        assert not held_in(secrets, asked.path.encode()), asked.path


def echo(held: Door, everything: str) -> Callable[[Asked], tuple[int, bytes] | None]:
    """Vast's first create is refused in words that hold every key; so are two questions once a machine is there."""
    struck: list[Asked] = []

    def answer(asked: Asked) -> tuple[int, bytes] | None:
        words = f"no_such_ask: no longer available to {asked.token}, {everything}"
        refusal = json.dumps({"success": False, "error": "no_such_ask", "msg": words, "errors": [{"message": words}]})
        if asked.path.startswith("/api/v0/asks/") and not struck:
            struck.append(asked)
            return 400, refusal.encode()
        there = any(is_create(one) and 200 <= one.status < 300 for one in held.asked)
        if there and len(struck) < 3 and not is_create(asked):
            struck.append(asked)
            return 500, refusal.encode()
        return None

    return answer


def is_create(asked: Asked) -> bool:
    """Whether a question asks for a machine."""
    return asked.path.startswith("/api/v0/asks/") or b"podFindAndDeploy" in asked.body or (
        asked.method == "POST" and asked.path.startswith("/brev/instances"))  # fmt: skip
