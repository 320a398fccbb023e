"""Writes small inline XBRL filings of invented companies, and the mini_xbrl rows that finbench makes of them.

``python tasks/mini/xbrl.py`` writes ``filings/*.htm`` with their label linkbases and ``mini_xbrl.*.jsonl``;
``--check`` compares only. The filings use what real ones use: scale, sign, brackets, dashes for zero, European
commas, numbers in words, nil, repeated rounded figures, segments, excluded page numbers, continued notes.
"""

import argparse
import hashlib
import json
import pathlib
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from finbench.data.xbrl.filings import read
from finbench.data.xbrl.rows import QuestionSettings, rows

HERE = pathlib.Path(__file__).parent
SEED = "finbench-mini-xbrl-1"
BUDGET = 300  # characters of facts a row: with the question it fits 512 tokens, even of a small tokenizer
COUNTS = {"xbrl_tags": 11, "xbrl_values": 13, "xbrl_formula": 8, "xbrl_calc": 8}  # rows a filing
COMPANIES = {
    "train": ["Oakmere Instruments Inc.", "Talvik Freight Corp.", "Pinebrook Dairies Inc.", "Corrado Ceramics Corp.",
              "Lindqvist Batteries Inc.", "Marrow Bay Seafood Corp."],
    "test": ["Ostrava Looms Inc.", "Hollis & Tern Books Corp.", "Vexford Pumps Inc."],
}  # fmt: skip
LABELS = {
    "Assets": "Total assets", "AssetsCurrent": "Total current assets", "Liabilities": "Total liabilities",
    "CashAndCashEquivalentsAtCarryingValue": "Cash and cash equivalents", "InventoryNet": "Inventories",
    "AccountsReceivableNetCurrent": "Accounts receivable, net", "AssetsNoncurrent": "Non-current assets",
    "LiabilitiesCurrent": "Total current liabilities", "LiabilitiesNoncurrent": "Non-current liabilities",
    "StockholdersEquity": "Total shareholders' equity", "CommonStockSharesOutstanding": "Common shares outstanding",
    "Revenues": "Net sales", "CostOfRevenue": "Cost of sales", "GrossProfit": "Gross profit",
    "ResearchAndDevelopmentExpense": "Research and development", "OperatingIncomeLoss": "Operating income (loss)",
    "SellingGeneralAndAdministrativeExpense": "Selling, general and administrative", "InterestExpense": "Interest",
    "IncomeTaxExpenseBenefit": "Income tax", "NetIncomeLoss": "Net income (loss)",
    "EarningsPerShareBasic": "Basic earnings per share", "PaymentsOfDividends": "Dividends paid",
    "NetCashProvidedByUsedInOperatingActivities": "Cash from operating activities",
    "PaymentsToAcquirePropertyPlantAndEquipment": "Purchases of property, plant and equipment",
    "NumberOfReportableSegments": "Number of reportable segments", "Goodwill": "Goodwill",
}  # fmt: skip
FLOWS = ("Revenues", "CostOfRevenue", "GrossProfit", "ResearchAndDevelopmentExpense",
         "SellingGeneralAndAdministrativeExpense", "OperatingIncomeLoss", "InterestExpense", "IncomeTaxExpenseBenefit",
         "NetIncomeLoss", "NetCashProvidedByUsedInOperatingActivities", "PaymentsToAcquirePropertyPlantAndEquipment",
         "PaymentsOfDividends")  # fmt: skip
BALANCES = ("CashAndCashEquivalentsAtCarryingValue", "AccountsReceivableNetCurrent", "InventoryNet", "AssetsCurrent",
            "AssetsNoncurrent", "Assets", "LiabilitiesCurrent", "LiabilitiesNoncurrent", "Liabilities",
            "StockholdersEquity")  # fmt: skip
OUTFLOWS = {"PaymentsToAcquirePropertyPlantAndEquipment", "PaymentsOfDividends", "InterestExpense"}
HEAD = (
    '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:ix="http://www.xbrl.org/2013/inlineXBRL" '
    'xmlns:ixt="http://www.xbrl.org/inlineXBRL/transformation/2020-02-12" '
    'xmlns:ixt-sec="http://www.sec.gov/inlineXBRL/transformation/2015-08-31" '
    'xmlns:xbrli="http://www.xbrl.org/2003/instance" xmlns:xbrldi="http://xbrl.org/2006/xbrldi" '
    'xmlns:iso4217="http://www.xbrl.org/2003/iso4217" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:dei="http://xbrl.sec.gov/dei/2024" xmlns:us-gaap="http://fasb.org/us-gaap/2024" '
    'xmlns:own="http://example.com/{slug}">'
)


