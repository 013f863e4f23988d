"""The one place that takes secrets out of what is written or shown: by their values, and by the shapes of keys.

What passes through it: every line on a terminal and every JSON object (`install`), runner.log and tracebacks, the
event file, receipts, reports and logs that come home (`recipes.contract`), every text in the ledger
(`launcher.ledger.database`), notices to people, and a provider's words in an error.

A value is looked for as it is and as it is written in JSON, in a URL, in HTML and in base64. Where the values are
from: the environment, the files in which the providers' own tools keep their keys, and the leases' private keys
(`learn`). A value of fewer than eight characters is a word, not a key, and is left.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "***"
SHORTEST = 8  # characters of a value that counts as a key

#: Variables whose values are secret whatever they look like.
NAMED = frozenset({
    "RUNPOD_API_KEY", "VAST_API_KEY", "CONTAINER_API_KEY", "BREV_API_KEY", "LAMBDA_API_KEY", "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "NGC_API_KEY",
    "WANDB_API_KEY", "GITHUB_TOKEN", "PGPASSWORD", "AZURE_CLIENT_SECRET", "SKYPILOT_SERVICE_ACCOUNT_TOKEN",
})  # fmt: skip
_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY_ID)$", re.IGNORECASE)

#: Where the tools whose keys the launcher uses keep them, below the user's home.
FILES = (
    ".runpod/config.toml", ".config/vastai/vast_api_key", ".vast_api_key", ".brev/credentials.json",
    ".lambda_cloud/lambda_keys", ".hyperbolic/api_key", ".paperspace/config.json", ".prime/config.json",
    ".seeweb_cloud/seeweb_keys", ".shadeform/api_key", ".verda/config.json", ".aws/credentials",
    ".cache/huggingface/token",
)  # fmt: skip
_MOST_BYTES = 1 << 16  # of such a file
_ASSIGNED = re.compile(r"""(?:key|token|secret|password|key_id)["']?\s*[:=]\s*["']?([^\s"',;{}]+)""", re.IGNORECASE)

_DIGIT = r"(?=[^\s\"'<>]*\d)"
#: What must be in a text before its pattern is tried, the pattern, and what is left of it.
SHAPES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("-----BEGIN ", re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\:,-]*?"
                               r"(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|(?=[\"'<>{}])|\Z)"), HIDDEN),
    ("b3BlbnNzaC1rZXkt", re.compile(r"b3BlbnNzaC1rZXkt[A-Za-z0-9+/=\s\\]*"), HIDDEN),  # OpenSSH's, bare
    ("hf_", re.compile(r"\bhf_[A-Za-z0-9]{16,}"), HIDDEN),
    ("rpa_", re.compile(r"\brpa_[A-Za-z0-9]{16,}"), HIDDEN),  # RunPod's
    ("bak-", re.compile(rf"\bbak-{_DIGIT}[\w-]{{12,}}"), HIDDEN),  # Brev's
    ("eyJ", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"), HIDDEN),  # a JSON web token
    ("KIA", re.compile(r"\bAKIA[0-9A-Z]{16}\b"), HIDDEN),
    ("SIA", re.compile(r"\bASIA[0-9A-Z]{16}\b"), HIDDEN),
    ("gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}"), HIDDEN),
    ("github_pat_", re.compile(r"\bgithub_pat_\w{20,}"), HIDDEN),
    ("nvapi-", re.compile(r"\bnvapi-[\w-]{20,}"), HIDDEN),
    ("xox", re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"), HIDDEN),
    ("sk-", re.compile(rf"\bsk-{_DIGIT}[\w-]{{20,}}"), HIDDEN),
    ("earer ", re.compile(rf"\b([Bb]earer\s+){_DIGIT}[\w.~+/=-]{{12,}}"), rf"\1{HIDDEN}"),
    ("asic ", re.compile(rf"\b([Bb]asic\s+){_DIGIT}[\w+/=-]{{12,}}"), rf"\1{HIDDEN}"),
    ("://", re.compile(r"(://[^\s/@:\"'<>]*:)[^\s/@\"'<>]+(?=@)"), rf"\1{HIDDEN}"),  # a URL's password
    ("=", re.compile(r"([?&](?:api_?key|key|token|access_token|secret|password|signature|X-Amz-\w+)=)[^&\s\"'#<>]+",
                     re.IGNORECASE), rf"\1{HIDDEN}"),
    ("=", re.compile(rf"\b([A-Z0-9_]*(?:API_KEY|TOKEN|SECRET|PASSWORD|ACCESS_KEY)=[\"']?){_DIGIT}"
                     r"[^\s\"',;&<>$*]{8,}"), rf"\1{HIDDEN}"),  # an environment, printed
)  # fmt: skip

_learnt: set[str] = set()


def learn(*values: str) -> None:
    """Take these values out from now on, in this process."""
    _learnt.update(value for value in values if len(value) >= SHORTEST)


def redact(text: str) -> str:
    """The text without secrets; `***` stands for each."""
    return _without(text, _known())


def redacted(held: Any) -> Any:
    """The same data with every text in it (keys of mappings included) redacted."""
    return _walked(held, _known())


def _known() -> list[str]:
    """Every form of every secret; of two that overlap, the longer one first."""
    values = sorted(secrets(os.environ), key=len, reverse=True)
    return [form for value in values for form in _forms(value)]


def _without(text: str, known: list[str]) -> str:
    for form in known:
        if form in text:
            text = text.replace(form, HIDDEN)
    for needle, pattern, instead in SHAPES:
        if needle in text:
            text = pattern.sub(instead, text)
    return text


def _walked(held: Any, known: list[str]) -> Any:
    if isinstance(held, str):
        return _without(held, known) if type(held) is str else held  # an enum's name is ours
    if isinstance(held, Mapping):
        return {_walked(key, known): _walked(value, known) for key, value in held.items()}
    if isinstance(held, list):
        return [_walked(value, known) for value in held]
    return tuple(_walked(value, known) for value in held) if isinstance(held, tuple) else held


def secrets(environ: Mapping[str, str]) -> set[str]:
    """Every value that counts as a secret here and now."""
    found = {value for name, value in environ.items() if _is_secret(name, value)}
    for name in ("LAUNCHER_LEDGER", *_addresses(environ)):
        found |= _in_address(environ.get(name, ""))
    home = environ.get("HOME")
    for file in FILES if home else ():
        found |= _in_file(Path(str(home), file))
    return found | _learnt


def _is_secret(name: str, value: str) -> bool:
    if name in NAMED:
        return len(value) >= SHORTEST
    # A variable that only sounds like one: a path to a key, a switch or a common word is none.
    return (
        len(value) >= 2 * SHORTEST
        and _NAME.search(name) is not None
        and not value.startswith(("/", "~", "."))
        and any(c.isdigit() for c in value)
        and not any(c.isspace() for c in value.strip())
    )


def _addresses(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that hold an address with a password or token in it, such as those that people are told through."""
    return (name for name, value in environ.items() if "://" in value)


