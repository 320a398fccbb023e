"""``finbench data check``: what would be learnt of rows of the user's own, before anything is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.core.records import Contamination, Recipe
from finbench.data import contamination, own
from finbench.models import bases
from finbench.training import own_rows
from finbench.training.encoding import RowEncoder
from finbench.training.own_rows import Learnt
from finbench.training.token_rows import TokenWriter

_BARS = 8  # of the histogram, about
SHOWN = 3  # rows as text


@dataclass(frozen=True)
class CheckedData:
    """One source. ``fault``: why training would refuse it as the recipe is; None where it would not."""

    made: Learnt
    recipe: Recipe
    base: str
    longest: int  # tokens that a row may have
    end: str  # the tokenizer's end-of-text
    contamination: Contamination
    fault: FinbenchError | None

    @property
    def histogram(self) -> list[tuple[int, int, int]]:
        """(fewest tokens, most tokens, rows) of each bar; where lengths differ much, each is twice the last."""
        lengths = np.array(self.made.lengths)
        if not len(lengths):
            return []
        least, most = int(lengths.min()), int(lengths.max())
        if most > _BARS * least:
            edges = [2**k for k in range(int(least).bit_length() - 1, int(most).bit_length() + 1)]
        else:
            width = next(w for w in _widths() if (most - least) / w <= _BARS)
            edges = list(range(least // width * width, most + width + 1, width))
        counts = np.histogram(lengths, bins=[*edges])[0].tolist()
        return [(first, last - 1, count) for first, last, count in zip(edges, edges[1:], counts, strict=False)]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        made, found = self.made, self.made.survey
        lengths = np.array(made.lengths)
        shares = (50, 90, 99, 100)
        tokens = {f"p{share}": int(np.percentile(lengths, share)) for share in shares} if len(lengths) else {}
        return {
            "source": found.name,
            "sha256": found.located.sha256,
            "formats": {name: known.shape.said for name, known in found.formats.items()},
            "columns": {name: known.of for name, known in found.formats.items()},
            "read": found.read,
            "rows": made.rows,
            "dropped": made.dropped(self.recipe),
            "faults": [*found.faults, *made.faults],
            "warnings": found.warnings(),
            "answers": found.labels,
            "tokens": {**tokens, "all": int(lengths.sum()), "learnt": made.answers, "allowed": self.longest},
            "histogram": self.histogram,
            "shown": [
                {"place": place, "text": one.text, "answers": one.spans, "closed": one.closed}
                for one, place in made.shown
            ],
            "contamination": self.contamination.model_dump(),
            "refused": self.fault.message if self.fault else None,
        }


def check_data(recipe: Recipe, data_dir: Path | None = None) -> list[CheckedData]:
    """What training ``recipe`` would learn of each of its own sources. Loads no weights, and trains nothing.

    Raises FinbenchError for files that cannot be read or have no format that is known.
    """
    quiet()
    base = bases.resolve(recipe.base)
    tokenizer = bases.load_tokenizer(base)
    template = own_rows.template_of(tokenizer, recipe)
    longest = min(recipe.max_length, bases.context_length(base) or recipe.max_length)
    index, encoder, found = contamination.Index(contamination.of_tests(data_dir)), RowEncoder(tokenizer), []
    for part, seen in zip(recipe.data, own.surveys(map(own.locate, recipe.data)), strict=True):
        own_rows.check_template(seen, template, tokenizer, recipe)
        renderer = own_rows.Renderer.of(tokenizer, template, part.delimiter, recipe.base)
        writer = TokenWriter(len(tokenizer))
        made = own_rows.learn(seen, recipe, encoder, renderer, longest, writer, index=index, show=SHOWN)
        fault = None
        try:
            if recipe.bad_rows == "refuse":
                seen.refuse()
            own_rows.settle(made, recipe, longest)
        except FinbenchError as why:
            fault = why
        texts = index.counted(made.texts)
        found.append(CheckedData(made, recipe, base.id.alias, longest, tokenizer.eos_token, texts, fault))
    return found


def _widths() -> Any:
    size = 1
    while True:
        yield from (size, 2 * size, 5 * size)
        size *= 10
