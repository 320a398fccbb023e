"""Formats of weights: read from a checkpoint, derived for cards that state none, asked for by name, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_quantised import checkpoint, make_quantised

from conftest import make_lora
from finbench.cards import cardfiles, render
from finbench.cli import app
from finbench.core import formats
from finbench.core.errors import FinbenchError
from finbench.core.records import BaseModelId, Quantised, Subject
from finbench.core.seal import edited
from finbench.core.settings import Evaluation
from finbench.engines.vllm import installation, parity
from finbench.evaluation import preflight
from finbench.evaluation.subjects import candidates
from finbench.grid import sweepfile
from finbench.methods import method_named
from finbench.models import bases, described
from finbench.training import merging, recipes, runner

ROOT = Path(__file__).parent.parent
GROUPS = {"group_0": {"weights": {"num_bits": 8, "group_size": 128}}}
READ: list[tuple[dict[str, Any], Quantised, str]] = [
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, Quantised(method="awq", bits=4, group=128), "awq"),
    ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, Quantised(method="awq", bits=4, group=64), "awq"),
    ({"quant_method": "gptq", "bits": 8, "group_size": -1}, Quantised(method="gptq", bits=8), "gptq"),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Quantised(method="fp8", bits=8), "fp8"),
    (
        {"quant_method": "compressed-tensors", "config_groups": GROUPS},
        Quantised(method="compressed-tensors", bits=8, group=128),
        "compressed-tensors",
    ),
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        Quantised(method="bitsandbytes", bits=4, group=64),
        "nf4",
    ),
    ({"load_in_8bit": True}, Quantised(method="bitsandbytes", bits=8), "int8"),
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        Quantised(method="bitsandbytes-fp4", bits=4, group=64),
        "fp4",
    ),
    # a stranger's file may say anything
    ({"quant_method": "<b>x</b>" * 40, "bits": True, "group_size": 10**30}, Quantised(method="b-x-b-" * 6 + "b-x"), ""),
    ({"quant_method": None, "bits": "4", "config_groups": 7}, Quantised(method="unknown-method"), "unknown-method"),
]  # fmt: skip


@pytest.mark.parametrize(("stated", "found", "name"), READ, ids=[name or "hostile" for _, _, name in READ])
def test_a_checkpoint_is_known_by_its_config(
    stated: dict[str, Any], found: Quantised, name: str, llama: Path, tmp_path: Path
) -> None:
    base = bases.resolve(str(checkpoint(llama, tmp_path / "made", stated)))
    assert base.id.quantised == found
    assert not name or found.format == name
    assert BaseModelId.parse(json.loads(base.id.to_json()), "again") == base.id
    subject = Subject(name="q", base=base.id)
    assert render.describe_subject(subject) == f"base, {found.format}"
    whole = subject.model_copy(update={"kind": "model"})  # what was made of it has weights of its own
    assert whole.stored is None


ODD = ("awq", ["awq"], {}, "", 7, False)


@pytest.mark.parametrize("stated", ODD, ids=repr)
@pytest.mark.parametrize("command", ["eval", "eval --adapter", "train", "plan", "merge", "export"])
def test_a_quantisation_that_is_no_object_is_one_line(
    command: str, stated: Any, llama: Path, lora: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(llama, tmp_path / "odd", stated, codes=None)
    monkeypatch.chdir(tmp_path)
    typed = {
        "eval": "eval --model ./odd --tasks mini_sentiment --out out",
        "eval --adapter": f"eval --adapter {lora} --base ./odd --tasks mini_sentiment --out out",
        "train": "train --task mini_sentiment --base ./odd --out out",
        "plan": "plan --task mini_sentiment --base ./odd",
        "merge": f"merge {lora} --base ./odd --bits 16 --out out",
        "export": f"export {lora} --base ./odd --bits 16 --out out",
    }[command]
    monkeypatch.setattr("sys.argv", ["finbench", *typed.split()])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert (
        f"error: odd/config.json: quantization_config is {json.dumps(stated)}; an object with quant_method is" in said
    )
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_quantisation_within_a_model_that_reads_more_than_text_counts(llama: Path, tmp_path: Path) -> None:
    made = checkpoint(llama, tmp_path / "odd", None, None, text_config={"quantization_config": "awq"})
    with pytest.raises(
        FinbenchError, match=r"text_config.quantization_config is .awq.; an object with quant_method is expected"
    ):
        described.quantised(made)
    stated = {"quant_method": "fp8"}
    made = checkpoint(llama, tmp_path / "fp8", None, "fp8", text_config={"quantization_config": stated})
    assert described.quantised(made) == Quantised(method="fp8", bits=8)
    assert described.quantised(checkpoint(llama, tmp_path / "null", None, None)) is None


@pytest.mark.parametrize("codes", ["awq", "gptq", "compressed-tensors", "int8", "fp8"])
def test_what_is_stated_must_be_stored_so(codes: str, llama: Path, tmp_path: Path) -> None:
    """Each kind of checkpoint as it is made, under every other's name, and under none."""
    made, plain = make_quantised(codes, tmp_path, llama)
    own = bases.resolve(str(made)).id.quantised
    assert own is not None
    assert own.method == ("compressed-tensors" if codes == "int8" else codes)
    config = json.loads((plain / "config.json").read_text())
    alike = {"awq": "gptq", "gptq": "awq", "int8": "bitsandbytes"}.get(codes)  # by names and dtypes alone
    for method in ("awq", "gptq", "compressed-tensors", "fp8", "bitsandbytes", "mxfp4", "gguf"):
        stated = {"quant_method": method, "load_in_8bit": method == "bitsandbytes"}
        for folder in (made, plain):
            (folder / "config.json").write_text(json.dumps({**config, "quantization_config": stated}))
        with pytest.raises(FinbenchError, match=f"quantised by {method}, and no tensor is stored so: they are F16"):
            bases.resolve(str(plain))
        if method in (own.method, alike) or (codes == "fp8" and method in ("compressed-tensors", "bitsandbytes")):
            continue
        with pytest.raises(FinbenchError, match=f"quantised by {method}, and no tensor is stored so: they are ") as no:
            bases.resolve(str(made))
        assert "\n" not in no.value.message
    (made / "config.json").write_text(json.dumps(config))
    if codes in ("int8", "fp8"):  # which would be read as numbers, without their scales
        with pytest.raises(FinbenchError, match="has quantised weights .*_proj.weight (I8|F8_E4M3)., and config.json"):
            bases.resolve(str(made))


