"""A zoo under load: many adapters behind one server, one removed and others added meanwhile; nothing lost or mixed up.

python benchmarks/serve_load.py [--base smollm2-135m] [--adapters 32] [--requests 1000]

Adapters are random LoRAs of rank 8 on all linear layers. Each is asked a probe alone, then all are asked at once, and
every answer must be the one that this adapter alone gave, by its words and their log-probabilities. Meanwhile one goes,
one comes, one name is added twice, and what must be refused is tried. Ends with exit code 1 where anything is lost or
wrong; prints a table in Markdown. Needs vLLM.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import torch
from safetensors.torch import save_file

import finbench
from finbench.core.errors import FinbenchError
from finbench.models import bases
from finbench.serving import remote

KEY = "FINBENCH_SERVE_KEY"
PROBE = "Operating profit rose to 4.1 million euro from 3.0 million a year ago. The sentiment is"
TOKENS, AT_ONCE, RANK = 4, 32, 8
APART = 0.001  # nats between two adapters, at least; float32 in another batch makes 1e-5
Answer = tuple[str, list[float]]  # text, log-probability of each token
Said = tuple[int, Answer, float]  # state, answer, seconds


def make_adapter(folder: Path, base: bases.Base, seed: int, stated: str, *, width: int = 0, nan: bool = False) -> Path:
    """A random LoRA whose answers are its own; ``width``: added to its inputs, so that it fits another base."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in bases.linear_layers(base):
        if layer.ending != "lm_head":
            name = f"base_model.model.{layer.name}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, layer.inputs + width, generator=draw) / 30
            tensors[f"{name}.lora_B.weight"] = torch.randn(layer.outputs, RANK, generator=draw) / 15
    if nan:
        next(iter(tensors.values()))[0, 0] = float("nan")
    endings = sorted({name.split(".")[-3] for name in tensors})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": endings}
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    about = {**config, "task_type": "CAUSAL_LM", "base_model_name_or_path": stated}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return folder


class Client:
    """Asks one server."""

    def __init__(self, url: str) -> None:
        limits = httpx2.Limits(max_connections=None)
        self.http = httpx2.Client(timeout=600, trust_env=False, limits=limits)
        self.url, self.headers = url, {"Authorization": f"Bearer {os.environ[KEY]}"}

    def ask(self, model: str) -> Said:
        body = {"model": model, "prompt": PROBE, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        body["logprobs"] = 1
        began = time.monotonic()
        found = self.http.post(f"{self.url}/completions", headers=self.headers, json=body)
        took = time.monotonic() - began
        if found.status_code != 200:
            return found.status_code, ("", []), took
        said = found.json()["choices"][0]
        return 200, (said["text"], said["logprobs"]["token_logprobs"]), took

    def page(self, path: str) -> tuple[int, str]:
        found = self.http.get(self.url.removesuffix("/v1") + path, headers=self.headers)
        return found.status_code, found.text


def alike(one: Answer, other: Answer) -> bool:
    """Whether two answers are of one adapter."""
    near = all(abs(a - b) < APART for a, b in zip(one[1], other[1], strict=False))
    return one[0] == other[0] and len(one[1]) == len(other[1]) and near


def counted(page: str, model: str) -> int:
    """Requests of a model that were answered, by /metrics."""
    label = f'finbench_requests_total{{adapter="{model}",code="200"}} '
    return sum(int(line.removeprefix(label)) for line in page.splitlines() if line.startswith(label))


def refusals(url: str, places: dict[str, Path]) -> dict[str, str]:
    """What must not be served, and the reason that the server gives."""
    found = {}
    for what, place in places.items():
        try:
            remote.add(str(place), url=url)
            found[what] = "SERVED"
        except FinbenchError as fault:
            found[what] = " ".join(fault.message.split())
    return found


def twice(url: str, place: Path) -> list[str]:
    """Two adds of one name at once."""

    def one(_: int) -> str:
        try:
            return str(remote.add(str(place), name="twice", url=url)["name"])
        except FinbenchError as fault:
            return fault.message

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return sorted(pool.map(one, range(2)))


def loaded(client: Client, models: list[str], events: dict[int, Any]) -> tuple[list[tuple[str, Said]], float]:
    """(model, what it said) of one request a model of the list, ``AT_ONCE`` at once, and seconds for all.

    ``events`` begin at the request of a number.
    """
    began = time.monotonic()
    threads: list[threading.Thread] = []
    lock, count = threading.Lock(), [0]

    def one(model: str) -> tuple[str, Said]:
        with lock:
            count[0] += 1
            event = events.get(count[0])
        if event:
            threads.append(threading.Thread(target=event))
            threads[-1].start()
        return model, client.ask(model)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, models))
    took = time.monotonic() - began
    for thread in threads:
        thread.join()
    return found, took


