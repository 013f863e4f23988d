"""Written numbers, compared by value: `.5` is `0.5`, `1,000` is `1000`, `1.0` is `1` and never `10`.

A number is kept as a string of digits throughout (never a float), so that no dose is rounded.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

FRACTION_SLASH = "\u2044"
MINUS = "\u2212"

# The fractions Unicode has a character for. `1/2` typed in ASCII is the same value as the character;
# any other a/b (120/80, grade 2/4, 24/7) is two numbers held together, not a value.
_COMMON = {Fraction(n, d) for d in (2, 3, 4, 5, 6, 8) for n in range(1, d)} | {
    Fraction(1, 7), Fraction(1, 9), Fraction(1, 10)
}  # fmt: skip
_COMMON_TEXT = {f"{f.numerator}/{f.denominator}": f for f in _COMMON}

_ENGLISH_GROUPS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?")
_EUROPEAN_GROUPS = re.compile(r"[1-9]\d{0,2}(?:(?:\.\d{3}){2,}|(?:\.\d{3})+(?=,))(?:,\d+)?")
_PLAIN = re.compile(r"\d*\.\d+|\d+")
_DECIMAL_COMMA = re.compile(r"\d+,\d+")


@lru_cache(maxsize=65_536)
def canonical(number: str) -> str:
    """The one spelling of a written number: digits with `.`, `/`, `:`, `,`, `^` or a fraction slash inside.

    `1,000` and `1.000.000` lose their group marks; `10,5` and `0,125` are decimal commas; a single point
    is always a decimal point (`1.000` is one). `10:30`, `120/80` and `10^9` stay one token. A list without
    spaces (`1,2,3`) comes back as several tokens with spaces between them.
    """
    if "^" in number:
        base, _, power = number.partition("^")
        return f"{canonical(base)}^{power.replace('-', MINUS)}"
    for mark in (":", FRACTION_SLASH, "/"):
        if mark in number:
            return _compound(number, mark)
    pieces = [number] if _decimal(number) is not None else number.split(",")
    return " ".join(_decimal(piece) or piece for piece in pieces)  # 1.2.3 stays: a version, a date, a section


def _compound(number: str, mark: str) -> str:
    """Numbers held together by `:`, `/` or a fraction slash: a value if a fraction, else one token."""
    value = fraction(number) if mark != ":" else None
    if value is not None:
        return spell(value)
    if mark == FRACTION_SLASH:
        return number
    keep_zeros = mark == ":"  # 10:05 is a time
    return mark.join(_decimal(part, keep_zeros) or part for part in number.split(mark))


def fraction(number: str) -> Fraction | None:
    """The value of `1/2` (only the common fractions) or of any `a⁄b`; None for all else."""
    if FRACTION_SLASH in number:
        top, _, bottom = number.partition(FRACTION_SLASH)
        if top.isdigit() and bottom.isdigit() and int(bottom) and len(number) < 12:
            return Fraction(int(top), int(bottom))
        return None
    return _COMMON_TEXT.get(number)


@lru_cache(maxsize=65_536)
def spell(value: Fraction) -> str:
    """A fraction as text: a decimal where it ends (0.5), else reduced with a fraction slash (1⁄3)."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}{FRACTION_SLASH}{value.denominator}"
    places = max(twos, fives)
    digits = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    return _strip(digits[:-places], digits[-places:]) if places else digits


@lru_cache(maxsize=65_536)
def value_of(token: str) -> Fraction | None:
    """The value of a canonical number token, sign included; None when it is not one number."""
    sign, body = (-1, token[1:]) if token.startswith(MINUS) else (1, token)
    if _PLAIN.fullmatch(body) and len(body) < 40:
        return sign * Fraction(body)
    value = fraction(body) if FRACTION_SLASH in body else None
    return None if value is None else sign * value


def _decimal(number: str, keep_zeros: bool = False) -> str | None:
    if _ENGLISH_GROUPS.fullmatch(number):
        number = number.replace(",", "")
    elif _EUROPEAN_GROUPS.fullmatch(number):
        number = number.replace(".", "").replace(",", ".")
    elif _DECIMAL_COMMA.fullmatch(number):
        number = number.replace(",", ".")
    elif not _PLAIN.fullmatch(number):
        return None
    whole, _, part = number.partition(".")
    return number if keep_zeros and not part else _strip(whole, part)


def _strip(whole: str, part: str) -> str:
    part = part.rstrip("0")
    if whole.strip("0") or part:  # the zeros of `1 000` are not one zero
        whole = whole.lstrip("0") or "0"
    elif not whole or len(whole) < 3:
        whole = "0"
    return f"{whole}.{part}" if part else whole
