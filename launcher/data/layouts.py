"""Find the recordings and the transcripts in a folder, and pair them."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from launcher.data.convert import AUDIO_SUFFIXES
from launcher.data.entries import Entry, Fault, NotTranscriptsError, Table, clean, counted, read_text
from launcher.data.journal import JOURNAL
from launcher.data.tables import TABLE_SUFFIXES, read_lines, read_table
from launcher.errors import BadInputError

_SIDECARS = (".txt", ".normalized.txt", ".lab", ".transcript")
_COMMON_VOICE = ("validated.tsv",), ("train.tsv", "dev.tsv", "test.tsv")


@dataclass
class Folder:
    """What a folder holds, as far as importing goes; paths are as walked, links not resolved."""

    root: Path
    audio: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)  # .txt and the like
    spreadsheets: list[Path] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)


def scan(root: Path, leave_out: Path) -> Folder:
    """Walk `root` (following links, never in circles), leaving out hidden files and the folder `leave_out`."""
    found = Folder(root)
    visited: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        here = Path(folder)
        status = here.stat()
        if (status.st_dev, status.st_ino) in visited or (leave_out.exists() and here.samefile(leave_out)):
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        if JOURNAL in files and here != root:  # what an earlier import made is not a source
            names.clear()
            continue
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        for name in sorted(files):
            if not name.startswith("."):
                _sort_in(found, here / name)
    return found


def _sort_in(found: Folder, path: Path) -> None:
    suffix = path.suffix.lower()
    kind = (
        found.audio if suffix in AUDIO_SUFFIXES
        else found.tables if suffix in TABLE_SUFFIXES
        else found.spreadsheets if suffix in {".xlsx", ".xls", ".ods"}
        else found.texts if suffix in {".txt", ".lab", ".transcript"} or path.name == "text"
        else None
    )  # fmt: skip
    if kind is None:
        return
    shown = str(path.relative_to(found.root))
    try:
        mode = path.stat().st_mode
    except OSError:
        found.skipped.append(Fault(shown, "a link that leads nowhere" if path.is_symlink() else "cannot be read"))
        return
    if not stat.S_ISREG(mode):
        found.skipped.append(Fault(shown, "not a regular file"))
    elif not _is_utf8(shown):
        found.skipped.append(Fault(shown, "its name is not valid UTF-8: rename it"))
    else:
        kind.append(path)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- Names -----------------------------------------------------------------------------------------------------


def _parts(name: str) -> tuple[str, ...]:
    """A path's components as they are compared: NFC, case folded, forward slashes, no `.`."""
    plain = unicodedata.normalize("NFC", name.strip().replace("\\", "/")).casefold()
    return tuple(part for part in PurePosixPath(plain).parts if part not in {"/", "."})


def _stem(name: str) -> str:
    head, dot, tail = name.rpartition(".")
    return head if dot and head and "." + tail in AUDIO_SUFFIXES else name


