"""The `brev` command, asked in a home of its own: bounded in time and output, with the user's login and nothing else.

Read in brev-cli v0.6.330 (July 2026). The command reads and writes its user's home: ~/.brev/credentials.json (renewed
tokens are written back), ~/.brev/active_org.json, and with `refresh` ~/.ssh/config and the key of all instances,
~/.brev/brev.pem. So each lease has a home of its own under the launcher's:

.brev/credentials.json   a link to the user's own, so that a token renewed here is not lost there; or, where
                         BREV_API_KEY and BREV_ORG_ID are set (CI), a file with just these
.brev/active_org.json    the organization that the lease was rented in: `brev set` elsewhere does not move it
.brev/brev.pem           never used by us, and removed again after each `refresh`

Standard input is always a null device or what we mean to say: `create` and `delete` read more names from a pipe.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.hosts.lease_keys import Address
from launcher.offers.source import clean
from launcher.providers.base import ProviderError
from launcher.redact import HIDDEN, redact
from recipes.contract import write_atomic

PROGRAM = "brev"
ANSWER_S = 60.0
CREATE_S = 180.0
MOST_BYTES = 4_000_000
PAUSE_S = 1.0  # between two questions after an empty list
SAID, MOST_ASKED = 3, 9  # times in a row that such a list is to be the same, and of how many
_PASSED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy",
           "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # fmt: skip
_HIDE = re.compile(r"eyJ[\w.-]{20,}|bak-[\w-]+")  # tokens, should the command ever say one


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Why it failed, for a person: its last words, on one line and without any token."""
        said = [line for line in self.err.splitlines() if line.strip()] or [f"exit {self.code}"]
        told = [line for line in said if re.search(r"Failed:|Skipping:|rror", line)] or said
        return clean(redact(_HIDE.sub(HIDDEN, told[-1]))).rstrip(".")


@dataclass(frozen=True)
class Org:
    """An organization at Brev: instances belong to one."""

    id: str
    name: str = ""


