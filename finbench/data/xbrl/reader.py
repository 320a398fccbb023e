"""XBRL instance documents: contexts, units and facts, streamed. Source: XBRL 2.1 (2003-12-31, errata 2013)."""

from __future__ import annotations

from dataclasses import replace

from finbench.data.xbrl.model import LONGEST_VALUE, Context, Fact, Filing, concept_name, day, number, plain
from finbench.data.xbrl.parsing import LINK, XBRLI, XLINK, XSI, Element, events, local, namespace, refuse

MAX_FACTS = 200_000  # a bank's 10-K has some 20,000
MAX_CONTEXTS = 50_000  # and 5,000


def read_instance(name: str, data: bytes) -> Filing:
    """The filing in an instance document. ``name`` is for messages; raises FinbenchError."""
    filing = Filing(name, inline=False)
    refuse_many(name, data)
    depth = 0
    for event, element in events(name, data):
        depth += 1 if event == "start" else -1
        if event == "end" and depth == 1:
            _take(filing, element)
            element.clear()
            while element.getprevious() is not None:  # what was read is dropped: memory stays flat
                del element.getparent()[0]
    return checked(filing)


def refuse_many(name: str, data: bytes) -> None:
    """Raise FinbenchError for more facts than a filing can have, before any is read."""
    if data.count(b"contextRef") > MAX_FACTS:
        raise refuse(name, f"more than {MAX_FACTS:,} facts")


def _take(filing: Filing, element: Element) -> None:
    if take_definition(filing, element):
        return
    if namespace(element) in (XBRLI, LINK):
        return  # footnotes, role references
    if not element.get("contextRef"):
        filing.unread["tuples, or facts without a context"] += 1
        return
    if len(filing.facts) >= MAX_FACTS:
        raise refuse(filing.name, f"more than {MAX_FACTS:,} facts")
    unit, nil = (element.get("unitRef") or "").strip(), element.get(f"{{{XSI}}}nil") in ("true", "1")
    text = "".join(element.itertext()) if len(element) else element.text or ""
    value, decimals = "" if nil or unit else short(text), ""
    figure = None
    if unit and not nil:
        figure = None if len(element) else number(text)  # a number holds no elements: what it says is in doubt
        if figure is None:
            filing.unread["numbers that cannot be read"] += 1
            return
        value, decimals = plain(figure), element.get("decimals") or ""
    concept = concept_name(namespace(element), local(element), element.prefix)
    filing.facts.append(Fact(concept, element.get("contextRef").strip(), value, figure, unit, decimals, nil=nil))


def short(text: str) -> str:
    """A value that is not a number, if it is short and no markup; else ""."""
    if len(text) > 4 * LONGEST_VALUE or "<" in text:
        return ""
    squeezed = " ".join(text.split())
    return squeezed if len(squeezed) <= LONGEST_VALUE else ""


def take_definition(filing: Filing, element: Element) -> bool:
    """Read a context, unit or schemaRef into ``filing``; False if it is none of these."""
    if element.tag == f"{{{XBRLI}}}context":
        if len(filing.contexts) >= MAX_CONTEXTS:
            raise refuse(filing.name, f"more than {MAX_CONTEXTS:,} contexts")
        context = _context(filing.name, element)
        if filing.contexts.setdefault(context.id, context) != context:
            raise refuse(filing.name, f"two different contexts have the id {context.id[:60]!r}")
    elif element.tag == f"{{{XBRLI}}}unit":
        identity, unit = element.get("id") or "", _unit(element)
        if filing.units.setdefault(identity, unit) != unit:
            raise refuse(filing.name, f"two different units have the id {identity[:60]!r}")
    elif element.tag == f"{{{LINK}}}schemaRef":
        filing.schemas.append(element.get(f"{{{XLINK}}}href") or "")
    else:
        return False
    return True


def _text(element: Element, path: str) -> str:
    found = element.find(path)
    return "" if found is None else "".join(found.itertext()).strip()


def _context(name: str, element: Element) -> Context:
    identity = element.get("id") or ""
    period = element.find(f"{{{XBRLI}}}period")
    try:
        if not identity or period is None:
            raise ValueError("it needs an id and a period")
        instant = _text(period, f"{{{XBRLI}}}instant")
        start, end = _text(period, f"{{{XBRLI}}}startDate"), _text(period, f"{{{XBRLI}}}endDate")
        if instant:
            start, end = "", day(instant, ends=True)
        elif start or end:
            start, end = day(start), day(end, ends=True)
            if start > end:
                raise ValueError("its period ends before it starts")
    except ValueError as fault:
        raise refuse(name, f"the context {identity[:60]!r} cannot be read ({fault})") from fault
    members: list[tuple[str, str]] = []
    for part in ("segment", "scenario"):
        for holder in element.iter(f"{{{XBRLI}}}{part}"):
            for member in holder:
                members.append((str(member.get("dimension") or local(member)), "".join(member.itertext()).strip()))
            # text where members belong says of whom, too: such a context is not about the whole company
            if not len(holder) and (words := (holder.text or "").strip()):
                members.append((part, words[:80]))
    entity = _text(element, f"{{{XBRLI}}}entity/{{{XBRLI}}}identifier")
    return Context(identity, entity, start, end, tuple(sorted(members)))


def _unit(element: Element) -> str:
    """``USD``, ``shares``, ``USD/shares``: measures without their prefix."""

    def measures(holder: Element | None) -> str:
        found = [] if holder is None else holder.findall(f"{{{XBRLI}}}measure")
        return "*".join((measure.text or "").strip().rpartition(":")[2] for measure in found)

    divide = element.find(f"{{{XBRLI}}}divide")
    if divide is None:
        return measures(element)
    above, below = (divide.find(f"{{{XBRLI}}}unit{part}") for part in ("Numerator", "Denominator"))
    return f"{measures(above)}/{measures(below)}"


def checked(filing: Filing) -> Filing:
    """The filing, once its facts refer to what it defines. Raises FinbenchError if there is nothing to ask about."""
    if not filing.facts:
        why = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(filing.unread.items())[:5])
        what = f"none of its facts can be read ({why[:200]})" if why else "holds no facts"
        raise refuse(filing.name, f"it is XBRL, but {what}")
    lost = [fact for fact in filing.facts if fact.context not in filing.contexts]
    if len(lost) == len(filing.facts):
        more = "; is it one of a set of documents? Then give their folder" if filing.inline else ""
        raise refuse(filing.name, f"its facts refer to contexts that it does not define{more}")
    measures = {"": "", **filing.units}
    loose = [fact for fact in filing.facts if fact.unit not in measures]
    for what, found in (("context", lost), ("unit", loose)):
        if found:
            filing.unread[f"facts whose {what} is not defined"] += len(found)
    filing.facts = [
        replace(fact, unit=measures[fact.unit])
        for fact in filing.facts
        if fact.context in filing.contexts and fact.unit in measures
    ]
    return filing
