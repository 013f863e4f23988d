"""Text from strangers as a terminal may have it: what would move its cursor, colour it or turn a line is spelled out.

A machine's offer, a provider's error, a recipe's log and a file's name can hold anything. ESC would clear the screen,
a line end would fake a line of ours, and a sign that turns the direction of writing would swap two prices.
"""

from __future__ import annotations

import json
import unicodedata

_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats (turning signs), halves of signs, line ends
_JOINERS = "\u200c\u200d"  # Persian, Hindi and many others are written with them; they turn nothing


def visible(text: str, keep: str = "\n\t") -> str:
    """The text with all that a terminal acts on as `\\x1b`; `keep`: signs of that kind that stay as they are."""
    if text.isprintable():
        return text
    return "".join(_spelled(c) if not c.isprintable() and c not in keep else c for c in text)


def one_line(text: str) -> str:
    """The same, of which nothing can begin a line of its own."""
    return visible(text, keep="")


def escaped(text: str) -> str:
    """JSON text in which a terminal finds nothing to act on: signs that JSON leaves as they are, as `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(c if c in _JOINERS or unicodedata.category(c) not in _ACTING else _unit(c) for c in text)


def _unit(sign: str) -> str:
    return json.dumps(sign)[1:-1] if sign != "\x7f" else "\\u007f"


def _spelled(sign: str) -> str:
    if unicodedata.category(sign) not in _ACTING or sign in _JOINERS:
        return sign
    return sign.encode("unicode_escape").decode("ascii")
