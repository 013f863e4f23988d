"""Makes the audio of a labelling job ready: a folder, or a manifest without texts, as a manifest with full paths."""

from __future__ import annotations

import hashlib
from pathlib import Path

from launcher.errors import BadInputError
from launcher.home import Home
from launcher.job import JobData
from launcher.prepare import FACTS, Prepared, lengths_of, load_prepared
from recipes.contract import sha256_of, write_json
from recipes.manifest import ManifestError, write_manifest
from recipes.pseudo_label.filtering import before_hearing
from recipes.pseudo_label.sources import Source, sources_of
from recipes.pseudo_label.spec import PseudoLabelSpec


def prepare_unlabelled(data: JobData, spec: PseudoLabelSpec, home: Home) -> Prepared:
    """Look at every recording and write the manifest that is sent; raises BadInputError with the way out.

    A file that is not audio goes along: the recipe says so in filtered.jsonl, as of any other row. Clips that are too
    short or too long to be labelled stay out of the estimate alone.
    """
    try:
        sources = sources_of(data.manifest)
    except ManifestError as error:
        raise BadInputError(
            error.problem, file=data.manifest, line=error.line, key=error.key or "data.manifest", fix=error.fix
        ) from error
    missing = [source.fault for source in sources if not Path(source.row["audio_filepath"]).is_file()]
    if missing:
        raise BadInputError(
            f"{missing[0]}{f' ({len(missing)} such files)' if len(missing) > 1 else ''}", file=data.manifest,
            key="data.manifest", fix="Paths in a manifest are relative to it.",
        )  # fmt: skip
    torn = [source.fault for source in sources if source.clip is None]
    if len(torn) == len(sources):
        raise BadInputError(f"none of its audio can be read: {torn[0]}", file=data.manifest, key="data.manifest")
    warnings = [f"{torn[0]}{f' ({len(torn)} such files)' if len(torn) > 1 else ''}"] if torn else []
    heard = [source for source in sources if before_hearing(source, spec) is None]
    if not heard:
        raise BadInputError(
            f"no recording is {spec.min_clip_s:g} to {spec.max_clip_s:g} s long: none would be labelled.",
            file=data.manifest, key="data.manifest", fix="Cut them, or set min_clip_s and max_clip_s.",
        )  # fmt: skip
    if len(heard) + len(torn) < len(sources):
        left_out = len(sources) - len(heard) - len(torn)
        warnings.append(f"min_clip_s and max_clip_s leave out {left_out} of {len(sources)} recordings")
    key = hashlib.sha256("\n".join([source.key for source in sources] + warnings).encode()).hexdigest()
    folder = home.prepared / f"unlabelled-{key[:24]}"
    held = load_prepared(folder)
    if held is not None:
        return held
    manifest = folder / "unlabelled.jsonl"
    write_manifest(manifest, [_row(source) for source in sources])
    prepared = _facts(manifest, sources, heard, warnings)
    write_json(folder / FACTS, prepared.facts())
    return prepared


def _row(source: Source) -> dict[str, object]:
    duration = {"duration": round(source.clip.duration_s, 4)} if source.clip else {}
    return {**source.row, **duration}


def _facts(manifest: Path, sources: list[Source], heard: list[Source], warnings: list[str]) -> Prepared:
    durations = [source.clip.duration_s for source in heard if source.clip]
    files = {source.row["audio_filepath"] for source in sources}
    return Prepared(
        train="", validation="", general_train=None, general_validation=None, unlabelled=str(manifest),
        train_rows=0, validation_rows=len(heard), train_hours=0.0, validation_hours=round(sum(durations) / 3600, 6),
        general_rows=0, general_hours=0.0, general_train_rows=0, general_train_hours=0.0,
        lengths_s=lengths_of(durations), longest_text=0, characters=0, longest_s=max(durations),
        audio_gb=sum(Path(file).stat().st_size for file in files) / 1e9, grouped_by=None, has_terms=False,
        warnings=tuple(warnings), digests={"unlabelled": sha256_of(manifest)},
    )  # fmt: skip
