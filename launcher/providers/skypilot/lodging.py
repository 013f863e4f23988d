"""The private home of one lease's SkyPilot: one provider's key, the lease's own ssh pair, its API server's state.

HOME/skypilot/LABEL/   mode 0700, removed with the lease; what is shared between leases lies beside it:
HOME/skypilot/.shared/ SkyPilot's price catalogs and its wheel, which hold nothing of anybody's

Everything that belongs to a lease's SkyPilot runs with this folder as $HOME and in it, and that is how it is found
again: also by a process that did not start it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.clock import Clock
from launcher.failpoints import effect
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.providers.skypilot.clouds import CLOUDS
from recipes.contract import write_atomic, write_json

PLUGIN = Path(__file__).with_name("nothing_uploaded.py")
#: What a SkyPilot of ours may see of the caller's environment: how to speak and to reach the world, and no key.
PASSED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
          "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")  # fmt: skip


class Lodging:
    """The folder of one lease, and all that runs in it."""

    def __init__(self, home: Home, cloud: str, label: str, clock: Clock) -> None:
        self.cloud, self.label, self._clock = cloud, label, clock
        self.folder = home.root.absolute() / "skypilot" / label
        self._shared = self.folder.parent / ".shared"

    @property
    def exists(self) -> bool:
        """Whether this lease has one here."""
        return (self.folder / "lodging.json").exists()

    def facts(self) -> dict[str, Any]:
        """What is noted: `port`, `token`, then `request`, then `up`."""
        try:
            held = json.loads((self.folder / "lodging.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}

    @effect("skypilot.note")
    def note(self, **facts: Any) -> None:
        """Keep facts beside those that are noted."""
        write_json(self.folder / "lodging.json", {**self.facts(), **facts})

    @property
    def user(self) -> str:
        """SkyPilot's user hash: one a lease, so that its paths outside of the home are the lease's own, too."""
        return hashlib.sha256(self.label.encode()).hexdigest()[:8]

    @effect("skypilot.prepare")
    def prepare(self, keys: LeaseKeys) -> None:
        """Make the home; raises NotAskedError when there is no key of the cloud."""
        contents = CLOUDS[self.cloud].contents()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in ("catalogs", "wheels"):
            (self._shared / name).mkdir(parents=True, exist_ok=True)
        for name in (".sky", "tmp", "plugin"):
            (self.folder / name).mkdir(exist_ok=True)
        for name in ("catalogs", "wheels"):
            with suppress(FileExistsError):
                (self.folder / ".sky" / name).symlink_to(self._shared / name, target_is_directory=True)
        for name, text in contents.items():
            self._secret(name, text)
        # SkyPilot keeps one pair for each user at this path (sky/utils/auth_utils.py); found there, it is used.
        pair = f".sky/clients/{self.user}/ssh/sky-key"
        self._secret(pair, keys.private.read_text(encoding="utf-8"))
        write_atomic(self.folder / f"{pair}.pub", keys.public + "\n")
        token = self.facts().get("token") or secrets.token_hex(16)
        shutil.copyfile(PLUGIN, self.folder / "plugin" / PLUGIN.name)
        plugin = {"class": "nothing_uploaded.NoCredentials", "parameters": {"token": token}}
        self._secret(".sky/plugins.yaml", json.dumps({"plugins": [plugin]}))  # JSON is YAML
        settings = {"admin_policy": "nothing_uploaded.OnlyBare", "allowed_clouds": [self.cloud]}
        write_json(self.folder / ".sky" / "config.yaml", settings)
        write_atomic(self.folder / ".sky" / "user_hash", self.user)
        self.note(token=token, cloud=self.cloud)

    def _secret(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    def environment(self) -> dict[str, str]:
        """All that SkyPilot is told by environment."""
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        redirect = CLOUDS[self.cloud].redirect
        if redirect and os.environ.get(redirect):
            env[redirect] = os.environ[redirect]
        port = str(self.facts().get("port", ""))
        folder = str(self.folder)
        return env | {
            "HOME": folder, "TMPDIR": str(self.folder / "tmp"), "USER": "launcher", "LOGNAME": "launcher",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": f"{folder}/plugin", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1",
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "SKYPILOT_USER_ID": self.user, "SKYPILOT_USER": "launcher",
            "SKYPILOT_API_SERVER_LOCAL_PORT": port, "SKYPILOT_API_SERVER_ENDPOINT": f"http://127.0.0.1:{port}",
            # SkyPilot builds a wheel of itself: with the setuptools that are here, no other is fetched for it. (pip
            # takes this variable's value as that of `build isolation`.)
            "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }  # fmt: skip

    def processes(self) -> list[Any]:
        """Every process of this user that belongs here, but ourselves.

        SkyPilot's executors and ssh's masters write their titles over the environment that the system shows of them;
        they are known by their titles, in this folder.
        """
        import psutil

        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and self._is_ours(process):
                    found.append(process)
        return found

    def _is_ours(self, process: Any) -> bool:
        folder = str(self.folder)
        if process.environ().get("HOME") == folder:
            return True
        title = " ".join(process.cmdline())
        return title.startswith(("SkyPilot:", "ssh: ")) and process.cwd() == folder

    @effect("skypilot.end")
    def end(self, patience_s: float = 10.0) -> bool:
        """Kill every process of this home, again until none is left; whether none is."""
        import psutil

        ends = self._clock.monotonic() + patience_s
        while found := self.processes():
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=1.0)
            if self._clock.monotonic() > ends:
                return not self.processes()
        return True

    def remove(self) -> None:
        """End what runs here, then remove the folder and what SkyPilot keeps beside it; idempotent."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)
        # sky/utils/command_runner.py: _ssh_control_path, the one path that is not below $HOME or $TMPDIR.
        for folder in {"/tmp", tempfile.gettempdir()}:  # noqa: S108 - SkyPilot's choice
            shutil.rmtree(f"{folder}/sky_ssh_{self.user}", ignore_errors=True)
