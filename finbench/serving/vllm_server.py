"""``finbench serve``: a base and a zoo of its adapters behind vLLM's OpenAI server, each under its own name."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finbench.core import environment
from finbench.core.console import quiet, say
from finbench.core.errors import NOTHING_TO_TYPE, FinbenchError, Interrupted, counted
from finbench.core.records import BaseModelId, DType
from finbench.core.settings import Evaluation
from finbench.engines import Endpoint, Refused, servable, usable
from finbench.engines.vllm import cannot_start, memory
from finbench.evaluation import Candidate, candidates, options, preflight
from finbench.models import adapters, bases
from finbench.serving import copies
from finbench.serving.desk import PROBE
from finbench.serving.guard import KEY
from finbench.serving.terms import PLACE, Served, Terms

_CPU_CACHE = 2 * 2**30  # bytes of keys and values
_PATIENCE = 1200.0  # seconds to load
_GRACE = 10.0  # seconds between asking to stop and killing
_LATER_RANK = 64  # of adapters that may come while it runs, if none at the start has a larger one
_LATER_BYTES = 2**30  # for adapters, unless --adapter-memory says more or less
_MOST = 64  # adapters at once, unless --adapter-memory asks for more
_GUARD = "finbench.serving.guard.Guard"  # the last one stated is the first that a request meets
# variables that open vLLM's server further: development routes, adapters loaded at run time
_OPENING = ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_API_KEY", "VLLM_SERVER_DEV_MODE")


@dataclass(frozen=True)
class _Room:
    """What vLLM may take: precision, GPUs, tokens of a prompt with its answer, share of each GPU's memory.

    ``rank`` and ``held`` (GiB): of adapters that come while it runs; a rank of 0: none come.
    """

    dtype: DType
    tensor_parallel: int
    max_length: int | None
    share: float
    rank: int = 0
    held: float | None = None


@dataclass
class Server(contextlib.AbstractContextManager["Server"]):
    """A running server. ``models`` are the names to ask for, the base first. Use it in a ``with`` statement.

    ``terms``: what may be added while it runs; ``place``, for copies of what was, goes with the server.
    """

    url: str
    models: list[str]
    process: subprocess.Popen[bytes]
    log: Any
    key: str | None = field(default=None, repr=False)
    terms: Terms | None = None
    place: contextlib.ExitStack | None = None

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
        if self.place is not None:
            self.place.close()

    def wait(self) -> None:
        """Until the server ends by itself, which is a fault, or until Ctrl-C, which is Interrupted."""
        try:
            self.process.wait()
        except KeyboardInterrupt as stop:
            raise Interrupted("The server is stopped.", NOTHING_TO_TYPE) from stop  # Ctrl-C is its regular end
        raise FinbenchError(f"The server has ended: {_last_line(self.log)}", "Start it again: finbench serve ...")

    def curl(self, model: str) -> str:
        """A command that asks ``model``; the key comes from the environment."""
        body = json.dumps({"model": model, "prompt": PROBE, "max_tokens": 8, "temperature": 0})
        auth = f' -H "Authorization: Bearer ${KEY}"' if self.key else ""
        return f"curl -s {self.url}/completions -H 'Content-Type: application/json'{auth} -d {shlex.quote(body)}"


def serve(
    adapter: Sequence[str] = (),
    *,
    base: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    dtype: DType = "auto",
    tensor_parallel: int = 1,
    max_length: int | None = None,
    gpu_memory: float | None = None,
    allow_owner: Sequence[str] = (),
    max_rank: int | None = None,
    adapter_memory: float | None = None,
) -> Server:
    """Start vLLM's server for adapters of one base; return when each model has said a real token.

    A key is taken from the environment (FINBENCH_SERVE_KEY) and asked for on every route. Adapters trained on
    quantised weights are served on the 16-bit base. ``port`` 0 takes a free one. ``max_length``: tokens of a prompt
    with its answer; by default the base's context, or what a GPU has memory for. ``gpu_memory``: the share of each
    GPU's memory that vLLM takes, by default 0.92.

    With a key, adapters come and go while it runs (``serving.remote``): of at most ``max_rank`` (64, or the largest of
    the start), as many as ``adapter_memory`` GiB hold (1, at most 64 adapters), from the Hub those of ``allow_owner``.

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
    _check_room(max_length, gpu_memory)
    room = _Room(dtype, tensor_parallel, max_length, memory.SHARE if gpu_memory is None else gpu_memory)
    later = _later(adapter, key, allow_owner, max_rank, adapter_memory)
    options.check_folders(adapter, base)
    port = _free(host, port)  # before a base is fetched
    found, _ = candidates(Evaluation(list(adapter), base=base, bits=16, engine="vllm"))
    _check(found, room)
    zoo = [one for one in found if one.beside]
    names = [found[0].subject.base.alias, *(one.subject.name for one in zoo)]
    if key is not None:
        largest = memory.largest_rank([one.beside for one in zoo if one.beside]) if zoo else 0
        room = replace(room, rank=max(later, largest), held=adapter_memory)
    terms = _terms(found[0].loaded, zoo, found[0].subject.base, room, allow_owner)
    place, terms, stated = copies.written(terms)
    command = _command(found[0].loaded, zoo, terms, host, port, room)
    log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the server
    kept = {name: value for name, value in os.environ.items() if name not in _OPENING}
    process = subprocess.Popen(
        [*command, "--middleware", "finbench.serving.desk.Desk", *(["--middleware", _GUARD] if key else [])],
        stdin=subprocess.PIPE,  # its end is how the server learns of ours
        stdout=log,
        stderr=subprocess.STDOUT,
        env={
            **kept,
            PLACE: str(stated),
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_PLUGINS": "finbench,bitsandbytes",
        },
        start_new_session=True,
    )
    shown = f"[{host}]" if ":" in host else host
    server = Server(f"http://{shown}:{port}/v1", names, process, log, key, terms, place)
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


