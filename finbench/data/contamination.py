"""Test texts inside training data: found by containment, so that prompts and conversations hide nothing.

Texts are compared normalised, as splits are divided (no case, punctuation, links), and as they are read: HTML, JSON in
a text, a typesetter's quotes and ways to write a number are undone. A test text of eight words or more counts as seen
when all of them, or the first 200, stand in this order, without a gap, in one training row; of 20 words or more nine
tenths are enough, and of a longer one its first 40, if no other begins so, for rows are cut. One of
three to seven words must be a field of the row, or what a prompt in it asks about: such texts occur by chance inside
others. Shorter ones are not looked for. A character of a script without spaces (Chinese, Japanese, Thai) is a word.
Where each row of a test has a question of its own, the question is what counts.

Where rows ask several questions about a page, or name it, the page counts, once, for other sets lay the same pages out
otherwise. It is seen by its name, or by a quarter of its runs of eight words in one row, in any order: up to 64 runs
that no other page of the test has, those with figures first, for pages of one company in two years share sentences, but
few figures. With one of its questions of eight words a sixteenth is enough; the question alone says nothing, for the
same is asked of many pages. Enough are its first 40 words too, if five of them are figures and no other page begins
so. A text with too few such runs is looked for as above, its questions too.
"""

from __future__ import annotations

import html
import itertools
import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.core.records import Contamination
from finbench.data.audit.columns import unwrap
from finbench.data.sources import edition_of_test

