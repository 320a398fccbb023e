"""Other prompts of a task that mean what its own one means: ``tasks/_prompts``, each put as the task would put it.

A prompt changes what is shown of a row and what stands for its labels, never which answer is right: what is read of
an answer is told in the task's own labels, so all prompts of a task are scored by one scorer, document by document.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Template
from typing import Any

from pydantic import Field

from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, listed, unknown
from finbench.core.files import digest
from finbench.core.records import Axis, Task
from finbench.core.strict import Record

OWN = "default"  # name of the task's own prompt
FORMS = ("_all_mc", "_mc")  # ends of names of tasks that share the prompts of another form
_CUE = re.compile(r"Answers?:\Z")
_OPTION = re.compile(r"^([A-Z])\. ", re.MULTILINE)


class _Frame(Record):
    """A prompt of like tasks, with slots for what is the task's own."""

    text: str | None = Field(default=None, description="Jinja of a row, after the $slots are filled")
    before: str = Field(default="", description="what precedes the task's own prompt, where there is no text")
    about: list[Axis]
    order: str | None = Field(default=None, pattern="^reversed$")
    twin: str | None = None
    words: bool = False


@dataclass(frozen=True)
class Wording:
    """A prompt of one task. ``text``: Jinja of a row; without it the task's own, after ``before``.

    ``backward``: labels or options are listed in reverse. ``twin``: the prompt that differs in their order alone.
    ``words``: what stands for the labels, where others do.
    """

    name: str
    version: int
    about: tuple[Axis, ...]
    text: str | None = None
    before: str = ""
    backward: bool = False
    twin: str | None = None
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of all that decides what is shown, beside the task's own definition."""
        return digest([self.text, self.before, self.backward, dict(self.words)])


@functools.cache
def _stated() -> Mapping[str, Any]:
    return catalog.read_yaml(paths.shipped("tasks") / "_prompts")


def of(task: Task) -> list[Wording]:
    """The prompts of a task, its own first; that alone where it has no others."""
    own = Wording(OWN, task.version, ())
    short, stated = task.name.removeprefix(catalog.PREFIX), _stated()
    names = [short, *(short.removesuffix(end) for end in FORMS)]
    slots = next((stated["tasks"][name] for name in names if name in stated["tasks"] and not task.own), None)
    if slots is None:
        return [own]
    found = [own]
    filled = {**stated["slots"], **slots}
    labels, words = filled.pop("labels", task.labels or []), filled.pop("words", {})
    own_text = catalog.merged(catalog.file_of(task.name))["doc_to_text"]
    filled["own"] = _CUE.sub("", own_text) if isinstance(own_text, str) else ""
    for name, entry in stated["frames"][filled.pop("frame")].items():
        frame = _Frame.parse(entry, f"tasks/_prompts: {name}")
        said = words if frame.words else {}
        shown = [said.get(label, label) for label in labels][:: -1 if frame.order else 1]
        filled["listed"], filled["labels"] = ", ".join(shown), listed(shown, "or")
        # a slot may hold slots
        text = frame.text and Template(Template(frame.text).safe_substitute(filled)).safe_substitute(filled)
        found.append(
            Wording(
                name, stated["version"], tuple(frame.about), text, frame.before, bool(frame.order), frame.twin, said
            )
        )
    return found


def left_alone(tasks: Sequence[Task], stated: str | None) -> list[str]:
    """Of tasks asked together, those without other prompts, which are then asked by their own: short names.

    FinbenchError, before anything is asked, for what ``chosen`` refuses, and where no task has other prompts.
    """
    if stated is None:
        return []
    short = [task.name.removeprefix(catalog.PREFIX) for task in tasks if len(of(task)) == 1]
    for task in tasks:
        if len(of(task)) > 1 or len(short) == len(tasks):
            chosen(task, stated)
    return short


def check_known(tasks: Sequence[Task], stated: str) -> None:
    """Refuse ``--prompts`` that ``left_alone`` refuses; without tasks (an adapter names them), what no task has."""
    if tasks:
        left_alone(tasks, stated)
        return
    known = {one.name for task in catalog.tasks().values() for one in of(task)}
    for name in _named(stated):
        if not (name == "all" or name.isdecimal() or name in known):
            raise unknown("prompt", name, known, "finbench tasks show fpb")


def _named(stated: str) -> list[str]:
    return [name.strip() for name in stated.split(",") if name.strip()]


def chosen(task: Task, stated: str) -> list[Wording]:
    """The prompts that ``--prompts`` names: ``all``, how many, or names by comma; the task's own is always the first.

    FinbenchError for a name or number that the task does not have, and for a task that has no other prompts.
    """
    known, short = of(task), task.name.removeprefix(catalog.PREFIX)
    if len(known) == 1:
        raise FinbenchError(
            f"{short} has its own prompt alone.", "Leave --prompts out, or name other tasks: finbench tasks list"
        )
    if stated == "all":
        return known
    if stated.isdecimal():
        if not 2 <= int(stated) <= len(known):
            raise FinbenchError(
                f"--prompts {stated}: {short} has {len(known)} prompts.",
                f"Say 2 to {len(known)}, or all: --prompts {min(8, len(known))}",
            )
        return known[: int(stated)]
    names = _named(stated)
    by_name = {one.name: one for one in known}
    for name in names:
        if name not in by_name:
            raise unknown("prompt", name, by_name, f"finbench tasks show {short}")
    if not {*names} - {OWN}:
        raise FinbenchError(f"--prompts {stated!r} names no prompt beside the task's own.", "Say all, or 8.")
    return [one for one in known if one.name == OWN or one.name in names]