def test_cards_that_state_no_format_have_one_and_stay_what_they_are() -> None:
    """Seal, run key and bytes: nothing of a card changes by what is derived."""
    found = set()
    for path in sorted((ROOT / "leaderboards").rglob("scorecards/**/*.json")):
        card = cardfiles.read(path)
        found.add((card.subject.bits, card.dtype, card.format))
        assert edited(cardfiles.raw(path)) == []
        assert cardfiles.run_key(card) == card.run_key
        assert "quantised" not in card.to_json()
    assert found == {(16, "bfloat16", "bf16"), (4, "bfloat16", "nf4")}


def test_a_dtype_of_a_stranger_is_no_format() -> None:
    assert [formats.of_dtype(name) for name in ("float32", "float16", "auto", "|<b>", "x" * 99, "")] == [
        "fp32", "fp16", "auto", "unknown", "unknown", "unknown",
    ]  # fmt: skip


def test_how_a_base_is_stored_is_no_part_of_the_run_key() -> None:
    """Its fingerprint covers it, and cards from before did not say it."""
    card = cardfiles.read(next((ROOT / "leaderboards" / "scorecards").rglob("*.json")))
    base = card.subject.base.model_copy(update={"quantised": Quantised(method="awq", bits=4)})
    other = card.model_copy(update={"subject": card.subject.model_copy(update={"base": base})})
    assert cardfiles.run_key(other) == cardfiles.run_key(card)
    assert '"quantised"' in other.to_json()
    assert '"quantised"' not in card.to_json()


