"""Small XBRL documents for tests, and a second reader that shares nothing with finbench's.

The second reader uses the standard library's ElementTree and its own arithmetic (fractions), so that an answer which
both find is not one mistake made twice in one place.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

from conftest import processor_time

INSTANCE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<xbrl xmlns="http://www.xbrl.org/2003/instance" '
    'xmlns:link="http://www.xbrl.org/2003/linkbase" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xbrldi="http://xbrl.org/2006/xbrldi" xmlns:iso4217="http://www.xbrl.org/2003/iso4217" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:dei="http://xbrl.sec.gov/dei/2023" '
    'xmlns:us-gaap="http://fasb.org/us-gaap/2023" xmlns:own="http://example.com/own">{body}</xbrl>'
)
INLINE = (
    '<?xml version=\'1.0\'?>\n<html xmlns="http://www.w3.org/1999/xhtml" xmlns:ix="http://www.xbrl.org/2013/inlineXBRL" '
    'xmlns:ixt="http://www.xbrl.org/inlineXBRL/transformation/2020-02-12" '
    'xmlns:ixt-sec="http://www.sec.gov/inlineXBRL/transformation/2015-08-31" '
    'xmlns:xbrli="http://www.xbrl.org/2003/instance" xmlns:xbrldi="http://xbrl.org/2006/xbrldi" '
    'xmlns:iso4217="http://www.xbrl.org/2003/iso4217" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:dei="http://xbrl.sec.gov/dei/2023" xmlns:us-gaap="http://fasb.org/us-gaap/2023">'
    "<body><div>{header}</div>{body}</body></html>"
)
ENTITY = '<{p}identifier scheme="http://www.sec.gov/CIK">{cik}</{p}identifier>{segment}'


def context(name: str, period: str, segment: str = "", prefix: str = "", cik: str = "0000000042") -> str:
    """A context; ``period`` is one date, or two with "/" between."""
    start, _, end = period.partition("/")
    p = f"{prefix}:" if prefix else ""
    inner = (
        f"<{p}startDate>{start}</{p}startDate><{p}endDate>{end}</{p}endDate>"
        if end
        else f"<{p}instant>{start}</{p}instant>"
    )
    member = f'<xbrldi:explicitMember dimension="us-gaap:Axis">{segment}</xbrldi:explicitMember>' if segment else ""
    holder = f"<{p}segment>{member}</{p}segment>" if segment else ""
    entity = ENTITY.format(p=p, cik=cik, segment=holder)
    return f'<{p}context id="{name}"><{p}entity>{entity}</{p}entity><{p}period>{inner}</{p}period></{p}context>'


def unit(name: str, measure: str, prefix: str = "") -> str:
    """A unit of one measure."""
    p = f"{prefix}:" if prefix else ""
    return f'<{p}unit id="{name}"><{p}measure>{measure}</{p}measure></{p}unit>'


def instance(body: str, more: str = "") -> bytes:
    """An instance with contexts d (2023), i (end of 2023), s (2023, a segment) and the unit usd."""
    head = context("d", "2023-01-01/2023-12-31") + context("i", "2023-12-31")
    head += context("s", "2023-01-01/2023-12-31", "own:NorthMember") + unit("usd", "iso4217:USD") + more
    cover = '<dei:EntityRegistrantName contextRef="d">Bexley plc</dei:EntityRegistrantName>'
    cover += '<dei:DocumentType contextRef="d">10-K</dei:DocumentType>'
    cover += '<dei:DocumentPeriodEndDate contextRef="d">2023-12-31</dei:DocumentPeriodEndDate>'
    return INSTANCE.format(body=head + cover + body).encode()


def fact(name: str, value: object, where: str = "d", decimals: str = "0") -> str:
    """A us-gaap fact in dollars."""
    return f'<us-gaap:{name} contextRef="{where}" unitRef="usd" decimals="{decimals}">{value}</us-gaap:{name}>'


def statement(revenue: int = 1000) -> str:
    """Enough facts for questions of every kind."""
    flows = {"Revenues": revenue, "CostOfRevenue": 600, "GrossProfit": revenue - 600, "NetIncomeLoss": -77}
    balances = {"Assets": 4100, "AssetsCurrent": 900, "Liabilities": 3900, "LiabilitiesCurrent": 300}
    balances["StockholdersEquity"] = 200
    return "".join(fact(k, v) for k, v in flows.items()) + "".join(fact(k, v, "i") for k, v in balances.items())


def inline(body: str, more: str = "") -> bytes:
    """An inline document with contexts d and i and the unit usd."""
    header = context("d", "2023-01-01/2023-12-31", prefix="xbrli") + context("i", "2023-12-31", prefix="xbrli")
    header += unit("usd", "iso4217:USD", "xbrli") + more
    return INLINE.format(header=f"<ix:header><ix:resources>{header}</ix:resources></ix:header>", body=body).encode()


def shown(name: str, text: str, **attributes: str) -> str:
    """An ix:nonFraction in context d, in dollars."""
    stated = {"contextRef": "d", "unitRef": "usd", "decimals": "0", "name": f"us-gaap:{name}", **attributes}
    return "<ix:nonFraction " + " ".join(f'{k}="{v}"' for k, v in stated.items()) + f">{text}</ix:nonFraction>"


# ---------------------------------------------------------------- the second reader


def _local(tag: str) -> tuple[str, str]:
    space, _, name = tag.removeprefix("{").rpartition("}")
    return space, name


def second_reading(path: Path) -> dict[tuple[str, str], set[Fraction]]:
    """(context id, concept) -> numbers, of an instance or an inline document, by ElementTree."""
    found: dict[tuple[str, str], set[Fraction]] = {}
    for element in ET.parse(path).getroot().iter():
        space, name = _local(element.tag)
        where = element.get("contextRef")
        if (
            where is None
            or element.get("unitRef") is None
            or element.get("{http://www.w3.org/2001/XMLSchema-instance}nil")
        ):
            continue
        if "inlineXBRL" in space:
            if name != "nonFraction" or not (element.get("name") or "").startswith("us-gaap:"):
                continue
            concept, number = element.get("name") or "", _printed(element)
        elif "/us-gaap/" in space:
            concept, number = f"us-gaap:{name}", Fraction(element.text or "0")
        else:
            continue
        found.setdefault((where, concept), set()).add(number)
    return found


def _printed(element: ET.Element) -> Fraction:
    text = "".join(element.itertext()).strip()
    how = element.get("format") or ""
    if how.endswith("fixed-zero"):
        value = Fraction(0)
    elif how.endswith("numwordsen"):
        value = Fraction(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"].index(text.lower()))
    elif how.endswith("num-comma-decimal"):
        value = Fraction(text.replace(".", "").replace(",", "."))
    else:
        value = Fraction(text.replace(",", ""))
    value *= Fraction(10) ** int(element.get("scale") or 0)
    return -value if element.get("sign") == "-" else value


def second_labels(path: Path) -> dict[str, set[str]]:
    """Concept -> its standard labels, by ElementTree."""
    link, xlink = "{http://www.xbrl.org/2003/linkbase}", "{http://www.w3.org/1999/xlink}"
    root = ET.parse(path).getroot()
    locs = {loc.get(f"{xlink}label"): (loc.get(f"{xlink}href") or "").split("#")[-1] for loc in root.iter(f"{link}loc")}
    texts: dict[str | None, set[str]] = {}
    for label in root.iter(f"{link}label"):
        if label.get(f"{xlink}role") == "http://www.xbrl.org/2003/role/label":
            texts.setdefault(label.get(f"{xlink}label"), set()).add(" ".join((label.text or "").split()))
    found: dict[str, set[str]] = {}
    for arc in root.iter(f"{link}labelArc"):
        concept = locs[arc.get(f"{xlink}from")].replace("_", ":", 1)
        found.setdefault(concept, set()).update(texts.get(arc.get(f"{xlink}to"), set()))
    return found


def second_value(formula: str, numbers: dict[str, Fraction]) -> Fraction:
    """The value of a formula over tags, by Python's own parser."""
    tags = sorted(numbers, key=len, reverse=True)
    names = {tag: f"v{place}" for place, tag in enumerate(tags)}
    text = re.sub("|".join(map(re.escape, tags)), lambda match: names[match[0]], formula)

    def walk(node: ast.AST) -> Fraction:
        if isinstance(node, ast.BinOp):
            one, other = walk(node.left), walk(node.right)
            if isinstance(node.op, ast.Add):
                return one + other
            if isinstance(node.op, ast.Sub):
                return one - other
            return one * other if isinstance(node.op, ast.Mult) else one / other
        if isinstance(node, ast.Name):
            return numbers[tags[int(node.id[1:])]]
        assert isinstance(node, ast.Constant)
        return Fraction(node.value)  # type: ignore[arg-type]

    return walk(ast.parse(text, mode="eval").body)


# ---------------------------------------------------------------- measuring


def measured(*arguments: str) -> tuple[float, int]:
    """Seconds of processor time and peak memory (KiB) of ``finbench data xbrl`` with these arguments, in a process of its own.

    VmHWM, not getrusage: Linux hands the peak of the process that forks on to its child.
    """
    code = (
        "import re; from finbench.cli.app import app\n"
        "try: app()\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    start = processor_time()
    command = [sys.executable, "-c", code, "data", "xbrl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return processor_time() - start, int(done.stdout.split()[-1])
