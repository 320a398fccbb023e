"""Training on a GPU: the same gradients, no plain products in attention, less memory with checkpointing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loops import gradients_of_starts, moved, recipe, relative
from test_sharding import trained_with_a_slow_disk

from conftest import make_llama
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter
from finbench.models import bases
from finbench.training import loops, packing, runner, tuning

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of 64 numbers, as fast kernels take them."""
    return make_llama(tmp_path_factory.mktemp("base") / "llama", layers=8, hidden=256, context=2048)


def step(base: Path, loop: str, **changed: Any) -> tuple[Any, Any, int]:
    """(loss, gradients by name, peak bytes) of one pass over eight rows on the GPU."""
    run = runner.prepare(recipe(base, gradient_checkpointing=False, **changed))
    model = moved(runner.begin(run, run.dtype)[0]).train()
    passes = loops.dataclasses.replace(run.passes, loop=loop, checkpointed=False)
    made = passes.prepare(run.rows[:8], model.device)
    torch.cuda.reset_peak_memory_stats()
    half = run.dtype is not torch.float32
    with passes.at_work(model), loops.attending(made), torch.autocast("cuda", dtype=run.dtype, enabled=half):
        loss = loops.loss(model, made)
        loss.backward()
    found = {name: one.grad.double().cpu() for name, one in model.named_parameters() if one.grad is not None}
    return float(loss), found, torch.cuda.max_memory_allocated()


@pytest.mark.parametrize("loop", ["packed", "shared"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_packed_rows_have_the_gradients_of_padded_ones(loop: str, dtype: str, base: Path) -> None:
    plain, ours = step(base, "padded", dtype="float32"), step(base, loop, dtype=dtype)
    one, other = (torch.cat([found[name].flatten() for name in sorted(found)]) for found in (plain[1], ours[1]))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > (0.999999 if dtype == "float32" else 0.999)
    assert ours[0] == pytest.approx(plain[0], rel=1e-5 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_attention_runs_by_plain_products(dtype: str, base: Path) -> None:
    run = runner.prepare(recipe(base, dtype=dtype))
    model = runner.begin(run, run.dtype)[0]
    assert "plain products" not in packing.kernel(model, run.dtype)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        step(base, "shared", dtype=dtype)
    names = {event.key for event in seen.key_averages()}
    assert not {name for name in names if "_scaled_dot_product_attention_math" in name}


@pytest.mark.parametrize("several", [False, True])
def test_gradients_of_a_shared_start_are_summed_in_float32(several: bool) -> None:
    """Rounded after each of the 512 rows, more than that would be lost (test_loops.py)."""
    half = bases.compute_dtype("auto")
    exact = gradients_of_starts(several)(torch.float64)
    assert relative(gradients_of_starts(several, "cuda")(half), exact) < 9e-3


def test_checkpointing_takes_less_and_gives_the_same_loss(base: Path, tmp_path: Path) -> None:
    made = []
    for number, again in enumerate((False, True)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found = runner.train(recipe(base, gradient_checkpointing=again), tmp_path / str(number))
        assert isinstance(found, Adapter)
        made.append(found.training)
    assert made[1].peak_memory_bytes < made[0].peak_memory_bytes
    assert made[1].loss_curve[0] == made[0].loss_curve[0]  # of the first step: a forward pass repeats itself
    assert made[1].final_loss == pytest.approx(made[0].final_loss, rel=0.02)


def test_the_dtype_is_one_that_the_card_computes_in() -> None:
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert bases.compute_dtype("auto") is (torch.bfloat16 if native else torch.float16)
    bases.check_dtype("auto", "")
    if native:
        bases.check_dtype("bfloat16", "")
    else:
        with pytest.raises(FinbenchError, match="does not compute in bfloat16"):
            bases.check_dtype("bfloat16", "")


def test_a_card_that_does_not_hold_the_weights_is_refused_before_they_are_loaded(base: Path, tmp_path: Path) -> None:
    before = torch.cuda.get_per_process_memory_fraction()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(FinbenchError, match="By plan this training needs") as caught:
            runner.train(recipe(base), tmp_path / "a")
    finally:
        torch.cuda.set_per_process_memory_fraction(before)
    assert "A card that holds it" in caught.value.hint
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="Liger is not installed")
def test_ligers_kernels_learn_the_same_and_are_taken_back(base: Path, tmp_path: Path) -> None:
    plain, ours, again = (
        runner.train(recipe(base, kernels=kernels), tmp_path / str(number))
        for number, kernels in enumerate(("torch", "liger", "torch"))
    )
    assert ours.training.loss_curve[0][1] == pytest.approx(plain.training.loss_curve[0][1], rel=1e-3)
    assert ours.training.final_loss == pytest.approx(plain.training.final_loss, rel=0.05)
    assert again.training.loss_curve[0] == plain.training.loss_curve[0]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
@pytest.mark.parametrize("bits", [16, 4])
def test_two_gpus_train_what_one_does_their_base_whole_or_in_shards(bits: int, base: Path, tmp_path: Path) -> None:
    one = runner.train(recipe(base, bits=bits), tmp_path / "one")
    for sharding in ("none", "fsdp"):
        two = runner.train(recipe(base, bits=bits, sharding=sharding), tmp_path / sharding, processes=2)
        assert two.training.processes == 2
        curves = [[loss for _, loss in made.training.loss_curve] for made in (one, two)]
        assert curves[1] == pytest.approx(curves[0], rel=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_a_process_may_read_and_write_for_longer_than_nccl_waits(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL's limit is 40 seconds here, and the first process reads, and writes, for a minute."""
    made = trained_with_a_slow_disk(40, base, tmp_path, monkeypatch)
    assert made.training.processes == 2


def test_the_memory_is_given_back(base: Path, tmp_path: Path) -> None:
    runner.train(recipe(base), tmp_path / "first")  # after which libraries keep what they work with
    before = torch.cuda.memory_allocated()
    runner.train(recipe(base), tmp_path / "a")
    assert torch.cuda.memory_allocated() - before < 2**20


def test_a_search_holds_one_model_at_a_time(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.train(recipe(base), tmp_path / "first")
    held, real = [], runner.begin

    def begin(run: Any, dtype: Any) -> Any:
        held.append(torch.cuda.memory_allocated())
        return real(run, dtype)

    monkeypatch.setattr(runner, "begin", begin)
    tuning.tune(recipe(base), tmp_path / "search", budget=2)
    assert len(held) == 6
    assert max(held) - min(held) < 2**20
