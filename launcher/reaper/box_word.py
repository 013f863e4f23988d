"""What a machine's own watchdog says of its end, where this home still has the keys to ask it."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from launcher.clock import iso
from launcher.home import Home
from launcher.hosts.lease_keys import LeaseKeys
from launcher.hosts.ssh import SshHost
from launcher.ledger import Lease
from launcher.providers.base import Provider
from launcher.providers.release import machine_of
from launcher.watchdog import TOLD

ANSWERS_S = 8.0  # a machine that may be dead keeps no release waiting


def word_of(home: Home, lease: Lease, provider: Provider) -> dict[str, Any]:
    """`{"watchdog": {state, at, why}}` where the machine answers and its watchdog has ended all; else nothing."""
    folder = home.run_dir(lease.run) / "keys" / lease.lease
    if not lease.machine or provider.name == "local" or not folder.is_dir():
        return {}
    with suppress(Exception):  # whatever a machine answers, or keeps in that file: it is released all the same
        host = provider.connect(machine_of(lease), LeaseKeys(folder))
        if isinstance(host, SshHost) and host.answers(within_s=ANSWERS_S):
            held = json.loads(host.read(TOLD, 0, 1 << 14))
            if held.get("state") == "ended":
                at = iso(datetime.fromtimestamp(float(held["t"]), UTC))
                return {"watchdog": {"state": "ended", "at": at, "why": str(held.get("why", ""))[:200]}}
    return {}
