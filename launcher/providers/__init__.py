"""Ways to get a machine, behind one contract."""

from launcher.providers.base import Charge, Intent, Listing, Machine, Presence, Provider

__all__ = ["Charge", "Intent", "Listing", "Machine", "Presence", "Provider"]
