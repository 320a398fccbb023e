"""Readable names of concepts: the filing's own label linkbase, else the words of the concept's name."""

from __future__ import annotations

import re

from finbench.data.xbrl.parsing import LINK, XLINK, events

_STANDARD = "http://www.xbrl.org/2003/role/label"
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def read_labels(name: str, data: bytes) -> dict[str, str]:
    """Standard English labels by concept (``us-gaap:Assets``) of a linkbase or a schema that embeds one."""
    concepts: dict[str, str] = {}  # xlink:label of a locator -> concept
    texts: dict[str, str] = {}  # xlink:label of a resource -> text
    arcs: list[tuple[str, str]] = []
    for event, element in events(name, data):
        if event == "start":
            continue
        if element.tag == f"{{{LINK}}}loc":
            fragment = (element.get(f"{{{XLINK}}}href") or "").rpartition("#")[2]
            concepts[element.get(f"{{{XLINK}}}label") or ""] = fragment.replace("_", ":", 1)
        elif element.tag == f"{{{LINK}}}label" and element.get(f"{{{XLINK}}}role", _STANDARD) == _STANDARD:
            if (element.get(_XML_LANG) or "en").lower().startswith("en"):
                text = " ".join("".join(element.itertext()).split())
                texts.setdefault(element.get(f"{{{XLINK}}}label") or "", text)
        elif element.tag == f"{{{LINK}}}labelArc":
            arcs.append((element.get(f"{{{XLINK}}}from") or "", element.get(f"{{{XLINK}}}to") or ""))
    found: dict[str, str] = {}
    for start, end in arcs:
        if start in concepts and texts.get(end):
            found.setdefault(concepts[start], texts[end])
    return found


def words(concept: str) -> str:
    """``us-gaap:AssetsCurrent`` -> ``Assets Current``: a label where the filing gives none."""
    return " ".join(_WORDS.findall(concept.partition(":")[2]))
