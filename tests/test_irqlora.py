"""IR-QLoRA: codes of higher entropy on every block, an exact forward pass, connections that fold into A and B."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from conftest import TEXT, TrainOnce, make_llama
from finbench.core.errors import FinbenchError
from finbench.engines.hf import HFEngine
from finbench.methods import icq, iec, method_named, quantise
from finbench.models import adapters, attaching, bases
from finbench.publishing import modelcard
from finbench.publishing.licences import Licence
from finbench.training import recipes, runner
from finbench.training.merging import log_probabilities


def recipe(base: Path, **overrides: Any) -> Any:
    stated = {"base": str(base), "tasks": ["mini_sentiment"], "method": "irqlora", "limit": 48, "batch_size": 8}
    stated |= {"dtype": "float32", "lr": 3e-3, "alpha": 8, "rank": 4}
    return recipes.recipe(None, {**stated, **overrides})


def _begin(base: Path, **overrides: Any) -> Any:
    return runner.begin(runner.prepare(recipe(base, **overrides)), torch.float32)[0]


def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    gaussian = torch.randn(257, 192) * 0.02  # 771 blocks: the last group of 256 is not full
    shifted = gaussian + torch.randn(257, 3).repeat_interleave(64, dim=1) * 0.02
    tails = torch.distributions.StudentT(5.0).sample((64, 256)) * 0.02
    grid = (torch.randn(64, 128) * 3).round() * 0.01  # as of weights that were stored in few bits once
    constant = torch.full((4, 64), 0.5)
    return {
        "gaussian": gaussian,
        "shifted": shifted,
        "tails": tails,
        "grid": grid,
        "constant": constant,
        "zero": torch.zeros(2, 64),
    }


# ---------------------------------------------------------------- ICQ


def test_entropy_is_shannons_of_the_codes() -> None:
    found = torch.randint(0, 16, (5, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for row, measured in zip(found, icq.entropy(found), strict=True):
        shares = [int((row == code).sum()) / 64 for code in range(16)]
        assert float(measured) == pytest.approx(-sum(p * math.log2(p) for p in shares if p), abs=1e-5)
    assert float(icq.entropy(torch.arange(64, dtype=torch.uint8)[None] % 16)[0]) == pytest.approx(4, abs=1e-5)


@pytest.mark.parametrize("kind", list(_weights()))
def test_no_block_loses_entropy_and_the_codes_are_those_of_the_stored_shift(kind: str) -> None:
    weight = _weights()[kind]
    shift, scale = icq.calibrate(weight, 0.1)
    assert (shift.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert (len(shift), len(scale)) == (weight.numel() // 64, -(-weight.numel() // (64 * 256)))
    tau = icq.expand(shift, scale, (weight.shape[0], weight.shape[1]))
    plain = icq.entropy(icq.codes(icq.quantised(weight, torch.zeros_like(tau))[0]))
    found = icq.entropy(icq.codes(icq.quantised(weight, tau)[0]))
    assert (found >= plain).all()
    assert torch.isfinite(tau).all()
    assert torch.equal(found[shift == 0], plain[shift == 0])
    gain = {"gaussian": 0.06, "shifted": 0.1, "tails": 0.06, "grid": 0.0, "constant": 0.0, "zero": 0.0}[kind]
    assert float((found - plain).mean()) >= gain
    if kind == "gaussian":
        assert 0.01 < float((shift == 0).float().mean()) < 0.2  # so many would have lost


def test_shifts_lie_in_the_authors_range() -> None:
    weight = _weights()["gaussian"]
    tau = icq.expand(*icq.calibrate(weight, 0.1), (257, 192)).flatten()
    blocks = weight.view(-1, 64)
    half = 0.1 * 0.541 * blocks.abs().amax(dim=1)
    assert (((tau - blocks.median(dim=1).values).abs() <= half * 1.001) | (tau == 0)).all()


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_without_shifts_the_codes_are_those_of_the_nf4_base(base: str, folders: dict[str, Path]) -> None:
    full, _ = bases.load(bases.resolve(str(folders[base])), 16, torch.float32)
    low, _ = bases.load(bases.resolve(str(folders[base])), 4, torch.float32)
    checked = 0
    for name, layer in low.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            own = full.get_submodule(name)
            weight = quantise.as_stored(own, own.weight.data).contiguous()
            blocks = weight.numel() // 64
            shifted = icq.ShiftedLinear4bit(
                layer, weight, torch.zeros(blocks, dtype=torch.int8), torch.ones(-(-blocks // 256))
            )
            assert torch.equal(shifted.weight.data, layer.weight.data)
            x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
            assert torch.equal(shifted(x), layer(x))
            checked += 1
    assert checked == (14 if base == "llama" else 8)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_the_forward_pass_is_exact(base: str, folders: dict[str, Path]) -> None:
    """The fused product plus tau times sums of inputs is the product with the dequantised weight, backwards too."""
    model = _begin(folders[base])
    layers = [m.base_layer for m in model.modules() if isinstance(m, iec.ElasticLinear4bit)]
    assert len(layers) == (14 if base == "llama" else 8)
    for layer in layers:
        assert isinstance(layer, icq.ShiftedLinear4bit)
        assert (layer.shift != 0).float().mean() > 0.5
        weight = quantise.dequantised(layer)
        x = torch.randn(2, 5, layer.in_features, generator=torch.Generator().manual_seed(0), requires_grad=True)
        expected = torch.nn.functional.linear(x, weight, layer.bias)
        [wanted] = torch.autograd.grad(expected.square().sum(), x)
        found = layer(x)
        [gradient] = torch.autograd.grad(found.square().sum(), x)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)


def test_bits_per_weight_are_as_computed(tmp_path: Path) -> None:
    """4.127 of NF4 with double quantisation, 8 bits of shift a block of 64, 32 bits a group of 256 shifts."""
    base = make_llama(tmp_path / "llama", hidden=512, layers=1)
    model = _begin(base)
    layers = [m.base_layer for m in model.modules() if isinstance(m, iec.ElasticLinear4bit)]
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    held = 0
    for layer in layers:
        state = layer.weight.quant_state
        held += 8 * layer.weight.numel() + 8 * state.absmax.numel() + 32 * state.state2.absmax.numel()
        held += 8 * layer.shift.numel() * layer.shift.element_size() + 32 * layer.scale.numel()
    assert held / weights == pytest.approx(4 + 2 * (8 / 64 + 32 / (64 * 256)), rel=1e-4)


# ---------------------------------------------------------------- IEC


@pytest.mark.parametrize(("r", "h", "o"), [(4, 64, 128), (16, 576, 192), (6, 64, 100), (5, 49, 11), (8, 8, 8)])
def test_connections_fold_exactly(r: int, h: int, o: int) -> None:
    """eq. 16: the pooled and repeated paths of eqs. 12-14, gcd form, are matrices that add to A and B."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(r, h, generator=generator), torch.randn(o, r, generator=generator)
    x, (one, two) = torch.randn(7, h, generator=generator), (0.3, -0.7)

    def pooled(values: torch.Tensor, size: int) -> torch.Tensor:
        common = math.gcd(values.shape[-1], size)
        means = values.unflatten(-1, (common, -1)).mean(-1)
        return means.repeat_interleave(size // common, dim=-1)

    low = x @ a.T + one * pooled(x, r)
    expected = low @ b.T + two * pooled(low, o)
    found = x @ (a + one * iec.elastic(r, h)).T @ (b + two * iec.elastic(o, r)).T
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-6


def test_it_adds_two_scalars_a_layer_of_which_the_second_learns_first(folders: dict[str, Path]) -> None:
    counts, models = {}, {}
    for switched in (True, False):
        models[switched] = _begin(folders["llama"], iec=switched, icq=False)
        counts[switched] = sum(t.numel() for t in models[switched].parameters() if t.requires_grad)
    assert counts[True] - counts[False] == 2 * 14
    model = models[True].train()
    ids = torch.arange(20)[None]
    model(ids).logits.logsumexp(-1).sum().backward()
    for layer in (m for m in model.modules() if isinstance(m, iec.ElasticLinear4bit)):
        assert not layer.lora_A["default"].weight.grad.any()
        assert layer.lora_B["default"].weight.grad.any()
        first, second = layer.lora_beta["default"].grad.tolist()
        assert first == 0
        assert second != 0


def test_with_both_halves_off_it_is_qlora_bit_for_bit(folders: dict[str, Path], tmp_path: Path) -> None:
    made = {}
    for name, more in (("qlora", {}), ("irqlora", {"icq": False, "iec": False})):
        runner.train(recipe(folders["llama"], method=name, **more), tmp_path / name)
        made[name] = (tmp_path / name / "adapter_model.safetensors").read_bytes()
    assert made["qlora"] == made["irqlora"]


# ---------------------------------------------------------------- what is saved


@pytest.fixture(scope="module")
def trained(train_once: TrainOnce, folders: dict[str, Path]) -> dict[str, tuple[Path, torch.Tensor]]:
    """An adapter of each kind on the Llama, one without shifts on GPT-2, and what the trained model said in memory."""
    found = {
        "both": train_once("irqlora-llama-4", recipe(folders["llama"])),
        "iec": train_once("irqlora-llama-4-iec", recipe(folders["llama"], icq=False)),
        "gpt2": train_once("irqlora-gpt2-4-iec", recipe(folders["gpt2"], icq=False)),
    }
    return {name: (run.folder, run.logits) for name, run in found.items()}


def test_a_plain_reload_of_shifts_fails_loudly(trained: dict[str, Any], folders: dict[str, Path]) -> None:
    out, _ = trained["both"]
    model, _ = bases.load(bases.resolve(str(folders["llama"])), 4, torch.float32)
    with pytest.raises(KeyError, match="IRQLORA"):
        PeftModel.from_pretrained(model, out)
    readme = (out / "README.md").read_text()
    assert "PeftModel" not in readme
    assert "finbench merge" in readme
    with pytest.raises(FinbenchError, match="published weights of its base"):
        attaching.attach(model, out)


def test_a_published_card_does_not_name_peft(trained: dict[str, Any]) -> None:
    for name, library in (("both", "finbench"), ("iec", "peft")):
        made = adapters.read(trained[name][0])
        assert made.record is not None
        text = modelcard.write(
            modelcard.Facts(
                "you/irqlora", None, "irqlora", made.record, None, made.config, "peft", made.record.base, 4,
                Licence("apache-2.0", None, ""), [], [], 1,
            )
        )  # fmt: skip
        assert f"library_name: {library}" in text
        assert ("finbench merge hub:you/irqlora --out merged" in text) == (name == "both")
        assert ("PeftModel" in text) == (name == "iec")


@pytest.mark.parametrize(("name", "base"), [("iec", "llama"), ("gpt2", "gpt2")])
def test_without_shifts_it_is_an_ordinary_lora(
    name: str, base: str, trained: dict[str, Any], folders: dict[str, Path]
) -> None:
    """The connections are folded into A and B, on GPT-2's Conv1D too."""
    out, said = trained[name]
    model, tokenizer = bases.load(bases.resolve(str(folders[base])), 4, torch.float32)
    model = PeftModel.from_pretrained(model, out).eval()
    torch.testing.assert_close(log_probabilities(model, tokenizer, TEXT), said, atol=1e-5, rtol=0)
    assert all(".lora_A." in name or ".lora_B." in name for name in load_file(out / adapters.WEIGHTS))


def test_below_the_adapter_the_base_stays_the_nf4_base(trained: dict[str, Any], folders: dict[str, Path]) -> None:
    out, said = trained["both"]
    base = bases.resolve(str(folders["llama"]))
    model, tokenizer = bases.load(base, 4, torch.float32)
    alone = log_probabilities(model, tokenizer, TEXT)
    model = attaching.attach(model, out, base).eval()
    torch.testing.assert_close(log_probabilities(model, tokenizer, TEXT), said, atol=1e-5, rtol=0)
    with model.disable_adapter():
        assert torch.equal(log_probabilities(model, tokenizer, TEXT), alone)
    assert not attaching.stands_beside(model, trained["iec"][0])
    assert torch.equal(log_probabilities(model.unload(), tokenizer, TEXT), alone)


def test_the_engine_evaluates_it_in_turn_with_others(trained: dict[str, Any], folders: dict[str, Path]) -> None:
    engine = HFEngine(bases.resolve(str(folders["llama"])), 4, "float32")
    for name in ("both", "iec", "both"):
        out, said = trained[name]
        engine.use(out)
        assert engine.form == "unmerged"
        found = log_probabilities(engine.lm.model, engine.tokenizer, TEXT)
        torch.testing.assert_close(found, said, atol=1e-5, rtol=0)
        engine.use(None)
        assert torch.equal(engine._probe(), engine.alone)


@pytest.mark.slow
def test_fresh_processes_evaluate_and_merge_it(
    trained: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    out, base = str(trained["both"][0]), str(folders["llama"])
    command = [sys.executable, "-m", "finbench"]
    limits = ["--tasks", "mini_sentiment", "--limit", "4", "--out", str(tmp_path / "cards")]
    done = subprocess.run([*command, "eval", "--adapter", out, "--base", base, *limits], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cards = [json.loads(path.read_text()) for path in (tmp_path / "cards").glob("*.json")]
    assert sorted((card["subject"]["kind"], card["subject"]["bits"]) for card in cards) == [("base", 4), ("peft", 4)]
    merged = ["merge", out, "--base", base, "--out", str(tmp_path / "m"), "--dtype", "float32", "--json"]
    done = subprocess.run([*command, *merged], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["merge"]["largest_difference"] < 2e-4


def test_shifts_that_do_not_fit_are_refused(trained: dict[str, Any], folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(trained["both"][0], tmp_path / "a", ignore=shutil.ignore_patterns("finbench.json"))
    tensors = load_file(tmp_path / "a" / adapters.WEIGHTS)
    name = next(key for key in tensors if key.endswith(".icq_shift"))
    for changed in ({}, {name: tensors[name][:-1].contiguous()}, {name: tensors[name].float()}):
        rest = {key: tensor for key, tensor in tensors.items() if key != name} | changed
        save_file(rest, tmp_path / "a" / adapters.WEIGHTS)
        base = bases.resolve(str(folders["llama"]))
        with pytest.raises(FinbenchError, match="missing or of another size"):
            attaching.attach(bases.load(base, 4, torch.float32)[0], tmp_path / "a", base)


def test_a_run_whose_codes_changed_is_not_resumed(folders: dict[str, Path]) -> None:
    model = _begin(folders["llama"])
    state = {key: tensor.clone() for key, tensor in method_named("irqlora").state(model).items()}
    method_named("irqlora").restore(model, state)
    next(iter(state.values()))[0] += 1
    with pytest.raises(FinbenchError, match="not those that this run began with"):
        method_named("irqlora").restore(model, state)


@pytest.mark.parametrize(
    ("stated", "message", "hint"),
    [
        ({}, r"q_proj has 96 inputs, which blocks of 64 do not divide", "icq=false"),
        ({"icq": "no"}, "icq is true or false", "icq=false"),
        ({"icq": False, "spread": 0}, "spread must be", "spread=0.1"),
        ({"icq": False, "use_dora": True}, "layers of its own", "Leave it out"),
        ({"bits": 16}, "its shifts and connections are for NF4", "--bits 4"),
    ],
    ids=str,
)
def test_it_is_refused_before_any_weight_is_loaded(
    stated: dict[str, Any], message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_llama(tmp_path / "llama", hidden=96)
    monkeypatch.setattr(bases, "load", None)
    with pytest.raises(FinbenchError, match=message) as caught:
        runner.prepare(recipe(base, **stated))
    assert hint in caught.value.hint


def test_without_shifts_any_width_will_do(tmp_path: Path) -> None:
    runner.prepare(recipe(make_llama(tmp_path / "llama", hidden=96), icq=False))


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_no_block_of_the_embedded_base_loses_entropy() -> None:
    """All 1,658,880 blocks of all 210 layers."""
    model, _ = bases.load(bases.resolve("smollm2-135m", "wheel"), 16, torch.bfloat16)
    blocks, gain = 0, 0.0
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            weight = layer.weight.data.float()
            tau = icq.expand(*icq.calibrate(weight, 0.1), (weight.shape[0], weight.shape[1]))
            plain = icq.entropy(icq.codes(icq.quantised(weight, torch.zeros_like(tau))[0]))
            found = icq.entropy(icq.codes(icq.quantised(weight, tau)[0]))
            assert (found >= plain).all(), name
            blocks, gain = blocks + len(found), gain + float((found - plain).sum())
    assert blocks == 1_658_880
    assert gain / blocks > 0.04
