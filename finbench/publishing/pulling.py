"""``finbench pull`` and ``finbench zoo add``: what others published, into a folder or as a pin of the zoo."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finbench import hub
from finbench.cards import cardfiles
from finbench.core import refs
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError, harmless
from finbench.core.files import folder_atomic
from finbench.core.records import Score, Scorecard
from finbench.models import adapters, modelfiles, pickles, zoo
from finbench.models.adapters import AdapterFolder
from finbench.publishing.belonging import alike, is_plain, weights_at
from finbench.publishing.evidence import check, published

_MARK = ".finbench-pull"  # source, and the files of a pulled folder
_LONGEST_NAME = 200  # characters of a name that somebody else has given


@dataclass(frozen=True)
class Pulled:
    """An adapter, or a model that was converted (``adapter`` is None), in a folder of the user's own."""

    folder: Path
    source: str
    adapter: AdapterFolder | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        stated = {"folder": str(self.folder), "source": self.source}
        if self.adapter is None:
            return {**stated, "kind": "model"}
        found = {"adapter": self.adapter.identity, "kind": self.adapter.kind, "base": stated_base(self.adapter)}
        return {**stated, **found}


def pull(reference: str, out: Path, convert: bool = False) -> Pulled:
    """Fetch ``hub:org/name[@rev]`` or ``zoo:name`` into the folder ``out``, whole or not at all.

    Only safetensors, JSON and tokenizer files, each hash checked; an adapter is read and checked before it gets its
    name. With ``convert``, one that exists only as pickles, or a folder or model that does (``models.pickles``).
    Raises FinbenchError for a folder that holds something else.
    """
    ref = refs.parse(reference)
    if convert:
        return _converted(ref, out)
    if ref.kind not in ("hub", "zoo"):
        raise zoo.bare(reference) or FinbenchError(
            f"{reference} is no reference to the Hub.{refs.meant(reference)}", "Write hub:org/name or zoo:name."
        )
    found = adapters.find(reference)
    assert found.source is not None
    _check_free(out)
    with folder_atomic(out) as staging:
        for path in found.folder.iterdir():
            shutil.copyfile(path, staging / path.name)
        _mark(staging, found.source)
    return Pulled(out, found.source, adapters.read(out))


def _converted(ref: refs.Ref, out: Path) -> Pulled:
    if ref.kind not in ("hub", "folder"):
        raise zoo.bare(ref.name) or FinbenchError(
            f"--convert takes a repository or a folder, not {ref.name}.", "hub:org/name or ./folder"
        )
    _check_free(out)
    folder, source = ref.path, str(ref.path)
    if ref.kind == "hub":
        folder, sha = hub.fetch(ref.name, ref.revision, pickled=True)
        source = f"hub:{ref.name}@{sha}"
    elif out.resolve() == folder.resolve():
        raise FinbenchError(f"{out} is the folder that is to be converted.", "Choose a new one with --out.")
    with folder_atomic(out) as staging:
        try:
            pickles.convert(folder, staging, source if ref.kind == "hub" else folder.resolve().name, ref.kind == "hub")
            adapter = (staging / "adapter_config.json").is_file()
            if adapter:
                adapters.read(staging)
            else:
                modelfiles.check_folder(staging)
        except FinbenchError as fault:  # it is never seen under the name that it has here
            named = (text.replace(str(staging), str(out)) for text in (fault.message, fault.hint))
            raise FinbenchError(next(named), next(named)) from fault
        _mark(staging, source)
    return Pulled(out, source, adapters.read(out) if adapter else None)


def _mark(staging: Path, source: str) -> None:
    """Note what was pulled, under a name that is no part of an adapter: its record lists every file that is."""
    names = sorted(path.name for path in staging.iterdir())
    (staging / _MARK).write_text("\n".join([source, *names]) + "\n", encoding="utf-8")


def _check_free(out: Path) -> None:
    """Refuse what lies at ``out`` that a pull has not put there, and must not remove."""
    there = ["it is a file itself"] if out.exists() or out.is_symlink() else []
    if out.is_dir():
        there = sorted(path.name for path in out.iterdir())
    try:
        known = (out / _MARK).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        known = []
    if strange := [name for name in there if name not in (*known, _MARK)]:
        raise FinbenchError(f"{out} holds other files: {strange[0]}.", "Choose an empty or a new folder with --out.")