def row(title: str, found: list[tuple[str, Said]], took: float) -> str:
    seconds = sorted(said[2] for _, said in found if said[0] == 200)
    cuts = statistics.quantiles(seconds, n=20)
    return f"| {title} | {len(found):,} | {len(found) / took:.1f} | {cuts[9]:.2f} | {cuts[18]:.2f} |"


def main() -> int:
    """Start, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--requests", type=int, default=1000)
    stated = parser.parse_args()
    os.environ[KEY] = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as scratch:
        return run(stated, Path(scratch))


def run(stated: argparse.Namespace, folder: Path) -> int:
    base = bases.resolve(stated.base)
    name = base.id.hub_id or "the-base"
    zoo = [make_adapter(folder / f"a{n:02}", base, n, name) for n in range(stated.adapters)]
    later = make_adapter(folder / "later", base, 1000, name)
    places = {"NaN": make_adapter(folder / "nan", base, 1001, name, nan=True)}
    places["another base, by its name"] = make_adapter(folder / "named", base, 1002, "org/other")
    places["another base, by its shapes"] = make_adapter(folder / "shaped", base, 1003, name, width=8)
    places["a torn file"] = make_adapter(folder / "torn", base, 1004, name)
    torn = places["a torn file"] / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1000])
    places["a template with code"] = make_adapter(folder / "template", base, 1005, name)
    (folder / "template" / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    room = {"max_rank": RANK, "dtype": "float32", "max_length": 256, "port": 0}
    faults: list[str] = []
    with finbench.serve([str(one) for one in zoo], base=stated.base, **room) as server:
        client, names = Client(server.url), [one.name for one in zoo]
        alone = {model: client.ask(model)[1] for model in (server.models[0], *names)}
        pairs = itertools.combinations(alone, 2)
        if same := [pair for pair in pairs if alike(alone[pair[0]], alone[pair[1]])]:
            faults.append(f"the probe does not tell adapters apart: {same}")
        single, took = loaded(client, [names[0]] * stated.requests, {})
        of_one = row("one adapter", single, took)

        gone, heard = names[1], dict[str, Any]()
        whole = [names[n % len(names)] for n in range(stated.requests)]

        def remove() -> None:
            try:
                remote.remove(gone, url=server.url)
                heard["removed at once"] = "as no request of it was under way"
            except FinbenchError as fault:
                heard["removed at once"] = fault.message
                remote.remove(gone, url=server.url, wait=True)
            heard["gone"] = True

        def come() -> None:
            try:
                heard["added"] = remote.add(str(later), url=server.url)["name"]
                heard["its answer"] = client.ask("later")[1]
            except FinbenchError as fault:
                faults.append(f"an adapter that fits is not taken: {fault.message}")

        events = {
            len(whole) // 4: lambda: heard.update(refused=refusals(server.url, places)),
            len(whole) // 3: come,
            len(whole) // 2: remove,
            2 * len(whole) // 3: lambda: heard.update(twice=twice(server.url, later)),
        }
        before = counted(client.page("/metrics")[1], names[2])
        many, took = loaded(client, whole, events)
        of_many = row(f"{len(names)} adapters mixed", many, took)

        lost = [(model, said) for model, said in many if said[0] != 200 and (model, said[0]) != (gone, 404)]
        wrong = [model for model, said in [*single, *many] if said[0] == 200 and not alike(said[1], alone[model])]
        declined = sum(model == gone and said[0] == 404 for model, said in many)
        faults += [f"lost: {lost[:3]}"] if lost else []
        faults += [f"answered by another: {sorted(set(wrong))}"] if wrong else []
        served = [what for what, reason in heard["refused"].items() if reason == "SERVED"]
        faults += [f"served, and should not be: {served}"] if served else []
        said = client.ask("later")[1]
        right = alike(said, heard.get("its answer", ("", []))) and not any(alike(said, own) for own in alone.values())
        faults += [] if right else ["what was added does not answer with its own words"]
        faults += [] if heard["twice"].count("twice") == 1 else [f"two adds of one name: {heard['twice']}"]
        faults += [] if client.ask(gone)[0] == 404 else ["what was removed still answers"]
        own = counted(client.page("/metrics")[1], names[2]) - before
        faults += [] if own == whole.count(names[2]) else [f"/metrics counts {own}, not {whole.count(names[2])}"]
        faults += [] if client.page("/health")[0] == 200 else ["/health does not answer"]
    print("| requests of | number | a second | p50, s | p95, s |\n|--|--:|--:|--:|--:|")
    print(of_one, of_many, sep="\n")
    print(
        f"\n{len(many)} requests: {len(lost)} lost, {len(wrong)} answered by another adapter, {declined} declined after"
    )
    print(f"{gone} was removed. Removing it at once: {heard['removed at once']}")
    for what, reason in heard["refused"].items():
        print(f"- {what}: {reason[:300]}")
    print(f"- two adds of one name: {heard['twice']}")
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
