"""Named entities: the FIN corpus of loan agreements (Salinas Alvarado et al. 2015) and FiNER-ORD (Shah et al. 2023)."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from .base import Drop, Item, Record, Row, Unit, WrongFile, text_of
from .splits import normalise

TYPES = {"PER": "person", "ORG": "organization", "LOC": "location"}
_TNER = ("O", "B-PER", "B-LOC", "B-ORG", "B-MISC", "I-PER", "I-LOC", "I-ORG", "I-MISC")  # tner/fin's codes
_ORD = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")  # FiNER-ORD's codes


def spans(tokens: list[str], tags: list[str]) -> list[Row]:
    """Entities of a sentence with their place in the text of the tokens joined by blanks, in characters.

    Tags are IOB2 or IO: an I that does not go on with the same type starts an entity (as in seqeval's default mode);
    in IO neighbours of one type are one entity, since the scheme cannot tell.
    """
    found: list[Row] = []
    start, before = 0, "O"
    for token, tag in zip(tokens, tags, strict=True):
        scheme, _, kind = tag.partition("-")
        if kind and scheme == "I" and before == kind:
            found[-1]["text"] += " " + token
        elif kind:
            found.append({"text": token, "type": kind, "start": start})
        before = kind or "O"
        start += len(token) + 1
    return found


def _entities(tokens: list[str], tags: list[str]) -> list[Row]:
    """Spans of the three types; MISC is left out (ten tokens such as Chinese and French)."""
    return [{**span, "type": TYPES[span["type"]]} for span in spans(tokens, tags) if span["type"] in TYPES]


def fin_split(name: str) -> str | None:
    """FIN5 trains, FIN3 examines, as their authors used them."""
    return {"fin5": "train", "fin3": "test"}.get(name) or next(
        (split for word, split in (("train", "train"), ("valid", "validation"), ("test", "test")) if word in name), None
    )


def _fin(records: Iterable[Record]) -> Iterator[tuple[list[str], list[str], str, str | None] | str]:
    """(tokens, tags, place, split) of CoNLL sentences, and of the Hub's rows, whose tags are numbers."""
    for row, place, split in records:
        tokens, tags = row.get("tokens"), row.get("tags")
        if not isinstance(tokens, list) or not isinstance(tags, list):
            raise WrongFile(f"{place}: tokens and tags are expected, found {', '.join(map(str, row))[:120]}")
        try:
            named = [_TNER[tag] if isinstance(tag, int) else str(tag) for tag in tags]
        except IndexError:
            named = ["?"]
        known = all(tag == "O" or tag.partition("-")[2] in (*TYPES, "MISC") for tag in named)
        if not known or len(named) != len(tokens) or not tokens or not all(isinstance(t, str) and t for t in tokens):
            yield f"{place}: needs one tag a token, O, PER, ORG, LOC or MISC with I- or B-, found {tags[:8]}"
        else:
            yield tokens, named, place, split


def fin_ner(records: Iterable[Record]) -> Iterator[Item]:
    """Every person, organization and location of a sentence."""
    for item in _fin(records):
        if isinstance(item, str):
            yield item
            continue
        tokens, tags, place, split = item
        text, entities = " ".join(tokens), _entities(tokens, tags)
        yield Unit(text, _named(entities), [{"text": text, "entities": entities}], place, split)


def _named(entities: list[Row]) -> list[list[str]]:
    """What copies of a sentence must agree on: names and types. Their places differ with the spacing."""
    return [[normalise(entity["text"]), entity["type"]] for entity in entities]


def fin_ner_typing(records: Iterable[Record]) -> Iterator[Item]:
    """The type of each distinct entity of a sentence. One that has two types in its sentence is left out."""
    for item in _fin(records):
        if isinstance(item, str):
            yield item
            continue
        tokens, tags, place, split = item
        kinds: dict[str, set[str]] = {}
        for entity in _entities(tokens, tags):
            kinds.setdefault(entity["text"], set()).add(entity["type"])
        text = " ".join(tokens)
        for _ in (name for name, found in kinds.items() if len(found) > 1):
            yield Drop("an entity with two types in one sentence")
        rows = [
            {"id": str(number), "text": text, "entity": name, "label": min(found)}
            for number, (name, found) in enumerate(kinds.items())
            if len(found) == 1
        ]
        told = [[normalise(row["entity"]), row["label"]] for row in rows]
        yield Unit(text, told, rows, place, split) if rows else Drop("a sentence without an entity")


def finer_ord(records: Iterable[Record]) -> Iterator[Item]:
    """One token a row, with ``doc_idx`` and ``sent_idx``; the sentences of an article are one cluster."""

    def sentence(record: Record) -> tuple[Any, ...]:
        row, place, split = record
        return split, text_of(row, place, "doc_idx"), text_of(row, place, "sent_idx")

    for (split, article, _), group in itertools.groupby(records, sentence):
        rows = list(group)
        place = rows[0][1]
        # The Hub's Parquet files went through pandas, which reads the word "none" of a news text as missing
        missing = [row.get("gold_token", "") is None for row, _, _ in rows]
        tokens = [
            "none" if gone else text_of(row, at, "gold_token") for gone, (row, at, _) in zip(missing, rows, strict=True)
        ]
        codes = [text_of(row, at, "gold_label").removesuffix(".0") for row, at, _ in rows]
        wrong = [
            f"{at}: needs a token and a label 0 to 6, found {token[:20]!r} and {code[:20]!r}"
            for (_, at, _), token, code in zip(rows, tokens, codes, strict=True)
            if not token or code not in list("0123456")
        ]
        if wrong:
            yield from wrong
            continue
        text, entities = " ".join(tokens), _entities(tokens, [_ORD[int(code)] for code in codes])
        made = {"text": text, "entities": entities, "group": f"{split} article {article}"}
        yield Unit(text, _named(entities), [made], place, split)
