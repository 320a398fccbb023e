"""Activation checkpointing: the same bits, less memory, on where a card would not hold a training without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_launch import SMALL, curve, stopped_after_a_checkpoint
from test_loops import OPTIONS, gradients, moved, recipe, single
from test_training import recipe as whole_recipe

from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.methods import METHODS, TUNERS, method_named
from finbench.models import bases
from finbench.training import counting, loops, machines, packing, planning, runner, shapes, speedups


def assert_the_same_bits(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert one[1]
    for name, tensor in other[1].items():
        assert torch.equal(one[1][name], tensor), name


def both(run: runner.Prepared, model: Any, loop: str, folder: Path, **cut: Any) -> tuple[Any, Any, list[Any]]:
    """(without, with checkpointing) loss and gradients of a step, from the same random numbers; their states after."""
    found, after = [], []
    for checkpointed in (False, True):
        torch.manual_seed(5)
        found.append(gradients(run, model, loop, run.rows[:8], folder, checkpointed=checkpointed, **cut))
        after.append(torch.get_rng_state())
    return (*found, after)


@pytest.mark.parametrize("method", [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in TUNERS)])
def test_gradients_of_every_method_are_the_same_bits(method: str, wide: Path, tmp_path: Path) -> None:
    bits = method_named(method).bits[0]
    run = runner.prepare(recipe(wide, method=method, bits=bits, options=OPTIONS.get(method, {})))
    model = moved(runner.begin(run, torch.float32)[0])
    for loop in ("padded", "packed", *(["shared"] if run.passes.loop == "shared" else [])):
        without, checkpointed, _ = both(run, model, loop, tmp_path, tokens=300)
        assert_the_same_bits(checkpointed, without)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_bases_and_half_precision_too(bits: int, wide: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        run = runner.prepare(recipe(wide, bits=bits, dtype=dtype))
        model = moved(runner.begin(run, run.dtype)[0])
        without, checkpointed, _ = both(run, model, "shared", tmp_path, tokens=300)
        assert_the_same_bits(checkpointed, without)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_dropout_of_adapter_and_base_draws_the_same_numbers(
    base: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Layers that are run again draw what they drew, and what is drawn after the step is what would have been."""
    run, model, _ = single(request.getfixturevalue(base), dropout=0.3)
    for loop in ("padded", "packed"):
        without, checkpointed, after = both(run, model, loop, tmp_path, tokens=300)
        assert_the_same_bits(checkpointed, without)
        assert torch.equal(*after)
        seeded = loops.dataclasses.replace(run, recipe=run.recipe.model_copy(update={"seed": 6}))
        assert gradients(seeded, model, loop, run.rows[:8], tmp_path)[0] != without[0]  # it does draw


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["padded", "shared"])
def test_compiled_layers_are_run_again_compiled(loop: str, llama: Path, tmp_path: Path) -> None:
    """Within a compiled layer, the compiler would leave all of it alone: the bits would be those of eager layers."""
    run, model, _ = single(llama)
    without, checkpointed, _ = both(run, model, loop, tmp_path, tokens=300, compiled=True)
    assert_the_same_bits(checkpointed, without)
    eager = gradients(run, model, loop, run.rows[:8], tmp_path, tokens=300)
    assert any(not torch.equal(eager[1][name], tensor) for name, tensor in checkpointed[1].items())


# ---------------------------------------------------------------- memory


