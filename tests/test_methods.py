"""Every method keeps what it declares: how it starts, what trains, what it becomes, merged as unmerged, read again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alone import read_alone
from conftest import TEXT, Trained, TrainOnce, make_lora
from finbench.core.errors import FinbenchError
from finbench.core.records import MergedModel
from finbench.core.settings import Evaluation
from finbench.engines.hf import HFEngine
from finbench.evaluation import subjects
from finbench.methods import METHODS, convert, method_named, quantise
from finbench.methods.spectral import Residual
from finbench.models import adapters, attaching, bases
from finbench.training import batches, recipes, runner
from finbench.training.merging import log_probabilities, merge

SMALL: dict[str, dict[str, Any]] = {
    "vera": {"rank": 16, "lr": 0.05},
    "randlora": {"rank": 8, "alpha": 160},
    "oft": {"oft_block_size": 16},
    "rosa": {"lr": 1e-3},
}
RESIDUAL = [method.name for method in METHODS.values() if isinstance(method, Residual)]
COMBINATIONS = [
    (method.name, base, bits)
    for method in METHODS.values()
    for base in ("llama", "gpt2")
    for bits in method.bits
    if base == "llama" or method.conv1d
]
# the others on quantised weights are run by .ci/run
QUICK = {(name, "llama", 4) for name in ("qlora", "irqlora", "loftq", "pissa", "dora")} | {("lora", "llama", 8)}
CASES = [
    pytest.param(*case, marks=[] if case[2] == 16 or case in QUICK else [pytest.mark.slow]) for case in COMBINATIONS
]


def recipe(base: Path, method: str, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": method, "limit": 48, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 3e-3, "alpha": 8, "rank": 4} | SMALL.get(method, {})
    unused = method_named(method).unused
    return recipes.recipe(None, {key: value for key, value in {**stated, **overrides}.items() if key not in unused})


@pytest.fixture
def trained(train_once: TrainOnce, folders: dict[str, Path]) -> Callable[..., Trained]:
    """The run of a combination."""
    return lambda method, base, bits: train_once(f"{method}-{base}-{bits}", recipe(folders[base], method, bits=bits))


def _loaded(base: Path, bits: int = 16) -> tuple[Any, Any]:
    return bases.load(bases.resolve(str(base)), bits, torch.float32)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the start


@pytest.mark.parametrize(("method", "base", "bits"), [case for case in CASES if case.values[1] == "llama"])
def test_it_trains_a_base_that_computes_in_bfloat16(
    method: str, base: str, bits: int, folders: dict[str, Path]
) -> None:
    run = runner.prepare(recipe(folders[base], method, bits=bits, dtype="bfloat16"))
    model, _ = runner.begin(run, torch.bfloat16)
    out = model(input_ids=torch.tensor([run.rows[0].ids]))
    out.logits.float().logsumexp(-1).sum().backward()
    gradients = [tensor.grad for tensor in model.parameters() if tensor.requires_grad and tensor.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize(("method", "base", "bits"), CASES)
def test_it_starts_as_the_base(method: str, base: str, bits: int, folders: dict[str, Path]) -> None:
    """No-op at the start; residual + adapter = W where a part of W is moved; closer than the base for loftq."""
    run = runner.prepare(recipe(folders[base], method, bits=bits))
    plain, tokenizer = _loaded(folders[base])
    before = log_probabilities(_loaded(folders[base], bits)[0], tokenizer, TEXT)
    full = log_probabilities(plain, tokenizer, TEXT)
    model, _ = runner.begin(run, torch.float32)
    found = log_probabilities(model.eval(), tokenizer, TEXT)
    if method == "loftq" or (method in RESIDUAL and bits != 16):
        assert (found - full).abs().mean() < (before - full).abs().mean()
        assert not torch.equal(found, before)
    elif method == "irqlora":  # its base is the weights in other codes
        assert (found - full).abs().mean() < 1.2 * (before - full).abs().mean()
        assert not torch.equal(found, before)
    else:
        torch.testing.assert_close(found, before, atol=2e-5, rtol=0)
    if method == "full":
        return
    trains = [tensor for tensor in model.parameters() if tensor.requires_grad]
    assert trains
    assert all(tensor.dtype is torch.float32 for tensor in trains)
    if method in RESIDUAL:
        with model.disable_adapter():
            assert not torch.allclose(log_probabilities(model, tokenizer, TEXT), before, atol=1e-3)


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize(("method", "base", "bits"), CASES)
def test_it_learns_and_is_read_again_as_it_was(
    method: str, base: str, bits: int, trained: Callable[..., Trained], folders: dict[str, Path]
) -> None:
    """By finbench.models.adapters, which refuses whatever does not fit, and, where it is a model, by transformers."""
    run = trained(method, base, bits)
    curve = run.record.training.loss_curve
    assert run.record.training.final_loss < curve[0][1]
    assert (run.record.quantisation or {}).get("type") == {16: None, 8: "int8", 4: "nf4"}[bits]
    made = adapters.read(run.folder)
    if run.record.kind == "model":
        model, tokenizer = bases.load(bases.Base(run.record.base, run.folder), 16, torch.float32)
    else:
        model, tokenizer = _loaded(folders[base], bits)
        model = attaching.attach(model, made.folder, bases.resolve(str(folders[base])))
    rounded = run.record.kind == "model" and bits == 8  # int8 rounds the layers' inputs too, a 16-bit model does not
    found = log_probabilities(model.eval(), tokenizer, TEXT)
    torch.testing.assert_close(found, run.logits, atol=0.05 if rounded else 1e-4, rtol=0)
    assert not torch.allclose(
        run.logits, log_probabilities(_loaded(folders[base], bits)[0], tokenizer, TEXT), atol=1e-4
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_a_whole_model_has_the_layers_that_no_adapter_reaches(
    bits: int, train_once: TrainOnce, folders: dict[str, Path]
) -> None:
    some = recipe(folders["llama"], "pissa", bits=bits, target_modules=["q_proj"])
    run = train_once(f"pissa-some-{bits}", some)
    model, tokenizer = bases.load(bases.Base(run.record.base, run.folder), 16, torch.float32)
    found = log_probabilities(model.eval(), tokenizer, TEXT)
    torch.testing.assert_close(found, run.logits, atol=0.05 if bits == 8 else 1e-4, rtol=0)


@pytest.mark.parametrize(("method", "base", "bits"), CASES)
def test_merged_is_unmerged(
    method: str, base: str, bits: int, trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = trained(method, base, bits)
    if run.record.kind == "model":
        with pytest.raises(FinbenchError, match="whole model already"):
            merge(str(run.folder), tmp_path / "m", base=str(folders[base]))
        return
    made = merge(str(run.folder), tmp_path / "m", base=str(folders[base]), dtype="float32")
    assert made.merge is not None
    assert made.merge.onto == ("bf16" if bits == 16 else "dequantised")
    assert made.merge.largest_difference < (0.05 if bits == 8 else 2e-4)  # as above
    assert made.merge.agreement > 0.95
    assert made.merge.answers == 1
    model, tokenizer = bases.load(bases.resolve(str(tmp_path / "m")), 16, torch.float32)
    torch.testing.assert_close(
        log_probabilities(model, tokenizer, TEXT), run.logits, atol=0.05 if bits == 8 else 2e-4, rtol=0
    )
    adapters.read(tmp_path / "m")


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[] if (name, "llama", 4) in QUICK else [pytest.mark.slow])
        for name, method in METHODS.items()
        if 4 in method.bits and not isinstance(method, Residual)  # whose models are whole
    ],
)
def test_a_quantised_merge_onto_the_published_weights_is_another_function(
    method: str, trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = trained(method, "llama", 4)
    one, other = (
        merge(str(run.folder), tmp_path / onto, base=str(folders["llama"]), onto=onto, dtype="float32").merge
        for onto in ("dequantised", "bf16")
    )
    assert one is not None
    assert other is not None
    assert other.onto == "bf16"
    assert other.largest_difference > 100 * one.largest_difference
    assert f"{one.largest_difference:.2g}" in (tmp_path / "dequantised" / "README.md").read_text()


@pytest.mark.parametrize(
    ("stated", "message", "hint"),
    [
        ({"onto": "nf4"}, "never merged into nf4", "--onto dequantised or bf16"),
        ({"onto": "8-bit"}, "never merged into 8-bit", "--onto dequantised or bf16"),
        ({"onto": "fp8"}, "auto, dequantised or bf16", ""),
        ({"onto": "dequantised"}, "nothing was quantised", "Leave --onto out"),
        ({"dtype": "int8"}, "not in 'int8'", ""),
    ],
    ids=str,
)
def test_a_merge_that_would_be_another_thing_is_refused(
    stated: dict[str, str],
    message: str,
    hint: str,
    trained: Callable[..., Trained],
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    run = trained("lora", "llama", 16)
    with pytest.raises(FinbenchError, match=message) as caught:
        merge(str(run.folder), tmp_path / "m", base=str(folders["llama"]), **stated)
    assert hint in caught.value.hint
    assert not (tmp_path / "m").exists()


def test_a_merge_overwrites_nothing_and_keeps_to_the_recorded_bits(
    trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = trained("lora", "llama", 16)
    with pytest.raises(FinbenchError, match="exists already"):
        merge(str(run.folder), tmp_path, base=str(folders["llama"]))
    with pytest.raises(FinbenchError, match="was trained on 16 bits, not on 4") as caught:
        merge(str(run.folder), tmp_path / "m", base=str(folders["llama"]), bits=4)
    assert caught.value.hint == "Leave --bits out."


@pytest.mark.parametrize("bits", [None, 16, 4])
def test_an_adapter_without_a_record_is_merged_and_what_is_unknown_is_said(
    bits: Any,
    trained: Callable[..., Trained],
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As any program of peft would leave it: its files say neither data nor bits."""
    run = trained("qlora" if bits == 4 else "lora", "llama", bits or 16)
    foreign = tmp_path / "foreign"
    shutil.copytree(run.folder, foreign)
    (foreign / "finbench.json").unlink()
    made = merge(str(foreign), tmp_path / "m", base=str(folders["llama"]), dtype="float32", bits=bits)
    assert isinstance(made, MergedModel)
    assert (made.bits, made.bits_stated, made.method) == (bits or 16, bits is not None, "lora")
    assert made.merge.onto == ("dequantised" if bits == 4 else "bf16")
    assert made.merge.adapter == adapters.identity(foreign)
    assert made.merge.agreement > 0.9  # the unmerged one is computed in the machine's own dtype
    assert MergedModel.parse(json.loads((tmp_path / "m" / "merge.json").read_text()), "merge.json") == made
    card = (tmp_path / "m" / "README.md").read_text()
    assert f"{made.merge.largest_difference:.2g}" in card
    assert "Not known are what it was trained on" in card
    assert ("nor at how many bits" in card) == (bits is None)
    assert ("taken to be in 16 bits" in capsys.readouterr().err) == (bits is None)
    model, tokenizer = bases.load(bases.resolve(str(tmp_path / "m")), 16, torch.float32)
    # in which dtype its codes were dequantised in training is unknown as well: here in the machine's own
    allowed = 0.1 if bits == 4 else 2e-4
    torch.testing.assert_close(log_probabilities(model, tokenizer, TEXT), run.logits, atol=allowed, rtol=0)
    [alone] = subjects.candidates(Evaluation(model=str(tmp_path / "m"), engine="hf"))[0]
    assert alone.subject.kind == "base"


