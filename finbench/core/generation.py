"""How answers were generated: a part of a scorecard."""

from __future__ import annotations

from pydantic import Field

from finbench.core.settings import Profile
from finbench.core.strict import Record


class Generation(Record):
    """How prompts were put and answers generated, where that is not the plain way."""

    profile: Profile = Field(description="direct, chat, think or cot: docs/evaluation.md")
    max_tokens: int | None = Field(default=None, description="budget of an answer; null: the profile's own")
    temperature: float | None = Field(default=None, description="of sampling; null: the most probable token")
    top_p: float | None = Field(default=None, description="share of the probability that was sampled from")
    samples: int = Field(default=1, ge=1, description="answers to every prompt")
    think_end: str | None = Field(default=None, description="what ended the reasoning, as the user stated it")
    system_prompt: str | None = Field(default=None, description="text before every prompt")
    confidence: bool = Field(default=False, description="asked for how sure it is, in words: docs/risk.md")
    fewshot_as_multiturn: bool | None = Field(
        default=None, description="worked examples as turns; null: in a chat template"
    )
