"""``finbench data xbrl``: filings -> five data sets, split by company, with a manifest of the filings."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.core.files import check_replaced, digest, folder_atomic, sha256_file
from finbench.data.sources import SPLITS, WRITTEN
from finbench.data.xbrl import filings, finlora_questions, reasoning
from finbench.data.xbrl.model import Filing
from finbench.data.xbrl.rows import SETS as FACT_SETS
from finbench.data.xbrl.rows import QuestionSettings, rows
from finbench.data.xbrl.taxonomy import arelle_check

SETS = (*FACT_SETS, reasoning.SET)
SMALLEST = 300  # characters; below this not even the facts of a ratio and a few others fit
_SHOWN = 10  # faults in one message
_RULE = (
    "by company: those named are test, the others train, of whose questions 10 % by salted hash are validation; "
    "all are test where none is named"
)


@dataclass
class QuestionsMade:
    """What was built: ``rows[set][split]``, the filings, and what was left out by reason."""

    folder: Path
    filings: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)  # filed too early
    latest: dict[str, Filing] = field(default_factory=dict)  # of each side the filing before, to compare companies

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "out": str(self.folder),
            "filings": self.filings,
            "rows": self.rows,
            "dropped": dict(sorted(self.dropped.items())),
            "filed_too_early": self.skipped,
        }

    def lines(self) -> Iterator[str]:
        for entry in self.filings:
            filed = f"filed {entry['filed']}" if entry["filed"] else "filing date not stated"
            yield f"{entry['company']}, {entry['id']} ({filed}): {entry['facts']:,} facts, {entry['split']}"
            if check := entry.get("arelle"):
                told = "  Arelle resolves {resolved:,} of its {numbers:,} numbers and agrees on {agree:,}"
                yield told.format(**check)
        for name in self.skipped:
            yield f"left out: {name}"
        for set_, counts in self.rows.items():
            yield f"{set_}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items())
        yield from (f"{name}: no rows, not written" for name in SETS if name not in self.rows)
        yield f"Written to {self.folder}; what was left out, and why, is in each dataset.json."


class Spool(contextlib.ExitStack):
    """Rows on their way to the disk, in a scratch folder: memory stays flat, and nothing is seen before ``publish``."""

    def __init__(self, scratch: Path, sets: Sequence[str]) -> None:
        super().__init__()
        self.scratch, self.sets = scratch, sets
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in sets}
        self._files: dict[tuple[str, str], IO[bytes]] = {}

    def add(self, set_: str, side: str, row: dict[str, Any]) -> None:
        """Append a row. Of the train ``side`` a tenth goes to validation, by the row's identity."""
        share = int(hashlib.sha256(str(row["id"]).encode()).hexdigest()[:8], 16) / 2**32
        self.put(set_, "validation" if side == "train" and share < 0.1 else side, row)

    def put(self, set_: str, split: str, row: dict[str, Any]) -> None:
        if (set_, split) not in self._files:
            self._files[set_, split] = self.enter_context((self.scratch / f"{set_}.{split}.jsonl").open("wb"))
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
        self._files[set_, split].write(text.encode("utf-8", "replace"))
        self.counts[set_][split] += 1

    def publish(self, folder: Path, about: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Put every set that has rows into ``folder``; an earlier one of the same name stays until then.

        Returns the row counts. Raises FinbenchError if the folder cannot be written.
        """
        written = {}
        for name in self.sets:
            check_replaced(folder / name, WRITTEN, WRITTEN[0])
        with contextlib.ExitStack() as stack:
            for name in self.sets:
                counts = {split: self.counts[name][split] for split in SPLITS if self.counts[name][split]}
                if not counts:
                    continue
                staging = stack.enter_context(folder_atomic(folder / name))
                for split in counts:
                    shutil.move(self.scratch / f"{name}.{split}.jsonl", staging / f"{split}.jsonl")
                sums = {f"{split}.jsonl": sha256_file(staging / f"{split}.jsonl") for split in counts}
                card = {
                    "schema": 0,
                    "set": name,
                    "source": "SEC filings in XBRL, read by finbench data xbrl",
                    "licence": "the companies' own public filings",
                    "restricted": False,
                    "split_rule": _RULE,
                    "complete": True,
                    "sources": {file: sha for entry in about["filings"] for file, sha in entry["sha256"].items()},
                    "read": sum(entry["facts"] for entry in about["filings"]),
                    "rows": counts,
                    **about,
                    "rejected": 0,
                    "sha256": sums,
                    "digest": digest(sums),
                }
                text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
                (staging / "dataset.json").write_text(text, encoding="utf-8")
                written[name] = counts
        return written


def build_questions(
    given: Sequence[Path],
    out: Path | None = None,
    *,
    filed_after: str | None = None,
    max_context: int | None = None,
    seed: int = 0,
    test_companies: Sequence[str] = (),
    finlora: Sequence[Path] = (),
    taxonomy: Sequence[Path] = (),
) -> QuestionsMade:
    """Write the sets ``xbrl_tags``, ``xbrl_values``, ``xbrl_formula``, ``xbrl_calc`` and ``xbrl_reason`` into ``out``.

    ``out`` is a data directory (default: the user's). Companies named in ``test_companies`` (by ticker, CIK or a part
    of the name) are the test split and all others train and validation; without any, every filing is test.
    ``finlora``: its published CSV files, whose questions about these filings become ``finlora_xbrl_*``, in its own
    splits. ``taxonomy``: taxonomy packages with which Arelle (extra ``[xbrl]``) checks the numbers and labels concepts.
    All faults are raised at once, and then nothing is written.
    """
    settings = QuestionSettings(seed, max_context)
    _check(given, filed_after, max_context)
    built = QuestionsMade(paths.data_dir(out))
    faults: list[FinbenchError] = []
    wanted = dict.fromkeys(test_companies, False)
    asked = finlora_questions.read_questions(finlora)
    with contextlib.ExitStack() as stack:
        check = stack.enter_context(arelle_check(taxonomy)) if taxonomy else None
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="finbench-xbrl-"))
        with Spool(Path(scratch), (*SETS, *finlora_questions.SETS.values())) as spool:
            for path in given:
                try:
                    for filing in filings.read(path, check):
                        if filed_after and (why := filings.too_early(filing, filed_after)):
                            built.skipped.append(f"{filing.name}: {why}")
                            continue
                        _add(filing, spool, built, settings, wanted)
                        for set_, split, row in finlora_questions.join(filing, asked, built.dropped):
                            spool.put(set_, split, row)
                except FinbenchError as fault:
                    faults.append(fault)
        if faults:
            more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
            raise FinbenchError("\n".join([*(fault.message for fault in faults[:_SHOWN]), *more]), faults[0].hint)
        _check_whole(built, spool, wanted)
        manifest = {"filings": built.filings, "dropped": dict(sorted(built.dropped.items()))}
        options: dict[str, Any] = {"seed": seed, "max_context": max_context, "filed_after": filed_after or ""}
        if taxonomy:
            options["taxonomy"] = {path.name: sha256_file(path) for path in taxonomy}
        built.rows = spool.publish(built.folder, {**manifest, "options": options, "test_companies": [*wanted]})
    return built


def _check(given: Sequence[Path], filed_after: str | None, max_context: int | None) -> None:
    if not given:
        raise FinbenchError("Which filings?", "Like this: finbench data xbrl FOLDER_OR_ZIP_OR_FILE --out DIR")
    if max_context is not None and max_context < SMALLEST:
        raise FinbenchError(
            f"--max-context {max_context}: too small for a question.",
            f"Give at least {SMALLEST} characters; a token takes two to three of them.",
        )
    try:
        datetime.date.fromisoformat(filed_after or "2000-01-01")
    except ValueError as fault:
        raise FinbenchError(f"--filed-after {filed_after}: not a date.", "Write it as 2024-06-30.") from fault


def _add(
    filing: Filing, spool: Spool, built: QuestionsMade, settings: QuestionSettings, wanted: dict[str, bool]
) -> None:
    if twin := next((entry for entry in built.filings if entry["id"] == filing.id), None):
        raise FinbenchError(
            f"{filing.name}: the same filing ({filing.id}) as {twin['name']}.", "Give each filing once, in one form."
        )
    named = [name for name in wanted if _is(filing, name)]
    wanted.update(dict.fromkeys(named, True))
    split = "test" if named or not wanted else "train"
    counts: Counter[str] = Counter(filing.unread)
    made = 0
    for set_, row in (*rows(filing, settings, counts), *_reasoned(filing, built.latest.get(split), settings, counts)):
        spool.add(set_, split, row)
        made += 1
    built.latest[split] = filing
    if not made:
        raise FinbenchError(
            f"{filing.name}: no question can be asked of it: it has no period with enough us-gaap facts.",
            "Only US-GAAP filings are understood; with --max-context, give more room.",
        )
    built.dropped.update(counts)
    built.filings.append(
        {
            "id": filing.id,
            "name": Path(filing.name).name,
            "company": filing.company,
            "cik": filing.cik,
            "ticker": filing.ticker,
            "form": filing.about("DocumentType"),
            "period_end": filing.period_end,
            "filed": filing.filed,
            "inline": filing.inline,
            "split": split,
            "facts": len(filing.facts),
            "rows": made,
            **({"arelle": filing.checked} if filing.checked else {}),
            "sha256": dict(sorted(filing.digests.items())),
        }
    )


def _reasoned(
    filing: Filing, other: Filing | None, settings: QuestionSettings, counts: Counter[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Questions that take a calculation, about this filing and beside that of another company."""
    for row in reasoning.questions(filing, settings.seed, settings.max_context, counts):
        yield reasoning.SET, row
    if other:
        for row in reasoning.comparisons(filing, other, settings.seed, settings.max_context, counts):
            yield reasoning.SET, row


def _is(filing: Filing, name: str) -> bool:
    ours = name.casefold().strip()
    digits = ours.lstrip("0")
    return bool(ours) and (
        ours == filing.ticker.casefold() or ours in filing.company.casefold() or digits == filing.cik.lstrip("0")
    )


def _check_whole(built: QuestionsMade, spool: Spool, wanted: dict[str, bool]) -> None:
    """Raise what can only be said once every filing was read."""
    if not built.filings:
        hint = 'Give an earlier date, or write "Filing Date: YYYY-MM-DD" into filing_metadata.txt beside a filing.'
        raise FinbenchError(f"--filed-after leaves no filing: {'; '.join(built.skipped[:_SHOWN])}.", hint)
    # a company's older filings may lack the name or ticker by which it was meant: its number is the same in all
    sides: dict[str, set[str]] = {}
    for entry in built.filings:
        sides.setdefault(str(entry["cik"]), set()).add(str(entry["split"]))
    if torn := next((cik for cik, found in sides.items() if len(found) > 1), ""):
        both = ", ".join(str(entry["name"]) for entry in built.filings if entry["cik"] == torn)
        hint = f"Name it by its number: --test-company {torn}"
        raise FinbenchError(f"{both}: one company ({torn}), but not all fit --test-company.", hint)
    if missing := [name for name, seen in wanted.items() if not seen]:
        there = ", ".join(sorted({str(entry["ticker"] or entry["company"]) for entry in built.filings}))
        raise FinbenchError(f"--test-company {', '.join(missing)}: no such company here.", f"There are: {there}")
    if wanted and not any(counts["train"] for counts in spool.counts.values()):
        raise FinbenchError("Every company is a test company: no row is left for train.", "Leave --test-company out.")
