"""Answers to questions about fifty financial formulas, worked out anew from the numbers in the question.

A published answer counts if its formula gives it, to the two decimals in which it is printed, for some way to put the
question's numbers in: amounts for amounts, percentages for rates, times for times. Then its decimals beyond the second
are known too. An answer that no way gives was copied from another question, or is of another formula.
"""

import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterator

_SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "m": 1e6, "billion": 1e9, "b": 1e9, "trillion": 1e12}
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?\$?\s?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)\s?"
    r"(?:(%|per ?cent\b)|(thousand|million|billion|trillion|[kKMB]\b)|-?\s?(months?|quarters?|days?|weeks?)\b)?"
)
_PER_YEAR = {"month": 12, "quarter": 4, "day": 365, "week": 52}
_WORDS = dict(zip("one two three four five six seven eight nine ten".split(), range(1, 11), strict=True))  # noqa: SIM905
_OFTEN = {"annual": 1, "semi": 2, "bi-annual": 2, "biannual": 2, "quarter": 4, "month": 12, "week": 52, "daily": 365}

Ways = tuple[str, Callable[..., float]]  # a letter for each variable, and the formula of them


def _black_scholes(s: float, x: float, r: float, v: float, t: float) -> float:
    d1 = (math.log(s / x) + (r + v * v / 2) * t) / (v * math.sqrt(t))
    normal = statistics.NormalDist().cdf
    return s * normal(d1) - x * math.exp(-r * t) * normal(d1 - v * math.sqrt(t))


def _ratio(a: float, b: float) -> float:
    return a / b


# a: an amount, r: a rate, t: a time in years, n: how often a year. Names as far as they are one formula's.
_FORMULAS: dict[str, tuple[Ways, ...]] = {
    "accounts receivable turnover": (("aa", _ratio),),
    "annual percentage rate": (("aaat", lambda f, i, p, t: (f + i) / p / t),),
    "beta": (("aa", _ratio),),
    "black-scholes": (("aarrt", _black_scholes),),
    "capital asset pricing": (("rar", lambda f, b, m: f + b * (m - f)),),
    "compound interest": (
        ("arnt", lambda p, r, n, t: p * (1 + r / n) ** (n * t)),
        ("art", lambda p, r, t: p * math.exp(r * t)),
    ),
    "cost of equity": (("aar", lambda d, p, g: d / p + g),),
    "current ratio": (("aa", _ratio),),
    "days sales outstanding": (("aat", lambda a, c, t: a / c * 365 * t), ("aaa", lambda a, c, n: a / c * n)),
    "debt service coverage": (("aa", _ratio),),
    "debt-to-equity": (("aa", _ratio),),
    "dividend discount": (("arr", lambda d, r, g: d / (r - g)),),
    "dividend payout": (("aa", _ratio),),
    "dividend yield": (("aa", _ratio),),
    "ev/ebitda": (("aa", _ratio), ("aaaa", lambda m, d, c, e: (m + d - c) / e), ("aaa", lambda v, e, d: v / (e + d))),
    "earnings per share": (("aaa", lambda n, d, s: (n - d) / s), ("aa", _ratio)),
    "effective annual rate": (("rn", lambda r, n: (1 + r / n) ** n - 1),),
    "enterprise value": (("aaa", lambda m, d, c: m + d - c),),
    "free cash flow": (("aa", lambda o, c: o - c), ("aaa", lambda o, c, d: o - c - d)),
    "future value": (("art", lambda p, r, n: p * (1 + r) ** n),),
    "gross domestic product": (("aaaaa", lambda c, i, g, x, m: c + i + g + x - m),),
    "gross profit margin": (("aa", lambda p, r: 100 * p / r), ("aa", lambda r, c: 100 * (r - c) / r)),
    "inflation rate": (("aa", lambda new, old: 100 * (new - old) / old),),
    "interest coverage": (("aa", _ratio),),
    "interest rate parity": (("arr", lambda s, d, f: s * (1 + d) / (1 + f)),),
    "inventory turnover": (("aa", _ratio), ("aaa", lambda c, b, e: 2 * c / (b + e))),
    "jensen": (("rrar", lambda i, f, b, m: i - (f + b * (m - f))),),
    "market capitalization": (("aa", lambda n, p: n * p),),
    "modigliani": (("ara", lambda u, t, d: u + t * d),),
    "net profit margin": (("aa", lambda p, r: 100 * p / r),),
    "operating margin": (("aa", lambda p, r: 100 * p / r),),
    "present value": (("art", lambda f, r, n: f / (1 + r) ** n),),
    "price-to-book": (("aa", _ratio),),
    "price-to-earnings": (("aa", _ratio),),
    "purchasing power parity": (("aaa", lambda a, b, c: a * b / c),),
    "put-call parity": (
        ("aaart", lambda p, s, x, r, t: p + s - x / (1 + r) ** t),
        ("aaart", lambda c, s, x, r, t: c - s + x / (1 + r) ** t),
    ),
    "quick ratio": (("aaa", lambda a, i, d: (a - i) / d),),
    "return on assets": (("aa", lambda n, a: 100 * n / a),),
    "return on equity": (("aa", lambda n, e: 100 * n / e),),
    "return on investment": (("aa", lambda g, c: (g - c) / c), ("aaa", lambda g, c, d: (g - c - d) / (c + d))),
    "sharpe": (("rrr", lambda p, f, s: (p - f) / s),),
    "simple interest": (("art", lambda p, r, t: p * r * t),),
    "sortino": (("rrr", lambda p, f, s: (p - f) / s),),
    "treynor": (("rra", lambda p, f, b: (p - f) / b),),
    "unemployment rate": (("aa", lambda u, n: 100 * u / n),),
    "wacc": (("aarrr", lambda e, d, re, rd, t: e / (e + d) * re + d / (e + d) * rd * (1 - t)),),
    "working capital": (("aa", lambda a, d: a - d), ("aaaa", lambda a, b, c, d: a + b + c - d)),
    "balance of trade": (("aa", lambda x, m: x - m),),
}


