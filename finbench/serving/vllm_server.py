"""``finbench serve``: a base and a zoo of its adapters behind vLLM's OpenAI server, each under its own name."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finbench.core import environment
from finbench.core.console import quiet, say
from finbench.core.errors import NOTHING_TO_TYPE, FinbenchError, Interrupted
from finbench.core.records import DType
from finbench.core.settings import Evaluation
from finbench.engines import Endpoint, Refused, servable, usable
from finbench.engines.vllm import cannot_start, memory
from finbench.evaluation import Candidate, candidates, options, preflight
from finbench.models import bases
from finbench.serving.guard import KEY

_PROMPT = "Operating profit rose to 4.1 million euro from 3.0 million a year ago. The sentiment is"
_CPU_CACHE = 2 * 2**30  # bytes of keys and values
_PATIENCE = 1200.0  # seconds to load
_GRACE = 10.0  # seconds between asking to stop and killing
# variables that open vLLM's server further: development routes, adapters loaded at run time
_OPENING = ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_API_KEY", "VLLM_SERVER_DEV_MODE")


@dataclass(frozen=True)
class _Room:
    """What vLLM may take: precision, GPUs, tokens of a prompt with its answer, share of each GPU's memory."""

    dtype: DType
    tensor_parallel: int
    max_length: int | None
    share: float


@dataclass
class Server(contextlib.AbstractContextManager["Server"]):
    """A running server. ``models`` are the names to ask for, the base first. Use it in a ``with`` statement."""

    url: str
    models: list[str]
    process: subprocess.Popen[bytes]
    log: Any
    key: str | None = field(default=None, repr=False)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and every process that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # children may outlive it
        self.process.wait()

    def wait(self) -> None:
        """Until the server ends by itself, which is a fault, or until Ctrl-C, which is Interrupted."""
        try:
            self.process.wait()
        except KeyboardInterrupt as stop:
            raise Interrupted("The server is stopped.", NOTHING_TO_TYPE) from stop  # Ctrl-C is its regular end
        raise FinbenchError(f"The server has ended: {_last_line(self.log)}", "Start it again: finbench serve ...")

    def curl(self, model: str) -> str:
        """A command that asks ``model``; the key comes from the environment."""
        body = json.dumps({"model": model, "prompt": _PROMPT, "max_tokens": 8, "temperature": 0})
        auth = f' -H "Authorization: Bearer ${KEY}"' if self.key else ""
        return f"curl -s {self.url}/completions -H 'Content-Type: application/json'{auth} -d {shlex.quote(body)}"


def serve(
    adapter: Sequence[str],
    *,
    base: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    dtype: DType = "auto",
    tensor_parallel: int = 1,
    max_length: int | None = None,
    gpu_memory: float | None = None,
) -> Server:
    """Start vLLM's server for adapters of one base; return when each model has said a real token.

    A key is taken from the environment (FINBENCH_SERVE_KEY) and asked for on every route. Adapters trained on
    quantised weights are served on the 16-bit base. ``port`` 0 takes a free one. ``max_length``: tokens of a prompt
    with its answer; by default the base's context, or what a GPU has memory for. ``gpu_memory``: the share of each
    GPU's memory that vLLM takes, by default 0.92.

    Raises FinbenchError, before anything starts, for every adapter that cannot stand beside the others, for a GPU that
    is too small or does not compute in ``dtype``, for an address that others can reach without a key, and for a port
    that is taken; later for a server that dies, and for an adapter whose answers are the base's own.
    """
    quiet()
    key = usable(os.environ.get(KEY))
    if key is None and not _loopback(host):
        raise FinbenchError(
            f"{host} can be reached by others, and there is no key.",
            f"export {KEY}=$(openssl rand -hex 16), or leave --host out",
        )
    room = _Room(dtype, tensor_parallel, max_length, memory.SHARE if gpu_memory is None else gpu_memory)
    _check_room(max_length, gpu_memory)
    found, _ = candidates(Evaluation(adapter, base=base, bits=16, engine="vllm"))
    _check(found, room)
    port = _free(host, port)
    zoo = [one for one in found if one.beside]
    names = [found[0].subject.base.alias, *(one.subject.name for one in zoo)]
    command = _command(found[0].loaded, zoo, names[0], host, port, room)
    log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the server
    kept = {name: value for name, value in os.environ.items() if name not in _OPENING}
    process = subprocess.Popen(
        [*command, *(["--middleware", "finbench.serving.guard.Guard"] if key else [])],
        stdin=subprocess.PIPE,  # its end is how the server learns of ours
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**kept, "VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1", "VLLM_PLUGINS": "finbench"},
        start_new_session=True,
    )
    shown = f"[{host}]" if ":" in host else host
    server = Server(f"http://{shown}:{port}/v1", names, process, log, key)
    try:
        _await(server)
    except BaseException:
        server.close()
        raise
    return server


def _check_room(max_length: int | None, gpu_memory: float | None) -> None:
    import torch

    environment.check_gpu()
    if gpu_memory is not None:
        options.check_share(gpu_memory)
        if not torch.cuda.is_available():
            raise FinbenchError("There is no GPU of which a share could be taken.", preflight.NO_SHARE)
    if max_length is not None and max_length < 2:
        raise FinbenchError(f"--max-length must be at least 2, got {max_length}.", "For example: --max-length 4096")


