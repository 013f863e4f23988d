"""What a provider's interface answers with, and the calls that any of them may be struck by."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.cloud.cloud import Cloud
from tests.cloud.faults import Fault


@dataclass
class Call:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str  # of the Authorization header, without its "Bearer"


@dataclass
class Reply:
    """An answer; `cut` sends only the first half of it, `wait_s` none at all until then."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    cut: bool = False

    @property
    def raw(self) -> bytes:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body, default=str)
        return text.encode()[: len(text) // 2] if self.cut else text.encode()


def struck(cloud: Cloud, provider: str, operation: str) -> Reply | None:
    """The answer of a call that fails before it does anything."""
    fault = cloud.script.take(provider, operation, "error", "rate_limited", "unauthorized")
    if operation == "delete" and not fault:
        fault = cloud.script.take(provider, operation, "delete_refused")
    if not fault:
        return None
    cloud.note("struck", provider=provider, operation=operation, fault=fault.fault)
    if fault.fault == "rate_limited":
        headers = {"Retry-After": str(fault.params["retry_after_s"])}
        return Reply({"error": "rate_limited", "msg": "API requests too frequent"}, 429, headers)
    if fault.fault == "unauthorized":
        return Reply({"error": "unauthorized", "msg": "Unauthorized"}, 401)
    return Reply("Internal Server Error", fault.params["status"], {"Content-Type": "text/plain"})


def after_create(cloud: Cloud, provider: str, reply: Reply) -> Reply:
    """The answer to a create call that has created: or none, or a lie."""
    fault = cloud.script.take(provider, "create", "error_after_create", "timeout_after_create")
    if not fault:
        return reply
    cloud.note("struck", provider=provider, operation="create", fault=fault.fault)
    if fault.fault == "timeout_after_create":
        return Reply("", 504, {"Content-Type": "text/plain"}, wait_s=fault.params["seconds"])
    return Reply("Internal Server Error", fault.params["status"], {"Content-Type": "text/plain"})


def of_list(cloud: Cloud, provider: str) -> Fault | None:
    """The fault that strikes this listing, if one does."""
    fault = cloud.script.take(
        provider, "list", "empty_list", "partial_list", "wrong_account", "malformed_list"
    )  # fmt: skip
    if fault:
        cloud.note("struck", provider=provider, operation="list", fault=fault.fault)
    return fault


def listed(rows: list[dict[str, Any]], fault: Fault | None, stranger: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a listing under a fault; `stranger`: a machine of another account."""
    if fault is None or fault.fault == "malformed_list":
        return rows
    return {"empty_list": [], "partial_list": rows[: len(rows) // 2], "wrong_account": [stranger]}[fault.fault]
