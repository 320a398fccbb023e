"""docs/errata.md from an audit of the authors' files: what is wrong with published sets, with the rows that show it.

    finbench data audit FOLDER --json > audit.json
    python benchmarks/errata.py audit.json            # prints the section
    python benchmarks/errata.py audit.json --write    # puts it into docs/errata.md

The section on XBRL is written by benchmarks/xbrl_errata.py, which asks the filings themselves.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from finbench.core.prose import wrapped
from finbench.data.audit.findings import Audit, Finding

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errata.md"
MARKS = ("<!-- audit: written by benchmarks/errata.py -->", "<!-- /audit -->")
CHECKS = {  # in the order of the page
    "label-swap": "Labels swapped between two copies of a set",
    "label-meaning": "Labels that contradict their texts",
    "label-conflict": "Labels that differ between files",
    "answer-conflict": "Answers that differ between files",
    "split-conflict": "Versions of a set whose splits contradict each other",
    "leak": "Texts in two splits",
    "near-leak": "Nearly the same text in two splits",
    "overlap": "Texts that files without a split share",
    "shared-pages": "Pages that two sets ask about",
    "row-split": "What a random split by row would leak",
    "conflicts": "One text, several answers",
    "entity-leak": "Companies on both sides of a split by company",
    "answers-in-train": "Test answers that train has",
    "impossible-gold": "Answers that do not recompute",
    "out-of-range": "Scores outside their range",
    "constant-answer": "Answers that never change",
    "missing-answer": "Missing answers",
    "empty": "Missing texts",
    "answer-kind": "Answers of another kind",
    "one-fact": "Rows that are fewer facts",
    "duplicates": "Rows that repeat",
    "encoding": "Encoding damage",
}
CITED = """### What these files cannot show

Cited, not measured here:

- FinLoRA's and FinGPT's expansions of the gold headlines say No to "talk about price" where the
  authors' own column says Yes. Of 16 headlines read in public excerpts of Open-Finance-Lab/FinLoRA,
  all 16 say No, and the original has Yes for 12; the other eight questions agreed.
  finbench makes its questions from the authors' nine columns.
- FinLoRA's README gives 970 test rows for FPB, but its file has 1,212.
  That table also calls FPB CC BY-SA 3.0, where the authors' package says CC BY-NC-SA 3.0."""


def section(found: Audit) -> Iterator[str]:
    """The lines of the section; texts only where the licence of every file concerned lets them be shown."""
    rows = sum(seen.rows for seen in found.sources)
    yield "## What the audit finds in the authors' and FinLoRA's files"
    yield ""
    yield f"By `finbench data audit` on {rows:,} rows of {len(found.sources)} files, about three quarters of the"
    yield "published sets; counts are of these rows. Texts under a closed licence are named by place only."
    free = {seen.name for seen in found.sources if seen.open}
    for check, title in CHECKS.items():
        chosen = [finding for finding in found.faults if finding.check == check and _of_data(finding)]
        if chosen:
            yield from ("", f"### {title}", "")
            yield from (_together(group, free) for group in _alike(chosen))
    yield ""
    yield CITED


def _of_data(finding: Finding) -> bool:
    """Whether a finding is about data, and not about answers of a model that lie beside them."""
    return not any(re.search(r"chatgpt_|sample_prediction", source) for source in finding.sources)


def _alike(found: list[Finding]) -> list[list[Finding]]:
    """Findings in their order, those about files that differ in a seed or a kind together, where they are many."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in found:
        names = tuple(re.sub(r"split-|\d{4,}", "", source) for source in finding.sources)
        groups.setdefault(names, []).append(finding)
    return [part for group in groups.values() for part in ([group] if len(group) > 2 else [[one] for one in group])]


def _together(group: list[Finding], free: set[str]) -> str:
    line = _line(group[0], free)
    if len(group) == 1:
        return line
    shares = [100 * finding.count / max(1, finding.of) for finding in group]
    how = f"{min(shares):.1f} to {max(shares):.1f} %"
    return f"{line} So it is, with {how}, in all {len(group)} such files or pairs of files."


def _line(finding: Finding, free: set[str]) -> str:
    line = f"- {finding.said}"
    if not any(source.split(" [")[0].rpartition("/")[2] in finding.said for source in finding.sources):
        line = f"- {', '.join(finding.sources)}: {finding.said}"
    if finding.detail and finding.check.startswith("label"):
        line += " " + "; ".join(f"{name}: {count:,}" for name, count in finding.detail.items()) + "."
    if finding.places:
        line += f" ({', '.join(finding.places[:3])})"
    if finding.example and all(source in free for source in finding.sources):
        line += f' "{" ".join(finding.example.split())}"'
    return line


def main() -> int:
    """Print or write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audit", type=Path, help="what finbench data audit --json printed")
    parser.add_argument("--write", action="store_true", help="put the section into docs/errata.md")
    arguments = parser.parse_args()
    text = "\n".join(section(Audit.model_validate_json(arguments.audit.read_text(encoding="utf-8")))) + "\n"
    text = wrapped(text)
    if not arguments.write:
        sys.stdout.write(text)
        return 0
    page = PAGE.read_text(encoding="utf-8")
    if MARKS[0] not in page:
        head, _, rest = page.partition("\n\n")
        page = f"{head}\n\n{MARKS[0]}\n{MARKS[1]}\n\n{rest}"
    before, _, rest = page.partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
