"""Named ratios over us-gaap concepts: the formula as text, and its value by decimal arithmetic.

A role such as REVENUE stands for the concepts by which filers report it, in order of preference. A ratio is asked
about only where each role has one value: two of its concepts with different values would make the formula a guess.
Definitions are the usual ones of financial statement analysis; balances are those at the end of the period, which
the questions say.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from finbench.data.xbrl.model import Fact, plain

_CONCEPTS = {
    "ASSETS": ("Assets",),
    "CURRENT ASSETS": ("AssetsCurrent",),
    "CURRENT LIABILITIES": ("LiabilitiesCurrent",),
    "LIABILITIES": ("Liabilities",),
    "EQUITY": ("StockholdersEquity", "StockholdersEquityIncludingPortionAttributableToNoncontrollingInterest"),
    "CASH": ("CashAndCashEquivalentsAtCarryingValue",),
    "INVENTORY": ("InventoryNet",),
    "REVENUE": ("Revenues", "RevenueFromContractWithCustomerExcludingAssessedTax", "SalesRevenueNet"),
    "COST OF REVENUE": ("CostOfRevenue", "CostOfGoodsAndServicesSold", "CostOfGoodsSold"),
    "GROSS PROFIT": ("GrossProfit",),
    "OPERATING INCOME": ("OperatingIncomeLoss",),
    "NET INCOME": ("NetIncomeLoss", "ProfitLoss"),
    "PRE-TAX INCOME": (
        "IncomeLossFromContinuingOperationsBeforeIncomeTaxesExtraordinaryItemsNoncontrollingInterest",
        "IncomeLossFromContinuingOperationsBeforeIncomeTaxesMinorityInterestAndIncomeLossFromEquityMethodInvestments",
    ),
    "TAX": ("IncomeTaxExpenseBenefit",),
    "RESEARCH": ("ResearchAndDevelopmentExpense", "TechnologyAndDevelopmentExpense"),
    "SELLING AND ADMINISTRATION": ("SellingGeneralAndAdministrativeExpense",),
    "OPERATING CASH FLOW": ("NetCashProvidedByUsedInOperatingActivities",),
    "CAPITAL EXPENDITURE": ("PaymentsToAcquirePropertyPlantAndEquipment", "PaymentsToAcquireProductiveAssets"),
    "DIVIDENDS": ("PaymentsOfDividends", "PaymentsOfDividendsCommonStock"),
    "INTEREST": ("InterestExpense", "InterestExpenseNonoperating"),
}


@dataclass(frozen=True)
class Ratio:
    """``above`` over ``below``; a role with a leading minus is subtracted. No ``below``: a difference in money."""

    name: str
    above: tuple[str, ...]
    below: tuple[str, ...] = ()
    percent: bool = False


RATIOS = (
    Ratio("current ratio", ("CURRENT ASSETS",), ("CURRENT LIABILITIES",)),
    Ratio("quick ratio (current assets less inventory)", ("CURRENT ASSETS", "-INVENTORY"), ("CURRENT LIABILITIES",)),
    Ratio("cash ratio", ("CASH",), ("CURRENT LIABILITIES",)),
    Ratio("debt ratio (liabilities to assets)", ("LIABILITIES",), ("ASSETS",)),
    Ratio("ratio of liabilities to equity", ("LIABILITIES",), ("EQUITY",)),
    Ratio("equity ratio (equity to assets)", ("EQUITY",), ("ASSETS",)),
    Ratio("equity multiplier", ("ASSETS",), ("EQUITY",)),
    Ratio("working capital", ("CURRENT ASSETS", "-CURRENT LIABILITIES")),
    Ratio("gross margin", ("GROSS PROFIT",), ("REVENUE",), percent=True),
    Ratio("share of the cost of revenue in revenue", ("COST OF REVENUE",), ("REVENUE",), percent=True),
    Ratio("operating margin", ("OPERATING INCOME",), ("REVENUE",), percent=True),
    Ratio("net profit margin", ("NET INCOME",), ("REVENUE",), percent=True),
    Ratio("effective tax rate", ("TAX",), ("PRE-TAX INCOME",), percent=True),
    Ratio("share of research and development in revenue", ("RESEARCH",), ("REVENUE",), percent=True),
    Ratio("share of selling, general and administrative expense in revenue", ("SELLING AND ADMINISTRATION",),
          ("REVENUE",), percent=True),
    Ratio("operating cash flow margin", ("OPERATING CASH FLOW",), ("REVENUE",), percent=True),
    Ratio("share of capital expenditure in revenue", ("CAPITAL EXPENDITURE",), ("REVENUE",), percent=True),
    Ratio("free cash flow (operating cash flow less capital expenditure)",
          ("OPERATING CASH FLOW", "-CAPITAL EXPENDITURE")),
    Ratio("dividend payout ratio", ("DIVIDENDS",), ("NET INCOME",), percent=True),
    Ratio("interest coverage (operating income to interest expense)", ("OPERATING INCOME",), ("INTEREST",)),
    Ratio("return on assets (on assets at the end of the period)", ("NET INCOME",), ("ASSETS",), percent=True),
    Ratio("return on equity (on equity at the end of the period)", ("NET INCOME",), ("EQUITY",), percent=True),
    Ratio("asset turnover (on assets at the end of the period)", ("REVENUE",), ("ASSETS",)),
)  # fmt: skip


@dataclass(frozen=True)
class Solved:
    """A ratio with its facts: ``formula`` over concepts, ``value`` exact to 40 digits, ``answer`` as to be given."""

    ratio: Ratio
    formula: str
    value: Decimal
    answer: str
    places: int | None  # decimals of the answer; None for a difference, which is exact
    facts: tuple[Fact, ...]
    unit: str


def solve(ratio: Ratio, numbers: Mapping[str, Fact]) -> Solved | None:
    """The ratio over ``numbers`` (concept -> fact), or None where a role has no value, two, or divides by zero."""
    found: dict[str, Fact] = {}
    for role in (role.lstrip("-") for role in (*ratio.above, *ratio.below)):
        facts = [numbers[name] for concept in _CONCEPTS[role] if (name := f"us-gaap:{concept}") in numbers]
        if not facts or len({fact.number for fact in facts}) > 1:
            return None
        found[role] = facts[0]
    if len({fact.unit for fact in found.values()}) > 1:
        return None
    with decimal.localcontext() as context:
        context.prec = 40
        above, below = (_sum(part, found) for part in (ratio.above, ratio.below))
        if ratio.below and not below:
            return None
        value = above / below if ratio.below else above
        value *= 100 if ratio.percent else 1
        digits = None if not ratio.below else 2 if ratio.percent else 3
        rounded = value if digits is None else value.quantize(Decimal(1).scaleb(-digits), decimal.ROUND_HALF_UP)
        answer = plain(rounded) if digits is None else f"{rounded:f}"
    unit = "percent" if ratio.percent else "times" if ratio.below else next(iter(found.values())).unit
    return Solved(ratio, _text(ratio, found), value, answer, digits, tuple(found.values()), unit)


def _sum(part: tuple[str, ...], found: Mapping[str, Fact]) -> Decimal:
    total = Decimal(0)
    for role in part:
        number = found[role.lstrip("-")].number
        assert number is not None  # only numbers were looked up
        total += -number if role.startswith("-") else number
    return total


def _text(ratio: Ratio, found: Mapping[str, Fact]) -> str:
    sides = []
    for part in (ratio.above, ratio.below):
        signed = ("-" * role.startswith("-") + found[role.lstrip("-")].concept for role in part)
        sides.append(" + ".join(signed).replace(" + -", " - "))
    if not ratio.below:
        return sides[0]
    quotient = " / ".join(f"({side})" if " " in side else side for side in sides)
    return f"({quotient}) * 100" if ratio.percent else quotient
