"""The commands that go to the Hub: push, pull, zoo list, show and add, dev hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import finbench
from finbench.cli.command import Answer, taking
from finbench.core.settings import PushSettings


@taking(PushSettings)
def push(stated: PushSettings) -> Answer:
    """Publish an adapter with its card and scorecards; or scorecards, data, tasks. One commit; repeat it safely."""
    from finbench.cli.show import publications

    done = finbench.push(**vars(stated))
    return Answer(done.as_dict(), lambda: publications.pushed(done))


def pull(
    ref: Annotated[str, "hub:org/name[@revision] or zoo:name"],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> Answer:
    """Fetch an adapter: safetensors, JSON and tokenizer files only, every hash checked, whole or not at all."""
    from finbench.cli.show import publications

    done = finbench.pull(ref, out)
    return Answer(done.as_dict(), lambda: publications.pulled(done))


def zoo_list() -> Answer:
    """Published adapters with their scores, and the recipes that come with finbench."""
    from finbench.cli.show import listings, publications
    from finbench.core import catalog
    from finbench.models import zoo
    from finbench.training import recipes

    found = {name: recipes.recipe(name) for name in catalog.recipe_files()}
    entries = zoo.entries()
    shown = {name: recipe.model_dump() for name, recipe in found.items()}
    published = {name: entry.model_dump() for name, entry in entries.items()}

    def show() -> None:
        publications.zoo(list(entries.values()))
        listings.recipes(found)

    return Answer({"adapters": published, "recipes": shown}, show)


def zoo_show(name: Annotated[str, "Recipe, or published adapter."]) -> Answer:
    """One recipe with every default filled in, as YAML that `finbench train FILE` takes; or one published adapter."""
    import yaml

    from finbench.models import zoo
    from finbench.training import recipes

    published = zoo.entries().get(name.removeprefix("zoo:"))
    # a file's recipe is called by the file's name
    stated = published.model_dump() if published else recipes.recipe(name).model_dump(exclude={"name"})
    return Answer(stated, lambda: typer.echo(yaml.safe_dump(stated, sort_keys=False).rstrip()))


def zoo_add(
    ref: Annotated[str, "hub:org/name[@revision]"],
    name: Annotated[str | None, "Name in the zoo; default: that of the repository."] = None,
) -> Answer:
    """Pin a published adapter: fetched, checked, its scorecards verified; then zoo:name means that very commit."""
    from finbench.cli.show import publications
    from finbench.publishing import add_to_zoo

    entry, path = add_to_zoo(ref, name)
    return Answer({"file": str(path), **entry.model_dump()}, lambda: publications.added(entry, path))


def dev_hub(
    root: Annotated[Path, "Folder for repositories; kept between runs."] = Path("devhub"),
    port: Annotated[int, "Port; 0 takes a free one."] = 7860,
    fault: Annotated[
        list[str] | None, "Break answers: KIND[=VALUE][@PATTERN][*TIMES], repeatable; see docs/hub.md."
    ] = None,
) -> None:
    """A Hub on this machine, to rehearse a publication or to test a client. Ctrl-C stops it."""
    import time

    from finbench.cli.show import publications
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
        hub.http.server_close()
        raise FinbenchError(f"--fault: {problem}.", "finbench dev hub --fault 429=2") from problem
    hub.say = say
    with hub:
        publications.dev_hub(hub.url)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("Stopped; repositories are kept in " + str(root))


ZOO = {"list": zoo_list, "show": zoo_show, "add": zoo_add}
DEV = {"hub": dev_hub}
