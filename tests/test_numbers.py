"""tasks/lib/numbers.py: which number an answer is."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import task_helper, within

amounts, numbers = task_helper("amounts"), task_helper("numbers")


def number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("1000", "1000"),
        ("1,000", "1000"),
        ("1000.0", "1000"),
        ("1,234,567.89", "1234567.89"),
        ("1,000 million", "1e9"),
        ("007", "7"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("-0", "0"),
        ("+5", "5"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("(12)", "-12"),
        ("( 12 )", "-12"),
        ("($1,200)", "-1200"),
        ("(5%)", "-0.05"),
        ("$5", "5"),
        ("US$ 5", "5"),
        ("€5", "5"),
        ("USD 5", "5"),
        ("5 USD", "5"),
        ("5 dollars", "5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("$ −5", "-5"),
        ("$1.2 million", "1200000"),
        ("$1.2 Million", "1200000"),
        ("2 billion USD", "2e9"),
        ("0.5 trillion", "5e11"),
        ("3 thousand", "3000"),
        ("5%", "0.05"),
        ("5 %", "0.05"),
        ("12.5%", "0.125"),
        ("12.5 percent", "0.125"),
        ("12.5 per cent", "0.125"),
        ("2 percentage points", "0.02"),
        ("1.2bn", "1.2e9"),
        ("€1.2 mn", "1200000"),
        ("1.2 millions", "1200000"),
        ("1.2 USD million", "1200000"),
        ("<think>3</think>12", "12"),
        ("1e6", "1000000"),
        ("1.5E-3", "0.0015"),
        ("2e+2", "200"),
        ("12.", "12"),
        ("12.5.", "12.5"),
        ("1,000.", "1000"),
        ("`12`", "12"),
        ("**12**", "12"),
        ('"12"', "12"),
        (" 12 \n", "12"),
    ],
)
def test_one_number_reads_strictly_and_leniently_as(answer: str, value: str) -> None:
    assert (numbers.parse(answer), numbers.parse_lenient(answer)) == (Decimal(value), Decimal(value))


@pytest.mark.parametrize(
    ("answer", "lenient"),
    [
        # thousands and decimals that are in doubt
        ("1.000,00", None),
        ("1,00", None),
        ("1,0000", None),
        ("1,000,00", None),
        ("0,5", None),
        ("12 34", None),
        ("1 000", None),
        ("1_000", None),
        ("1.2.3", None),
        # signs and brackets that are in doubt
        ("--5", None),
        ("(-5)", None),
        ("-(12)", None),
        ("(12", None),
        ("12)", None),
        # no number
        ("", None),
        (".", None),
        ("$", None),
        ("-", None),
        ("NaN", None),
        ("inf", None),
        ("0x10", None),
        ("5th", None),
        ("1e-", None),
        ("1e1000", None),
        ("½", None),
        ("not stated", None),
        ("$5M", None),
        ("5k", None),
        ("5 million thousand", None),
        ("5 thousand USD million", None),
        ("<think>12", None),
        ("\x00", None),
        ("\ud800", None),
        # prose
        ("I think the value is 12.", "12"),
        ("Revenue was $1.2 million in total", "1200000"),
        ("It fell to -5 USD.", "-5"),
        ("I think the net loss was (12).", "-12"),
        ("as asked: 1,000, I think", "1000"),
        ("FY2021: 5", "5"),
        ("12, that is 12.0", "12"),
        ("12 and 13", None),
        ("between 10 and 12", None),
        ("In 2020 it was 5", None),
        ("The 12:30 train", None),
        # a second number is a second number wherever it stands
        ("It was 100 (up from 12)", None),
        ("3-5", None),
        ("in 2019-2020", None),
        ("3/4", None),
        ("It was " + "1" * 100 + ", or 12", None),
    ],
)
def test_what_is_not_one_number_reads_leniently_as(answer: str, lenient: str | None) -> None:
    assert (numbers.parse(answer), numbers.parse_lenient(answer)) == (None, number(lenient))


@pytest.mark.parametrize("dash", ["–", "‒", "—", "-", "－", "﹣"])
def test_no_dash_before_a_number_is_left_out(dash: str) -> None:
    assert numbers.parse(f"{dash}5") in (None, Decimal(-5))
    assert numbers.parse_lenient(f"{dash}5") in (None, Decimal(-5))


def test_a_later_line_may_explain_and_not_contradict() -> None:
    assert (numbers.parse("12\n13"), numbers.parse_lenient("12\n13")) == (None, None)
    assert numbers.parse("12\n12.0") == numbers.parse("12\n\nAssets: 24\nShares: 2") == Decimal(12)
    assert numbers.parse("The value:\n12") == Decimal(12)
    assert numbers.parse("The figures:\n12") is None


@pytest.mark.parametrize(
    "answer",
    [
        "1" * 1_000_000,
        "1," * 500_000,
        "1,111" * 200_000,
        "." * 1_000_000,
        "-" * 1_000_000,
        "(" * 1_000_000,
        "$" * 1_000_000,
        " " * 1_000_000 + "x",
        '"' + " " * 200 + "x",
        "5" + " " * 200 + "y",
        '"' + " " * 100 + "5" + " " * 100 + "y",
        "(" + " " * 1000 + "$" + " " * 1000 + "x",
        "x " * 500_000,
    ],
    ids=lambda answer: f"{answer[:3]!r} of {len(answer)}",
)
def test_a_hostile_answer_reads_as_none_and_fast(answer: str) -> None:
    with within(2):
        assert numbers.parse(answer) is None
        assert numbers.parse_lenient(answer) in (None, Decimal(5))


@pytest.mark.parametrize("length", [9_990, 9_998, 9_999, 10_000, 10_001])
def test_a_long_answer_never_yields_a_part_of_its_number(length: int) -> None:
    assert numbers.parse_lenient("x" * length + " 123456789012") in (None, Decimal(123456789012))


STYLES: dict[
    str, tuple[int, Callable[[Decimal], str]]
] = {  # name: (power of ten by which it is read, how it is written)
    "plain": (0, lambda d: f"{d:f}"),
    "commas": (0, lambda d: f"{d:,f}"),
    "exponent": (0, lambda d: f"{d:e}"),
    "unicode minus": (0, lambda d: f"{d:f}".replace("-", "−")),
    "plus": (0, lambda d: f"{d:+f}"),
    "dollar inside": (0, lambda d: f"${d:,f}"),
    "dollar outside": (0, lambda d: f"{'-' if d < 0 else ''}${d.copy_abs():,f}"),
    "currency code": (0, lambda d: f"{d:,f} USD"),
    "accounting": (0, lambda d: f"({d.copy_abs():,f})" if d < 0 else f"{d.copy_abs():,f}"),
    "percent": (-2, lambda d: f"{d:f} %"),
    "thousand": (3, lambda d: f"{d:f} thousand"),
    "million": (6, lambda d: f"${d:,f} million"),
    "trailing period": (0, lambda d: f"{d:f}."),
    "code ticks": (0, lambda d: f"`{d:f}`"),
    "bold": (0, lambda d: f"**{d:,f}**"),
}


@pytest.mark.parametrize("style", STYLES)
@given(value=st.decimals(-(10**18), 10**18, places=4) | st.integers(-(10**30), 10**30).map(Decimal))
def test_a_decimal_reads_back_exactly(style: str, value: Decimal) -> None:
    power, write = STYLES[style]
    expected = Decimal(f"{value:f}e{power}")
    assert (numbers.parse(write(value)), numbers.parse_lenient(write(value))) == (expected, expected)


PIECES = [*"0123456789.,()-−+$%`\n ", "e", "million", "USD", "x"]


@example("12\nmillion")
@given(st.text(st.characters(exclude_categories=())) | st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_the_lenient_reading_never_contradicts_the_strict_one(answer: str) -> None:
    strict, lenient = numbers.parse(answer), numbers.parse_lenient(answer)
    assert strict is None or lenient in (None, strict)
    assert all(value is None or value.is_finite() for value in (strict, lenient))


@pytest.mark.parametrize(
    ("answer", "acc", "lenient", "rate"),
    [
        ("1,000", 1.0, 1.0, 1.0),
        ("$1000.00", 1.0, 1.0, 1.0),
        ("1 thousand", 1.0, 1.0, 1.0),
        ("I think it is 1,000.", 0.0, 1.0, 0.0),
        ("1001", 0.0, 0.0, 1.0),
        ("1000\n1001", 0.0, 0.0, 0.0),
        ("-1000", 0.0, 0.0, 1.0),
        ("not stated", 0.0, 0.0, 0.0),
    ],
)
def test_an_answer_scores(answer: str, acc: float, lenient: float, rate: float) -> None:
    assert numbers.score({"answer": "1000"}, [answer]) == {"acc": acc, "acc_lenient": lenient, "parse_rate": rate}


def test_a_gold_answer_that_is_no_number_stops_the_run() -> None:
    with pytest.raises(ValueError, match="n/a"):
        numbers.score({"answer": "n/a"}, ["1"])


VALUES = st.integers(-(10**9), 10**9).map(lambda hundredths: Decimal(hundredths) / 100)


@pytest.mark.parametrize("style", [style for style, (power, _) in STYLES.items() if power >= 0])
@given(value=VALUES)
def test_a_computed_number_is_right_however_it_is_written(style: str, value: Decimal) -> None:
    power, write = STYLES[style]
    result = numbers.score_close({"answer": f"{value:f}"}, [write(value.scaleb(-power))])
    assert result == {"acc": 1.0, "exact": 1.0, "acc_lenient": 1.0, "parse_rate": 1.0}


@given(VALUES, VALUES)
def test_a_computed_number_is_right_within_half_a_cent_or_a_thousandth(gold: Decimal, answer: Decimal) -> None:
    result = numbers.score_close({"answer": f"{gold:f}"}, [f"{answer:f}"])
    rounded = min(Decimal("0.005"), abs(gold) / 50)
    assert result["acc"] == float(abs(answer - gold) <= max(rounded, abs(gold) / 1000))
    assert result["exact"] == float(answer == gold)


@given(st.floats(0.012, 9.9), st.floats(-0.12, 0.12))
def test_a_computed_number_is_right_with_more_decimals_than_asked_and_no_neighbour_is(true: float, off: float) -> None:
    """The value itself and its two decimals are right, however small; what is 2.5 to 12 % off is not, of either."""
    gold = f"{true:.2f}"
    doc = {"answer": gold, "unrounded": f"{true:.6g}"}
    for answer in (gold, f"{true:.4g}" if true > 0.1 else f"{true:.5f}", f"{true:.12f}"):
        assert numbers.score_close(doc, [answer])["acc"] == 1.0, answer
    said = true * (1 + off)
    if min(abs(said / true - 1), abs(said / float(gold) - 1)) > 0.025:
        assert numbers.score_close(doc, [f"{said:.12f}"])["acc"] == 0.0


@given(VALUES, st.sampled_from([0, 3, 6, 9]))
def test_a_figure_is_right_in_the_unit_asked_for_and_with_a_scale_word(value: Decimal, scale: int) -> None:
    doc = {"answer": f"${value:.2f}", "scale": scale}
    dollars = value.scaleb(scale)
    written = [f"${value:,.2f}", f"{value}", f"{dollars.scaleb(-6):f} million", f"${dollars.scaleb(-9):,f} billion"]
    if scale == 0:
        written.remove(f"{value}")  # the same
    for answer in written:
        assert numbers.score_unit(doc, [answer])["acc"] == 1.0, answer
    assert numbers.score_unit(doc, [f"{dollars:f}"])["acc_lenient"] == 1.0


@given(st.integers(-9999, 9999).map(lambda tenths: Decimal(tenths) / 10))
def test_a_percentage_is_right_in_percent_and_leniently_as_a_ratio(value: Decimal) -> None:
    doc = {"answer": f"{value}%", "scale": 0}
    for answer in (f"{value}%", f"{value} percent", f"{value}"):
        assert numbers.score_unit(doc, [answer])["acc"] == 1.0
    result = numbers.score_unit(doc, [f"{value / 100:f}"])
    assert (result["acc"], result["acc_lenient"]) == (float(abs(value) * 99 <= 5), 1.0)


@pytest.mark.parametrize(
    ("gold", "inside", "outside"),
    [
        ("$1577.00", "1577.5", "1577.51"),
        ("$8.70", "8.75", "8.751"),
        ("$0.40", "0.389", "0.34"),
        ("$1500.00", "1499.5", "1499"),
        ("2.50", "2.495", "2.494"),
        ("6.0%", "6.05%", "6.06%"),
        ("93", "93.5", "93.51"),
        ("0.0", "0", "0.01"),
    ],
)
def test_the_printed_precision_of_the_gold_is_the_tolerance(gold: str, inside: str, outside: str) -> None:
    doc = {"answer": gold, "scale": 6 if "$" in gold else 0}
    assert [numbers.score_unit(doc, [answer])["acc"] for answer in (gold, inside, outside)] == [1.0, 1.0, 0.0]


def test_a_gold_figure_with_a_scale_word_is_that_figure() -> None:
    doc = {"answer": "$1.2 million", "scale": 0}
    answers = ("$1.2 million", "1,200,000", "$1,249,000", "$1,251,000", "1.2")
    assert [numbers.score_unit(doc, [answer])["acc"] for answer in answers] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert numbers.score_unit({"answer": "$1.2 million", "scale": 6}, ["1.2"])["acc"] == 1.0


@pytest.mark.parametrize("score", ["score_close", "score_unit"])
def test_a_gold_figure_that_is_no_number_stops_the_run(score: str) -> None:
    with pytest.raises(ValueError, match="flat"):
        getattr(numbers, score)({"answer": "flat", "scale": 0}, ["1"])


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (r"12.5$\%$", "0.125"), (r"The answer is 12$\%$.", "0.12"), (r"12.5$\text{ million}$", "12500000"),
        (r"$12.5$$\%$", "0.125"), (r"12$\text{ percent}$", "0.12"), (r"12$\text{34}$", None),
        (r"\boxed{12}\boxed{34}", None), (r"\text{12}\text{34}", None), (r"\(12\)\(34\)", None), ("$1$$2$", None),
        ("12.5. This is a negative effect.", None), ("12.5; it has a negative impact", None),
        ("12.5, that is a net negative impact", None), ("12.5, because of the negative effect of currencies", "12.5"),
    ],
)  # fmt: skip
def test_dress_beside_a_number_joins_and_parts_nothing(answer: str, value: str | None) -> None:
    found = amounts.number(answer)
    percent = 2 if found and found.kind == "percent" else 0
    assert (found and amounts.shifted(found.number, found.power - percent)) == (value and Decimal(value))
