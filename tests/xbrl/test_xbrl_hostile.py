"""Filings as they can be and as they must not be: forms of numbers and periods, sets of documents, attacks on the reader."""

from __future__ import annotations

import time
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

from conftest import quick, within
from finbench.core.errors import FinbenchError
from finbench.data.xbrl import filings
from finbench.data.xbrl.build import build_questions
from finbench.data.xbrl.inline import read_inline, scaled
from finbench.data.xbrl.model import Filing, concept_name, day
from finbench.data.xbrl.parsing import kind
from finbench.data.xbrl.reader import read_instance
from finbench.data.xbrl.sheets import sheets
from finbench.data.xbrl.transforms import read_number
from xbrl_samples import context, fact, inline, instance, shown, statement, unit

DOT = {"format": "ixt:num-dot-decimal"}


def numbers(filing: Filing) -> list[tuple[str, str]]:
    return [(fact.concept, fact.value) for fact in filing.facts if fact.number is not None]


def page(body: str, more: str = "") -> list[tuple[str, str]]:
    return numbers(read_inline("a.htm", inline(body, more)))


def refusal(data: bytes, folder: Path, name: str = "a.xml") -> str:
    """What the reader says of a file; in less than five seconds."""
    (folder / name).write_bytes(data)
    start = time.process_time()
    with pytest.raises(FinbenchError) as caught:
        list(filings.read(folder / name))
    assert quick(time.process_time() - start, 5)
    assert str(folder / name) in caught.value.message
    return caught.value.message


# ---------------------------------------------------------------- what filings hold


@pytest.mark.parametrize("year", ["2008-03-31", "2009-01-31", "2011-01-31", "2019-01-31", "2022", "2024q3", "2026"])
def test_taxonomies_of_every_year_are_us_gaap(year: str) -> None:
    owner = "xbrl.us" if year < "2010" else "fasb.org"
    assert concept_name(f"http://{owner}/us-gaap/{year}", "Assets", "gaap") == "us-gaap:Assets"
    assert concept_name(f"http://xbrl.sec.gov/dei/{year}", "DocumentType", "dei") == "dei:DocumentType"
    assert concept_name(f"http://example.com/us-gaap/{year}", "Assets", "us-gaap") == "?:Assets"


