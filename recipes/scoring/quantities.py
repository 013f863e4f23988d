"""Numbers and units, spoken or written, and the errors in them, listed on their own.

Works on words of `clinical` form. Written numbers are understood in every language, spoken ones in English.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from recipes.scoring.normalise import clinical
from recipes.scoring.numerals import spell, value_of

_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90,
}  # fmt: skip
_SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_DIGITS = {word: str(value) for word, value in _SMALL.items() if value < 10} | {"oh": "0"}
_PARTS = {"half": Fraction(1, 2), "quarter": Fraction(1, 4)}

_STARTS = frozenset([*_SMALL, *_TENS, *_PARTS, "a", "point"])

_UNIT_NAMES = {
    "mg": "milligram milligrams milligramme milligrammes mgs",
    "mcg": "microgram micrograms microgramme microgrammes mcgs",
    "ng": "nanogram nanograms",
    "g": "gram grams gramme grammes",
    "kg": "kilogram kilograms kilo kilos kgs",
    "ml": "milliliter milliliters millilitre millilitres mls cc ccs",
    "mcl": "microliter microliters microlitre microlitres",
    "dl": "deciliter deciliters decilitre decilitres",
    "l": "liter liters litre litres",
    "mmol": "millimole millimoles",
    "mcmol": "micromole micromoles",
    "mol": "mole moles",
    "meq": "milliequivalent milliequivalents",
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "unit": "units",
    "iu": "ius",
    "%": "percent pct",
    "\u00b0": "degree degrees",
    "\u00b0c": "celsius centigrade",
    "\u00b0f": "fahrenheit",
    "mmhg": "",
    "bpm": "",
    "hz": "hertz",
    "tablet": "tablets tab tabs",
    "capsule": "capsules",
    "puff": "puffs",
    "drop": "drops",
    "h": "hour hours hr hrs",
    "min": "minute minutes mins",
    "s": "second seconds sec secs",
    "day": "days",
    "week": "weeks wk wks",
    "month": "months",
    "year": "years yr yrs",
    "lb": "pound pounds lbs",
    "oz": "ounce ounces",
}
_UNITS = {name: symbol for symbol, names in _UNIT_NAMES.items() for name in [symbol, *names.split()]}
_TELLING = frozenset([*_SMALL, *_TENS, *_SCALES, *_PARTS, *_UNITS, "hundred", "point"])
_NUMBER_WORD = re.compile(
    r"[\d\u2212]|\b(?:" + "|".join([*_SMALL, *_TENS, *_SCALES, *_PARTS, "hundred", "point"]) + r")\b"
)


class Quantity(NamedTuple):
    """A number and its unit: `value` compares, `said` is how the words had it, `spoken` if in words."""

    value: Fraction | str
    unit: str
    said: str
    spoken: bool
    start: int
    end: int

    @property
    def key(self) -> tuple[Fraction | str, str]:
        """What makes two quantities the same."""
        return self.value, self.unit


def quantities(words: list[str]) -> list[Quantity]:
    """The quantities among words of `clinical` form, in order."""
    found, i = [], 0
    while i < len(words):
        value: Fraction | str | None
        if words[i][0].isdigit() or (words[i][0] == "\u2212" and len(words[i]) > 1):
            written = value_of(words[i])
            value, end, spoken = written if written is not None else words[i], i + 1, False
            if written is not None and end < len(words) and words[end] in _SCALES:
                value, end = written * _SCALES[words[end]], end + 1
        else:
            spoken, end = True, i
            value, end = _spoken(words, i) if words[i] in _STARTS else (None, i)
        if value is None:
            i += 1
            continue
        unit, after = _unit(words, end)
        found.append(Quantity(value, unit, " ".join(words[i:after]), spoken, i, after))
        i = after
    return found


def as_written(words: list[str]) -> str:
    """The text with every quantity as digits and a unit symbol: `ten milligrams` becomes `10 mg`."""
    return _written(words, quantities(words))


def _written(words: list[str], found: list[Quantity]) -> str:
    out: list[str] = []
    last = 0
    for q in found:
        value = q.value if isinstance(q.value, str) else spell(abs(q.value))
        sign = "\u2212" if isinstance(q.value, Fraction) and q.value < 0 else ""
        out += [*words[last : q.start], sign + value, *([q.unit] if q.unit else [])]
        last = q.end
    return " ".join(out + words[last:])


def number_errors(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """Where two texts of `clinical` form disagree about a number or its unit: (reference, hypothesis, kind).

    Kinds: `tenfold` (off by a power of ten), `value`, `unit`, `missing`, `added`, and `number_format` (the
    same quantity said another way: `ten milligrams` for `10 mg`).
    """
    if reference == hypothesis or not (_NUMBER_WORD.search(reference) or _NUMBER_WORD.search(hypothesis)):
        return []
    words, other = reference.split(), hypothesis.split()
    if [w for w in words if _telling(w)] == [w for w in other if _telling(w)]:
        return []
    said, heard = quantities(words), quantities(other)
    found: list[tuple[str, str, str]] = []
    # Aligned by value alone: a unit that was lost must not push the number onto another one.
    for op in Levenshtein.opcodes([str(q.value) for q in said], [str(q.value) for q in heard]):
        if op.tag in ("equal", "replace"):
            pairs = zip(said[op.src_start : op.src_end], heard[op.dest_start : op.dest_end], strict=True)
            found += [(a.said, b.said, _kind(a, b)) for a, b in pairs if a.said != b.said]
        # A lone `one` or `half` in running speech is seldom a quantity.
        found += [(q.said, "", "missing") for q in said[op.src_start : op.src_end]
                  if op.tag == "delete" and not _idle(q)]  # fmt: skip
        found += [("", q.said, "added") for q in heard[op.dest_start : op.dest_end]
                  if op.tag == "insert" and not _idle(q)]  # fmt: skip
    return found


def _telling(word: str) -> bool:
    return word in _TELLING or word[0] in "0123456789\u2212"


def numbers_wrong(text: str, pred_text: str, normal: tuple[str, str] | None = None) -> list[tuple[str, str, str]]:
    """`number_errors` of two raw texts, in the raw texts' own words where they can be found.

    `normal` holds their `clinical` forms where the caller has them.
    """
    if text == pred_text:
        return []
    said, heard = normal or (clinical(text), clinical(pred_text))
    found = number_errors(said, heard)
    return [(_raw(text, a), _raw(pred_text, b), kind) for a, b, kind in found]


def _raw(text: str, said: str) -> str:
    """The words of `text` that read `said` once normalised: `1.0 mg` rather than `1 mg`."""
    words = text.split()
    if not said or f" {said} " in f" {' '.join(words)} ":
        return said
    count = len(said.split())
    for start, word in enumerate(words):
        if not said.startswith(_first(word)):
            continue
        for end in range(start + 1, min(start + count + 1, len(words)) + 1):
            if clinical(" ".join(words[start:end])) == said:
                return " ".join(words[start:end]).strip(',.;:!?"()')
    return said


@lru_cache(maxsize=65_536)
def _first(word: str) -> str:
    """The first word that a raw word reads as; for one that reads as nothing, what no text begins with."""
    return (clinical(word) or "\0").split()[0]


def same_in_another_form(term: str, hypothesis: str) -> tuple[str, str] | None:
    """For a missed keyword with a number in it: its words and the hypothesis's, if only the form differs."""
    words = term.split()
    mine = quantities(words)
    if not mine:
        return None
    heard = hypothesis.split()
    theirs = quantities(heard)
    said = [q.said for q in theirs if q.key in {m.key for m in mine}]
    if not said or f" {_written(words, mine)} " not in f" {_written(heard, theirs)} ":
        return None
    return term, " ".join(said)


