"""An adapter or merged model as it lies on the Hub: its files, its base filled in, its card, its evidence."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from finbench.cards import risk_of
from finbench.core import catalog, refs
from finbench.core.errors import FinbenchError
from finbench.core.records import Adapter, BaseModelId
from finbench.core.settings import PushSettings
from finbench.hub import SAFE_FILES, File, Kind
from finbench.models import adapters, adopting, bases
from finbench.models.adapters import AdapterFolder
from finbench.publishing import modelcard
from finbench.publishing.evidence import CURVES, PICTURE, RECIPE, files_of, find
from finbench.publishing.home import home
from finbench.publishing.licences import licence_of
from finbench.training import curves

# of an adapter that finbench did not make: what peft reads, and a tokenizer if it brings one
_OF_PEFT = ["adapter_config.json", adapters.WEIGHTS, "tokenizer.json", "tokenizer_config.json", "tokenizer.model"]
_OF_PEFT += ["special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt"]
_OF_PEFT += [adapters.COMBINED, "converted.json"]


@dataclass(frozen=True)
class Bundle:
    """Files to publish, and how. ``owned``: what goes where it is not among them (``hub.make_plan``).

    ``results``: whether there are scores among them; ``seen``: the commit of the repository that they were chosen for;
    ``into``: it has to be there, with the weights that they tell of. ``adapter``: what is published, on its base there.
    """

    files: list[File]
    message: str
    readme: str
    kind: Kind = "model"
    owned: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    results: bool = True
    seen: str | None = None
    into: bool = False
    adapter: AdapterFolder | None = None


def bundle(folder: Path, wanted: PushSettings, repo: str) -> Bundle:
    """Everything to publish of an adapter folder, or of a whole model."""
    merged = (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()
    if merged and not (folder / "finbench.json").is_file():
        raise FinbenchError(
            f"{folder} is a model without a record of how it was made, of which finbench could write a card.",
            f"Send it by hf upload {repo} {folder}; then its scores: finbench push CARD.json hub:{repo} --model. "
            "Of an adapter finbench makes a model: finbench merge ADAPTER --out DIR",
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
    evidence = find(found, wanted.cards, repo)
    own, beside = evidence.own, evidence.beside
    none = "No scorecard of it was found: the card has no results. Make some: " + adopting.to_score(found, str(folder))
    notes = [] if own else [none]
    if evidence.stale:
        notes.append(
            "Results of other weights, or that finbench verify refuses (as of an older version of a task), are there; "
            "they move to finbench/history in the same commit. Score these weights again to show some."
        )
    facts = modelcard.Facts(
        repo=repo,
        home=home(wanted.benchmark) if wanted.benchmark else None,
        name=found.name,
        record=record,
        combined=found.combined,
        config=found.config,
        kind=found.kind,
        base=base,
        bits=found.bits,
        licence=licence_of(record, base, wanted.licence),
        cards=[card for _, card in own],
        base_cards=[card for _, card in beside],
        bytes=sum((folder / name).stat().st_size for name in names if name.endswith(".safetensors")),
    )
    plain = [(path, card) for path, card in own if card in facts.plain]
    if plain:
        facts = replace(facts, risk=risk_of([path for path, _ in plain], [path for path, _ in [*own, *beside]]))
    if own and not facts.plain:
        notes.append(
            f"No result is on {base.hub_id} in {facts.bits} bits: all are shown with their conditions, and in the "
            "README alone."
        )
    notes += facts.apart
    readme = modelcard.write(facts)
    files.append(File("README.md", readme.encode()))
    if record:
        files.append(File("finbench.json", record.to_json().encode()))
        recipe = yaml.safe_dump(record.recipe.model_dump(exclude={"name"}), sort_keys=False)
        files.append(File(RECIPE, f"# finbench train recipe.yaml\n{recipe}".encode()))
        files.append(File(CURVES, curves.picture(found.name, record.training).encode()))
    files += files_of([path for path, _ in [*own, *beside]], plain, repo, facts.home, proposed=wanted.pr)
    if facts.plain:
        files.append(File(PICTURE, modelcard.plot(facts.plain, facts.base_cards, facts.tasks).encode()))
    files += evidence.history([file.path for file in files])
    message = f"finbench: {found.name} {found.identity[:12]}"
    owned = (*SAFE_FILES, *evidence.owned)
    there = replace(found, record=record, config={**found.config, "base_model_name_or_path": base.hub_id})
    return Bundle(
        files, message, readme, owned=owned, notes=notes, results=bool(own), seen=evidence.commit, adapter=there
    )


def base_of(found: AdapterFolder, named: str | None) -> BaseModelId:
    """The base as a stranger can have it: a repository of the Hub, with its commit where that is known.

    ``named`` (hub:org/name@commit) is needed where it was trained on a folder, whose weights must be the recorded ones,
    and for an adapter made elsewhere that names no repository.
    """
    recorded = found.base
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
