"""Provider by name; each is imported only when it is used."""

from __future__ import annotations

from launcher.clock import Clock
from launcher.environment import recipe_python
from launcher.errors import BadInputError
from launcher.home import Home
from launcher.providers.base import Provider

NAMES = ("local",)


def provider_named(name: str, home: Home, clock: Clock) -> Provider:
    """The provider of this name, ready to use; raises BadInputError for a name that is not one."""
    if name == "local":
        from launcher.providers.local import LocalProvider

        return LocalProvider(home.boxes, recipe_python, clock)
    raise BadInputError(f"{name!r} is not a provider of this launcher.", fix=f"There is: {', '.join(NAMES)}.")
