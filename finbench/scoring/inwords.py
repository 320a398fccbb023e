"""Confidence that a model puts into words: what it is asked for, and how that is read. No torch.

It is read strictly: a line of its own with a whole number from 0 to 100, the last of the answer, or under ``cot`` the
last before the answer. Anything else is no statement; a line that was meant as one is no part of the answer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

_SURE = "say how sure you are that it is right, as a whole number from 0 to 100, in this form:\nConfidence: <number>"
AFTER = f"Give the answer first. Then, on a last line of its own, {_SURE}"
BEFORE = f"On the line before the answer, {_SURE}"  # of cot, whose last line is the answer
_LINE = re.compile(r"(?:\A|\n)[ \t]*[*_]*confidence[*_]*[ \t]*:(?P<said>[^\n]*)\s*\Z", re.IGNORECASE)
_NUMBER = re.compile(r"[ \t*_]*(?P<number>\d{1,3})[ \t]*%?[*_ \t]*\.?[ \t]*")


def asked_for(profile: str) -> str:
    """What is added to a prompt under a profile."""
    return BEFORE if profile == "cot" else AFTER


def read(text: str) -> tuple[str, int | None]:
    """The text without its last line, where that is about confidence; and the number there, None for none."""
    line = _LINE.search(text)
    if line is None:
        return text, None
    said = _NUMBER.fullmatch(line["said"])
    number = int(said["number"]) if said else -1
    return text[: line.start()].rstrip(), number if 0 <= number <= 100 else None


def parted(generated: Any, profile: str) -> tuple[Any, int | None]:
    """An answer that was taken apart without what it says of its confidence; and that, None where it says nothing."""
    if profile == "cot":
        return generated, read(generated.reasoning)[1] if generated.text else None
    text, sure = read(generated.text)
    return replace(generated, text=text), sure
