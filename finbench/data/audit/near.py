"""Near duplicates: MinHash finds candidates, the words themselves decide.

Candidates share most of their words and pairs of words (Broder 1997). Of these a pair counts when the weighted Jaccard
similarity of their words is at least 0.8 (in long texts 0.75; in short ones that would report other texts of one form),
where a word that many texts have weighs little, so that two texts of one template are not taken for one text; and when
what differs is not a name in place of another, which is another fact in the same words, nor goes with another answer.
Numbers and months do not count from train to test; inside a file they do.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from finbench.core.paths import helper
from finbench.data.audit.context import LABELS, AuditContext, share
from finbench.data.audit.findings import SHOWN, Finding
from finbench.data.audit.row_store import SHOWN as KEPT

LEAST = 6  # words: shorter texts are alike by chance
SIMILAR = 0.8
_LONG, _SIMILAR_LONG = 16, 0.75  # different words: in so long a text two other words are few; numbers do not count
_SLIP = 0.7  # where one word differs by a letter or two: in a small file such a word weighs much
_BANDS, _ROWS = 16, 4  # similarity 0.6 is found with probability 0.89, 0.7 with 0.99
_ESTIMATE = 0.5  # of the similarity, before words are looked at
_CROWD = 12  # neighbours in a bucket that are compared: a larger one is a template
_TRIES = 16  # candidates of one text, for the same reason
_WORDS = 400  # of a text that are looked at
_RANKS = {"train": (1, 0), "validation": (2, 0), "test": (4, 0)}
_DIGIT = re.compile(r"\d")
_MONTHS = frozenset(
    """
january february march april may june july august september october november december jan feb mar apr jun jul aug sep
sept oct nov dec
""".split()  # noqa: SIM905
)
# 5, 5mn, q3, 16million, december31 (as a PDF reads), and the signs around them
_NUMBER = re.compile(rf"(?:[a-z]{{0,2}}|{'|'.join(_MONTHS)})\d+(?:[a-z]{{0,2}}|thousand|million|billion)|[-+−%]")


def near(context: AuditContext, known: Collection[int] = ()) -> Iterator[Finding]:
    """Near duplicates inside sources and between them, but for texts (keys) that are ``known`` to be there already."""
    context.query("CREATE INDEX IF NOT EXISTS by_body ON row (body)")
    keys: list[int] = []
    texts: list[list[str]] = []
    for key, words in context.query("SELECT body, words FROM body ORDER BY body"):
        if len(masked := mask(_words(words))) >= LEAST:
            keys.append(key)
            texts.append(masked)
    pairs = [(keys[a], keys[b]) for a, b in _similar_pairs(texts, numbers=False)]
    yield from _reported(context, {pair: how for pair in pairs if (how := _one_fact(context, pair))}, known)


def mask(words: Sequence[str]) -> list[str]:
    """Words with "0" for every run of numbers and names of months."""
    told = ["0" if word in _MONTHS or _NUMBER.fullmatch(word) else word for word in words]
    return [word for word, before in zip(told, ["", *told], strict=False) if not word == before == "0"]


def near_pairs(normalised: Sequence[str]) -> list[tuple[int, int]]:
    """Numbers of texts that differ by a few words only, by their words; shorter ones are alike by chance."""
    long = [number for number, text in enumerate(normalised) if text.count(" ") >= LEAST - 1]
    pairs = _similar_pairs([_words(normalised[number]) for number in long])
    return [(long[a], long[b]) for a, b in pairs]


def near_copies(texts: Sequence[str], golds: Sequence[set[str]]) -> list[tuple[int, int]]:
    """Numbers of texts that an audit calls near copies from split to split; ``golds``: the answers of each text."""
    signed = helper("sets").splits.signed
    masked = [mask(_words(signed(text)[:KEPT])) for text in texts]
    long = [number for number, words in enumerate(masked) if len(words) >= LEAST]
    labels = len(set().union(*golds)) <= LABELS
    found = [(long[a], long[b]) for a, b in _similar_pairs([masked[number] for number in long], numbers=False)]
    return [(a, b) for a, b in found if judged((texts[a][:KEPT], texts[b][:KEPT]), (golds[a], golds[b]), labels)]


def _words(normalised: str) -> list[str]:
    return normalised.split()[:_WORDS]


def _similar_pairs(texts: list[list[str]], numbers: bool = True) -> list[tuple[int, int]]:
    """``numbers``: whether other numbers are another fact."""
    if len(texts) < 2:
        return []
    counts = Counter(word for words in texts for word in set(words))
    weights = {word: math.log((len(texts) + 1) / count) for word, count in counts.items()}
    totals = [sum(weights[word] for word in set(words)) for words in texts]
    return [
        (a, b) for a, b in _candidates(texts) if similar(texts[a], texts[b], weights, totals[a] + totals[b], numbers)
    ]


def _signatures(texts: list[list[str]]) -> Any:
    """MinHash values, texts x 64, uint32."""
    import numpy as np
    from datasketch import MinHash

    maker = MinHash(num_perm=_BANDS * _ROWS, seed=1, hashfunc=int)
    found = np.empty((len(texts), _BANDS * _ROWS), dtype=np.uint32)
    crc = functools.cache(lambda word: zlib.crc32(word.encode("utf-8", "surrogatepass")))
    for number, words in enumerate(texts):
        maker.clear()
        own = [crc(word) for word in words]
        pairs = [(31 * a + b) & 0xFFFFFFFF for a, b in itertools.pairwise(own)]
        maker.update_batch(list({*own, *pairs}))
        found[number] = maker.hashvalues
    return found


def _candidates(texts: list[list[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that fall into one bucket of a band, and whose signatures agree well enough; the likeliest first.

    In texts of one template every text is like every other: the best few of each are looked at.
    """
    import numpy as np

    signatures = _signatures(texts)
    codes, scores = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
    for band in range(_BANDS):
        part = np.ascontiguousarray(signatures[:, band * _ROWS : (band + 1) * _ROWS])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * _ROWS))).ravel()
        order = np.argsort(keys, kind="stable")
        sorted_ = keys[order]
        for step in range(1, _CROWD + 1):
            same = np.flatnonzero(sorted_[step:] == sorted_[:-step])
            if not len(same):
                break
            a, b = order[same], order[same + step]
            alike = np.zeros(len(a), dtype=np.float32)
            for at in range(0, len(a), 50_000):
                span = slice(at, at + 50_000)
                alike[span] = (signatures[a[span]] == signatures[b[span]]).mean(axis=1)
            good = alike >= _ESTIMATE
            codes.append(np.minimum(a, b)[good] * len(texts) + np.maximum(a, b)[good])
            scores.append(alike[good])
    pairs, first = np.unique(np.concatenate(codes), return_index=True)
    best = np.argsort(-np.concatenate(scores)[first], kind="stable")
    tries: Counter[int] = Counter()
    for code in pairs[best]:
        one, other = divmod(int(code), len(texts))
        if tries[one] < _TRIES and tries[other] < _TRIES:
            tries[one] += 1
            tries[other] += 1
            yield one, other


