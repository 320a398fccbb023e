"""EM and F1 of TAT-QA as its authors' script counts them, written from a description of it. Standard library only.

Spans are sorted and joined, numbers rounded to two decimals times their scale.
"""

import math
import re
import string
from collections.abc import Sequence

_SCALES = (("hundred", 100), ("thousand", 1000), ("million", 10**6), ("billion", 10**9), ("percent", 0.01))
_SCALED = re.compile(r"(?P<span>.+) (?P<scale>thousand|million|billion|percent)s?", re.IGNORECASE)
_CLEAN = str.maketrans("", "", "'\"\\$€£¥%(),[]")
_FIRST = re.compile(r"([+-]?\d+(?:\.\d+)?)|[+-]?\.\d+")
_UNITS = re.compile(r"(?<![\d.])[\d.]+\s?[a-zA-Z]+")
_BRACKETS = re.compile(r"\([\d.\s]+\)")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def without_scale(spans: Sequence[str]) -> tuple[list[str], str]:
    """Spans and the scale word that all of them end with, as TAT-QA's predictions state them; "" if they have none."""
    found = [_SCALED.fullmatch(span) for span in spans]
    scales = {match["scale"].casefold() if match else "" for match in found}
    numbers = all(match and _is_number(match["span"]) for match in found)
    if len(scales) == 1 and numbers and found:
        return [match["span"] for match in found if match], scales.pop()
    return list(spans), ""


def _scale(word: str) -> float:
    return next((factor for name, factor in _SCALES if name in word.lower()), 1)


def _is_number(text: str) -> bool:
    words = " ".join(word.translate(_CLEAN) for word in text.split()).split()
    try:
        if not words or math.isnan(float(words[0])):
            return False
    except ValueError:
        return False
    return len(words) < 2 or _scale(words[1]) != 1


def _number(text: str) -> float | None:
    found = _FIRST.search(text.translate(_CLEAN))
    if found is None or not found[1] or len(found[1]) > 300:  # more digits than a float has
        return None
    units = _UNITS.search(text)
    value = (float(found[1]) if "." in found[1] else int(found[1])) * (_scale(units[0]) if units else 1)
    value *= -1 if _BRACKETS.search(text.strip()) else 1
    return round(value * (0.01 if re.search(r"[\d.\s]%", text.strip()) else 1), 4)


def _text(spans: Sequence[str], scale: str) -> str:
    made = []
    for span in sorted(spans):
        number = _number(span) if _is_number(span) else None
        if number is None:
            made.append(f"{span} {scale}" if scale else span)
        else:
            made.append(f"{number if '%' in span else round(number, 2) * _scale(scale):.4f}")
    return " ".join(made)


def _normal(text: str) -> str:
    parts = []
    for token in text.lower().split(" "):
        bare = token if _is_number(token) else token.translate(_PUNCTUATION)
        bare = str(_number(bare)) if _is_number(bare) else bare  # "None" of ".5", as there
        parts.append(" ".join(_ARTICLES.sub(" ", bare).split()))
    return " ".join(part for part in parts if part)


def official(
    said: Sequence[str], said_scale: str, spans: Sequence[str], scale: str, number: bool
) -> tuple[float, float]:
    """(EM, F1) as the authors' script counts them: of the best reading of what was said. (0, 0) for nothing."""
    if not said:
        return 0.0, 0.0
    readings = [_text(said, said_scale)]
    if len(said) == 1 and not said_scale and "%" not in said[0] and _is_number(said[0]):
        bare = _number(said[0])
        readings += [] if bare is None else [f"{bare:.4f}"]
    gold = _normal(_text(spans, scale))
    best = max((float(_normal(text) == gold), _f1(_normal(text).split(), gold.split())) for text in readings)
    return best[0], best[0] if number else best[1]


def _f1(said: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two sets of words, to two decimals."""
    one, other = set(said), set(gold)
    precision = len(one & other) / len(one) if one else 1.0
    recall = len(one & other) / len(other) if other else 1.0
    return round(2 * precision * recall / (precision + recall), 2) if precision or recall else 0.0