def _slug(name: str) -> str:
    return "".join(c for c in name.split()[0].lower() if c.isalpha())


def _year(rng: Random, size: int) -> dict[str, int]:
    """Consistent statements of one year, in thousands; gaps and dashes are the printer's business."""
    sales = int(size * rng.uniform(0.85, 1.2))
    cost = int(sales * rng.uniform(0.45, 0.8))
    research, admin = (int(sales * rng.uniform(low, high)) for low, high in ((0.0, 0.08), (0.08, 0.3)))
    income = sales - cost - research - admin
    interest = int(sales * rng.uniform(0.004, 0.03))
    tax = max(0, int((income - interest) * rng.uniform(0.15, 0.3)))
    net = income - interest - tax
    current = {name: int(sales * rng.uniform(0.05, 0.3)) for name in BALANCES[:3]}
    total_current = sum(current.values()) + int(sales * 0.02)
    fixed = int(sales * rng.uniform(0.3, 0.9))
    short, long = (int(total_current * rng.uniform(low, high)) for low, high in ((0.4, 1.1), (0.2, 0.8)))
    values = (sales, cost, sales - cost, research, admin, income, interest, tax, net)
    cash = (net + int(sales * 0.06), int(sales * rng.uniform(0.03, 0.09)), max(0, int(net * rng.uniform(-0.2, 0.5))))
    flows = dict(zip(FLOWS, (*values, *cash), strict=True))
    tail = (
        total_current,
        fixed,
        total_current + fixed,
        short,
        long,
        short + long,
        total_current + fixed - short - long,
    )
    return flows | current | dict(zip(BALANCES[3:], tail, strict=True))


class Page:
    """Prints facts as a company of one style does."""

    def __init__(self, rng: Random, number: int) -> None:
        self.rng, self.number = rng, number
        self.comma = number % 4 == 3  # European decimals
        self.power = 6 if number % 3 == 1 else 3

    def fact(self, name: str, context: str, thousands: int) -> str:
        """An ix:nonFraction for a value in thousands of dollars, with what stands around it."""
        shown, scale = (thousands / 1000, 6) if self.power == 6 else (thousands, 3)
        text = f"{abs(shown):,.3f}" if scale == 6 else f"{abs(shown):,.0f}"
        form = "ixt:num-dot-decimal"
        if self.comma:
            text, form = text.translate(str.maketrans(",.", ".,")), "ixt:num-comma-decimal"
        if not thousands:
            text, form = "—", "ixt:fixed-zero"
        sign = ' sign="-"' if thousands < 0 else ""
        tag = (f'<ix:nonFraction name="us-gaap:{name}" contextRef="{context}" unitRef="usd" decimals="-3" '
               f'scale="{scale}" format="{form}"{sign}>{text}</ix:nonFraction>')  # fmt: skip
        return f"({tag})" if thousands < 0 or name in OUTFLOWS else f"$ {tag}"

    def table(self, names: tuple[str, ...], columns: list[tuple[str, dict[str, int]]]) -> Iterator[str]:
        """The rows of a statement, one column a period."""
        for name in names:
            cells = "".join(f"<td>{self.fact(name, context, values[name])}</td>" for context, values in columns)
            yield f"<tr><td>{LABELS[name].replace('&', '&amp;')}</td>{cells}</tr>"


def _context(identity: str, cik: str, period: str, segment: str = "") -> str:
    member = '<xbrldi:explicitMember dimension="us-gaap:StatementBusinessSegmentsAxis">{}</xbrldi:explicitMember>'
    inner = f"<xbrli:segment>{member.format(segment)}</xbrli:segment>" if segment else ""
    return (f'<xbrli:context id="{identity}"><xbrli:entity><xbrli:identifier scheme="http://www.sec.gov/CIK">{cik}'
            f"</xbrli:identifier>{inner}</xbrli:entity><xbrli:period>{period}</xbrli:period></xbrli:context>")  # fmt: skip


