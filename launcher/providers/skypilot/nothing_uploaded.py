"""Inside SkyPilot's API server: no credential of an account leaves for a rented machine.

A copy of this file lies in each private home (`lodging.py`) and is loaded there, by the server and by each process
of it that executes requests, twice: as a plugin (`~/.sky/plugins.yaml`), which takes the uploads away, and as the
admin policy (`~/.sky/config.yaml`), which SkyPilot asks in the very process that launches, and which refuses there
when they are not away. So a plugin that was not loaded launches nothing.

Read in SkyPilot 0.14.1, and tested with it alone: `sky/check.py` get_cloud_credential_file_mounts (its one caller is
backends/backend_utils.py write_cluster_config: every account's files, and with the first of them the ssh key),
`sky/authentication.py` setup_runpod_authentication (puts the ssh key into the account, where it would outlive the
lease and open other pods), `sky/execution.py` (the policy), `sky/server/plugins.py`.
"""

from __future__ import annotations

from typing import Any

from sky.server import daemons, plugins

from sky import AdminPolicy, MutatedUserRequest, UserRequest, __version__, authentication, check, skypilot_config

VERSION = "0.14.1"
POLICY = "nothing_uploaded.OnlyBare"


def _no_credentials(excluded_clouds: Any) -> dict[str, str]:
    """In place of check.get_cloud_credential_file_mounts: none, of any cloud."""
    del excluded_clouds
    return {}


def why_not() -> str:
    """Why this process could send a credential away, or could be made to; empty when it cannot."""
    if __version__ != VERSION:
        return f"it is SkyPilot {__version__}, not {VERSION}"
    if check.get_cloud_credential_file_mounts is not _no_credentials:
        return "its plugin is not loaded"
    if authentication.setup_runpod_authentication is not authentication.configure_ssh_info:
        return "it would put the lease's key into the account"
    if skypilot_config.get_nested(("admin_policy",), None) != POLICY:
        return "its policy is not in the configuration"
    return ""


class NoCredentials(plugins.BasePlugin):  # type: ignore[misc]
    """The plugin. `version` is what /api/plugins tells of it: the home's own token when all is in force."""

    def __init__(self, token: str) -> None:
        self._token = token

    @property
    def name(self) -> str:
        """As /api/plugins shows it."""
        return "nothing-uploaded"

    @property
    def version(self) -> str:
        """The token, or why not."""
        return why_not() or self._token

    def install(self, extension_context: Any) -> None:
        """Take the uploads away, in this process; and the server's own chores, which take a process of 0.2 GB each.

        They refresh clusters, volumes and counts every minute. This server has one cluster, for some minutes.
        """
        del extension_context
        daemons.INTERNAL_REQUEST_DAEMONS.clear()
        check.get_cloud_credential_file_mounts = _no_credentials
        authentication.setup_runpod_authentication = authentication.configure_ssh_info


class OnlyBare(AdminPolicy):  # type: ignore[misc]
    """The policy: one machine type of one cloud, with nothing to send there and an end; else nothing is launched."""

    @classmethod
    def validate_and_mutate(cls, user_request: UserRequest) -> MutatedUserRequest:
        """Refuse by raising; SkyPilot then launches nothing."""
        if not user_request.at_client_side:
            problem = why_not() or _wrong(user_request.task)
            if problem:
                raise RuntimeError(f"not launched: {problem}")
        return MutatedUserRequest(user_request.task, user_request.skypilot_config)


def _wrong(task: Any) -> str:
    """What a launch of ours never has."""
    if task.setup or task.workdir or task.file_mounts or task.storage_mounts or task.envs or task.secrets:
        return "it carries data or a set-up"
    if len(task.resources) != 1:
        return "it leaves the machine open"
    only = next(iter(task.resources))
    if only.cloud is None or only.instance_type is None or only.use_spot:
        return "it leaves the machine open"
    ends = only.autostop_config
    if ends is None or not ends.down:
        return "it has no end"
    return ""