@contextlib.contextmanager
def keeping(model: Any) -> Iterator[dict[int, int]]:
    """Bytes by storage that autograd is given to keep inside, weights left out."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    held: dict[int, int] = {}
    alive = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # a number that is free again would count once for two
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield held


def kept(run: runner.Prepared, model: Any, loop: str, checkpointed: bool) -> int:
    passes = loops.dataclasses.replace(run.passes, loop=loop, checkpointed=checkpointed)
    made = passes.prepare(run.rows[:8], "cpu")
    model.train()
    with passes.at_work(model), loops.attending(made), keeping(model) as held:
        found, _ = loops.logits(model, made)
    assert found.requires_grad
    return sum(held.values())


@pytest.mark.parametrize("loop", ["padded", "packed", "shared"])
def test_what_is_kept_is_what_layers_are_given(loop: str, tmp_path: Path, llama: Path) -> None:
    from conftest import make_llama

    bytes_of = {}
    for depth in (2, 6):
        run = runner.prepare(recipe(make_llama(tmp_path / str(depth), layers=depth)))
        model = runner.begin(run, torch.float32)[0]
        bytes_of[depth] = [kept(run, model, loop, checkpointed) for checkpointed in (False, True)]
    whole, again = ((bytes_of[6][i] - bytes_of[2][i]) / 4 for i in (0, 1))  # of one layer
    positions = run.passes.prepare(run.rows[:8], "cpu")
    made = positions.ids if isinstance(positions, packing.Packed) else positions["input_ids"]
    if loop == run.passes.loop:
        assert again == made.numel() * 64 * 4  # (tokens, hidden) in float32
    assert whole > 12 * again


def test_the_plan_counts_what_is_kept(llama: Path) -> None:
    run = runner.prepare(recipe(llama, dtype="bfloat16"))
    counted = counting.counted(bases.skeleton(run.base), run.recipe, run.rows[:8], on_cpu=True)
    model = runner.begin(run, torch.bfloat16)[0]
    for tensor in model.parameters():
        tensor.data = tensor.data.to(torch.bfloat16)
    given, whole = (kept(run, model, "shared", checkpointed) for checkpointed in (True, False))
    layer = (whole - given) / 2  # less what it is given
    assert counted.kept == pytest.approx(whole, rel=0.15)
    assert counted.checkpointed == pytest.approx(given + layer, rel=0.15)


# ---------------------------------------------------------------- when it is on


def test_auto_is_on_where_the_machine_would_not_hold_it(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = recipe(llama)
    found = planning._asked(runner.prepare(chosen), chosen, "cpu", None)
    assert found.least < found.activations
    between = found.total / planning.GIB + 1.2 - 1e-5
    whole = runner.train(chosen, tmp_path / "whole")
    assert isinstance(whole, Adapter)
    assert not whole.training.gradient_checkpointing
    monkeypatch.setattr(machines, "here", lambda: ("cpu", machines.Card(between, 0, 0, context=1.2)))
    outline = runner.train(chosen, tmp_path / "outline", dry_run=True)
    assert isinstance(outline, dict)
    assert outline["gradient_checkpointing"] is True
    again = runner.train(chosen, tmp_path / "again")
    assert "Activation checkpointing is on: by plan" in capsys.readouterr().err
    assert isinstance(again, Adapter)
    assert again.training.gradient_checkpointing
    assert curve(again) == curve(whole)
    assert again.files == whole.files  # the same bits
    off = runner.train(recipe(llama, gradient_checkpointing=False), tmp_path / "again")  # the adapter is the same
    assert off == again


def test_a_plan_chooses_it_or_names_it(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shapes.SHAPES, "deep", (2048, 5632, 24, 16, 8, 600))
    without = planning.plan(recipe(llama, gradient_checkpointing=False), "h100", shape="deep")
    checkpointed = planning.plan(recipe(llama, gradient_checkpointing=True), "h100", shape="deep")
    assert planning.plan(recipe(llama), "h100", shape="deep") == without
    low, high = (found["memory_gib"]["total"] for found in (checkpointed, without))
    assert low < 0.85 * high
    assert (
        1.2 < checkpointed["seconds"] / without["seconds"] < 1.6
    )  # the forward part twice: a half more of LoRA's work
    monkeypatch.setitem(machines.CARDS, "small", machines.Card((low + high) / 2, 989, 3350))
    assert planning.plan(recipe(llama), "small", shape="deep")["gradient_checkpointing"] is True
    with pytest.raises(FinbenchError, match="It needs") as caught:
        planning.plan(recipe(llama, gradient_checkpointing=False), "small", shape="deep")
    assert caught.value.hint == "It would fit with --set gradient_checkpointing=true"


def test_a_base_of_unknown_layers_is_refused(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedups, "decoder_layers", lambda model: [])
    with pytest.raises(FinbenchError, match="none can be run again"):
        runner.train(recipe(llama, gradient_checkpointing=True), tmp_path / "a")
    outline = runner.train(recipe(llama), tmp_path / "a", dry_run=True)
    assert isinstance(outline, dict)
    assert outline["gradient_checkpointing"] is False


@pytest.mark.parametrize("stated", ["on", "off", "auto", "true", "maybe"])
def test_a_recipe_says_it_in_yaml(stated: str, llama: Path, tmp_path: Path) -> None:
    from finbench.training import recipes

    path = tmp_path / "r.yaml"
    path.write_text(f"base: {llama}\ntasks: [mini_sentiment]\ngradient_checkpointing: {stated}\n")
    if stated == "maybe":
        with pytest.raises(FinbenchError, match="gradient_checkpointing"):
            recipes.recipe(str(path))
    else:
        found = recipes.recipe(str(path)).gradient_checkpointing
        assert found == {"on": True, "true": True, "off": False, "auto": "auto"}[stated]


# ---------------------------------------------------------------- whole runs


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{"loop": "padded"}, {"bits": 4, "dropout": 0.2}], ids=str)
def test_in_shards_it_gives_the_same_bits(overrides: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    stated = {**SMALL, "pass_tokens": 200, "sharding": "fsdp", **overrides}
    made = []
    for number, again in enumerate((False, True)):
        chosen = whole_recipe(llama, **stated, gradient_checkpointing=again)
        made.append(runner.train(chosen, tmp_path / str(number), processes=2))
    without, checkpointed = made
    assert isinstance(without, Adapter)
    assert isinstance(checkpointed, Adapter)
    assert checkpointed.training.gradient_checkpointing
    assert curve(checkpointed) == curve(without)
    assert checkpointed.files == without.files


@pytest.mark.slow
def test_a_killed_run_goes_on_with_it_and_ends_in_the_same_bits(llama: Path, tmp_path: Path) -> None:
    """It may be turned on in the middle: what to do where memory was too short."""
    chosen = whole_recipe(llama, **{**SMALL, "dropout": 0.2, "epochs": 2})
    whole = runner.train(chosen, tmp_path / "whole")
    out = tmp_path / "run"
    assert 0 < stopped_after_a_checkpoint(llama, out, 1, dropout=0.2) < 14
    again = chosen.model_copy(update={"gradient_checkpointing": True})
    resumed = runner.train(again, out, resume=True)
    assert isinstance(whole, Adapter)
    assert isinstance(resumed, Adapter)
    assert resumed.training.gradient_checkpointing
    assert curve(resumed) == curve(whole)
    assert resumed.files == whole.files
