"""Packed rows and shared starts: the loss and every gradient of the plain loop, to round-off."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from finbench.core.errors import FinbenchError
from finbench.methods import METHODS, TUNERS, method_named
from finbench.models import bases
from finbench.training import loops, packing, recipes, runner
from finbench.training.batches import TrainingRow
from finbench.training.trainer import AnswerTrainer, arguments


def recipe(base: Path, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "limit": 48, "batch_size": 8, "dtype": "float32"}
    stated |= {"lr": 3e-3} | ({"rank": 4} if "rank" not in method_named(overrides.get("method", "lora")).unused else {})
    return recipes.recipe(None, {**stated, **overrides})


@pytest.fixture(scope="module")
def prepared(wide: Path) -> runner.Prepared:
    return runner.prepare(recipe(wide, epochs=4))


def moved(model: Any) -> Any:
    """No tensor that trains is zero: else many gradients are."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad and tensor.is_floating_point() and not tensor.any():
                tensor += 0.02 * torch.randn(tensor.shape, generator=generator).to(tensor.device)
    return model


def gradients(run: runner.Prepared, model: Any, loop: str, rows: list[TrainingRow], folder: Path, **cut: Any) -> Any:
    """(loss, gradients by name) of one step by ``loop``."""
    passes = dataclasses.replace(run.passes, loop=loop, **cut)
    trainer = AnswerTrainer(
        run.sampler,
        None,
        run.recipe,
        passes,
        model=model,
        args=arguments(run.recipe, run.steps, folder, torch.float32),
        train_dataset=run.rows,
    )
    model.zero_grad()
    with passes.at_work(model):
        loss = trainer.training_step(model, {"rows": rows})
    found = {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}
    return float(loss), found


def assert_same(one: Any, other: Any, tolerance: float = 1e-4) -> None:
    """Relative to the largest entry of all gradients: round-off is of the sums, not of single entries."""
    assert one[0] == pytest.approx(other[0], rel=2e-6)
    assert one[1].keys() == other[1].keys()
    assert one[1]
    scale = max(float(tensor.abs().max()) for tensor in other[1].values())
    assert scale > 0
    for name, tensor in other[1].items():
        own = max(float(tensor.abs().max()), 1e-3 * scale)
        assert float((one[1][name] - tensor).abs().max()) < tolerance * own, name


def single(base: Path, **overrides: Any) -> tuple[runner.Prepared, Any, list[TrainingRow]]:
    """A run, its model with nothing at zero, and the rows of one step."""
    run = runner.prepare(recipe(base, **overrides))
    return run, moved(runner.begin(run, torch.float32)[0]), run.rows[:8]


# ---------------------------------------------------------------- exactness

OPTIONS = {"c3a": {"block_size": 32}, "vblora": {"vector_length": 32}}


@pytest.mark.parametrize("method", [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in TUNERS)])
def test_loss_and_every_gradient_are_those_of_the_plain_loop(
    method: str, prepared: runner.Prepared, tmp_path: Path
) -> None:
    bits = method_named(method).bits[0]
    chosen = recipe(Path(prepared.recipe.base), method=method, bits=bits, options=OPTIONS.get(method, {}))
    run = dataclasses.replace(prepared, recipe=chosen)
    model, rows = moved(runner.begin(run, torch.float32)[0]), run.rows[:8]
    if method_named(method).tokenwise(chosen):
        plain = gradients(run, model, "padded", rows, tmp_path)
        assert_same(gradients(run, model, "packed", rows, tmp_path), plain)
        assert_same(gradients(run, model, "shared", rows, tmp_path), plain)
    else:
        assert loops.choose(chosen, bases.skeleton(run.base), 200)[0] == "packed"


