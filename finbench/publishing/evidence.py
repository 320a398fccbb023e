"""Results beside an adapter: scorecards on this machine and in its repository, told apart by the adapter's identity.

A score belongs to weights, not to a name. What a repository holds of other weights moves to ``finbench/history`` in the
commit that replaces them, and comes back with them. Nothing that tells of weights is removed without going there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finbench import hub
from finbench.cards import cardfiles, eval_results
from finbench.core.errors import FinbenchError
from finbench.core.records import Scorecard
from finbench.evaluation import verify
from finbench.hub import File
from finbench.models.adapters import AdapterFolder
from finbench.publishing.belonging import alike, identity_of, weights_at
from finbench.publishing.home import Home

CARDS, HISTORY = "finbench/scorecards", "finbench/history"
PICTURE, RECIPE, ENTRIES = "finbench/scores.svg", "finbench/recipe.yaml", ".eval_results/finbench.yaml"
CURVES, RECORD = "finbench/training.svg", "finbench.json"
PROPOSED = " (there once this pull request is merged)"
_ABOUT = (PICTURE, CURVES, RECIPE, ENTRIES, RECORD)  # what tells of weights beside their cards
_MOST_CARDS = 200
_LARGEST = 2**28  # bytes of all scorecards and samples beside an adapter; a card has half a megabyte
_CARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,150}\.(json|samples\.jsonl\.zst)")
_Cards = list[tuple[Path, Scorecard]]


@dataclass(frozen=True)
class Evidence:
    """``own``: cards of the adapter; ``beside``: of its base under the same conditions; all of them verified.

    ``stale``: cards of the repository that tell of other weights, or that cannot be trusted any more. ``about``: what
    else tells of weights there, by its path; ``others``: of which ones, and whether they are not the adapter's.
    ``owned``: patterns of what belongs to the results and goes where it is not sent. ``commit``: the state of the
    repository that was looked at.
    """

    own: _Cards
    beside: _Cards
    stale: list[Path]
    about: dict[str, Path]
    others: tuple[str, bool]
    owned: tuple[str, ...]
    commit: str | None

    def history(self, sent: Iterable[str]) -> list[File]:
        """What is kept of other weights, and of these where it is not ``sent`` again, under the weights' identity."""
        kept, (other, replaced) = {}, self.others
        for path in self.stale:
            identity = _stated(path) or other  # of a base's card, and of one that nobody can read, the others'
            for file in _with_samples(path):
                kept[f"{HISTORY}/{identity}/{file.name}"] = file
        here = set(sent)
        for name, file in self.about.items():
            if name.startswith(HISTORY):  # of these weights, from before: it comes back with what is sent in its place
                now = next((path for path in _ABOUT if path.endswith("/" + file.name) or path == file.name), name)
                if now not in here:
                    kept.setdefault(name, file)
            elif replaced or name not in here:
                kept.setdefault(f"{HISTORY}/{other}/{file.name}", file)
        return [File(path, file) for path, file in kept.items()]


def find(found: AdapterFolder, named: Sequence[Path], repo: str) -> Evidence:
    """The results of an adapter among cards that are ``named``, that lie about, and that are in the repository.

    Where no card is named, ``scorecards/`` here, beside the adapter and in it are looked through. Raises FinbenchError
    for a card on this machine that does not follow from its samples, and where none of the named ones is of it.
    """
    local = _local(found, named)
    if named and not any(_is_of(card, found.identity) for _, card in local):
        raise FinbenchError(
            f"None of these cards is of {found.name} ({found.identity[:12]}).", "Make one: finbench eval --adapter"
        )
    commit = hub.head(repo)
    own_history = f"{HISTORY}/{found.identity[:12]}"
    there = [path for place in (CARDS, own_history) for path in published(repo, commit, place)] if commit else []
    remote = {path: card for path in there if (card := _sound(path)) is not None}
    mine = {path.name: (path, card) for path, card in remote.items() if _is_of(card, found.identity)}
    mine |= {path.name: (path, card) for path, card in local if _is_of(card, found.identity)}
    own = [mine[name] for name in sorted(mine)]
    bases = {path.name: (path, card) for path, card in remote.items() if _is_base(card, own)}
    bases |= {path.name: (path, card) for path, card in local if _is_base(card, own)}
    beside = [bases[name] for name in sorted(bases.keys() - mine.keys())]
    for path, _ in [*own, *beside]:
        if path not in remote:
            check(path)
    right = {p for p, card in remote.items() if _is_of(card, found.identity) or _is_base(card, own)}
    stale = [path for path in there if path not in right]
    owned = (f"{CARDS}/*", f"{own_history}/*", PICTURE, CURVES, RECIPE, ENTRIES)
    if commit is None:
        return Evidence(own, beside, [], {}, ("", False), owned, commit)
    kept = [f"{own_history}/{name.rpartition('/')[2]}" for name in _ABOUT]
    about = hub.fetch_paths(repo, commit, [*_ABOUT, *kept])
    lying = weights_at(repo, commit)
    weights = lying.identity if lying else ""
    before = weights[:12] or next(filter(None, map(_stated, stale)), commit[:12])
    return Evidence(own, beside, stale, about, (before, weights != found.identity), owned, commit)


