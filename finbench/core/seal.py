"""The seal of a card: which of its values was edited after it was written.

A seal is the SHA-256 of the whole, and for every value in order the first hex digits of a salted SHA-256 of its path
and content. It is no signature: who edits and seals again is not noticed by the
seal, but by what is recomputed from the samples, from the data, or by asking the model again.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.files import digest, stable_json

KEY = "seal"
SALT = "finbench-v1:"
DIGITS = 4  # a value
_MOST = 2**53  # sums and quotients of a few such are numbers too


def salted(text: object) -> str:
    """128 bits of salted SHA-256: tells texts apart, and confirms one that is known, without giving it away."""
    return hashlib.sha256((SALT + str(text)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf, keys sorted; an empty list or object is a leaf."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from leaves(value[key], f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple) and value:
        for number, part in enumerate(value):
            yield from leaves(part, f"{path}[{number}]")
    else:
        yield path, value


def beyond(value: Any) -> list[str]:
    """Paths of the numbers beyond 2^53, up to which every reader sees the same number."""
    return [path for path, leaf in leaves(value) if type(leaf) in (int, float) and not -_MOST < leaf < _MOST]


def _digits(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    rest = {key: part for key, part in card.items() if key != KEY}
    return [(path, salted(path + "=" + stable_json(leaf))[:DIGITS]) for path, leaf in leaves(rest)]


def card_seal(card: Mapping[str, Any]) -> str:
    """Seal of a card's JSON: SHA-256 of the whole, then four hex digits a value."""
    return _seal(card, _digits(card))


def _seal(card: Mapping[str, Any], values: Sequence[tuple[str, str]]) -> str:
    whole = digest({key: part for key, part in card.items() if key != KEY})
    return whole + ":" + "".join(digits for _, digits in values)


def edited(card: Mapping[str, Any]) -> list[str]:
    """Paths of the values that are not those that were sealed; empty if all are.

    Where values were added or taken away, the paths from the first difference on cannot be told apart, and only
    that first one is named.
    """
    stated = str(card.get(KEY, "")).rpartition(":")[2]
    have = _digits(card)
    want = [stated[start : start + DIGITS] for start in range(0, len(stated), DIGITS)]
    wrong = [path for (path, digits), sealed in zip(have, want, strict=False) if digits != sealed]
    if len(want) != len(have):
        return [f"{KEY} (or a value was added or removed)", *wrong[:1]]
    if not wrong and card.get(KEY) != _seal(card, have):
        return [KEY]
    return wrong


def refuse_edited(card: Mapping[str, Any], place: str) -> None:
    """FinbenchError for a card whose numbers are to go elsewhere, and are not those that were sealed."""
    if places := edited(card):
        raise FinbenchError(
            f"{place} was edited after it was written: {places[0]}.", f"finbench verify {shlex.quote(place)}"
        )
