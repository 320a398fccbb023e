"""Whether a training gave the very weights that the zoo's recipe gave where its score was measured."""

from __future__ import annotations

from pydantic import Field

from finbench.core import catalog, paths
from finbench.core.records import Adapter, Recipe
from finbench.core.strict import Record
from finbench.training import recipes

WEIGHTS = "adapter_model.safetensors"
_FREE = {"name", "search", "loop", "pass_tokens"}  # of a recipe: what decides no more than the last bits


class Reproducible(Record):
    """An entry of ``trained.yaml``: what a recipe of the zoo gave. The weights themselves lie nowhere."""

    weights: str = Field(description=f"SHA-256 of {WEIGHTS}")
    rows: list[str] = Field(description="digests of the rows it learnt, in the order of the recipe's tasks")
    scores: dict[str, float] = Field(description="by task the main metric on its test rows, in points")
    cpu: str
    threads: int
    torch: str


def trained() -> dict[str, Reproducible]:
    """By recipe of the zoo what it gave, for those that were measured."""
    path = paths.shipped("adapters_zoo") / catalog.TRAINED
    return {name: Reproducible.parse(stated, f"{path}: {name}") for name, stated in catalog.read_yaml(path).items()}


def entry(adapter: Adapter) -> Reproducible:
    """What ``trained.yaml`` says of this training, but for its scores."""
    where = adapter.provenance
    return Reproducible(
        weights=adapter.files[WEIGHTS],
        rows=[data.digest for data in adapter.data],
        scores={},
        cpu=str(where.hardware["cpu"]),
        threads=int(where.hardware["cores"]),
        torch=where.packages["torch"],
    )


def compared(adapter: Adapter) -> str | None:
    """A sentence on ``adapter`` beside the one that the same recipe gave before; None for recipes of one's own."""
    known = next((one for name, one in trained().items() if _same(recipes.recipe(name), adapter.recipe)), None)
    if known is None or WEIGHTS not in adapter.files:
        return None
    scores = ", ".join(f"{task} {value:.1f}" for task, value in known.scores.items())
    if adapter.files[WEIGHTS] == known.weights:
        return f"These are the very weights of docs/results.md, bit for bit: {scores}."
    own = entry(adapter)
    if own.rows != known.rows:
        return f"Learnt from other rows than the adapter of docs/results.md ({scores})."
    there = f"{known.cpu}, torch {known.torch}, threads {known.threads} (OMP_NUM_THREADS)"
    return f"Not bit for bit the weights of docs/results.md ({scores}), which were trained on {there}."


def _same(one: Recipe, other: Recipe) -> bool:
    return one.model_dump(exclude=_FREE) == other.model_dump(exclude=_FREE)
