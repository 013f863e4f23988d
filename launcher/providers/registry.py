"""Provider by name and engine, each imported only when it is used. Other packages may bring more: entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from launcher.clock import Clock
from launcher.errors import BadInputError
from launcher.failpoints import marked
from launcher.home import Home
from launcher.offers.offer import Via
from launcher.providers.base import Provider, StartsTogether
from launcher.providers.traits import PLUGINS

Factory = Callable[[Home, Clock], Provider]

#: The name of each provider that is rented directly, and its class: made of the launcher's home and a clock.
DIRECT = {
    "local": "launcher.providers.local:LocalProvider",
    "brev": "launcher.providers.brev:BrevProvider",
    "runpod": "launcher.providers.runpod:RunPodProvider",
    "vast": "launcher.providers.vast:VastProvider",
}
#: What SkyPilot rents for us: made of the cloud's name, the launcher's home and a clock.
SKYPILOT = "launcher.providers.skypilot:SkyPilotProvider"
THROUGH_SKYPILOT: tuple[str, ...] = (
    "runpod", "hyperbolic", "lambda", "paperspace", "primeintellect", "seeweb", "shadeform", "verda",
)  # fmt: skip


#: What of the contract reaches out of this process.
_EFFECTS = ("create", "find", "listing", "connect", "arm", "charged", "destroy", "forget")


def provider_named(name: str, home: Home, clock: Clock, via: str = "direct") -> Provider:
    """The provider of this name, through this engine, ready to use; raises BadInputError where there is none."""
    provider = _provider_named(name, home, clock, via)
    together = ("start_together",) if isinstance(provider, StartsTogether) else ()
    return marked(provider, "provider", (*_EFFECTS, *together))


def _provider_named(name: str, home: Home, clock: Clock, via: str) -> Provider:
    if via == "skypilot" and name in THROUGH_SKYPILOT:
        rented: Provider = _load(SKYPILOT)(name, home, clock)
        return rented
    if via == "direct" and name in DIRECT:
        provider: Provider = _load(DIRECT[name])(home, clock)
        return provider
    factory = _plugin(name)
    if factory is not None:
        return factory(home, clock)
    raise BadInputError(f"{name!r} is not a provider of this launcher.", fix=f"There is: {', '.join(DIRECT)}.")


def can_rent(name: str, via: Via = "direct") -> bool:
    """Whether this launcher can create machines there, not only tell what they cost."""
    return name in (THROUGH_SKYPILOT if via == "skypilot" else DIRECT) or _plugin(name) is not None


def rentable() -> tuple[str, ...]:
    """Every provider that this launcher can create machines at directly, and so can list."""
    from importlib.metadata import entry_points

    return (*DIRECT, *sorted({point.name for point in entry_points(group=PLUGINS)} - set(DIRECT)))


def _load(where: str) -> Callable[..., Provider]:
    module, _, name = where.partition(":")
    made: Callable[..., Provider] = getattr(import_module(module), name)
    return made


def _plugin(name: str) -> Factory | None:
    from importlib.metadata import entry_points

    for point in entry_points(group=PLUGINS, name=name):
        factory: Factory = point.load()
        return factory
    return None
