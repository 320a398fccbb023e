"""A process that holds one vLLM engine: JSON lines in, JSON lines out (``python -m finbench.engines.vllm.worker``).

The first line is the settings; then requests. It ends when its input ends, so it never outlives the process that
started it. After each step of the engine it says what is finished, or, when nothing is, that the step was made: that is
how the other side knows that it lives.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

from finbench.core import lifeline

_SILENCE = 1.0  # seconds after which a step that finished nothing is told
PEAK = "finbench.engines.vllm.peak.Peak"  # what each of vLLM's worker classes inherits from


def main() -> None:
    """Serve until the input ends. Standard output belongs to the protocol; all that others print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    incoming = lifeline.lines()
    settings = next(incoming, None)
    if settings is None:  # whoever started it is gone already
        return
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(incoming, inbox), daemon=True).start()
    try:
        engine, adapters = start(json.loads(settings))
        _say(out, {"ready": True, "max_length": engine.model_config.max_model_len, "memory": _memory(engine)})
        serve(engine, adapters, inbox, out)
    except Exception as fault:
        _say(out, {"fault": _reason(fault)})
        raise


def _reason(fault: Exception) -> str:
    """In one line; pydantic, which checks vLLM's settings, says in its first one only how many faults there are."""
    parts = [str(one.get("msg", "")) for one in fault.errors()] if hasattr(fault, "errors") else [str(fault)]
    return " ".join(" ".join(parts).split())[:600] or type(fault).__name__


def start(settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The engine of ``settings`` (arguments of vLLM's EngineArgs), and the adapters that it is to hold, by name."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # this process is the engine's own already
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"  # the second runner takes no logits processors
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # this process has threads, which a fork may lock for ever
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # without ours: vLLM's own LoRA layers, for comparison; bitsandbytes: of vllm-bnb-plugin, where it is there
    os.environ.setdefault("VLLM_PLUGINS", "finbench,bitsandbytes")
    from vllm import EngineArgs
    from vllm.lora.request import LoRARequest
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    from finbench.engines.vllm.force import Forced
    from finbench.engines.vllm.plugin import register

    if "finbench" in os.environ["VLLM_PLUGINS"].split(","):
        register()
    arguments = EngineArgs(**settings["engine"], logits_processors=[Forced], worker_extension_cls=PEAK)
    # the batches of an offline engine; without it those of a server that must answer soon, on some GPUs an eighth
    engine = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
    adapters = {one["name"]: LoRARequest(one["name"], one["id"], one["path"]) for one in settings["adapters"]}
    for adapter in adapters.values():
        engine.add_lora(adapter)
    return engine, adapters


def _listen(incoming: Iterator[bytes], inbox: queue.Queue[dict[str, Any]]) -> None:
    for line in incoming:
        inbox.put(json.loads(line))
    lifeline.end_group()


def _memory(engine: Any) -> int:
    """Peak memory in bytes of all GPUs of the engine: with tensor parallel each is held by a process of its own."""
    return sum(engine.collective_rpc("finbench_peak"))


def serve(engine: Any, adapters: dict[str, Any], inbox: queue.Queue[dict[str, Any]], out: IO[str]) -> None:
    """Steps of the engine for as long as there are requests, and a wait for the next one."""
    said, memory = time.monotonic(), 0
    while True:
        while not inbox.empty() or not engine.has_unfinished_requests():
            asked = inbox.get()
            engine.add_request(
                str(asked["id"]),
                {"prompt_token_ids": asked["prompt"]},
                _parameters(asked),
                lora_request=adapters[asked["adapter"]] if asked["adapter"] else None,
            )
        done = [_answer(output) for output in engine.step() if output.finished]
        if done or time.monotonic() - said > _SILENCE:
            if not engine.has_unfinished_requests():  # to ask every process takes a moment
                memory = _memory(engine)
            _say(out, {"done": done, "memory": memory})
            said = time.monotonic()


def _parameters(asked: dict[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from finbench.engines.vllm.force import KEY

    common: dict[str, Any] = {"output_kind": RequestOutputKind.FINAL_ONLY, "skip_clone": True}
    if "ids" in asked:
        forced = asked["forced"]
        return SamplingParams(
            temperature=0,
            max_tokens=len(forced) + 1,
            logprob_token_ids=asked["ids"],
            flat_logprobs=True,
            ignore_eos=True,
            detokenize=False,
            extra_args={KEY: forced} if forced else None,
            **common,
        )
    return SamplingParams(
        max_tokens=asked["limit"],
        stop=asked["stop"],
        stop_token_ids=asked["ends"],
        skip_special_tokens=False,
        **asked["sampling"],
        **common,
    )


def _answer(output: Any) -> dict[str, Any]:
    said = output.outputs[0]
    tokens = list(said.token_ids)
    found: dict[str, Any] = {"id": int(output.request_id.partition("-")[0]), "tokens": tokens}
    found["ended"] = said.finish_reason == "stop"  # otherwise its budget was spent
    if said.logprobs is not None:
        flat = said.logprobs  # of each step: the token that was said, with its rank, then the ids, then padding
        steps = list(zip(flat.start_indices, flat.end_indices, strict=True))
        found["scores"] = [list(zip(flat.token_ids[a:b], flat.logprobs[a:b], strict=True)) for a, b in steps]
        found["ranks"] = [flat.ranks[a] for a, _ in steps]
    return found


def _say(out: IO[str], message: dict[str, Any]) -> None:
    out.write(json.dumps(message, separators=(",", ":")) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
