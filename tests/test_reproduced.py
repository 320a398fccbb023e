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
    assert said.endswith(": the processor may be of another kind, nothing else that is recorded differs.")
    rows = [data.model_copy(update={"digest": "1" * 64}) for data in other.data]
    training = other.training.model_copy(update={"rows": 9_999})
    said = reproduced.compared(changed(other, data=rows, training=training))
    assert said is not None
    assert said.startswith("Learnt from other rows")
    assert said.endswith(f": 9,999 here, {record.training.rows:,} there.")


def test_only_what_differs_is_said() -> None:
    record = WHOLE[0]
    there = record.provenance
    where = there.model_copy(
        update={
            "packages": {**there.packages, "torch": "9.9"},
            "hardware": {**there.hardware, "gpu": "NVIDIA H100", "cores": 8},
        }
    )
    base = record.base.model_copy(update={"fingerprint": "f" * 64})
    files = {**record.files, reproduced.WEIGHTS: "0" * 64}
    said = reproduced.compared(changed(record, files=files, provenance=where, base=base))
    assert said is not None
    assert said.partition("): ")[2] == (
        f"base {record.base.fingerprint[:24]} there, {'f' * 24} here; hardware {there.hardware['cpu']} there, "
        f"NVIDIA H100 here; threads (OMP_NUM_THREADS) {there.hardware['cores']} there, 8 here; "
        f"torch {there.packages['torch']} there, 9.9 here."
    )


def test_a_recipe_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    files = catalog.recipe_files()
    monkeypatch.setattr(catalog, "recipe_files", lambda: {n: p for n, p in files.items() if not n.endswith("-whole")})
    assert reproduced.compared(WHOLE[0]) is None


def test_of_another_recipe_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    record = WHOLE[0]
    for own in ({"seed": 1}, {"lr": 0.01}, {"limit": 7}):
        other = changed(record, recipe=record.recipe.model_copy(update=own))
        assert reproduced.compared(other) is None
    trainings.trained(record, Path("runs/x"), record.recipe.base)
    assert "the very weights of docs/results.md" in capsys.readouterr().out
    trainings.trained(other, Path("runs/x"), record.recipe.base)
    assert "docs/results.md" not in capsys.readouterr().out
