"""What is known of each provider before it is asked: whose machines, how it bills, who ends them when we die."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from launcher.offers.offer import Offer, Trust

PLUGINS = "launcher.providers"  # the entry point group of providers that other packages bring
ANY_SKYPILOT = "skypilot"  # in a list of providers: every cloud that SkyPilot reaches


@dataclass(frozen=True)
class Traits:
    """What plan and budget must know of renting at one provider. Seconds are what we wait before giving up."""

    trust: Trust
    provision_timeout_s: float  # from create to a machine that answers; what it may bill meanwhile is in the ceiling
    proves_release: bool  # exact lookup and a complete listing: else `unproven`, and budgets exclude it by default
    account_keys_on_host: bool  # renting there puts an account-wide key on the rented machine
    prepaid: bool  # a balance ends it when all else fails
    many_nodes: bool  # several machines as one job
    console: str  # where a person can end a machine by hand
    released_by: tuple[str, ...]  # who ends it when this machine dies now, in words
    listing_lag_s: float = 0.0  # a machine created this long ago may still be missing from every answer
    delete_s: float = 0.0  # how long an accepted delete may take until the machine is gone
    apart_s: float = 0.2  # between the two absences of a proof
    billing_step_s: int = 1  # begun steps are billed in full
    at_zero: str = ""  # what an empty balance does there, in words


LOCAL = Traits(
    "own", 0.0, proves_release=True, account_keys_on_host=False, prepaid=False, many_nodes=False, console="",
    released_by=("nothing to release: this machine costs nothing",),
)  # fmt: skip

#: SkyPilot 0.14.1's clouds (facts: `sky.clouds`), by the names it gives them. Several of them rent without proof:
#: their listing is SkyPilot's word.
SKYPILOT_CLOUDS = (
    "aws", "azure", "cudo", "do", "fluidstack", "gcp", "hyperbolic", "ibm", "kubernetes", "lambda", "mithril",
    "nebius", "oci", "paperspace", "primeintellect", "scp", "seeweb", "shadeform", "slurm", "ssh", "verda",
    "vsphere", "yotta",
)  # fmt: skip
#: Those of all clouds in SkyPilot 0.14.1 that lack MULTI_NODE (`_CLOUD_UNSUPPORTED_FEATURES` in sky/clouds/*.py).
NO_MANY_NODES = ("hyperbolic", "primeintellect", "runpod", "seeweb", "shadeform", "vast", "verda", "vsphere", "yotta")

_TRAITS = {
    "local": LOCAL,
    "vast": Traits(
        "marketplace", 900.0, proves_release=True, account_keys_on_host=False, prepaid=True, many_nodes=False,
        console="https://cloud.vast.ai/instances/", released_by=("reaper (CI or timer)", "box timer stops all work"),
        listing_lag_s=30.0, delete_s=120.0, apart_s=2.0,
        # vast.ai/docs/console/billing, "Negative Balances": stopped, not destroyed; the disk is billed below zero.
        at_zero="an empty balance ends the GPU, not the disk, which Vast goes on charging to a saved card",
    ),
    "runpod": Traits(
        "secure", 900.0, proves_release=True, account_keys_on_host=False, prepaid=True, many_nodes=False,
        console="https://console.runpod.io/pods", released_by=("reaper (CI or timer)", "box ends itself"),
        listing_lag_s=30.0, delete_s=120.0, apart_s=2.0,
        # docs.runpod.io/accounts-billing/billing, "Low balance behavior" and "Auto-pay".
        at_zero="only an empty balance would end it, and auto-pay, where it is on, fills it again",
    ),
    "brev": Traits(
        "secure", 900.0, proves_release=True, account_keys_on_host=False, prepaid=True, many_nodes=False,
        console="https://console.brev.dev/", released_by=("reaper (CI or timer)", "box timer stops all work"),
        listing_lag_s=30.0, delete_s=600.0, apart_s=2.0, billing_step_s=60,
        at_zero="what an empty balance ends at Brev is not documented",
    ),
}  # fmt: skip


@cache
def plugins() -> dict[str, Traits]:
    """The traits of providers that other packages bring: the attribute `traits` of each entry point's object."""
    from importlib.metadata import entry_points

    return {point.name: point.load().traits for point in entry_points(group=PLUGINS)}


@cache
def traits_of_provider(name: str, via: str) -> Traits | None:
    """The traits of renting at a provider through one engine; None for a provider nobody here knows."""
    held = _TRAITS.get(name)
    if held is None and name in SKYPILOT_CLOUDS:
        return Traits(
            "secure", 1200.0, proves_release=False, account_keys_on_host=False, prepaid=False,
            many_nodes=name not in NO_MANY_NODES, console="https://docs.skypilot.co",
            released_by=("reaper (CI or timer)", "box timer stops all work"),  # no key of the account is on it
        )  # fmt: skip
    if held is not None and name == "vast" and via == "skypilot":
        return replace(held, account_keys_on_host=True)  # it writes the account's Vast key into the start script
    if held is not None and name == "runpod" and via == "skypilot":
        return replace(held, released_by=("SkyPilot's autostop", *held.released_by))
    return held or plugins().get(name)


def traits_of(offer: Offer) -> Traits | None:
    """The traits of renting this offer; None for a provider nobody here knows."""
    return traits_of_provider(offer.provider, offer.via)


def known_providers() -> tuple[str, ...]:
    """Every provider name that comes with the launcher."""
    return (*_TRAITS, *SKYPILOT_CLOUDS)


def is_provider(name: str) -> bool:
    """Whether a job, a budget or an offer may name this provider."""
    return name in _TRAITS or name in SKYPILOT_CLOUDS or name in plugins()


def allowed_providers(*lists: tuple[str, ...]) -> frozenset[str]:
    """The providers that every list names; `skypilot` in a list stands for all of SkyPilot's clouds."""
    sets = [frozenset({*names, *(SKYPILOT_CLOUDS if ANY_SKYPILOT in names else ())}) for names in lists]
    return frozenset.intersection(*sets)
