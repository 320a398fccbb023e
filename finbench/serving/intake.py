"""May this adapter be served beside the others? Checked in a process of its own, so that no file harms the server."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from finbench.core import refs
from finbench.core.errors import FinbenchError
from finbench.core.files import strict_json
from finbench.core.settings import Evaluation
from finbench.engines import servable
from finbench.evaluation import Candidate, candidates, preflight
from finbench.models import adapters, chatguard
from finbench.serving.terms import Served, Terms

_FILES = ("adapter_config.json", adapters.WEIGHTS)  # all that vLLM is shown of an adapter
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_LARGEST = 2**24  # bytes of a file that may hold a template


def main() -> None:
    """``python -m finbench.serving.intake``: terms and reference as JSON in, what was taken or the fault out."""
    asked = json.load(sys.stdin)
    try:
        taken = take(asked["reference"], Terms.parse(asked["terms"], "terms"))
        found: dict[str, Any] = taken.model_dump()
    except FinbenchError as fault:
        found = {"fault": fault.message, "hint": fault.hint}
    except OSError as fault:
        found = {"fault": f"The server cannot read or keep it: {fault}.", "hint": "Look at its disk."}
    print(json.dumps(found))


def take(reference: str, terms: Terms) -> Served:
    """Check an adapter against the server and keep a copy of what vLLM loads, by its content.

    Raises FinbenchError with every reason at once why it cannot stand beside the others.
    """
    found, _ = candidates(Evaluation([reference], base=terms.reference, bits=16, engine="vllm"))
    one = found[-1]
    if faults := against(one, terms):
        raise FinbenchError(
            f"{reference} cannot be served here:\n" + "\n".join(f"- {fault}" for fault in faults),
            "The server goes on as it was: finbench serve list",
        )
    assert one.adapter is not None
    copy = _kept(one.adapter, str(one.subject.adapter), Path(terms.place))
    size = (copy / adapters.WEIGHTS).stat().st_size
    named = refs.parse(reference)
    name = named.name if named.kind == "zoo" else one.subject.name
    source = one.subject.adapter_source or str(one.adapter.resolve())
    return Served(name=name, source=source, adapter=str(one.subject.adapter), bytes=size)


def against(one: Candidate, terms: Terms) -> list[str]:
    """Every reason why the server of these ``terms`` does not take an adapter."""
    if one.adapter is None or one.subject.kind != "peft":
        return [f"{one.subject.name} is a whole model: serve it alone, vllm serve {one.adapter}"]
    faults = preflight.against(one)
    how = preflight.route(one)
    if how.how == "merged":
        faults.append(f"it cannot stand beside its base ({', '.join(how.reasons)}): finbench merge {one.adapter}")
    config = adapters.stated_config(one.adapter)
    stated = str(config.get("base_model_name_or_path") or "")
    if one.subject.base.fingerprint != terms.fingerprint:
        faults.append(f"it is of another base: {one.subject.base.alias}, and {terms.base} is served")
    elif one.record is None and stated not in terms.names:
        faults.append(
            f"it names the base {stated[:100]!r}, and {terms.base} is served; if these are the same, "
            "start the server with it (--adapter), which is your word for it"
        )
    rank = servable.served_rank(config)
    if rank is not None and rank > terms.rank:
        faults.append(
            f"its rank is {config.get('r')}, and there is room for {terms.rank}: start with --max-rank {rank}"
        )
    if beyond := sorted(servable.targets(one.adapter) - set(terms.targets)):
        faults.append(f"it changes layers for which the server has no room: {', '.join(beyond[:5])}")
    return [*dict.fromkeys([*faults, *_templates(one.adapter)])]


def _templates(folder: Path) -> list[str]:
    """What a chat template beside the adapter does that none needs. Only the base's is used, whatever lies here."""
    faults = []
    for name in _TEMPLATES:
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > _LARGEST:
            return [f"{name} is too large for what it is"]
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            stated = text if path.suffix == ".jinja" else strict_json(text).get("chat_template") or ""
        except (ValueError, AttributeError, RecursionError):
            faults.append(f"{name} is no JSON object")
            continue
        several = [part.get("template") for part in stated if isinstance(part, dict)]
        for template in [stated] if isinstance(stated, str) else several:
            if isinstance(template, str) and (fault := chatguard.reaching(template)):
                faults.append(f"its chat template ({name}) {fault}")
    return faults


def _kept(folder: Path, identity: str, place: Path) -> Path:
    """A copy of the two files that vLLM reads, named by their content: a later change of the folder reaches nobody."""
    kept, made = place / identity, place / f"{identity}.part"
    if kept.is_dir():
        return kept
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for name in _FILES:
        shutil.copyfile(folder / name, made / name)
    if adapters.identity(made) != identity:
        raise FinbenchError(f"{folder} was changed while it was checked.", "Add it again.")
    return made.rename(kept)


if __name__ == "__main__":
    main()
