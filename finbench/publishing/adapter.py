"""An adapter or merged model as it lies on the Hub: its files, its base filled in, its card, its evidence."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finbench.cards import cardfiles, eval_results
from finbench.core import catalog, refs
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, BaseModelId, Scorecard
from finbench.core.settings import PushSettings
from finbench.evaluation import verify
from finbench.hub import SAFE_FILES, File, Kind
from finbench.models import adapters, bases
from finbench.models.adapters import AdapterFolder
from finbench.publishing import modelcard
from finbench.publishing.licences import licence_of

EVIDENCE = "finbench/scorecards"
_CardFiles = list[tuple[Path, Scorecard]]
_LEFT_BY_EVAL = Path("scorecards")
# of an adapter that finbench did not make: what peft reads, and a tokenizer if it brings one
_OF_PEFT = ["adapter_config.json", adapters.WEIGHTS, "tokenizer.json", "tokenizer_config.json", "tokenizer.model"]
_OF_PEFT += ["special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt"]


@dataclass(frozen=True)
class Bundle:
    """Files to publish, and how. ``owned``: what goes where it is not among them (``hub.make_plan``)."""

    files: list[File]
    message: str
    readme: str
    kind: Kind = "model"
    owned: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def bundle(wanted: PushSettings, repo: str) -> Bundle:
    """Everything to publish of an adapter folder, or of a whole model."""
    folder = wanted.path
    merged = (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()
    if merged and not (folder / "finbench.json").is_file():
        raise FinbenchError(
            f"{folder} is a model without a record of how it was made.", "Make one: finbench merge ADAPTER --out DIR"
        )
    found = adapters.read(folder)
    base = base_of(found, wanted.base)
    config = _config(found, base)
    record = _record(found, base, config)
    if record or merged:
        names = sorted(adapters.decisive_files(folder))
    else:
        names = [name for name in _OF_PEFT if (folder / name).is_file()]
    files = [File(name, config if name == "adapter_config.json" else folder / name) for name in names]
    own, beside = _cards(found, wanted)
    none = f"No scorecard of it was found: the card has no results. Make some: finbench eval --adapter {folder}"
    notes = [] if own else [none]
    facts = modelcard.Facts(
        repo=repo,
        name=found.name,
        record=record,
        config=found.config,
        kind=found.kind,
        base=base,
        licence=licence_of(record, base, wanted.licence),
        cards=[card for _, card in own],
        base_cards=[card for _, card in beside],
        bytes=sum((folder / name).stat().st_size for name in names if name.endswith(".safetensors")),
    )
    readme = modelcard.write(facts)
    files.append(File("README.md", readme.encode()))
    if record:
        files.append(File("finbench.json", record.to_json().encode()))
        recipe = yaml.safe_dump(record.recipe.model_dump(exclude={"name"}), sort_keys=False)
        files.append(File("finbench/recipe.yaml", f"# finbench train recipe.yaml\n{recipe}".encode()))
    files += evidence_files([path for path, _ in [*own, *beside]], facts.cards)[0]
    if own:
        files.append(File(modelcard.PICTURE, modelcard.plot(facts.cards, facts.base_cards, facts.tasks).encode()))
    message = f"finbench: {found.name} {found.identity[:12]}"
    return Bundle(files, message, readme, owned=SAFE_FILES, notes=notes)


def base_of(found: AdapterFolder, named: str | None) -> BaseModelId:
    """The base as a stranger can have it: a repository of the Hub, with its commit where that is known.

    ``named`` (hub:org/name@commit) is needed where it was trained on a folder, whose weights must be the recorded ones,
    and for an adapter made elsewhere that names no repository.
    """
    recorded = found.record.base if found.record else None
    if named is not None:
        base = bases.resolve(named).id
        if not base.hub_id:
            raise FinbenchError(f"--base {named} is not on the Hub.", "Write --base hub:org/name@commit")
        if recorded and recorded.fingerprint != base.fingerprint:
            raise FinbenchError(
                f"{named} is not the base that {found.name} was trained on (fingerprint {base.fingerprint[:12]}, "
                f"recorded {recorded.fingerprint[:12]}).",
                "Name the repository and commit it was trained on.",
            )
        return base
    if recorded:
        if not recorded.hub_id:
            raise FinbenchError(
                f"{found.name} was trained on a folder ({recorded.alias}), which is on this machine alone.",
                "Name the same base on the Hub: --base hub:org/name@commit",
            )
        return recorded
    stated = str(found.config.get("base_model_name_or_path") or "")
    with contextlib.suppress(FinbenchError):
        ref = refs.parse(f"hub:{stated}")
        alias = next((e.alias for e in catalog.bases().values() if e.hub_id == ref.name), ref.name)
        revision = found.config.get("revision")
        return BaseModelId(
            alias=alias,
            hub_id=ref.name,
            revision=str(revision) if revision else None,
            source="hub",
            fingerprint="unknown",
        )
    raise FinbenchError(
        f"{found.name} does not name its base as a repository of the Hub ({stated[:80]!r}).",
        "Name it: --base hub:org/name@commit",
    )


def _config(found: AdapterFolder, base: BaseModelId) -> Path | bytes:
    """``adapter_config.json`` with base and revision filled in; the file itself where they are already."""
    path = found.folder / "adapter_config.json"
    if found.kind == "model":
        return path
    wanted = {"base_model_name_or_path": base.hub_id, "revision": base.revision or found.config.get("revision")}
    if all(found.config.get(key) == value for key, value in wanted.items()):
        return path
    return (json.dumps({**found.config, **wanted}, indent=2, sort_keys=True) + "\n").encode()


def _record(found: AdapterFolder, base: BaseModelId, config: Path | bytes) -> Adapter | None:
    """``finbench.json`` as published: with the base on the Hub, and the hash of the configuration as sent."""
    record = found.record
    if record is None:
        return None
    known = catalog.bases()
    alias = base.alias if base.alias in known else f"hub:{base.hub_id}" + (f"@{base.revision}" if base.revision else "")
    changed: dict[str, Any] = {"base": base}
    if record.base.source == "folder":
        changed["recipe"] = record.recipe.model_copy(update={"base": alias})
    if isinstance(config, bytes):
        changed["files"] = {**record.files, "adapter_config.json": hashlib.sha256(config).hexdigest()}
    return record.model_copy(update=changed)


def _cards(found: AdapterFolder, wanted: PushSettings) -> tuple[_CardFiles, _CardFiles]:
    """(cards of this adapter, cards of its base under the same conditions), each verified."""
    named = bool(wanted.cards)  # else those that lie about are looked through
    if not named and not _LEFT_BY_EVAL.is_dir():
        return [], []
    try:
        paths = cardfiles.expand(wanted.cards or [_LEFT_BY_EVAL])
    except FinbenchError:
        if named:
            raise
        return [], []
    every = [(path, cardfiles.read(path)) for path in paths]
    own = [(path, card) for path, card in every if card.subject.adapter == found.identity and card.engine != "dummy"]
    if not own and named:
        raise FinbenchError(
            f"None of these cards is of {found.name} ({found.identity[:12]}).", "Make one: finbench eval --adapter"
        )
    conditions = {_conditions(card) for _, card in own}
    beside = [
        (p, c) for p, c in every if c.subject.kind == "base" and c.engine != "dummy" and _conditions(c) in conditions
    ]
    for path, _ in [*own, *beside]:
        check(path)
    return own, beside


def check(path: Path, said: str = "", hint: str = "") -> None:
    """Refuse a card that does not follow from its samples; ``said``: what to call it."""
    faults = verify(path).faults
    if faults:
        message = f"{said or path} is not to be trusted: {faults[0].field} {faults[0].message}"
        raise FinbenchError(message, hint or f"finbench verify {path}")


def _conditions(card: Scorecard) -> tuple[Any, ...]:
    subject = card.subject
    return (subject.base.fingerprint, subject.bits, subject.chat, card.shots, card.limit, card.seed, card.computed)


def evidence_files(paths: Iterable[Path], cards: Sequence[Scorecard]) -> tuple[list[File], list[str]]:
    """Scorecards with their samples, and ``.eval_results`` for a model's repository; the tasks in it.

    One entry a task; the Hub knows no conditions, so the plainest card counts.
    """
    every = [file for path in paths for file in (path, cardfiles.samples_path(path)) if file.is_file()]
    files = [File(f"{EVIDENCE}/{file.name}", file) for file in every]
    entries: dict[str, Any] = {}
    for card in sorted(cards, key=lambda card: (card.limit is not None, card.shots, card.subject.chat)):
        for entry in eval_results(card):
            entries.setdefault(str(entry["dataset"]["task_id"]), entry)
    if cards:
        text = yaml.safe_dump(list(entries.values()), sort_keys=False, allow_unicode=True)
        files.append(File(".eval_results/finbench.yaml", text.encode()))
    return files, list(entries)