def test_times_of_day_and_time_zones() -> None:
    assert day("2020-12-31Z") == "2020-12-31"
    assert day("2020-12-31-05:00") == "2020-12-31"
    assert day("2020-12-31T24:00:00", ends=True) == "2020-12-31"
    assert day("2020-12-31T24:00:00") == "2021-01-01"
    assert day("2021-01-01T00:00:00Z", ends=True) == "2020-12-31"
    for text in ("2020-12-31T24:00:01", "2020-12-31T99:00:00", "0001-01-01T00:00:00", "9999-12-31T24:00:00"):
        with pytest.raises(ValueError):
            day(text, ends=text.startswith("0001"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    said = encoding.removesuffix("-sig")
    for name, data in (("a.xml", instance(statement())), ("b.htm", inline(shown("Assets", "5") + "<p>\u00e9</p>"))):
        text = data.decode().partition("?>")[2]
        (tmp_path / name).write_bytes(f'<?xml version="1.0" encoding="{said}"?>{text}'.encode(encoding))
        (filing,) = filings.read(tmp_path / name)
        assert ("us-gaap:Assets", "5" if filing.inline else "4100") in numbers(filing)


def test_characters_by_their_html_names() -> None:
    doctype = b'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd"><html'
    body = (
        "<p>R&amp;D&nbsp;&copy;</p>"
        + shown("Assets", "1&nbsp;000", **DOT)
        + shown("Cash", "&mdash;", format="ixt:zerodash")
    )
    for data in (inline(body), inline(body).replace(b"<html", doctype, 1)):
        assert numbers(read_inline("a", data)) == [("us-gaap:Assets", "1000"), ("us-gaap:Cash", "0")]
    odd = inline(shown("Assets", "5&frac12;", **DOT) + shown("Cash", "5&half;", **DOT) + shown("Debt", "7"))
    # a half is no digit, and what nobody declares is not simply left out: neither is five
    assert numbers(read_inline("a", odd.replace(b"<html", doctype, 1))) == [("us-gaap:Debt", "7")]


def test_scales_signs_and_brackets() -> None:
    for scale in range(-3, 10):
        for sign, text in (("", "1,234.5"), ("-", "1,234.5")):
            expected = scaled(Decimal("1234.5"), str(scale), sign)
            assert expected == Decimal("1234.5") * Decimal(10) ** scale * (-1 if sign else 1)
            (found,) = page(f"({shown('Assets', text, scale=str(scale), **({'sign': sign} if sign else {}), **DOT)})")
            assert Decimal(found[1]) == expected
    digits = "1234567890123456789012345678901234567890"
    assert page(shown("Assets", digits, scale="3", sign="-", **DOT)) == [("us-gaap:Assets", f"-{digits}000")]
    for scale in ("1_0", "٣", "6.0", "", "99"):  # Python's int() reads the first two
        assert bool(page(shown("Assets", "5", scale=scale) + shown("Cash", "1"))[1:]) == (scale == "")


@pytest.mark.parametrize(
    ("text", "form", "value"),
    [
        ("1,234 dollars 5 cents", "num-unit-decimal", "1234.05"),
        ("1 euro 50 cents", "numunitdecimal", "1.5"),
        ("nineteen hundred", "numwordsen", "1900"),
        ("two hundred and five", "numwordsen", "205"),
        ("three million, two hundred thousand", "numwordsen", "3200000"),
        ("zero", "numwordsen", "0"),
    ],
)
def test_more_forms_of_numbers(text: str, form: str, value: str) -> None:
    assert read_number(text, form) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    ["twenty twenty", "one two", "five twenty", "ten five", "one thousand two million", "two million million", "two zero",
     "hundred hundred", "two-thirds", "twenty-first", "zero five"],
)  # fmt: skip
def test_words_that_are_no_number_are_not_added_up(text: str) -> None:
    with pytest.raises(ValueError):
        read_number(text, "numwordsen")


def test_a_number_with_an_element_in_it_is_in_doubt() -> None:
    filing = read_instance(
        "a", instance(fact("Assets", "5<own:note>6</own:note>") + fact("Cash", "7<!-- and --> ", " d "))
    )
    assert numbers(filing) == [("us-gaap:Cash", "7")]
    assert filing.unread == {"numbers that cannot be read": 1}


def test_identities_are_used_once() -> None:
    again = context("d", "2023-01-01/2023-12-31")
    assert numbers(read_instance("a", instance(fact("Assets", 5), again))) == [("us-gaap:Assets", "5")]
    for more, what in (
        (context("d", "2020-12-31"), "contexts have the id 'd'"),
        (unit("usd", "iso4217:EUR"), "units have the id"),
    ):
        with pytest.raises(FinbenchError, match=what):
            read_instance("a", instance(fact("Assets", 5), more))
    with pytest.raises(FinbenchError, match="ends before it starts"):
        read_instance("a", instance(fact("Assets", 5), context("z", "2023-12-31/2023-01-01")))


def test_words_in_a_segment_are_a_dimension() -> None:
    where = context("z", "2023-12-31").replace("</identifier>", "</identifier><segment>North</segment>")
    assert read_instance("a", instance(fact("Assets", 5, "z"), where)).contexts["z"].dimensions == (
        ("segment", "North"),
    )
    typed = '<scenario><xbrldi:typedMember dimension="own:X"><own:x>1</own:x></xbrldi:typedMember></scenario>'
    where = context("z", "2023-12-31").replace("</context>", typed + "</context>")
    assert read_instance("a", instance(fact("Assets", 5, "z"), where)).contexts["z"].dimensions == (("own:X", "1"),)


@pytest.mark.parametrize("decimals", ["9" * 12, "-9999999999", "1_0", "٣", "-1000", "x"])
def test_an_unbelievable_accuracy_is_none(decimals: str) -> None:
    body = statement() + fact("Assets", 9999, "i", decimals=decimals)
    found, left = sheets(read_instance("a", instance(body)))
    assert left["in conflict with another fact"] == 2
    assert all("us-gaap:Assets" not in sheet.numbers for sheet in found)


def test_what_no_fact_could_be_read_for_is_said() -> None:
    with pytest.raises(FinbenchError, match=r"none of its facts can be read \(numbers that cannot be read: 2\)"):
        read_inline("a.htm", inline(shown("Assets", "(5)", **DOT) + shown("Cash", "$5", **DOT)))


# ---------------------------------------------------------------- sets of documents


def parts() -> tuple[bytes, bytes]:
    """Two documents of one filing: the second has no contexts of its own, and continues a text of the first."""
    schema = '<ix:references><link:schemaRef xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="own-2023.xsd"/></ix:references>'
    begun = '<ix:nonNumeric name="us-gaap:Policy" contextRef="d" continuedAt="c1">Straight</ix:nonNumeric>'
    first = inline("".join(shown(f"Item{n}", str(n)) for n in range(5)) + begun).decode()
    second = inline(shown("Assets", "5", contextRef="i") + '<ix:continuation id="c1"> line</ix:continuation>').decode()
    head = second[second.index("<ix:header>") : second.index("</ix:header>")]
    return first.replace("<ix:header>", f"<ix:header>{schema}").encode(), second.replace(head, "<ix:header>").encode()


def test_a_set_of_documents_is_one_filing(tmp_path: Path) -> None:
    for name, data in zip(("a.htm", "a-ex13.htm"), parts(), strict=True):
        (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path.parent / f"{tmp_path.name}.zip", "w") as archive:
        for path in sorted(tmp_path.iterdir()):
            archive.write(path, path.name)
    for given in (tmp_path, Path(archive.filename or "")):
        (filing,) = filings.read(given)
        assert ("us-gaap:Assets", "5") in numbers(filing)
        assert len(numbers(filing)) == 6
        assert "Straight line" in {fact.value for fact in filing.facts}
        assert sorted(filing.digests) == ["a-ex13.htm", "a.htm"]
    with pytest.raises(FinbenchError, match="give their folder"):
        list(filings.read(tmp_path / "a-ex13.htm"))
    (tmp_path / "a_htm.xml").write_bytes(instance(statement()))  # the instance that was extracted from the set
    assert [filing.inline for filing in filings.read(tmp_path)] == [False]


def test_filings_with_schemas_of_their_own_are_no_set(tmp_path: Path) -> None:
    first = parts()[0]
    (tmp_path / "a.htm").write_bytes(first)
    (tmp_path / "b.htm").write_bytes(first.replace(b"own-2023", b"own-2022"))
    assert len(list(filings.read(tmp_path))) == 2


# ---------------------------------------------------------------- splits


def test_a_company_that_only_some_of_its_filings_name_is_on_no_two_sides(tmp_path: Path) -> None:
    old = instance(statement(900)).replace(b"Bexley plc", b"Bex Holdings").replace(b"2023", b"2022")
    (tmp_path / "new.xml").write_bytes(instance(statement()))
    (tmp_path / "old.xml").write_bytes(old)
    both = [tmp_path / "new.xml", tmp_path / "old.xml"]
    other = tmp_path / "other.xml"
    other.write_bytes(instance(statement()).replace(b"0000000042", b"0000000043").replace(b"Bexley plc", b"Third"))
    with pytest.raises(FinbenchError, match="one company") as caught:
        build_questions([*both, other], tmp_path / "out", test_companies=["Bexley"])
    assert caught.value.hint == "Name it by its number: --test-company 0000000042"
    built = build_questions([*both, other], tmp_path / "out", test_companies=["0000000042"])
    assert [entry["split"] for entry in built.filings] == ["test", "test", "train"]


# ---------------------------------------------------------------- attacks


BASE = instance(statement())
WRONG = {
    "a pdf": (b"%PDF-1.7\n" + bytes(range(256)) * 40, "not well-formed XML"),
    "html": (b"<!DOCTYPE html><html><body><br></body></html>", "not XBRL"),
    "other xml": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not XBRL"),
    "zeros": (bytes(1000), "not well-formed XML"),
    "utf-7 entities": ('<?xml version="1.0" encoding="utf-7"?><!DOCTYPE x [<!ENTITY a "b">]><x/>'.encode("utf-7"), "encoding"),
    "attributes declared": (
        b"<!DOCTYPE xbrl [" + b"".join(b'<!ATTLIST xbrl a%d CDATA "x">' % n for n in range(100_000)) + b"]><xbrl/>",
        "a document type of its own",
    ),
    "a long attribute": (BASE.replace(b"<us-gaap:Revenues ", b'<us-gaap:Revenues x="' + b"y" * (40 << 20) + b'" '), "Resource limit"),
    "a long number": (BASE.replace(b">1000<", b">" + b"1" * (40 << 20) + b"<"), "Resource limit"),
    "namespaces": (
        BASE.replace(
            b">1000<",
            b">"
            + b"".join(b"<a " + b" ".join(b'xmlns:p%d_%d="u"' % (n, m) for m in range(400)) + b">" for n in range(200))
            + b"</a>" * 200
            + b"<",
        ),
        "more than 2,000 namespaces",
    ),
    "deep": (BASE.replace(b">1000<", b">" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"<"), "nested deeper"),
    "many facts": (instance(fact("Assets", 5) * 200_001), "more than 200,000 facts"),
    "many contexts": (instance(statement(), "".join(context(f"c{n}", "2020-12-31") for n in range(50_001))), "more than 50,000 contexts"),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(WRONG))
def test_what_is_refused_within_seconds(what: str, tmp_path: Path) -> None:
    data, reason = WRONG[what]
    assert reason in refusal(data, tmp_path)


def test_xinclude_and_stylesheets_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    where = (tmp_path / "secret").as_uri().encode()
    include = b'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" parse="text" href="' + where + b'"/></xbrl>'
    data = BASE.replace(b"</xbrl>", include).replace(b"<xbrl", b'<?xml-stylesheet href="' + where + b'"?><xbrl', 1)
    (tmp_path / "a.xml").write_bytes(data)
    (filing,) = filings.read(tmp_path / "a.xml")
    assert numbers(filing) == numbers(read_instance("a", BASE))


def test_facts_in_facts_do_not_cost_their_square() -> None:
    deep = "<ix:nonNumeric contextRef='d' name='us-gaap:Note'>" * 200 + "<b/>" * 100_000 + "</ix:nonNumeric>" * 200
    with within(3):  # each of them looked through to its end took minutes
        assert len(read_inline("a", inline(deep)).facts) == 200
        chain = "".join(f"<ix:continuation id='c{n}' continuedAt='c{n + 1}'/>" for n in range(20_000))
        begin = "<ix:nonNumeric contextRef='d' name='us-gaap:Note' continuedAt='c0'>x</ix:nonNumeric>" * 1000
        assert {fact.value for fact in read_inline("a", inline(begin + chain)).facts} == {""}


def test_a_file_torn_at_any_byte_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xml", BASE)
    packed = (tmp_path / "whole.zip").read_bytes()
    page_ = inline(shown("Assets", "5", **DOT))
    for name, data, step in (("a.xml", BASE, 61), ("a.htm", page_, 61), ("a.zip", packed, 31)):
        for place in range(0, len(data) - 1, step):
            (tmp_path / name).write_bytes(data[:place])
            with pytest.raises(FinbenchError, match=name):
                list(filings.read(tmp_path / name))


def test_a_zip_in_a_zip_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("a.xml", BASE)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    with pytest.raises(FinbenchError, match="no XBRL instance"):
        list(filings.read(tmp_path / "outer.zip"))


def test_kinds_are_told_without_reading_what_is_hostile() -> None:
    assert kind(inline(shown("Assets", "5"))) == "inline"
    assert kind(b"<!DOCTYPE xbrl [<!ATTLIST xbrl a CDATA 'x'>]>" + BASE.partition(b"?>")[2]) == ""