_PASSWORD = re.compile(r"://[^\s/@:]*:([^\s/@]+)@")
_PUBLIC = ("http://", "https://", "sqlite", "file:", "socks")


def _in_address(value: str) -> set[str]:
    """A URL's password; and the whole address, where every part of it may be a token (as apprise's are)."""
    found = {word for word in _PASSWORD.findall(value) if len(word) >= SHORTEST}
    if "://" in value and not value.startswith((*_PUBLIC, "postgresql")) and len(value) >= 2 * SHORTEST:
        found.add(value)
    return found


def _in_file(path: Path) -> set[str]:
    try:
        facts = path.stat()
    except OSError:
        return set()
    return _read(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int, _size: int) -> set[str]:
    """What a file of keys holds: the values that it names, or all of it where it is one word."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return set()
    found = set(_ASSIGNED.findall(text))
    if text and not any(c.isspace() for c in text):
        found.add(text)
    return {value for value in found if len(value) >= SHORTEST}


@lru_cache(maxsize=256)
def _forms(value: str) -> tuple[str, ...]:
    """A value as it may be written: itself, in JSON (both ways), in a URL, in HTML, in base64."""
    from html import escape

    plain = json.dumps(value, ensure_ascii=False)[1:-1]
    encoded = base64.b64encode(value.encode("utf-8", "surrogateescape")).decode().rstrip("=")
    forms = (value, plain, json.dumps(value)[1:-1], repr(value)[1:-1], quote(value, safe="", errors="replace"),
             quote_plus(value, errors="replace"), escape(value), encoded, quote(encoded, safe=""))  # fmt: skip
    return tuple(sorted({form for form in forms if form}, key=len, reverse=True))


class Shown:
    """A text stream that lets no secret through; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without secrets; its own length is returned, as every stream does."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write the lines in one piece."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


_before: list[tuple[Any, ...]] = []
_umask: list[int] = []


def install() -> None:
    """Let nothing out of this process unseen: its standard streams, its tracebacks, and what the contract writes.

    Its memory is not dumped either. Safe to repeat.
    """
    from recipes import contract

    if not _before:
        _before.append((sys.stdout, sys.stderr, sys.excepthook, contract.last_look))
        os.umask(umask := os.umask(0o077))
        _umask.append(umask)
        sys.excepthook, contract.last_look = _tell, redact
        _no_core()
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if stream is not None and not isinstance(stream, Shown):
            setattr(sys, name, Shown(stream))


def uninstall() -> None:
    """Take it back, in a process that goes on to other things."""
    from recipes import contract

    while _before:
        sys.stdout, sys.stderr, sys.excepthook, contract.last_look = _before.pop()
        os.umask(_umask.pop())


def make_private() -> None:
    """From here on a process of ours, where this is one, makes files for their owner alone: it keeps state."""
    if _before:
        os.umask(os.umask(0o077) | 0o077)


def _tell(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A traceback, whole before it is redacted: in pieces, a value could be cut in two."""
    import traceback

    text = redact("".join(traceback.format_exception(kind, error, trace)))
    if sys.stderr is not None:
        sys.stderr.write(text)


def _no_core() -> None:
    """A core file would hold this process's environment."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (ImportError, OSError, ValueError):
        pass


def learn_key(private: Path) -> None:
    """Take a private key's lines out, too: its body may be said without its first and last line."""
    try:
        lines = private.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return
    learn(*(line for line in lines if len(line) >= 3 * SHORTEST and not line.startswith("-----")))
