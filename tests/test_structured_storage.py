"""Structured models on disk: they come back as they were, nothing else loads them, and a dense copy loads anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, Subject
from finbench.evaluation import evaluator, preflight
from finbench.evaluation.subjects import Candidate
from finbench.models import adapters, attaching, bases, modelfiles
from finbench.models.structured import counts, modules, storage, surgery
from finbench.models.structured.structures import Structure
from finbench.training import merging, recipes
from finbench.training.runner import train

IDS = torch.arange(3, 43).reshape(2, 20)
KINDS = ("lowrank", "cola", "sltrain")


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.float()


def _structured(base: Path, kind: str = "lowrank", **more: Any) -> tuple[Any, Structure]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    structure = Structure(kind=kind, **{"rank": 12, **more})
    surgery.restructure(model, structure)
    return model, structure


def _saved(base: Path, folder: Path, kind: str = "lowrank", **more: Any) -> Path:
    model, structure = _structured(base, kind, **more)
    storage.save(model, folder, AutoTokenizer.from_pretrained(base), structure=structure)
    return folder


@pytest.fixture(scope="module")
def factors(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny Llama as low-rank factors; do not write into it."""
    return _saved(llama, tmp_path_factory.mktemp("factors") / "tiny")


@pytest.fixture
def copied(factors: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return shutil.copytree(factors, tmp_path / "copied")


# ---------------------------------------------------------------- round trips


def test_every_kind_comes_back_in_a_fresh_process(llama: Path, gpt2: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom finbench.models.structured import storage\n"
        "ids = torch.arange(3, 43).reshape(2, 20)\n"
        "with torch.no_grad():\n"
        "    found = {p: storage.load(Path(p))(input_ids=ids).logits for p in sys.argv[2:]}\n"
        "torch.save(found, sys.argv[1])\n"
    )
    expected = {}
    for base in (llama, gpt2):
        for kind in KINDS:
            model, structure = _structured(base, kind)
            folder = tmp_path / f"{base.name}-{kind}"
            stored = storage.save(model, folder, structure=structure)
            assert stored == storage.read(folder)
            assert stored.parameters == surgery.parameters(model)
            expected[str(folder)] = _logits(model)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "found.pt"), *expected], check=True, capture_output=True)
    found = torch.load(tmp_path / "found.pt")
    assert all(torch.equal(found[folder], expected[folder]) for folder in expected)


def test_a_loaded_model_is_of_the_class_of_transformers_tied_and_trainable(factors: Path) -> None:
    model = storage.load(factors)
    assert type(model).__module__ == "transformers.models.llama.modeling_llama"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not model.training
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert storage.load(factors, torch.bfloat16).dtype == torch.bfloat16


def test_frobenius_decay_and_scale_survive(llama: Path, tmp_path: Path) -> None:
    model, structure = _structured(llama, "sltrain", frobenius_decay=0.25, alpha=8.0)
    storage.save(model, tmp_path / "a", structure=structure)
    again = storage.load(tmp_path / "a")
    one, other = modules.penalty(model), modules.penalty(again)
    assert one is not None
    assert other is not None
    assert one.item() == other.item() > 0
    assert {layer.scale for layer in modules.layers(again).values()} == {8 / 12}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_int8_and_nf4_are_as_large_as_computed(
    base: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import bitsandbytes as bnb

    model, structure = _structured(request.getfixturevalue(base), kind)
    before, sizes = _logits(model), {}
    kinds: dict[Any, Any] = {8: bnb.nn.Linear8bitLt, 4: bnb.nn.Linear4bit}
    for bits in (16, 8, 4):
        folder = tmp_path / str(bits)
        storage.save(model, folder, structure=structure, bits=bits)  # type: ignore[arg-type]
        tensors = load_file(folder / modelfiles.FACTORISED)
        described = [name for name in tensors if ".quant_state." in name]  # bitsandbytes' own note on a layer
        data = sum(t.numel() * t.element_size() for name, t in tensors.items() if name not in described)
        assert data == counts.stored_bytes(model, bits)
        assert sum(tensors[name].numel() for name in described) < 200 * max(1, len(described))
        sizes[bits] = (folder / modelfiles.FACTORISED).stat().st_size
        again = storage.load(folder)
        layer = next(iter(modules.layers(again).values()))
        assert bits == 16 or type(layer.down) is kinds[bits]
        assert (_logits(again) - before).norm() / before.norm() < {16: 1e-9, 8: 0.05, 4: 0.5}[bits]
        assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert sizes[16] > sizes[8]


def test_larger_layers_take_a_quarter_and_an_eighth_of_float32(tmp_path: Path) -> None:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=64, n_positions=32, n_embd=512, n_layer=1, n_head=4)
    model = AutoModelForCausalLM.from_config(config)
    structure = Structure(rank=0.25, init="kaiming")
    surgery.restructure(model, structure)
    sizes = {}
    for bits in (16, 8, 4):
        storage.save(model, tmp_path / str(bits), structure=structure, bits=bits)  # type: ignore[arg-type]
        sizes[bits] = (tmp_path / str(bits) / modelfiles.FACTORISED).stat().st_size
    assert sizes[16] / sizes[8] == pytest.approx(3.6, abs=0.3)
    assert sizes[16] / sizes[4] == pytest.approx(6.2, abs=0.6)


