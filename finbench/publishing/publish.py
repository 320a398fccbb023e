"""``finbench push``: from a path to a plan, and from the plan to the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finbench import hub
from finbench.core import refs
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError
from finbench.core.settings import PushSettings, called_with
from finbench.publishing import adapter, evidence
from finbench.publishing.adapter import Bundle


@dataclass(frozen=True)
class Pushed:
    """What a push would do or has done. ``published`` is None after a dry run; ``readme`` is the card as sent."""

    plan: hub.Plan
    readme: str
    published: hub.Published | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        done = self.published
        outcome = {"commit": done.sha, "url": done.url, "pull_request": done.pull_request} if done else None
        return {**self.plan.as_dict(), "published": outcome, "readme": self.readme}


@called_with(PushSettings)
def push(wanted: PushSettings) -> Pushed:
    """Publish an adapter or model folder, scorecards, a data set or the tasks to ``hub:org/name``.

    One commit, on the very state the plan was made for; with ``pr`` a pull request. A new repository is private
    unless ``public``. ``dry_run`` returns the plan without sending anything, without a Hub too. ``cards`` are the
    scorecards to publish beside an adapter (default: those of it in ``scorecards/``); ``base`` names the Hub's
    repository of a base that was a folder in training; ``licence`` overrides the one that base and data give;
    ``model`` sends scorecards to a model's repository instead of a data set of results.

    Raises FinbenchError for what cannot be published: restricted data, an adapter that is not whole, a card that
    ``finbench verify`` finds wrong, a token in a file, and for every refusal of the Hub.
    """
    quiet()
    target = refs.parse(wanted.to)
    if target.kind != "hub" or target.revision:
        raise FinbenchError(f"{wanted.to} is no repository of the Hub to push to.", "Write hub:org/name.")
    bundle = gather(wanted, target.name)
    plan = hub.make_plan(
        target.name,
        bundle.files,
        message=bundle.message,
        kind=bundle.kind,
        public=wanted.public,
        pull_request=wanted.pr,
        owned=bundle.owned,
        dry=wanted.dry_run,
    )
    if wanted.dry_run:
        return Pushed(plan, bundle.readme, None)
    for note in bundle.notes:
        say(note)
    if wanted.public and plan.exists and plan.private:
        settings = hub.page(target.name, bundle.kind, "settings")
        say(f"It exists and stays private; its settings make it public: {settings}")
    return Pushed(plan, bundle.readme, hub.execute(plan))


def gather(wanted: PushSettings, repo: str) -> Bundle:
    """The files to publish of whatever lies at the path."""
    path = wanted.path
    if not path.exists():
        raise FinbenchError(f"No such folder: {path}", "Name an adapter folder, a folder of scorecards, or a data set.")
    if path.is_file() or not any((path / name).is_file() for name in _MARKS):
        if path.is_dir() and not list(path.glob("*.json")):
            raise FinbenchError(
                f"{path} holds nothing that can be published.",
                "An adapter, a merged model, scorecards, <data dir>/<set>, or the tasks (finbench tasks path).",
            )
        return evidence.cards_bundle([path], wanted.model)
    if (path / "dataset.json").is_file():
        return evidence.data_bundle(path, repo)
    if (path / "finbench.yaml").is_file():
        return evidence.tasks_bundle(path, repo)
    return adapter.bundle(wanted, repo)


_MARKS = ("adapter_config.json", "finbench.json", "config.json", "dataset.json", "finbench.yaml")