_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)


def _later(adapter: Sequence[str], key: str | None, owners: Sequence[str], rank: int | None, held: float | None) -> int:
    """The rank of adapters that may come while it runs, as vLLM takes it; FinbenchError for what cannot be."""
    if key is None and (owners or rank or held or not adapter):
        what = "Adapters come while it runs" if adapter else "A server that starts without adapters takes them later:"
        raise FinbenchError(f"{what} only with a key.", f"export {KEY}=$(openssl rand -hex 16)")
    if held is not None and not 0 < held < float("inf"):
        raise FinbenchError(f"--adapter-memory is a number of GiB, got {held:g}.", "For example: --adapter-memory 2")
    if odd := [name for name in owners if not _OWNER.fullmatch(name)]:
        raise FinbenchError(f"--allow-owner {odd[0]!r} names no owner on the Hub.", "The part before the /: org")
    taken = servable.served_rank({"r": _LATER_RANK if rank is None else rank})
    if taken is None:
        most = servable.RANKS[-1]
        raise FinbenchError(f"--max-rank {rank}: vLLM takes ranks of 1 to {most}.", f"For example: --max-rank {most}")
    return taken


def _terms(base: bases.Base, zoo: Sequence[Candidate], named: BaseModelId, room: _Room, owners: Sequence[str]) -> Terms:
    """What the server is told: how the base is called, who is served, and for what there is room."""
    held = [one.beside for one in zoo if one.beside]
    served = []
    for one, folder in zip(zoo, held, strict=True):
        size = (folder / adapters.WEIGHTS).stat().st_size
        source = one.subject.adapter_source or str(folder.resolve())
        served.append(Served(name=one.subject.name, source=source, adapter=str(one.subject.adapter), bytes=size))
    where = {"hub": f"hub:{named.hub_id}@{named.revision}", "wheel": named.alias, "folder": str(base.folder.resolve())}
    reference = where[named.source]
    known = {"base": named.alias, "reference": reference, "fingerprint": named.fingerprint, "adapters": served}
    if not room.rank:
        return Terms.parse({**known, "names": [], "capacity": len(zoo)}, "terms")
    dtype = bases.dtype_name(room.dtype)
    wide = sorted({layer.ending for layer in bases.linear_layers(base) if layer.ending not in memory.HEADS})
    holding = replace(memory.holding(base, [], dtype), rank=room.rank, endings=frozenset(wide))
    slot = holding.on(room.tensor_parallel).slot
    most = int((room.held or _LATER_BYTES / memory.GIB) * memory.GIB // slot)
    if room.held is not None and most < max(1, len(zoo)):
        raise FinbenchError(
            f"--adapter-memory {room.held:g}: {counted(max(1, len(zoo)), 'adapter')} of rank {room.rank} take "
            f"{max(1, len(zoo)) * slot / memory.GIB:.2g} GiB.",
            "More of it, or a smaller --max-rank",
        )
    capacity = most if room.held is not None else max(len(zoo) + 1, min(most, _MOST))
    stated = {str(adapters.stated_config(folder).get("base_model_name_or_path")) for folder in held}
    names = sorted({named.alias, named.hub_id or named.alias, reference, str(base.folder), *stated})
    more = {"names": names, "rank": room.rank, "targets": wide, "capacity": capacity, "slot_bytes": slot}
    return Terms.parse({**known, **more, "owners": sorted(owners)}, "terms")


def _command(base: bases.Base, zoo: Sequence[Candidate], terms: Terms, host: str, port: int, room: _Room) -> list[str]:
    import torch

    dtype = bases.dtype_name(room.dtype)
    command = [sys.executable, "-P", "-m", "finbench.serving.api", str(base.folder)]
    command += ["--served-model-name", terms.base, "--host", host, "--port", str(port)]
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
    if terms.capacity:
        held = [one.beside for one in zoo if one.beside]
        wide = terms.targets or sorted({end for folder in held for end in servable.targets(folder)})
        rank = terms.rank or memory.largest_rank(held)
        slots = terms.capacity + 1
        if not on_cpu:
            needed = replace(memory.holding(base, [], dtype), rank=rank, endings=frozenset(wide)).on(
                room.tensor_parallel
            )
            slots = needed.slots(room.share * memory.card()[1], terms.capacity)
        command += ["--enable-lora", "--max-lora-rank", str(rank)]
        command += ["--max-loras", str(slots), "--max-cpu-loras", str(terms.capacity + 1)]
        command += ["--lora-target-modules", *wide]
    if zoo:
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
    asks = {"model": model, "prompt": PROBE, "max_tokens": 1, "temperature": 0, "logprobs": 5}
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
