"""Where state lives: the ledger, runs, boxes and caches, all under one folder readable by its owner alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from launcher import redact
from launcher.errors import StateError
from launcher.failpoints import effect


@dataclass(frozen=True)
class Home:
    """The launcher's folder: $LAUNCHER_HOME, or the user's data folder."""

    root: Path

    @classmethod
    def find(cls, given: Path | None = None) -> Home:
        """`given` (--home), else $LAUNCHER_HOME, else $XDG_DATA_HOME/parakeet-launcher. Creates nothing."""
        if given is None:
            named = os.environ.get("LAUNCHER_HOME")
            data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
            given = Path(named).expanduser() if named else data / "parakeet-launcher"
        return cls(given.absolute())

    def ensure(self) -> Home:
        """Create the folder (mode 0700); raises StateError when it cannot be written."""
        redact.make_private()
        try:
            with effect("home.make"):
                self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
                probe = self.root / f".writable.{os.getpid()}"
                probe.write_text("")
                probe.unlink(missing_ok=True)  # another thread of ours may have taken it away
        except OSError as error:
            raise StateError(
                f"the launcher's folder cannot be written: {error.strerror}.",
                file=self.root,
                fix="Free some disk, or point LAUNCHER_HOME at a folder of your own.",
            ) from None
        return self

    @property
    def ledger_url(self) -> str:
        """The ledger's database: $LAUNCHER_LEDGER, else SQLite in this folder."""
        return os.environ.get("LAUNCHER_LEDGER") or f"sqlite:///{self.root / 'ledger.sqlite'}"

    @property
    def ledger_is_shared(self) -> bool:
        """Whether the ledger is a server's, which a team and its CI have in common."""
        return self.ledger_url.startswith("postgresql")

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger to ask: a server's, or a file already written."""
        return bool(os.environ.get("LAUNCHER_LEDGER")) or (self.root / "ledger.sqlite").exists()

    def run_dir(self, run_id: str) -> Path:
        """Everything of one run that came, or stays, home."""
        return self.root / "runs" / run_id

    def batch_dir(self, batch_id: str) -> Path:
        """A batch's summary."""
        return self.root / "batches" / batch_id

    @property
    def boxes(self) -> Path:
        """The local provider's machines: one folder a lease."""
        return self.root / "boxes"

    @property
    def prepared(self) -> Path:
        """Splits, by content."""
        return self.root / "prepared"

    @property
    def baselines(self) -> Path:
        """Scores of base models, by model, data and scorer."""
        return self.root / "baselines"

    @property
    def corpora(self) -> Path:
        """What `tune` imported."""
        return self.root / "corpora"