def _check(found: Sequence[Candidate], room: _Room) -> None:
    import torch

    faults = [*preflight.missing(), *(fault for one in found for fault in preflight.against(one))]
    for one in found:
        if one.adapter is not None and one.subject.kind == "model":
            faults.append(f"{one.subject.name} is a whole model: serve it alone, vllm serve {one.adapter}")
        elif one.adapter is not None and (why := preflight.route(one)).how == "merged":
            faults.append(
                f"{one.subject.name} cannot be served beside its base ({', '.join(why.reasons)}): "
                f"finbench merge {one.adapter} --out merged, then vllm serve merged"
            )
    if len(known := {one.subject.base.fingerprint: one.subject.base.alias for one in found}) > 1:
        faults.append(f"the adapters have several bases: {', '.join(known.values())}")
    if torch.cuda.is_available() and room.tensor_parallel > (there := torch.cuda.device_count()):
        faults.append(f"--tensor-parallel asks for {room.tensor_parallel} GPUs, and there are {there}")
    context = bases.context_length(found[0].loaded)
    if context and room.max_length and room.max_length > context:
        faults.append(f"--max-length {room.max_length}: the base sees {context} tokens")
    faults = faults or preflight.on_gpu(found, room.dtype, room.tensor_parallel, room.share, serving=True)
    if faults:
        raise FinbenchError(
            "vLLM cannot serve this:\n" + "\n".join(f"- {fault}" for fault in dict.fromkeys(faults)),
            "finbench doctor says what to install",
        )


def _command(base: bases.Base, zoo: Sequence[Candidate], alias: str, host: str, port: int, room: _Room) -> list[str]:
    import torch

    dtype = str(bases.compute_dtype(room.dtype)).removeprefix("torch.")
    command = [sys.executable, "-P", "-m", "finbench.serving.api", str(base.folder)]
    command += ["--served-model-name", alias, "--host", host, "--port", str(port)]
    command += ["--dtype", dtype, "--disable-access-log-for-endpoints", "/health", "--generation-config", "vllm"]
    command += ["--tensor-parallel-size", str(room.tensor_parallel)]
    command += ["--max-model-len", str(room.max_length or memory.AUTO_FIT)]
    on_cpu = not torch.cuda.is_available()
    if not on_cpu:
        command += ["--gpu-memory-utilization", str(room.share)]
    else:
        command += ["--enforce-eager", "--max-num-batched-tokens", "2048"]
        if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            command += ["--kv-cache-memory-bytes", str(_CPU_CACHE)]
    if zoo:
        held = [one.beside for one in zoo if one.beside]
        slots = len(zoo) + 1
        if not on_cpu:
            needed = memory.holding(base, held, dtype).on(room.tensor_parallel)
            slots = needed.slots(room.share * memory.card()[1], len(zoo))
        command += ["--enable-lora", "--max-lora-rank", str(memory.largest_rank(held))]
        command += ["--max-loras", str(slots), "--max-cpu-loras", str(len(zoo) + 1)]
        command += ["--lora-target-modules", *sorted({end for folder in held for end in servable.targets(folder)})]
        command += ["--lora-modules"]
        for one in zoo:
            command.append(json.dumps({"name": one.subject.name, "path": str(Path(str(one.beside)).resolve())}))
    return command


def _await(server: Server) -> None:
    """Until every model has said a token, and every adapter another thing than the base."""
    endpoint = Endpoint(server.url, server.key, attempts=1, own=True)
    started = time.monotonic()
    said: dict[str, Any] = {}
    while not said:
        if server.process.poll() is not None:
            raise cannot_start(_last_line(server.log), "finbench doctor", _printed(server.log))
        if time.monotonic() - started > _PATIENCE:
            raise FinbenchError(
                f"The server was not ready after {_PATIENCE:.0f} s: {_last_line(server.log)}", "finbench doctor"
            )
        try:
            said = {model: _said(endpoint, model) for model in server.models}
        except Refused:
            time.sleep(0.5)
    silent = [model for model in server.models[1:] if said[model] == said[server.models[0]]]
    if silent:
        raise FinbenchError(
            f"{', '.join(silent)}: the answers are the base's own; the adapter is not applied.",
            "Evaluate with --engine hf, and report it to the vLLM project.",
        )
    took, longest = time.monotonic() - started, _longest(endpoint)
    say(f"Ready after {took:.0f} s. A prompt with its answer may have {longest} tokens.")


def _longest(endpoint: Endpoint) -> str:
    """Tokens that vLLM has room for, by the server's own word."""
    return f"{int(endpoint.ask('/models')['data'][0]['max_model_len']):,}"


def _said(endpoint: Endpoint, model: str) -> Any:
    asks = {"model": model, "prompt": _PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 5}
    found: Any = endpoint.ask("/completions", asks)["choices"][0]
    if not found["logprobs"]["tokens"]:
        raise Refused(f"{model} said nothing.", "finbench doctor")
    return found["logprobs"]["top_logprobs"]


def _loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _free(host: str, port: int) -> int:
    """The port, if it can be had; for 0 one that is free."""
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return int(trial.getsockname()[1])
    except (OSError, OverflowError) as fault:
        raise FinbenchError(f"{host}:{port} cannot be used ({fault}).", "Choose another: --port 8001") from fault


def _printed(log: Any) -> str:
    log.seek(0)
    return str(log.read().decode("utf-8", "replace"))


def _last_line(log: Any) -> str:
    lines = [line.strip() for line in _printed(log).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line] or lines
    return telling[-1][:400] if telling else "it said nothing"
