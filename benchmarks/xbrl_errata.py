"""FinLoRA's published XBRL-analysis rows against their filings, and against finbench's own answers.

    python benchmarks/xbrl_errata.py CSV_FOLDER FILING...            # prints the section of docs/errata.md
    python benchmarks/xbrl_errata.py CSV_FOLDER FILING... --write    # puts it there

A published row agrees when the question, asked of the filing by finbench (the concept that the item's name stands for,
its value in the row's context, the ratio's formula and result), has the published answer.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from finbench.core import paths
from finbench.core.prose import wrapped
from finbench.data.xbrl import filings, finlora_questions
from finbench.data.xbrl.finlora_questions import Question
from finbench.data.xbrl.model import Filing
from finbench.data.xbrl.ratios import RATIOS, Solved, solve
from finbench.data.xbrl.sheets import Sheet, sheets

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errata.md"
MARKS = ("<!-- finlora-xbrl: written by benchmarks/xbrl_errata.py -->", "<!-- /finlora-xbrl -->")
ITEMS = {  # FinLoRA's names of items -> the concepts that can carry them, any of which the filing may use
    "Accounts Payable": ("AccountsPayableCurrent",),
    "Accounts Receivable": ("AccountsReceivableNetCurrent",),
    "Cash Flow for Financing Activities": ("NetCashProvidedByUsedInFinancingActivities",),
    "Cash Flow for Investing Activities": ("NetCashProvidedByUsedInInvestingActivities",),
    "Cash Flow for Operating Activities": ("NetCashProvidedByUsedInOperatingActivities",),
    "Common Stock Repurchased": ("PaymentsForRepurchaseOfCommonStock",),
    "Cost of Goods Sold": ("CostOfGoodsAndServicesSold", "CostOfRevenue"),
    "Current Assets": ("AssetsCurrent",),
    "Current Liabilities": ("LiabilitiesCurrent",),
    "Gross Profit": ("GrossProfit",),
    "Inventory": ("InventoryNet",),
    "Net Income": ("NetIncomeLoss",),
    "Operating Income": ("OperatingIncomeLoss",),
    "Plant, Property, and Equipment": ("PropertyPlantAndEquipmentNet",),
    "Retained Earnings": ("RetainedEarningsAccumulatedDeficit",),
    "Total Assets": ("Assets",),
    "Total Equity": ("StockholdersEquity",),
    "Total Liabilities": ("Liabilities",),
    "Total Revenue": ("RevenueFromContractWithCustomerExcludingAssessedTax", "Revenues"),
}
NAMES = {  # FinLoRA's names of ratios -> finbench's
    "Cash Flow Margin": "operating cash flow margin",
    "Current Ratio": "current ratio",
    "Equity Multiplier": "equity multiplier",
    "Gross Profit Margin": "gross margin",
    "Net Profit Margin": "net profit margin",
    "Operating Profit Margin": "operating margin",
    "Quick Ratio": "quick ratio (current assets less inventory)",
}


def asked_of(question: str, names: dict[str, object]) -> str:
    """The longest of ``names`` in a question; "" if there is none."""
    return max((name for name in names if re.search(rf"\b{re.escape(name)}\b", question)), key=len, default="")


class Judge:
    """Compares published answers with those of the filings."""

    def __init__(self, given: list[Filing]) -> None:
        self.helper = paths.helper("xbrl")  # answers are compared as the tasks compare them
        self.sheets: dict[tuple[str, str], Sheet] = {}
        self.filings = {finlora_questions.document_of(filing): filing for filing in given}
        for document, filing in self.filings.items():
            by_key = {sheet.context.key: sheet for sheet in sheets(filing)[0]}
            for context in filing.contexts.values():
                if not context.dimensions and context.key in by_key:
                    self.sheets[document, context.id] = by_key[context.key]

    def fault(self, question: Question) -> str:
        """Why the published answer is not the filing's; "" if it is."""
        sheet = self.sheets.get((question.document, question.context))
        if sheet is None:
            return "its context has no consolidated facts"
        if question.set == "finlora_xbrl_tags" and not question.answer.startswith("us-gaap:"):
            return "a value question in the file of tag questions"
        if question.set in ("finlora_xbrl_tags", "finlora_xbrl_values"):
            return self._item(question, sheet)
        return self._ratio(question, sheet)

    def _item(self, question: Question, sheet: Sheet) -> str:
        name = asked_of(question.question, dict(ITEMS))
        if not name:
            return "the item's name is not known"
        found = [sheet.numbers[f"us-gaap:{c}"] for c in ITEMS[name] if f"us-gaap:{c}" in sheet.numbers]
        if not found:
            return f"the filing reports none of {', '.join(ITEMS[name])}"
        if question.set == "finlora_xbrl_tags":
            right = question.answer in {fact.concept for fact in found}
        else:
            right = Decimal(question.answer) in {fact.number for fact in found}
        shown = ", ".join(f"{fact.concept} {fact.value}" for fact in found)
        return "" if right else f"the filing has {shown}, the answer is {question.answer}"

    def _ratio(self, question: Question, sheet: Sheet) -> str:
        name = asked_of(question.question, dict(NAMES))
        if not name:
            return "the ratio's name is not known"
        (ratio,) = [ratio for ratio in RATIOS if ratio.name == NAMES[name]]
        solved = solve(ratio, sheet.numbers)
        if solved is None:
            return f"the filing's facts do not give the {ratio.name}"
        return self._compared(question, solved)

    def _compared(self, question: Question, solved: Solved) -> str:
        theirs, ours = (self.helper.parse_formula(text) for text in (question.answer, solved.formula))
        if theirs is None:
            return f"not a formula: {question.answer}"
        if question.set == "finlora_xbrl_formula":
            return "" if theirs == ours else f"the formula is {solved.formula}, the answer is {question.answer}"
        value = self.helper.evaluate(theirs, {})
        exact = None if value is None else Decimal(value.numerator) / value.denominator
        right = exact is not None and abs(exact - solved.value) < Decimal("1e-12")
        return "" if right else f"the result is {solved.answer}, the answer {question.answer}"


