"""Which texts a model's tokenizer can write: from a .nemo, a SentencePiece model, or a list of tokens."""

from __future__ import annotations

import re
import tarfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.data.sentencepieces import Pieces, PiecesError, read_model
from launcher.errors import BadInputError

_LARGEST = 64 << 20  # bytes; tokenizers are a few hundred kB


@dataclass
class Tokenizer:
    """One or several tokenizers (a multilingual model has one a language); one that can write a text will do."""

    alternatives: list[Pieces]
    lower: bool = False  # the model lower-cases before it tokenizes
    _seen: dict[str, str] = field(default_factory=dict, repr=False)

    def missing(self, text: str) -> str:
        """The characters of `text` that no tokenizer has, in order, each once; empty when it can be written."""
        lacking = ""
        for word in text.split(" "):
            found = self._seen.get(word)
            if found is None:
                found = self._seen[word] = self._missing(word.lower() if self.lower else word)
            if found:
                lacking += found
        return "".join(dict.fromkeys(lacking))

    def _missing(self, word: str) -> str:
        return min((pieces.missing(word) for pieces in self.alternatives), key=len)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a .nemo, or in a .model, vocab.txt, .vocab or tokens.txt file.

    A .nemo is read as a tar, member by member, in memory: nothing is unpacked, nothing in it is executed. Raises
    BadInputError.
    """
    try:
        if path.is_dir():
            inside = next((p for name in ("tokenizer.model", "vocab.txt") if (p := path / name).is_file()), None)
            if inside is None:
                raise BadInputError("no tokenizer.model or vocab.txt in it.", key="--tokenizer", file=path)
            return load_tokenizer(inside)
        if path.suffix == ".nemo":
            return _from_nemo(path)
        if path.stat().st_size > _LARGEST:
            raise BadInputError("too large for a tokenizer.", key="--tokenizer", file=path)
        data = path.read_bytes()
        if path.suffix in {".txt", ".vocab"}:
            return Tokenizer([_from_tokens(data)])
        return Tokenizer([read_model(data)])
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror or error}).", key="--tokenizer", file=path) from error
    except (PiecesError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"not a tokenizer ({error}).",
            fix="Give a .nemo, a tokenizer.model, or a vocab.txt.",
            key="--tokenizer",
            file=path,
        ) from error


def _from_nemo(path: Path) -> Tokenizer:
    import yaml

    models: dict[str, bytes] = {}
    config: Any = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                wanted = name.endswith((".model", "vocab.txt")) or name == "model_config.yaml"
                if not (member.isfile() and wanted and member.size <= _LARGEST):
                    continue
                content = archive.extractfile(member)
                data = content.read() if content else b""
                if name == "model_config.yaml":
                    config = yaml.safe_load(data)
                else:
                    models[name] = data
    except (tarfile.TarError, EOFError, yaml.YAMLError) as error:
        raise BadInputError("not a .nemo file (a tar with a model in it).", key="--tokenizer", file=path) from error
    config = config if isinstance(config, dict) else {}
    pieces = [read_model(data) for name, data in models.items() if name.endswith(".model")]
    if not pieces:
        pieces = [_from_tokens(data) for name, data in models.items() if name.endswith("vocab.txt")]
    if pieces:
        return Tokenizer(pieces)
    decoder = config.get("decoder")
    labels = config.get("labels") or (decoder.get("vocabulary") if isinstance(decoder, dict) else None)
    if isinstance(labels, list) and labels:
        letters = frozenset(str(label) for label in labels)
        return Tokenizer([Pieces(letters)], lower=not any(letter.isupper() for letter in letters))
    raise BadInputError("no tokenizer in it.", key="--tokenizer", file=path)


def _from_tokens(data: bytes) -> Pieces:
    """A token a line, alone (vocab.txt), with a score (.vocab) or with its number (tokens.txt)."""
    pieces: set[str] = set()
    for line in data.decode("utf-8-sig").splitlines():
        token = re.split(r"[\t ]", line.strip("\r\n"), maxsplit=1)[0]
        if token and not re.fullmatch(r"<.+>|\[.+\]", token):
            pieces.add(token.removeprefix("##"))
    if not pieces:
        raise PiecesError("no tokens in it")
    return Pieces(frozenset(pieces | {c for piece in pieces for c in piece}))


def describe(characters: str) -> str:
    """Characters as a person can tell them apart: 'ж' (CYRILLIC SMALL LETTER ZHE)."""
    shown = [f"{c!r} ({unicodedata.name(c, f'U+{ord(c):04X}')})" for c in characters[:3]]
    return ", ".join(shown) + (f" and {len(characters) - 3} more" if len(characters) > 3 else "")
