"""Commands that ask models, or see whether this machine could: eval, serve, demo, doctor."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import finbench
from finbench import evaluation, serving, training
from finbench.cli import command, show
from finbench.cli.command import DataDir, Found, echo, taking
from finbench.core.settings import Evaluation

if TYPE_CHECKING:
    from finbench.core.records import Scorecard


def scored(cards: Sequence[Scorecard], out: Path) -> Found:
    """Scorecards that were made, and lie in the folder ``out``."""

    return Found([json.loads(card.to_json()) for card in cards], lambda: show.scorecards.scored(cards, out))


@taking(Evaluation)
def eval_(stated: Evaluation) -> Found:
    """Score adapters beside their base: scorecards, a table, report.md and report.html."""
    evaluation.options.checked(stated)  # at once, and not after seconds of imports
    return scored(finbench.evaluate(**vars(stated)), stated.out)


Adapter = Annotated[str, "./folder, hub:org/name[@rev] or zoo:name."]
AskedAs = Annotated[str | None, "Task whose question is asked; default: the adapter's."]
OnBase = Annotated[str | None, "The adapter's base, where bases.yaml does not know it."]


def ask(
    adapter: Adapter, text: Annotated[str, "The sentence; - reads it."], task: AskedAs = None, base: OnBase = None
) -> Found:
    """Ask an adapter and its base about one sentence: their answers side by side, label probabilities as bars."""
    import sys

    asked = sys.stdin.read() if text == "-" else text
    replies = evaluation.ask(adapter, asked, task=task, base=base)
    return Found(replies, lambda: show.answers.replies(replies))


def try_(
    adapter: Adapter,
    task: AskedAs = None,
    base: OnBase = None,
    host: Annotated[str, "Elsewhere than on this machine everybody who reaches it may ask."] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 7861,
) -> None:
    """A page on this machine on which colleagues ask an adapter and its base, side by side (Ctrl-C ends it)."""
    serving.try_page(adapter, task=task, base=base, host=host, port=port)


def serve_run(
    adapter: Annotated[
        list[str] | None, typer.Option(help="./folder, hub:org/name\\[@rev] or zoo:name; repeatable.")
    ] = None,
    base: Annotated[str | None, "The adapters' base, where bases.yaml does not know it."] = None,
    host: Annotated[str, "Elsewhere than on this machine only with a key."] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    dtype: Annotated[str, "auto, float32, bfloat16 or float16."] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that share the base.")] = 1,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a prompt with its answer; default: what a GPU has memory for.")
    ] = None,
    gpu_memory: Annotated[float | None, "Share of each GPU's memory that vLLM takes; default: 0.92."] = None,
    allow_owner: Annotated[
        list[str] | None, typer.Option(help="Owner on the Hub whose adapters may be added while it runs; repeatable.")
    ] = None,
    max_rank: Annotated[int | None, typer.Option(min=1, help="Of adapters that are added later; default: 64.")] = None,
    adapter_memory: Annotated[
        float | None, "GiB for adapters, which decides how many there may be; default: 1, at most 64 adapters."
    ] = None,
) -> None:
    """Serve a base and its adapters by vLLM's OpenAI server, each under its own name (Ctrl-C ends it).

    A key in FINBENCH_SERVE_KEY is required on every route; with one, adapters come and go while it runs.
    """

    kind = command.dtype(dtype)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # systemd and Docker end it so: as Ctrl-C, with its files
    with finbench.serve(
        adapter or [],
        base=base,
        host=host,
        port=port,
        dtype=kind,
        tensor_parallel=tensor_parallel,
        max_length=max_length,
        gpu_memory=gpu_memory,
        allow_owner=allow_owner or [],
        max_rank=max_rank,
        adapter_memory=adapter_memory,
    ) as server:
        show.listings.serving(server)
        server.wait()


ServerUrl = Annotated[str, "The server's address."]
_HERE = "http://127.0.0.1:8000/v1"


def serve_add(
    adapter: Annotated[str, "zoo:name, hub:org/name[@rev] of an allowed owner, or a folder on the server's machine."],
    name: Annotated[str | None, "Name to ask it by; default: its own."] = None,
    url: ServerUrl = _HERE,
) -> Found:
    """Have a running server check one more adapter and serve it. Needs its key in FINBENCH_SERVE_KEY."""
    found = serving.remote.add(adapter, name=name, url=url)
    return Found(found, lambda: show.listings.added(found))


def serve_remove(
    name: Annotated[str, "Name under which it is served."],
    wait: Annotated[bool, "--wait", "Take no new requests of it, and let those under way end."] = False,
    url: ServerUrl = _HERE,
) -> Found:
    """Have a running server let an adapter go. One with requests under way stays, unless --wait."""
    found = serving.remote.remove(name, wait=wait, url=url)
    return Found(found, lambda: show.listings.removed(found))


def serve_list(url: ServerUrl = _HERE) -> Found:
    """What a running server serves: names, where each adapter comes from, requests under way, room for more."""
    found = serving.remote.listed(url)
    return Found(found, lambda: show.listings.served(found))


def demo(
    base: Annotated[str, "smollm2-135m or gemma3-270m, which come in PyPI packages, or any other."] = "smollm2-135m",
    out: Annotated[Path | None, "Folder for everything it makes; default: runs/demo, or runs/demo-BASE."] = None,
) -> Found:
    """The whole path in a few minutes: train a small adapter, score it beside its base, show the result."""
    from finbench.core import catalog
    from finbench.core.console import say
    from finbench.core.errors import Interrupted

    stated = [*(["--base", base] if base != "smollm2-135m" else []), *(["--out", str(out)] if out else [])]
    out = out or Path("runs/demo" if base == "smollm2-135m" else f"runs/demo-{re.sub(r'[^A-Za-z0-9.-]+', '-', base)}")
    say(f"1. Train a LoRA adapter of {base} on 600 invented news sentences.")
    adapter, scorecards = (out / "adapter").resolve(), out / "scorecards"
    recipe = training.recipes.recipe("mini-sentiment-smollm2-135m-lora", {"base": base})
    try:  # one that is finished is not done again
        finbench.train(recipe, adapter, resume=(adapter / "checkpoints").is_dir())
    except Interrupted as stop:
        raise Interrupted(
            stop.message, f"Go on with the same command: {shlex.join(['finbench', 'demo', *stated])}"
        ) from stop
    say("2. Score the base and the adapter on 150 sentences about companies and with words they have not seen.")
    # a base that finbench knows is named by the adapter, with the place that its weights came from
    own = None if base in catalog.bases() else base
    answer = scored(finbench.evaluate(str(adapter), base=own, out=scorecards), scorecards)

    def shown() -> None:
        answer.show()
        echo("Next: finbench train --task mini_ner, or a real set: finbench data list")

    return Found(answer.value, shown)


def doctor(
    fix: Annotated[bool, "--fix", "Repair what keeps an installed vLLM from running."] = False,
    every: Annotated[bool, "--all", "Everything that was looked at: packages, engines, data set by data set."] = False,
    data_dir: DataDir = None,
) -> Found:
    """What of this machine finbench can use, what is missing, and what to type."""
    if fix:
        from finbench.engines.vllm import installation

        for line in installation.mend():
            echo(line, err=True)
    findings = evaluation.examine_machine(data_dir)
    bad = any(finding.state == "fault" for finding in findings)
    return Found(findings, lambda: show.listings.doctor(findings, every), typer.Exit(1) if bad else None)
