"""What a process of ours does to the world, by the kernel's word (strace), held against the failpoints it passed.

strace and not Python's own audit events: those do not see what a library written in C does (SQLite writes the ledger,
OpenSSL and libc open files), and what a library adds later must not go unseen either. The failpoints' log is one
write each, so that the trace itself says between which two of them a system call lies. A call is within an effect
when the thread that makes it has passed `.before` and not yet `.after`; a thread that never passes any (paramiko's
readers, fabric's workers) works for the main thread, and is judged by where that one is. What a child process does is
the effect in which it was started. Of what is sent on a connection that stands, ssh's own words are left out by their
length: keep-alive, a session opened ahead, or one that ends when Python collects its object, wherever that is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STRACE = shutil.which("strace")
_FILES = ("openat", "open", "creat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat",
          "rmdir", "link", "linkat", "symlink", "symlinkat", "truncate", "chmod", "fchmod", "fchmodat")  # fmt: skip
_SIGNALS = ("kill", "tkill", "tgkill")
_SENDS = ("connect", "sendto", "sendmsg", "sendmmsg")
_BIRTHS = ("clone", "clone3", "fork", "vfork")
TRACED = (*_FILES, *_SIGNALS, *_SENDS, *_BIRTHS, "execve", "write")
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_CHILD = re.compile(r"\) += (\d+)")
_LENGTH = re.compile(r'"(?:\.\.\.)?, (\d+), \w')
LEAST_REQUEST = 200  # bytes: a request carries a program's text, or HTTP's headers
_MARK = re.compile(r'"\S+ \d+ \d+ ([\w.]+)\.(before|after)\\n"')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)")


@dataclass(frozen=True)
class Act:
    """A system call that changes something outside of the process, or speaks to somebody."""

    call: str
    what: str  # its path, address or signal
    effect: str  # the innermost effect that it lies in; empty: none


@dataclass
class _Thread:
    stack: list[str] = field(default_factory=list)
    marked: bool = False


def trace(command: Sequence[str], env: Mapping[str, str], folder: Path, cwd: Path) -> tuple[int, list[Act]]:
    """Run a command under strace with its failpoints logged: its exit code, and all that it did."""
    assert STRACE, "strace is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / "strace", folder / "failpoints"
    done = subprocess.run(
        [STRACE, "-f", "-yy", "-s", "300", "--seccomp-bpf", "-e", f"trace={','.join(TRACED)}", "-e", "signal=none",
         "-o", str(out), *command],
        env={**env, "LAUNCHER_FAILPOINT_LOG": str(log), "PYTHONDONTWRITEBYTECODE": "1"}, cwd=cwd, check=False,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=1200,
    )  # fmt: skip
    with out.open(encoding="utf-8", errors="replace") as lines:
        return done.returncode, list(read(lines, str(log)))


def read(lines: Iterable[str], log: str) -> Iterator[Act]:
    """The acts of the first process of a trace and its threads; of its children only that they were started."""
    rows = [(int(found[1]), found[2], found[3], found[4]) for found in map(_LINE.match, lines) if found]
    first = rows[0][0]
    ours = _threads_of(first, rows)
    threads = {tid: _Thread() for tid in ours}
    for tid, resumed, called, rest in rows:
        thread = threads.get(tid)
        if thread is None:
            continue
        if (resumed or called) in _BIRTHS:
            child = _CHILD.search(rest)
            if child and int(child[1]) not in ours:
                yield _act(threads, first, tid, "start", "a process")
        elif called == "write":
            mark = _MARK.search(rest) if log in rest else None
            if mark:
                _pass(thread, mark[1], mark[2])
        elif called and called != "execve":  # a process that becomes another was started by this one, above
            what = _outside(called, rest)
            length = _LENGTH.search(rest)
            if called == "sendto" and length and int(length[1]) < LEAST_REQUEST:
                continue
            if what and what != log:
                yield _act(threads, first, tid, called, what)


def _threads_of(first: int, rows: Iterable[tuple[int, str | None, str | None, str]]) -> set[int]:
    """The threads of the first process, itself included, whenever each was seen first."""
    ours, sharing = {first}, set[int]()
    for tid, resumed, called, rest in rows:
        if tid not in ours or (resumed or called) not in _BIRTHS:
            continue
        if called:
            sharing.discard(tid)
            if "CLONE_THREAD" in rest:
                sharing.add(tid)
        child = _CHILD.search(rest)
        if child and tid in sharing:
            ours.add(int(child[1]))
    return ours


def _pass(thread: _Thread, name: str, side: str) -> None:
    thread.marked = True
    if side == "before":
        thread.stack.append(name)
    elif name in thread.stack:
        while thread.stack.pop() != name:
            pass


def _act(threads: dict[int, _Thread], first: int, tid: int, call: str, what: str) -> Act:
    stack = threads[tid].stack if threads[tid].marked else threads[first].stack
    return Act(call, what, stack[-1] if stack else "")


def _outside(call: str, rest: str) -> str:
    """What a call acts on where that is outside of the process; else empty."""
    quoted = _QUOTED.findall(rest)
    if call in ("openat", "open", "creat"):
        return quoted[0] if quoted and (call == "creat" or _WRITING.search(rest)) else ""
    if call == "fchmod":
        return (re.search(r"<(.*?)>", rest) or [""])[0]
    if call in _FILES:
        return quoted[-1] if quoted else rest[:80]
    if call in _SENDS:
        if call == "connect":
            net = re.search(r"AF_INET6?, .*?htons\((\d+)\).*?\"([\w.:]+)\"", rest)
            return f"{net[2]}:{net[1]}" if net else ""
        peer = re.search(r"<(?:TCP|UDP)[^>]*->([\w.:\[\]]+)\]?>", rest)
        return peer[1] if peer else ""
    return rest[:80]


def outside_of_effects(acts: Iterable[Act], allowed: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """The acts in no effect, but for those whose object matches an allowed pattern (pattern -> why)."""
    patterns = [re.compile(pattern) for pattern in allowed]
    return Counter(
        (act.call, act.what) for act in acts
        if not act.effect and not any(pattern.search(act.what) for pattern in patterns)
    )  # fmt: skip
