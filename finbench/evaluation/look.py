"""The first answers, before the long run: are they in the form that the task reads, and if not, what mends it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finbench.core import catalog
from finbench.core.console import err, say
from finbench.core.records import Scorecard, Subject, Task
from finbench.core.settings import Evaluation
from finbench.evaluation.scored import hear
from finbench.scoring import LENIENT, prompts, sample_rows

ROWS = 10  # documents that are answered first
_FEW = 3  # below so many nothing is said
_LONGEST = 2_000  # characters of a prompt that are shown, from its end
_ANSWER = 600
_LOUD = "WARNING:"


def first(instances: Sequence[Any]) -> list[int]:
    """Numbers of the requests of the first ``ROWS`` documents."""
    documents = list(dict.fromkeys(instance.doc_id for instance in instances))[:ROWS]
    return [number for number, instance in enumerate(instances) if instance.doc_id in set(documents)]


def told(
    task: Task, lm_task: Any, subject: Subject, asked: Sequence[tuple[Any, Any]], wanted: Evaluation, template: bool
) -> list[str]:
    """Lines for a person: ``wanted.look`` prompts with their raw answers, and a warning where most do not parse.

    ``asked``: requests of whole documents with their answers.
    """
    instances = []
    for instance, answer in asked:
        if not getattr(instance, "sample", 0):  # of several samples the first
            hear(instance, answer)
            instances.append(instance)
    choice = task.form == "choice"
    rows, values = sample_rows(lm_task, instances, choice=choice, restricted=False)
    lines = []
    by_document: dict[int, Any] = {}
    for instance in instances:
        by_document.setdefault(instance.doc_id, instance)
    short = task.name.removeprefix(catalog.PREFIX)
    for row, instance in list(zip(rows, by_document.values(), strict=True))[: wanted.look]:
        lines += _shown(f"{subject.name} on {short}, row {row['index']}", lm_task, row, instance)
    parsed = values.get("parse_rate")
    if parsed and len(parsed) >= _FEW and sum(parsed) < len(parsed) / 2:
        lines.append(_warning(task, subject, rows, wanted, template))
    return lines


def back(
    task: Task, lm_task: Any, card: Scorecard, rows: Sequence[Mapping[str, Any]], wanted: Evaluation, template: bool
) -> list[str]:
    """The same lines of what an earlier command has scored, where its card holds answers in words."""
    answers = {row["index"]: row["answer"] for row in rows[: wanted.look] if "answer" in row}
    if card.subject.chat or card.generation or not answers:
        kept = (
            "prompts were put in a chat template or another profile" if answers else "card has answers as hashes only"
        )
        anew = f"--look {wanted.look} --limit {ROWS} --out {wanted.out}-look"
        return [f"{card.subject.name} on {task.name} was scored before; its {kept}. To see some: {anew}"]
    asked = []
    for instance in prompts.requests(lm_task, max(answers) + 1):
        answer = answers.get(instance.doc_id)
        each = (answer[instance.idx], False) if isinstance(answer, list) else answer
        asked += [(instance, each)] if answer is not None else []
    return told(task, lm_task, card.subject, asked, wanted, template)


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


def _warning(
    task: Task, subject: Subject, rows: Sequence[Mapping[str, Any]], wanted: Evaluation, template: bool
) -> str:
    bad = [row for row in rows if not row["values"]["parse_rate"]]
    example = str(bad[0]["answer"])[:120]
    short = task.name.removeprefix(catalog.PREFIX)
    mend = _mend(subject, [str(row["answer"]) for row in bad], wanted, template)
    said = (
        f"{_LOUD} {subject.name} on {short}: {len(bad)} of the first {len(rows)} answers are not in the form asked for"
    )
    return f"{said}, and count as wrong; such as {example!r}. {mend} To see more: --look 3"


def _mend(subject: Subject, answers: Sequence[str], wanted: Evaluation, template: bool) -> str:
    """The option that would help, by what the answers look like."""
    if wanted.profile != "direct" and sum(not answer for answer in answers) > len(answers) / 2:
        return "The budget cut them off: try more --max-tokens."
    if sum("<think>" in answer or "</think>" in answer for answer in answers) > len(answers) / 2:
        return "They are its thinking: try --profile think."
    if template and not subject.chat and not subject.adapter:  # an adapter was trained without it
        return "The model has a chat template: try --profile chat."
    if subject.chat:
        return "Try --no-chat, or worked examples: --shots 5."
    return "Worked examples show a base model the form: --shots 5; or train an adapter on the task."


def say_all(lines: Sequence[str]) -> None:
    """To the person who waits."""
    for line in lines:
        if line.startswith(_LOUD):
            err.print(line, style="bold yellow", highlight=False, markup=False, soft_wrap=True)
        else:
            say(line)
