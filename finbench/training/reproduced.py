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
    learnt: int = Field(description="how many rows")
    scores: dict[str, float] = Field(description="by task the main metric on its test rows, in points")
    where: dict[str, str] = Field(description="what else decides the last bits: hardware, threads, versions")


def trained() -> dict[str, Reproducible]:
    """By recipe of the zoo what it gave, for those that were measured."""
    path = paths.shipped("adapters_zoo") / catalog.TRAINED
    return {name: Reproducible.parse(stated, f"{path}: {name}") for name, stated in catalog.read_yaml(path).items()}


def entry(adapter: Adapter) -> Reproducible:
    """What ``trained.yaml`` says of this training, but for its scores."""
    hardware, packages = adapter.provenance.hardware, adapter.provenance.packages
    where = {
        "base": adapter.base.fingerprint,
        "hardware": hardware.get("gpu", hardware["cpu"]),
        "threads (OMP_NUM_THREADS)": hardware["cores"],
        "processes": adapter.training.processes,
        **{name: packages[name] for name in ("torch", "transformers", "peft")},
    }
    return Reproducible(
        weights=adapter.files[WEIGHTS],
        rows=[data.digest for data in adapter.data],
        learnt=adapter.training.rows,
        scores={},
        where={name: str(value) for name, value in where.items()},
    )


def compared(adapter: Adapter) -> str | None:
    """A sentence on ``adapter`` beside the one that the same recipe gave before; None for recipes of one's own."""
    files = catalog.recipe_files()
    same = (one for name, one in trained().items() if name in files and _same(recipes.recipe(name), adapter.recipe))
    known = next(same, None)
    if known is None or WEIGHTS not in adapter.files:
        return None
    scores = ", ".join(f"{task} {value:.1f}" for task, value in known.scores.items())
    if adapter.files[WEIGHTS] == known.weights:
        return f"These are the very weights of docs/results.md, bit for bit: {scores}."
    own = entry(adapter)
    if own.rows != known.rows:
        return (
            f"Learnt from other rows than the adapter of docs/results.md ({scores}): "
            f"{own.learnt:,} here, {known.learnt:,} there."
        )
    heads = {"base": 24}  # a digest is known by its head; a processor is not
    differ = [
        f"{name} {value[: heads.get(name)]} there, {own.where.get(name, '?')[: heads.get(name)]} here"
        for name, value in known.where.items()
        if own.where.get(name) != value
    ]
    why = "; ".join(differ) or "the processor may be of another kind, nothing else that is recorded differs"
    return f"Not bit for bit the weights of docs/results.md ({scores}): {why}."


def _same(one: Recipe, other: Recipe) -> bool:
    return one.model_dump(exclude=_FREE) == other.model_dump(exclude=_FREE)
