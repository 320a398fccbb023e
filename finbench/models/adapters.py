"""Adapter folders: read one strictly, refuse a torn, poisoned or foreign one, find its base."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from finbench import hub
from finbench.core import catalog, refs, safety
from finbench.core.combined import Combined
from finbench.core.errors import FinbenchError, listed, near_misses
from finbench.core.files import bearable, digest, sha256_file
from finbench.core.records import Adapter, BaseModelId
from finbench.methods import METHODS, REFUSED_TUNERS, TUNERS, Tuner, irqlora
from finbench.models import bases, modelfiles, unfinished, zoo
from finbench.models.adapterfolder import AdapterFolder as AdapterFolder
from finbench.models.modelfiles import damaged

WEIGHTS, COMBINED = "adapter_model.safetensors", "combined.json"
_INCIDENTAL = ("base_model_name_or_path", "revision", "peft_version", "inference_mode")
_SCANNED = 2**22  # values of a tensor that are looked at together, in 32 bits each
_LARGEST_RECORD = 2**24  # bytes of a finbench.json; loss curve and digests take some 20,000
# What peft can load, also what finbench does not train. Safe since peft makes these from numbers of the configuration
# and fills them from the one file of weights; X-LoRA and Shadow open further adapters and models.
_OPENING_OTHERS = ("xlora", "shadow")
_TUNERS_OF_OURS = (name for name, method in METHODS.items() if isinstance(method, Tuner))
KINDS = {"lora", irqlora.KIND.lower(), *TUNERS, *REFUSED_TUNERS, *_TUNERS_OF_OURS} - {*_OPENING_OTHERS}
Made = TypeVar("Made", Adapter, Combined)
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.pkl", "pytorch_model.bin")


def record(folder: Path) -> Adapter:
    """The ``finbench.json`` of a folder."""
    return _parsed(Adapter, folder / "finbench.json")


def _parsed(kind: type[Made], path: Path) -> Made:
    try:
        if path.stat().st_size > _LARGEST_RECORD:
            raise damaged(f"{path} is too large for a record ({path.stat().st_size:,} bytes).", "the adapter")
        return kind.parse(json.loads(bearable(path.read_text(encoding="utf-8"))), str(path))
    except (OSError, ValueError, RecursionError) as fault:
        reason = "missing" if isinstance(fault, FileNotFoundError) else f"torn ({fault})"
        anew = "Train the adapter" if kind is Adapter else "Merge the adapters"
        raise FinbenchError(f"{path} is {reason}.", f"{anew} again, or fetch it again.") from fault


def locate(text: str) -> Path:
    """The folder of an adapter reference: ``./folder``, ``hub:org/name[@rev]`` (fetched), ``zoo:name`` (pinned)."""
    return _located(text)[0]


def find(text: str) -> AdapterFolder:
    """The adapter that a reference names, fetched if need be, read and checked; it knows where it came from."""
    folder, source = _located(text)
    return replace(read(folder), source=source)


def _located(text: str) -> tuple[Path, str | None]:
    """(folder, ``hub:org/name@commit`` or None)."""
    ref = refs.parse(text)
    if ref.kind == "zoo":
        ref = zoo.published(ref.name).ref
    if ref.kind == "hub":
        folder, sha = hub.fetch(ref.name, ref.revision)
        return folder, f"hub:{ref.name}@{sha}"
    if not ref.path.is_dir():
        if other := zoo.bare(text):
            raise other
        beside = [place.parent.name for place in ref.path.parent.glob("*/adapter_config.json")]
        close = [str(ref.path.with_name(name)) for name in near_misses(ref.path.name, beside)] if ref.path.name else []
        mean = f" Did you mean {' or '.join(close)}?" if close else "" if beside else refs.meant(text)
        mean += f" {ref.path.parent} has {', '.join(sorted(beside)[:5])}." if beside and not close else ""
        raise FinbenchError(
            f"No such adapter folder: {text}.{mean}", "Train one: finbench train --task fpb --out ./my-adapter"
        )
    return ref.path, None


def read(folder: Path) -> AdapterFolder:
    """Read and check an adapter folder, without its base. Every fault is a FinbenchError that names the file."""
    if (folder / "checkpoints").is_dir() and not (folder / "finbench.json").is_file():
        raise unfinished.refused(folder)
    found = record(folder) if (folder / "finbench.json").is_file() else None
    if found is not None and found.kind == "model":
        modelfiles.check_folder(folder)
        _compare(folder, found)
        return AdapterFolder(folder, found, "model", digest(found.files), {})
    config = stated_config(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickles = [name for name in PICKLES if (folder / name).is_file()]
        reason = f"only pickled weights ({pickles[0]}), which are never loaded" if pickles else f"no {WEIGHTS}"
        hint = "Save it again with safetensors: model.save_pretrained(folder)"
        if pickles:
            place = shlex.quote(refs.typed(folder))
            hint = f"Have their tensors written as safetensors: finbench pull {place} --convert --out ./converted"
        raise FinbenchError(f"{folder} has {reason}.", hint)
    if found is not None:
        _compare(folder, found)
    safety.check_adapter(config, folder / "adapter_config.json", safety.check_header(weights))
    _scan(weights)
    name = identity(folder, config)
    combined = None if found else _combined(folder, name)
    return AdapterFolder(folder, found, "peft", name, config, combined=combined)


def _combined(folder: Path, name: str) -> Combined | None:
    """What ``combined.json`` says of the adapter ``name``; FinbenchError where it is torn or of another one."""
    path = folder / COMBINED
    if not path.is_file():
        return None
    made = _parsed(Combined, path)
    if made.identity != name:
        raise damaged(f"{path} is of another adapter: weights or configuration have changed.", "the adapter")
    return made


def identity(folder: Path, config: dict[str, Any] | None = None) -> str:
    """SHA-256 of a peft adapter: its weights, and its configuration less what names base and library.

    ``config``: the configuration, where it has been read already.
    """
    return identity_from(sha256_file(folder / WEIGHTS), stated_config(folder) if config is None else config)


def identity_from(weights: str, config: dict[str, Any]) -> str:
    """``identity`` from the SHA-256 of the weights."""
    return digest({"weights": weights, "config": decisive_config(config)})


def decisive_config(config: dict[str, Any]) -> dict[str, Any]:
    """What of an ``adapter_config.json`` decides an answer on a given base."""
    kept = {key: value for key, value in config.items() if key not in _INCIDENTAL}
    if isinstance(kept.get("target_modules"), list):  # a set: its order in the file means nothing
        kept["target_modules"] = sorted(map(str, kept["target_modules"]))
    return kept


def decisive_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of an adapter or model folder that decides an answer."""
    kinds = (".safetensors", ".jinja", ".model", ".txt", ".json")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in kinds and path.name != "finbench.json")
    return {name: sha256_file(folder / name) for name in names}


