"""Who is examined: adapter references, bases and options become subjects that an engine can load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import BaseModelId, Bits, Contamination, Subject
from finbench.models import adapters, bases
from finbench.models.adapters import AdapterFolder


@dataclass(frozen=True)
class Examinee:
    """A subject and how to load it. ``merged`` is a model made of adapter and base, for an engine that needs one."""

    subject: Subject
    base: bases.Base | None
    adapter: Path | None
    contamination: Contamination | None = None  # as its adapter's record states it
    merged: Path | None = None

    @property
    def beside(self) -> Path | None:
        """The adapter that an engine puts on the base."""
        return self.adapter if self.subject.kind == "peft" and self.merged is None else None

    @property
    def loaded(self) -> bases.Base:
        """What an engine loads: the base, or the whole model that stands for it."""
        assert self.base is not None
        whole = self.merged or (self.adapter if self.subject.kind == "model" else None)
        return bases.Base(self.base.id, whole) if whole else self.base


def examinees(
    references: Sequence[str], model: str | None, base: str | None, bits: Bits | None, chat: bool | None, engine: str
) -> tuple[list[Examinee], list[str]]:
    """Every subject, bases first, and the tasks of the adapters' recipes. Faults are reported together."""
    found: list[Examinee] = []
    tasks: list[str] = []
    faults: list[FinbenchError] = []
    dummy = (
        bases.Base(BaseModelId(alias="dummy", source="folder", fingerprint="dummy"), Path())
        if engine == "dummy"
        else None
    )
    for text in references:
        try:
            adapter = adapters.find(text)
            on = dummy or adapters.base_of(adapter, base)
            examinee = _adapter_subject(adapter, on, bits, chat)
            beside = _base_subject(on, examinee.subject.bits, examinee.subject.chat)
            found += [beside, examinee]
            tasks += list(adapter.record.recipe.tasks) if adapter.record else []
        except FinbenchError as fault:
            faults.append(fault)
    if faults:
        hint = next((fault.hint for fault in faults if fault.hint), "")
        raise FinbenchError("\n".join(fault.message for fault in faults), hint)
    named = [model] if model else [base or "smollm2-135m"] if not references else []
    if not references and not model and not base and engine != "dummy":
        raise FinbenchError(
            "Nothing to evaluate.", "Name an adapter (--adapter ./folder) or a base (--model smollm2-135m)."
        )
    for text in named:
        found.append(_base_subject(dummy or bases.resolve(text), bits or 16, bool(chat)))
    unique = {digest(examinee.subject.model_dump()): examinee for examinee in found}
    ordered = sorted(unique.values(), key=lambda examinee: examinee.subject.kind != "base")
    return _distinct_names(ordered), list(dict.fromkeys(tasks))


def _base_subject(base: bases.Base, bits: Bits, chat: bool) -> Examinee:
    name = base.id.alias + (f"-{bits}bit" if bits != 16 else "") + ("-chat" if chat else "")
    return Examinee(Subject(name=name, base=base.id, bits=bits, chat=chat), base, None)


def _adapter_subject(adapter: AdapterFolder, base: bases.Base, bits: Bits | None, chat: bool | None) -> Examinee:
    recipe = adapter.record.recipe if adapter.record else None
    # a whole model has 16-bit weights whatever it was trained on: quantising them would be another model
    trained = recipe.bits if recipe and adapter.kind == "peft" else 16
    subject = Subject(
        name=adapter.name,
        base=base.id,
        adapter=adapter.identity,
        adapter_name=adapter.name,
        adapter_source=adapter.source,
        method=recipe.method if recipe else str(adapter.config.get("peft_type", "unknown")).lower(),
        rank=recipe.rank if recipe else adapter.config.get("r"),
        trainable_parameters=adapter.record.training.trainable_parameters if adapter.record else None,
        seed=recipe.seed if recipe else None,
        bits=bits or trained,
        chat=chat if chat is not None else bool(recipe and recipe.chat),
        kind=adapter.kind,
    )
    return Examinee(subject, base, adapter.folder, adapter.record.contamination if adapter.record else None)


def _distinct_names(found: list[Examinee]) -> list[Examinee]:
    """Two adapters may have one name: the later one gets part of its hash."""
    taken: set[str] = set()
    result = []
    for examinee in found:
        name = examinee.subject.name
        if name in taken:
            name += "-" + (examinee.subject.adapter or examinee.subject.base.fingerprint)[:6]
        taken.add(name)
        result.append(replace(examinee, subject=examinee.subject.model_copy(update={"name": name})))
    return result


def at_endpoint(names: str | None, url: str, chat: bool) -> list[Examinee]:
    """Models of an endpoint by the names (with commas between) that they have there; what they are is not known."""
    if not names:
        raise FinbenchError("Which model of the endpoint?", "--model NAME, or --model ONE,OTHER")
    found = []
    for name in dict.fromkeys(part.strip() for part in names.split(",") if part.strip()):
        # told apart by where they are, which is not to be read off a card
        who = BaseModelId(alias=name, source="folder", fingerprint="endpoint:" + digest([url, name])[:32])
        found.append(Examinee(Subject(name=name, base=who, chat=chat), None, None))
    return found


def by_engine(found: list[Examinee]) -> list[list[Examinee]]:
    """Subjects that one engine can serve: the same base and bits; a whole model has an engine of its own."""
    groups: dict[tuple[Any, ...], list[Examinee]] = {}
    for examinee in found:
        subject = examinee.subject
        own = subject.adapter if subject.kind == "model" or examinee.merged else None
        groups.setdefault((subject.base.fingerprint, subject.bits, own), []).append(examinee)
    return list(groups.values())


def start_engine(
    group: Sequence[Examinee], engine: str, arguments: Mapping[str, Any], seed: int, exams: dict[str, Any]
) -> Any:
    """An engine for subjects of one base and bits; call ``use`` next."""
    made = _started(group, engine, arguments, seed, exams)
    if arguments.get("labels") == "best":
        made.best = frozenset(name for name, exam in exams.items() if _takes_the_best(name, exam))
    return made


def _takes_the_best(name: str, exam: Any) -> bool:
    """Whether the scorer of a choice task looks at nothing but which label is the most probable.

    Every one does that has no ``acc_norm``, which divides by the length first. Where the choices are the contexts, as
    in WinoGrande, there is one label a context, and nothing can be left.
    """
    if catalog.tasks()[name].form != "choice" or exam.multiple_input:
        return False
    if "acc_norm" in exam.aggregation():
        say(f"{name}: all labels are run to their end, for acc_norm needs them.")
        return False
    return True


def _started(
    group: Sequence[Examinee], engine: str, arguments: Mapping[str, Any], seed: int, exams: dict[str, Any]
) -> Any:
    if engine == "dummy":
        from finbench.engines import DummyEngine

        dummy = DummyEngine(str(arguments.get("answers", "random")), seed)
        dummy.exams = exams
        return dummy
    if engine == "server":
        from finbench.engines import ServerEngine

        return ServerEngine(arguments["url"], group[0].subject.name, arguments.get("concurrency"))
    base = group[0].loaded
    if engine == "vllm":
        from finbench.engines.vllm import VLLMEngine

        names = ("dtype", "batch_size", "tensor_parallel", "data_parallel", "max_length")
        chosen = {key: arguments[key] for key in names if key in arguments}
        return VLLMEngine(base, [one.beside for one in group if one.beside], **chosen)
    from finbench.engines import HFEngine

    chosen = {key: arguments[key] for key in ("dtype", "batch_size") if key in arguments}
    return HFEngine(base, group[0].subject.bits, merge="merge" not in arguments, **chosen)