def section(folder: Path, given: list[Filing]) -> Iterator[str]:
    """The lines of the section of docs/errata.md."""
    questions = finlora_questions.read_questions(sorted(folder.glob("*.csv")))
    judge = Judge(given)
    joined = [question for question in questions if question.document in judge.filings]
    faults = {question.place: judge.fault(question) for question in joined}
    names = ", ".join(sorted(document.split("_")[0].split(".")[0] for document in judge.filings))
    yield "## FinLoRA's XBRL analysis: the published rows against their filings"
    yield ""
    yield f"We had the filings {names}. Of {len(questions):,} published rows, {len(joined)} are about them."
    yield "Each answer is asked in five wordings. A row agrees if finbench finds its answer in the filing."
    yield ""
    yield "| kind | rows | different answers | agree | disagree |"
    yield "|--|--:|--:|--:|--:|"
    for set_ in finlora_questions.SETS.values():
        part = [question for question in joined if question.set == set_]
        good = sum(not faults[question.place] for question in part)
        answers = {(question.document, question.context, question.answer) for question in part}
        yield f"| {set_.removeprefix('finlora_')} | {len(part)} | {len(answers)} | {good} | {len(part) - good} |"
    good = sum(not fault for fault in faults.values())
    yield f"| **all** | **{len(joined)}** | | **{good}** | **{len(joined) - good}** |"
    yield ""
    yield from _disagreements(joined, faults)
    yield from _of_the_files(questions)


def _disagreements(joined: list[Question], faults: dict[str, str]) -> Iterator[str]:
    yield "The rows that disagree (line numbers of the published files):"
    yield ""
    for question in joined:
        if fault := faults[question.place]:
            place = question.place.rpartition("/")[2]
            text = " ".join(question.question.split()).removeprefix("Question: ").removesuffix(" Answer:")
            yield f'- {place}: "{text}" → {question.answer}: {fault}.'
    if not any(faults.values()):
        yield "- none"
    yield ""


def _of_the_files(questions: list[Question]) -> Iterator[str]:
    """What can be said of all rows without their filings."""
    counts: Counter[str] = Counter()
    for question in questions:
        if question.set == "finlora_xbrl_tags" and not question.answer.startswith("us-gaap:"):
            counts["number" if re.fullmatch(r"-?[\d.]+", question.answer) else "other"] += 1
        counts["values"] += question.set == "finlora_xbrl_values"
        counts["point"] += question.set == "finlora_xbrl_values" and question.answer.endswith(".0")
        counts["stray"] += "* 100')" in question.question
    tags = sum(question.set == "finlora_xbrl_tags" for question in questions)
    formulas = [question for question in questions if question.set == "finlora_xbrl_formula"]
    trained = {(question.company, question.answer) for question in formulas if question.split == "train"}
    tested = [question for question in formulas if question.split == "test"]
    known = sum((question.company, question.answer) in trained for question in tested)
    unbalanced = sum(question.instruction.count("(") < question.instruction.count(")") for question in formulas)
    yield "In all published rows that we had, with or without their filing:"
    yield ""
    lines = (
        f"{counts['number']} of {tags:,} tag rows ask for a value and have a number as the answer;",
        f"  {counts['other']} more have a company's own tag. Both are left out of `finlora_xbrl_tags`.",
        f"{counts['point']:,} of {counts['values']:,} values end in `.0`, where the filings have integers:",
        "  values are compared as numbers.",
        f"{counts['stray']:,} questions carry a stray `* 100')` from the template that made them.",
        "  They are asked as published.",
        f"{unbalanced:,} of {len(formulas):,} formula rows show an example formula with a bracket",
        "  that is never opened.",
        f"{known} of {len(tested)} formula rows of the test have their company and answer in train:",
        "  that test measures memory. finbench's own `xbrl_formula` holds out companies.",
    )
    yield from (line if line.startswith("  ") else f"- {line}" for line in lines)


def main() -> int:
    """Print or write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of FinLoRA's CSV files")
    parser.add_argument("filings", type=Path, nargs="+", help="folders or files of filings")
    parser.add_argument("--write", action="store_true", help="put the section into docs/errata.md")
    arguments = parser.parse_args()
    given = [filing for path in arguments.filings for filing in filings.read(path)]
    asked = {question.document for question in finlora_questions.read_questions(sorted(arguments.folder.glob("*.csv")))}
    text = "\n".join(section(arguments.folder, [f for f in given if finlora_questions.document_of(f) in asked])) + "\n"
    text = wrapped(text)
    if not arguments.write:
        sys.stdout.write(text)
        return 0
    page = (
        PAGE.read_text(encoding="utf-8")
        if PAGE.is_file()
        else f"# Errors in published data\n\n{MARKS[0]}\n{MARKS[1]}\n"
    )
    before, _, rest = page.partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