def _header(name: str, cik: str, year: int) -> Iterator[str]:
    """The hidden part: contexts, units and cover items that are not printed."""
    yield '<div style="display:none"><ix:header><ix:hidden>'
    yield f'<ix:nonNumeric name="dei:EntityCentralIndexKey" contextRef="y1">{cik}</ix:nonNumeric>'
    yield '<ix:nonFraction name="us-gaap:Goodwill" contextRef="i1" unitRef="usd" xsi:nil="true"></ix:nonFraction>'
    yield f'</ix:hidden><ix:references><link:schemaRef xlink:type="simple" xlink:href="{_slug(name)}-{year}1231.xsd"/>'
    yield "</ix:references><ix:resources>"
    for number in (0, 1):
        then = year - 1 + number
        span = (f"<xbrli:startDate>{then}-01-01</xbrli:startDate>"
                f"<xbrli:endDate>{then}-12-31</xbrli:endDate>")  # fmt: skip
        yield _context(f"y{number}", cik, span)
        yield _context(f"i{number}", cik, f"<xbrli:instant>{then}-12-31</xbrli:instant>")
        yield _context(f"s{number}", cik, span, "own:NorthMember")
    yield '<xbrli:unit id="usd"><xbrli:measure>iso4217:USD</xbrli:measure></xbrli:unit>'
    yield '<xbrli:unit id="shares"><xbrli:measure>xbrli:shares</xbrli:measure></xbrli:unit>'
    yield '<xbrli:unit id="segment"><xbrli:measure>own:segment</xbrli:measure></xbrli:unit>'
    yield ('<xbrli:unit id="each"><xbrli:divide><xbrli:unitNumerator><xbrli:measure>iso4217:USD</xbrli:measure>'
           "</xbrli:unitNumerator><xbrli:unitDenominator><xbrli:measure>xbrli:shares</xbrli:measure>"
           "</xbrli:unitDenominator></xbrli:divide></xbrli:unit>")  # fmt: skip
    yield "</ix:resources></ix:header></div>"


def _document(name: str, number: int) -> str:
    rng = Random(hashlib.sha256(f"{SEED}:{name}".encode()).hexdigest())
    year, cik = 2021 + number % 4, f"99{number:08d}"
    size = rng.randrange(20_000, 900_000)
    years = [_year(rng, size), _year(rng, int(size * rng.uniform(0.8, 1.4)))]
    page = Page(rng, number)
    shares = rng.randrange(4_000_000, 90_000_000)
    escaped = name.replace("&", "&amp;")
    lines = [
        "<?xml version='1.0' encoding='UTF-8'?>",
        HEAD.format(slug=_slug(name)),
        f"<head><title>{escaped}</title></head><body>",
    ]
    lines += _header(name, cik, year)
    lines.append(f'<h1><ix:nonNumeric name="dei:EntityRegistrantName" contextRef="y1">{escaped}</ix:nonNumeric></h1>')
    lines.append('<p>Form <ix:nonNumeric name="dei:DocumentType" contextRef="y1">10-K</ix:nonNumeric> for the year ended '
                 '<ix:nonNumeric name="dei:DocumentPeriodEndDate" contextRef="y1" format="ixt:date-monthname-day-year-en">'
                 f"December 31, {year}</ix:nonNumeric>. An invented company, written for tests.</p>")  # fmt: skip
    lines += ["<table>", *page.table(BALANCES, [("i1", years[1]), ("i0", years[0])])]
    lines.append(f'<tr><td>Common shares outstanding</td><td><ix:nonFraction name="us-gaap:CommonStockSharesOutstanding" contextRef="i1" unitRef="shares" '
                 f'decimals="INF" format="ixt:num-dot-decimal">{shares:,}</ix:nonFraction></td></tr></table><table>')  # fmt: skip
    lines += page.table(FLOWS, [("y1", years[1]), ("y0", years[0])])
    each = years[1]["NetIncomeLoss"] * 1000 / shares
    lines.append('<tr><td>Basic earnings per share</td><td><ix:nonFraction name="us-gaap:EarningsPerShareBasic" '
                 f'contextRef="y1" unitRef="each" decimals="2" format="ixt:num-dot-decimal"{" sign=" + chr(34) + "-" + chr(34) if each < 0 else ""}>'
                 f"{abs(each):.2f}</ix:nonFraction></td></tr></table>")  # fmt: skip
    lines += _notes(years, page)
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _notes(years: list[dict[str, int]], page: Page) -> Iterator[str]:
    """Prose: numbers in words, a rounded repetition, a segment, a note that is interrupted by a page number."""
    yield ('<p><ix:nonNumeric name="us-gaap:SegmentReportingDisclosureTextBlock" contextRef="y1" continuedAt="n2">The company '
           'has <ix:nonFraction name="us-gaap:NumberOfReportableSegments" contextRef="y1" unitRef="segment" decimals="INF" '
           'format="ixt-sec:numwordsen">two</ix:nonFraction> reportable segments.<ix:exclude> Page 7 </ix:exclude></ix:nonNumeric></p>')  # fmt: skip
    sales = years[1]["Revenues"]
    yield ('<p><ix:continuation id="n2">Net sales were about $<ix:nonFraction name="us-gaap:Revenues" contextRef="y1" unitRef="usd" '
           f'decimals="-6" scale="6" format="ixt:num-dot-decimal">{round(sales / 1000):,}</ix:nonFraction> million, of which '
           f'{page.fact("Revenues", "s1", sales // 3)} in the north.</ix:continuation></p>')  # fmt: skip