def similar(one: list[str], other: list[str], weights: dict[str, float], total: float, numbers: bool = True) -> bool:
    """Whether two texts are one but for words that carry no other fact. ``total``: the weights of both, added up."""
    a, b = set(one), set(other)
    common = a & b
    shared = sum(map(weights.__getitem__, common))
    if shared < _SLIP * (total - shared) or len(common) < 0.7 * len(a | b):
        return False
    least = SIMILAR if numbers or min(len(a), len(b)) < _LONG else _SIMILAR_LONG
    if shared < least * (total - shared):
        single = len(a - common) == len(b - common) == 1
        if not single or (numbers and not _alike(*(a - common), *(b - common))):
            return False
    few, many = sorted((_numbers(one), _numbers(other)), key=len)
    rest = iter(many)
    return not numbers or all(word in rest for word in few)  # the one stands, in its order, in the other


def _numbers(words: list[str]) -> list[str]:
    """Numbers and names of months, in their order."""
    return [word for word in words if _DIGIT.search(word) or word in _MONTHS]


_LINK = re.compile(r"https?://\S+")
_NAME = re.compile(r"(?<=[^.!?:\s] )[A-Z][\w&.-]*|\b[A-Z]{2,}\b|\$[A-Za-z]+|\b\w*\d\w*\b")
_WORD = re.compile(r"\w+")