# ---------------------------------------------------------------- what others make of it


def test_other_programs_refuse_the_factors(factors: Path) -> None:
    from transformers import LlamaForCausalLM

    with pytest.raises(ValueError, match="finbench_factorised"):
        AutoConfig.from_pretrained(factors)
    with pytest.raises(ValueError, match="finbench_factorised"):
        AutoModelForCausalLM.from_pretrained(factors)
    with pytest.raises(OSError, match="safetensors"):
        LlamaForCausalLM.from_pretrained(factors)
    base = bases.resolve(str(factors))
    faults = preflight.against(Candidate(Subject(name="x", base=base.id), base, None))
    assert any("stored as low-rank factors" in fault for fault in faults)


@pytest.mark.parametrize("kind", ["lowrank", "sltrain"])
@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_the_dense_copy_loads_by_transformers_alone_and_says_the_same(
    base: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(base)
    folder = _saved(source, tmp_path / "factors", kind)
    storage.export_dense(folder, tmp_path / "dense")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert (_logits(model) - _logits(storage.load(folder))).abs().max() < 1e-5
    assert surgery.parameters(model) == storage.read(folder).dense_parameters
    assert AutoTokenizer.from_pretrained(tmp_path / "dense").vocab_size == 600
    written = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert written["model_type"] == json.loads((source / "config.json").read_text())["model_type"]
    assert str(tmp_path) not in (tmp_path / "dense" / "config.json").read_text()
    made = merging.merge(str(folder), tmp_path / "merged", dtype="float32")
    assert isinstance(made, merging.DenseCopy)
    assert made.largest_difference < 1e-5
    assert made.dense_parameters > made.parameters
    assert bases.resolve(str(tmp_path / "merged")).id.structure is None


def test_what_has_no_dense_copy_is_refused(llama: Path, tmp_path: Path) -> None:
    _saved(llama, tmp_path / "cola", "cola")
    with pytest.raises(FinbenchError, match="non-linearity between its factors"):
        storage.export_dense(tmp_path / "cola", tmp_path / "out")
    model, structure = _structured(llama)
    storage.save(model, tmp_path / "eight", structure=structure, bits=8)
    with pytest.raises(FinbenchError, match="quantised"):
        storage.export_dense(tmp_path / "eight", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FinbenchError, match="exists already"):
        storage.export_dense(tmp_path / "cola", tmp_path / "eight")
    with pytest.raises(FinbenchError, match="no low-rank structure"):
        storage.save(AutoModelForCausalLM.from_pretrained(llama), tmp_path / "plain", structure=structure)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FinbenchError, match="holds other files"):
        storage.save(model, tmp_path / "mine", structure=structure)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    storage.save(model, tmp_path / "eight", structure=structure)  # factors give way to factors
    assert storage.read(tmp_path / "eight").bits == 16


