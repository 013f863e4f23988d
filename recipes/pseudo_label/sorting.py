"""Sorts what was heard into the rows to learn from and the others, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.manifest import Row, write_manifest
from recipes.pseudo_label.filtering import Why, after_hearing, before_hearing, most_confident, plain
from recipes.pseudo_label.heard import Heard
from recipes.pseudo_label.sources import Source
from recipes.pseudo_label.spec import FILTERED, LABELLED, PseudoLabelSpec


@dataclass(frozen=True)
class Sorted:
    """Rows in the order of what was given; `unheard`: how many were not come to."""

    labelled: list[Row]
    filtered: list[Row]
    unheard: int

    def write(self, out: Path) -> None:
        """Write both manifests."""
        write_manifest(out / LABELLED, self.labelled)
        write_manifest(out / FILTERED, self.filtered)


def sort_out(sources: Sequence[Source], heard: Mapping[str, Heard], spec: PseudoLabelSpec) -> Sorted:
    """Judge every row; `heard` is by `Source.key`. A row that was not come to is in neither list."""
    rows: list[tuple[Row, Why | None]] = []
    for source in sources:
        why = before_hearing(source, spec)
        found = heard.get(source.key)
        if why is not None:
            rows.append((_row(source, None, spec), why))
        elif found is not None and source.clip is not None:
            rows.append((_row(source, found, spec), after_hearing(found, source.clip.duration_s, spec)))
    if spec.keep_fraction is not None:
        passed = [at for at, (_, why) in enumerate(rows) if why is None]
        best = most_confident([rows[at][0]["confidence"] for at in passed], spec.keep_fraction)
        bound = min((rows[passed[n]][0]["confidence"] for n in best), default=0.0)
        words = f"not of the most confident {spec.keep_fraction:.0%}, which begin at {bound:.3f}"
        for n, at in enumerate(passed):
            if n not in best:
                rows[at] = rows[at][0], ("less_confident", words)
    labelled = [row for row, why in rows if why is None]
    filtered = [{**row, "reason": why[0], "why": why[1]} for row, why in rows if why is not None]
    return Sorted(labelled, filtered, len(sources) - len(rows))


def _row(source: Source, heard: Heard | None, spec: PseudoLabelSpec) -> Row:
    row: Row = {"audio_filepath": source.row["audio_filepath"]}
    text = heard.text.strip() if heard else ""
    row["text"] = plain(text) if spec.text_style == "plain" else text
    if source.clip is not None:
        row["duration"] = round(source.clip.duration_s, 4)
    if heard is not None:
        row["confidence"] = round(heard.confidence, 4)
        for name in ("avg_logprob", "no_speech_prob"):
            value = getattr(heard, name)
            if value is not None:
                row[name] = round(value, 4)
    row["teacher"] = spec.name
    return {**source.row, **row}
