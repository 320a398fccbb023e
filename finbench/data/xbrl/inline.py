"""Inline XBRL (1.0 and 1.1): the facts that an HTML report marks up.

Source: Inline XBRL 1.1 (2013-11-18). A filing is one document or a set of them: the facts of one may need the
contexts and continuations of another. ``ix:fraction`` and ``ix:tuple`` do not occur in US filings; they are counted.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from finbench.data.xbrl import transforms
from finbench.data.xbrl.model import LONGEST_NUMBER, LONGEST_VALUE, Fact, Filing, concept_name, plain
from finbench.data.xbrl.parsing import INLINE, XSI, Element, events, local, namespace, refuse, without_names
from finbench.data.xbrl.reader import MAX_FACTS, checked, refuse_many, short, take_definition

MAX_BYTES = 80 * 2**20  # the whole tree is kept, at up to twelve times the size: below a gigabyte
_MOST_PIECES = 200  # of text in a fact that is kept; facts may lie in facts, so that looking at more costs their square


def read_inline(name: str, data: bytes, more: Sequence[tuple[str, bytes]] = ()) -> Filing:
    """The filing in an inline document, or in a set of them: ``more`` has the name and content of the others.

    ``name`` is for messages; raises FinbenchError.
    """
    if sum(len(content) for _, content in [("", data), *more]) > MAX_BYTES:
        raise refuse(name, f"an inline document larger than {MAX_BYTES >> 20} MiB")
    filing = Filing(name, inline=True)
    continuations: dict[str, Element] = {}
    marked = _marked(filing, name, data, continuations)
    for part, content in more:
        marked += _marked(filing, part, content, continuations)
    for element in marked:
        _take(filing, element, continuations)
    return checked(filing)


def _marked(filing: Filing, name: str, data: bytes, continuations: dict[str, Element]) -> list[Element]:
    """The facts of one document in the order in which they begin; its definitions go to ``filing``."""
    marked: list[Element] = []
    refuse_many(name, data)
    for event, element in events(name, without_names(data)):
        kind = local(element) if namespace(element) in INLINE else ""
        if event == "start":
            if kind in ("nonFraction", "nonNumeric"):
                if len(marked) >= MAX_FACTS:
                    raise refuse(name, f"more than {MAX_FACTS:,} facts")
                marked.append(element)
        elif kind == "continuation":
            continuations[element.get("id") or ""] = element
        elif kind in ("fraction", "tuple"):
            filing.unread[f"ix:{kind}"] += 1
        else:
            take_definition(filing, element)
    return marked


def _qname(element: Element, name: str) -> tuple[str, str]:
    prefix, _, rest = name.rpartition(":")
    return element.nsmap.get(prefix or None) or "", rest


def _take(filing: Filing, element: Element, continuations: dict[str, Element]) -> None:
    if element.get("target"):
        filing.unread["facts of another target document"] += 1
        return
    uri, rest = _qname(element, element.get("name") or "")
    if not uri or not element.get("contextRef"):
        filing.unread["facts without a concept or a context"] += 1
        return
    format_uri, format_name = _qname(element, element.get("format") or "")
    if format_name and not transforms.known(format_uri):
        filing.unread[f"format {element.get('format')}"] += 1
        return
    concept = concept_name(uri, rest, (element.get("name") or "").partition(":")[0])
    context, nil = element.get("contextRef").strip(), element.get(f"{{{XSI}}}nil") in ("true", "1")
    is_number = local(element) == "nonFraction"
    unit = (element.get("unitRef") or "").strip() if is_number else ""
    if nil and is_number:
        filing.facts.append(Fact(concept, context, "", unit=unit, nil=True))
        return
    text = "" if nil else _text(element, {} if is_number else continuations)
    try:
        if is_number:
            scale, sign, decimals = (element.get(name) or "" for name in ("scale", "sign", "decimals"))
            number = scaled(transforms.read_number(text or "", format_name), scale, sign)
            filing.facts.append(Fact(concept, context, plain(number), number, unit, decimals, scale, sign))
        else:
            value = "" if text is None else short(transforms.read_text(text, format_name))
            filing.facts.append(Fact(concept, context, value, nil=nil))
    except ValueError:
        reason = "numbers that cannot be read" if is_number else f"format {element.get('format')}"
        filing.unread[reason] += 1


def scaled(value: Decimal, scale: str, sign: str) -> Decimal:
    """``value`` x 10^``scale``, negative if ``sign`` is "-". Raises ValueError for another scale or sign."""
    if not re.fullmatch(r"\s*(?:[+-]?\d{1,2})?\s*", scale, re.ASCII) or sign not in ("", "-"):
        raise ValueError(f"scale {scale!r}, sign {sign!r}")
    power = int(scale.strip() or "0")
    if abs(power) > LONGEST_NUMBER // 2:
        raise ValueError(f"scale {scale!r}")
    with decimal.localcontext() as context:
        context.prec = 4 * LONGEST_NUMBER  # the context's own 28 digits would round
        value = value.scaleb(power)
        return -value if sign else value


def _text(element: Element, continuations: dict[str, Element]) -> str | None:
    """The text of a fact: its own and that of its continuations, without what ix:exclude excludes; None if long."""
    parts: list[str] = []
    room = 4 * LONGEST_VALUE  # characters that are not blank
    seen: set[str] = set()
    part: Element = element
    while part is not None:
        for piece in _pieces(part):
            parts.append(piece)
            room -= len(piece) - sum(map(str.isspace, piece)) if len(piece) < 10 * LONGEST_VALUE else room + 1
            if room < 0 or len(parts) > _MOST_PIECES:
                return None
        following = part.get("continuedAt") or ""
        part = continuations.get(following) if following and following not in seen else None
        seen.add(following)
    return "".join(parts)


def _pieces(element: Element) -> Iterator[str]:
    """Text below an element in order, leaving out ix:exclude; the parser allows 256 levels."""
    yield element.text or ""
    for child in element:
        if not isinstance(child.tag, str):  # an entity that nobody declares: what it stands for is not known
            yield "\ufffd"
        elif local(child) != "exclude" or namespace(child) not in INLINE:
            yield from _pieces(child)
        yield child.tail or ""
