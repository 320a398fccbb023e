"""A look at the answers, before the long run and after it: are they in the form that the task reads?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from finbench.core import catalog
from finbench.core.console import err, say
from finbench.core.records import Scorecard, Task
from finbench.core.settings import TEMPLATED, Evaluation
from finbench.engines import Generated
from finbench.evaluation.journal import Journal
from finbench.evaluation.scored import hear
from finbench.evaluation.subjects import Candidate
from finbench.models import has_template
from finbench.scoring import LENIENT, prompts, sample_rows

ROWS = 10  # documents that are answered first
_FEW = 3  # below so many nothing is said
_LONGEST = 2_000  # characters of a prompt that are shown, from its end
_ANSWER = 600


@dataclass(frozen=True)
class _Heard:
    """The answer to one request. ``cut``: the limit of tokens ended it, as far as that can be known."""

    instance: Any
    text: str
    cut: bool
    raw: str  # with the reasoning, where there is no text


@dataclass
class Looks:
    """What was looked at, by run key and task: a person is told of a fault once."""

    wanted: Evaluation
    lm_tasks: Mapping[str, Any]
    seen: set[tuple[str, str]] = field(default_factory=set)
    warned: set[tuple[str, str]] = field(default_factory=set)

    def parts(self, task: Task, asked: Sequence[Any]) -> list[list[int]]:
        """Requests by number: those of the first documents, which are looked at, and the rest."""
        every = list(range(len(asked)))
        if not asked or not (self.wanted.look or self._worth_it(task)):
            return [every] if every else []
        documents = set(list(dict.fromkeys(instance.doc_id for instance in asked))[:ROWS])
        first = [at for at in every if asked[at].doc_id in documents]
        rest = [at for at in every if asked[at].doc_id not in documents]
        return [first, rest] if rest else [first]

    def first(
        self, task: Task, key: str, who: Candidate, named: Mapping[str, Any], journal: Journal, engine: Any
    ) -> None:
        """Look at the first documents, once they are answered, and show so many of them as the user asks for.

        ``named``: every request of the task by its digest; ``key``: of the run.
        """
        if (key, task.name) in self.seen:
            return
        names, requests = list(named), list(named.values())
        chosen = {names[at]: requests[at] for at in self.parts(task, requests)[0]}
        if chosen.keys() <= journal.answers.keys():
            self.seen.add((key, task.name))
            self._tell(task, key, who, chosen, journal, engine, self.wanted.look)

    def all(
        self, task: Task, key: str, who: Candidate, named: Mapping[str, Any], journal: Journal, engine: Any
    ) -> None:
        """Look at every answer: the first ones may have been better than most."""
        if (key, task.name) not in self.warned and self._worth_it(task):
            self._tell(task, key, who, named, journal, engine, 0)

    def back(self, task: Task, card: Scorecard, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show of what an earlier command has scored, where its card holds answers in words."""
        answers = {row["index"]: row["answer"] for row in rows[: self.wanted.look] if "answer" in row}
        if card.subject.chat or card.generation or not answers:
            form = "prompts were put in a chat template or another profile"
            kept = form if answers else "card has answers as hashes only"
            anew = f"--look {self.wanted.look} --limit {ROWS} --out {self.wanted.out}-look"
            say(f"{card.subject.name} on {task.name} was scored before; its {kept}. To see some: {anew}")
            return
        heard: list[Any] = []
        for instance in prompts.requests(self.lm_tasks[task.name], max(answers) + 1) if answers else []:
            answer = answers.get(instance.doc_id)
            if answer is not None:
                hear(instance, (answer[instance.idx], False) if isinstance(answer, list) else answer)
                heard.append(instance)
        self._show(task, card.subject.name, heard, len(answers))

    def _show(self, task: Task, name: str, heard: Sequence[Any], count: int) -> Any:
        """Say the first ``count`` prompts with their answers; (rows, values by metric) of all."""
        lm_task = self.lm_tasks[task.name]
        rows, values = sample_rows(lm_task, heard, choice=task.form == "choice", restricted=False)
        documents = {instance.doc_id: instance for instance in reversed(heard)}
        for row in rows[:count]:
            title = f"{name} on {task.name.removeprefix(catalog.PREFIX)}, row {row['index']}"
            for line in _shown(title, lm_task, row, documents[row["index"]]):
                say(line)
        return rows, values

    def _worth_it(self, task: Task) -> bool:
        return task.form == "generate" and self.wanted.engine != "dummy"

    def _tell(self, task: Task, key: str, who: Candidate, named: Mapping[str, Any], journal: Journal, engine: Any,
              shown: int) -> None:  # fmt: skip
        heard = []
        for name, instance in named.items():
            if not getattr(instance, "sample", 0):  # of several samples the first
                heard.append(_heard(instance, journal.answers[name], journal.notes.get(name, {}), engine))
                hear(instance, journal.answers[name])
        rows, values = self._show(task, who.subject.name, [one.instance for one in heard], shown)
        documents = {one.instance.doc_id: one for one in reversed(heard)}
        short = task.name.removeprefix(catalog.PREFIX)
        parsed = values.get("parse_rate") or []
        if len(parsed) < _FEW or not self._worth_it(task):
            return
        told = [documents[row["index"]] for row in rows]
        if found := _fault(told, [bool(rate) for rate in parsed], self.wanted.profile == "direct"):
            what, bad = found
            self.warned.add((key, task.name))
            few = "first " if len(told) <= ROWS < (self.wanted.limit or ROWS + 1) else ""
            example = next((f"; such as {one.raw[:120]!r}" for one in bad if one.raw.strip()), "")
            said = f"WARNING: {who.subject.name} on {short}: {len(bad):,} of the {few}{len(told):,} answers {what}"
            said += f"{example}. {_mend(who, bad, self.wanted)} To see more: --look 3"
            err.print(said, style="bold yellow", highlight=False, markup=False, soft_wrap=True)


