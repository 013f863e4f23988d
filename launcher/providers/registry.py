"""Provider by name; each is imported only when it is used. Other packages may bring more, as entry points."""

from __future__ import annotations

from collections.abc import Callable

from launcher.clock import Clock
from launcher.environment import recipe_python
from launcher.errors import BadInputError
from launcher.home import Home
from launcher.providers.base import Provider
from launcher.providers.traits import PLUGINS

BUILT_IN = ("local",)
Factory = Callable[[Home, Clock], Provider]


def provider_named(name: str, home: Home, clock: Clock) -> Provider:
    """The provider of this name, ready to use; raises BadInputError for a name that is not one."""
    if name == "local":
        from launcher.providers.local import LocalProvider

        return LocalProvider(home.boxes, recipe_python, clock)
    factory = _plugin(name)
    if factory is not None:
        return factory(home, clock)
    raise BadInputError(f"{name!r} is not a provider of this launcher.", fix=f"There is: {', '.join(BUILT_IN)}.")


def can_rent(name: str) -> bool:
    """Whether this launcher can create machines there, not only tell what they cost."""
    return name in BUILT_IN or _plugin(name) is not None


def rentable() -> tuple[str, ...]:
    """Every provider that this launcher can create machines at."""
    from importlib.metadata import entry_points

    return (*BUILT_IN, *sorted({point.name for point in entry_points(group=PLUGINS)} - set(BUILT_IN)))


def _plugin(name: str) -> Factory | None:
    from importlib.metadata import entry_points

    for point in entry_points(group=PLUGINS, name=name):
        factory: Factory = point.load()
        return factory
    return None
