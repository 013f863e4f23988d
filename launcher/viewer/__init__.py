"""Watching a run: a live view on a terminal, plain lines elsewhere; leaving it changes nothing."""

from launcher.viewer.attach import attach

__all__ = ["attach"]
