"""What a create at Brev is asked with, what it will cost, and what its failure proves."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from launcher.money import Usd
from launcher.offers.source import number, usd
from launcher.providers.base import CreateRefusedError, ProviderError, SoldOutError
from launcher.providers.brev.command import BrevCommand, Done

_HOURS_A_MONTH = 730

# Said before anything is asked of Brev's server (pkg/cmd/gpucreate, validateInstanceTypeAvailability), and by the
# server for a type that it does not have.
_SOLD_OUT = re.compile(r"currently unavailable|no capacity|not a recognized type|is invalid or unavailable")
# A client's error by the server's word (pkg/store/http.go): URL, status, body. 408 and 429 prove nothing.
_REFUSED = re.compile(r"(?:\s|^)4(?!08|29)\d\d\s|already exists|duplicate workspace|not logged in|logged out|"
                      r"name must|instance-type listing was unavailable", re.IGNORECASE)  # fmt: skip

# Runs on the instance when it has booted, as root or as its user: both may be the one that ssh asks for.
STARTUP = """#!/bin/bash
line='{key}'
for home in "$HOME" /root /home/*; do
  [ -d "$home" ] || continue
  [ "$(id -u)" = 0 ] || [ "$home" = "$HOME" ] || continue
  mkdir -p "$home/.ssh" && touch "$home/.ssh/authorized_keys" || continue
  grep -qxF "$line" "$home/.ssh/authorized_keys" || printf '%s\\n' "$line" >>"$home/.ssh/authorized_keys"
  chmod 700 "$home/.ssh" && chmod 600 "$home/.ssh/authorized_keys"
  [ "$(id -u)" != 0 ] || chown -R --reference="$home" "$home/.ssh"
done
"""


def row_of(command: BrevCommand, kind: str) -> dict[str, Any] | None:
    """The dearest row of an instance type in `brev search`, which takes a type alone; None where there is none."""
    rows = command.ask_json("search", "gpu", "--json")
    if not isinstance(rows, list):
        raise ProviderError("Brev did not list its instance types.")
    found = [row for row in rows if isinstance(row, dict) and row.get("type") == kind and rate_of(row) is not None]
    return max(found, key=lambda row: rate_of(row) or Usd(0), default=None)


def rate_of(row: dict[str, Any] | None) -> Usd | None:
    """Dollars an hour of a row, without its disk; None where they are missing or no price."""
    try:
        return usd(row.get("price_per_hour"), "price") if row else None
    except ValueError:
        return None


def disk_of(row: dict[str, Any] | None, wanted_gb: int) -> int | None:
    """The size to ask for, within what the type allows; None where it is fixed or not told."""
    row = row or {}
    least, most = number(row.get("disk_min_gb")), number(row.get("disk_max_gb"))
    if least is None or most is None or least >= most:
        return None
    return round(min(max(wanted_gb, least), most))


def disk_rate(row: dict[str, Any] | None, disk_gb: int | None) -> str:
    """Dollars an hour for the disk; 120 GB is what Brev gives unasked (pkg/store/workspace.go)."""
    try:
        monthly = usd((row or {}).get("disk_price_per_gb_mo") or 0, "disk price")
    except ValueError:
        monthly = Usd(0)
    return str((Decimal(monthly) * (disk_gb or 120) / _HOURS_A_MONTH).quantize(Decimal("0.00000001")))


def why_not(done: Done) -> ProviderError:
    """What a failed create proves: that the type is gone, that Brev refused, or nothing."""
    said = f"{done.err}\n{done.out}"
    if _SOLD_OUT.search(said) and "Failed:" not in said:
        return SoldOutError(f"Brev: {done.words}.")
    if _REFUSED.search(said) and not re.search(r"(?:\s|^)(?:5\d\d|408|429)\s", said):
        return CreateRefusedError(f"Brev refused: {done.words}.")
    return ProviderError(f"Brev's command failed ({done.words}): there may be an instance.")
