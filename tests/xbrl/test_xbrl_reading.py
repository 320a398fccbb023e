"""Instances, inline documents and label linkbases: what is read, and what is left out and counted."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from finbench.core.errors import FinbenchError
from finbench.data.xbrl import filings
from finbench.data.xbrl.filings import read_labels, words
from finbench.data.xbrl.inline import read_inline
from finbench.data.xbrl.model import Filing
from finbench.data.xbrl.reader import read_instance
from finbench.data.xbrl.rows import line
from finbench.data.xbrl.sheets import sheets
from xbrl_samples import context, fact, inline, instance, shown, statement, unit


def value(filing: Filing, concept: str) -> Decimal | None:
    (found,) = [fact.number for fact in filing.facts if fact.concept == f"us-gaap:{concept}"]
    return found


def test_an_instance() -> None:
    each = (
        '<unit id="each"><divide><unitNumerator><measure>iso4217:USD</measure></unitNumerator><unitDenominator>'
        "<measure>shares</measure></unitDenominator></divide></unit>"
    )
    eps = (
        '<us-gaap:EarningsPerShareBasic contextRef="d" unitRef="each" decimals="2">1.50</us-gaap:EarningsPerShareBasic>'
    )
    filing = read_instance("a.xml", instance(statement() + eps, each))
    assert (filing.company, filing.cik, filing.period_end) == ("Bexley plc", "0000000042", "2023-12-31")
    assert filing.id == "0000000042-10-K-20231231"
    assert value(filing, "Assets") == 4100
    (found,) = [fact for fact in filing.facts if fact.concept == "us-gaap:EarningsPerShareBasic"]
    assert (found.value, found.unit, found.decimals) == ("1.5", "USD/shares", "2")
    assert filing.contexts["s"].dimensions == (("us-gaap:Axis", "own:NorthMember"),)
    assert filing.contexts["i"].start == ""


def test_the_prefix_does_not_matter_but_the_namespace_does() -> None:
    document = instance(statement()).replace(b"us-gaap:", b"g:").replace(b"xmlns:us-gaap=", b"xmlns:g=")
    assert value(read_instance("a.xml", document), "Assets") == 4100
    other = instance(statement()).replace(b"http://fasb.org/us-gaap/2023", b"http://example.com/us-gaap/2023")
    assert not sheets(read_instance("a.xml", other))[0]


def test_nil_text_blocks_tuples_and_bad_numbers() -> None:
    body = (
        '<us-gaap:Goodwill contextRef="i" unitRef="usd" xsi:nil="true"/>'
        '<us-gaap:Policy contextRef="d">&lt;p&gt;long&lt;/p&gt;</us-gaap:Policy>'
        f'<us-gaap:Note contextRef="d">{"x" * 500}</us-gaap:Note>'
        '<us-gaap:Term contextRef="d">P3Y</us-gaap:Term>'
        '<us-gaap:Cash contextRef="i" unitRef="usd">INF</us-gaap:Cash><own:Tuple><own:Part/></own:Tuple>'
        '<us-gaap:Lost contextRef="nowhere" unitRef="usd">5</us-gaap:Lost>'
        '<us-gaap:Loose contextRef="d" unitRef="nothing">5</us-gaap:Loose>'
    )
    filing = read_instance("a.xml", instance(statement() + body))
    assert dict(filing.unread) == {
        "numbers that cannot be read": 1,
        "tuples, or facts without a context": 1,
        "facts whose context is not defined": 1,
        "facts whose unit is not defined": 1,
    }
    by_name = {fact.concept: fact for fact in filing.facts}
    assert by_name["us-gaap:Goodwill"].nil
    assert by_name["us-gaap:Policy"].value == by_name["us-gaap:Note"].value == ""
    assert by_name["us-gaap:Term"].value == "P3Y"
    _, left = sheets(filing)
    assert left["nil"] == 1
    assert left["long text"] == 2


def test_equal_contexts_are_one_period() -> None:
    more = context("d2", "2023-01-01/2024-01-01T00:00:00")
    filing = read_instance("a.xml", instance(statement() + fact("InterestExpense", 5, "d2"), more))
    (year,) = [sheet for sheet in sheets(filing)[0] if sheet.context.start]
    assert "us-gaap:InterestExpense" in year.numbers


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        ([("1000", "0"), ("1000", "0")], "1000"),
        ([("1000", "-3"), ("1234", "0")], "1234"),  # 1,000 to thousands is a rounding of 1,234
        ([("1234", "0"), ("1000", "-3")], "1234"),
        ([("1234", "INF"), ("1200", "-2")], "1234"),
        ([("1000", "0"), ("1234", "0")], None),
        ([("2000", "-3"), ("1234", "0")], None),
        ([("5", ""), ("6", "")], None),
    ],
)
def test_repeated_facts_are_one_and_conflicting_ones_none(facts: list[tuple[str, str]], kept: str | None) -> None:
    body = statement() + "".join(fact("InterestExpense", number, decimals=decimals) for number, decimals in facts)
    found, left = sheets(read_instance("a.xml", instance(body)))
    (year,) = [sheet for sheet in found if sheet.context.start]
    fact_found = year.numbers.get("us-gaap:InterestExpense")
    assert (fact_found.value if fact_found else None) == kept
    assert left["in conflict with another fact"] == (0 if kept else 2)
    assert "us-gaap:InterestExpense" in [f.concept for f in year.facts] or kept is None


def test_an_item_in_two_units_is_shown_but_not_asked_about() -> None:
    euro = '<us-gaap:Revenues contextRef="d" unitRef="eur" decimals="0">900</us-gaap:Revenues>'
    found, _ = sheets(read_instance("a.xml", instance(statement() + euro, unit("eur", "iso4217:EUR"))))
    (year,) = [sheet for sheet in found if sheet.context.start]
    assert "us-gaap:Revenues" not in year.numbers
    assert sorted(fact.unit for fact in year.facts if fact.concept == "us-gaap:Revenues") == ["EUR", "USD"]


def test_dimensions_other_entities_and_small_sheets_are_left_out_and_counted() -> None:
    more = context("o", "2023-12-31", cik="0000000043") + context("q", "2023-10-01/2023-12-31")
    body = statement() + fact("Revenues", 1, "s") + fact("Assets", 1, "o") + fact("Revenues", 1, "q")
    _, left = sheets(read_instance("a.xml", instance(body, more)))
    assert (left["with dimensions"], left["of another entity"]) == (1, 1)
    assert left["on a sheet of fewer than four facts"] == 1


def test_a_fact_that_only_names_another_element_is_not_shown() -> None:
    lists = "".join(
        f'<us-gaap:{name} contextRef="d">{said}</us-gaap:{name}>'
        for name, said in (
            ("LeaseLiabilityStatementOfFinancialPositionExtensibleList", "http://fasb.org/us-gaap/2022#Liabilities"),
            ("OtherExtensibleEnumeration", "https://a.example/x#Y http://a.example/z#W"),
            ("WebsiteDescription", "see http://a.example/ for more"),
        )
    )
    found, left = sheets(read_instance("a.xml", instance(statement() + lists)))
    plain, _ = sheets(read_instance("a.xml", instance(statement())))
    told = {line(fact) for sheet in found for fact in sheet.facts}
    assert told == {line(fact) for sheet in plain for fact in sheet.facts} | {
        "us-gaap:WebsiteDescription see http://a.example/ for more"
    }
    assert left["that name other elements by address"] == 2


# ---------------------------------------------------------------- inline


def one(body: str, concept: str = "Revenues") -> Decimal | None:
    return value(read_inline("a.htm", inline(body)), concept)


def test_scale_sign_and_format() -> None:
    assert one(shown("Revenues", "1,234.5", scale="3", format="ixt:num-dot-decimal")) == 1234500
    assert one(shown("Revenues", "1.234,5", scale="6", format="ixt:num-comma-decimal")) == 1234500000
    assert one("(" + shown("Revenues", "77", sign="-") + ")") == -77
    assert one(shown("Revenues", "—", format="ixt:fixed-zero", scale="6")) == 0
    assert one(shown("Revenues", "two", format="ixt-sec:numwordsen")) == 2
    assert one(shown("Revenues", "5", scale="-2")) == Decimal("0.05")


def test_markup_inside_a_number_and_an_excluded_footnote() -> None:
    assert one(shown("Revenues", "<b>1</b>,2<ix:exclude>(a)</ix:exclude>00", format="ixt:num-dot-decimal")) == 1200


def test_nested_facts_share_their_text() -> None:
    inner = shown("NetIncomeLoss", "12", scale="3")
    outer = shown("Revenues", inner, scale="3")
    filing = read_inline("a.htm", inline(outer))
    assert value(filing, "Revenues") == value(filing, "NetIncomeLoss") == 12000
    assert [fact.concept for fact in filing.facts] == ["us-gaap:Revenues", "us-gaap:NetIncomeLoss"]


def test_facts_come_in_the_order_of_the_document() -> None:
    body = shown("B", "1") + "<p>" + shown("A", "2") + "</p>" + shown("C", "3")
    assert [fact.concept[-1] for fact in read_inline("a.htm", inline(body)).facts] == ["B", "A", "C"]


def test_continued_text_and_continuations_that_run_in_a_circle() -> None:
    body = (
        '<ix:nonNumeric name="us-gaap:Note" contextRef="d" continuedAt="c1">one <ix:exclude>page 7</ix:exclude></ix:nonNumeric>'
        '<ix:continuation id="c2">three</ix:continuation><ix:continuation id="c1" continuedAt="c2">two </ix:continuation>'
        '<ix:nonNumeric name="us-gaap:Loop" contextRef="d" continuedAt="x">a</ix:nonNumeric>'
        '<ix:continuation id="x" continuedAt="x">b</ix:continuation>'
    )
    filing = read_inline("a.htm", inline(body))
    assert [fact.value for fact in filing.facts] == ["one two three", "ab"]


def test_what_inline_leaves_out_is_counted() -> None:
    body = (
        shown("Revenues", "5")
        + shown("A", "five", format="ixt-sec:durwordsen")
        + shown("B", "5", format="xbrli:num-dot-decimal")
        + shown("C", "5", target="other")
        + shown("D", "5", scale="99")
        + shown("E", "", **{"xsi:nil": "true"})
        + '<ix:nonFraction name="nowhere:X" contextRef="d" unitRef="usd">5</ix:nonFraction>'
        + '<ix:nonNumeric name="us-gaap:T" contextRef="d" format="ixt-sec:durwordsen">one year</ix:nonNumeric>'
    )
    filing = read_inline("a.htm", inline(body))
    assert [fact.concept for fact in filing.facts] == ["us-gaap:Revenues", "us-gaap:E"]
    assert filing.facts[1].nil
    assert filing.unread["numbers that cannot be read"] == 2
    assert filing.unread["facts of another target document"] == 1
    assert filing.unread["format xbrli:num-dot-decimal"] == 1
    assert filing.unread["format ixt-sec:durwordsen"] == 1
    assert filing.unread["facts without a concept or a context"] == 1


def test_an_inline_document_without_its_contexts_is_refused() -> None:
    body = shown("Revenues", "5", contextRef="elsewhere")
    with pytest.raises(FinbenchError, match="refer to contexts that it does not define"):
        read_inline("a.htm", inline(body))


# ---------------------------------------------------------------- labels and dates


def test_labels_of_the_linkbase_and_words_of_the_name() -> None:
    text = (
        '<link:linkbase xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink">'
        '<link:labelLink><link:loc xlink:href="x.xsd#us-gaap_Assets" xlink:label="a"/>'
        '<link:label xlink:label="l" xlink:role="http://www.xbrl.org/2003/role/terseLabel">2024</link:label>'
        '<link:label xlink:label="l" xlink:role="http://www.xbrl.org/2003/role/label" xml:lang="de">Aktiva</link:label>'
        '<link:label xlink:label="l" xlink:role="http://www.xbrl.org/2003/role/label" xml:lang="en-US">Total \n assets</link:label>'
        '<link:labelArc xlink:from="a" xlink:to="l"/></link:labelLink></link:linkbase>'
    )
    assert read_labels("x", text.encode()) == {"us-gaap:Assets": "Total assets"}
    assert words("us-gaap:AssetsCurrent") == "Assets Current"
    assert words("us-gaap:DebtInstrumentLIBORRate1") == "Debt Instrument LIBOR Rate 1"


def test_the_filing_date_is_what_lies_beside_or_the_name_says(tmp_path: Path) -> None:
    document = instance(statement())
    plain, dated, early = (tmp_path / name for name in ("a.xml", "a-10-k-2024-02-03.xml", "b-2023-02-03.xml"))
    for path in (plain, dated, early):
        path.write_bytes(document)
    assert [filing.filed for path in (plain, dated, early) for filing in filings.read(path)] == ["", "2024-02-03", ""]
    (tmp_path / "filing_metadata.txt").write_text("Form: 10-K\nFiling Date: 2024-02-09\n")
    assert [filing.filed for filing in filings.read(plain)] == ["2024-02-09"]
    (tmp_path / "filing_metadata.txt").unlink()
    (tmp_path / "0001-index-headers.html").write_text("FILED AS OF DATE:\t\t20240210")
    assert [filing.filed for filing in filings.read(plain)] == ["2024-02-10"]