def test_a_recipe_asks_for_a_format_by_its_name(tmp_path: Path) -> None:
    task = {"tasks": "mini_sentiment"}
    for name, bits in (("nf4", 4), ("NF4", 4), ("int8", 8), ("bf16", 16)):
        assert recipes.recipe(None, {**task, "format": name}).bits == bits
    (tmp_path / "r.yaml").write_text("tasks: {mini_sentiment: 1}\nformat: nf4\n")
    assert recipes.recipe(str(tmp_path / "r.yaml")).bits == 4
    with pytest.raises(FinbenchError, match="bits 8 and format nf4 say two things"):
        recipes.recipe(None, {**task, "format": "nf4", "bits": 8})
    with pytest.raises(FinbenchError, match="format awq is how a checkpoint is stored") as fault:
        recipes.recipe(None, {**task, "format": "awq"})
    assert "Name a base that is stored so" in fault.value.hint
    with pytest.raises(FinbenchError, match=r"No format 'nf5' \(did you mean nf4\?\)"):
        formats.bits_of("nf5")


def test_a_format_of_numbers_is_computed_in() -> None:
    task = {"tasks": "mini_sentiment"}
    asked = {name: recipes.recipe(None, {**task, "format": name}).dtype for name in ("bf16", "FP16", "fp32", "nf4")}
    assert asked == {"bf16": "bfloat16", "FP16": "float16", "fp32": "float32", "nf4": recipes.recipe(None, task).dtype}
    assert recipes.recipe(None, {**task, "format": "fp32", "dtype": "float32"}).dtype == "float32"
    with pytest.raises(FinbenchError, match="dtype bfloat16 and format fp32 say two things"):
        recipes.recipe(None, {**task, "format": "fp32", "dtype": "bfloat16"})


def test_formats_are_an_axis_of_a_sweep(tmp_path: Path) -> None:
    axes = {"format": ["bf16", "nf4"], "task": ["mini_sentiment"]}
    (tmp_path / "s.yaml").write_text(json.dumps({"name": "s", "axes": axes, "eval": {"limit": 4}}))
    found = sweepfile.cells(sweepfile.read(tmp_path / "s.yaml"))
    assert [cell.recipe.bits for cell in found] == [16, 4]
    assert [cell.name.rpartition("-s")[0][-5:] for cell in found] == ["16bit", "-4bit"]
    axes["format"] = ["fp32", "bf16"]
    (tmp_path / "s.yaml").write_text(json.dumps({"name": "s", "axes": axes, "eval": {"limit": 4}}))
    found = sweepfile.cells(sweepfile.read(tmp_path / "s.yaml"))
    assert [cell.recipe.dtype for cell in found] == ["float32", "bfloat16"]


