"""Documents and prompts as crossed random effects: how far a mean would move with others of both. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

from finbench.scoring.stats import Counts


@dataclass(frozen=True)
class Crossed:
    """Components of the variance of a table of one value for each prompt and document.

    ``error``: standard error of the mean of all, for other documents and other prompts; ``df``: its degrees of freedom.
    """

    mean: float
    document: float
    prompt: float
    rest: float
    error: float
    df: float

    @property
    def share(self) -> dict[str, float]:
        """Of the sum of the components; all 0 where nothing varies."""
        whole = self.document + self.prompt + self.rest
        parts = {"document": self.document, "prompt": self.prompt, "rest": self.rest}
        return {name: part / whole if whole else 0.0 for name, part in parts.items()}


def crossed(table: Counts) -> Crossed:
    """The two-way random-effects model of a table (prompts, documents), by analysis of variance.

    Two prompts and two documents at least. A component that comes out below 0 counts as 0. The error has the degrees
    of freedom of Satterthwaite (1946) for the sum of mean squares that it is.
    """
    prompts, documents = table.shape
    mean = float(table.mean())
    rows, columns = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    by_prompt = documents * float((rows**2).sum()) / (prompts - 1)
    by_document = prompts * float((columns**2).sum()) / (documents - 1)
    left = table - mean - rows[:, None] - columns[None, :]
    rest = float((left**2).sum()) / ((prompts - 1) * (documents - 1))
    document, prompt = max(0.0, by_document - rest) / prompts, max(0.0, by_prompt - rest) / documents
    squared = document / documents + prompt / prompts + rest / (prompts * documents)
    squares = (
        (by_prompt if prompt else 0.0, prompts - 1),
        (by_document if document else 0.0, documents - 1),
        (rest, (prompts - 1) * (documents - 1)),
    )
    spread = sum((square / (prompts * documents)) ** 2 / df for square, df in squares)
    return Crossed(mean, document, prompt, rest, squared**0.5, squared**2 / spread if spread else 1.0)