@pytest.mark.parametrize("base", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_in_float64_nothing_is_left_of_the_differences(
    method: str, base: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run, model, rows = single(request.getfixturevalue(base), method=method)
    model.double()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = gradients(run, model, "padded", rows, tmp_path)
    for loop in ("packed", "shared"):
        for tokens in (2048, 150):  # one pass, and several
            assert_same(
                gradients(run, model, loop, rows, tmp_path, tokens=tokens), plain, 1e-7
            )  # Llama's norms compute in float32 always


def test_rows_of_several_tasks_and_nested_starts_are_exact(llama: Path, tmp_path: Path) -> None:
    """Trees of three levels, rows that start alike in groups, equal rows, answers of one token, lengths of 3 to 150."""
    run, model, _ = single(llama)
    model.double()
    ids = torch.randint(1, 600, (400,), generator=torch.Generator().manual_seed(3)).tolist()
    instruction, shots = ids[:20], [ids[20:60], ids[60:110]]
    rows = [TrainingRow([*instruction, *shot, *ids[110 + i : 115 + 3 * i]], 2) for i, shot in enumerate(shots * 3)]
    rows += [TrainingRow([*instruction, *ids[200 + i : 230 + i]], 1) for i in range(3)]
    rows += [TrainingRow(ids[300:340], 5)] * 2 + [TrainingRow(ids[350:353], 1), TrainingRow(ids[:150], 130)]
    assert len({segment.above for segment in packing.segments(rows, True)[0]}) >= 4
    assert max(len(path) for path in packing.segments(rows, True)[1]) == 3
    plain = gradients(run, model, "padded", rows, tmp_path)
    for loop in ("packed", "shared"):
        assert_same(gradients(run, model, loop, rows, tmp_path), plain, 1e-7)  # Llama's norms compute in float32 always
    assert packing.tokens_run(rows, True) < packing.tokens_run(rows, False) == sum(len(row.ids) - 1 for row in rows)


def ragged(q: Any, k: Any, v: Any, queries: Any, keys: Any, *longest: int, **named: Any) -> Any:
    """What torch's varlen_attn computes on a GPU, sequence by sequence: causal, the last query sees the last key."""
    assert named["window_size"] == (-1, 0)
    assert [int(ends.diff().max()) for ends in (queries, keys)] == list(longest)
    made = []
    for first, last, begin, end in zip(queries, queries[1:], keys, keys[1:], strict=False):
        size, past = int(last - first), int(end - begin) - int(last - first)
        sees = torch.ones(size, past + size, dtype=torch.bool).tril(past)
        one = (part[None].transpose(1, 2) for part in (q[first:last], k[begin:end], v[begin:end]))
        out = torch.nn.functional.scaled_dot_product_attention(
            *one, attn_mask=sees, scale=named["scale"], enable_gqa=named["enable_gqa"]
        )
        made.append(out[0].transpose(0, 1))
    return torch.cat(made)


@pytest.mark.parametrize("loop", ["packed", "shared"])
def test_a_kernel_for_sequences_of_any_length_gives_the_same(
    loop: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model, rows = single(llama)
    model.double()
    plain = gradients(run, model, "padded", rows, tmp_path)
    asked: list[int] = []

    def kernel(*arguments: Any, **named: Any) -> Any:
        asked.append(len(arguments[0]))
        return ragged(*arguments, **named)

    monkeypatch.setattr(packing, "_ragged", lambda query, dropout: kernel)
    assert_same(gradients(run, model, loop, rows, tmp_path), plain, 1e-7)
    assert len(asked) == 2  # layers


def test_on_a_cpu_bfloat16_attends_in_float32_even_in_autocast() -> None:
    rows = [TrainingRow([3, 4, 5, 6, 7, first, 9, 10], 6) for first in (11, 12, 13)]
    packed = packing.pack(rows, share=True)
    many = packed.ids.shape[1]
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, many, 16, dtype=torch.bfloat16) for heads in (4, 2, 2))
    seen = []

    def kernel(q: Any, k: Any, v: Any, **named: Any) -> Any:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, **named)
        seen.append((q.dtype, out.dtype))
        return out

    def attended(*states: Any) -> Any:
        with packing.attending(packed, kernel):
            return packing.attend(None, *states)[0]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = attended(query, key, value)
    exact = attended(*(states.double() for states in (query, key, value)))
    assert half.dtype == torch.bfloat16
    assert {(torch.float32, torch.float32), (torch.float64, torch.float64)} == set(seen)
    # nothing but the last rounding to bfloat16 is lost
    assert torch.equal(half, exact.float().bfloat16())


