"""Trained again from the zoo: the very weights, or what differs. On the records of the trainings that made its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finbench.cli.show import trainings
from finbench.core import catalog
from finbench.core.records import Adapter
from finbench.training import recipes, reproduced

KEPT = Path(__file__).parent.parent / "benchmarks" / "flagship"
RECORDS = [
    Adapter.parse(json.loads(path.read_text(encoding="utf-8"))["record"], path.name)
    for path in sorted(KEPT.glob("adapters/*.json"))
]
WHOLE = [record for record in RECORDS if record.recipe.seed == 0]


def changed(record: Adapter, **values: object) -> Adapter:
    return record.model_copy(update=values)


def test_every_entry_is_a_recipe_that_was_trained_and_scored() -> None:
    known = reproduced.trained()
    assert len(known) == len(WHOLE) > 0
    assert {one.weights for one in known.values()} == {record.files[reproduced.WEIGHTS] for record in WHOLE}
    for name, one in known.items():
        assert one.scores.keys() == recipes.recipe(name).learnt.keys()
    assert {name for name in catalog.recipe_files() if name.endswith("-whole")} == known.keys()


@pytest.mark.parametrize("record", WHOLE, ids=lambda record: record.recipe.name)
def test_the_same_weights_are_told_from_others_and_it_says_what_differs(record: Adapter) -> None:
    said = reproduced.compared(record)
    assert said is not None
    assert "bit for bit: " in said
    other = changed(record, files={**record.files, reproduced.WEIGHTS: "0" * 64})
    said = reproduced.compared(other)
    assert said is not None
    assert said.startswith("Not bit for bit")
    assert f"torch {record.provenance.packages['torch']}" in said
    rows = [data.model_copy(update={"digest": "1" * 64}) for data in other.data]
    said = reproduced.compared(changed(other, data=rows))
    assert said is not None
    assert said.startswith("Learnt from other rows")


def test_of_another_recipe_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    record = WHOLE[0]
    for own in ({"seed": 1}, {"lr": 0.01}, {"limit": 7}):
        other = changed(record, recipe=record.recipe.model_copy(update=own))
        assert reproduced.compared(other) is None
    trainings.trained(record, Path("runs/x"), record.recipe.base)
    assert "the very weights of docs/results.md" in capsys.readouterr().out
    trainings.trained(other, Path("runs/x"), record.recipe.base)
    assert "docs/results.md" not in capsys.readouterr().out