def test_the_fingerprint_knows_what_is_computed_with_the_same_tensors(llama: Path, tmp_path: Path) -> None:
    folder = _saved(llama, tmp_path / "one")
    assert modelfiles.fingerprint(folder) == modelfiles.fingerprint(shutil.copytree(folder, tmp_path / "same"))
    stated = json.loads((folder / "structure.json").read_text())
    stated["structure"]["kind"] = "cola"
    (tmp_path / "same" / "structure.json").write_text(json.dumps(stated))
    assert modelfiles.fingerprint(folder) != modelfiles.fingerprint(tmp_path / "same")
    assert not torch.equal(_logits(storage.load(folder)), _logits(storage.load(tmp_path / "same")))


# ---------------------------------------------------------------- as a base


@pytest.mark.parametrize("kind", ["lowrank", pytest.param("cola", marks=pytest.mark.slow), "sltrain"])
def test_an_adapter_is_trained_on_the_factors_merged_back_and_evaluated(kind: str, llama: Path, tmp_path: Path) -> None:
    folder = _saved(llama, tmp_path / "factors", kind)
    stated = {
        "base": str(folder), "tasks": ["mini_sentiment"], "limit": 48, "batch_size": 8, "rank": 4, "dtype": "float32",
        "lr": 1e-2, "target_modules": ["q_proj", "up_proj"],
    }  # fmt: skip
    made = train(recipes.recipe(None, stated), tmp_path / "a")
    assert isinstance(made, Adapter)
    assert made.recipe.target_modules == ["q_proj.down", "q_proj.up", "up_proj.down", "up_proj.up"]
    assert made.training.final_loss < made.training.loss_curve[0][1]
    merged = merging.merge(str(tmp_path / "a"), tmp_path / "merged", base=str(folder), dtype="float32")
    assert merged.merge is not None
    assert merged.merge.largest_difference < 1e-4
    assert adapters.read(tmp_path / "merged").kind == "model"
    beside = attaching.attach(bases.load(bases.resolve(str(folder)), 16, torch.float32)[0], tmp_path / "a")
    whole = storage.load(tmp_path / "merged")
    assert (_logits(beside) - _logits(whole)).abs().max() < 1e-4
    assert (_logits(whole) - _logits(storage.load(folder))).abs().max() > 1e-3
    named = [str(tmp_path / "a"), str(tmp_path / "merged")]
    chosen = {"engine": "hf", "arguments": {"dtype": "float32"}, "limit": 8, "out": tmp_path / "cards"}
    cards = evaluator.evaluate(named, base=str(folder), tasks=["mini_sentiment"], **chosen)
    values = {card.subject.kind: card.scores[0].metrics for card in cards if card.subject.adapter}
    assert values["peft"] == values["model"]
    structure = cards[0].subject.base.structure
    assert structure is not None
    assert structure.startswith(f"{kind}, rank 12 in 14 layers, ")
    assert structure in (tmp_path / "cards" / "report.md").read_text()
    assert structure in (tmp_path / "a" / "README.md").read_text()


def test_a_quantised_folder_is_loaded_in_its_own_bits(llama: Path, tmp_path: Path) -> None:
    model, structure = _structured(llama)
    storage.save(model, tmp_path / "eight", AutoTokenizer.from_pretrained(llama), structure=structure, bits=8)
    base = bases.resolve(str(tmp_path / "eight"))
    with pytest.raises(FinbenchError, match="stored in 8 bits, not in 16") as caught:
        bases.load(base, 16, torch.float32)
    assert caught.value.hint == "Say so: --bits 8"
    assert torch.equal(_logits(bases.load(base, 8, torch.float32)[0]), _logits(storage.load(tmp_path / "eight")))
    shutil.rmtree(tmp_path / "eight")
    folder = _saved(llama, tmp_path / "plain")
    quantised = bases.load(bases.resolve(str(folder)), 4, torch.float32)[0]  # quantised when it is loaded
    assert type(next(iter(modules.layers(quantised).values())).up).__name__ == "Linear4bit"


def test_a_method_that_makes_a_whole_model_is_refused(factors: Path, tmp_path: Path) -> None:
    stated = {"base": str(factors), "tasks": ["mini_sentiment"], "method": "full", "lr": 1e-3}
    with pytest.raises(FinbenchError, match="stored as low-rank factors; method full"):
        train(recipes.recipe(None, stated), tmp_path / "a")


# ---------------------------------------------------------------- files of strangers