@pytest.mark.parametrize("loop", ["packed", "shared"])
def test_repeated_keys_give_the_same_where_a_kernel_takes_no_fewer_of_them(
    loop: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What attention in blocks does on a GPU, whose fast kernels take a mask only with as many keys as queries."""
    run, model, rows = single(llama)
    model.double()
    plain = gradients(run, model, "padded", rows, tmp_path)
    seen = []
    real = packing.scaled_dot_product_attention

    def kernel(q: Any, k: Any, v: Any, **named: Any) -> Any:
        seen.append((q.shape[1], k.shape[1], named["enable_gqa"]))
        return real(q, k, v, **named)

    monkeypatch.setattr(packing, "_repeats", lambda query: True)
    monkeypatch.setattr(packing.attending.__wrapped__, "__defaults__", (kernel, None))
    assert_same(gradients(run, model, loop, rows, tmp_path), plain, 1e-7)
    assert set(seen) == {(4, 4, False)}


def gradients_of_starts(several: bool, device: str = "cpu") -> Callable[..., Any]:
    """What computes, in a dtype, the gradients of keys and values of a start of 512 rows, or of two starts of 256."""
    generator = torch.Generator().manual_seed(2)
    starts = [list(range(100, 140)), list(range(300, 340))] if several else [list(range(100, 140))]
    rows = [TrainingRow([*starts[i % len(starts)], 400 + i, 7], 1) for i in range(512)]
    packed = packing.pack(rows, True, device)
    states = [torch.randn(1, heads, packed.ids.shape[1], 16, generator=generator) for heads in (4, 2, 2)]
    weights = torch.randn(1, packed.ids.shape[1], 4, 16, generator=generator)

    def of_keys(dtype: Any, single: bool | None = None) -> Any:
        query, key, value = (one.to(device, dtype).requires_grad_() for one in states)
        with packing.attending(packed, single=single):
            (packing.attend(None, query, key, value)[0] * weights.to(device, dtype)).sum().backward()
        return torch.cat([one.grad.double()[0, :, :40].flatten() for one in (key, value)]).cpu()

    return of_keys


def relative(found: Any, exact: Any) -> float:
    """The norm of what is wrong, in parts of what is right."""
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("several", [False, True])
def test_gradients_of_a_shared_start_are_summed_in_float32(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 rows, or two starts of 256, send theirs back in bfloat16. Rounded after each, a percent is lost."""
    of_keys = gradients_of_starts(several)

    def wrong() -> float:
        return relative(of_keys(torch.bfloat16, False), exact)

    def naive(tokens: Any, seen: Any) -> Any:
        return tokens[seen]

    exact = of_keys(torch.float64)
    monkeypatch.setattr(packing, "_ragged", lambda query, dropout: ragged if query.dtype == torch.bfloat16 else None)
    assert wrong() < 6e-3
    with monkeypatch.context() as patch:
        patch.setattr(packing._Gather, "apply", naive)
        assert wrong() > 9e-3
    monkeypatch.setattr(packing, "_ragged", lambda query, dropout: None)
    assert wrong() < 6e-3


def test_passes_hold_every_row_once_and_keep_to_their_size() -> None:
    generator = torch.Generator().manual_seed(5)
    rows = [
        TrainingRow([*range(30), *torch.randint(1, 600, (length,), generator=generator).tolist()], 3)
        for length in torch.randint(5, 60, (100,), generator=generator).tolist()
    ]
    rows.append(TrainingRow(list(range(500)), 400))
    for share in (False, True):
        made = packing.passes(rows, share, tokens=300, answers=12)
        assert sorted(map(repr, (row for part in made for row in part))) == sorted(map(repr, rows))
        for part in made:
            assert packing.tokens_run(part, share) <= 300 or len(part) == 1
            assert sum(row.answer for row in part) <= 12 or len(part) == 1


# ---------------------------------------------------------------- which loop


def test_a_fallback_says_why(llama: Path, gpt2: Path) -> None:
    assert runner.prepare(recipe(llama)).passes.loop == "shared"
    assert runner.prepare(recipe(llama)).slower == ""
    dropped = runner.prepare(recipe(llama, dropout=0.1))
    assert (dropped.passes.loop, "the recipe has dropout" in dropped.slower) == ("packed", True)
    dropped = runner.prepare(recipe(gpt2))
    assert (dropped.passes.loop, "the base has dropout" in dropped.slower) == ("packed", True)
    assert runner.prepare(recipe(gpt2, loop="padded")).slower == ""
    with pytest.raises(FinbenchError, match="Rows cannot be shared here: the base has dropout"):
        runner.prepare(recipe(gpt2, loop="shared"))
    noisy = runner.prepare(recipe(llama, method="pvera"))
    assert (noisy.passes.loop, "pvera treats" in noisy.slower) == ("packed", True)


@pytest.mark.parametrize("loop", ["padded", "packed"])
def test_noise_in_embeddings_is_bounded_by_the_tokens_of_each_row(loop: str, llama: Path, tmp_path: Path) -> None:
    """Whatever stands beside it: every row fills its own bound, and its mean is nothing."""
    run = runner.prepare(recipe(llama, neftune=5.0, loop=loop))
    model, _ = runner.begin(run, torch.float32)
    rows = sorted(run.rows, key=lambda row: len(row.ids))
    made = run.passes.prepare([rows[0], rows[-1]], torch.device("cpu"))
    ids = made["input_ids"] if isinstance(made, dict) else made.ids
    embed = model.get_input_embeddings()
    plain = embed(ids)
    with loops.noise(model, made, 5.0):
        moves = embed(ids) - plain
    assert torch.equal(embed(ids), plain)
    short, long = len(rows[0].ids), len(rows[-1].ids)
    assert short < long
    if loop == "packed":  # in any order, each without its last token, which is not run
        second = int((made.positions[0] == 0).nonzero()[1])
        parts = {second + 1: moves[0, :second], ids.shape[1] - second + 1: moves[0, second:]}
    else:
        parts = {short: moves[0, -short:], long: moves[1]}
    assert sorted(parts) == [short, long]
    for tokens, part in parts.items():
        bound = 5.0 / (tokens * part.shape[-1]) ** 0.5
        assert 0.99 * bound < float(part.abs().max()) <= bound * 1.0001
        assert abs(float(part.mean())) < 0.05 * bound


def test_noise_is_of_the_training_alone_and_of_each_row(llama: Path, tmp_path: Path) -> None:
    noisy, quiet = (runner.prepare(recipe(llama, neftune=alpha)) for alpha in (5.0, 0.0))
    assert (noisy.passes.loop, "noise of its own" in noisy.slower) == ("packed", True)
    with pytest.raises(FinbenchError, match="Rows cannot be shared here: each row draws noise"):
        runner.prepare(recipe(llama, neftune=5.0, loop="shared"))
    assert noisy.recipe.model_dump()["neftune"] == 5.0
    assert "neftune" not in quiet.recipe.model_dump()  # records of trainings without it are as they were
    model = moved(runner.begin(noisy, torch.float32)[0])
    made = noisy.passes.prepare(noisy.rows[:4], model.device)
    with torch.no_grad(), noisy.passes.at_work(model), loops.attending(made):
        before = loops.loss(model.eval(), made)
    one, other = (gradients(run, model, "packed", run.rows[:4], tmp_path)[0] for run in (noisy, quiet))
    assert one != other
    with torch.no_grad(), noisy.passes.at_work(model), loops.attending(made):
        assert torch.equal(loops.loss(model.eval(), made), before)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mistral", "sliding_window": 16}, "reaches back 16 tokens"),
        ({"model_type": "mistral", "sliding_window": 400}, ""),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, ""),
        ({"model_type": "bloom", "n_layer": 2, "n_head": 4}, "takes no positions"),
        ({"model_type": "mamba"}, "no positions"),
        ({"model_type": "gemma2", "head_dim": 16}, "soft caps"),
    ],
)
def test_what_a_base_does_not_allow_is_seen_in_its_configuration(
    changes: dict[str, Any], reason: str, llama: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    stated = json.loads((llama / "config.json").read_text()) | changes
    kind = stated.pop("model_type")
    stated.pop("architectures", None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **stated))
    found = loops.without_packing(model, 200)
    assert (reason in found) if reason else found == ""


