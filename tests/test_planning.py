"""finbench plan: memory as autograd really keeps it, refusals with what would fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import make_quantised
import pytest
import torch
from safetensors.torch import load_file

from finbench.core.errors import FinbenchError
from finbench.models import bases
from finbench.training import counting, loops, machines, packing, planning, recipes, runner, shapes, timing


def recipe(base: Path, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "limit": 48, "batch_size": 8, "rank": 4}
    return recipes.recipe(None, {**stated, **overrides})


def test_activations_are_those_that_a_real_pass_keeps(llama: Path) -> None:
    run = runner.prepare(recipe(llama, dtype="bfloat16"))
    rows = run.rows[:8]
    counted = counting.counted(bases.skeleton(run.base), run.recipe, rows, on_cpu=True).kept
    model = runner.begin(run, torch.bfloat16)[0]
    for tensor in model.parameters():
        tensor.data = tensor.data.to(torch.bfloat16)
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    held: dict[int, Any] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    made = packing.pack(rows, True)
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        run.passes.at_work(model),
        loops.attending(made),
    ):
        out = model(input_ids=made.ids, position_ids=made.positions, logits_to_keep=made.picked[:1], use_cache=False)
    assert out.logits.requires_grad
    assert counted == pytest.approx(sum(storage.nbytes() for storage in held.values()), rel=0.15)


def test_copies_of_a_long_start_are_counted(llama: Path) -> None:
    """Each row holds the keys and values of the start anew, in every layer; with checkpointing in one at a time."""
    hidden, layers, wide, start = 512, 6, 4 * 64, 1500
    shapes.SHAPES["long"] = (hidden, 1024, layers, 8, 4, 600)
    try:
        found = [
            counting.counted(
                shapes.shaped("long"),
                recipe(llama),
                [packing.TrainingRow([*range(start), 2000 + row, 7], 1) for row in range(rows)],
            )
            for rows in (20, 40)
        ]
    finally:
        del shapes.SHAPES["long"]
    copies = 20 * start * wide * 2 * 2  # of one layer's keys and values, in bfloat16
    assert found[1].kept - found[0].kept == pytest.approx(layers * copies, rel=0.05)
    assert found[1].checkpointed - found[0].checkpointed == pytest.approx(copies, rel=0.1)


def test_a_plan_adds_up(llama: Path) -> None:
    found = planning.plan(recipe(llama), "h100", price=3.0)
    assert found["memory_gib"]["total"] == pytest.approx(0.6, abs=0.1)  # next to nothing but CUDA's context
    assert found["loop"] == "shared"
    assert found["computed"] < found["tokens"]
    assert found["cost"] == pytest.approx(3.0 * found["seconds"] / 3600, abs=1e-3)
    assert "12,473" in found["source"]
    with pytest.raises(FinbenchError, match=r"h10.*h100"):
        planning.plan(recipe(llama), "h10")


def test_what_cannot_fit_is_refused_with_what_would(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shapes.SHAPES, "wide", (8192, 28672, 4, 64, 8, 128256))
    monkeypatch.setitem(machines.CARDS, "small", machines.Card(9.5, 100, 500))
    with pytest.raises(FinbenchError, match=r"It needs 1\d\.\d GiB, and small has 9.5: weights") as caught:
        planning.plan(recipe(llama), "small", shape="wide")
    assert caught.value.hint == "It would fit with --bits 8"
    monkeypatch.setitem(machines.CARDS, "small", machines.Card(1, 100, 500))
    with pytest.raises(FinbenchError, match="It needs") as caught:
        planning.plan(recipe(llama), "small", shape="wide")
    assert "A card that holds it: h100" in caught.value.hint


def test_a_base_too_large_for_one_card_is_planned_in_shards(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shapes.SHAPES, "deep", (4096, 11008, 8, 32, 8, 600))
    stated = {"bits": 4, "pass_tokens": 150, "gradient_checkpointing": True}
    one = planning.plan(recipe(llama, **stated), "h100", shape="deep")
    loading = one["memory_gib"]["weights"] + 0.6  # each process quantises the whole base before it is spread
    between = (loading + one["memory_gib"]["total"]) / 2
    monkeypatch.setitem(machines.CARDS, "small", machines.Card(between, 100, 500))
    with pytest.raises(FinbenchError, match="It needs") as caught:
        planning.plan(recipe(llama, **stated), "small", shape="deep")
    assert re.fullmatch(r"It would fit on ([248]) of them: --gpus \1 --set sharding=fsdp", caught.value.hint)
    monkeypatch.setitem(machines.CARDS, "small", machines.Card(loading - 0.05, 100, 500))
    with pytest.raises(FinbenchError, match="It needs") as caught:
        planning.plan(recipe(llama, **stated), "small", shape="deep")
    assert "A card that holds it" in caught.value.hint
    spread = recipe(llama, **stated, sharding="fsdp")
    four = planning.plan(spread, "h100", shape="deep", processes=4, price=2.0)
    assert four["memory_gib"]["weights"] == pytest.approx(one["memory_gib"]["weights"] * (1 / 4 + 2 / 8), rel=0.1)
    assert four["cost"] == pytest.approx(4 * 2.0 * four["seconds"] / 3600, abs=1e-3)
    with pytest.raises(FinbenchError, match="there is only one"):
        planning.plan(recipe(llama, sharding="fsdp"), "h100", shape="deep")


def test_a_small_base_waits_for_the_host_and_a_large_one_for_the_card(llama: Path) -> None:
    small, large = planning.plan(recipe(llama), "h100"), planning.plan(recipe(llama), "h100", shape="llama-3.1-8b")
    assert small["busy"] < 0.1 < 0.3 < large["busy"]
    assert 1e3 < small["tokens_per_second"] < 1e6  # not what a card of that peak could do with a base of this size
    assert large["seconds"] > small["seconds"] > small["steps"] * 1e-3
    here = planning.plan(recipe(llama), "cpu")
    assert here["seconds"] > 0
    assert "SmolLM2-135M" in here["source"]


def test_moments_in_8_bits_take_less(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shapes.SHAPES, "flat", (4096, 11008, 2, 32, 32, 600))

    def held(**changed: Any) -> float:
        skeleton = shapes.shaped("flat")
        rows = [packing.TrainingRow(list(range(20)), 2)]
        return planning.needs(skeleton, recipe(llama, **changed), bases.layers_of(skeleton), rows).trained

    assert held(optimizer="adamw_8bit") == pytest.approx(held() * 10 / 16)
    assert held(optimizer="paged_adamw_32bit") == pytest.approx(held() * 8 / 16)


def test_fitted_steps_are_met_and_the_others_are_as_near_as_the_page_says() -> None:
    off = {step: timing.predicted(step) / step.rate - 1 for step in timing.PUBLISHED}
    assert sum(step.fitted for step in off) == 2
    assert all(abs(gap) < 1e-6 for step, gap in off.items() if step.fitted)
    assert all(step.source for step in off)
    held_out = [gap for step, gap in off.items() if not step.fitted]
    assert len(held_out) == 4
    assert all(abs(gap) < 0.25 for gap in held_out)


def test_the_share_of_the_peak_falls_with_the_peak_and_is_bounded() -> None:
    shares = [timing.share(machines.CARDS[name])[0] for name in ("l4", "rtx4090", "a100-80", "h100", "h200")]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == shares[1]
    assert shares[3] == shares[4] == pytest.approx(0.38, abs=0.01)
    assert "between torchtune" in timing.share(machines.CARDS["a100-80"])[1]


def work(**changed: Any) -> timing.Work:
    stated = {"linear": 7e9, "head": 5e8, "trained": 4e7, "layers": 224, "bits": 16, "operations": 2000}
    return timing.Work(**{**stated, "checkpointing": False, "compiled": False, **changed})


def test_operations_of_a_pass_by_hand() -> None:
    assert work().flops(10, 2) == 10 * (4 * 7e9 + 6 * 4e7) + 2 * 4 * 5e8
    assert work(checkpointing=True).flops(10, 2) == 10 * (6 * 7e9 + 8 * 4e7) + 2 * 4 * 5e8
    assert work(whole=True).flops(10, 2) == 10 * 6 * 7e9 + 2 * 6 * 5e8


def test_checkpointing_codes_and_shards_take_time() -> None:
    card = machines.Card(80, 1000, 3000, link=100)
    plain, _ = work().seconds(card, 0.4, 8192, 8192)
    assert 1.3 < work(checkpointing=True).seconds(card, 0.4, 8192, 8192)[0] / plain < 1.5
    assert work(compiled=True).seconds(card, 0.4, 8192, 8192)[0] == pytest.approx(plain / 1.2)
    expanded = work(bits=4).seconds(card, 0.4, 8192, 8192)[0] - plain
    assert expanded == pytest.approx(2 * 4.5 * 7e9 / 3e12)
    gathered = work(cards=8).seconds(card, 0.4, 8192, 8192)[0] - plain
    assert gathered == pytest.approx(2 * 2 * 7e9 * 7 / 8 / 1e11)
    # a short pass waits for the host, which has more to launch for codes and when layers run again
    assert [round(one.host(), 5) for one in (work(), work(bits=4), work(checkpointing=True))] == [0.06, 0.09136, 0.08]
    assert work(bits=4).seconds(card, 0.4, 10, 2)[0] == work(bits=4).host()
    assert work().share_for(card, 8192, 8192, plain) == pytest.approx(0.4)
    # gradients: each process sends and gets 2 x 7/8 of 4e7 numbers of 4 bytes at 100 GB/s
    assert timing.exchange(card, 8, 4e7) == pytest.approx(2 * 7 / 8 * 4 * 4e7 / 1e11)
    assert timing.exchange(card, 1, 4e7) == 0


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("Tesla T4", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name: str, key: str | None) -> None:
    assert machines.known_as(name) == key


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_that_only_emulates_bfloat16_computes_in_float16(
    native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert bases.compute_dtype("auto") == dtype


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "published", "model"), [(16, 30.91, 16.08), (8, 11.41, 8.04), (4, 8.26, 4.02)])
def test_beside_the_published_memory_of_finlora(bits: int, published: float, model: float, llama: Path) -> None:
    """docs/training.md says where the two differ, and why."""
    chosen = recipe(llama, bits=bits, rank=8, target_modules=["q_proj", "k_proj", "v_proj"])
    skeleton = shapes.shaped("llama-3.1-8b")
    rows = runner.prepare(recipe(llama)).rows[:4]
    found = planning.needs(skeleton, chosen, bases.layers_of(skeleton), rows)
    total, weights = found.total / 1e9, found.weights / 1e9
    if bits == 16:
        assert weights == pytest.approx(model, abs=0.1)
        assert total < published
    else:
        assert total == pytest.approx(published, rel=0.2)
        assert weights > model  # embeddings and head stay in 16 bits


def test_the_processor_is_measured_once_by_its_best_try(monkeypatch: pytest.MonkeyPatch) -> None:
    machines._layers.cache_clear()
    clock, tries = [0.0], [0]

    def backward(_: torch.Tensor) -> None:  # a busy machine: all but one take ten times as long; a warm-up is left out
        tries[0] += 1
        clock[0] += {1: 0.0001, 7: 0.01}.get(tries[0], 0.1)

    with monkeypatch.context() as patched:
        patched.setattr(machines.time, "perf_counter", lambda: clock[0])
        patched.setattr(torch.Tensor, "backward", backward)
        found = machines.layers(torch.float32)
        weights = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576  # q and o, k and v, gate, up and down
        assert found == pytest.approx(4 * weights * 512 / 0.01)
        assert machines.layers(torch.float32) == found
        before = tries[0]
        assert before >= machines._TRIES
        assert 5 < machines.crowding(torch.float32) < 10  # of all tries, in a second at least
        assert clock[0] > 1.0
        assert tries[0] == before
        machines.layers(torch.bfloat16)
        assert tries[0] > before
    machines._layers.cache_clear()


def test_a_plan_is_for_the_dtype_of_its_training(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_layers", lambda dtype, _: (8e9, 4e9) if dtype == torch.float32 else (64e9, 32e9))
    seconds = {dtype: planning.plan(recipe(llama, dtype=dtype), "cpu")["seconds"] for dtype in ("float32", "bfloat16")}
    assert seconds["float32"] > seconds["bfloat16"]


@pytest.mark.parametrize("kind", ["awq", "gptq"])
def test_a_quantised_checkpoint_is_planned_as_it_is_held_and_elsewhere(
    kind: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = make_quantised.make_quantised(kind, tmp_path, llama)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # its package need not be here for a plan
    run = planning.prepare_for_plan(recipe(made))
    layers = bases.layers_of(bases.skeleton(run.base))
    found = planning.needs(bases.skeleton(run.base), run.recipe, layers, run.rows[:8], checkpoint=run.base.id.quantised)
    parts = load_file(made / "model.safetensors")
    coded = sum(part.nbytes for name, part in parts.items() if re.search(r"\.(qweight|qzeros|scales)$", name))
    rest = sum(2 * part.numel() for name, part in parts.items() if name.endswith(".weight"))
    assert found.weights == pytest.approx(coded + rest, rel=1e-6)
    with pytest.raises(FinbenchError, match="would quantise it again"):
        planning.prepare_for_plan(recipe(made, bits=4))
