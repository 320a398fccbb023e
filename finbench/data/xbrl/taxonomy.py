"""Arelle beside our own reader: with the taxonomy package of a user it resolves facts, whose numbers must agree.

Optional (extra ``[xbrl]``): without the us-gaap schemas Arelle defines a tenth of a filing's facts and is of no use,
and those schemas are not ours to ship. It works offline: what neither the filing nor a package holds stays unresolved.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.data.xbrl.inputs import FilingFile
from finbench.data.xbrl.model import Fact, Filing, number
from finbench.data.xbrl.parsing import refuse, refuse_declarations

_BESIDE = (".xsd", ".xml")  # of the files beside a document, those that its taxonomy is made of
_RESOLVED = 4  # XmlValidateConst.VALID: below, Arelle found no definition or no value


@contextmanager
def arelle_check(packages: Sequence[Path]) -> Iterator[Callable[[Filing, FilingFile], dict[str, int]]]:
    """Yield a check of filings by one offline Arelle with these taxonomy packages.

    It compares a filing's numbers with Arelle's and takes out and counts those that differ; concepts that the filing
    does not label get the taxonomy's standard English label. It returns counts: ``numbers`` (ours), ``resolved`` (of
    them, by Arelle), ``agree``. Raises FinbenchError if Arelle is not installed or a package is none.
    """
    try:
        from arelle import PackageManager
        from arelle.Cntlr import Cntlr
    except ImportError as fault:
        hint = f"Type: {install('xbrl')}"
        raise FinbenchError("--taxonomy needs Arelle, which is not installed.", hint) from fault
    if missing := [path for path in packages if not path.is_file()]:
        raise FinbenchError(f"No such file: {missing[0]}", "Give a taxonomy package: a zip with a META-INF folder.")
    controller = Cntlr(logFileName="logToBuffer", disable_persistent_config=True)
    try:
        controller.webCache.workOffline = True
        PackageManager.init(controller, loadPackagesConfig=False)
        for path in packages:
            if not PackageManager.addPackage(controller, str(path.resolve())):
                raise FinbenchError(f"{path}: not a taxonomy package.", "It is a zip with META-INF/catalog.xml.")
        PackageManager.rebuildRemappings(controller)
        yield partial(_check, controller)
    finally:
        PackageManager.close()
        controller.close()


def _check(controller: Any, filing: Filing, document: FilingFile) -> dict[str, int]:
    if document.more:
        raise refuse(document.name, "a set of documents, which Arelle is not asked about; leave --taxonomy out")
    with tempfile.TemporaryDirectory(prefix="finbench-arelle-") as folder:
        # a folder of its own, where nothing but schemas and linkbases can be included
        (Path(folder) / document.file).write_bytes(document.data)
        for name, read in document.beside.items():
            if name != document.file and name.lower().endswith(_BESIDE):
                data = read()
                refuse_declarations(f"{document.name}: {name}", data)
                (Path(folder) / name).write_bytes(data)
        model = controller.modelManager.load(str(Path(folder) / document.file))
        try:
            theirs = _resolved(model)
            for fact in filing.facts:
                if fact.concept not in filing.labels and (label := _label(model, fact.concept)):
                    filing.labels[fact.concept] = label
        finally:
            model.close()
    counts = Counter(numbers=0, resolved=0, agree=0)
    kept: list[Fact] = []
    for fact in filing.facts:
        found = theirs.get((fact.context, fact.concept.partition(":")[2])) if fact.number is not None else None
        counts["numbers"] += fact.number is not None
        counts["resolved"] += found is not None
        counts["agree"] += found is not None and fact.number in found
        if found is None or fact.number in found:
            kept.append(fact)
    if not counts["resolved"]:
        hint = "Give the us-gaap package of the year that the filing's schema names, or leave --taxonomy out."
        raise FinbenchError(f"{filing.name}: the taxonomy packages define none of its facts.", hint)
    if len(kept) < len(filing.facts):
        filing.unread["facts that Arelle reads otherwise"] += len(filing.facts) - len(kept)
    filing.facts = kept
    return dict(counts)


def _resolved(model: Any) -> dict[tuple[str, str], set[Decimal]]:
    """(context, local name) -> the numbers that Arelle has validated against the definition of their concept."""
    found: dict[tuple[str, str], set[Decimal]] = {}
    for fact in model.facts:
        if fact.concept is None or not fact.isNumeric or fact.isNil or getattr(fact, "xValid", 0) < _RESOLVED:
            continue
        value = number(str(fact.xValue))
        if value is not None:
            found.setdefault((fact.contextID, fact.qname.localName), set()).add(value)
    return found


def _label(model: Any, concept: str) -> str:
    """The standard English label of ``us-gaap:...`` in the taxonomy that was loaded; "" if there is none."""
    prefix, _, local = concept.partition(":")
    for found in model.nameConcepts.get(local, ()) if prefix == "us-gaap" else ():
        if "/us-gaap/" in found.qname.namespaceURI:
            return " ".join(str(found.label(lang="en", fallbackToQname=False) or "").split())
    return ""
