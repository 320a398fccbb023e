"""README.md of a published adapter or model: metadata for the Hub, a page for people, its plot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

from finbench import hub
from finbench.cards import (
    RiskPage,
    amount,
    conditions_of,
    from_template,
    in_brackets,
    model_index,
    percent,
    plots,
    shorten_name,
)
from finbench.core import catalog
from finbench.core.combined import Combined
from finbench.core.records import Adapter, BaseModelId, Bits, Score, Scorecard
from finbench.engines import servable
from finbench.methods import METHODS, irqlora
from finbench.publishing.belonging import alike, is_plain, named
from finbench.publishing.home import Home
from finbench.publishing.licences import Licence
from finbench.scoring import metrics, prompts, task_of_examples

_ORIGINS = {"shipped": "shipped with finbench", "files": "the authors' files", "own": "its publisher's own file"}
_HUB_METRICS = {"acc": "accuracy", "macro_f1": "f1", "weighted_f1": "f1"}


@dataclass(frozen=True)
class Facts:
    """What is known of an adapter. ``record`` is None for one made elsewhere."""

    repo: str
    home: Home | None
    name: str
    record: Adapter | None
    combined: Combined | None
    config: dict[str, Any]
    kind: str
    base: BaseModelId
    bits: Bits
    licence: Licence
    cards: Sequence[Scorecard]
    base_cards: Sequence[Scorecard]
    bytes: int
    risk: RiskPage | None = None

    @property
    def plain(self) -> list[Scorecard]:
        """The results that count as its own: on its base, in the bits it was trained with."""
        return [card for card in self.cards if is_plain(card, self.base, self.bits)]

    @property
    def entered(self) -> list[str]:
        """The tasks on which it has a result of the benchmark that it is said to belong to."""
        pairs = [(card, score) for card in self.plain for score in card.scores] if self.home else []
        return [score.task for card, score in pairs if self.home and not self.home.lacking(card, score)]

    @property
    def apart(self) -> list[str]:
        """A sentence for each result that is none of that benchmark."""
        return [line for card in self.plain for line in self.home.left_out(card)] if self.home else []

    @property
    def title(self) -> str:
        return self.repo.rpartition("/")[2]

    @property
    def method(self) -> str:
        """finbench's name of the method, or peft's."""
        if self.record:
            return self.record.recipe.method
        return self.combined.how if self.combined else str(self.config.get("peft_type", "unknown")).lower()

    @property
    def alone(self) -> bool:
        """Whether only finbench reads it: it brings its own 4-bit codes for the base."""
        return bool(self.config.get("peft_type") == irqlora.KIND)

    @property
    def rank(self) -> int | None:
        return self.record.recipe.rank if self.record else self.config.get("r")

    @property
    def tasks(self) -> list[str]:
        """What it was trained on, else what it was evaluated on."""
        trained = list(self.record.recipe.tasks) if self.record else self.combined.tasks if self.combined else []
        return trained or list(dict.fromkeys(score.task for card in self.cards for score in card.scores))


def write(facts: Facts) -> str:
    """The whole README, deterministic: equal facts give equal text."""
    head = yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True, width=1000)
    method = METHODS.get(facts.method)
    asked = [name.removeprefix(catalog.PREFIX) for name in facts.tasks]
    text = from_template(
        "published.md.j2",
        escape=False,
        f=facts,
        a=facts.record,
        c=facts.combined,
        method=method,
        tasks=", ".join(facts.record.recipe.learnt if facts.record else asked) or "unknown data",
        rows=_rows(facts),
        pictured=bool(facts.plain),
        risk=facts.risk,
        data=_data(facts),
        prompt=_prompt(facts),
        served=_served(facts),
        overlaps=_overlaps(facts),
        example=",".join(name.removeprefix(catalog.PREFIX) for name in facts.tasks if name in catalog.tasks()),
        base_page=hub.page(facts.base.hub_id) if facts.base.hub_id else "",
        page=hub.page(facts.repo),
        home_page=hub.page(facts.home.repo, "dataset") if facts.home else "",
        known=facts.base.hub_id in {entry.hub_id for entry in catalog.bases().values()},
    )
    return f"---\n{head}---\n\n{re.sub(chr(10) + '{3,}', chr(10) * 2, text).strip()}\n"


def metadata(facts: Facts) -> dict[str, Any]:
    """The block at the top of the README, by the Hub's names."""
    base, whole = facts.base, facts.kind == "model"
    tags = ["finbench", "finance", facts.method]
    found: dict[str, Any] = {}
    if base.hub_id:
        found["base_model"] = base.hub_id
        found["base_model_relation"] = "finetune" if whole else "adapter"
        tags += [] if whole else [f"base_model:adapter:{base.hub_id}"]
    if not whole and facts.config.get("peft_type") == "LORA" and "lora" not in tags:
        tags.append("lora")
    library = "transformers" if whole else "finbench" if facts.alone else "peft"
    found |= {"library_name": library, "pipeline_tag": "text-generation"}
    found |= {"language": ["en"], "license": facts.licence.id}
    if facts.licence.name:
        found |= {"license_name": facts.licence.name}
    found["tags"] = tags
    data = facts.record.data if facts.record else []
    origins = [re.fullmatch(r"hub:([\w.-]+/[\w.-]+)", part.origin or "") for part in data]
    if sets := sorted({match[1] for match in origins if match}):
        found["datasets"] = sets
    if facts.plain:
        names = [score.main_metric for card in facts.plain for score in card.scores]
        found["metrics"] = sorted({_HUB_METRICS.get(name, name) for name in names})
        plain = min(facts.plain, key=lambda card: (card.limit is not None, card.shots, card.subject.chat))
        found |= model_index(plain, facts.title)
    return found


