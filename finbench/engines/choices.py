"""Token trees: every prefix that requests share is run once. No model.

A request is (context tokens, continuation tokens), as lm-eval encodes it, and wants the log-probability of each
token of its continuation after all before it. Requests become token trees: the labels of one context, the two
sentences of a WinoGrande row, nine questions about one headline are branches of one tree; a node is run once,
however many requests pass it. What every tree of a call starts with (an instruction, worked examples) is the
call's ``prefix``, run once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from finbench.core.errors import FinbenchError
from finbench.models.prefixes import common

LONGEST_TREE = 1024  # tokens; attention inside a tree is dense, so its cost grows with the square
_TRUNK, _BRANCHED = 64, 256  # tokens; with more, two passes cost less than the dense attention of one
LONGER = "Use a base that sees more tokens (finbench bases), or another task (finbench tasks list)."
NO_PROMPT = "A prompt without a single token cannot be continued."
WITH_TEXT = "Choose a task whose prompts hold text: finbench tasks list"
SHORTEST_PREFIX = 4  # tokens; less is not worth a run of its own
# A token costs about as much as attention over a thousand to three thousand others, from 135M to 8B parameters.
_ATTENTION_PER_TOKEN = 1024
_LOOKED_AT = 16
_PASS = 8  # besides what it computes a pass costs, for reading the weights, about an eighth of a full one

Request = tuple[Sequence[int], Sequence[int]]


@dataclass
class Tree:
    """One row of a batch: tokens in an order in which parents come first, below the call's prefix.

    ``parents[i]`` is the node before node i, -1 where that is the end of the prefix. ``wanted[i]`` holds, for node
    i, the tokens whose log-probability after it is asked for; ``paths[r]`` the nodes after which the tokens of
    request r, which ends in this tree, are scored, one a token.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    wanted: dict[int, list[int]] = field(default_factory=dict)
    paths: dict[int, list[int]] = field(default_factory=dict)

    def way(self, node: int) -> list[int]:
        """The nodes from the root to ``node``."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    @property
    def branches(self) -> bool:
        """False for a chain, whose attention is plainly causal."""
        return self.trunk < len(self.tokens)

    @property
    def trunk(self) -> int:
        """Tokens before its first branch; all of a chain."""
        forks = (parent for node, parent in enumerate(self.parents) if parent != node - 1)
        return min(forks, default=len(self.tokens) - 1) + 1


@dataclass(frozen=True)
class TreePlan:
    """The trees of a call, longest first, and the tokens before all of them."""

    prefix: list[int]
    trees: list[Tree]
    targets: list[list[int]]


def plan(requests: Sequence[Request], max_length: int) -> TreePlan:
    """The trees of ``requests`` for a model that sees ``max_length`` tokens.

    What is longer is cut on the left as lm-eval cuts it: the last ``max_length + 1`` tokens are kept, of which the
    very last is only predicted. A request without continuation has no tokens to score. FinbenchError for one without
    context, and for a continuation that is longer than the model sees.
    """
    inputs, targets = [], []
    for context, continuation in requests:
        if not context or len(continuation) > max_length:
            raise FinbenchError(
                f"{len(continuation)} tokens after {len(context)} cannot be scored: the model sees {max_length}.",
                LONGER,
            )
        whole = [*context, *continuation][-(max_length + 1) :]
        inputs.append(whole[:-1] if continuation else [])
        targets.append(list(continuation))
    order = sorted((number for number, found in enumerate(inputs) if found), key=lambda number: inputs[number])
    first = min((len(inputs[number]) - len(targets[number]) for number in order), default=0)
    shared = min(first, common(inputs[order[0]], inputs[order[-1]])) if order else 0
    shared = shared if shared >= SHORTEST_PREFIX else 0
    grown = trees(order, inputs, targets, shared)
    grown.sort(key=lambda tree: -len(tree.tokens))  # stable: equal lengths stay in the order of their tokens
    return TreePlan(inputs[order[0]][:shared] if order else [], grown, targets)


def plans(requests: Sequence[Request], max_length: int) -> Iterator[tuple[Sequence[int], TreePlan]]:
    """``plan`` with the numbers of its requests, where each tree of a long trunk and wide branches has one of its own.

    Its trunk is the prefix there, so that a branch looks at that and at itself, and not at all others. For processors,
    where dense attention costs more than a second pass.
    """
    whole = plan(requests, max_length)
    wide = [tree for tree in whole.trees if tree.trunk >= _TRUNK and len(tree.tokens) - tree.trunk >= _BRANCHED]
    apart = {id(tree) for tree in wide}
    yield range(len(requests)), replace(whole, trees=[tree for tree in whole.trees if id(tree) not in apart])
    for tree in wide:
        numbers = list(tree.paths)
        yield numbers, plan([requests[number] for number in numbers], max_length)


def trees(order: list[int], inputs: list[list[int]], targets: list[list[int]], shared: int) -> list[Tree]:
    """Trees of sequences in the sorted ``order``: neighbours that share enough are branches of one."""
    grown: list[Tree] = []
    before: list[int] = []  # the sequence that was added last, and its nodes
    path: list[int] = []
    for number in order:
        sequence = inputs[number]
        known = max(common(before, sequence), shared) if grown else shared
        saved, added = known - shared, len(sequence) - known
        if not grown or not _worth(saved, added, len(grown[-1].tokens)):
            grown.append(Tree())
            known, path = shared, []
        tree = grown[-1]
        path = path[: known - shared]
        for token in sequence[known:]:
            tree.parents.append(path[-1] if path else -1)
            tree.depths.append(len(path))
            path.append(len(tree.tokens))
            tree.tokens.append(token)
        nodes = path[-len(targets[number]) :]
        tree.paths[number] = list(nodes)
        for node, token in zip(nodes, targets[number], strict=True):
            wanted = tree.wanted.setdefault(node, [])
            if token not in wanted:
                wanted.append(token)
        before = sequence
    return grown


def _worth(saved: int, added: int, size: int) -> bool:
    """Whether ``added`` tokens in a tree of ``size`` cost less than a tree of their own with ``saved`` more."""
    fits = size + added <= LONGEST_TREE or 4 * added <= saved
    return added == 0 or (fits and saved * _ATTENTION_PER_TOKEN >= 2 * added * size)


def batches(
    trees: Sequence[Tree], tokens: int, wanted: int, rows: int | None, past: int = 0, padded: bool = True
) -> Iterator[list[Tree]]:
    """Trees, longest first, in batches of at most ``tokens``, ``wanted`` scored nodes and ``rows``.

    Every row looks at ``past`` shared tokens too: what all rows look at is bounded by ``_LOOKED_AT`` times ``tokens``.
    A tree that is larger than all that is a batch of its own. Of all ways to cut the trees into such batches this is
    one of least cost: the tokens that are run, with padding if they are ``padded``, attention within rows of equal
    length, and for each batch what its weights cost to read.
    """
    widths = np.array([len(tree.tokens) for tree in trees], dtype=np.int64)
    nodes = np.concatenate([[0], np.cumsum([len(tree.wanted) for tree in trees], dtype=np.int64)])
    ends, each = np.concatenate([[0], np.cumsum(widths)]), tokens / _PASS
    least, begins = np.zeros(len(trees) + 1), np.zeros(len(trees) + 1, dtype=np.int64)
    for end in range(1, len(trees) + 1):
        first = max(0, end - min(rows or end, max(1, tokens // max(1, int(widths[end - 1])))))
        counts, wide = np.arange(end - first, 0, -1), widths[first:end]
        rowwise = counts * wide
        run = rowwise if padded else ends[end] - ends[first:end]
        fits = (run <= tokens) & (rowwise <= 2 * tokens) & (counts * (wide + past) <= _LOOKED_AT * tokens)
        fits &= nodes[end] - nodes[first:end] <= wanted
        fits[-1] = True
        costs = np.where(fits, least[first:end] + run + rowwise * wide / _ATTENTION_PER_TOKEN + each, np.inf)
        begins[end] = first + int(costs.argmin())
        least[end] = costs.min()
    cuts = [len(trees)]
    while cuts[-1]:
        cuts.append(int(begins[cuts[-1]]))
    for end, begin in zip(cuts[-2::-1], cuts[:0:-1], strict=True):
        yield list(trees[begin:end])


def room(limit: int, sees: int) -> int:
    """Tokens that a prompt may have before ``limit`` new ones in a model that sees ``sees``; FinbenchError for none."""
    if limit < 1 or limit >= sees:
        raise FinbenchError(f"The task generates up to {limit} tokens; the model sees {sees}.", LONGER)
    return sees - limit


def total(
    path: Sequence[int], targets: Sequence[int], scored: Mapping[tuple[int, int], tuple[float, bool]]
) -> tuple[float, bool]:
    """(log-likelihood, greedy) of a request from (log-probability, most probable) of (node, token).

    Of equally probable tokens the one with the lowest number is the most probable; requests of equal tokens have
    exactly equal log-likelihoods, of which a task takes the first.
    """
    found = [scored[node, token] for node, token in zip(path, targets, strict=True)]
    return sum((value for value, _ in found), 0.0), all(best for _, best in found)
