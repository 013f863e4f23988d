"""rsync over this lease's ssh: one attempt, and what its end means."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.failpoints import effect
from launcher.hosts.base import HostError
from launcher.hosts.lease_keys import LeaseKeys
from launcher.hosts.link import Lost, Patience
from launcher.pulse import moved

_WORD_S = 30.0  # between two words that a transfer is waited for
_Done = subprocess.CompletedProcess[bytes]
# rsync(1), EXIT VALUES, and ssh's own 255: the line, not the data. 20: killed there by a signal.
_LINE = {5, 10, 12, 20, 30, 35, 255, -13}


@effect("host.rsync")
def rsync(
    keys: LeaseKeys, patience: Patience, arguments: Sequence[str], within_s: float, over: Sequence[str] = ()
) -> None:
    """One transfer; `over`: ssh's options for a connection that stands, plain words.

    Raises Lost when the line dropped, HostError when it cannot succeed however often it is tried.
    """
    # A dead line is ssh's to notice (ServerAliveInterval); rsync may be silent for a while, comparing what is there.
    ssh, silence_s = " ".join(["ssh -F ssh_config", *over]), max(1, round(4 * patience.stall_s))
    command = ["rsync", f"--timeout={silence_s}", "-e", ssh, *arguments]
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    try:
        done = _run(command, keys.folder, env, max(1.0, within_s))
    except FileNotFoundError:
        raise HostError("rsync is not installed here.", fix="Install rsync and an OpenSSH client.") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"a transfer did not end within {patience.transfer_s:.0f} s") from None
    if done.returncode == 0:
        return
    said = " ".join(done.stderr.decode(errors="replace").split())[-500:]
    if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
        raise keys.changed("the machine")
    if done.returncode in _LINE:
        raise Lost(said or f"rsync ended with {done.returncode}")
    raise HostError(f"the transfer failed (rsync {done.returncode}): {said}")


def _run(command: Sequence[str], folder: Path, env: Mapping[str, str], within_s: float) -> _Done:
    """To its end, hours away perhaps: as subprocess.run, and with a word now and then that we wait for it."""
    ends = time.monotonic() + within_s
    with subprocess.Popen(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            while True:
                left = ends - time.monotonic()
                try:
                    _, stderr = process.communicate(timeout=max(0.0, min(left, _WORD_S)))
                except subprocess.TimeoutExpired:
                    if left <= 0:
                        raise
                    moved()
                else:
                    return subprocess.CompletedProcess(command, process.returncode, b"", stderr)
        except BaseException:  # a stop request, too: it is not left running
            process.kill()
            raise