class Names:
    """Looks recordings up by the names that transcripts give them.

    A name matches a recording when one of the two paths, compared part by part from the end, is the tail of the
    other: `a.wav` is `spk1/a.wav`, and `/home/x/set/spk1/a.wav` is `spk1/a.wav`, but `spk2/a.wav` is not. The
    extension may be missing or another one.
    """

    def __init__(self, root: Path, audio: Iterable[Path]) -> None:
        self.root = root
        self._by_base: dict[str, list[tuple[tuple[str, ...], Path]]] = defaultdict(list)
        self._by_stem: dict[str, list[tuple[tuple[str, ...], Path]]] = defaultdict(list)
        for path in audio:
            parts = _parts(str(path.relative_to(root)))
            self._by_base[parts[-1]].append((parts, path))
            stem = _stem(parts[-1])
            self._by_stem[stem].append(((*parts[:-1], stem), path))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.find(name))

    def find(self, name: str, beside: Path | None = None) -> list[Path]:
        """Every recording that `name` may mean: the exact path first, then by tail, then without extension."""
        if not name.strip() or "\0" in name:
            return []
        if beside is not None:
            for base in (beside, self.root):
                exact = base / name
                if exact.suffix.lower() in AUDIO_SUFFIXES and _is_file(exact):
                    return [exact]
        parts = _parts(name)
        if not parts:
            return []
        found = self._matching(self._by_base.get(parts[-1], []), parts)
        if not found:
            stem = _stem(parts[-1])
            found = self._matching(self._by_stem.get(stem, []), (*parts[:-1], stem))
            if not found and stem != parts[-1]:
                return []
        return found

    @staticmethod
    def _matching(candidates: Sequence[tuple[tuple[str, ...], Path]], parts: tuple[str, ...]) -> list[Path]:
        whole = [path for other, path in candidates if other == parts]
        if whole:
            return whole
        return [
            path for other, path in candidates if all(map(str.__eq__, reversed(other), reversed(parts)))
        ]  # map stops at the shorter of the two


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a NUL
        return False


# --- Transcripts -----------------------------------------------------------------------------------------------


def find_transcripts(found: Folder, given: Sequence[Path], names: Names) -> list[Table]:
    """The transcripts to use: those given, or the only ones there; raises BadInputError when that is not clear."""
    if given:
        return [_read_given(path, found, names) for path in given]
    libri = [path for path in found.texts if path.name.endswith(".trans.txt")]
    if libri:
        return [_libri_speech(path, names) for path in libri]
    voice = _common_voice(found)
    if voice:
        return [read_table(path, names.__contains__, plain_tsv=True) for path in voice]
    tables, refused = _try_all(found.tables, names)
    sidecars = _sidecars(found)
    if not tables and not sidecars:
        tables, more = _try_all(found.texts, names, lines=True)
        refused += more
    if len(tables) > 1:
        listed = " and ".join(_shown(found, table.path) for table in tables[:2])
        more_text = f" (and {len(tables) - 2} more)" if len(tables) > 2 else ""
        raise BadInputError(
            f"several files with transcripts: {listed}{more_text}.",
            fix=f"Say which to use: --transcripts {tables[0].path.name} (repeat it to use several).",
            file=found.root,
        )
    if tables and sidecars:
        sidecars = _agreeing(tables[0], sidecars, found, names)
    if sidecars and sidecars.entries:
        tables.append(sidecars)
    if not tables:
        raise _no_transcripts(found, refused)
    return tables


def _shown(found: Folder, path: Path) -> str:
    return str(path.relative_to(found.root)) if path.is_relative_to(found.root) else str(path)


def _try_all(paths: Iterable[Path], names: Names, lines: bool = False) -> tuple[list[Table], list[BadInputError]]:
    """The files that pair recordings with words, and why the others do not."""
    good: list[Table] = []
    refused: list[BadInputError] = []
    for path in paths:
        try:
            table = read_lines(path, names.__contains__) if lines else read_table(path, names.__contains__)
        except NotTranscriptsError as error:
            refused.append(error)
            continue
        if any(entry.name in names or names.find(entry.name, path.parent) for entry in table.entries):
            good.append(table)
        else:
            example = table.entries[0].name if table.entries else "nothing"
            refused.append(BadInputError(f"names no recording that is here (its first: {example!r}).", file=path))
    return good, refused


def _read_given(path: Path, found: Folder, names: Names) -> Table:
    if path.is_dir():
        texts = scan(path, path / ".none").texts
        entries: list[Entry] = []
        faults: list[Fault] = []
        for text in texts:
            for entry in _text_entry(text, str(text.relative_to(path).with_suffix("")), faults):
                entries.append(entry)
        if not entries:
            raise BadInputError("no .txt transcripts in this folder.", file=path)
        return Table(path, entries, faults)
    if not path.is_file():
        raise BadInputError("no such file.", fix="--transcripts takes a CSV, TSV, JSONL or text file.", file=path)
    if path.name.endswith(".trans.txt"):
        return _libri_speech(path, names)
    if path.suffix.lower() in TABLE_SUFFIXES:
        plain = (path.parent / "clips").is_dir() and path.suffix.lower() == ".tsv"
        return read_table(path, names.__contains__, plain_tsv=plain)
    try:
        return read_table(path, names.__contains__)
    except NotTranscriptsError:
        return read_lines(path, names.__contains__)


