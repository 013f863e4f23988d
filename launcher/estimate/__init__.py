"""Does it fit, and how long will it take: arithmetic, each figure with its source."""

from launcher.estimate.arithmetic import Estimate, estimate

__all__ = ["Estimate", "estimate"]
