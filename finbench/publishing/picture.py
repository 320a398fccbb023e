"""The plot of a model card: dots with 95 % intervals, base and adapter, task by task, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from finbench.cards import plots, shorten_name
from finbench.core.catalog import PREFIX
from finbench.core.records import Score, Scorecard
from finbench.scoring import metrics


def ordered(cards: Sequence[Scorecard], trained: Sequence[str]) -> list[tuple[Scorecard, Score]]:
    """Every score with its card: what the adapter was trained on comes first, in its recipe's order."""
    pairs = [(card, score) for card in cards for score in card.scores]
    return sorted(pairs, key=lambda pair: trained.index(pair[1].task) if pair[1].task in trained else len(trained))


def scores(cards: Sequence[Scorecard], base_cards: Sequence[Scorecard], trained: Sequence[str]) -> str:
    """An SVG of the main scores that are shares of 1, in the order of ``ordered``; equal cards give equal text."""
    rows = []  # task, metric and number of documents, the adapter's score, the base's
    for card, score in ordered(cards, trained):
        if metrics.is_share(score.main_metric):
            base = base_score(card, score, base_cards)
            about = f"{metrics.spoken(score.main_metric)}, n = {score.n:,}"
            label = shorten_name(score.task.removeprefix(PREFIX), 27)
            rows.append((label, shorten_name(about, 34), score.main, base.main if base else None))
    return plots.pairs(f"{cards[0].subject.name[:48]} beside its base", rows)


def base_score(card: Scorecard, score: Score, base_cards: Sequence[Scorecard]) -> Score | None:
    """The base's score in the very same task: task, data, shots, template."""
    for other in base_cards:
        same = other.shots == card.shots and other.subject.chat == card.subject.chat and other.limit == card.limit
        for found in other.scores:
            if same and found.task_digest == score.task_digest and found.data.digest == score.data.digest:
                return found
    return None
