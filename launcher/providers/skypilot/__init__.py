"""Renting through SkyPilot 0.14.1, in a private home with one provider's key, and with proof from the provider."""

from launcher.providers.skypilot.provider import SkyPilotProvider

__all__ = ["SkyPilotProvider"]
