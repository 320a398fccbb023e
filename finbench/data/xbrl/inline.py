"""Inline XBRL (1.0 and 1.1): the facts that an HTML report marks up.

Source: Inline XBRL 1.1 (2013-11-18). One document a filing; a set of several documents is refused where the facts
of one need the contexts of another. ``ix:fraction`` and ``ix:tuple`` do not occur in US filings; they are counted.
"""

from __future__ import annotations

from decimal import Decimal

from finbench.data.xbrl import transforms
from finbench.data.xbrl.model import LONGEST_NUMBER, Fact, Filing, concept_name, plain
from finbench.data.xbrl.parsing import INLINE, XSI, Element, events, local, namespace, refuse
from finbench.data.xbrl.reader import MAX_FACTS, checked, short, take_definition

MAX_BYTES = 80 * 2**20  # the whole tree is kept, at up to twelve times the size: below a gigabyte
_TEXT_LIMIT = 100_000  # characters of a text block that are looked at; only short values are kept


def read_inline(name: str, data: bytes) -> Filing:
    """The filing in an inline document. ``name`` is for messages; raises FinbenchError."""
    if len(data) > MAX_BYTES:
        raise refuse(name, f"an inline document larger than {MAX_BYTES >> 20} MiB")
    filing = Filing(name, inline=True)
    marked: list[Element] = []
    continuations: dict[str, Element] = {}
    root: Element = None
    for event, element in events(name, data):
        if event == "start":
            root = element if root is None else root
            continue
        if take_definition(filing, element):
            continue
        if namespace(element) in INLINE:
            kind = local(element)
            if kind in ("nonFraction", "nonNumeric"):
                marked.append(element)
            elif kind == "continuation":
                continuations[element.get("id") or ""] = element
            elif kind in ("fraction", "tuple"):
                filing.unread[f"ix:{kind}"] += 1
    if root is None:
        raise refuse(name, "it is empty")
    if len(marked) > MAX_FACTS:
        raise refuse(name, f"more than {MAX_FACTS:,} facts")
    # elements end inside out; facts are told in the order in which they begin
    order = {element: place for place, element in enumerate(root.iter()) if namespace_is_inline(element)}
    for element in sorted(marked, key=order.__getitem__):
        _take(filing, element, continuations)
    return checked(filing)


def namespace_is_inline(element: Element) -> bool:
    """Whether an element is one of Inline XBRL's own."""
    return isinstance(element.tag, str) and namespace(element) in INLINE


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
    concept = concept_name(uri, rest, (element.get("name") or "").partition(":")[0])
    format_uri, format_name = _qname(element, element.get("format") or "")
    if format_name and not transforms.known(format_uri):
        filing.unread[f"format {element.get('format')}"] += 1
        return
    context, nil = element.get("contextRef"), element.get(f"{{{XSI}}}nil") in ("true", "1")
    if local(element) == "nonFraction":
        _take_number(filing, element, concept, format_name, nil)
        return
    text = "" if nil else _text(element, continuations)
    try:
        value = transforms.read_text(text, format_name)
    except ValueError:
        value = None
    if value is None:
        filing.unread[f"format {element.get('format')}"] += 1
    else:
        filing.facts.append(Fact(concept, context, short(value), nil=nil))


def _take_number(filing: Filing, element: Element, concept: str, format_name: str, nil: bool) -> None:
    scale, sign, unit = element.get("scale") or "", element.get("sign") or "", element.get("unitRef") or ""
    if nil:
        filing.facts.append(Fact(concept, element.get("contextRef"), "", unit=unit, nil=True))
        return
    try:
        value = scaled(transforms.read_number(_text(element, {}), format_name), scale, sign)
    except ValueError:
        filing.unread["numbers that cannot be read"] += 1
        return
    decimals = element.get("decimals") or ""
    filing.facts.append(Fact(concept, element.get("contextRef"), plain(value), value, unit, decimals, scale, sign))


def scaled(value: Decimal, scale: str, sign: str) -> Decimal:
    """``value`` x 10^``scale``, negative if ``sign`` is "-". Raises ValueError for another scale or sign."""
    power = int(scale or "0")
    if abs(power) > LONGEST_NUMBER // 2 or sign not in ("", "-"):
        raise ValueError(f"scale {scale!r}, sign {sign!r}")
    value = value.scaleb(power)
    return -value if sign else value


def _text(element: Element, continuations: dict[str, Element]) -> str:
    """The text of a fact: its own and that of its continuations, without what ix:exclude excludes."""
    parts: list[str] = []
    size = 0
    seen: set[str] = set()
    part: Element = element
    while part is not None and size < _TEXT_LIMIT:
        for piece in _pieces(part):
            parts.append(piece)
            size += len(piece)
            if size > _TEXT_LIMIT:
                break
        following = part.get("continuedAt") or ""
        part = continuations.get(following) if following and following not in seen else None
        seen.add(following)
    return "".join(parts)


def _pieces(element: Element) -> list[str]:
    """Text below an element in order, leaving out ix:exclude; a loop, for nesting can be deep."""
    found: list[str] = []
    stack: list[tuple[Element, bool]] = [(element, False)]
    while stack:
        node, tail = stack.pop()
        if tail:
            found.append(node.tail or "")
            continue
        if not isinstance(node.tag, str):
            continue  # a comment or an entity reference
        if local(node) == "exclude" and namespace(node) in INLINE:
            continue
        found.append(node.text or "")
        for child in reversed(node):
            stack += [(child, True), (child, False)]
    return found
