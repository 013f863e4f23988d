"""Reads what a torch file's pickle would do, without doing it: only what rebuilds plain tensors may be loaded.

A pickle is a program; loading one from a stranger runs it. The programs allowed here are those that torch's own
`weights_only` unpickler runs (torch 2.13, torch/_weights_only_unpickler.py), without its rarer names: the same
opcodes, and of names only tensors, their storages and types. Older versions of NeMo load without `weights_only`, so
the file is read before any of them sees it. Standard library only.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from typing import IO

#: The opcodes that torch's unpickler knows. None of them finds a name but GLOBAL, which spells it out.
_OPCODES = frozenset({
    "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MARK", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET",
    "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINPERSID", "BINGET",
    "LONG_BINGET", "BINPUT", "LONG_BINPUT", "LONG1", "PROTO", "STOP",
})  # fmt: skip
_NAMES = re.compile(
    r"collections OrderedDict"
    r"|torch (?:\w+Storage|\w*Tensor|Size|device|b?float\w+|u?int\d+|bool|complex\d+)"
    r"|torch\.(?:cuda|storage) \w+Storage"
    r"|torch\.nn\.parameter Parameter"
    r"|torch\._utils _rebuild_(?:tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|qtensor|sparse_tensor)"
)
_MOST_BYTES = 64 << 20  # of the pickle: names and shapes of the weights of a model
_MOST_RECORDS = 200_000


class ForeignPickle(Exception):  # noqa: N818  (says what it is about)
    """A torch file that would do more than rebuild tensors, or is built so that two readers may see two files."""


class ForeignCode(ForeignPickle):
    """A sound torch file whose pickle calls something: loading it runs what its maker wrote."""


def check_torch_file(file: IO[bytes], size: int) -> None:
    """Raise ForeignPickle unless loading this torch file (a zip, `size` bytes) only rebuilds tensors.

    Raises zipfile.BadZipFile for what is no zip.
    """
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        _refuse_ambiguity(file, size, archive, records)
        pickles = [record for record in records if record.filename.endswith(".pkl")]
        if any(record.filename.endswith("constants.pkl") or "/code/" in record.filename for record in records):
            raise ForeignPickle("it is a program (TorchScript), not weights")
        if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
            raise ForeignPickle(f"it holds {len(pickles)} pickles where weights have one, data.pkl")
        if pickles[0].file_size > _MOST_BYTES:
            raise ForeignPickle("its data.pkl is too large to describe weights")
        foreign = foreign_parts(archive.read(pickles[0]))
    if foreign:
        raise ForeignCode(f"loading it would call {', '.join(foreign[:5])}")


def foreign_parts(pickle: bytes) -> list[str]:
    """What a pickle does beyond rebuilding tensors: names it would call, opcodes of another kind, and torn ends."""
    found: dict[str, None] = {}
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "GLOBAL":
                if not _NAMES.fullmatch(str(argument)):
                    found[str(argument).replace(" ", ".", 1)] = None
            elif opcode.name not in _OPCODES:
                found[f"a name made while it runs ({opcode.name})" if "GLOBAL" in opcode.name else opcode.name] = None
    except (ValueError, UnicodeDecodeError, OverflowError, MemoryError):
        found["something after its end is lost"] = None
    return list(found)


def _refuse_ambiguity(
    file: IO[bytes], size: int, archive: zipfile.ZipFile, records: list[zipfile.ZipInfo]
) -> None:
    """Torch reads zips with another library: a file that could be two different zips is none of either's."""
    file.seek(max(0, size - 22))
    if archive.comment or not file.read(4) == b"PK\x05\x06":
        raise ForeignPickle("something stands after the end of its zip")
    if len(records) > _MOST_RECORDS or len({record.filename for record in records}) != len(records):
        raise ForeignPickle("its zip holds a name twice, or too many")
    if min((record.header_offset for record in records), default=0) != 0:
        raise ForeignPickle("something stands before its zip")
    if any(record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records):
        raise ForeignPickle("its zip is packed or locked, which torch never writes")
    if sum(record.file_size for record in records) > size:
        raise ForeignPickle("its zip claims more than it holds")
