"""Which of a document's labels is the most probable, without running the others to their end. Pure Python, no model.

Only labels of one document run against each other: two documents may have one context and different labels.

The log-probability of a token is never above 0, so what a label has so far is a bound of what it will have: best-first
search, A* with that bound (Hart, Nilsson, Raphael 1968). A label is left when it lies below the best whole one; the
best label and its log-likelihood are those of running all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from finbench.engines.choices import Request, Tree, TreePlan

SURE = 1e-5  # nats below the best at which a label is left: sample rows keep six digits, which must not make ties
_NEAR = 6.0  # nats below the most probable node within which others are run with it
_MOST = 16  # nodes that are run at once

Scored = Mapping[tuple[int, int], tuple[float, bool]]  # (node, token) -> (log-probability, most probable of all)


def document(request: Any) -> Hashable:
    """What the lm-eval requests of one document have in common."""
    return request.task_name, request.doc_id


def fields(documents: Sequence[Hashable], requests: Sequence[Request]) -> list[list[int]]:
    """Numbers of the requests that run against each other: those of one document and one context."""
    found: dict[Hashable, list[int]] = {}
    for number, (of, (context, _)) in enumerate(zip(documents, requests, strict=True)):
        found.setdefault((of, tuple(context)), []).append(number)
    return list(found.values())


class Race:
    """The requests of ``plan``, all of one context. Run what ``heat`` returns, ``enter`` what came out, until ``over``.

    ``answers`` are then, by the number of the request, (log-likelihood, greedy). For a request that was left the first
    is an upper bound, at least ``SURE`` below the best one's, and the second False.
    """

    def __init__(self, plan: TreePlan) -> None:
        self.plan = plan
        self.sums = [0.0] * len(plan.targets)
        self.steps = [0] * len(plan.targets)
        self.greedy = [True] * len(plan.targets)
        self.paths = {r: (number, path) for number, tree in enumerate(plan.trees) for r, path in tree.paths.items()}
        self.left = set(self.paths)  # the others have no token to be scored
        self.best = 0.0 if len(self.left) < len(plan.targets) else float("-inf")
        self.origin: list[tuple[int, list[int]]] = []  # of each tree of a heat: its tree in the plan, its nodes there
        self.scored: dict[tuple[int, int, int], tuple[float, bool]] = {}  # by tree of the plan, node, token

    @property
    def over(self) -> bool:
        return not self.left

    def heat(self) -> TreePlan:
        """The trees to be run next: the way to the most probable nodes that are not run yet.

        From the very first of them it goes on to where its labels part, or to the end of the longest. Longest trees
        first.
        """
        fronts: dict[tuple[int, int], list[int]] = {}
        for request in self.left:
            tree, path = self.paths[request]
            fronts.setdefault((tree, path[self.steps[request]]), []).append(request)
        hope = {place: max(self.sums[request] for request in waiting) for place, waiting in fronts.items()}
        first, *others = sorted(fronts, key=lambda place: (-hope[place], place))[:_MOST]
        wanted: dict[int, dict[int, list[int]]] = {}
        for place in [first, *(other for other in others if hope[other] >= hope[first] - _NEAR)]:
            for node, tokens in self._walk(fronts[place], far=place == first):
                known = wanted.setdefault(place[0], {}).setdefault(node, [])
                known += [token for token in tokens if token not in known]
        parts = [(number, *_part(self.plan.trees[number], nodes)) for number, nodes in wanted.items()]
        parts.sort(key=lambda part: -len(part[1]))
        self.origin = [(number, nodes) for number, nodes, _ in parts]
        return TreePlan(self.plan.prefix, [tree for _, _, tree in parts], [])

    def _walk(self, requests: Sequence[int], far: bool) -> Iterable[tuple[int, list[int]]]:
        """(node in its tree, tokens wanted there) of the node at which ``requests`` wait; ``far``: down to a fork."""
        depth = 0
        while requests:
            node = self.paths[requests[0]][1][self.steps[requests[0]] + depth]
            tokens = list(dict.fromkeys(self._token(request, depth) for request in sorted(requests)))
            yield node, tokens
            if len(tokens) > 1 or not far:
                return
            depth += 1
            requests = [r for r in requests if self.steps[r] + depth < len(self.plan.targets[r])]

    def _token(self, request: int, ahead: int = 0) -> int:
        return self.plan.targets[request][self.steps[request] + ahead]

    def enter(self, number: int, scored: Scored) -> None:
        """Take what was found in the tree ``number`` of the last heat, whole or in parts."""
        tree, nodes = self.origin[number]
        self.scored |= {(tree, nodes[node], token): value for (node, token), value in scored.items()}
        for request in sorted(self.left):
            own, path = self.paths[request]
            while self.steps[request] < len(path):
                value = self.scored.get((own, path[self.steps[request]], self._token(request)))
                if value is None:
                    break
                self.sums[request] += value[0]
                self.greedy[request] &= value[1]
                self.steps[request] += 1
            else:
                self.left.discard(request)
                self.best = max(self.best, self.sums[request])
        self.left = {request for request in self.left if self.sums[request] > self.best - SURE}

    def answers(self) -> list[tuple[float, bool]]:
        whole = [self.steps[r] == len(target) for r, target in enumerate(self.plan.targets)]
        return [(total, known and best) for total, known, best in zip(self.sums, whole, self.greedy, strict=True)]


def _part(whole: Tree, wanted: Mapping[int, list[int]]) -> tuple[list[int], Tree]:
    """A part of a tree, the ways from its root to the ``wanted`` nodes; before it, what its nodes are in the whole."""
    tree, known = Tree(), {-1: -1}
    for node, tokens in wanted.items():
        for new in whole.way(node):
            if new not in known:
                known[new] = len(tree.tokens)
                tree.tokens.append(whole.tokens[new])
                tree.parents.append(known[whole.parents[new]])
                tree.depths.append(whole.depths[new])
        tree.wanted[known[node]] = tokens
    return list(known)[1:], tree
