"""Data in: recordings become a manifest (import), a manifest is checked, and split."""

from launcher.data.checking import CheckResult, check_manifest
from launcher.data.importing import ImportResult, Skipped, import_recordings
from launcher.data.rowcheck import Finding
from launcher.data.splitting import SplitResult, split_manifest

__all__ = [
    "CheckResult",
    "Finding",
    "ImportResult",
    "Skipped",
    "SplitResult",
    "check_manifest",
    "import_recordings",
    "split_manifest",
]
