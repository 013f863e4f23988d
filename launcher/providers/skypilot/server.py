"""A lease's own SkyPilot API server: started, asked, and held to its word that it uploads nothing."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.providers.base import ProviderError
from launcher.providers.skypilot.lodging import Lodging

VERSION = "0.14.1"
START_S = 180.0  # 5 to 8 s on a quiet machine
_PORTS = 20  # tried for one whose queues' port is free, too
STARTS = 3  # of which the port of each may be taken by another process meanwhile
_ANSWER_S = 15.0
_MOST_BYTES = 4_000_000
_ATTEMPT = re.compile(r"run_instances error: (.*)")  # sky/provision/*/instance.py, at each attempt
#: sky/server/server.py and sky/server/requests/queues: of the server's port, or of the one that its queues take.
_TAKEN = re.compile(
    r"[Pp]ort \d+ is (already in use|not available)|address already in use|Queue manager process exited unexpectedly"
)
ERRAND = Path(__file__).with_name("errand.py")


class _PortTakenError(ProviderError):
    """Between the choice of a port and the server's start another process took it (exit 5)."""


class NotInForceError(ProviderError):
    """The server did not prove that it uploads no credential: nothing may be launched through it (exit 5)."""


class Server:
    """The API server of one lodging, on a port of its own on the loopback address.

    As any SkyPilot server without accounts, it answers whoever is on this machine.
    """

    def __init__(self, lodging: Lodging, clock: Clock) -> None:
        self._lodging, self._clock = lodging, clock

    def start(self) -> None:
        """Start it where it does not answer, and wait until it does; raises ProviderError when it will not."""
        if self.answers():
            return
        for attempt in range(STARTS):
            try:
                self._start()
            except _PortTakenError:
                if attempt + 1 == STARTS:
                    raise
            else:
                return

    @effect("skypilot.serve")
    def _start(self) -> None:
        """Once, on a port that was free just now; it takes the server seconds to come for it."""
        self._lodging.end()
        self._lodging.note(port=_free_port())
        folder = self._lodging.folder
        port = str(self._lodging.facts()["port"])
        env = self._lodging.environment() | {"IS_SKYPILOT_SERVER": "true"}
        with (folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "sky.server.server", "--host=127.0.0.1", f"--port={port}"],
                cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        ends = self._clock.monotonic() + START_S
        while not self.answers():
            if process.poll() is not None or self._clock.monotonic() > ends:
                said = (folder / "server.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                self._lodging.end()
                last = said[-1][-300:] if said else "nothing"
                kind = _PortTakenError if _TAKEN.search(last) else ProviderError
                raise kind(f"SkyPilot's API server does not start; it said last: {last}")
            self._clock.sleep(0.25)

    def answers(self) -> bool:
        """Whether it is there and healthy."""
        try:
            return bool(self._ask("/api/health").get("status") == "healthy")
        except ProviderError:
            return False

    def prove(self) -> None:
        """Hold it to SkyPilot's version and to our plugin, in force; raises NotInForceError.

        The token is in this lodging's private files only: what answers with it is the server that read them.
        """
        version = str(self._ask("/api/health").get("version"))
        if version != VERSION:
            raise NotInForceError(f"SkyPilot's server is {version}; what keeps keys off a machine is for {VERSION}.")
        rows = self._ask("/api/plugins").get("plugins")
        told = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        ours = next((str(row.get("version")) for row in told if row.get("name") == "nothing-uploaded"), None)
        if ours is None or ours != self._lodging.facts().get("token"):
            why = "the plugin is not loaded" if ours is None else ours[:200]
            raise NotInForceError(
                f"SkyPilot would send the account's keys to the machine ({why}): nothing was rented.",
                fix="Rent directly (--provider runpod) or report this.",
            )

    def state_of(self, request: str) -> str | None:
        """PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED; None when the server is gone, or does not know it."""
        query = urllib.parse.urlencode([("request_ids", request), ("all_status", "true"), ("fields", "status"),
                                        ("fields", "request_id")])  # fmt: skip
        try:
            rows = self._ask(f"/api/status?{query}")
        except ProviderError:
            return None
        return next((str(row.get("status")) for row in rows if isinstance(row, dict)), None)

    def reasons(self, request: str) -> list[str]:
        """What the provider said to each attempt of a launch: SkyPilot leaves it out of the error that it raises."""
        log = self._lodging.folder / ".sky" / "api_server" / "request_logs" / f"{request}.log"
        try:
            with log.open("rb") as file:
                text = file.read(_MOST_BYTES).decode(errors="replace")
        except OSError:
            return []
        return [found.strip() for found in _ATTEMPT.findall(text)]

    @effect("skypilot.ask")
    def send(self, verb: str, seconds: float, **how: Any) -> dict[str, Any]:
        """An errand's answer, with `error` and `words` where SkyPilot raised; or ProviderError."""
        try:
            done = subprocess.run(
                [sys.executable, str(ERRAND)], input=json.dumps({"verb": verb, **how}), text=True, check=False,
                cwd=self._lodging.folder, env=self._lodging.environment(), capture_output=True, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ProviderError(f"SkyPilot did not finish {verb!r} within {seconds:.0f} s.") from None
        try:
            answer = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise ProviderError(f"SkyPilot said nothing to {verb!r}: {done.stderr.strip()[-300:]}") from None
        return answer if isinstance(answer, dict) else {}

    def is_asked(self) -> bool:
        """Whether an errand to it is under way, of whatever process."""
        import psutil

        for process in self._lodging.processes():
            with suppress(psutil.Error):
                if str(ERRAND) in process.cmdline():
                    return True
        return False

    def _ask(self, path: str) -> Any:
        """The JSON at a path; never through a proxy. Raises ProviderError."""
        port = self._lodging.facts().get("port")
        if not isinstance(port, int):
            raise ProviderError("SkyPilot's API server has not been started.")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}{path}", timeout=_ANSWER_S) as answer:
                return json.loads(answer.read(_MOST_BYTES))
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise ProviderError(f"SkyPilot's API server does not answer: {error}") from None


def _free_port() -> int:
    """A port that is free now, and with it the one that SkyPilot's queues will take."""
    for _ in range(_PORTS):
        port = _any_port()
        with suppress(OSError), socket.socket() as held:
            held.bind(("127.0.0.1", queues_port(port)))
            return port
    raise ProviderError("no two ports are free for SkyPilot's API server and its queues.")


def queues_port(port: int) -> int:
    """Where the queues of a server at this port are, which follows from it.

    As get_queue_manager_port in sky/server/requests/queues/mp_queue.py of 0.14.1 has it.
    """
    return 50000 + (50011 - 50000 + port - 46580) % 10000


def _any_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
