"""Candidates of a question that do not tell its answer: ten questions share the ten tags that are their answers.

Where the wrong candidates are chosen by the right one (its nearest names, or frequent tags), a rule that never reads
the sentence finds it: the centre of the list, the most frequent. Here a split's questions are divided into blocks of
ten different answers, near in name, and every question of a block offers all of them. Each candidate is the answer of
one question of its block, so that whatever chooses by the list alone is right in exactly one question of each list.
"""

import hashlib
import heapq
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

OFFERED = 10
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_PASSES, _LOOKED_AT = 3, 4  # rounds over all blocks, and blocks where a tag might go
_MANY = 20_000  # answers; where there are more, the first division has near names for nearly all


def offer(questions: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The candidates of each (id, answer) of a split, in an order drawn by its id.

    Ten or a few more; fewer where an answer is that of more than a tenth of the questions, or where there are not ten.
    """
    answers = [answer for _, answer in questions]
    waiting: dict[str, list[list[str]]] = defaultdict(list)
    for block in _nearer(_blocks(answers)):
        for tag in block:
            waiting[tag].append(block)
    for tag, blocks in waiting.items():  # else the first questions of a frequent tag would have the lists made first
        blocks.sort(key=lambda block: _hash("|".join((tag, *block))))
    lists = {tag: iter(blocks) for tag, blocks in waiting.items()}
    return [sorted(next(lists[tag]), key=lambda name: _hash(f"{id_}:{name}")) for id_, tag in questions]


class _Names:
    """How near the names of tags are: the share of their words that both have (Jaccard), 0 to 1."""

    def __init__(self, tags: Iterable[str]) -> None:
        self.words = {tag: frozenset(map(str.casefold, _WORDS.findall(tag))) for tag in sorted(set(tags))}
        self._near: dict[tuple[str, str], float] = {}

    def near(self, one: str, other: str) -> float:
        pair = (one, other) if one < other else (other, one)
        if pair not in self._near:
            a, b = self.words[one], self.words[other]
            self._near[pair] = len(a & b) / (len(a | b) or 1)
        return self._near[pair]

    def tie(self, tag: str, block: Iterable[str]) -> float:
        """The sum over the block's other tags."""
        return sum(self.near(tag, other) for other in block if other != tag)

    def nearest(self, tag: str, among: Iterable[str], count: int) -> list[str]:
        """The ``count`` nearest; ties in an order drawn by salted hash."""
        others = (name for name in among if name != tag)
        return heapq.nsmallest(count, others, key=lambda name: (-self.near(tag, name), _hash(f"{tag}:{name}")))


def _blocks(answers: Sequence[str]) -> list[list[str]]:
    """The answers in blocks without repetition: about a rare one each, while it has near ones that are left."""
    left = Counter(answers)
    count = max([len(answers) // OFFERED, *left.values()], default=0)
    names = _Names(left)
    rarest = [(frequency, _hash(tag), tag) for tag, frequency in left.items()]
    heapq.heapify(rarest)
    blocks = []
    for number in range(count):
        size = len(answers) // count + (number < len(answers) % count)
        # what is left as often as there are blocks must be in each of them
        block = [tag for tag, times in left.items() if times == count - number]
        if len(block) < size:
            while left[rarest[0][2]] != rarest[0][0]:  # it has been used since
                _, mark, tag = heapq.heappop(rarest)
                if left[tag]:
                    heapq.heappush(rarest, (left[tag], mark, tag))
            pivot = rarest[0][2]
            block += [pivot] if pivot not in block else []
            block += names.nearest(pivot, left.keys() - set(block), size - len(block))
        left -= Counter(block)
        blocks.append(block)
    return blocks


def _nearer(blocks: list[list[str]]) -> list[list[str]]:
    """The same answers in blocks of nearer names: tags of two blocks change places where that is a gain."""
    names = _Names(itertools.chain.from_iterable(blocks))
    if sum(map(len, blocks)) > _MANY:
        return blocks
    close = {tag: names.nearest(tag, names.words, OFFERED) for tag in names.words}
    homes: dict[str, set[int]] = defaultdict(set)
    for number, block in enumerate(blocks):
        for tag in block:
            homes[tag].add(number)
    for _ in range(_PASSES):
        moved = False
        for here, block in enumerate(blocks):
            for tag in list(block):
                if tag not in block:  # it has changed places since
                    continue
                places = {number for name in close[tag] for number in homes[name]} - homes[tag]
                welcoming = heapq.nlargest(_LOOKED_AT, places, key=lambda at: (names.tie(tag, blocks[at]), at))
                swaps = (
                    (_gain(names, tag, block, other, blocks[number]), number, other)
                    for number in welcoming
                    for other in blocks[number]
                    if other not in block
                )
                gain, there, other = max(swaps, default=(0.0, here, tag))
                if gain > 1e-9:
                    block[block.index(tag)], blocks[there][blocks[there].index(other)] = other, tag
                    homes[tag] ^= {here, there}
                    homes[other] ^= {here, there}
                    moved = True
        if not moved:
            break
    return blocks


def _gain(names: _Names, tag: str, block: list[str], other: str, away: list[str]) -> float:
    """How much nearer the names of two blocks are once ``tag`` and ``other`` change places."""
    after = names.tie(tag, away) + names.tie(other, block) - 2 * names.near(tag, other)
    return after - names.tie(tag, block) - names.tie(other, away)


def _hash(text: str) -> str:
    return hashlib.sha256(f"finbench-v1:{text}".encode("utf-8", "surrogatepass")).hexdigest()