_STATED, _ASKED = re.compile(r"\((\w)_(\d)\)\s*="), re.compile(r"\((\w)_(\d)\)\W*$")


def recomputed(name: str, question: str, published: str) -> tuple[str, str]:
    """(why the published answer cannot be right or "", the same with more decimals or "" where they are not known).

    Six digits of each value that is printed so, where the numbers can be put in in several ways.

    Net present values are worked out in ``npv.py``.
    """
    low, gold = name.casefold(), float(published)
    if "operating cash flow" in low:
        return "the formula adds the change in working capital, and the answers subtract an increase", ""
    if "balance of trade" in low and gold < 0 and "deficit" in question:
        return "a deficit is asked for, and the answer has a minus sign", ""
    asked = _ASKED.search(question)
    if asked and asked.groups() in _STATED.findall(question):
        return "what is asked for is stated", ""
    known = next((ways for key, ways in _FORMULAS.items() if key in low), None)
    if known is None or "net present value" in low:
        return "", ""
    values = sorted(_fitting(known, _numbers(question), gold))
    if not values:
        return "the formula does not give the published answer with any of the question's numbers", ""
    return "", " ".join(dict.fromkeys(f"{value:.6g}" for value in values))


def _fitting(ways: tuple[Ways, ...], numbers: dict[str, list[tuple[int, float]]], published: float) -> Iterator[float]:
    slack = max(0.005 + 1e-9, 1e-4 * abs(published))
    for letters, formula in ways:
        for chosen in itertools.product(*(numbers[letter] for letter in letters)):
            places = [place for place, _ in chosen if place >= 0]
            if len(set(places)) == len(places):  # no number of the question twice
                try:
                    value = formula(*(value for _, value in chosen))
                except (ZeroDivisionError, ValueError, OverflowError):
                    continue
                if abs(value - published) <= slack:
                    yield value


def _numbers(question: str) -> dict[str, list[tuple[int, float]]]:
    """(place, value) of what the question states, by the letter of the variables that it may be."""
    found: dict[str, list[tuple[int, float]]] = {"a": [], "r": [], "t": [], "n": []}
    for match in _NUMBER.finditer(question):
        digits, percent, scale, unit = match.groups()
        value, place = float(digits.replace(",", "")), match.start()
        if percent:
            found["r"].append((place, value / 100))
        elif unit:
            found["t"] += [(place, value / _PER_YEAR[unit.rstrip("s")]), (place, value)]
            found["a"].append((place, value))
        else:
            value *= _SCALES[scale.casefold()] if scale else 1
            found["a"].append((place, value))
            found["t"].append((place, value))
            if value < 1:
                found["r"].append((place, value))
    low = question.casefold()
    for word, value in _WORDS.items():
        found["t"] += [(match.start(), float(value)) for match in re.finditer(rf"\b{word}[\s-]years?\b", low)]
    found["n"] += [(-1, float(often)) for word, often in _OFTEN.items() if word in low] or [(-1, 1.0)]
    return found