def _one_fact(context: AuditContext, pair: tuple[int, int]) -> Literal["", "answered alike", "one text"]:
    """What ``judged`` says of two texts, by their answers in all files."""
    golds, asks, labels, asked = [], [], True, False
    for key in pair:
        found = context.query("SELECT DISTINCT src, gold, ask FROM row WHERE body = ?", key).fetchall()
        labels = labels and all(src in context.labels for src, gold, _ in found if gold is not None)
        asked = asked or any(src in context.by_question for src, *_ in found)
        golds.append({gold for _, gold, _ in found if gold is not None})
        asks.append({(gold, ask) for src, gold, ask in found if context.sources[src].layout.offers})
    asked = asked and not asks[0] & asks[1]  # with the same choices, and one answer, it is the same question
    return judged([context.store.shown(key) for key in pair], golds, labels, asked)


def judged(
    pair: Sequence[str], golds: Sequence[set[str]], labels: bool, asked: bool = False
) -> Literal["", "answered alike", "one text"]:
    """Whether two texts name the same and are answered alike; the last where no number or word stands for another.

    ``labels``: answers are labels; ``asked``: each row has a question of its own.
    """
    shown = [_LINK.sub(" ", text) for text in pair]
    listed = [_WORD.findall(text.casefold()) for text in shown]
    words = [set(mask(found)) for found in listed]
    only = [words[0] - words[1], words[1] - words[0]]
    named = [
        {word for name in _NAME.findall(text) for word in _WORD.findall(name.casefold())} & left
        for text, left in zip(shown, only, strict=True)
    ]
    if named[0] and named[1]:
        return ""
    length = sum(map(len, words)) / 2
    same, numbers = _slip(only, length), _numbers(listed[0]) == _numbers(listed[1])
    if golds[0] and golds[1] and not golds[0] & golds[1]:
        # words in place of others ("rose", "fell"), or added to a question, with another answer: another question
        return "one text" if same and numbers and labels and not (only[0] and only[1]) else ""
    if same and numbers:
        return "one text"
    if not asked and (same or (length >= _LONG and max(map(len, only)) <= 2)):
        return "answered alike"
    # with one label, any word and any number may be another
    return "answered alike" if labels and golds[0] and golds[1] and not asked else ""


def _slip(only: list[set[str]], length: float) -> bool:
    """Whether words in place of others are a slip, or few in a long text; in a short one they are the point of it."""
    few, many = sorted(only, key=len)
    if not few or len(many) <= 0.06 * length:
        return True
    return all(any(_alike(word, other) for other in many) for word in few)


def _alike(word: str, other: str) -> bool:
    """Whether two words differ by a letter or two."""
    return difflib.SequenceMatcher(None, word, other).ratio() >= 0.75


def _reported(context: AuditContext, pairs: Mapping[tuple[int, int], str], known: Collection[int]) -> Iterator[Finding]:
    """Pairs by the sources they are in: one inside a file counts there, one between a train and a test file there.

    Inside a file, sentences of one form that differ in a number are ordinary; from train to test they help memory.
    So do they between files that do not say which they are.
    """
    where = {
        key: {src for (src,) in context.query("SELECT DISTINCT src FROM row WHERE body = ?", key)}
        for key in set(itertools.chain(*pairs))
    }
    # of two files that do not say what they are, either may be the one that trains
    ranks = [_RANKS.get(str(source.split), (3, number)) for number, source in enumerate(context.sources)]
    inside: dict[tuple[int, int], dict[int, int]] = {}  # (train, test) or (source, itself) -> key there -> its twin
    for (one, other), how in pairs.items():
        for key, twin in ((one, other), (other, one)):
            for b in where[key]:
                if b in where[twin]:
                    if key < twin and how == "one text":
                        inside.setdefault((b, b), {})[twin] = key
                    continue
                for a in where[twin] - where[key] if key not in known else ():
                    if ranks[a] < ranks[b]:
                        inside.setdefault((a, b), {})[key] = twin
    for (a, b), found in sorted(inside.items()):
        first, second, counted = context.sources[a], context.sources[b], (len(found), context.distinct[b])
        how = "by a few words" if a == b else "by a few words, numbers or months"
        said = f"{share(*counted)} texts of {second.stem} differ {how} from another row"
        key, twin = min(found.items())
        keys = list(found)[:SHOWN]
        shown = f"SELECT min(n) FROM row WHERE src = ? AND body IN ({','.join('?' * len(keys))}) GROUP BY body"
        yield context.find(
            "near-duplicates" if a == b else "near-leak",
            "note" if a == b else "warning",
            [second] if a == b else [first, second],
            counted,
            said + ("." if a == b else f" in {first.stem}."),
            (shown, b, *keys),
            example=" / ".join(str(context.example(text, [first, second])) for text in (key, twin)),
        )
