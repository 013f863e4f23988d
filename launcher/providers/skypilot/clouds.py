"""Each cloud that is rented through SkyPilot: where its key is kept, and what SkyPilot needs of it.

The files are those that `get_credential_file_mounts` of SkyPilot 0.14.1's sky/clouds/*.py names: nothing else of the
user's home is copied. A cloud whose key is more than such a file (AWS, GCP, Azure and others: profiles, logins and
caches) is not rented at through SkyPilot by this launcher.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.offers.source import NotAskedError

#: A pod's own end, with the key that RunPod gives to it alone. SkyPilot's hooks have no environment of the pod's;
#: its first process wrote that down (sky/provision/runpod/utils.py). The key goes to curl over stdin, not in argv.
_RUNPOD_ENDS_ITSELF = (
    ". /etc/profile.d/container_env_var.sh; "
    """printf 'header = "Authorization: Bearer %s"\\n' "$RUNPOD_API_KEY" | """
    "curl -sS -m 20 -K - -H 'Content-Type: application/json' -H 'User-Agent: parakeet-launcher' "
    r"""-d "{\"query\":\"mutation { podTerminate(input: { podId: \\\"$RUNPOD_POD_ID\\\" }) }\"}" """
    '"${RUNPOD_API_BASE_URL:-https://api.runpod.io}/graphql"'
)


@dataclass(frozen=True)
class Cloud:
    """What is needed of one cloud. `files` are relative to a home."""

    files: tuple[str, ...]
    redirect: str = ""  # the variable that sends its client elsewhere
    ends_itself: str = ""  # the command by which a machine destroys itself with its own key
    key: Callable[[], str] | None = None  # where the key is not such a file alone

    def missing(self) -> str:
        """Why there is no key; empty when there is one."""
        try:
            self.contents()
        except NotAskedError as error:
            return str(error)
        return ""

    def contents(self) -> dict[str, str]:
        """The key's files and what they hold; raises NotAskedError when there is none."""
        if self.key:
            return {self.files[0]: self.key()}
        try:
            return {name: (Path.home() / name).read_text(encoding="utf-8") for name in self.files}
        except OSError as error:
            raise NotAskedError(f"no key (~/{self.files[0]}: {error.strerror})") from None


def _runpod() -> str:
    from launcher.offers.runpod import account_key

    return f"[default]\napi_key = {json.dumps(account_key())}\n"


CLOUDS = {
    "runpod": Cloud((".runpod/config.toml",), "RUNPOD_API_BASE_URL", _RUNPOD_ENDS_ITSELF, _runpod),
    "lambda": Cloud((".lambda_cloud/lambda_keys",)),
    "hyperbolic": Cloud((".hyperbolic/api_key",)),
    "paperspace": Cloud((".paperspace/config.json",)),
    "primeintellect": Cloud((".prime/config.json",)),
    "seeweb": Cloud((".seeweb_cloud/seeweb_keys",)),
    "shadeform": Cloud((".shadeform/api_key",)),
    "verda": Cloud((".verda/config.json",)),
}
