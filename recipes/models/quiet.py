"""Keeps NeMo, Lightning and their friends from talking over the recipe: their words go to a log file."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

#: Set before NeMo is imported: no telemetry, no fork warnings from tokenizers.
_TALKERS = (
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "pytorch_lightning",
    "nv_one_logger",
    "py.warnings",
)
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "NEMO_TESTING": "0",
    "HYDRA_FULL_ERROR": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: spinning ones slow a busy machine tenfold
}


def cpu_threads() -> int:
    """Threads for torch: OMP_NUM_THREADS where set, else the cores this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked)) if asked.isdigit() else max(1, len(os.sched_getaffinity(0)))


def quieten(log: Path | None) -> logging.Handler:
    """Send all logging and warnings to `log` (or drop them when None), and set torch's threads."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    handler: logging.Handler = logging.NullHandler() if log is None else logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)

    import torch

    torch.set_num_threads(cpu_threads())
    return handler


def import_nemo_quietly(log: Path | None) -> None:
    """Import NeMo once (4 to 5 s) with its logging and warnings sent to `log` (or dropped when None)."""
    handler = quieten(log)
    root = logging.getLogger()
    import lightning.pytorch  # noqa: F401
    import nemo.collections.asr  # noqa: F401
    from nemo.utils import logging as nemo_logging

    nemo_logging.remove_stream_handlers()
    if log is not None:
        nemo_logging.add_file_handler(str(log))
    for name in _TALKERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    root.handlers[:] = [handler]
    sys.stderr.flush()