def stated_config(folder: Path) -> dict[str, Any]:
    """What ``adapter_config.json`` says; FinbenchError for one that is missing, unsafe or of an unknown kind."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        below = [str(found.parent) for found in sorted(folder.glob(f"*/{path.name}"))[:3]]
        raise FinbenchError(
            f"{folder} is not an adapter folder: adapter_config.json is missing.",
            f"Did you mean {listed(below, 'or')}?"
            if below
            else "Name the folder in which it lies; a whole model is scored by eval --model.",
        )
    config = safety.read_json(path, folder)
    safety.refuse_code(config, path)
    kind = str(config.get("peft_type") or "LORA").lower()  # peft's first files had no type
    if kind in _OPENING_OTHERS:
        raise FinbenchError(
            f"{path}: an adapter of the kind {kind.upper()} opens further ones, which nobody has checked.",
            "Ask its author for one LoRA: model.save_pretrained(folder) of each adapter it mixes.",
        )
    if kind not in KINDS:
        close = near_misses(kind, KINDS)
        meant = f" (did you mean {close[0].upper()}?)" if close else ""
        raise FinbenchError(
            f"{path}: peft_type {str(config['peft_type'])[:60]!r} is no method that finbench can load{meant}.",
            "See them all: finbench methods",
        )
    return config


def _compare(folder: Path, found: Adapter) -> None:
    """Every file that decides an answer must be the one that was trained: safetensors has no checksum of its own."""
    present = decisive_files(folder)
    for name in sorted({*found.files, *present}):
        if name not in present:
            raise damaged(f"{folder} is incomplete: {name} is missing.", "the adapter")
        if name not in found.files:
            raise damaged(f"{folder} holds {name}, which finbench.json does not list.", "the adapter")
        if present[name] != found.files[name]:
            raise FinbenchError(
                f"{folder / name} is not what was trained (its SHA-256 differs); finbench.json is of other weights.",
                f"Fetch the adapter again; or, if these are new weights of yours: finbench adopt {folder}",
            )


def _scan(weights: Path) -> None:
    """Refuse weights that are torn, not finite, or that change nothing.

    A NaN in a query projection can leave logits finite (attention kernels swallow it), so looking at outputs
    is not enough. A LoRA whose every B is zero is the base under another name.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="pt") as tensors:
            names = list(tensors.keys())
            if not names:
                raise damaged(f"{weights} holds no tensors.", "the adapter")
            effect = not any(".lora_B." in name for name in names)
            for name in names:
                tensor = tensors.get_tensor(name)
                pieces = tensor.flatten().split(_SCANNED) if tensor.is_floating_point() else ()
                if not all(piece.float().isfinite().all() for piece in pieces):
                    raise FinbenchError(
                        f"{weights}: {name} has values that are not finite.", "Train it with a smaller --lr."
                    )
                effect = effect or (".lora_B." in name and bool(tensor.any()))
    except (SafetensorError, OSError) as fault:
        raise damaged(f"{weights} is torn or not safetensors ({fault}).", "the adapter") from fault
    if not effect:
        raise FinbenchError(
            f"{weights} has no effect: every lora_B is zero, so it is the base itself.",
            "Train it longer or with a larger --lr, or fetch a trained one.",
        )