def _heard(instance: Any, answer: Any, note: Mapping[str, Any], engine: Any) -> _Heard:
    """What is known of an answer; a text that fills all its room was cut off, for nothing else ended it."""
    if isinstance(answer, Generated):
        return _Heard(instance, answer.text, answer.truncated, answer.text or answer.reasoning[-120:])
    if not isinstance(answer, str):
        return _Heard(instance, "log-likelihood", False, "")
    room = instance.args[1].get("max_gen_toks")
    tokens, _ = (
        engine.prompt_tokens(SimpleNamespace(args=(answer, {}), request_type="generate_until")) if room else (0, 0)
    )
    return _Heard(instance, answer, bool(note.get("cut")) or bool(room and tokens >= int(room)), answer)


def _fault(told: Sequence[_Heard], parsed: Sequence[bool], direct: bool) -> tuple[str, list[_Heard]] | None:
    """What is wrong with more than half of the answers, and those."""
    empty = [one for one in told if not one.text.strip() and not one.cut]
    unread = [one for one, rate in zip(told, parsed, strict=True) if not rate]
    cut = [one for one in unread if one.cut]
    for what, bad in (
        (f"{'are not in the form asked for: they ' if direct else ''}were cut off by the limit of tokens", cut),
        ("are empty", empty),
        ("are not in the form asked for, and count as wrong", unread),
    ):
        if len(bad) > len(told) / 2:
            return what, bad
    return None


def _shown(title: str, lm_task: Any, row: Mapping[str, Any], instance: Any) -> list[str]:
    prompt = str(instance.args[0])
    cut = f"... ({len(prompt) - _LONGEST:,} characters before)\n" if len(prompt) > _LONGEST else ""
    answer = row["answer"]
    raw = repr(answer[:_ANSWER]) if isinstance(answer, str) else f"log-likelihoods {answer}"
    scores = {name: value for name, value in row["values"].items() if isinstance(value, int | float)}
    read = {
        name: value[1] for name, value in row["values"].items() if isinstance(value, list | tuple) and len(value) > 2
    }
    reading = next((f"read as {value!r}; " for name, value in read.items() if not name.endswith(LENIENT)), "")
    target = lm_task.doc_to_target(instance.doc)
    got = ", ".join(f"{name} {value:g}" for name, value in scores.items())
    return [
        f"--- {title}: prompt",
        cut + prompt[-_LONGEST:],
        f"--- raw answer: {raw}",
        f"--- {reading}right: {str(target)[:200]!r}; {got}",
    ]


def _mend(who: Candidate, bad: Sequence[_Heard], wanted: Evaluation) -> str:
    """The option that would help, by what the answers look like."""
    most = len(bad) / 2
    if wanted.profile != "direct" and sum(one.cut for one in bad) > most:
        return f"Give them more room: --max-tokens {4 * (wanted.max_tokens or prompts.BUDGET[wanted.profile])}."
    if sum("<think>" in one.text or "</think>" in one.text for one in bad) > most:
        return "They are its thinking: try --profile think."
    chat = who.subject.chat or wanted.profile in TEMPLATED
    template = wanted.engine == "server" or (who.base is not None and has_template(who.base.folder))
    if template and not chat and not who.subject.adapter:  # an adapter was trained without it
        return (
            "The model has a chat template: try --profile chat." if who.base else "Ask it in messages: --profile chat."
        )
    if sum(one.cut for one in bad) > most:
        return "They go on until their room is used up; worked examples show where to stop: --shots 5."
    if wanted.engine == "api":
        return "Try worked examples: --shots 5; or let it reason: --profile think."
    if wanted.confidence:
        return "They may state nothing but the confidence: leave --confidence out, or show how: --shots 5."
    if wanted.profile in TEMPLATED:
        return "Try --profile direct, or worked examples: --shots 5."
    if chat:
        return "Try --no-chat, or worked examples: --shots 5."
    return "Worked examples show a base model the form: --shots 5; or train an adapter on the task."
