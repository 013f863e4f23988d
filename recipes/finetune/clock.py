"""Where a run's seconds went: counted by phase, across resumes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds by phase, whatever the number of resumes."""

    seconds: dict[str, float] = field(default_factory=dict)
    _phase: str = "loading"
    _since: float = field(default_factory=time.monotonic)

    def enter(self, phase: str) -> str:
        """Start counting for `phase`; returns the one left."""
        now, left = time.monotonic(), self._phase
        self.seconds[left] = self.seconds.get(left, 0.0) + now - self._since
        self._phase, self._since = phase, now
        return left
