"""On a real GPU (``-m gpu``): memory as torch and vLLM have it, adapters beside their base, two GPUs, a dead parent."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_vllm_on_gpu import asks, nothing

from conftest import make_llama, make_lora
from finbench.core import environment
from finbench.core.errors import FinbenchError
from finbench.core.settings import Evaluation
from finbench.engines.vllm import memory
from finbench.engines.vllm.engine import VLLMEngine
from finbench.evaluation import evaluator
from finbench.evaluation.subjects import candidates
from finbench.grid import work
from finbench.models import bases
from finbench.serving import api, vllm_server
from finbench.training import machines

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with the head size of large ones."""
    return make_llama(tmp_path_factory.mktemp("gpu") / "llama-512", hidden=512)


@pytest.fixture(scope="module")
def zoo(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs on it, of unlike ranks."""
    folder = tmp_path_factory.mktemp("zoo")
    return [make_lora(folder / f"lora{rank}", base, "org/t", seed=rank, r=rank) for rank in (8, 64)]


def scored(base: Path, zoo: list[Path], out: Path, engine: str, **more: Any) -> list[Any]:
    names = [str(one) for one in zoo]
    return evaluator.evaluate(
        names, base=str(base), tasks=["mini_sentiment"], limit=24, out=out, engine=engine, reports=False, **more
    )


def test_what_torch_keeps_counts_as_free() -> None:
    before = environment.free_memory()
    tensor = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    taken = environment.free_memory()
    assert before - taken == pytest.approx(2**30, rel=0.1)
    del tensor  # the driver does not get it back
    assert torch.cuda.mem_get_info()[0] < before - 2**29
    assert environment.free_memory() == pytest.approx(before, rel=0.02)
    torch.cuda.empty_cache()


def test_codes_of_four_bits_are_counted_one_by_one(base: Path) -> None:
    found = bases.resolve(str(base))
    model, _ = bases.load(found, 4, torch.float16)
    assert bases.parameter_count(model) == sum(tensor.numel() for tensor in bases.skeleton(found).parameters())


def test_transformers_keep_to_a_share(base: Path, zoo: list[Path], tmp_path: Path) -> None:
    before = torch.cuda.get_per_process_memory_fraction()
    cards = scored(base, zoo, tmp_path / "h", "hf", gpu_memory=0.5)
    assert all(card.peak_memory_bytes > 0 for card in cards)
    assert torch.cuda.get_per_process_memory_fraction() == before
    with pytest.raises(FinbenchError, match="does not fit into the GPU"):
        scored(base, [], tmp_path / "s", "hf", gpu_memory=1e-6)


def test_a_step_of_a_grid_keeps_to_its_share() -> None:
    before = torch.cuda.get_per_process_memory_fraction()
    try:
        work._take_share({"gpus": 0.5})
        assert torch.cuda.get_per_process_memory_fraction() == 0.5
        total = torch.cuda.get_device_properties(0).total_memory
        assert environment.free_memory() <= 0.5 * total
        assert machines.here()[1].memory == pytest.approx(0.5 * total / machines.GIB)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(0.6 * total), dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(before)


@needs_vllm
def test_slots_and_length_are_what_the_card_has_room_for(base: Path, zoo: list[Path]) -> None:
    engine = VLLMEngine(bases.resolve(str(base)), zoo, gpu_memory=0.3)
    try:
        assert engine.settings["engine"]["max_loras"] == len(zoo)
        assert engine.settings["engine"]["max_lora_rank"] == 64
        [worker] = engine._started().workers
        assert worker.max_length == 512  # the context of the base: there is room for all of it
        assert worker.memory > 0
        assert set(engine.gaps) == set(zoo)
    finally:
        engine.close()


@needs_vllm
def test_adapters_take_turns_where_there_is_one_slot(
    base: Path, zoo: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FOR_ADAPTERS", 0.0)
    engine = VLLMEngine(bases.resolve(str(base)), zoo, gpu_memory=0.3)
    try:
        assert engine.settings["engine"]["max_loras"] == 1
        engine._started()
        assert set(engine.gaps) == set(zoo)  # each was asked, and answered as peft does
    finally:
        engine.close()


@needs_vllm
def test_a_context_too_long_for_the_card_is_cut_to_what_it_has_room_for(tmp_path: Path) -> None:
    """64 kB of keys and values a token are 8 GiB for all of it, and vLLM may take 6."""
    long = make_llama(tmp_path / "long", layers=64, hidden=512, context=131072)
    share = 6 * 2**30 / torch.cuda.get_device_properties(0).total_memory
    engine = VLLMEngine(bases.resolve(str(long)), [], gpu_memory=share)
    try:
        [text] = engine.answer([asks("Sales rose.", 8)], nothing)
        [worker] = engine._started().workers
        assert isinstance(text, str)
        assert 512 < worker.max_length < 131072
        with pytest.raises(FinbenchError, match="vLLM has room for"):
            engine.answer([asks("profit " * worker.max_length, 8)], nothing)
    finally:
        engine.close()


BATCHES = """
import json, sys
from finbench.engines.vllm import worker
stated = json.loads(sys.argv[1])
engine, _ = worker.start({"engine": stated, "adapters": []})
from vllm import EngineArgs
from vllm.usage.usage_lib import UsageContext
server = EngineArgs(**stated).create_engine_config(UsageContext.OPENAI_API_SERVER)
both = (engine.vllm_config.scheduler_config, server.scheduler_config)
print(json.dumps([[one.max_num_seqs, one.max_num_batched_tokens] for one in both]))
"""


@needs_vllm
def test_the_batches_are_those_of_an_offline_engine(base: Path) -> None:
    stated = json.dumps(VLLMEngine(bases.resolve(str(base)), [], gpu_memory=0.3).settings["engine"])
    done = subprocess.run([sys.executable, "-c", BATCHES, stated], capture_output=True, text=True, check=True)
    (rows, tokens), (few, fewer) = json.loads(done.stdout.strip().splitlines()[-1])
    assert rows >= few
    assert tokens > fewer or torch.cuda.get_device_properties(0).total_memory >= 160 * 2**30  # where both have most


@needs_vllm
def test_the_installed_server_takes_what_serve_gives_it(base: Path, zoo: list[Path]) -> None:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    found, _ = candidates(Evaluation([str(one) for one in zoo], base=str(base), bits=16, engine="vllm"))
    room = vllm_server._Room("auto", 1, None, 0.3)
    served = [one for one in found if one.beside]
    terms = vllm_server._terms(found[0].loaded, served, found[0].subject.base, room, ())
    command = vllm_server._command(found[0].loaded, served, terms, "127.0.0.1", 1, room)
    parsing = api.arguments_of_vllm()
    parser = parsing.make_arg_parser(FlexibleArgumentParser())
    stated = parser.parse_args(command[command.index("finbench.serving.api") + 1 :])
    parsing.validate_parsed_serve_args(stated)
    assert (stated.max_loras, stated.max_lora_rank, stated.gpu_memory_utilization) == (len(zoo), 64, 0.3)
    assert [one.name for one in stated.lora_modules] == [one.subject.name for one in served]


@needs_vllm
def test_adapters_are_served_beside_their_base_and_their_memory_is_told(
    base: Path, zoo: list[Path], tmp_path: Path
) -> None:
    cards = scored(base, zoo, tmp_path / "v", "vllm", gpu_memory=0.3, max_length=448)
    total = torch.cuda.get_device_properties(0).total_memory
    assert [card.form for card in cards] == ["base", "unmerged", "unmerged"]
    assert all(0.05 * total < card.peak_memory_bytes < 0.4 * total for card in cards)
    assert {card.arguments["max_length"] for card in cards} == {448}
    assert not any("gpu_memory" in card.arguments for card in cards)
    with pytest.raises(FinbenchError, match="not in float32"):
        scored(base, zoo, tmp_path / "f", "vllm", arguments={"dtype": "float32"})


@needs_vllm
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_two_gpus_answer_and_both_are_counted(base: Path, zoo: list[Path], tmp_path: Path) -> None:
    one = scored(base, zoo, tmp_path / "1", "vllm", gpu_memory=0.3)
    two = scored(base, zoo, tmp_path / "2", "vllm", gpu_memory=0.3, arguments={"tensor_parallel": 2})
    assert all(b.peak_memory_bytes > 1.5 * a.peak_memory_bytes for a, b in zip(one, two, strict=True))


@needs_vllm
@pytest.mark.parametrize("cards", [1, 2])
def test_a_server_ends_with_the_one_that_started_it(cards: int, base: Path, zoo: list[Path], tmp_path: Path) -> None:
    """On two cards vLLM starts processes of its own beside the thread that waits for the parent's end."""
    if torch.cuda.device_count() < cards:
        pytest.skip("there is one GPU")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "finbench", "serve", "--base", str(base), "--port", "0", "--gpu-memory", "0.3"]
    command += ["--tensor-parallel", str(cards)]
    command += [part for folder in zoo for part in ("--adapter", str(folder))]
    before = torch.cuda.mem_get_info()[0]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "300"})
    end = time.monotonic() + 600
    while "Ctrl-C ends it" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.5)
    assert torch.cuda.mem_get_info()[0] < before
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 60
    while torch.cuda.mem_get_info()[0] < 0.98 * before:
        assert time.monotonic() < end, "something still holds the GPU"
        time.sleep(0.5)
