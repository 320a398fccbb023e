"""Arelle with a taxonomy package: what it resolves agrees, what differs is taken out, what is no package is named."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.data.xbrl import filings, inputs
from finbench.data.xbrl.build import build_questions
from finbench.data.xbrl.taxonomy import arelle_check
from xbrl_samples import inline, instance, shown, statement

PERIODS = {"Revenues": "duration", "CostOfRevenue": "duration", "Assets": "instant", "AssetsCurrent": "instant"}
SPACES = (
    'xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xbrli="http://www.xbrl.org/2003/instance" xmlns:xs="http://www.w3.org/2001/XMLSchema"'
)
SCHEMA = (
    f'<xs:schema {SPACES} targetNamespace="http://fasb.org/us-gaap/2023" elementFormDefault="qualified"><xs:annotation>'
    '<xs:appinfo><link:linkbaseRef xlink:type="simple" xlink:arcrole="http://www.w3.org/1999/xlink/properties/linkbase" '
    'xlink:href="lab.xml"/></xs:appinfo></xs:annotation><xs:import namespace="http://www.xbrl.org/2003/instance" '
    'schemaLocation="http://www.xbrl.org/2003/xbrl-instance-2003-12-31.xsd"/>{}</xs:schema>'
)
ITEM = (
    '<xs:element name="{0}" id="us-gaap_{0}" type="xbrli:monetaryItemType" substitutionGroup="xbrli:item" '
    'xbrli:periodType="{1}" nillable="true"/>'
)
LABELS = (
    f'<link:linkbase {SPACES}><link:labelLink xlink:type="extended" xlink:role="http://www.xbrl.org/2003/role/link">'
    "{}</link:labelLink></link:linkbase>"
)
LABEL = (
    '<link:loc xlink:type="locator" xlink:href="us-gaap.xsd#us-gaap_{0}" xlink:label="l{0}"/><link:label xlink:type='
    '"resource" xlink:label="t{0}" xlink:role="http://www.xbrl.org/2003/role/label" xml:lang="en-US">{0}, in all'
    '</link:label><link:labelArc xlink:type="arc" xlink:arcrole="http://www.xbrl.org/2003/arcrole/concept-label" '
    'xlink:from="l{0}" xlink:to="t{0}"/>'
)
REFERENCE = '<link:schemaRef xlink:type="simple" xlink:href="http://xbrl.fasb.org/us-gaap/2023/us-gaap.xsd"/>'


def package(path: Path) -> Path:
    """A taxonomy package that defines and labels four concepts."""
    catalog = '<rewriteURI uriStartString="http://xbrl.fasb.org/us-gaap/2023/" rewritePrefix="../files/"/>'
    files = {
        "META-INF/taxonomyPackage.xml": '<tp:taxonomyPackage xmlns:tp="http://xbrl.org/2016/taxonomy-package" xml:lang="en">'
        "<tp:identifier>http://example.com/small</tp:identifier><tp:name>Small</tp:name></tp:taxonomyPackage>",
        "META-INF/catalog.xml": f'<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">{catalog}</catalog>',
        "files/us-gaap.xsd": SCHEMA.format("".join(ITEM.format(*pair) for pair in PERIODS.items())),
        "files/lab.xml": LABELS.format("".join(map(LABEL.format, PERIODS))),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"small/{name}", text)
    return path


def report(folder: Path) -> Path:
    (folder / "a.xml").write_bytes(instance(statement()).replace(b"<context", REFERENCE.encode() + b"<context", 1))
    return folder / "a.xml"


def test_a_package_resolves_facts_and_labels_them(tmp_path: Path) -> None:
    pytest.importorskip("arelle", reason="the extra [xbrl] is not installed")
    built = build_questions([report(tmp_path)], tmp_path / "out", taxonomy=[package(tmp_path / "p.zip")])
    assert built.filings[0]["arelle"] == {"numbers": 9, "resolved": 4, "agree": 4}
    assert any("resolves 4 of its 9 numbers and agrees on 4" in line for line in built.lines())
    card = json.loads((tmp_path / "out" / "xbrl_values" / "dataset.json").read_text())
    assert list(card["options"]["taxonomy"]) == ["p.zip"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "xbrl_values" / "test.jsonl").open()]
    assert {row["concepts"] for row in rows if ", in all" in row["question"]} == {f"us-gaap:{name}" for name in PERIODS}


def test_what_arelle_reads_otherwise_is_taken_out(tmp_path: Path) -> None:
    pytest.importorskip("arelle", reason="the extra [xbrl] is not installed")
    (document,) = inputs.documents(report(tmp_path))
    filing = filings.read_document(document)
    filing.facts = [
        replace(fact, number=fact.number + 1) if fact.concept == "us-gaap:Assets" and fact.number else fact
        for fact in filing.facts
    ]
    with arelle_check([package(tmp_path / "p.zip")]) as check:
        assert check(filing, document) == {"numbers": 9, "resolved": 4, "agree": 3}
    assert "us-gaap:Assets" not in {fact.concept for fact in filing.facts}
    assert filing.unread == {"facts that Arelle reads otherwise": 1}


def test_inline_numbers_are_compared_too(tmp_path: Path) -> None:
    pytest.importorskip("arelle", reason="the extra [xbrl] is not installed")
    body = shown("Revenues", "1,234.5", scale="3", sign="-", format="ixt:num-dot-decimal") + shown("Odd", "5")
    spaces = 'xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink"'
    references = f"<ix:references>{REFERENCE.replace(' ', f' {spaces} ', 1)}</ix:references><ix:resources>"
    (tmp_path / "a.htm").write_bytes(inline(body).replace(b"<ix:resources>", references.encode(), 1))
    (document,) = inputs.documents(tmp_path / "a.htm")
    filing = filings.read_document(document)
    with arelle_check([package(tmp_path / "p.zip")]) as check:
        assert check(filing, document) == {"numbers": 2, "resolved": 1, "agree": 1}


def test_what_is_no_package_or_of_another_year(tmp_path: Path) -> None:
    pytest.importorskip("arelle", reason="the extra [xbrl] is not installed")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    for given, reason in (("none.zip", "No such file"), ("empty.zip", "not a taxonomy package")):
        with pytest.raises(FinbenchError, match=reason):
            build_questions([report(tmp_path)], tmp_path / "out", taxonomy=[tmp_path / given])
    (tmp_path / "b.xml").write_bytes(instance(statement()))  # names no schema
    with pytest.raises(FinbenchError, match="define none of its facts"):
        build_questions([tmp_path / "b.xml"], tmp_path / "out", taxonomy=[package(tmp_path / "p.zip")])
    assert not (tmp_path / "out").exists()


def test_without_arelle_the_command_to_type_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "arelle", None)
    with pytest.raises(FinbenchError, match="not installed") as caught:
        build_questions([report(tmp_path)], tmp_path / "out", taxonomy=[package(tmp_path / "p.zip")])
    assert install("xbrl") in caught.value.hint
