"""From token trees to requests of vLLM and back: log-probabilities of chosen tokens, never of whole prompts.

A node of a tree at which several continuations part is one request: its path as the prompt, one token to say, and the
log-probabilities of the tokens asked for. Nodes with one continuation only would cost a request each; they are
walked by one request whose tokens are forced (``force.py``), a token a step. What requests share at their start
comes from vLLM's prefix cache, which it does not read for requests with ``prompt_logprobs``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finbench.engines.choices import Tree, TreePlan
from finbench.engines.forward import NOT_FINITE

MOST_IDS = 128  # vLLM's MAX_LOGPROB_TOKEN_IDS: token ids that a request may ask for


@dataclass(frozen=True)
class ForcedRun:
    """One request: after ``prompt`` the tokens ``forced`` are said; ``ids`` are asked for at each of its nodes.

    ``nodes[i]`` is the node of tree ``tree`` at which step i stands, ``wanted[i]`` what is asked for there. The last
    step is free, so what it says is the most probable token.
    """

    tree: int
    prompt: list[int]
    forced: list[int]
    nodes: list[int]
    wanted: list[list[int]]

    @property
    def ids(self) -> list[int]:
        return list(dict.fromkeys(token for part in self.wanted for token in part))


def runs(plan: TreePlan) -> list[ForcedRun]:
    """The requests of a plan: first one near the root of each tree, so that the others find its prefix cached."""
    first, later = [], []
    for number, tree in enumerate(plan.trees):
        root, *others = _of_tree(number, tree, plan.prefix)
        first.append(root)
        later += others
    return first + later


def _of_tree(number: int, tree: Tree, prefix: list[int]) -> Iterator[ForcedRun]:
    below = {(parent, tree.tokens[node]): node for node, parent in enumerate(tree.parents)}
    # the next node of each at which one token only is asked for and its continuation is asked for something too
    following = {node: below.get((node, wanted[0]), -1) for node, wanted in tree.wanted.items() if len(wanted) == 1}
    following = {node: child for node, child in following.items() if child in tree.wanted}
    for node in sorted(tree.wanted.keys() - following.values()):
        walk = [node]
        while walk[-1] in following:
            walk.append(following[walk[-1]])
        for start in range(0, len(walk), MOST_IDS):
            yield from _of_walk(number, tree, prefix, walk[start : start + MOST_IDS])


def _of_walk(number: int, tree: Tree, prefix: list[int], walk: list[int]) -> Iterator[ForcedRun]:
    prompt = [*prefix, *(tree.tokens[at] for at in tree.way(walk[0]))]
    forced = [tree.wanted[node][0] for node in walk[:-1]]
    last = tree.wanted[walk[-1]]
    room = max(0, MOST_IDS - len(set(forced)))
    yield ForcedRun(number, prompt, forced, walk, [*([token] for token in forced), last[:room]])
    for start in range(room, len(last), MOST_IDS):
        yield ForcedRun(number, prompt + forced, [], walk[-1:], [last[start : start + MOST_IDS]])


def read(run: ForcedRun, answer: Mapping[str, Any]) -> dict[tuple[int, int], tuple[float, bool]]:
    """(node, token) -> (log-probability, whether no token is more probable), from what a worker answered.

    Raises FinbenchError for what is not finite or not there: argmax over NaN would be the first label.
    """
    found = {}
    said, scores, ranks = answer["tokens"], answer["scores"], answer["ranks"]
    for step, (node, wanted) in enumerate(zip(run.nodes, run.wanted, strict=True)):
        values = dict(reversed(scores[step]))  # padding comes last, under the number of a real token
        for token in wanted:
            value = values.get(token, math.nan)
            if not math.isfinite(value):
                raise NOT_FINITE
            best = ranks[step] == 1 if step < len(run.forced) else said[step] == token
            found[node, token] = (float(value), bool(best))
    return found
