"""Data in: recordings become a manifest (import), a manifest is checked, and split."""

from launcher.data.importing import ImportResult, Skipped, import_recordings
from launcher.data.splitting import SplitResult, split_manifest

__all__ = ["ImportResult", "Skipped", "SplitResult", "import_recordings", "split_manifest"]
