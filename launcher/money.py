"""Money: exact dollars, never a float."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_MICRO = Decimal("0.000001")
_WRITTEN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)  # no exponent: nobody means 1e9


class Usd(Decimal):
    """US dollars as a Decimal rounded to a millionth; refuses floats, NaN and infinities."""

    def __new__(cls, value: str | int | Decimal) -> Self:
        """Parse an exact amount; raises ValueError on a float, NaN or anything that is not a number."""
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise ValueError(f"money must be written as text or a whole number, not {value!r}")
        if isinstance(value, str) and not _WRITTEN.fullmatch(value.strip()):
            hint = "a point, not a comma: 2.50" if "," in value else "write it as 2.50"
            raise ValueError(f"not an amount of dollars: {value[:40]!r}; {hint}")
        try:
            exact = Decimal(value)
        except (InvalidOperation, TypeError) as error:
            raise ValueError(f"not an amount of dollars: {value!r}") from error
        if not exact.is_finite():
            raise ValueError(f"not an amount of dollars: {value!r}")
        try:
            return super().__new__(cls, exact.quantize(_MICRO))
        except InvalidOperation:  # more than 22 digits
            raise ValueError("no amount of dollars is that large") from None

    def __add__(self, other: Decimal | int) -> Usd:
        return Usd(Decimal(self) + Decimal(other))

    __radd__ = __add__

    def __sub__(self, other: Decimal | int) -> Usd:
        return Usd(Decimal(self) - Decimal(other))

    def __mul__(self, other: Decimal | int) -> Usd:
        return Usd(Decimal(self) * Decimal(other))

    __rmul__ = __mul__

    def __str__(self) -> str:
        """The shortest exact text with at least two and at most four decimals, rounded up (never shown too low)."""
        cents = self.quantize(Decimal("0.0001"), rounding=ROUND_CEILING)
        text = f"{cents:f}"
        whole, _, fraction = text.partition(".")
        fraction = fraction.rstrip("0").ljust(2, "0")
        return f"{whole}.{fraction}"

    def __format__(self, spec: str, _context: object = None) -> str:
        """As `str` unless a format is asked for, so that f"${amount}" shows dollars as people write them."""
        return super().__format__(spec) if spec else str(self)

    def __repr__(self) -> str:
        return f"Usd('{Decimal(self):f}')"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept text, whole numbers and YAML's decimals (by their shortest text); write text."""

        def parse(value: Any) -> Usd:
            if type(value) is cls:
                return value  # exact already
            # A YAML scalar such as 2.50 arrives as a float whose repr is the text the user wrote.
            return cls(f"{Decimal(repr(value)):f}") if type(value) is float else cls(value)

        return core_schema.no_info_plain_validator_function(parse, serialization=core_schema.to_string_ser_schema())


ZERO = Usd(0)
