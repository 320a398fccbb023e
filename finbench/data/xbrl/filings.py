"""From a document to a Filing with labels, filing date and digests."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from finbench.data.xbrl.inline import read_inline
from finbench.data.xbrl.inputs import FilingFile, documents
from finbench.data.xbrl.model import Filing
from finbench.data.xbrl.parsing import LINK, XLINK, events
from finbench.data.xbrl.reader import read_instance

_STANDARD = "http://www.xbrl.org/2003/role/label"
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def read(path: Path, check: Callable[[Filing, FilingFile], dict[str, int]] | None = None) -> Iterator[Filing]:
    """The filings in a file, folder or zip, one at a time, each after ``check``. Raises FinbenchError."""
    for document in documents(path):
        filing = read_document(document)
        filing.checked = check(filing, document) if check else {}
        yield filing


def read_document(document: FilingFile) -> Filing:
    """The filing in one document, with the labels that lie beside it."""
    if document.kind == "inline":
        filing = read_inline(document.name, document.data, document.more)
    else:
        filing = read_instance(document.name, document.data)
    for file, data in ((document.file, document.data), *document.more):
        filing.digests[file] = hashlib.sha256(data).hexdigest()
    for name in _label_files(filing, document):
        data = document.beside[name]()
        labels = read_labels(f"{document.name}: {name}", data)
        if labels:
            filing.labels = {**labels, **filing.labels}
            filing.digests[name] = hashlib.sha256(data).hexdigest()
    stated = document.stated_date()
    with contextlib.suppress(ValueError):
        datetime.date.fromisoformat(stated)
        filing.filed = stated if stated >= filing.period_end else ""  # none before the end of its period
    return filing


def _label_files(filing: Filing, document: FilingFile) -> list[str]:
    """Names of the files with labels: the linkbase by its customary name, the schema (which may embed it)."""
    schemas = [PurePosixPath(href).name for href in filing.schemas if not href.startswith(("http:", "https:"))]
    stems = [PurePosixPath(name).stem for name in schemas]
    stems.append(re.sub(r"_htm$", "", PurePosixPath(document.file).stem))
    wanted = [f"{stem}_lab.xml" for stem in stems] + schemas
    return [name for name in dict.fromkeys(wanted) if name in document.beside and name != document.file]


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


def too_early(filing: Filing, date: str) -> str:
    """Why a filing may have been filed on ``date`` (ISO) or before, "" if it was surely filed later.

    A filing whose date nobody states was filed after its period ended, so a later end is proof enough; without
    any proof it is too early, for a test set must not hold what a model may have read.
    """
    if filing.filed:
        return f"filed {filing.filed}" if filing.filed <= date else ""
    if filing.period_end >= date:
        return ""
    return f"no filing date is stated, and its period ended {filing.period_end or 'at no stated date'}"