def stated_base(found: AdapterFolder) -> str:
    """The base that an adapter says it belongs to, with its commit if it says that; for people."""
    if found.record:
        base = found.record.base
        stated, revision = base.hub_id or base.alias, base.revision
    else:
        stated = str(found.config.get("base_model_name_or_path") or zoo.UNKNOWN)
        revision = found.config.get("revision")
    return harmless(stated[:_LONGEST_NAME] + (f"@{str(revision)[:_LONGEST_NAME]}" if revision else ""))


def add_to_zoo(reference: str, name: str | None = None) -> tuple[zoo.ZooEntry, Path]:
    """Pin a published adapter under a name; return (entry, the file it was written to).

    The adapter is fetched and checked, and so are the scorecards published beside it: one that does not follow from
    its samples is an error, none at all leaves its scores unknown.
    """
    quiet()
    ref = refs.parse(reference)
    if ref.kind != "hub":
        raise FinbenchError(
            f"{reference} is no reference to the Hub.{refs.meant(reference)}",
            "Write hub:org/name or hub:org/name@commit.",
        )
    found = adapters.find(reference)
    assert found.source is not None
    sha = found.source.partition("@")[2]
    card, digest, base = _evidence(ref.name, sha, found)
    weights = sum(path.stat().st_size for path in found.folder.glob("*.safetensors"))
    recipe = found.record.recipe if found.record else None
    stated = stated_base(found).partition("@")
    entry = zoo.ZooEntry.parse(
        {
            "name": name or ref.name.partition("/")[2],
            "hub": f"{ref.name}@{sha}",
            "adapter": found.identity,
            "base": stated[0],
            "base_revision": stated[2] or None,
            "method": recipe.method if recipe else str(found.config.get("peft_type") or zoo.UNKNOWN).lower(),
            "rank": recipe.rank if recipe else found.config.get("r"),
            "bits": recipe.bits if recipe else None,
            "bytes": weights,
            "date": found.record.provenance.created[:10] if found.record else zoo.UNKNOWN,
            "licence": _licence(ref.name, sha),
            "scorecard": digest,
            "scores": {score.task: _entry(score, base) for score in card.scores} if card else {},
        },
        "zoo add",
    )
    return entry, zoo.write(entry)


def _entry(score: Score, base: Scorecard | None) -> dict[str, Any]:
    beside = next((s for s in base.scores if s.task == score.task and s.data == score.data), None) if base else None
    main = score.main
    stated = {"value": main.value, "low": main.low, "high": main.high, "metric": score.main_metric, "n": score.n}
    return stated | {"base": beside.main.value if beside else None}


def _evidence(repo: str, sha: str, found: AdapterFolder) -> tuple[Scorecard | None, str | None, Scorecard | None]:
    """(plainest card of the adapter, SHA-256 of its file, card of the base) among those published beside it."""
    lying, own = weights_at(repo, sha), list[tuple[Scorecard, str]]()
    bases: list[Scorecard] = []
    for path in published(repo, sha):
        card = cardfiles.read(path)
        check(path, f"hub:{repo}: {path.name}", "Not added.")
        if card.subject.adapter == found.identity:
            if lying and not is_plain(card, lying.base or card.subject.base, lying.bits):
                continue  # a score on another base, or in other bits
            own.append((card, hashlib.sha256(path.read_bytes()).hexdigest()))
        elif not card.subject.adapter:
            bases.append(card)
    if not own:
        return None, None, None
    card, digest = min(own, key=lambda pair: (pair[0].limit is not None, pair[0].shots, pair[0].subject.chat))
    return card, digest, next((base for base in bases if alike(card, base)), None)


def _licence(repo: str, sha: str) -> str:
    """The licence that a repository's card states: text of a stranger, so only a line that is one identifier."""
    paths = hub.fetch_paths(repo, sha, ["README.md"]).values()
    text = "".join(path.read_bytes().decode("utf-8", "replace")[:20_000] for path in paths)
    block = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
    found = re.search(r"^license:[ \t]*['\"]?([A-Za-z0-9.-]{1,40})['\"]?[ \t]*\r?$", block, re.MULTILINE | re.ASCII)
    return found[1] if found else zoo.UNKNOWN
