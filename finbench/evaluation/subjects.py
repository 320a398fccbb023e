"""Who is evaluated: adapter references, bases and options become subjects that an engine can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finbench.core import catalog
from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import Adapter, BaseModelId, Bits, Contamination, Overlap, Subject
from finbench.core.settings import Evaluation, Profile, Settings
from finbench.data import edition_of_test
from finbench.engines import Purse
from finbench.models import Unchanged, adapters, bases, taken_for
from finbench.models.adapters import AdapterFolder
from finbench.scoring import overlap_with_training
from finbench.training import leaks

Overlaps = dict[str, Overlap | None]  # by task
DUMMY = BaseModelId(alias="dummy", source="folder", fingerprint="dummy")  # what answers without any model


@dataclass(frozen=True)
class Candidate:
    """A subject and how to load it. ``merged`` is a model made of adapter and base, for an engine that needs one."""

    subject: Subject
    base: bases.Base | None
    adapter: Path | None
    record: Adapter | None = None  # of its adapter: what it was trained on
    known: Contamination | None = None  # test texts in the rows that it learnt from
    merged: Path | None = None

    @property
    def beside(self) -> Path | None:
        """The adapter that an engine puts on the base."""
        return self.adapter if self.subject.kind == "peft" and self.merged is None else None

    def overlaps(self, lm_tasks: Mapping[str, Any], data_dir: Path | None, say: Callable[[str], None]) -> Overlaps:
        """How much of the test of each task stood in its training rows; None where nobody has looked.

        Of ranked tasks as its record states it. Of the tasks of others the rows are looked into that it learnt from;
        ``say`` is told what was found there.
        """
        if self.known is None and self.record is None:
            return dict.fromkeys(lm_tasks)
        tasks = {name: catalog.tasks()[name] for name in lm_tasks}
        editions = {name: None if task.own else edition_of_test(task.set, data_dir) for name, task in tasks.items()}
        found = {name: overlap_with_training(self.known, task.set, editions[name]) for name, task in tasks.items()}
        theirs = {name: lm_task for name, lm_task in lm_tasks.items() if tasks[name].own}
        if theirs and self.record and self.adapter:
            near = [Path(), self.adapter.parent, *(catalog.root_of(name).parent for name in theirs)]
            seen = leaks.of_adapter(self.record, theirs, data_dir, near)
            found |= seen.found
            for line in seen.warnings():
                say(f"Warning: {self.subject.name}: {line}")
        return found

    def check(self, unchanged: Unchanged, drop: Callable[[], None] = lambda: None) -> None:
        """FinbenchError where the files of the subject are not those any more that name it; after ``drop`` then."""
        if self.base is None or self.base.id == DUMMY:
            return
        try:
            unchanged.base(self.base)
            if self.adapter is not None:
                unchanged.adapter(self.adapter, str(self.subject.adapter), self.subject.kind)
        except FinbenchError:
            drop()
            raise

    @property
    def loaded(self) -> bases.Base:
        """What an engine loads: the base, or the whole model that stands for it."""
        assert self.base is not None
        whole = self.merged or (self.adapter if self.subject.kind == "model" else None)
        return bases.Base(self.base.id, whole) if whole else self.base


def candidates(wanted: Evaluation) -> tuple[list[Candidate], list[str]]:
    """Every subject, bases first, and the tasks of the adapters' recipes. Faults are reported together."""
    found: list[Candidate] = []
    tasks: list[str] = []
    faults: list[FinbenchError] = []
    dummy = bases.Base(DUMMY, Path()) if wanted.engine == "dummy" else None
    for text in wanted.adapters:
        try:
            adapter = adapters.find(text)
            on = dummy or _base_for(adapter, wanted)
            candidate = _adapter_subject(adapter, on, wanted.bits, wanted.chat)
            beside = _base_subject(on, candidate.subject.bits, candidate.subject.chat, wanted.profile)
            found += [beside, candidate]
            tasks += adapter.tasks
        except FinbenchError as fault:
            faults.append(fault)
    if faults:
        hint = next((fault.hint for fault in faults if fault.hint), "")
        raise FinbenchError("\n".join(fault.message for fault in faults), hint)
    if wanted.model or not wanted.adapters:
        named = wanted.model or wanted.base
        if not named and not dummy:
            hint = "Name an adapter (--adapter ./folder) or a base (--model smollm2-135m)."
            raise FinbenchError("Nothing to evaluate.", hint)
        base = dummy or bases.resolve(str(named))
        found.append(_base_subject(base, wanted.bits or 16, bool(wanted.chat), wanted.profile))
    if dummy is None:
        for one in {candidate.base.folder: candidate.base for candidate in found if candidate.base}.values():
            say(taken_for(one.folder, one.id.alias, one.id.source))
    unique = {digest(candidate.subject.model_dump()): candidate for candidate in found}
    told_apart: list[Candidate] = []
    for candidate in sorted(unique.values(), key=lambda candidate: candidate.subject.kind != "base"):
        subject = candidate.subject
        if subject.name in {one.subject.name for one in told_apart}:  # the later one gets part of its hash
            part = (subject.adapter or subject.base.fingerprint)[:6]
            subject = subject.model_copy(update={"name": f"{subject.name}-{part}"})
        told_apart.append(replace(candidate, subject=subject))
    return told_apart, list(dict.fromkeys(tasks))