def _linkbase() -> str:
    parts = ['<link:linkbase xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink">',
             '<link:labelLink xlink:type="extended" xlink:role="http://www.xbrl.org/2003/role/link">']  # fmt: skip
    for name, label in LABELS.items():
        text = label.replace("&", "&amp;")
        parts.append(f'<link:loc xlink:type="locator" xlink:href="us-gaap-2024.xsd#us-gaap_{name}" xlink:label="{name}"/>'
                     f'<link:label xlink:type="resource" xlink:label="l_{name}" xlink:role="http://www.xbrl.org/2003/role/label" '
                     f'xml:lang="en-US">{text}</link:label>'
                     f'<link:labelArc xlink:type="arc" xlink:arcrole="http://www.xbrl.org/2003/arcrole/concept-label" '
                     f'xlink:from="{name}" xlink:to="l_{name}"/>')  # fmt: skip
    return "\n".join(["<?xml version='1.0' encoding='UTF-8'?>", *parts, "</link:labelLink></link:linkbase>"]) + "\n"


def filings() -> dict[str, bytes]:
    """File name to content: an inline document and a label linkbase a company."""
    out = {}
    names = [name for split in COMPANIES.values() for name in split]
    for number, name in enumerate(names):
        stem = f"{_slug(name)}-{2021 + number % 4}1231"
        out[f"{stem}.htm"] = _document(name, number).encode()
        out[f"{stem}_lab.xml"] = _linkbase().encode()
    return out


def mini_rows(folder: pathlib.Path) -> dict[str, bytes]:
    """The rows of both splits, as finbench makes them of the filings in ``folder``."""
    sides = {name: split for split, names in COMPANIES.items() for name in names}
    chosen: dict[str, list[dict[str, Any]]] = {split: [] for split in COMPANIES}
    for path in sorted(folder.glob("*.htm")):
        (filing,) = read(path)
        made: dict[str, list[dict[str, Any]]] = {name: [] for name in COUNTS}
        for set_, row in rows(filing, QuestionSettings(seed=0, max_context=BUDGET), Counter()):
            made[set_].append(row)
        rng = Random(f"{SEED}:{filing.id}")
        for set_, count in COUNTS.items():
            for row in rng.sample(made[set_], min(count, len(made[set_]))):
                slim = {
                    key: row.get(key, "") for key in ("id", "group", "company", "text", "question", "answer", "exact")
                }
                task = set_.removeprefix("xbrl_")
                unit = row.get("result_unit", row["unit"])
                exact = row["answer"] if task == "values" else slim["exact"]
                identity = f"mini_{row['id']}"
                chosen[sides[filing.company]].append(
                    {**slim, "id": identity, "exact": exact, "result_unit": unit, "task": task}
                )
    out = {}
    for split, part in chosen.items():
        part.sort(key=lambda row: hashlib.sha256(f"{SEED}:{row['id']}".encode()).hexdigest())
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in part]
        out[f"mini_xbrl.{split}.jsonl"] = ("\n".join(lines) + "\n").encode()
    return out


def main() -> int:
    """Write the files, or with --check compare them; exit 1 if one differs."""
    parser = argparse.ArgumentParser(description="Write the filings and rows of mini_xbrl.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk, write nothing")
    check = parser.parse_args().check
    folder = HERE / "filings"
    status = 0

    def put(path: pathlib.Path, content: bytes) -> int:
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            print(f"{path} differs from what {pathlib.Path(__file__).name} writes", file=sys.stderr)
            return 1
        return 0

    for name, content in filings().items():
        status |= put(folder / name, content)
    for name, content in mini_rows(folder).items():
        status |= put(HERE / name, content)
    return status


if __name__ == "__main__":
    sys.exit(main())
