"""A lease's own ssh keys: a fresh pair, the machine's pinned key, and a configuration that reads nothing else.

key, key.pub   ed25519, made for this lease, removed with it
node-N/        the same pair for each further machine of the lease, with that machine's own known_hosts and ssh_config
known_hosts    one line, once the machine's key is known: from the provider, or from the first contact
ssh_config     for OpenSSH (rsync speaks through it): `cd FOLDER && ssh -F ssh_config lease`. Names in it are
               relative, so that no path, whatever is in it, has to be quoted twice.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.failpoints import effect
from launcher.hosts.base import HostKeyChangedError
from launcher.redact import learn_key
from recipes.contract import write_atomic

ALIAS = "lease"
NODE = "node-"
_KEY_LINE = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) ([A-Za-z0-9+/]+=*)")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*|::[A-Za-z0-9:.]*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Address:
    """Where a machine's sshd listens. Raises ValueError for a name that could mean anything else to a program."""

    host: str
    port: int = 22
    user: str = "root"

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host) or not _USER.fullmatch(self.user) or not 0 < self.port < 65536:
            raise ValueError(f"not an ssh address: {self.user!r} at {self.host!r}, port {self.port!r}")

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


class LeaseKeys:
    """The folder of one lease's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.private = self.folder / "key"

    @classmethod
    @effect("keys.make")
    def create(cls, folder: Path, comment: str = "") -> LeaseKeys:
        """A fresh pair in `folder`; one that is there already is this lease's, and is kept."""
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        keys = cls(folder)
        keys.folder.mkdir(parents=True, exist_ok=True)
        keys.folder.chmod(0o700)
        if keys.private.exists() and keys.private.with_suffix(".pub").exists():
            learn_key(keys.private)
            return keys
        pair = Ed25519PrivateKey.generate()
        secret = pair.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption())
        public = pair.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH).decode()
        keys.private.unlink(missing_ok=True)
        handle = os.open(keys.private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
        learn_key(keys.private)
        write_atomic(keys.private.with_suffix(".pub"), " ".join([public, *comment.split()[:1]]) + "\n")
        return keys

    @effect("keys.copy")
    def of_node(self, rank: int) -> LeaseKeys:
        """This lease's pair as it is used for its machine number `rank`, whose own key is pinned beside it.

        Number 0 is the first machine, whose files lie in the folder itself.
        """
        if rank == 0:
            return self
        keys = LeaseKeys(self.folder / f"{NODE}{rank}")
        keys.folder.mkdir(mode=0o700, exist_ok=True)
        if not (keys.private.exists() and keys.private.with_suffix(".pub").exists()):
            keys.private.unlink(missing_ok=True)
            handle = os.open(keys.private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(self.private.read_bytes())
            write_atomic(keys.private.with_suffix(".pub"), self.public + "\n")
        return keys

    @property
    def public(self) -> str:
        """The line that goes into the machine's authorized_keys."""
        return self.private.with_suffix(".pub").read_text(encoding="utf-8").strip()

    @property
    def pinned(self) -> str | None:
        """The machine's key as `type base64`, or None before the first contact."""
        try:
            return (self.folder / "known_hosts").read_text(encoding="utf-8").strip().partition(" ")[2]
        except FileNotFoundError:
            return None

    @effect("keys.pin")
    def pin(self, line: str) -> None:
        """Hold the machine to this key from now on (`type base64`, a comment after it is left out).

        Raises HostKeyChangedError when another is pinned, ValueError when it is not a host key.
        """
        found = _KEY_LINE.match(line.strip())
        if not found:
            raise ValueError(f"not a host key: {line[:80]!r}")
        part = self.folder / f".known_hosts.{os.getpid()}"
        part.write_text(f"{ALIAS} {found[0]}\n", encoding="utf-8")
        with suppress(FileExistsError):  # of two that learn it at once, the first one counts
            os.link(part, self.folder / "known_hosts")
        part.unlink()
        if self.pinned != found[0]:
            raise self.changed("the machine", found[0])

    def changed(self, where: object, shown: str = "") -> HostKeyChangedError:
        """The error for a machine that shows another key than the pinned one."""
        now = f", and now shows {fingerprint(shown)}" if shown else ", and now shows another"
        return HostKeyChangedError(
            f"{where} is not the machine that was rented: its ssh key was {fingerprint(self.pinned or '')}{now}",
            fix="Nothing more is sent to it. If the provider has replaced the machine, rent anew.",
        )

    @effect("keys.config")
    def write_config(self, address: Address, connect_s: float, stall_s: float) -> None:
        """Write `ssh_config`: this key alone, this machine's key alone, and never a question."""
        lines = {
            "HostName": address.host, "Port": address.port, "User": address.user, "HostKeyAlias": ALIAS,
            "IdentityFile": "key", "IdentitiesOnly": "yes", "IdentityAgent": "none", "ForwardAgent": "no",
            "UserKnownHostsFile": "known_hosts", "GlobalKnownHostsFile": "/dev/null", "UpdateHostKeys": "no",
            "StrictHostKeyChecking": "yes", "VerifyHostKeyDNS": "no", "CheckHostIP": "no",
            "BatchMode": "yes", "PreferredAuthentications": "publickey", "PubkeyAuthentication": "yes",
            "ControlMaster": "no", "ControlPath": "none", "ClearAllForwardings": "yes", "ForwardX11": "no",
            "ConnectTimeout": max(1, round(connect_s)), "ConnectionAttempts": 1, "TCPKeepAlive": "yes",
            "ServerAliveInterval": max(1, round(stall_s / 3)), "ServerAliveCountMax": 3,
            "Compression": "no", "LogLevel": "ERROR", "RequestTTY": "no",
        }  # fmt: skip
        text = "".join(f"  {name} {value}\n" for name, value in lines.items())
        write_atomic(self.folder / "ssh_config", f"Host {ALIAS}\n{text}")

    @effect("keys.remove")
    def destroy(self) -> None:
        """Remove the pair: the lease has ended, nobody needs to get in again."""
        for name in ("key", "key.pub", "ssh_config"):
            (self.folder / name).unlink(missing_ok=True)
        for socket in self.folder.glob("shared-*"):  # of a process that was killed
            socket.unlink(missing_ok=True)
        for node in self.folder.glob(f"{NODE}*"):
            LeaseKeys(node).destroy()


def fingerprint(line: str) -> str:
    """SHA256:… of a key's line, as ssh-keygen -l says it."""
    import base64
    import hashlib

    try:
        raw = base64.b64decode(line.split()[1], validate=True)
    except (IndexError, ValueError):
        return "an unknown key"
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")