def base_of(adapter: AdapterFolder, named: str | None) -> bases.Base:
    """The base to put ``adapter`` on: the one named by the user, else the one it names if bases.yaml knows it.

    The adapter never chooses by itself. Raises FinbenchError when its record says that it was trained on
    another base: adapters of equal shape load anywhere and score nonsense.
    """
    trained_on = adapter.base
    name = named or _known_base(adapter, trained_on)
    if named is None and trained_on and trained_on.source == "hub" and trained_on.revision:
        name = f"hub:{trained_on.hub_id}@{trained_on.revision}"
    base = bases.resolve(name, trained_on.source if trained_on and trained_on.source != "folder" else None)
    if trained_on is not None and base.id.fingerprint != trained_on.fingerprint:
        raise _of_another_base(adapter, trained_on, base.id, named or base.id.alias)
    stated = str(adapter.config.get("base_model_name_or_path") or "")
    known = {entry.hub_id for entry in catalog.bases().values()}
    if trained_on is None and stated in known and base.id.hub_id in known - {stated}:
        raise FinbenchError(
            f"{adapter.name} states the base {stated}, not {base.id.hub_id}.", f"Name it: --base hub:{stated}"
        )
    return base


def _of_another_base(adapter: AdapterFolder, trained_on: BaseModelId, found: BaseModelId, named: str) -> FinbenchError:
    """The fault of a base that is not the recorded one, or is by its name and not by its bytes."""
    record = shlex.quote(str(adapter.folder / "finbench.json"))
    anew = f"train it again, or use it without its record: mv {record} {record}.old"
    same = [(one.source, one.alias, one.hub_id, one.revision) for one in (trained_on, found)]
    fingerprints = f"{trained_on.fingerprint[:12]}; {named} is {found.fingerprint[:12]}"
    if same[0] == same[1]:
        return FinbenchError(
            f"{adapter.name} records the base {trained_on.alias} by another fingerprint ({fingerprints}): an earlier "
            "finbench named it, or its files have changed.",
            f"If the files are right, {anew}",
        )
    return FinbenchError(
        f"{adapter.name} was trained on another base (recorded {trained_on.alias}, fingerprint {fingerprints}).",
        {
            "hub": f"Name the base it was trained on: --base hub:{trained_on.hub_id}@{trained_on.revision}",
            "wheel": f"Name the base it was trained on: --base {trained_on.alias}",
            "folder": f"Name the folder of the base it was trained on ({trained_on.alias}): --base ./folder",
        }[trained_on.source],
    )


def _known_base(adapter: AdapterFolder, trained_on: BaseModelId | None) -> str:
    stated = str(adapter.config.get("base_model_name_or_path") or "")
    name = trained_on.hub_id or trained_on.alias if trained_on else stated  # an alias says nothing beside a repository
    for entry in catalog.bases().values():
        if name in (entry.alias, entry.hub_id):
            return entry.alias
    raise FinbenchError(
        f"{adapter.name} names the base {name!r}, which bases.yaml does not know.",
        "If you trust it, name it yourself: --base ./folder or --base hub:org/name",
    )