@pytest.mark.parametrize(
    ("base", "target", "at"),
    [("llama", "lm_head", "lm_head"), ("llama", "embed_tokens", "embed_tokens"), ("gpt2", "wte", "transformer.wte")],
)
def test_an_adapter_of_one_end_of_tied_weights_is_not_merged(
    base: str, target: str, at: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """It would go into the other end too; peft merges it with a warning."""
    make_lora(tmp_path / "a", folders[base], target_modules=[target], init_lora_weights=False)
    with pytest.raises(FinbenchError, match=f"a changes .*{at}, which is head and embedding at once") as caught:
        merge(str(tmp_path / "a"), tmp_path / "m", base=str(folders[base]))
    assert "unmerged" in caught.value.hint
    assert not (tmp_path / "m").exists()


def test_an_adapter_that_changes_no_weights_is_not_merged(folders: dict[str, Path], tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    made = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    made.save_pretrained(tmp_path / "prompt")
    with pytest.raises(FinbenchError, match="PROMPT_TUNING: it changes no weights"):
        merge(str(tmp_path / "prompt"), tmp_path / "m", base=str(folders["llama"]))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("bits", [16, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (8, 4))])
def test_a_fresh_process_with_peft_alone_reads_every_method(
    bits: int, trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    chosen = [case for case in COMBINATIONS if case[2] == bits and METHODS[case[0]].becomes != "finbench adapter"]
    runs = [(case[1], trained(*case)) for case in chosen]
    told = [(folders[base], run.folder, run.record.kind, bits) for base, run in runs]
    for (base, run), found in zip(runs, read_alone(told, TEXT, tmp_path), strict=True):
        rounded = (
            run.record.kind == "model" and bits == 8
        )  # int8 rounds the layers' inputs too, a 16-bit model does not
        what = f"{run.record.recipe.method} on {base}"
        torch.testing.assert_close(found, run.logits, atol=0.05 if rounded else 1e-4, rtol=0, msg=what)


@pytest.mark.parametrize(
    ("base", "bits"), [("llama", 16), ("gpt2", 16), *(pytest.param("llama", b, marks=pytest.mark.slow) for b in (8, 4))]
)
def test_the_engine_evaluates_every_method_one_after_the_other(
    base: str, bits: int, trained: Callable[..., Trained], folders: dict[str, Path]
) -> None:
    """peft mixes no kinds of tuner in one model; each is attached in its turn, and between two the base is the base."""
    engine = HFEngine(bases.resolve(str(folders[base])), bits, "float32")  # type: ignore[arg-type]
    runs = [trained(*case) for case in COMBINATIONS if case[1:] == (base, bits)]
    runs = [run for run in runs if run.record.kind == "peft"]
    expected = {}
    for run in runs:
        model, tokenizer = _loaded(folders[base], bits)
        attached = attaching.attach(model, run.folder, bases.resolve(str(folders[base])))
        expected[run.folder] = log_probabilities(attached.eval(), tokenizer, TEXT)
    for run in [*runs, *reversed(runs)]:
        engine.use(run.folder)
        assert engine.form == ("merged" if bits == 16 else "unmerged"), run.record.recipe.method
        found = log_probabilities(engine.lm.model, engine.tokenizer, TEXT)
        torch.testing.assert_close(found, expected[run.folder], atol=2e-4, rtol=0, msg=run.record.recipe.method)
        engine.use(None)
        assert torch.equal(engine._probe(), engine.alone)


def test_a_whole_model_is_evaluated_in_the_bits_it_has(
    trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    """Not in those of the recipe: what came of a quantised residual, or of a merge, is in 16 bits."""
    residual, low = trained("pissa", "llama", 4), trained("qlora", "llama", 4)
    merge(str(low.folder), tmp_path / "m", base=str(folders["llama"]))
    for folder in (residual.folder, tmp_path / "m"):
        found, _ = subjects.candidates(Evaluation(str(folder), base=str(folders["llama"]), engine="hf"))
        assert [(one.subject.kind, one.subject.bits) for one in found] == [("base", 16), ("model", 16)]
    found, _ = subjects.candidates(Evaluation(str(low.folder), base=str(folders["llama"]), engine="hf"))
    assert [(one.subject.kind, one.subject.bits) for one in found] == [("base", 4), ("peft", 4)]


# ---------------------------------------------------------------- what becomes of it


def test_converted_methods_are_ordinary_loras_of_one_rank(trained: Callable[..., Trained]) -> None:
    for name, rank in (*((name, 8) for name in RESIDUAL), ("eva", 8), ("adalora", 6)):
        for base in ("llama", "gpt2"):
            run = trained(name, base, 16)
            config = json.loads((run.folder / "adapter_config.json").read_text())
            tensors = load_file(run.folder / "adapter_model.safetensors")
            assert config["peft_type"] == "LORA"
            assert config["init_lora_weights"] is True
            assert not config["rank_pattern"]
            assert not config["alpha_pattern"]
            assert {t.shape[0] for key, t in tensors.items() if ".lora_A." in key} == {config["r"]}
            assert config["r"] <= rank
            assert METHODS[name].becomes == "converted LoRA"


def test_the_number_of_trained_parameters_is_the_papers(
    trained: Callable[..., Trained], folders: dict[str, Path]
) -> None:
    layers = [layer for layer in bases.linear_layers(bases.resolve(str(folders["llama"]))) if layer.name != "lm_head"]
    r = 4
    lora = sum(r * (layer.inputs + layer.outputs) for layer in layers)
    expected = {
        **dict.fromkeys(("lora", "rslora", "lora+", *RESIDUAL), lora),
        "dora": lora + sum(layer.outputs for layer in layers),
        "lora-fa": sum(r * layer.outputs for layer in layers),
        "vera": sum(16 + layer.outputs for layer in layers),
        "adalora": sum(6 * (layer.inputs + layer.outputs + 1) for layer in layers),
        "oft": sum(layer.inputs // 16 * (16 * 15 // 2) for layer in layers),
        "randlora": sum(-(-m // 8) * (8 + m) for m in (min(layer.inputs, layer.outputs) for layer in layers)),
    }
    found = {name: trained(name, "llama", 16).record.training.trainable_parameters for name in expected}
    assert found == expected


def test_eva_keeps_the_rank_budget_and_orthonormal_directions(folders: dict[str, Path]) -> None:
    run = runner.prepare(recipe(folders["llama"], "eva"))
    model, _ = runner.begin(run, torch.float32)
    layers = {name: m for name, m in model.named_modules() if "default" in getattr(m, "lora_A", {})}
    ranks = [m.r["default"] for m in layers.values()]
    assert sum(ranks) <= 4 * 14
    assert len(set(ranks)) > 1
    for layer in layers.values():
        a = layer.lora_A["default"].weight
        torch.testing.assert_close(a @ a.T, torch.eye(len(a)), atol=1e-4, rtol=0)
        assert not layer.lora_B["default"].weight.any()
        assert layer.scaling["default"] == 2.0


def test_eva_does_not_look_for_ever(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finbench.methods.eva._MOST_PASSES", 1)
    with pytest.raises(FinbenchError, match="not settled after 1 batches") as caught:
        runner.begin(runner.prepare(recipe(folders["llama"], "eva", tau=1.0)), torch.float32)
    assert "tau=0.9" in caught.value.hint


def _seen(base: Path, method: str, **overrides: Any) -> tuple[Any, Any, list[dict[str, Any]]]:
    """(the model as it starts, the base, the first batches), float32."""
    run = runner.prepare(recipe(base, method, **overrides))
    plain, tokenizer = _loaded(base)
    first = run.sampler.batches(0)[: overrides.get("batches", method_named(method).options["batches"])]
    rows = [batches.collate([run.rows[i] for i in part], tokenizer.pad_token_id) for part in first]
    return runner.begin(run, torch.float32)[0], plain, rows


def _stored(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    return quantise.as_stored(layer, weight)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_lora_ga_starts_along_the_gradient(base: str, folders: dict[str, Path]) -> None:
    """By the plain model's own autograd: A spans its first right singular vectors, B the next left ones."""
    model, plain, rows = _seen(folders[base], "lora-ga", batches=3)
    for batch in rows:
        labels = torch.full_like(batch["input_ids"], -100)
        labels[:, -batch["labels"].shape[1] :] = batch["labels"]
        plain(**{**batch, "labels": labels}).loss.backward()
    layers = dict(plain.named_modules())
    for name, module in convert.lora_layers(model):
        layer = layers[name.removeprefix(convert.PREFIX)]
        u, s, vh = torch.linalg.svd(_stored(layer, layer.weight.grad), full_matrices=False)
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        size = len(u) ** 0.25 / 4
        gap = bool(s[3] > 1.05 * s[4]) and bool(s[7] > 1.05 * s[8])  # else the directions are not determined
        torch.testing.assert_close(a @ a.T, size**2 * torch.eye(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(b.T @ b, size**2 * torch.eye(4), atol=1e-4, rtol=0)
        if gap:
            assert float((vh[:4] @ a.T).norm()) == pytest.approx(2 * size, rel=1e-3)
            assert float((u[:, 4:8].T @ b).norm()) == pytest.approx(2 * size, rel=1e-3)


@pytest.mark.parametrize(("base", "mode"), [("llama", "ipm"), ("gpt2", "ipm"), ("llama", "kpm")])
def test_corda_takes_the_part_that_matters_to_the_inputs(base: str, mode: str, folders: dict[str, Path]) -> None:
    """No part of this rank changes the outputs on the first batches by more (ipm), or by less (kpm)."""
    model, plain, rows = _seen(folders[base], "corda", batches=4, mode=mode)
    inputs: dict[str, list[torch.Tensor]] = {}
    layers = {name: layer for name, layer in plain.named_modules() if hasattr(layer, "weight")}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, given, __, name=name: inputs.setdefault(name, []).append(given[0]))
    for batch in rows:
        plain(**{key: tensor for key, tensor in batch.items() if key != "labels"})
    real = [batch["attention_mask"].bool() for batch in rows]
    for name, module in convert.lora_layers(model):
        layer = layers[name.removeprefix(convert.PREFIX)]
        tokens = torch.cat([x[mask] for x, mask in zip(inputs[name.removeprefix(convert.PREFIX)], real, strict=True)])
        weight = _stored(layer, layer.weight.detach())
        covariance = (tokens.T @ tokens).detach().double()
        covariance = covariance / covariance.diagonal().mean() + 0.01 * torch.eye(len(covariance))
        singular = torch.linalg.svdvals(weight.double() @ covariance)
        part = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
        moved = float((part.detach().double() @ covariance).norm())
        kept = singular[:4] if mode == "ipm" else singular[-4:]
        assert moved == pytest.approx(float(kept.norm()), rel=1e-3 if mode == "ipm" else 0.03)  # tiny numbers
        left = float(((weight - part).detach().double() @ covariance).norm())
        rest = singular[4:] if mode == "ipm" else singular[:-4]
        assert left == pytest.approx(float(rest.norm()), rel=1e-3)


def test_loftq_is_nearer_to_the_weights_than_nf4_alone(folders: dict[str, Path]) -> None:
    for base in ("llama", "gpt2"):
        plain, _ = _loaded(folders[base])
        model, _ = runner.begin(runner.prepare(recipe(folders[base], "loftq")), torch.float32)
        for name, layer in model.named_modules():
            if "default" not in getattr(layer, "lora_A", {}):
                continue
            own = plain.get_submodule(name.removeprefix("base_model.model."))
            weight = quantise.as_stored(own, own.weight.data)
            coded = quantise.dequantised(layer.base_layer)
            low = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            assert torch.linalg.norm(weight - coded - low) < torch.linalg.norm(weight - coded)
            tail = torch.linalg.svdvals(weight - coded)[4:]
            assert float(torch.linalg.norm(weight - coded - low)) == pytest.approx(float(tail.norm()), rel=1e-3)


def test_dora_rows_have_the_trained_magnitudes(
    trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = trained("dora", "llama", 16)
    merge(str(run.folder), tmp_path / "m", base=str(folders["llama"]), dtype="float32")
    merged = load_file(tmp_path / "m" / "model.safetensors")
    magnitudes = {k: t for k, t in load_file(run.folder / "adapter_model.safetensors").items() if "magnitude" in k}
    assert len(magnitudes) == 14
    for key, m in magnitudes.items():
        name = key.removeprefix("base_model.model.").replace(".lora_magnitude_vector", ".weight")
        torch.testing.assert_close(merged[name].norm(dim=1), m, atol=1e-5, rtol=1e-5)


def test_doras_norm_is_not_differentiated(trained: Callable[..., Trained], folders: dict[str, Path]) -> None:
    """Section 4.3 of the paper: B's gradient is that of the formula with the norm as a constant."""
    run = trained("dora", "llama", 16)
    model = attaching.attach(_loaded(folders["llama"])[0], run.folder).train()
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    [name] = layer.lora_A
    a, b, m = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.lora_magnitude_vector[name].weight
    x = torch.randn(5, a.shape[1], generator=torch.Generator().manual_seed(0))
    weight, low = layer.base_layer.weight.detach(), b.detach().clone().requires_grad_()
    b.requires_grad_()
    layer(x).pow(2).sum().backward()
    found = {}
    for detached in (True, False):
        direction = weight + layer.scaling[name] * low @ a.detach()
        norm = direction.norm(dim=1, keepdim=True)
        y = x @ (m.detach()[:, None] * direction / (norm.detach() if detached else norm)).T
        [found[detached]] = torch.autograd.grad(y.pow(2).sum(), low)
    torch.testing.assert_close(b.grad, found[True], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(b.grad, found[False], atol=1e-2)


# ---------------------------------------------------------------- what kind of update it is


def _updates(run: Trained, base: Path, out: Path, **how: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(the weight, the merged weight) of every layer that was trained, by name."""
    if not out.exists():
        merge(str(run.folder), out, base=str(base), dtype="float32", **how)
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    return {name: (before[name], after[name]) for name in before if not torch.equal(before[name], after[name])}


def test_randloras_update_has_a_higher_rank_than_its_bases_and_veras_has_not(
    trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    for name, most in (("randlora", None), ("vera", 16), ("lora", 4)):
        found = _updates(trained(name, "llama", 16), folders["llama"], tmp_path / name)
        assert len(found) == 14
        for weight, merged in found.values():
            rank = int(torch.linalg.matrix_rank(merged - weight, atol=1e-5 * float((merged - weight).norm())))
            if most is None:
                assert rank > 8
                assert rank >= 0.9 * min(weight.shape)
            else:
                assert rank <= most


@pytest.mark.parametrize(("exact", "allowed"), [(True, 1e-5), (False, 1e-3)])
def test_oft_turns_and_does_not_stretch(exact: bool, allowed: float, folders: dict[str, Path], tmp_path: Path) -> None:
    """W' = WR with R orthogonal keeps W'W'^T; by peft's series, nearly."""
    runner.train(recipe(folders["llama"], "oft", use_cayley_neumann=not exact), tmp_path / "a")
    run = Trained(tmp_path / "a", adapters.record(tmp_path / "a"), torch.zeros(0))
    found = _updates(run, folders["llama"], tmp_path / "m")
    assert len(found) == 14
    for weight, merged in found.values():
        assert float((merged - weight).norm() / weight.norm()) > 0.005
        gram, other = weight @ weight.T, merged @ merged.T
        assert float((other - gram).norm() / gram.norm()) < allowed


def test_the_two_merges_of_a_quantised_adapter_differ_by_the_quantisation_error(
    trained: Callable[..., Trained], folders: dict[str, Path], tmp_path: Path
) -> None:
    run = trained("qlora", "llama", 4)
    onto = {to: _updates(run, folders["llama"], tmp_path / to, onto=to) for to in ("dequantised", "bf16")}
    quantised, _ = _loaded(folders["llama"], 4)
    assert len(onto["bf16"]) == 14
    for name, (weight, merged) in onto["bf16"].items():
        coded = quantise.dequantised(quantised.get_submodule(name.removesuffix(".weight")))
        torch.testing.assert_close(merged - onto["dequantised"][name][1], weight - coded, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["vera", "randlora"])
def test_random_projections_need_not_be_saved(method: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """They are drawn from a seed that the configuration holds; the file is the smaller."""
    logits, sizes = [], []
    for saved in (True, False):
        out = tmp_path / str(saved)
        runner.train(recipe(folders["llama"], method, save_projection=saved), out)
        model, tokenizer = _loaded(folders["llama"])
        logits.append(log_probabilities(attaching.attach(model, out).eval(), tokenizer, TEXT))
        sizes.append((out / "adapter_model.safetensors").stat().st_size)
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)
    assert sizes[1] < sizes[0]
