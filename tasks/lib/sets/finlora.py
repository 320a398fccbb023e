"""FinLoRA's own test prompts, word for word, so that its adapters can be scored as they were trained.

Its labels stand as published, the wrong ones too (TFNS has positive and neutral swapped in 85 % of its rows).
"""

from collections.abc import Callable, Iterable, Iterator

from .base import Item, Record, Unit, WrongFile, parted, text_of


def prompts(
    kind: str, whole: int, marks: tuple[str, ...] = (), labels: tuple[str, ...] = ()
) -> Callable[[Iterable[Record]], Iterator[Item]]:
    """A reader of ``context`` and ``target``. The published file has ``whole`` rows.

    ``marks``: of which a prompt of the set holds one. ``labels``: what a target may be; () is anything.
    """

    def units(records: Iterable[Record]) -> Iterator[Item]:
        for number, (row, place, _) in enumerate(records):
            if number == whole:
                raise WrongFile(f"{place}: the published test has {whole:,} rows, and here are more")
            context = row.get("context")  # as it is: its trailing blank was trained on
            target = text_of(row, place, "target")
            if not isinstance(context, str) or not context.strip() or not target:
                yield f"{place}: needs a context and a target"
            elif marks and not any(mark in context for mark in marks):
                raise WrongFile(f"{place}: a prompt of this set says {' or '.join(map(repr, marks))}")
            elif labels and target not in labels:
                yield f"{place}: the target is one of {', '.join(labels)}, found {target[:40]!r}"
            else:
                made = {"id": str(number), "text": context, "target": target, "label": target}
                if kind == "entity" and (pair := _entity(context)):
                    made["group"] = pair
                yield Unit(context, target, [made], place, "test")

    return units


def _entity(context: str) -> str:
    """Which entity is asked about in which sentence: 36 paraphrases of one question are one cluster. "" if unknown."""
    question = parted(context, " '", "'", "\nOptions: ", "\nInput: ")
    return f"{question[1]} in {question[4].rpartition(chr(10) + 'Answer:')[0]}" if question else ""
