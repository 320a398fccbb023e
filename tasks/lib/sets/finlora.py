"""FinLoRA's own test prompts, word for word, so that its adapters can be scored as they were trained.

Its labels stand as published, the wrong ones too (TFNS has positive and neutral swapped in 85 % of its rows).
"""

import re
from collections.abc import Callable, Iterable, Iterator

from .base import Item, Record, Unit, text_of

_ENTITY = re.compile(r" '(?P<entity>.*?)'.*?\nOptions: .*?\nInput: (?P<sentence>.*)\nAnswer:\s*", re.DOTALL)


def prompts(kind: str, labels: tuple[str, ...] = ()) -> Callable[[Iterable[Record]], Iterator[Item]]:
    """A reader of ``context`` and ``target``. ``labels``: what a target may be; () is anything."""

    def units(records: Iterable[Record]) -> Iterator[Item]:
        for number, (row, place, _) in enumerate(records):
            context = row.get("context")  # as it is: its trailing blank was trained on
            target = text_of(row, place, "target")
            if not isinstance(context, str) or not context.strip() or not target:
                yield f"{place}: needs a context and a target"
            elif labels and target not in labels:
                yield f"{place}: the target is one of {', '.join(labels)}, found {target[:40]!r}"
            else:
                made = {"id": str(number), "text": context, "target": target, "label": target}
                if kind == "entity" and (match := _ENTITY.search(context)):
                    made["group"] = f"{match['entity']} in {match['sentence']}"
                yield Unit(context, target, [made], place, "test")

    return units
