"""Numbers of filings: the XBRL lexical form, inline transformations, scale and sign."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import within
from finbench.data.xbrl.inline import scaled
from finbench.data.xbrl.model import day, number, plain
from finbench.data.xbrl.transforms import known, read_number, read_text

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18, places=6)


@given(DECIMALS)
def test_a_number_survives_being_written_and_read(value: Decimal) -> None:
    assert number(plain(value)) == value
    assert number(f"{value:e}") == value


@given(DECIMALS)
def test_plain_has_neither_exponent_nor_idle_zeros(value: Decimal) -> None:
    text = plain(value)
    assert "E" not in text.upper()
    assert text != "-0"
    assert "." not in text or not text.endswith(("0", "."))


@given(st.text(max_size=80))
def test_any_text_is_a_number_or_none_and_never_an_error(text: str) -> None:
    found = number(text)
    if found is not None:
        assert found.is_finite()
        assert float(found) == pytest.approx(float(text))


@pytest.mark.parametrize(
    "text", ["", " ", "INF", "-INF", "NaN", "1,000", "0x10", "1e999", "٣", "1 000", "--1", "1.2.3", "1e", "9" * 61, "½"]
)
def test_what_is_no_number(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "value"), [("+5", "5"), ("-.5", "-0.5"), ("7.", "7"), (" 12\n", "12"), ("1.5E3", "1500")]
)
def test_what_is_a_number(text: str, value: str) -> None:
    assert number(text) == Decimal(value)


@given(st.integers(min_value=0, max_value=10**15), st.integers(min_value=0, max_value=6))
def test_printed_numbers_are_read_in_both_decimal_conventions(whole: int, places: int) -> None:
    value = Decimal(whole).scaleb(-places)
    english = f"{value:,.{places}f}"
    european = english.translate(str.maketrans(",.", ".,"))
    assert read_number(english, "num-dot-decimal") == value
    assert read_number(european, "num-comma-decimal") == value
    assert read_number(european.replace(".", " "), "numspacecomma") == value
    assert read_number(english.replace(",", "\u00a0"), "numdotdecimal") == value


@given(st.integers(min_value=0, max_value=999_999_999))
def test_numbers_in_words(value: int) -> None:
    assert read_number(in_words(value), "numwordsen") == value


def in_words(value: int) -> str:
    """English words of a number below a billion."""
    ones = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
    ]
    ones += ["seventeen", "eighteen", "nineteen"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            head, rest = divmod(value, size)
            joint = " and " if size == 100 else ", "
            return f"{in_words(head)} {name}" + (f"{joint}{in_words(rest)}" if rest else "")
    if value < 20:
        return ones[value]
    return tens[value // 10 - 2] + (f"-{ones[value % 10]}" if value % 10 else "")


@pytest.mark.parametrize(
    ("text", "form", "value"),
    [
        ("—", "zerodash", "0"),
        ("-", "numdash", "0"),
        ("nothing at all", "fixed-zero", "0"),
        ("None", "numwordsen", "0"),
        ("a hundred", "numwordsen", "100"),
        ("12,34,567.5", "numdotdecimalin", "1234567.5"),
        ("1'000.5", "num-dot-decimal-apos", "1000.5"),
        (".5", "num-dot-decimal", "0.5"),
        ("26", "", "26"),
    ],
)
def test_other_formats(text: str, form: str, value: str) -> None:
    assert read_number(text, form) == Decimal(value)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1.2.3", "num-dot-decimal"),
        ("", "num-dot-decimal"),
        ("(12)", "num-dot-decimal"),
        ("-5", ""),
        ("1,000", ""),
        ("5", "zerodash"),
        ("lots", "numwordsen"),
        ("5", "numhebrew"),
        ("٣", "num-dot-decimal"),
        ("9" * 100, "num-dot-decimal"),
    ],
)
def test_what_cannot_be_read_is_refused_not_guessed(text: str, form: str) -> None:
    with pytest.raises(ValueError):
        read_number(text, form)


@given(st.text(max_size=60), st.sampled_from(["num-dot-decimal", "num-comma-decimal", "numwordsen", "zerodash", ""]))
def test_any_text_under_any_format_is_a_number_or_a_value_error(text: str, form: str) -> None:
    with contextlib.suppress(ValueError):
        assert read_number(text, form) >= 0


def test_long_texts_take_no_time() -> None:
    with within(1):
        for form in ("num-dot-decimal", "numwordsen", "zerodash"):
            for text in ("1," * 500_000, " " * 1_000_000 + "x", "and " * 200_000):
                with pytest.raises(ValueError):
                    read_number(text, form)
        assert number(" " * 1_000_000) is None


@given(st.integers(min_value=0, max_value=10**9), st.integers(min_value=-6, max_value=12), st.booleans())
def test_scale_and_sign(value: int, scale: int, minus: bool) -> None:
    expected = Decimal(value) * Decimal(10) ** scale
    assert scaled(Decimal(value), str(scale), "-" if minus else "") == (-expected if minus else expected)


@pytest.mark.parametrize(("scale", "sign"), [("x", ""), ("99", ""), ("-99", ""), ("6", "+"), ("1.5", "")])
def test_a_wrong_scale_or_sign_is_refused(scale: str, sign: str) -> None:
    with pytest.raises(ValueError):
        scaled(Decimal(1), scale, sign)


def test_dates() -> None:
    assert day("2023-12-31") == "2023-12-31"
    assert day("2024-01-01T00:00:00", ends=True) == "2023-12-31"
    assert day("2023-12-31T23:59:59", ends=True) == "2023-12-31"
    assert day("2023-01-01T00:00:00") == "2023-01-01"
    for text in ("", "2023", "31.12.2023", "2023-13-01", "2023-12-31 noon", "2023-12-31T25"):
        with pytest.raises(ValueError):
            day(text)


def test_texts() -> None:
    assert read_text("September\u00a028, 2024", "date-monthname-day-year-en") == "2024-09-28"
    assert read_text("28 September 2024", "datedaymonthnameyearen") == "2024-09-28"
    assert read_text("☒", "fixed-true") == "true"
    assert read_text(" a \n b ", "") == "a b"
    with pytest.raises(ValueError):  # not known: left out, not guessed
        read_text("one year", "durwordsen")
    with pytest.raises(ValueError):
        read_text("soon", "date-monthname-day-year-en")


def test_only_registries_give_formats() -> None:
    assert known("http://www.xbrl.org/inlineXBRL/transformation/2020-02-12")
    assert known("http://www.xbrl.org/2008/inlineXBRL/transformation")
    assert known("http://www.sec.gov/inlineXBRL/transformation/2015-08-31")
    assert not known("http://example.com/inlineXBRL/transformation")
