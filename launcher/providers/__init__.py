"""Ways to get a machine, behind one contract."""

from launcher.providers.base import Intent, Listing, Machine, Presence, Provider

__all__ = ["Intent", "Listing", "Machine", "Presence", "Provider"]