def _idle(quantity: Quantity) -> bool:
    return quantity.spoken and not quantity.unit and quantity.said in ("one", "half", "quarter", "a")


def _kind(a: Quantity, b: Quantity) -> str:
    if a.key == b.key:
        return "number_format"
    if a.value == b.value:
        return "unit"
    if isinstance(a.value, Fraction) and isinstance(b.value, Fraction) and a.value and b.value:
        ratio = a.value / b.value
        ratio = 1 / ratio if abs(ratio) < 1 else ratio
        digits = str(ratio.numerator)
        if ratio.denominator == 1 and digits[0] == "1" and not digits[1:].strip("0") and len(digits) > 1:
            return "tenfold"
    return "value"


def _unit(words: list[str], i: int) -> tuple[str, int]:
    unit = _UNITS.get(words[i], "") if i < len(words) else ""
    if unit == "\u00b0" and i + 1 < len(words) and _UNITS.get(words[i + 1], "") in ("\u00b0c", "\u00b0f"):
        return _UNITS[words[i + 1]], i + 2
    return unit, i + 1 if unit else i


def _spoken(words: list[str], i: int) -> tuple[Fraction | None, int]:
    """The spoken English number that starts at `i`, and where it ends; (None, i) where none does."""
    whole, end = _spoken_whole(words, i)
    value = None if whole is None else Fraction(whole)
    rest = words[end : end + 3]
    if rest[:1] == ["point"] and len(rest) > 1 and rest[1] in _DIGITS:
        end, decimals = end + 1, ""
        while end < len(words) and words[end] in _DIGITS:
            decimals, end = decimals + _DIGITS[words[end]], end + 1
        return (value or Fraction(0)) + Fraction(int(decimals), 10 ** len(decimals)), end
    if value is None:
        return _spoken_part(words, i) if words[i] in _PARTS else (None, i)
    if rest[:2] == ["and", "a"] and rest[-1] in _PARTS:  # two and a half
        return value + _PARTS[rest[-1]], end + 3
    if rest and value < 4 and rest[0].removesuffix("s") in _PARTS:  # three quarters
        return value * _PARTS[rest[0].removesuffix("s")], end + 1
    return value, end


def _spoken_part(words: list[str], i: int) -> tuple[Fraction, int]:
    """`half`, and past the filler of `half a tablet` so that the unit is found."""
    for filler in (["of", "a"], ["a"], ["an"]):
        end = i + 1 + len(filler)
        if words[i + 1 : end] == filler and end < len(words) and words[end] in _UNITS:
            return _PARTS[words[i]], end
    return _PARTS[words[i]], i + 1


def _spoken_whole(words: list[str], i: int) -> tuple[int | None, int]:
    """A spoken whole number: the words of one number, not of several said in a row (`one two three`)."""
    total, current, last = 0, None, ""
    numbers = _SMALL | _TENS
    while i < len(words):
        word, following = words[i], words[i + 1] if i + 1 < len(words) else ""
        if word in numbers:
            starts = current is None or last == "scale"
            if not (starts or last == "hundred" or (last == "tens" and 0 < numbers[word] < 10)):
                break
            current = numbers[word] + (0 if starts or current is None else current)
            last = "tens" if word in _TENS else "small"
        elif word == "hundred" and current and current < 100 and last in ("small", "tens"):
            current, last = current * 100, "hundred"
        elif word in _SCALES and current is not None and last != "scale":
            total, current, last = total + current * _SCALES[word], 0, "scale"
        elif word == "a" and current is None and (following == "hundred" or following in _SCALES):
            current, last = 1, "small"
        elif not (word == "and" and last in ("hundred", "scale") and following in numbers):
            break
        i += 1
    return (None if current is None else total + current), i
