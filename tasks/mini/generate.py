"""Write the four mini data sets: eight JSONL files beside this script, the same bytes every time.

    python tasks/mini/generate.py           # (re)write the files
    python tasks/mini/generate.py --check   # exit 1 and name the file if one differs

Every company, person and place is invented and every sentence was written for this project. The test split
needs generalising: its companies, people, places, goods, direction words, key phrases, numbers, XBRL elements
and sentence shapes do not occur in train. In a sentence with a concession ("Although sales fell, profit
rose") the main clause decides the label. The script checks its own promises and raises if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from sentences import AS_OF, HEADLINES, NER, NER_NONE, QUERIES, QUESTIONS, SENTIMENT, WHEN
from words import (
    CONCEPTS,
    DAYS,
    FIRST,
    FISCAL,
    FOUNDED,
    GOOD,
    GOODS,
    KINDS,
    LAST,
    METRICS,
    MONEY,
    MONTHS,
    OTHER_NAMES,
    PERCENT,
    PERIODS,
    PHRASES,
    PLACES,
    ROLES,
    STEMS,
    SUFFIXES,
    SUMS,
    VERBS,
    Concept,
    Verb,
)

T = TypeVar("T")
Row = dict[str, Any]
HERE = pathlib.Path(__file__).resolve().parent
ROWS = {"train": 600, "test": 150}


# --------------------------------------------------------------------------------------------- drawing
class Draw:
    """Seeded draws for one file, from ``random()`` alone: the same on every Python version."""

    def __init__(self, name: str, split: str) -> None:
        self.split = split
        self.random = random.Random(f"finbench {name} {split}").random

    def pick(self, pool: Sequence[T]) -> T:
        return pool[int(self.random() * len(pool))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def shuffled(self, items: Iterable[T]) -> list[T]:
        rest = list(items)
        return [rest.pop(int(self.random() * len(rest))) for _ in range(len(rest))]

    def number(self, low: float, high: float, decimals: int = 0) -> str:
        """A number between the bounds; a third of all numbers are kept for test."""
        for _ in range(1000):
            text = f"{low + (high - low) * self.random():.{decimals}f}"
            if (zlib.crc32(text.encode()) % 3 == 0) == (self.split == "test"):
                return text
        raise AssertionError(f"no {self.split} number between {low} and {high}")

    def money(self) -> str:
        return MONEY[self.split].format(self.number(2, 480, 1))

    def company(self) -> str:
        return f"{self.pick(STEMS[self.split])} {self.pick(SUFFIXES)}"

    def common(self) -> dict[str, str]:
        """The fillers that every kind of sentence may use."""
        s, kind = self.split, self.pick(KINDS[self.split])
        return {
            "co": self.company(), "kind": kind, "Kind": kind.split(" ", 1)[1].capitalize(),
            "town": self.pick(PLACES[s]), "day": self.pick(DAYS[s]), "month": self.pick(MONTHS[s]),
            "per": self.pick(PERIODS[s]), "year": str(self.pick(range(*FOUNDED[s]))), "x": self.money(),
            "n": self.number(11, 480), "pct": self.number(2, 15, 1), "good": self.pick(GOODS[s]),
            "role": self.pick(ROLES[s]),
        }  # fmt: skip


def _tidy(text: str) -> str:
    return re.sub(r" +([,;.])", r"\1", " ".join(text.split()))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fresh(seen: set[str], make: Callable[[], Row | None]) -> Row:
    """The first made row whose text is new."""
    for _ in range(10_000):
        row = make()
        if row is not None and row["text"] not in seen:
            seen.add(row["text"])
            return row
    raise AssertionError("the tables are too small for this many rows")


# ------------------------------------------------------------------------------------------ row makers
def _move(draw: Draw, polarity: str, noun: bool, avoid: str = "") -> tuple[str, bool, str, Verb]:
    """(metric, carries money, direction, verb): up is positive for a good metric, negative for a bad one."""
    good = draw.chance(0.6)
    direction = "flat" if polarity == "neutral" else "up" if (polarity == "positive") == good else "down"
    metrics = [m.split(" ", 1) for m in METRICS[draw.split] if (m[0] == "g") == good]
    flags, metric = draw.pick([(f, m) for f, m in metrics if m.split()[-1] not in avoid.split()])
    verbs = VERBS[draw.split][direction]
    verb = draw.pick([v for v in verbs if flags[0] in v.scope and (v.noun or not noun)])
    return metric, "$" in flags, direction, verb


def _amount(draw: Draw, money: bool, direction: str) -> str:
    if draw.chance(0.3) or (direction == "flat" and not money):
        return ""
    if direction == "flat":
        return f"at {draw.money()}"
    if money and draw.chance(0.5):
        old = float(draw.number(10, 300, 1))
        low, high = (1.04, 1.3) if direction == "up" else (0.7, 0.96)
        new = draw.number(old * low, old * high, 1)
        return f"to {MONEY[draw.split].format(new)} from {MONEY[draw.split].format(f'{old:.1f}')}"
    return f"by {draw.number(4, 15, 1)}{PERCENT[draw.split]}"


def _sentiment(draw: Draw, label: str) -> Row:
    s, template, fill = draw.split, draw.pick(SENTIMENT[draw.split]), draw.common()
    fill["V"] = draw.pick(PHRASES[s][label]).format(**fill | {"town": draw.pick(PLACES[s])})
    metric, money, direction, verb = _move(draw, label, "{n_}" in template)
    amount = _amount(draw, money, direction)
    plain = money and not re.search(r"\{n_|2\}", template)
    if direction == "flat" and plain and metric in GOOD[s] and draw.chance(0.5):
        amount = draw.money()
        verb = SUMS[s]
    share = f" of {draw.number(4, 15, 1)}{PERCENT[s]}" if direction != "flat" and draw.chance(0.6) else ""
    other = draw.pick([x for x in ("negative", "positive") if x != label])  # of the conceded clause
    metric2, _, _, verb2 = _move(draw, other, "{n2}" in template, avoid=metric)
    fill |= {"m": metric, "M": _capital(metric), "v": verb.past, "inf": verb.base, "a": amount,
             "n_": verb.noun + share, "m2": metric2, "v2": verb2.past, "n2": verb2.noun}  # fmt: skip
    return {"text": _tidy(_capital(template.format(**fill))), "label": label}


def sentiment_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    labels = [("negative", "neutral", "positive")[i % 3] for i in range(count)]
    return [_fresh(seen, partial(_sentiment, draw, label)) for label in labels]


def _name(draw: Draw, slot: str) -> tuple[str, str]:
    """(name, entity type) for a slot of an NER template."""
    s = draw.split
    if slot == "L":
        return draw.pick(PLACES[s]), "location"
    if slot == "S":
        return draw.pick(LAST[s]), "person"
    if slot == "P":
        return f"{draw.pick(FIRST[s])} {draw.pick(LAST[s])}", "person"
    if slot == "B":
        return draw.pick(STEMS[s]), "organization"
    if draw.chance(0.6):
        return draw.company(), "organization"
    return draw.pick(OTHER_NAMES[s]).format(L=draw.pick(PLACES[s]), S=draw.pick(LAST[s])), "organization"


def _ner(draw: Draw, templates: list[str]) -> Row | None:
    text, entities, fill = "", [], draw.common()
    for i, piece in enumerate(re.split(r"\{(\w+)\}", draw.pick(templates))):
        if i % 2 and len(piece) == 1 and piece in "PSOBL":
            name, kind = _name(draw, piece)
            entities.append({"text": name, "type": kind})
            text += name
        else:
            text += fill[piece] if i % 2 else piece
    if any(text.count(entity["text"]) != 1 for entity in entities):
        return None
    return {"text": text, "entities": entities}


def ner_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    tables = [NER_NONE[draw.split] if i % 10 == 0 else NER[draw.split] for i in range(count)]
    return [_fresh(seen, partial(_ner, draw, table)) for table in tables]


DIRECTIONS = {"up": "price_up", "down": "price_down", "flat": "price_constant"}
# (shape, what has happened, what is forecast), repeated by weight.
HEADLINE_KINDS = [("past", d, "") for d in DIRECTIONS] * 4 + [("future", "", d) for d in DIRECTIONS] * 2
HEADLINE_KINDS += [("mix", p, f) for p in DIRECTIONS for f in DIRECTIONS if p != f] + [("other", "", "")] * 3


def _truth(kind: tuple[str, str, str]) -> set[str]:
    """The questions to answer with Yes."""
    past = {DIRECTIONS[kind[1]], "past_price"} if kind[1] else set()
    return past | ({"future_price"} if kind[2] else set())


def _headline(draw: Draw, attribute: str, label: str) -> Row | None:
    s = draw.split
    kind = draw.pick([k for k in HEADLINE_KINDS if (attribute in _truth(k)) == (label == "Yes")])
    past, future = kind[1] or draw.pick(list(DIRECTIONS)), kind[2] or draw.pick(list(DIRECTIONS))
    scope = set("hb" if kind[0] == "other" else "h")  # fewer verbs fit exports and demand than prices
    verb, forecast = (draw.pick([v for v in VERBS[s][d] if scope <= set(v.scope)]) for d in (past, future))
    fill = draw.common()
    prices = f"{fill['good']} {draw.pick(['prices', 'prices', 'futures'])}"
    if draw.chance(0.2):
        prices = f"{draw.pick(STEMS[s])} shares"
    price, share = f"${draw.number(30, 990)}", f"{draw.number(2.5, 11.8, 1)}%"
    amount = draw.pick(["", f"at {price}"] if past == "flat" else ["", f"to {price}", share, share])
    fill |= {"G": _capital(prices), "g": prices, "C": _capital(fill["good"]), "c": fill["good"],
             "b": verb.base, "p": verb.past, "f": forecast.base, "a": amount, "w": draw.pick(WHEN[s]),
             "q": "" if past == "flat" else share}  # fmt: skip
    text = _tidy(draw.pick(HEADLINES[s][kind[0]]).format(**fill))
    if not 6 <= len(text.split()) <= 14:
        return None
    return {"text": text, "attribute": attribute, "question": QUESTIONS[attribute], "label": label}


def headline_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    attributes = list(QUESTIONS)
    plan = [(attributes[i % 5], "Yes" if i // 5 % 5 in (1, 3) else "No") for i in range(count)]
    return [_fresh(seen, partial(_headline, draw, a, label)) for a, label in plan]


def _value(draw: Draw, concept: Concept, size: float) -> str:
    """A value of fitting size, given in dollars, thousands or millions."""
    value = size * concept.share / 100
    unit = draw.pick([u for u in (1, 1000, 1000, 1_000_000) if value >= 100 * u] or [1])
    digits = draw.number(value / unit * 0.7, value / unit * 1.3)
    return ("-" if concept.signed and draw.chance(0.35) else "") + digits + str(unit)[1:]


def _xbrl(draw: Draw) -> Row | None:
    s, company, group = draw.split, draw.company(), draw.shuffled(draw.pick(CONCEPTS[draw.split]))
    concept, years = group[0], draw.shuffled([0, 1])
    start = draw.pick(range(*FISCAL[s]))
    size = (1 + 9 * draw.random()) * draw.pick([10**6, 10**7, 10**8, 10**9, 10**10])
    here, there = f"FY{start + years[0]}", f"FY{start + years[1]}"
    keys = [(concept, here), (group[1], here)] + ([(concept, there)] if draw.chance(0.85) else [])
    rest = [(c, p) for c in group[1:] for p in (here, there) if (c, p) != (group[1], here)]
    keys += draw.shuffled(rest)[: draw.pick([4, 5, 5, 6, 7]) - len(keys)]
    facts = {key: _value(draw, key[0], size) for key in keys}
    if len({value.lstrip("-") for value in facts.values()}) < len(facts):
        return None
    lines = [f"us-gaap:{c.name} {period} {value} USD" for (c, period), value in draw.shuffled(facts.items())]
    when = draw.pick(AS_OF[s][concept.instant]).format(y=here[2:])
    slots = {"be": concept.be, "l": concept.label, "co": company, "w": when, "W": _capital(when)}
    return {"company": company, "text": "\n".join(lines), "question": draw.pick(QUERIES[s]).format(**slots),
            "concept": f"us-gaap:{concept.name}", "period": here, "answer": facts[concept, here]}  # fmt: skip


def xbrl_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    return [_fresh(seen, partial(_xbrl, draw)) for _ in range(count)]


# --------------------------------------------------------------------------------------------- checks
def _require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _apart(what: str, train: Iterable[str], test: Iterable[str]) -> None:
    _require(not (both := set(train) & set(test)), f"{what} in both splits: {sorted(both)}")


def _verb_words(split: str) -> set[str]:
    phrases = [f"{v.base} {v.past}" for verbs in VERBS[split].values() for v in verbs]
    return {word for word in " ".join(phrases).split() if len(word) > 3 or word in ("rise", "fell", "slid")}


def check_pools() -> None:
    """The tables of train and test share nothing that they must not share."""
    pools = (STEMS, GOODS, DAYS, MONTHS, METRICS, PERIODS, KINDS, ROLES, WHEN)
    for pool in (*pools, OTHER_NAMES, SENTIMENT, NER, NER_NONE, QUERIES):
        _apart("entry", pool["train"], pool["test"])
        _require(all(len(set(pool[s])) == len(pool[s]) for s in ROWS), "a table repeats an entry")
    names = {s: " ".join(STEMS[s] + PLACES[s] + FIRST[s] + LAST[s]).split() for s in ROWS}
    _apart("name", names["train"], names["test"])
    for label, phrases in PHRASES["train"].items():
        _apart("key phrase", phrases, PHRASES["test"][label])
    for shape, templates in HEADLINES["train"].items():
        _apart("headline shape", templates, HEADLINES["test"][shape])
    _apart("verb", _verb_words("train"), _verb_words("test"))
    _apart("element", *({c.name for group in CONCEPTS[s] for c in group} for s in ROWS))


def check_rows(name: str, rows: dict[str, list[Row]]) -> None:
    """Counts, balance, spans and what the finished texts of train and test share."""
    texts = {s: [f"{r['text']} {r.get('question', '')}" for r in rows[s]] for s in ROWS}
    _require(all(len(rows[s]) == ROWS[s] for s in ROWS), f"{name}: wrong number of rows")
    every = [row["text"] for s in ROWS for row in rows[s]]
    _require(len(set(every)) == len(every), f"{name}: a text occurs twice")
    _require(not any(re.search(r"[{}]|  | [,.]", text) for text in every), f"{name}: unfilled or untidy text")
    _apart(f"{name}: number", *(re.findall(r"\d(?:[\d,.]*\d)?", " ".join(texts[s])) for s in ROWS))
    _apart(f"{name}: company", STEMS["train"], re.findall(r"\w+", " ".join(texts["test"])))
    for s in ROWS:
        for row in rows[s]:
            found = row.get("entities", [])
            _require(len(found) <= 4, f"{name}: too many entities in {row['text']}")
            _require(all(row["text"].count(e["text"]) == 1 for e in found), f"{name}: span in {row['text']}")
            order = [row["text"].find(e["text"]) for e in found]
            _require(order == sorted(order), f"{name}: entity order in {row['text']}")
            if name == "mini_xbrl_value":
                fact = f"{row['concept']} {row['period']} {row['answer']} USD"
                lines = row["text"].split("\n")
                _require(lines.count(fact) == 1 and 4 <= len(lines) <= 7, f"{name}: {row}")
        labels = Counter((r.get("attribute", ""), r.get("label", "")) for r in rows[s])
        if name == "mini_sentiment":
            _require(set(labels.values()) == {ROWS[s] // 3}, f"{name}: {labels}")
        if name == "mini_headline":
            _require(set(labels.values()) == {ROWS[s] * 2 // 25, ROWS[s] * 3 // 25}, f"{name}: {labels}")
        if name == "mini_ner":
            _require(sum(not r["entities"] for r in rows[s]) == ROWS[s] // 10, f"{name}: too few entities")
    if name in ("mini_sentiment", "mini_headline"):
        words = re.findall(r"\w+", " ".join(row["text"] for row in rows["test"]).lower())
        _apart(f"{name}: verb", _verb_words("train"), words)


MAKERS = {
    "mini_sentiment": sentiment_rows,
    "mini_ner": ner_rows,
    "mini_headline": headline_rows,
    "mini_xbrl_value": xbrl_rows,
}


def files() -> dict[str, bytes]:
    """File name to content, for all eight files."""
    check_pools()
    out = {}
    for name, make in MAKERS.items():
        rows = {}
        for split, count in ROWS.items():
            draw = Draw(name, split)
            shuffled = draw.shuffled(make(draw, count))
            rows[split] = [{"id": f"{name}-{split}-{i:04d}", **row} for i, row in enumerate(shuffled, 1)]
        check_rows(name, rows)
        for split in ROWS:
            lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows[split]]
            out[f"{name}.{split}.jsonl"] = ("\n".join(lines) + "\n").encode()
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the four mini data sets.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk, write nothing")
    check = parser.parse_args().check
    status = 0
    for name, content in files().items():
        path = HERE / name
        if not check:
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            print(f"{path} differs from what {pathlib.Path(__file__).name} writes", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