def test_a_base_whose_packed_answers_differ_is_padded(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model, rows = single(llama)
    assert loops.settled(run.passes, model, rows) == (run.passes, "")
    real = packing.attend
    from transformers import AttentionInterface

    def wrong(*arguments: Any, **more: Any) -> Any:
        return 0.5 * real(*arguments, **more)[0], None

    def odd(*arguments: Any, **more: Any) -> Any:
        return real(*arguments, **more, s_aux=1)

    for attention, why in ((wrong, "other probabilities"), (odd, "its attention uses s_aux")):
        monkeypatch.setitem(AttentionInterface._global_mapping, packing.ATTENTION, attention)
        passes, said = loops.settled(run.passes, model, rows)
        assert passes.loop == "padded"
        assert why in said
    assert model.get_base_model().config._attn_implementation == "sdpa"


def misaligned(made: packing.Packed, how: str) -> packing.Packed:
    """A pass with a mask that is off. By spans: each segment sees a ``token`` of the one before it as well, or all of
    that ``row``, or does not see its own ``first``. By blocks (``below``): each token sees what the one before it sees.
    """
    if how == "below":
        blocks = [
            one if one.mask is None else dataclasses.replace(one, mask=one.mask.roll(1, 2)) for one in made.blocks
        ]
        return dataclasses.replace(made, blocks=blocks)
    spans, seen, ends = made.spans, [], [0]
    queries, keys = spans.queries.tolist(), spans.keys.tolist()
    for number, (first, last) in enumerate(pairwise(keys)):
        part, begin = spans.seen[first:last].tolist(), queries[number]
        before = {"token": 1, "row": begin - queries[max(0, number - 1)], "first": 0}[how]
        part = part[1:] if how == "first" and len(part) > 1 else part
        seen += [*range(max(0, begin - before), begin), *part]
        ends.append(len(seen))
    longest = (spans.longest[0], max(last - first for first, last in pairwise(ends)))
    made_of = [
        torch.tensor(part, dtype=kind, device=made.ids.device) for part, kind in ((seen, None), (ends, torch.int32))
    ]
    return dataclasses.replace(made, spans=packing.Spans(made_of[0], spans.queries, made_of[1], longest))


def seen_to_be_off(passes: loops.Passes, model: Any, rows: list[TrainingRow], how: str, kernel: Any) -> bool:
    """Whether the trial before a training falls back to padded rows where the mask is off."""
    real = packing.pack
    with pytest.MonkeyPatch.context() as patch:
        if how != "below" and kernel:
            patch.setattr(packing, "_ragged", lambda query, dropout: kernel)
        assert loops.settled(passes, model, rows) == (passes, "")
        patch.setattr(packing, "pack", lambda *given: misaligned(real(*given), how))
        return "other probabilities" in loops.settled(passes, model, rows)[1]


ATTACKS = [("packed", "token"), ("packed", "row"), ("shared", "token"), ("shared", "row"), ("shared", "first")]
ATTACKS += [("shared", "below")]  # of blocks, packed ones alone have no mask; of packed rows the first is hardly seen


@pytest.mark.parametrize(("loop", "how"), ATTACKS)
def test_a_mask_that_is_off_is_seen_before_training(loop: str, how: str, wide: Path) -> None:
    run, model, _ = single(wide)
    passes = dataclasses.replace(run.passes, loop=loop)
    assert seen_to_be_off(passes, model, run.rows, how, ragged)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mini_sentiment", "mini_ner"])
def test_a_mask_that_is_off_is_seen_in_half_precision(task: str) -> None:
    """On a trained base, by the kernel of GPUs as a reference of it: what is right passes, what is wrong does not."""
    run = runner.prepare(recipes.recipe(None, {"tasks": [task], "limit": 200, "dtype": "bfloat16"}))
    model, _ = bases.load(run.base, 16, torch.bfloat16)
    passes = {loop: dataclasses.replace(run.passes, loop=loop) for loop, _ in ATTACKS}
    seen = [seen_to_be_off(passes[loop], model, run.rows, how, ragged) for loop, how in ATTACKS]
    assert dict(zip(ATTACKS, seen, strict=True)) == dict.fromkeys(ATTACKS, True)


# ---------------------------------------------------------------- whole runs


def test_the_loss_curve_is_that_of_the_plain_loop(llama: Path, tmp_path: Path) -> None:
    made = {}
    for loop in ("padded", "packed", "shared", "auto"):
        made[loop] = runner.train(recipe(llama, loop=loop, accumulate=2, pass_tokens=300), tmp_path / loop)
    curves = {loop: [loss for _, loss in adapter.training.loss_curve] for loop, adapter in made.items()}
    for loop in ("packed", "shared"):
        assert curves[loop] == pytest.approx(curves["padded"], abs=2e-4), loop
    assert made["auto"].files == made["shared"].files
    assert made["auto"].training.loop == "shared"
    padded, packed, shared = (made[loop].training for loop in ("padded", "packed", "shared"))
    assert padded.tokens == packed.tokens == shared.tokens
    assert packed.computed == packed.tokens - 48  # last tokens are not run
    assert shared.computed < 0.8 * shared.tokens
    assert padded.computed == pytest.approx(padded.tokens / (1 - padded.padding))


def test_a_run_goes_on_by_the_loop_that_it_was_begun_with(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Killed(Exception):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    whole = runner.train(recipe(llama, loop="padded"), tmp_path / "whole")
    out = tmp_path / "old"
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_measure", kill)
        with pytest.raises(Killed):
            runner.train(recipe(llama, loop="padded", save_every=4), out)
    with pytest.raises(FinbenchError, match="loop 'padded' there, 'shared' now"):
        runner.train(recipe(llama, loop="shared", save_every=4), out, resume=True)
    resumed = runner.train(recipe(llama, save_every=4), out, resume=True)
    assert "It was begun with padded rows, and goes on so." in capsys.readouterr().err
    assert resumed.training.loop == "padded"
    assert resumed.files == whole.files
    again = runner.train(recipe(llama, save_every=4), out)  # the same recipe, however it was cut into passes
    assert again.files == whole.files


def test_a_padded_pass_gives_the_head_rows_that_lie_together(prepared: runner.Prepared) -> None:
    """For each row of a slice torch copies the head's weights: 2.2 s for 16 rows of SmolLM2-135M in bfloat16."""
    model = runner.begin(prepared, torch.float32)[0].eval()
    passes, together = dataclasses.replace(prepared.passes, loop="padded"), []
    made = passes.prepare(prepared.rows[:5], "cpu")
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: together.append(given[0].is_contiguous()))
    with torch.no_grad():
        found, labels = loops.logits(model, made)
        hook.remove()
        whole = model(**{name: part for name, part in made.items() if name != "labels"}).logits
    width = made["labels"].shape[1]
    assert 1 < width < whole.shape[1]
    assert together == [True]
    assert labels.tolist() == made["labels"][:, 1:].flatten().tolist()
    torch.testing.assert_close(found, whole[:, -width:-1].flatten(0, 1))
