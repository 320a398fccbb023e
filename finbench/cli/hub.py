"""The commands that go to the Hub: push, pull, zoo list, show and add, dev hub."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench import models, publishing, training
from finbench.cli import show
from finbench.cli.command import Found, echo, taking
from finbench.core.settings import PushSettings


@taking(PushSettings)
def push(stated: PushSettings) -> Found:
    """Publish an adapter with its card and scorecards; or scorecards, data, tasks. One commit; repeat it safely."""

    done = finbench.push(**vars(stated))
    return Found(done.as_dict(), lambda: show.publications.pushed(done))


def pull(
    ref: Annotated[str, "hub:org/name[@revision] or zoo:name; with --convert also ./folder"],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    convert: Annotated[
        bool,
        typer.Option("--convert", help="Write pickled weights (.bin, .pt) as safetensors; nothing of them is run."),
    ] = False,
) -> Found:
    """Fetch an adapter: safetensors, JSON and tokenizer files only, every hash checked, whole or not at all.

    Only to have it as a folder: eval, serve and merge take the reference itself, and the cache keeps what they fetch.
    """

    done = finbench.pull(ref, out, convert)
    return Found(done.as_dict(), lambda: show.publications.pulled(done))


def adopt(
    folder: Annotated[Path, "Adapter whose weights were changed after finbench trained it."],
) -> Found:
    """Take changed weights for an adapter made elsewhere: its old record, which is of other weights, moves aside."""
    found, earlier = models.adopting.adopt(folder)
    stated = {"folder": str(folder), "adapter": found.identity}
    return Found(stated, lambda: show.publications.adopted(found, earlier))


def zoo_list() -> Found:
    """Published adapters with their scores, the recipes that come with finbench, and known adapters of others."""
    from finbench.core import catalog

    found = {name: training.recipes.recipe(name) for name in catalog.recipe_files()}
    entries = models.zoo.entries()
    others, trained = models.zoo.known_adapters(), training.reproduced.trained()

    def shown() -> None:
        show.publications.zoo(list(entries.values()))
        show.listings.recipes(found, trained)
        show.publications.others(others.values())

    return Found({"adapters": entries, "recipes": found, "trained": trained, "others": others}, shown)


def zoo_show(name: Annotated[str, "Recipe, published adapter, or known adapter of others."]) -> Found:
    """A recipe with every default filled in, as YAML that `finbench train FILE` takes; or an adapter, and its needs."""
    import yaml

    name = name.removeprefix("zoo:")
    if other := models.zoo.known_adapters().get(name):
        about = {**other.model_dump(exclude_none=True), "commands": other.commands}
        return Found(about, lambda: echo(yaml.safe_dump(about, sort_keys=False, width=10**6).rstrip()))
    published = models.zoo.entries().get(name)
    # a file's recipe is called by the file's name
    stated = published.model_dump() if published else training.recipes.recipe(name).model_dump(exclude={"name"})
    return Found(stated, lambda: echo(yaml.safe_dump(stated, sort_keys=False).rstrip()))


def zoo_add(
    ref: Annotated[str, "hub:org/name[@revision]"],
    name: Annotated[str | None, "Name in the zoo; default: that of the repository."] = None,
) -> Found:
    """Pin a published adapter: fetched, checked, its scorecards verified; then zoo:name means that very commit."""
    entry, path = publishing.add_to_zoo(ref, name)
    return Found({"file": str(path), **entry.model_dump()}, lambda: show.publications.added(entry, path))


def dev_hub(
    root: Annotated[Path, "Folder for repositories; kept between runs."] = Path("devhub"),
    port: Annotated[int, "Port; 0 takes a free one."] = 7860,
    benchmark: Annotated[list[str] | None, "Data set (org/name) that counts as a registered benchmark."] = None,
    fault: Annotated[
        list[str] | None, "Break answers: KIND[=VALUE][@PATTERN][*TIMES], repeatable; see docs/hub.md."
    ] = None,
) -> None:
    """A Hub on this machine, to rehearse a publication or to test a client. Ctrl-C stops it."""
    from finbench.core.console import say
    from finbench.core.errors import FinbenchError
    from finbench.hub.dev import DevHub

    try:
        hub = DevHub(root, port)
    except (OSError, OverflowError, ValueError) as problem:
        raise FinbenchError(f"The development Hub cannot start: {problem}.", "Try --port 0.") from problem
    try:
        hub.faults.set(*(fault or []))
    except ValueError as problem:
        hub.server_close()
        raise FinbenchError(f"--fault: {problem}.", "finbench dev hub --fault 429=2") from problem
    hub.store.benchmarks |= set(benchmark or [])
    hub.say = say
    with hub:
        show.publications.dev_hub(hub.url)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("Stopped; repositories are kept in " + str(root))