class BrevCommand:
    """The command in one lease's home, which is made when it is first used."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.org = ""  # whose instances were listed last

    @effect("brev.home")
    def set_up(self, org: Org | None) -> None:
        """Make the home: the login linked, the organization pinned (the user's active one where none is given)."""
        folder = self.home / ".brev"
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self.home, folder):
            path.chmod(0o700)
        credentials, users = folder / "credentials.json", user_folder()
        key = os.environ.get("BREV_API_KEY")
        if key:
            held = {"access_token": "", "refresh_token": "", "api_key": key}
            write_private(credentials, json.dumps({**held, "api_key_org_id": os.environ.get("BREV_ORG_ID", "")}))
        elif not credentials.is_symlink():
            credentials.unlink(missing_ok=True)
            credentials.symlink_to(users / "credentials.json")
        pinned = folder / "active_org.json"
        if org is not None:
            write_atomic(pinned, json.dumps({"id": org.id, "name": org.name}))
        elif (users / "active_org.json").is_file():
            write_atomic(pinned, (users / "active_org.json").read_text(encoding="utf-8"))
        else:
            pinned.unlink(missing_ok=True)
        # No words for newcomers among the answers.
        write_atomic(folder / "onboarding_step.json", json.dumps({"step": 1, "hasRunBrevShell": True}))

    @effect("provider.request")
    def ask(self, *words: str, stdin: str | None = None, seconds: float = ANSWER_S) -> Done:
        """Run the command to its end; raises ProviderError when it cannot start, hangs, or says too much."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise ProviderError("the brev command is not installed.", fix="Install NVIDIA's brev command line.")
        env = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith("BREV_")}
        env |= {"HOME": str(self.home), "DO_NOT_TRACK": "1"}
        with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            told.write((stdin or "").encode())
            told.seek(0)
            process = subprocess.Popen(
                [program, *words], stdin=told if stdin is not None else subprocess.DEVNULL, stdout=out, stderr=err,
                env=env, cwd=self.home, start_new_session=True,
            )  # fmt: skip
            ends, flood = time.monotonic() + seconds, False
            try:
                while process.poll() is None and time.monotonic() < ends and not flood:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.05)
                    flood = any(os.fstat(file.fileno()).st_size > MOST_BYTES for file in (out, err))
                code = process.poll()
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)  # it and what it started
                    process.wait()
            if flood:
                raise ProviderError(f"brev {words[0]} said more than {MOST_BYTES / 1e6:.0f} MB.")
            if code is None:
                raise ProviderError(f"brev {words[0]} did not end within {seconds:.0f} s.")
            for file in (out, err):
                file.seek(0)
            said, complained = (file.read(MOST_BYTES).decode(errors="replace") for file in (out, err))
            return Done(code, said, complained)

    def ask_json(self, *words: str) -> Any:
        """What the command says as JSON; raises ProviderError for a failure and for anything else than whole JSON."""
        done = self.ask(*words)
        if done.code:
            raise ProviderError(f"brev {' '.join(words[:2])} failed: {done.words}.")
        starts = [at for at in (done.out.find("{"), done.out.find("[")) if at >= 0]  # a notice may stand before it
        try:
            return json.loads(done.out[min(starts) :] if starts else done.out)
        except (ValueError, RecursionError):
            raise ProviderError(f"brev {' '.join(words[:2])} answered without whole JSON.") from None

    def orgs(self) -> tuple[Org | None, list[Org]]:
        """The organization that is asked, and all that this login sees. Raises ProviderError.

        A login by API key is bound to one organization and may not list any: it is the one that it was made for.
        """
        bound = self._bound_org()
        if bound is not None:
            return bound, [bound]
        rows = self.ask_json("ls", "orgs", "--json")
        if not isinstance(rows, list):
            raise ProviderError("brev did not list the organizations.")
        found, active = [], []
        for row in rows:
            if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not row["id"]:
                raise ProviderError("brev listed an organization without an id.")
            found.append(Org(row["id"], str(row.get("name") or "")))
            active += [found[-1]] if row.get("is_active") is True else []
        return (active[0] if len(active) == 1 else None), found

    def instances(self) -> list[dict[str, Any]]:
        """Every instance of the organization, everybody's; raises ProviderError for an answer that is not whole."""
        held = self.ask_json("ls", "--json", "--all")
        if not isinstance(held, dict) or "workspaces" not in held:
            raise ProviderError("brev did not list the instances.")
        rows = held["workspaces"] if held["workspaces"] is not None else []  # Go's empty list
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ProviderError("brev did not list the instances.")
        if not all(isinstance(row.get(key), str) and row[key] for row in rows for key in ("name", "id", "status")):
            raise ProviderError("brev listed an instance without a name, an id or a status.")
        return rows

    def settled_instances(self, clock: Clock) -> list[dict[str, Any]]:
        """A list that is not empty; or, once an empty one was seen, one that names the same some times in a row.

        An empty list may be a mistake, and the one after it a part of the truth; or another run has just begun.
        Raises ProviderError for a list that does not stay the same, too.
        """
        rows = self.instances()
        if rows:
            return rows
        same = 1
        for _ in range(MOST_ASKED - 1):
            clock.sleep(PAUSE_S)
            before, rows = rows, self.instances()
            same = same + 1 if _ids(rows) == _ids(before) else 1
            if same == SAID:
                return rows
        raise ProviderError(f"Brev's list of instances did not stay the same in {MOST_ASKED} answers.")

    def address_of(self, label: str) -> Address | None:
        """Where an instance's ssh answers, by what `brev refresh` writes; None while it is not in it.

        Raises ProviderError when the command fails, ValueError for an instance that only Brev's proxy reaches.
        """
        folder = self.home / ".brev"
        try:
            done = self.ask("refresh")
            if done.code:
                raise ProviderError(f"brev refresh failed: {done.words}.")
            text = (folder / "ssh_config").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        finally:
            (folder / "brev.pem").unlink(missing_ok=True)
        return address_in(text, label)

    def _bound_org(self) -> Org | None:
        try:
            held = json.loads((self.home / ".brev" / "credentials.json").read_text(encoding="utf-8"))
            key, org = str(held.get("api_key") or ""), str(held.get("api_key_org_id") or "")
        except (OSError, ValueError, AttributeError):
            return None
        return Org(org) if key.startswith("bak-") and org else None


def _ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


def address_in(config: str, label: str) -> Address | None:
    """One host's address in an OpenSSH configuration as brev-cli writes it; see `BrevCommand.address_of`."""
    held: dict[str, str] = {}
    inside = False
    for line in config.splitlines():
        name, _, value = line.strip().partition(" ")
        if name.lower() == "host":
            inside = value.split() == [label]
        elif inside and name:
            held.setdefault(name.lower(), value.strip())
    if not held:
        return None
    if "hostname" not in held:
        raise ValueError("it is reached through Brev's proxy alone")
    if held["hostname"] in ("", "-"):  # brev-cli's word for: none yet
        return None
    return Address(held["hostname"], int(held.get("port", "22")), held.get("user", "ubuntu"))


def user_folder() -> Path:
    """The user's own ~/.brev, which is read (and by `brev` itself: its tokens renewed), and otherwise left alone."""
    return Path.home() / ".brev"


def has_login() -> bool:
    """Whether there is a login at all; whether Brev accepts it, only Brev can say."""
    return bool(os.environ.get("BREV_API_KEY")) or (user_folder() / "credentials.json").is_file()


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, from its first byte on."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)
