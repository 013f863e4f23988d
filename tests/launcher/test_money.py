from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.money import Usd


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_sums_of_micro_dollars_are_exact(a: int, b: int) -> None:
    one, two = Usd(Decimal(a) / 10**6), Usd(Decimal(b) / 10**6)
    assert (one + two) * 10**6 == a + b
    assert (one + two) - two == one


@pytest.mark.parametrize("value", [1.5, float("nan"), True, "nan", "inf", "", "two", None, "1,50"])
def test_what_is_no_exact_amount_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"money|amount"):
        Usd(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"),
        ("5", "5.00"),
        ("0.4123", "0.4123"),
        ("0.41235", "0.4124"),
        ("0.00001", "0.0001"),
        ("2.5", "2.50"),
    ],
)
def test_an_amount_is_never_shown_lower_than_it_is(amount: str, text: str) -> None:
    assert str(Usd(amount)) == text
    assert f"${Usd(amount)}" == f"${text}"
    assert Decimal(str(Usd(amount))) >= Usd(amount)
