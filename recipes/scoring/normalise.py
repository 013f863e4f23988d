"""Text to comparable words, in three named modes.

`nvidia`    NFKD, lower case, everything but word characters, spaces and hyphens removed, spaces collapsed:
            compatible with NVIDIA's clinical evaluation, its defects included (`1.0 mg` reads as `10 mg`,
            `½` as `12`, combining marks of Indic scripts are lost).
`clinical`  safe, the default. Numbers are compared by value and keep their unit; see the table in `clinical`.
`plain`     nothing but splitting at white space, as jiwer does by default.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from recipes.scoring.numerals import FRACTION_SLASH, MINUS, canonical, fraction, spell, value_of

MODES = ("clinical", "nvidia", "plain")

_NOT_SIMPLE = re.compile(r"[^A-Za-z \t\r\n]")
_NOT_PLAIN_PROSE = re.compile(r"[^A-Za-z_ \t\r\n.,;:!?\-\"()]")  # neither digits nor symbols: only splitting
_PROSE_MARKS = str.maketrans(dict.fromkeys('.,;:!?-"()', " "))
_NVIDIA_DROPS = re.compile(r"[^\w\s\-]")


def normaliser(mode: str) -> Callable[[str], str]:
    """The function of a mode, text to text; its words are what `str.split` gives. ValueError if unknown."""
    try:
        return {"clinical": clinical, "nvidia": nvidia, "plain": plain}[mode]
    except KeyError:
        raise ValueError(f"no such mode {mode!r}: one of {', '.join(MODES)}") from None


def plain(text: str) -> str:
    """White space collapsed, nothing else."""
    return " ".join(text.split())


def nvidia(text: str) -> str:
    """NFKD, lower, strip all but word characters, white space and hyphens, collapse spaces."""
    if _NOT_SIMPLE.search(text):
        text = _NVIDIA_DROPS.sub("", unicodedata.normalize("NFKD", text).lower())
        return " ".join(text.split())
    return " ".join(text.lower().split())


def clinical(text: str) -> str:
    """The canonical form of a transcript: words and numbers with one space between them. Idempotent.

    Letters     NFKC; case folded (ß is ss, both Turkish i are i); accents fold on Latin and Greek, Russian ё
                reads е; marks of other scripts stay; æ reads ae, œ reads oe; each Chinese or Japanese
                character is a word.
    Words       punctuation splits words, a hyphen or dash as a space does; an apostrophe between letters
                joins (Crohn's is crohns); an underscore is a letter.
    Numbers     by value: .5 = 0.5, 2.50 = 2.5, 1,000 = 1 000 = 1000, 10,5 = 10.5, ½ = 1/2 = 0.5, 1½ = 1.5; the
                digits of all scripts are 0-9; 120/80, 10:30 and 10⁹ stay whole (never 109); a minus stays.
    Units       10mg = 10 mg; %, °C, currency, < > ≤ ≥ before a number and a trailing + stay; µg = mcg.
    Not folded  spelling (xray is not x-ray) and spoken numbers (ten is not 10): misses a person should see.
    """
    if _NOT_SIMPLE.search(text):
        if _NOT_PLAIN_PROSE.search(text):
            return " ".join(_words(text, ""))
        text = text.translate(_PROSE_MARKS)
    return " ".join(text.lower().split())


def clinical_words(text: str) -> list[str]:
    """The words of `clinical`, but with the apostrophe between letters still in them, for possessives."""
    return _words(text, "'")


# --- characters ---------------------------------------------------------------------------------------

_APOSTROPHES = "\u2019\u2018\u02bc\u201b\uff07`\u00b4\u2032\u02b9\ua78c"
_SYMBOLS = "%\u2030\u00b0<>\u2264\u2265\u00b1$\u20ac\u00a3\u00a5\u20b9" + MINUS + FRACTION_SLASH
_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_PLAIN_DIGITS = str.maketrans(_SUPERSCRIPTS + "\u207b\u207a", "0123456789" + MINUS + "+")
_BEFORE = str.maketrans(
    dict.fromkeys(_APOSTROPHES, "'")
    | {
        "\u2122": " ",
        "\u2120": " ",
        "\u200b": " ",
        "\u066b": ".",
        "\u066c": ",",
        "\u00d7": " x ",
        "\u02c2": "<",
    }
)
_LETTERS = str.maketrans({"\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u0131": "i", "\u00e6": "ae", "\u0153": "oe"})
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")  # a decimal digit of any other script
_GROUP_SPACES = re.compile(r"(?<![\d.,])\d{1,3}(?:[\u00a0\u2009\u202f]\d{3})+(?!\d)")
_RAISED = re.compile(rf"(?<=\d)([\u207a\u207b]?[{_SUPERSCRIPTS}]+)")
_VULGAR = "\u00bc-\u00be\u2150-\u215e\u2189"
_MIXED = re.compile(rf"(?:(?<![\w.,/:^])(\d+)[ \u00a0\u2009\u202f]?)?([{_VULGAR}])")
_LATIN_MARKS = re.compile(r"(?<=[a-z\u03b1-\u03c9])[\u0300-\u036f]+")
_STRESS = re.compile(r"(?<=[\u0430-\u044f])[\u0300\u0301]+|(?<=\u0435)\u0308")
_FOREIGN = re.compile(r"[^\w\s\x00-\x7f]")
_UNSPACED = re.compile(
    "([\u3005-\u3007\u3041-\u3096\u309d-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]\u3099?)"
)


def _unicode(text: str) -> str:
    """Fold a text with characters beyond ASCII, numbers before anything that would glue them together."""
    text = _FOREIGN_DIGIT.sub(lambda m: str(unicodedata.decimal(m[0])), text)
    text = _GROUP_SPACES.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = re.sub("(?<=\\d)\u00ba", "\u00b0", text)
    text = _MIXED.sub(_mixed, text)
    text = _RAISED.sub(lambda m: "^" + m[1].translate(_PLAIN_DIGITS).lstrip("+"), text)
    text = unicodedata.normalize("NFKD", text.translate(_BEFORE)).casefold()
    text = unicodedata.normalize("NFKD", text.translate(_LETTERS)).translate(_BEFORE)
    text = _STRESS.sub("", _LATIN_MARKS.sub("", text))
    text = _FOREIGN.sub(lambda m: _foreign(m[0]), unicodedata.normalize("NFC", text))
    return _UNSPACED.sub(r" \1 ", text)


@lru_cache(maxsize=4096)
def _foreign(char: str) -> str:
    """A character that is neither ASCII nor a letter or number: kept, dropped, or a space."""
    if char in _SYMBOLS or (unicodedata.category(char)[0] == "M" and not 0xFE00 <= ord(char) <= 0xFE0F):
        return char
    return "" if unicodedata.category(char) in ("Cf", "Mn") else " "


def _mixed(match: re.Match[str]) -> str:
    value = fraction(unicodedata.normalize("NFKC", match[2]))
    if value is None:  # \u21890/3 and the like: NFKC says what it can
        return match[0]
    return f" {spell(int(match[1] or 0) + value)} "


# --- words --------------------------------------------------------------------------------------------

_LETTER_APOSTROPHE = re.compile(r"(?<=[^\W\d])'(?=[^\W\d])")
_SWISS_GROUP = re.compile(r"(?<=\d)'(?=\d{3}(?!\d))")
_TIMES = re.compile(r"(?<=\d)x(?=\d)")
_EDGE = r"\x00-\x20!-/:-@\[-^`{-\x7f" + re.escape(_SYMBOLS)  # ends a word: ASCII punctuation and our symbols
_TOKEN = re.compile(
    r"(?P<ordinal>\d+(?:,\d{3})*(?:st|nd|rd|th)(?![^\W_]))"
    rf"|(?P<sign>[-{MINUS}]?)(?P<number>(?:\d+|(?<![\w.])\.\d+)(?:[.,:/{FRACTION_SLASH}]\d+|\^[-{MINUS}]?\d+)*)"
    r"(?P<plus>(?:\+(?!\w))*)"
    rf"|(?P<word>[^\s{_EDGE}]+(?:'[^\s{_EDGE}]+)*\+*)"
    rf"|(?P<compare><=|>=|[<>\u2264\u2265\u00b1])(?=\s*[-{MINUS}.]?\d)"
    r"|(?P<symbol>[%\u2030\u00b0$\u20ac\u00a3\u00a5\u20b9])"
)
_GROUP = re.compile(r"0\d\d")
_UNITS = {"\u03bcg": "mcg", "\u03bcl": "mcl", "\u03bcmol": "mcmol"}
_ASCII_MICRO = {"ug": "mcg", "ul": "mcl", "umol": "mcmol"}  # only just after a number


def _words(text: str, apostrophe: str) -> list[str]:
    text = text.lower().replace("`", "'") if text.isascii() else _unicode(text)
    if "'" in text:
        text = _LETTER_APOSTROPHE.sub(apostrophe, _SWISS_GROUP.sub("", text))
        if not apostrophe:
            text = text.replace("'", " ")
    text = _TIMES.sub(" x ", text)
    words: list[str] = []
    end, after_number, grouped = 0, False, False
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if match["number"] is not None:
            # `10 000 units`: no number of its own begins with a nought and has three digits.
            grouped = after_number and _GROUP.fullmatch(match[0]) is not None and _opens_group(words[-1], grouped)
            if grouped:
                words[-1] += match[0]
            else:
                _add_number(words, text, match, after_number and text[end : match.start()].isspace())
            after_number, end = True, match.end()
            continue
        if kind == "word":
            word = _UNITS.get(match["word"], match["word"])
            if word in ("c", "f") and words and words[-1] == "\u00b0":
                words[-1] += word
            else:
                words.append(_ASCII_MICRO.get(word, word) if after_number else word)
        elif kind == "ordinal":
            digits, suffix = match["ordinal"][:-2], match["ordinal"][-2:]
            words.append((digits.replace(",", "").lstrip("0") or "0") + suffix)
        elif kind == "compare":
            words.append({"<=": "\u2264", ">=": "\u2265"}.get(match["compare"], match["compare"]))
        else:
            words.append(match[0])
        after_number, end = False, match.end()
    return words


def _opens_group(number: str, grouped: bool) -> bool:
    return number.isdigit() and number[0] != "0" and (grouped or len(number) <= 3)


def _add_number(words: list[str], text: str, match: re.Match[str], follows_number: bool) -> None:
    """Append a number: its sign only where it is one, and `1 1/2` as the one value 1.5."""
    number, plus, start = match["number"], match["plus"], match.start()
    mixed = fraction(number) if "/" in number and follows_number and not match["sign"] else None
    if mixed is not None and words[-1].lstrip(MINUS).isdigit():
        whole = value_of(words[-1])
        if whole is not None:
            negative = words[-1].startswith(MINUS)
            words[-1] = (MINUS if negative else "") + spell(abs(whole) + mixed) + plus
            return
    said = canonical(number) + plus
    if match["sign"] and said != "0":
        before = text[start - 1] if start else " "
        # `5 -10` is a range, `x-5` a hyphen; only a sign that opens a word is a minus.
        if (before.isspace() or before in "([{<>=~\u2264\u2265\u00b1") and (
            match["sign"] == MINUS or not follows_number
        ):
            said = MINUS + said
    words.extend(said.split())
