"""XML from strangers: one streaming parser with limits. Nothing is fetched, no entity is expanded.

Refused, each with file and reason: declarations of entities, elements and attributes, more than 256 levels, more
than two million elements, more than 2,000 namespaces in one place, more than 128 MiB, odd encodings, bytes that are
not well-formed XML. An external DTD is not opened.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from html.entities import name2codepoint
from typing import Any

from lxml import etree

from finbench.core.errors import FinbenchError

MAX_BYTES = 128 * 2**20  # the largest 10-K instances are near 50 MiB
MAX_ELEMENTS = 2_000_000  # a bank's inline 10-K has some 600,000; more is an attack, and takes gigabytes
MAX_NAMESPACES = 2_000  # that an element knows, among which each is looked for; a filing has some 50
XBRLI = "http://www.xbrl.org/2003/instance"
LINK = "http://www.xbrl.org/2003/linkbase"
XLINK = "http://www.w3.org/1999/xlink"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
INLINE = ("http://www.xbrl.org/2013/inlineXBRL", "http://www.xbrl.org/2008/inlineXBRL")
HINT = "Give an XBRL instance (*_htm.xml), an inline XBRL document (*.htm), or a folder or zip that holds one."

Element = Any  # lxml is untyped
_XML_NAMES = ("lt", "gt", "amp", "quot", "apos")
_EXPLOSIVE = "it declares XML entities, which no filing needs and which can be made to explode"
_TYPED = "it declares a document type of its own, which no filing needs and which can take hours to read"
_ENCODINGS = ("ascii", "utf-16-le", "utf-16-be")
_DECLARATIONS = {  # libxml2 looks through all attributes declared so far for each new one: a megabyte takes minutes
    mark.encode(encoding): _EXPLOSIVE if mark == "<!ENTITY" else _TYPED
    for mark in ("<!ENTITY", "<!ATTLIST", "<!ELEMENT", "<!NOTATION")
    for encoding in _ENCODINGS
}
# others, such as UTF-7, can write "<!ENTITY" so that it is not seen
_ENCODING = re.compile(rb"<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([^\"'>]{0,60})")
_READABLE = re.compile(
    rb"(?:us-)?ascii|utf-?8|utf-?16(?:le|be)?|iso-?8859-?\d+|latin-?\d|(?:windows-|cp)125\d", re.IGNORECASE
)
_INLINE_MARKS = tuple(uri.encode(encoding) for uri in INLINE for encoding in _ENCODINGS)
_NAMED = re.compile(rb"&([A-Za-z][A-Za-z0-9]{1,31});")
_CHARACTERS = {name.encode(): b"&#%d;" % code for name, code in name2codepoint.items() if name not in _XML_NAMES}


def refuse(name: str, reason: str) -> FinbenchError:
    """The error for a file that cannot be used."""
    return FinbenchError(f"{name}: {reason}.", HINT)


def local(element: Element) -> str:
    """The element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def namespace(element: Element) -> str:
    """The element's namespace, "" if none."""
    return str(element.tag).rpartition("}")[0].removeprefix("{")


def events(name: str, data: bytes) -> Iterator[tuple[str, Element]]:
    """("start" or "end", element) of every element of ``data``; ``name`` is for messages. Raises FinbenchError."""
    refuse_declarations(name, data)  # before libxml2 sees them: it expands entities in attributes
    if b"<![CDATA[" not in data and data.count(b"<") - data.count(b"</") > MAX_ELEMENTS:  # seconds saved on an attack
        raise refuse(name, f"more than {MAX_ELEMENTS:,} elements")
    parser = etree.iterparse(
        io.BytesIO(data),  # not a path: libxml2 would unpack compressed files without a limit
        events=("start", "end", "start-ns", "end-ns"),
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )
    count = known = 0
    try:
        for event, element in parser:
            if event.endswith("-ns"):
                known += 1 if event == "start-ns" else -1
                if known > MAX_NAMESPACES:
                    raise refuse(name, f"more than {MAX_NAMESPACES:,} namespaces in one place")
                continue
            count += event == "start"
            if event == "start" and count == 1:
                dtd = element.getroottree().docinfo.internalDTD
                if dtd is not None and any(True for _ in dtd.iterentities()):
                    raise refuse(name, _EXPLOSIVE)
            if count > MAX_ELEMENTS:
                raise refuse(name, f"more than {MAX_ELEMENTS:,} elements")
            yield event, element
    except etree.XMLSyntaxError as fault:
        text = " ".join(str(fault.msg or fault).split())[:160]
        line = f", line {fault.lineno}" if fault.lineno and "line" not in text else ""
        deep = "depth" in text.lower()
        reason = "elements nested deeper than 256 levels" if deep else f"not well-formed XML ({text}{line})"
        raise refuse(name, reason) from fault


def refuse_declarations(name: str, data: bytes) -> None:
    """Raise FinbenchError if ``data`` declares entities, elements or attributes, or is in an odd encoding."""
    if reason := _hostile(data):
        raise refuse(name, reason)


def _hostile(data: bytes) -> str:
    """Why ``data`` must not be given to the parser; "" if it may be."""
    stated = _ENCODING.match(data[:400].removeprefix(b"\xef\xbb\xbf").lstrip())
    if stated and not _READABLE.fullmatch(stated[1].strip()):
        return f"its encoding {stated[1].decode('ascii', 'replace')!r} is none that filings use"
    return next((reason for mark, reason in _DECLARATIONS.items() if mark in data), "")


def without_names(data: bytes) -> bytes:
    """HTML's named characters (``&nbsp;``) as numbers, as XML knows them; what HTML does not name stays."""
    return _NAMED.sub(lambda match: _CHARACTERS.get(match[1], match[0]), data)


def root_of(data: bytes) -> Element | None:
    """The root of what is not hostile, also where a fault comes after it; None if the first 64 KiB have none."""
    parser = etree.XMLPullParser(events=("start",), resolve_entities=False, load_dtd=False, no_network=True)
    with contextlib.suppress(etree.XMLSyntaxError):  # a root read before the fault says what this was meant to be
        parser.feed(data[: 1 << 16])
    return next((element for _, element in parser.read_events()), None)


def kind(data: bytes) -> str:
    """``instance``, ``inline``, ``linkbase``, ``schema``, or "" for what is none of these (or no XML)."""
    root = None if _hostile(data) else root_of(data)
    if root is None:
        return ""
    if root.tag == f"{{{XBRLI}}}xbrl":
        return "instance"
    if local(root) == "html" and any(mark in data for mark in _INLINE_MARKS):
        return "inline"
    return local(root) if local(root) in ("linkbase", "schema") else ""
