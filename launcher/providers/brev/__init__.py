"""Renting at NVIDIA Brev, through its own command line."""

from launcher.providers.brev.provider import BrevProvider

__all__ = ["BrevProvider"]
