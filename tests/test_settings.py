"""Options that several commands share: declared once, the same on the command line, in Python and in YAML."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import finbench
from finbench.cli.app import app
from finbench.core.errors import FinbenchError
from finbench.core.settings import Evaluation, Settings
from finbench.grid import sweepfile
from finbench.grid.steps import Schedule
from finbench.training import recipes

SHARED = {"base", "task", "method", "bits", "rank", "lr", "epochs", "seed", "limit"}


def options(command: str) -> dict[str, Any]:
    """The options and arguments of a command, by name, as a person sees them."""
    found: Any = typer.main.get_command(app)
    return {one.name: one for one in found.commands[command].params}


@pytest.mark.parametrize("command", ["train", "plan", "tune"])
def test_commands_about_a_recipe_have_the_same_options(command: str) -> None:
    known, train = options(command), options("train")
    assert {"recipe", "set", *SHARED} <= set(known)
    assert all(known[name].help == train[name].help for name in SHARED)
    assert set(recipes.keyed(dict.fromkeys(SHARED))) <= set(recipes.Recipe.model_fields)


def test_an_axis_of_a_sweep_is_called_as_the_option(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    common = {"base": "smollm2-135m", "method": "lora", "bits": 16, "rank": 4, "lr": 1e-3, "epochs": 1, "limit": 8}
    path.write_text(yaml.safe_dump({"name": "s", "axes": {"task": ["mini_ner"], "seed": [3]}, "common": common}))
    [cell] = sweepfile.cells(sweepfile.read(path))
    stated = recipes.recipe(None, {**common, "task": "mini_ner", "seed": 3})
    assert cell.recipe.model_dump(exclude={"name"}) == stated.model_dump(exclude={"name"})


def test_eval_is_told_what_evaluate_is_told() -> None:
    payload = {one.name for one in fields(Evaluation)}
    beside = {"as_json", "include_path", "trust_task_code"}  # of every command that takes tasks
    assert set(options("eval")) - beside == payload - {"reports"}
    assert set(inspect.signature(finbench.evaluate).parameters) == payload
    assert {one.name for one in fields(Settings)} <= {one.name for one in fields(sweepfile.CellSettings)}


def test_a_bracket_in_a_help_text_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        app(["eval", "--help"])
    assert "hub:org/name[@rev] or zoo:name" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"taks": ["fpb"]}, "evaluate: unknown key 'taks' (did you mean tasks"),
        ({"limit": 0}, "evaluate: limit must be at least 1, got 0"),
        ({"shots": -1}, "evaluate: shots must be at least 0, got -1"),
        ({"bits": 5}, "evaluate: bits: Input should be 16, 8 or 4, got 5"),
        ({"limit": "many", "seed": None}, "got 'many'; seed: Input should be a valid integer, got None"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_starts(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(FinbenchError) as caught:
        finbench.evaluate("./nowhere", **stated)
    assert message in str(caught.value)


def test_what_is_stated_twice_or_has_no_place_is_refused() -> None:
    with pytest.raises(TypeError, match="multiple values for argument 'adapter'"):
        finbench.evaluate("./a", adapter="./b")
    with pytest.raises(TypeError, match="too many positional arguments"):
        finbench.evaluate("./a", "./b")


def test_one_name_needs_no_list(tmp_path: Path) -> None:
    [card] = finbench.evaluate(
        engine="dummy", tasks="mini_sentiment, mini_ner", limit=2, out=str(tmp_path), arguments={"batch_size": 4}
    )
    assert {score.task for score in card.scores} == {"finbench_mini_sentiment", "finbench_mini_ner"}
    assert card.arguments == {"batch_size": 4}
    with pytest.raises(FinbenchError, match="No such adapter folder"):
        finbench.evaluate("./nowhere", tasks=["mini"], out=tmp_path)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"shotz": 1}, "unknown key 'eval.shotz' (did you mean shots?)"),
        ({"limit": 0}, "eval: limit must be at least 1, got 0"),
        ({"needs": {"cpu": 1}}, "unknown key 'eval.needs.cpu' (did you mean cpus"),
    ],
)
def test_the_evaluation_of_a_sweep_is_checked_alike(stated: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "axes": {"seed": [0]}, "eval": stated}))
    with pytest.raises(FinbenchError) as caught:
        sweepfile.read(path)
    assert message in str(caught.value)


def test_a_sweep_may_state_what_eval_may(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    stated = {"tasks": "fpb", "chat": True, "seed": 4, "metadata": {"agreement": "75"}}
    path.write_text(yaml.safe_dump({"name": "s", "axes": {"task": ["mini_sentiment"]}, "eval": stated}))
    sweep = sweepfile.read(path)
    [last] = Schedule(sweep, sweepfile.cells(sweep), {}).score_of.values()
    assert last.payload["tasks"] == ["finbench_fpb"]
    assert last.payload["how"] == {
        "engine": "auto", "limit": None, "shots": 0, "bits": 16, "arguments": {},
        "chat": True, "seed": 4, "metadata": {"agreement": "75"},
    }  # fmt: skip