def put(lm_task: Any, wording: Wording) -> Any:
    """lm-eval's task object, asking by another prompt; for the task's own that very object."""
    if wording.name == OWN:
        return lm_task
    found = copy.copy(lm_task)
    found.__class__ = _asking(lm_task.__class__)
    found.finbench_wording = wording
    return found


def start(lm_task: Any) -> str:
    """What precedes the row in a prompt: requests that share it are run together."""
    wording, own = getattr(lm_task, "finbench_wording", None), lm_task.config.doc_to_text
    text = wording.text if wording and wording.text else own if isinstance(own, str) else ""
    return (wording.before if wording else "") + text.partition("{")[0]


def told_apart(requests: Sequence[Any], lm_task: Any) -> None:
    """Mark requests by one of several prompts for engines: what is run together, and who knows the right answer."""
    for one in requests:
        one.start, one.lm_task = start(lm_task), lm_task


def labels_of(lm_task: Any, doc: Mapping[str, Any]) -> list[Any]:
    """What stands for the labels, or choices, of a row in the prompt that ``lm_task`` asks by."""
    wording = getattr(lm_task, "finbench_wording", None)
    words = words_of(wording, doc) if wording else {}
    return [words.get(label, label) for label in doc.get("choices") or ()]


def read_back(value: Any, words: Mapping[str, str]) -> Any:
    """A scorer's value with each word that stands for a label turned into that label."""
    if isinstance(value, str):
        return words.get(value, value)
    if isinstance(value, list | tuple):
        return type(value)(read_back(part, words) for part in value)
    return value


def _options(doc: Mapping[str, Any]) -> int:
    """How many lettered options a row has; 0 where it has none."""
    return len(_OPTION.findall(doc["options"])) if "options" in doc else 0


def words_of(wording: Wording, doc: Mapping[str, Any], letters: Sequence[str] = ()) -> dict[str, str]:
    """Label -> what stands for it in this prompt of this row; empty where each stands for itself.

    Of options that are shown in reverse another letter is each one's own. ``letters``: those of a row without labels.
    """
    if wording.backward and (count := _options(doc)):
        letters = list(doc["choices"])[:count]
    return dict(zip(letters, reversed(letters), strict=True)) if wording.backward and letters else dict(wording.words)


def ends_of_list(wording: Wording, doc: Mapping[str, Any], labels: Sequence[str]) -> tuple[str, str]:
    """The labels, in the task's own words, that the prompt lists first and last."""
    listed = list(labels)[: _options(doc) or len(labels)][:: -1 if wording.backward else 1]
    return listed[0], listed[-1]


def _shown(wording: Wording, doc: Mapping[str, Any]) -> dict[str, Any]:
    """The row as the prompt lists its options and choices."""
    found = dict(doc)
    if wording.backward and _options(doc):
        parts = re.split(r"^[A-Z]\. ", doc["options"], flags=re.MULTILINE)[1:]
        turned = [part.rstrip("\n") for part in reversed(parts)]
        found["options"] = "\n".join(f"{letter}. {part}" for letter, part in zip(doc["choices"], turned, strict=False))
    elif wording.backward and "choices" in doc:
        found["choices"] = list(reversed(doc["choices"]))
    return found


@functools.cache
def _asking(kind: type) -> type:
    """lm-eval's class of a task, asking by the ``finbench_wording`` of its object."""
    from lm_eval.utils import env

    class Asking(kind):
        def doc_to_text(self, doc: Any, doc_to_text: Any = None) -> Any:
            wording = self.finbench_wording
            if wording.text is None:
                own = super().doc_to_text(doc, doc_to_text)
                return own if isinstance(own, int) else wording.before + own
            return str(env.from_string(wording.text).render(**_shown(wording, doc)))

        def doc_to_choice(self, doc: Any, doc_to_choice: Any = None) -> Any:
            found = super().doc_to_choice(doc, doc_to_choice)
            if self.multiple_input:
                return [self.finbench_wording.before + context for context in found]
            words = words_of(self.finbench_wording, doc, self._letters())
            return [words.get(choice, choice) for choice in found]

        def doc_to_target(self, doc: Any, doc_to_target: Any = None) -> Any:
            found = super().doc_to_target(doc, doc_to_target)
            return words_of(self.finbench_wording, doc).get(found, found) if isinstance(found, str) else found

        def process_results(self, doc: Any, results: Any) -> Any:
            words = words_of(self.finbench_wording, doc)
            if not words or self.OUTPUT_TYPE != "generate_until":  # choices are scored by their place
                return super().process_results(doc, results)
            label = words.get(doc["label"], doc["label"])
            named = {**doc, "label": label, "choices": labels_of(self, doc)}
            found = super().process_results(named, results)
            back = {word: label for label, word in words.items()}
            return {name: read_back(value, back) for name, value in found.items()}

        def finbench_labels(self, doc: Any) -> list[str]:
            return labels_of(self, doc)

        def _letters(self) -> list[str]:
            """The letters of options that stand in ``choices``: a task states them once for all rows."""
            stated = self.config.doc_to_choice
            return stated if isinstance(stated, list) else []

    return Asking