def ordered(cards: Sequence[Scorecard], trained: Sequence[str]) -> list[tuple[Scorecard, Score]]:
    """Every score with its card: what the adapter was trained on comes first, in its recipe's order."""
    pairs = [(card, score) for card in cards for score in card.scores]
    return sorted(pairs, key=lambda pair: trained.index(pair[1].task) if pair[1].task in trained else len(trained))


def plot(cards: Sequence[Scorecard], base_cards: Sequence[Scorecard], trained: Sequence[str]) -> str:
    """An SVG of the main scores that are shares of 1, in the order of ``ordered``; equal cards give equal text."""
    rows = []  # task, metric and number of documents, the adapter's score, the base's
    for card, score in ordered(cards, trained):
        if metrics.is_share(score.main_metric):
            base = base_score(card, score, base_cards)
            about = f"{metrics.spoken(score.main_metric)}, n = {score.n:,}"
            label = shorten_name(score.task.removeprefix(catalog.PREFIX), 27)
            rows.append((label, shorten_name(about, 34), score.main, base.main if base else None))
    return plots.pairs(f"{cards[0].subject.name[:48]} beside its base", rows)


def base_score(card: Scorecard, score: Score, base_cards: Sequence[Scorecard]) -> Score | None:
    """The base's score in the very same task and way, computed on the same kind of machine where that is known."""
    for other in sorted(filter(partial(alike, card), base_cards), key=lambda other: other.computed != card.computed):
        for found in other.scores:
            if found.task_digest == score.task_digest and found.data.digest == score.data.digest:
                return found
    return None


def _rows(facts: Facts) -> list[dict[str, str]]:
    """The table of results: this adapter, its base in the same task, and who needs no model.

    Results on another base, or in other bits, come last and say so.
    """
    found, plain = [], facts.plain
    apart = [card for card in facts.cards if card not in plain]
    for card, score in [*ordered(plain, facts.tasks), *ordered(apart, facts.tasks)]:
        share = metrics.is_share(score.main_metric)
        how = [*named(card, facts.base, facts.bits), *conditions_of(card, score)]
        base = base_score(card, score, facts.base_cards)
        majority = score.baselines.get("majority", {}).get(score.main_metric)
        found.append(
            {
                "task": ", ".join([score.task.removeprefix(catalog.PREFIX), *how]),
                "metric": metrics.spoken(score.main_metric) + (" in %" if share else ""),
                "own": in_brackets(score.main, share),
                "base": in_brackets(base.main, share) if base else "not measured",
                "majority": amount(majority, share) if majority is not None else "",
                "n": f"{score.n:,}",
                "parsed": amount(score.parse_rate.value),
            }
        )
    return found


def _data(facts: Facts) -> list[dict[str, str]]:
    """What it learnt from; a set is named with the task that asked it, where that has another name."""
    if facts.record is None:
        return []
    found, parts, recipe = [], facts.record.data, facts.record.recipe
    count = len(parts) - len(recipe.data)  # own rows are last
    names = [*asked_as(list(recipe.tasks), [part.set for part in parts[:count]]), *(p.set for p in parts[count:])]
    for part, asked in zip(parts, names, strict=True):
        task = next((task for task in catalog.tasks().values() if task.set == part.set), None)
        origin = _ORIGINS.get(part.origin or "unknown", part.origin or "unknown")
        held = f"{percent(part.share)} % of " if part.share else ""
        found.append(
            {
                "set": f"{part.set}, asked as {asked}" if asked != part.set else asked,
                "rows": f"{part.rows:,}",
                "licence": task.licence if task else "unknown",
                "origin": held + origin + (f" at `{part.revision[:12]}`" if part.revision else ""),
                "digest": part.digest[:12],
            }
        )
    return found


def asked_as(trained: Sequence[str], sets: list[str]) -> list[str]:
    """The task that asked the rows of each recorded set; the set's own name where the tasks here are others."""
    known = catalog.tasks()
    tasks = [known[name] for name in trained if name in known]
    return [task.name.removeprefix(catalog.PREFIX) for task in tasks] if [task.set for task in tasks] == sets else sets


def _prompt(facts: Facts) -> str:
    """A prompt as the adapter was trained on, of an invented example."""
    known = [catalog.tasks()[name] for name in facts.tasks if name in catalog.tasks()]
    known = [task for task in known if task.examples]
    if not known:
        return "Is this sentence positive, negative or neutral?"
    lm_task = task_of_examples(known[0])
    return str(prompts.pair(lm_task, next(iter(lm_task.dataset["test"])))[0])


def _served(facts: Facts) -> int | None:
    """The --max-lora-rank with which vLLM serves it as it is; None where it has to be merged first."""
    if facts.kind == "model" or servable.route(facts.config, facts.record is not None).how != "unmerged":
        return None
    return servable.served_rank(facts.config)


def _overlaps(facts: Facts) -> list[str]:
    made = facts.record or facts.combined
    found = made.contamination if made else None
    if found is None:
        return ["Whether test texts were among its training rows: not checked."]
    hit = [f"{name}: {count:,} of {found.looked_for[name]:,}" for name, count in found.found.items() if count]
    if not found.looked_for:
        return ["Test texts among its training rows: no test set was there to look for."]
    looked = ", ".join(sorted(found.looked_for))
    return [f"Test texts among its training rows (looked for: {looked}): " + ("; ".join(hit) or "none") + "."]