def test_what_cannot_train_says_so_before_weights_are_read(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awq = {"quant_method": "awq", "bits": 4, "group_size": 32}
    made = checkpoint(llama, tmp_path / "awq", awq)
    monkeypatch.setattr(bases, "load", None)

    def refused(**stated: Any) -> FinbenchError:
        with pytest.raises(FinbenchError) as fault:
            runner.prepare(recipes.recipe(None, {"base": str(made), "tasks": "mini_sentiment", "limit": 8, **stated}))
        return fault.value

    said = refused(method="dora")
    assert said.message == (
        "awq is quantised by awq to 4 bits in groups of 32: on that lora, rslora, lora+ and lora-fa are trained, "
        "not dora."
    )
    assert said.hint.startswith("--method lora, or: train on the model as it was before")
    assert "would quantise it again" in refused(bits=4).message
    assert "gptqmodel" in refused().message + refused().hint
    checkpoint(llama, tmp_path / "fp8", {"quant_method": "fp8"})
    made = tmp_path / "fp8"
    assert "quantised by fp8 to 8 bits: it can be scored, and no adapter is trained on it" in refused().message


@pytest.mark.parametrize(
    ("method", "options", "beside"),
    [
        *((name, {}, True) for name in ("lora", "rslora", "lora+", "lora-fa")),
        *((name, {}, False) for name in ("dora", "pissa", "olora", "eva", "vera", "full", "adalora")),
        ("lora", {"init_lora_weights": "mica"}, False),
        ("rslora", {"use_dora": True}, False),
    ],
)
def test_only_a_lora_that_looks_at_no_weights_is_trained_beside_codes(
    method: str, options: dict[str, Any], beside: bool
) -> None:
    recipe = recipes.recipe(None, {"tasks": "mini_sentiment"}).model_copy(update={"options": options})
    assert method_named(method).on_codes(recipe) is beside


def test_nothing_is_merged_into_codes(llama: Path, tmp_path: Path) -> None:
    made = checkpoint(llama, tmp_path / "q", {"quant_method": "bitsandbytes", "load_in_4bit": True})
    lora = make_lora(tmp_path / "lora", llama, "org/t", r=4)
    with pytest.raises(FinbenchError, match="quantised by .* rounded to codes, the update would be lost") as fault:
        merging.merge(str(lora), tmp_path / "out", base=str(made))
    assert "--base" in fault.value.hint
    assert not (tmp_path / "out").exists()


def test_what_vllm_cannot_hold_is_refused_with_the_reason(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = make_lora(tmp_path / "lora", llama, "org/t", r=4)
    there: dict[str, str] = {}
    monkeypatch.setattr(installation, "package", there.get)

    def faults(bits: Any, dtype: Any = "bfloat16", base: Path = llama) -> str:
        found, _ = candidates(Evaluation([str(lora)], base=str(base), bits=bits, engine="vllm"))
        return "\n".join(preflight._against_format(found[-1], dtype, merged=False))

    assert faults(16) == ""
    assert faults(4) == "vLLM loads nf4 by a plugin: pip install --no-deps vllm-bnb-plugin"
    there[installation.BITSANDBYTES] = "0.0.3"
    assert faults(4) == ""
    assert faults(4, "float32") == "NF4 layers compute in bfloat16 in vLLM, not in float32: --arg dtype=bfloat16"
    assert faults(8).startswith("vLLM's loader for bitsandbytes makes NF4 alone, not int8; --bits 16")
    awq = checkpoint(llama, tmp_path / "awq", {"quant_method": "awq", "bits": 4, "group_size": 32})
    monkeypatch.setattr(described.importlib.util, "find_spec", lambda name: None)
    assert faults(None, base=awq) == (
        "vLLM's answers are held against peft's: awq is quantised by awq to 4 bits in groups of 32, which transformers "
        "loads by gptqmodel: gptqmodel is not installed. pip install gptqmodel"
    )
    assert faults(4, base=awq) == "its base is quantised by awq to 4 bits in groups of 32 already: leave --bits out"
    found, _ = candidates(Evaluation(model=str(awq), engine="vllm"))
    assert preflight._against_format(found[0], "bfloat16", merged=False) == []


def test_nf4_is_held_against_transformers_by_the_labels_too(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base and adapter, on the quantised base; another base than that is told from it."""
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path))
    on, lora = bases.resolve(str(llama)), make_lora(tmp_path / "lora", llama, "org/t", r=4)
    known = parity.references(on, [lora], "float32", 4)
    assert list(known) == [lora, None]
    labels = [bases.load_tokenizer(on).encode(text, add_special_tokens=False)[0] for text in parity.LABELS]
    assert all({*labels} <= {*row} for one in known.values() for row in one.ids)
    plain = parity.references(on, [lora], "float32")
    assert list(plain) == [lora]
    assert plain[lora].own != known[lora].own

    def said(who: Path | None, ids: list[list[int]]) -> list[list[float]]:
        one = next(one for one in known.values() if one.ids == ids)
        return one.own if who else one.base

    gaps = parity.check(known, said, "float32")
    assert gaps == {lora: 0.0, None: 0.0}
    off = [[value + 0.01 for value in row] for row in known[None].own]
    with pytest.raises(FinbenchError, match="The base is served wrongly"):
        parity.check({None: known[None]}, lambda who, ids: off, "float32")