def _libri_speech(path: Path, names: Names) -> Table:
    """`<speaker>-<chapter>-<n> WORDS` lines; the speaker's number becomes voice_id."""
    entries = []
    folder = path.parent.relative_to(names.root) if path.is_relative_to(names.root) else Path()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, _, words = line.strip().partition(" ")
        if name:
            speaker, dash, _rest = name.partition("-")
            # The name is that of a file in the same folder: other folders may repeat it.
            entries.append(Entry(str(folder / name), clean(words), path, number, speaker if dash else None))
    return Table(path, entries, [])


def _common_voice(found: Folder) -> list[Path]:
    homes = sorted({path.parent for path in found.tables if (path.parent / "clips").is_dir()})
    chosen = []
    for home in homes:
        here = {path.name: path for path in found.tables if path.parent == home}
        for group in _COMMON_VOICE:
            listed = [here[name] for name in group if name in here]
            if listed:
                chosen += listed
                break
    return chosen


def _sidecars(found: Folder) -> Table | None:
    """Texts that lie beside a recording of the same name (`a.txt`, `a.wav.txt`, `a.lab` for `a.wav`)."""
    texts = {_parts(str(path.relative_to(found.root))): path for path in found.texts}
    entries: list[Entry] = []
    faults: list[Fault] = []
    for path in found.audio:
        shown = str(path.relative_to(found.root))
        parts = _parts(shown)
        for base in (_stem(parts[-1]), parts[-1]):
            text = next((t for s in _SIDECARS if (t := texts.get((*parts[:-1], base + s)))), None)
            if text is not None:
                entries += _text_entry(text, shown, faults)
                break
    return Table(found.root, entries, faults) if entries or faults else None


def _text_entry(path: Path, name: str, faults: list[Fault]) -> Iterator[Entry]:
    try:
        yield Entry(name, clean(read_text(path)), path, 1)
    except BadInputError as error:
        faults.append(Fault(name, f"its transcript {path.name}: {error.problem}"))


def _agreeing(table: Table, sidecars: Table, found: Folder, names: Names) -> Table:
    """The sidecars of recordings that the table does not name; raises where the two contradict each other."""
    said = {path: entry for entry in table.entries for path in names.find(entry.name, table.path.parent)}
    left = []
    for entry in sidecars.entries:
        other = said.get(found.root / entry.name)
        if other is None:
            left.append(entry)
        elif other.text != entry.text:
            raise BadInputError(
                f"two transcripts for {entry.name}: {_shown(found, table.path)} (line {other.line}) and "
                f"{_shown(found, entry.file)} differ.",
                fix=f"Say which to use: --transcripts {table.path.name}.",
                file=found.root,
            )
    return Table(sidecars.path, left, sidecars.faults)


def _no_transcripts(found: Folder, refused: list[BadInputError]) -> BadInputError:
    """Why no transcripts were found, with the nearest miss first."""
    if refused:
        first = refused[0]
        return BadInputError(first.problem, fix=first.fix, file=first.file, line=first.line)
    sheet = f" {found.spreadsheets[0].name} is a spreadsheet: save it as CSV." if found.spreadsheets else ""
    return BadInputError(
        f"{counted(len(found.audio), 'recording')}, but no transcripts.{sheet}",
        fix="Put a CSV with the columns audio_filepath and text beside them, or a .txt beside each.",
        file=found.root,
    )
