"""Whether a provider's machines are real: its endpoint, unless the environment sends us to a private address."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, ip_address
from urllib.parse import urlsplit

#: Where each provider is asked to rent, and the variable that sends its own client (and ours) elsewhere: the runpod
#: package 1.10 (api/graphql.py), vastai-sdk 1.9 (api/client.py), brev-cli v0.6.330 (pkg/config). SkyPilot's clouds
#: ask through the same packages.
ENDPOINTS = {
    "runpod": ("RUNPOD_API_BASE_URL", "https://api.runpod.io"),
    "vast": ("VAST_URL", "https://console.vast.ai"),
    "brev": ("BREV_API_URL", "https://brevapi.us-west-2-prod.control-plane.brev.dev"),
}
_PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))  # RFC 1918


def is_live(provider: str, via: str = "direct") -> bool:
    """Whether renting there rents a real machine. Every endpoint is live that is not surely a simulation.

    No name is looked up: `localhost` and addresses of the loopback or of RFC 1918 alone are no live ones. A cloud
    that only SkyPilot reaches is always live; this machine never is.
    """
    if provider == "local":
        return False
    if provider not in ENDPOINTS:
        return True
    return not _is_private(_url(provider))


def where(provider: str) -> str:
    """The host (and port) that is asked for a machine there, for a person; the provider's name where we know none."""
    if provider not in ENDPOINTS:
        return "this machine" if provider == "local" else provider
    url = _url(provider)
    try:
        host, port = urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        host, port = None, None
    return (f"{host}:{port}" if port else host) if host else f"{ENDPOINTS[provider][0]}, which is no address"


def endpoint(provider: str) -> str:
    """The address of a provider as one of its machines names it, by its own settings; empty where we know none."""
    if provider not in ENDPOINTS:
        return ""
    variable, usual = ENDPOINTS[provider]
    return f"${{{variable}:-{usual}}}"


def _url(provider: str) -> str:
    variable, usual = ENDPOINTS[provider]
    return os.environ.get(variable) or usual


def _is_private(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else None
        if host == "localhost":
            return True
        address = ip_address(host or "")
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _PRIVATE)
