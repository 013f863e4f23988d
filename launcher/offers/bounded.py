"""Asking a stranger (over HTTP, or a program) without being kept waiting, fed without end, or sent elsewhere."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any

from launcher.offers.source import Context, SourceError, clean

_running: set[subprocess.Popen[bytes]] = set()
MOST_BYTES = 32_000_000  # of one answer; Vast's whole market is about 10 MB
_CLOCKS_MAY_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True)
class Reply:
    """What a server said."""

    status: int
    body: bytes
    date: datetime | None = None  # the server's own time, where it says it

    def json(self) -> Any:
        """The body as JSON; raises SourceError in words a person understands."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise SourceError("answered with JSON nested too deeply") from None
        except ValueError:  # no JSON, no UTF-8, or a number of thousands of digits
            head = self.body[:200].lstrip().lower()
            what = "a web page (HTML)" if head.startswith((b"<!doctype", b"<html")) else "no JSON"
            raise SourceError(f"answered with {what}" if self.body.strip() else "answered with nothing") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key must not follow to wherever an answer points."""

    def redirect_request(self, *_: Any) -> None:
        return None


def ask(
    ctx: Context, url: str, *, body: Any = None, headers: dict[str, str] | None = None, method: str = ""
) -> Reply:
    """The good answer of a server; raises SourceError for any other, a late, an endless or a broken one."""
    reply = exchange(ctx, url, body=body, headers=headers, method=method)
    if not 200 <= reply.status < 300:
        raise SourceError(status_words(reply.status))
    return reply


def exchange(
    ctx: Context, url: str, *, body: Any = None, headers: dict[str, str] | None = None, method: str = ""
) -> Reply:
    """Whatever a server answers, a refusal included; raises SourceError for a late, an endless or a broken one."""
    if not url.startswith(("http://", "https://")):
        raise SourceError(f"has no address to ask: {clean(url)!r}")
    held = {"Accept": "application/json", "User-Agent": "parakeet-launcher", **(headers or {})}
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        held["Content-Type"] = "application/json"
    try:
        request = urllib.request.Request(url, data, held, method=method or None)
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            answer: Any = opener.open(request, timeout=ctx.left_s)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            date = _compare_clocks(ctx, answer.headers.get("Date"))
            return Reply(answer.status, _read(ctx, answer), date)
    except TimeoutError:
        raise SourceError("did not answer in time") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise SourceError("did not answer in time") from None
        raise SourceError(f"cannot be reached: {_reason(error.reason)}") from None
    except (HTTPException, OSError, ValueError) as error:
        raise SourceError(f"broke off: {_reason(error)}") from None


def _read(ctx: Context, answer: Any) -> bytes:
    """The body, piece by piece: neither a trickle nor a flood gets past the limits."""
    pieces: list[bytes] = []
    size = 0
    while piece := answer.read1(65536):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise SourceError(f"answered with more than {MOST_BYTES / 1e6:.0f} MB")
        _ = ctx.left_s  # raises when time is up
    if answer.length:  # what it promised and did not send
        raise SourceError("broke off in the middle of its answer")
    return b"".join(pieces)


def _compare_clocks(ctx: Context, date: str | None) -> datetime | None:
    """The server's time. It is noted when its clock and ours differ: one of the two dates prices wrongly."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except (TypeError, ValueError, IndexError):
        return None
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    ahead = ctx.clock.now() - theirs
    if abs(ahead) > _CLOCKS_MAY_DIFFER:
        hours = abs(ahead).total_seconds() / 3600
        how = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
        ctx.notes.append(f"this computer's clock is {how} {'ahead of' if ahead > timedelta(0) else 'behind'} its")
    return theirs


def status_words(code: int) -> str:
    """What an answer that is no good one means, in words."""
    if code in (401, 403):
        return f"does not accept our key (HTTP {code})"
    if code == 429:
        return "asks us to come back later (HTTP 429)"
    if 300 <= code < 400:
        return f"sends us elsewhere (HTTP {code}); an address may be wrong"
    return f"answered HTTP {code}"


def _reason(error: object) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return clean(said)


def run(ctx: Context, command: list[str], env: dict[str, str] | None = None) -> Iterator[bytes]:
    """A program's lines, as they come; it and its children are ended at the deadline, or when nobody reads on.

    Raises SourceError when it cannot be started, says too much, or fails (with its last line on stderr).
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
    except OSError as error:
        raise SourceError(f"{command[0]} cannot be started: {_reason(error)}") from None
    _running.add(process)
    try:
        yield from _lines(ctx, process)
    finally:
        _end(process)
        _running.discard(process)


def _lines(ctx: Context, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout and process.stderr
    held, complaints, size = b"", b"", 0
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(ctx.left_s):
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    complaints = (complaints + piece)[-4000:]
                else:
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise SourceError(f"answered with more than {MOST_BYTES / 1e6:.0f} MB")
                    *whole, held = (held + piece).split(b"\n")
                    yield from whole
    if held:
        yield held
    try:
        code = process.wait(ctx.left_s)
    except subprocess.TimeoutExpired:
        raise SourceError("did not answer in time") from None
    if code:
        last = complaints.decode(errors="replace").strip().splitlines()[-1:]
        raise SourceError(clean(f"failed (exit {code})" + "".join(f": {line}" for line in last)))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program with everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
    ends = time.monotonic() + 1.0
    while process.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)


@atexit.register
def _end_all() -> None:
    """A launcher that is interrupted leaves no program behind: its threads end before their `finally`."""
    for process in list(_running):
        _end(process)
