"""Scorecards: on disk, compared, shown, exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.cards import asking, cardfiles, everyeval, plots, trackers
    from finbench.cards.adaptercard import combined_card, model_card
    from finbench.cards.byprompt import PromptEffects, by_prompt
    from finbench.cards.comparison import RowsByTask, aggregation_of, compare, follows
    from finbench.cards.confidence import CardCalibration, calibrate
    from finbench.cards.contentfree import Contextual, contextual
    from finbench.cards.elsewhere import endpoint_notes, what_it_cost, who_answered
    from finbench.cards.exports import eval_results, export_card, model_index
    from finbench.cards.overtime import OverTime, by_year
    from finbench.cards.render import (
        Heading,
        amount,
        conditions_of,
        describe_subject,
        from_template,
        in_brackets,
        limits,
        percent,
        shorten_name,
        task_views,
        terminal_tables,
        thinking_tokens,
        write_reports,
    )
    from finbench.cards.reporting import format_of, report
    from finbench.cards.riskpage import RiskPage, risk, risk_of
    from finbench.cards.setups import setup_of, setup_of_card, setup_of_score
    from finbench.cards.undernoise import UNREACHED, UnderNoise, robustness, unreached
    from finbench.cards.verdicts import LEVEL, Comparison, Contest, shown_points, shown_probability
else:
    __getattr__ = face(__name__)

__all__ = [
    "LEVEL",
    "UNREACHED",
    "CardCalibration",
    "Comparison",
    "Contest",
    "Contextual",
    "Heading",
    "OverTime",
    "PromptEffects",
    "RiskPage",
    "RowsByTask",
    "UnderNoise",
    "aggregation_of",
    "amount",
    "asking",
    "by_prompt",
    "by_year",
    "calibrate",
    "cardfiles",
    "combined_card",
    "compare",
    "conditions_of",
    "contextual",
    "describe_subject",
    "endpoint_notes",
    "eval_results",
    "everyeval",
    "export_card",
    "follows",
    "format_of",
    "from_template",
    "in_brackets",
    "limits",
    "model_card",
    "model_index",
    "percent",
    "plots",
    "report",
    "risk",
    "risk_of",
    "robustness",
    "setup_of",
    "setup_of_card",
    "setup_of_score",
    "shorten_name",
    "shown_points",
    "shown_probability",
    "task_views",
    "terminal_tables",
    "thinking_tokens",
    "trackers",
    "unreached",
    "what_it_cost",
    "who_answered",
    "write_reports",
]