def _base_for(adapter: AdapterFolder, wanted: Evaluation) -> bases.Base:
    """The named base; of several adapters those of another known base are on that, which is said."""
    try:
        return adapters.base_of(adapter, wanted.base)
    except FinbenchError as fault:
        if wanted.base is None or len(wanted.adapters) == 1 or adapter.base is None:
            raise
        try:
            own = adapters.base_of(adapter, None)
        except FinbenchError:
            hint = f"{fault.hint}; or score the adapters of each base by a command of its own."
            raise FinbenchError(fault.message, hint) from fault
    say(f"{adapter.name} was trained on {own.id.alias}, and is scored on it: --base {wanted.base} is for the others.")
    return own


def _base_subject(base: bases.Base, bits: Bits, chat: bool, profile: Profile) -> Candidate:
    name = base.id.alias + (f"-{bits}bit" if bits != 16 else "") + ("-chat" if chat and profile == "direct" else "")
    return Candidate(Subject(name=name, base=base.id, bits=bits, chat=chat), base, None)


def _adapter_subject(adapter: AdapterFolder, base: bases.Base, bits: Bits | None, chat: bool | None) -> Candidate:
    recipe = adapter.record.recipe if adapter.record else None
    subject = Subject(
        name=adapter.name,
        base=base.id,
        adapter=adapter.identity,
        adapter_name=adapter.name,
        adapter_source=adapter.source,
        method=adapter.method,
        rank=recipe.rank if recipe else adapter.config.get("r"),
        trainable_parameters=adapter.record.training.trainable_parameters if adapter.record else None,
        seed=recipe.seed if recipe else None,
        bits=bits or adapter.bits,  # quantising a whole model would make another one
        chat=chat if chat is not None else adapter.chat,
        kind=adapter.kind,
    )
    return Candidate(subject, base, adapter.folder, adapter.record, adapter.contamination)


def models_of(engine: str, names: str | None, url: str | None, chat: bool) -> list[Candidate]:
    """Models of an endpoint by the names (with commas between) that they have there; what they are is not known."""
    if not names:
        named = "openai/NAME, anthropic/NAME, gemini/NAME, ..." if engine == "api" else "NAME, or --model ONE,OTHER"
        raise FinbenchError("Which model of the endpoint?", f"--model {named}")
    found = []
    for name in dict.fromkeys(part.strip() for part in names.split(",") if part.strip()):
        # told apart by where they are, which is not to be read off a card
        where = [url, name] if engine == "server" else [engine, url, name]
        who = BaseModelId(alias=name, source="folder", fingerprint="endpoint:" + digest(where)[:32])
        found.append(Candidate(Subject(name=name, base=who, chat=chat), None, None))
    return found


def by_engine(found: list[Candidate]) -> list[list[Candidate]]:
    """Subjects that one engine can serve: the same base and bits; a whole model has an engine of its own."""
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in found:
        subject = candidate.subject
        own = subject.adapter if subject.kind == "model" or candidate.merged else None
        groups.setdefault((subject.base.fingerprint, subject.bits, own), []).append(candidate)
    return list(groups.values())


def start_engine(
    group: Sequence[Candidate], settings: Settings, lm_tasks: dict[str, Any], purse: Purse | None = None
) -> Any:
    """An engine for subjects of one base and bits; call ``use`` next. ``purse``: what an endpoint may cost."""
    made = _started(group, settings, lm_tasks, purse)
    made.profile, made.think_end = settings.profile, settings.think_end
    if settings.arguments.get("labels") == "best":
        made.best = frozenset(name for name, lm_task in lm_tasks.items() if _takes_the_best(name, lm_task))
    return made


def _takes_the_best(name: str, lm_task: Any) -> bool:
    """Whether the scorer of a choice task looks at nothing but which label is the most probable.

    Every one does that has no ``acc_norm``, which divides by the length first. Where the choices are the contexts, as
    in WinoGrande, there is one label a context, and nothing can be left.
    """
    if catalog.tasks()[name].form != "choice" or lm_task.multiple_input:
        return False
    if "acc_norm" in lm_task.aggregation():
        say(f"{name}: all labels are run to their end, for acc_norm needs them.")
        return False
    return True


def _started(group: Sequence[Candidate], settings: Settings, lm_tasks: dict[str, Any], purse: Purse | None) -> Any:
    engine, arguments = settings.engine, dict[str, Any](settings.arguments)
    if engine == "dummy":
        from finbench.engines import DummyEngine

        dummy = DummyEngine(str(arguments.get("answers", "random")), settings.seed)
        dummy.lm_tasks = lm_tasks
        return dummy
    if engine in ("server", "api"):
        from finbench.engines import EndpointEngine

        return EndpointEngine(engine, group[0].subject.base.alias, arguments, purse)
    base = group[0].loaded
    if engine == "vllm":
        from finbench.engines.vllm import VLLMEngine

        names = ("dtype", "batch_size", "tensor_parallel", "data_parallel", "max_length", "gpu_memory")
        chosen = {key: arguments[key] for key in names if key in arguments}
        return VLLMEngine(base, [one.beside for one in group if one.beside], **chosen, bits=group[0].subject.bits)
    from finbench.engines import HFEngine

    chosen = {k: arguments[k] for k in ("dtype", "batch_size", "max_length", "gpu_memory") if k in arguments}
    computed = bases.dtype_name(arguments.get("dtype", "auto"))
    say(f"Loading {base.id.alias}, to compute in {computed} ...")
    return HFEngine(base, group[0].subject.bits, merge="merge" not in arguments, **chosen)