_LONG, _LEAST, _WORDS = 8, 3, 200
_RUNS, _SHARE = 64, 0.25  # by which a page is known, and the share of them that is enough
_ASKED = 4  # times fewer of them are enough where the row asks one of its questions
_NAME = 200  # characters that the name of a page may have
_AROUND = re.compile(r"^(?:single|double)_|[-_#]\d+$")  # what sets put around the name of a page: kind, question
_START, _FIGURES = 40, 5  # first words that are enough; how many of a page's are figures, for its words recur
_CUT, _TENTH = 20, 10  # words from which on a text may lack a tenth: of shorter ones another name makes another text
_ESCAPED = 3  # times that a row may hold a text of JSON in a text of JSON
_ESCAPE = re.compile(r'\\(?:u[0-9a-fA-F]{4}|[nrtbf"/\\])')  # of JSON, where a row holds a text of it
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_DIGITS = re.compile(r"\d{4,15}")  # in groups of three, as of "1,234": a spreadsheet writes 1234, or 1234.0
_WHOLE = re.compile(r"(?<=\d)\s?\.\s?0+(?!\w)")
# Thai, Lao, Burmese, Khmer, kana, Han: written without spaces
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_BPE = "\u0120\u2581"  # before a token that begins a word
_SPELT = str.maketrans(
    {**dict.fromkeys("\u2018\u2019\u201b\u2032", "'"), **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")}
)


class Page(NamedTuple):
    """A page that a test asks about."""

    name: str
    text: str
    questions: tuple[str, ...] = ()


Known = str | Page  # what a row of a test is known by


class Index:
    """The test texts and pages of some sets. ``seen`` says which of them stand in a row."""

    def __init__(self, tests: Mapping[str, Iterable[Known]]) -> None:
        self._signed = paths.helper("sets").splits.signed
        self.texts: dict[str, int] = {}  # set -> different texts, a page being one
        self.tests: list[tuple[str, str]] = []  # (set, text normalised, or name of the page) by number
        self._anchors: dict[str, list[tuple[int, int]]] = {}  # words in a row -> (wanted words, where in them)
        self._whole: dict[str, list[int]] = {}
        self._names: dict[str, list[int]] = {}
        self._runs: dict[str, list[int]] = {}  # words in a row -> the page that has them, in each set
        self._enough: dict[int, int] = {}  # runs by which a page is seen
        self._wanted: list[tuple[int, list[str], bool]] = []  # (text, words of it, whether by them alone)
        for name, texts in tests.items():
            known, begun = set(texts), list[tuple[int, list[str]]]()
            normal = {self.normal(text) for text in known if isinstance(text, str)}
            self.texts[name] = 0
            for text in sorted(text for text in normal if text.count(" ") >= _LEAST - 1):
                number, words = self._numbered(name, text), text.split()[:_WORDS]
                if len(words) < _LONG:
                    self._whole.setdefault(" ".join(words), []).append(number)
                else:
                    self._wanted.append((number, words, True))
                    begun.append((number, words[:_START]))
            begun += self._take(name, sorted(text for text in known if isinstance(text, Page)))
            alike = Counter(" ".join(words) for _, words in begun)
            self._wanted += [(*one, True) for one in begun if len(one[1]) == _START and alike[" ".join(one[1])] == 1]
        runs = []  # of each text its first, middle and last words: the run that fewest others have is its anchor
        for _, words, _ in self._wanted:
            last = len(words) - _LONG
            runs.append([(" ".join(words[at : at + _LONG]), at) for at in dict.fromkeys((last // 2, 0, last))])
        counts = Counter(run for choice in runs for run, _ in choice)
        for place, choice in enumerate(runs):
            run, at = min(choice, key=lambda found: counts[found[0]])
            self._anchors.setdefault(run, []).append((place, at))

    def normal(self, text: str) -> str:
        """A text as it stands in ``tests``."""
        normal = _DIGITS.sub(lambda found: f"{int(found[0]):,}".replace(",", " "), self._signed(plain(text)))
        return " ".join(_SPACELESS.sub(r" \g<0> ", normal).split()) if _SPACELESS.search(normal) else normal

    def _numbered(self, name: str, text: str) -> int:
        self.tests.append((name, text))
        self.texts[name] += 1
        return len(self.tests) - 1

    def _take(self, name: str, pages: Sequence[Page]) -> list[tuple[int, list[str]]]:
        """Make pages known; return those whose first words hold figures, with these."""
        begun = []
        split = [self.normal(page.text).split() for page in pages]
        counts = Counter(key for words in split for key in {_key(run) for run in _runs(words)})
        for page, words in zip(pages, split, strict=True):
            number = self._numbered(name, page.name or " ".join(words))
            if self.normal(page.name).count(" ") >= _LEAST - 1:
                self._names.setdefault(page.name.casefold().strip(), []).append(number)
            own = {run for run in _runs(words) if counts[_key(run)] == 1}
            chosen = sorted(own, key=lambda run: (not any(map(str.isdigit, run)), _key(run)))[:_RUNS]
            asked = [self.normal(question).split() for question in page.questions]
            if len(chosen) >= _RUNS * _SHARE:
                self._enough[number] = int(len(chosen) * _SHARE)
                for run in chosen:
                    self._runs.setdefault(run, []).append(number)
            elif _LEAST <= len(words) < _LONG:
                self._whole.setdefault(" ".join(words), []).append(number)
            else:
                asked.append(words)
            sure = number not in self._enough
            self._wanted += [(number, told[:_WORDS], sure) for told in asked if len(told) >= _LONG]
            if sum(any(map(str.isdigit, word)) for word in words[:_START]) >= _FIGURES:
                begun.append((number, words[:_START]))
        return begun

    def seen(self, fields: Iterable[str]) -> set[int]:
        """Numbers of the test texts that stand in a row of these texts."""
        found, words = set[int](), list[str]()
        for field in itertools.chain.from_iterable(map(_spelt, fields)):
            normal = self.normal(field)
            if self._whole:
                for text in {normal, self.normal(unwrap(field)[0])}:
                    found.update(self._whole.get(text, ()))
            if self._names and len(field) <= _NAME:
                name = field.casefold().strip()
                for spelt in {name, _AROUND.sub("", name)}:
                    found.update(self._names.get(spelt, ()))
            words += normal.split()
        hits, asked = set[str](), set[int]()
        for at, run in enumerate(_runs(words)):
            for place, offset in self._anchors.get(run, ()):
                number, own, sure = self._wanted[place]
                lacks = len(own) - _common(words, at, own, offset)
                if number not in found and lacks <= (len(own) // _TENTH if len(own) >= _CUT else 0):
                    (found if sure else asked).add(number)
            if run in self._runs:
                hits.add(run)
        counts = Counter(number for run in hits for number in self._runs[run])
        return found | {
            number
            for number, count in counts.items()
            if count >= self._enough[number] or (number in asked and count * _ASKED >= self._enough[number])
        }

    def overlap(self, rows: Iterable[Mapping[str, Any]]) -> Contamination:
        """How many test texts of each set stand in training rows."""
        found: set[int] = set()
        for row in rows:
            found |= self.seen(fields(row))
        return self.counted(found)

    def counted(self, found: Iterable[int]) -> Contamination:
        """What ``seen`` has found in all rows, by set."""
        counts = Counter(self.tests[number][0] for number in found)
        return Contamination(looked_for=dict(sorted(self.texts.items())), found=dict(sorted(counts.items())))


def _runs(words: Sequence[str]) -> Iterator[str]:
    return (" ".join(words[at : at + _LONG]) for at in range(len(words) - _LONG + 1))


def _common(words: Sequence[str], at: int, own: Sequence[str], offset: int) -> int:
    """How many words of ``own`` stand in ``words`` without a gap around the run that both have at these places."""
    after = zip(words[at : at + len(own)], own[offset:], strict=False)
    before = zip(reversed(words[max(at - offset, 0) : at]), reversed(own[:offset]), strict=False)
    return sum(sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], side)) for side in (before, after))


def _spelt(field: str) -> Iterator[str]:
    """The field, and what it says if it holds JSON: whether a formula's "\\times" begins with a tab nobody knows."""
    yield field
    for _ in range(_ESCAPED):
        if "\\" in field:
            field = _ESCAPE.sub(lambda found: str(json.loads(f'"{found[0]}"')), field)
            yield field


def plain(text: str) -> str:
    """The text as it is read: not as HTML, with a typesetter's quotes, dashes and hyphens, or with "12.0" for 12."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if not text.isascii():
        text = "".join(sign for sign in text.translate(_SPELT) if unicodedata.category(sign) != "Cf")
    return _WHOLE.sub("", text)


def _key(run: str) -> int:
    """A number by which runs are drawn: the same in every process."""
    return zlib.crc32(run.encode("utf-8", "surrogatepass"))


def fields(value: Any) -> Iterator[str]:
    """Every text in a row, however nested: columns, turns of a conversation. Lists of tokens are one text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from fields(part)
    elif isinstance(value, list | tuple):
        if len(value) > 3 and all(isinstance(part, str) and " " not in part for part in value):
            text = "".join(value)
            yield re.sub(f"[{_BPE}]", " ", text) if any(sign in text for sign in _BPE) else " ".join(value)
        else:
            for part in value:
                yield from fields(part)


def of_tests(data_dir: Path | None = None) -> dict[str, list[Known]]:
    """Set -> test texts, of the sets that are here and that a ranked task evaluates.

    Of a test whose rows each have a question of their own the questions; or the pages that rows name. Raises
    FinbenchError for a file that is torn.
    """
    home = paths.data_dir(data_dir)
    found: dict[str, list[Known]] = {}
    for task in catalog.expand(["finbench"]):
        path = home / task.set / "test.jsonl"
        if task.set not in found and not task.shipped and path.is_file():
            try:
                with path.open(encoding="utf-8") as handle:
                    rows = [json.loads(line) for line in handle if line.strip()]
                if not all(isinstance(row, dict) for row in rows):
                    raise ValueError("a JSON object a line is expected")
            except (OSError, ValueError, RecursionError) as fault:
                raise FinbenchError(f"{path} is torn ({fault}).", f"Import it again: {task.data}") from fault
            found[task.set] = texts_of(rows)
    return found


def texts_of(rows: Sequence[Mapping[str, Any]]) -> list[Known]:
    """What the rows of a test are known by: pages that they name, or ask two questions or more about on average; else
    their questions; else their texts. Of tasks of others without such columns: the one of longest texts."""
    texts = {str(row.get("text")) for row in rows}
    named = all(row.get("document") for row in rows)
    if rows and all(row.get("text") for row in rows) and (named or (_asks(rows) and 2 * len(texts) <= len(rows))):
        pages: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            asked = pages.setdefault((str(row.get("document") or ""), str(row["text"])), [])
            if "history" not in row and row.get("question"):  # a turn ("and in 2008?") is no text by which it is known
                asked.append(str(row["question"]))
        return [Page(*page, tuple(asked)) for page, asked in pages.items()]
    column = "question" if _asks(rows) else "text"
    if not any(row.get(column) for row in rows):
        lengths = Counter[str]()
        for row in rows:
            lengths.update({name: len(value) for name, value in row.items() if isinstance(value, str)})
        column = next((name for name, _ in lengths.most_common(1)), column)
    return [str(row[column]) for row in rows if row.get(column)]


def _asks(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows ask questions of their own, not one question about different texts."""
    return len({str(row["question"]) for row in rows if row.get("question")}) > max(20, 0.5 * len(rows))


def with_editions(found: Contamination, data_dir: Path | None = None) -> Contamination:
    """The same, naming the test rows of every set by their digest: of those that another imports nothing is known."""
    known = {name: edition_of_test(name, data_dir) for name in found.looked_for}
    return found.model_copy(update={"editions": {name: sha for name, sha in known.items() if sha}})


def together(known: Sequence[Contamination | None]) -> Contamination | None:
    """Of tests that were looked for in the rows of every part, in the same edition: at most the sum."""
    there = [one for one in known if one is not None]
    if len(there) < len(known):
        return None
    first = there[0]
    tests = [name for name in first.looked_for if all(
        name in one.looked_for and one.editions.get(name) == first.editions.get(name) for one in there
    )]  # fmt: skip
    found = {name: sum(one.found.get(name, 0) for one in there) for name in tests}
    return Contamination(
        looked_for={name: first.looked_for[name] for name in tests},
        found={name: min(count, first.looked_for[name]) for name, count in found.items() if count},
        editions={name: sha for name, sha in first.editions.items() if name in tests},
    )


def of_one_family(trained: Iterable[str]) -> list[str]:
    """One line for each family of sets about the same pages of which some were ``trained``."""
    table = paths.helper("sets").SETS
    told = {}
    for name in trained:
        family = table[name].family if name in table else ""
        others = [other for other, known in table.items() if family and known.family == family and other != name]
        if others:
            told[family] = f"{name} and {', '.join(others)} ask about the same pages: test on none of them."
    return list(told.values())


def warnings(found: Contamination) -> list[str]:
    """One line for each set of which training rows hold test texts."""
    return [
        f"{count:,} of {found.looked_for[name]:,} test texts of {name} stand in training rows, alone or inside "
        "a longer text: of these its score says how well they were learnt by heart."
        for name, count in found.found.items()
    ]
