"""Writes scalars for TensorBoard in a file that, unlike TensorBoard's own writer's, does not name the host."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class ScalarLog:
    """Scalars by step in OUT/tb/events.out.tfevents.run; a resumed run appends to the same file."""

    NAME = "tb/events.out.tfevents.run"

    def __init__(self, out: Path) -> None:
        path = out / self.NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists()
        self._file = path.open("ab")
        self._records = RecordWriter(self._file)
        if fresh:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, **values: float) -> None:
        """Append one point for each name at this step, flushed."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