def _edit(folder: Path, name: str = "structure.json", **changed: Any) -> None:
    stated = json.loads((folder / name).read_text())
    for key, value in changed.items():
        part, where = stated, key.split("__")
        for step in where[:-1]:
            part = part[int(step) if step.isdigit() else step]
        part[where[-1]] = value
    (folder / name).write_text(json.dumps(stated))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schema": 99}, "newer finbench"),
        ({"more": 1}, "unknown key 'more'"),
        ({"model_type": "gpt3"}, "model type that is not known"),
        ({"model_type": "bert"}, "does not fit|no causal language model|no layer"),
        ({"layers": []}, "layers"),
        ({"structure__kind": "dense"}, "dense"),
        ({"structure__kind": "sltrain"}, "cannot have 0 sparse values"),
        ({"layers__0__name": "lm_head"}, "no layer 'lm_head'"),
        ({"layers__0__name": "model.layers.1.self_attn.q_proj"}, "names a layer twice"),
        ({"layers__0__rank": 10**9}, "does not fit the sizes"),
        ({"layers__0__rank": 11}, "counts other parameters"),
        ({"layers__0__inputs": 10**12}, "does not fit the sizes"),
        ({"layers__0__form": "Conv1D"}, "does not fit the sizes"),
        ({"layers__0__bias": True}, "does not fit the sizes"),
        ({"layers__0__entries": 10**12}, "cannot have 1,000,000,000,000 sparse values"),
        ({"layers__0__scale": 1e999}, "scale|torn"),
        ({"parameters": 10}, "counts other parameters"),
    ],
)
def test_a_structure_of_a_stranger_that_does_not_hold_together_is_refused(
    changed: dict[str, Any], said: str, copied: Path
) -> None:
    _edit(copied, **changed)
    with pytest.raises(FinbenchError, match=said):
        storage.load(copied)


def test_tensors_that_are_not_those_of_the_structure_are_refused(copied: Path) -> None:
    path = copied / modelfiles.FACTORISED
    good = load_file(path)
    name = "model.layers.0.self_attn.q_proj.down.weight"
    for bad, said in (
        ({key: tensor for key, tensor in good.items() if key != name}, "lacks weights"),
        ({**good, "more": torch.zeros(1)}, "more belongs to no layer"),
        ({**good, name + ".absmax": torch.zeros(1)}, "belongs to no layer"),
        ({**good, name: torch.zeros(3, 64)}, r"has the shape \[3, 64\], not \[12, 64\]"),
    ):
        save_file(bad, path)
        with pytest.raises(FinbenchError, match=said):
            storage.load(copied)
    save_file({**good, name: torch.full((12, 64), float("nan"))}, path)
    with pytest.raises(FinbenchError, match="not finite"):
        bases.load(bases.resolve(str(copied)), 16, torch.float32)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(FinbenchError, match="pickle under another name"):
        storage.load(copied)
    path.unlink()
    with pytest.raises(FinbenchError, match="incomplete"):
        bases.resolve(str(copied))


def test_a_configuration_of_a_stranger_runs_nothing(copied: Path) -> None:
    _edit(copied, "config.json", auto_map={"AutoModel": "evil.py"})
    with pytest.raises(FinbenchError, match="asks to run code"):
        storage.load(copied)
    _edit(copied, "config.json", auto_map=None, num_hidden_layers=10**6)
    with pytest.raises(FinbenchError, match="no model has so many"):
        storage.load(copied)
    _edit(copied, "config.json", num_hidden_layers=2, model_type="llama")
    with pytest.raises(FinbenchError, match="model type that is not known"):
        storage.load(copied)


@pytest.mark.parametrize("places", ["outside", "negative", "twice"])
def test_a_support_that_points_outside_its_matrix_is_refused(places: str, llama: Path, tmp_path: Path) -> None:
    folder = _saved(llama, tmp_path / "s", "sltrain")
    tensors = load_file(folder / modelfiles.FACTORISED)
    support = tensors["model.layers.1.mlp.up_proj.support"]
    support[-1] = {"outside": 64 * 128, "negative": -1, "twice": int(support[-2])}[places]
    save_file(tensors, folder / modelfiles.FACTORISED)
    with pytest.raises(FinbenchError, match="support of model.layers.1.mlp.up_proj"):
        storage.load(folder)