def published(repo: str, commit: str, folder: str = CARDS) -> list[Path]:
    """The scorecards in a folder of a repository, with their samples beside them; nothing of them is checked yet."""
    there = {name: name.rpartition("/")[2] for name in hub.names_below(repo, commit, folder)}
    names = [name for name, last in there.items() if _CARD.fullmatch(last) and last != RECORD]
    if len(names) > 2 * _MOST_CARDS:
        raise FinbenchError(
            f"hub:{repo} has {len(names):,} files of scorecards; at most {2 * _MOST_CARDS} are read.",
            "Fetch the adapter alone (hf download REPO FILE --local-dir DIR), then name the folder.",
        )
    paths = hub.fetch_paths(repo, commit, names, most=_LARGEST)
    return sorted(path for path in paths.values() if path.suffix == ".json")


def there(repo: str, identity: str) -> _Cards:
    """The sound cards in a repository that are of one subject (``identity_of``)."""
    commit = hub.head(repo)
    found = [(path, _sound(path)) for path in published(repo, commit)] if commit else []
    return [(path, card) for path, card in found if card is not None and identity_of(card) == identity]


def check(path: Path, said: str = "", hint: str = "") -> None:
    """Refuse a card that does not follow from its samples; ``said``: what to call it."""
    faults = verify(path).faults
    if faults:
        message = f"{said or path} is not to be trusted: {faults[0].field} {faults[0].message}"
        raise FinbenchError(message, hint or f"finbench verify {path}")


def files_of(
    paths: Iterable[Path], plain: _Cards, repo: str, home: Home | None, *, proposed: bool = False
) -> list[File]:
    """Scorecards with their samples, and ``.eval_results`` for a model's repository, of what belongs to a benchmark.

    One entry a task of the cards ``plain``; the Hub knows no conditions, so the plainest one counts. Without a
    ``home`` there are none: an entry has to name a benchmark that is there. ``proposed``: by a pull request, whose
    number nobody knows yet, so that an entry's address leads to its card only after the merge; the entry says so.
    """
    files = [File(f"{CARDS}/{file.name}", file) for path in paths for file in _with_samples(path)]
    entries: dict[str, Any] = {}
    if home is None:
        return files
    for path, card in sorted(plain, key=lambda one: (one[1].generation is not None, one[1].shots, one[1].subject.chat)):
        own = card.model_copy(update={"scores": [score for score in card.scores if not home.lacking(card, score)]})
        source = hub.page(repo, "model", "blob/main", CARDS, path.name)
        for entry in eval_results(own, f"{home.repo}@{home.sha}", source):
            entry["source"]["name"] += PROPOSED if proposed else ""
            entries.setdefault(str(entry["dataset"]["task_id"]), entry)
    if entries:
        text = yaml.safe_dump(list(entries.values()), sort_keys=False, allow_unicode=True)
        files.append(File(ENTRIES, text.encode()))
    return files


def _local(found: AdapterFolder, named: Sequence[Path]) -> _Cards:
    beside = [Path("scorecards"), found.folder.resolve().parent / "scorecards", found.folder / "scorecards"]
    places = list(named) or list({place.resolve(): place for place in beside if place.is_dir()}.values())
    paths: dict[Path, Path] = {}
    for place in places:
        try:
            paths |= {path.resolve(): path for path in cardfiles.expand([place])}
        except FinbenchError:  # a folder that holds none
            if named:
                raise
    return [(path, cardfiles.read(path)) for path in paths.values()]


def _sound(path: Path) -> Scorecard | None:
    """A card of the repository; None where it cannot be read any more, or does not follow from its samples."""
    try:
        check(path)
        return cardfiles.read(path)
    except FinbenchError:
        return None


def _stated(path: Path) -> str:
    """The begin of the identity that a card states; empty of a base's, and of one that nobody can read."""
    try:
        return (cardfiles.read(path).subject.adapter or "")[:12]
    except FinbenchError:
        return ""


def _with_samples(card: Path) -> list[Path]:
    return [file for file in (card, cardfiles.samples_path(card)) if file.is_file()]


def _is_of(card: Scorecard, identity: str) -> bool:
    return card.subject.adapter == identity and card.engine != "dummy"


def _is_base(card: Scorecard, own: _Cards) -> bool:
    return card.subject.kind == "base" and card.engine != "dummy" and any(alike(one, card) for _, one in own)
