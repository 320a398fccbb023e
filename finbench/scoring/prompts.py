"""lm-eval's task objects: the same object evaluates a model and renders its training pairs.

No prompt is written twice: a training pair is the prompt that the task would show for that row, then the
target delimiter and the gold answer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from finbench.core import catalog, paths
from finbench.core.console import quiet, say
from finbench.core.errors import FinbenchError
from finbench.core.files import digest
from finbench.core.records import DataId, Generation, Task
from finbench.core.settings import TEMPLATED
from finbench.hub import Unreachable
from finbench.scoring import foreign, inwords, noise

Template = Callable[..., str]  # lm-eval's chat_template: messages, add_generation_prompt -> text
BUDGET = {"chat": 512, "think": 4096, "cot": 1024}  # tokens of an answer, where neither user nor task wants more
_COT = (
    "First reason step by step. Then give the answer alone, as the question wants it, on a last line of this form:\n"
    "Answer: <answer>"
)
_BARE_CUE = re.compile(r"\s*^(?:\w+ ){0,2}\w+:\s*\Z", re.MULTILINE)  # "Answer:", which would be answered at once
REASONING = "Reasoning:"  # ends a prompt of ``cot`` without a chat template: its model may never end its turn
PLAIN = Generation(profile="direct")


@dataclass
class Asked(Instance):
    """A request under any profile but ``direct``: lm-eval's, the number of its sample, and its answer taken apart.

    ``sure``: the profile whose answers are asked for confidence in words; ``confidence``: what this one says of it.
    """

    sample: int = 0
    generated: Any = None
    sure: str | None = None
    confidence: int | None = None


def _compile_once() -> None:
    """lm-eval compiles a prompt's template for every row that it renders, which takes eight times as long."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = functools.lru_cache(256)(env.from_string)


def load(
    tasks: Iterable[Task],
    data_dir: Path | None,
    shots: int = 0,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """lm-eval task objects by name, with their rows.

    A data set that is not here is fetched from the Hub, where it lies there and the Hub can be reached; all that
    are missing then are reported at once. ``shots`` worked examples a prompt are drawn with ``seed`` from the split
    that the task names. ``metadata`` goes over that of the tasks, as lm-eval's ``--metadata`` does
    (``finbench_agreement``). A task that a noise does not reach, among the first ``limit`` rows, is left out, and
    said; ``noise.NotReached`` where that is so of all.
    """
    quiet()  # lm-eval has words of its own for whoever loads a task
    from lm_eval.tasks import TaskManager

    _compile_once()
    tasks, home = list(tasks), paths.data_dir(data_dir)
    fetch(tasks, data_dir)
    stated = {**noise.checked(tasks, metadata or {}), "finbench_data_dir": str(home)}
    manager = TaskManager(include_defaults=False, metadata=stated)  # which has read none of its own, nor of ours
    loaded: dict[str, Any] = {}
    unreached: dict[str, noise.NotReached] = {}
    for task in tasks:
        own, file = catalog.own(task.name), str(catalog.file_of(task.name))
        try:
            lm_task = foreign.build(own, stated) if own else manager.load([file])["tasks"][task.name]
        except (ValueError, FileNotFoundError) as fault:
            raise FinbenchError(f"Task {task.name}: {fault}", f"Import it again: {task.data}") from fault
        if shots:
            _may_show(task, lm_task)
            lm_task.set_config(key="num_fewshot", value=shots)
            lm_task.finbench_seed = seed
        lm_task.finbench_origin = _origin(task, data_dir, stated)
        try:
            _choose_rows(lm_task, stated)
            if limit and "finbench_noise" in stated and not whole(lm_task, limit):
                short = task.name.removeprefix(catalog.PREFIX)
                raise noise.NotReached(
                    f"{short}: noise={stated['finbench_noise']} changed none of the {limit} rows.",
                    "Leave --limit out, or give a greater one.",
                )
        except noise.NotReached as fault:
            unreached[task.name] = fault
        else:
            loaded[task.name] = lm_task
    if unreached and not loaded:
        raise next(iter(unreached.values()))
    for one in unreached.values():
        say(f"{one.message} It is not scored.")
    # only where they are needed, for reading takes seconds
    counts = {name: len(examples(lm_task)) for name, lm_task in loaded.items()} if shots else {}
    few = [f"Task {name} has {n} worked examples, fewer than {shots} shots" for name, n in counts.items() if n < shots]
    if few:
        raise FinbenchError(f"{'; '.join(few)}.", "Ask these without --shots, in a run of their own.")
    return loaded


def _may_show(task: Task, lm_task: Any) -> None:
    """Refuse worked examples that would be rows of the test."""
    asked = lm_task.config.test_split or lm_task.config.validation_split
    if task.own and shown_from(lm_task) == asked:
        raise FinbenchError(
            f"{task.name} has no split for worked examples but the one it is scored on.", "Leave --shots out."
        )


def _choose_rows(lm_task: Any, stated: Mapping[str, Any]) -> None:
    """Put the validation rows in the place of the test, and noise into texts, as ``--metadata`` says."""
    name, found = lm_task.config.task, lm_task.dataset
    chosen = {key: str(stated[f"finbench_{key}"]) for key in noise.OF_EVERY if f"finbench_{key}" in stated}
    if not chosen:
        return
    if lm_task.config.test_split != "test" or "test" not in found or lm_task.config.process_docs is not None:
        raise FinbenchError(f"{name}: its rows cannot be chosen, for they are not finbench's.", "Name another task.")
    split = chosen.get("split", "test")
    if not len(found[split]):
        raise FinbenchError(f"{name} has no {split} rows.", "Leave --metadata split out, or name another task.")
    asked = found[split]
    if split == "train":  # as their authors have them, in some sets label by label: so the first ones are a sample
        order = sorted(asked, key=lambda row: digest(row.get("text") or row))  # those of one text stay together
        asked = type(asked).from_list(order)
    if "noise" in chosen:
        asked = type(asked).from_list(noise.noisy(chosen["noise"], list(asked), name))
    lm_task.dataset = {**found, "test": asked}


def missing(tasks: Iterable[Task], data_dir: Path | None) -> list[Task]:
    """A task of each set whose rows are to be imported, and are not here."""
    home = paths.data_dir(data_dir)
    ours = {task.set: task for task in tasks if not task.shipped and not task.own}
    return [task for task in ours.values() if not (home / task.set / "test.jsonl").is_file()]


def fetch(tasks: Iterable[Task], data_dir: Path | None) -> None:
    """Import the sets that are not here, where the Hub has them. FinbenchError names all others at once."""
    from finbench.data import import_data, on_hub

    faults, offline, where = [], "", f" --data-dir {data_dir}" if data_dir else ""
    for task in missing(tasks, data_dir):
        if on_hub(task.set) and not offline:
            say(f"{task.set} is not in {paths.data_dir(data_dir)}: fetching it from the Hub ...")
            try:
                import_data(task.set, [], data_dir)
                continue
            except Unreachable:
                offline = " The Hub cannot be reached."
        faults.append(task)
    if faults:
        commands = dict.fromkeys(f"  {task.data}{where}" for task in faults)  # some commands make several sets
        raise FinbenchError(
            f"No data for {', '.join(task.set for task in faults)} in {paths.data_dir(data_dir)}.{offline}",
            "\n".join(["Get it, with a network or from the authors' files:", *commands]),
        )


def _origin(task: Task, data_dir: Path | None, stated: Mapping[str, Any]) -> dict[str, Any]:
    from finbench.data import describe_set

    choices = {
        name: str(stated.get(f"finbench_{name}", own))
        for name in noise.CHOICES
        if (own := getattr(task, name)) is not None
    }
    choices |= {name: str(stated[f"finbench_{name}"]) for name in noise.OF_EVERY if f"finbench_{name}" in stated}
    if task.own:
        return {"origin": task.data if task.data.startswith("hub:") else "own", "choices": choices}
    about = {} if task.shipped else describe_set(task.set, data_dir) or {}
    found: dict[str, Any] = {"origin": "shipped" if task.shipped else "files", "choices": choices}
    if hub := about.get("hub"):
        found |= {"origin": f"hub:{hub['path']}", "revision": hub["revision"], "pinned": hub["pinned"]}
    return found | {"share": about.get("share")}


def rows(lm_task: Any, split: str) -> list[dict[str, Any]]:
    """The rows of a split (``train``, ``validation`` or ``test``) of a loaded task; empty if it has none.

    The tasks of others have splits of any name: ``test`` is what they are scored on, be it called validation.
    """
    if catalog.own(lm_task.config.task) is None:
        return list(lm_task.dataset[split]) if split in lm_task.dataset else []
    if split == "test":
        return list(lm_task.eval_docs)
    if split == "train":
        return list(lm_task.training_docs()) if lm_task.has_training_docs() else []
    return list(lm_task.validation_docs()) if lm_task.has_validation_docs() and lm_task.has_test_docs() else []


def shown_from(lm_task: Any) -> str:
    """The split that worked examples are drawn from, by lm-eval's rule; ``samples``: the task's file lists them."""
    config, how = lm_task.config, lm_task.fewshot_cfg
    if how.split is None and how.samples is not None:
        return "samples"
    return str(how.split or config.training_split or config.validation_split or config.test_split)


def examples(lm_task: Any) -> list[dict[str, Any]]:
    """The rows that worked examples are drawn from."""
    return list(lm_task.fewshot_docs())


def examples_digest(lm_task: Any) -> str:
    """Of what all of ``examples`` show and answer, in order: they may have a template of their own."""
    how = lm_task.fewshot_cfg
    return digest(
        [[shown(lm_task, doc, how), lm_task.doc_to_target(doc, how.doc_to_target)] for doc in examples(lm_task)]
    )


def whole(lm_task: Any, limit: int | None) -> int | None:
    """``limit``, or fewer rows where it would cut through the questions about one text; never none.

    Rows under noise are those that were made of the first ``limit`` rows: the documents of the test as it is.
    """
    docs = [] if limit is None else rows(lm_task, "test")
    limit = limit and noise.within(docs, limit)
    if limit is None or limit >= len(docs) or "attribute" not in docs[0]:
        return limit
    at = limit
    while at and docs[at - 1]["text"] == docs[at]["text"]:
        at -= 1
    return at or limit


def taken(lm_task: Any, limit: int | None, count: int) -> int | None:
    """The limit by which ``count`` rows were asked: earlier finbench and lm-eval itself cut through texts."""
    most = whole(lm_task, limit)
    return most if most == count else limit


def shown(lm_task: Any, doc: Mapping[str, Any], how: Any = None) -> str:
    """What the task shows of ``doc``: its text, and its choices where every question has its own.

    ``how``: what else gives the templates; lm-eval's ``fewshot_cfg`` for a worked example.
    """
    text = lm_task.doc_to_text(dict(doc), how and how.doc_to_text)
    if (how or lm_task.config).doc_to_choice is None or "finbench_labels" in lm_task.config.metadata:
        return str(text)
    choices = [str(choice) for choice in lm_task.doc_to_choice(dict(doc), how and how.doc_to_choice)]
    return "\n".join(choices if lm_task.multiple_input else [str(text), *choices])


def gold_choice(lm_task: Any, doc: Mapping[str, Any]) -> int:
    """The number of the right one among the choices."""
    found = lm_task.doc_to_text(dict(doc)) if lm_task.multiple_input else lm_task.doc_to_target(dict(doc))
    return found if isinstance(found, int) else lm_task.doc_to_choice(dict(doc)).index(found)


def data_id(task: Task, lm_task: Any, split: str, docs: list[dict[str, Any]]) -> DataId:
    """Which rows exactly: the digest of what the task shows (zero-shot, no template) and expects, in order."""
    content = [[shown(lm_task, doc), lm_task.doc_to_target(doc)] for doc in docs]
    return DataId(set=task.set, split=split, rows=len(docs), digest=digest(content), **lm_task.finbench_origin)


def prompt(
    lm_task: Any, doc: Mapping[str, Any], template: Template | None = None, how: Generation = PLAIN
) -> str | list[str]:
    """The prompt that the task shows for ``doc``, as lm-eval builds it; a list where each choice has its own.

    Under ``cot`` what the task asks for is followed by its instruction to reason (its metadata ``finbench_cot``).
    """
    turns = how.fewshot_as_multiturn
    wanted = lm_task.config.metadata.get("finbench_cot", _COT) if how.profile == "cot" else ""
    if how.confidence and lm_task.OUTPUT_TYPE == "generate_until":
        wanted = "\n".join(filter(None, [wanted, inwords.asked_for(how.profile)]))

    def instructed(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        assert template is not None
        last = {**messages[-1], "content": _reasoned(messages[-1]["content"], wanted)}
        return template([*messages[:-1], last], add_generation_prompt=add_generation_prompt)

    made: str | list[str] = lm_task.fewshot_context(
        dict(doc),
        num_fewshot=lm_task.config.num_fewshot or 0,
        system_instruction=how.system_prompt,
        apply_chat_template=template is not None,
        fewshot_as_multiturn=template is not None if turns is None else turns,
        chat_template=instructed if wanted and template else template,
        gen_prefix=lm_task.doc_to_prefix(doc) if how.profile == "direct" else None,
    )
    return f"{_reasoned(str(made), wanted)}\n\n{REASONING}" if wanted and not template else made


def _reasoned(text: str, wanted: str) -> str:
    return f"{_BARE_CUE.sub('', text)}\n\n{wanted}"


def pair(lm_task: Any, doc: Mapping[str, Any], template: Template | None = None) -> tuple[str, str]:
    """(prompt, answer) to train on. The answer starts with the target delimiter, as lm-eval scores it."""
    made = prompt(lm_task, doc, template)
    if isinstance(made, list):
        made = made[gold_choice(lm_task, doc)]
    # under a chat template lm-eval uses no delimiter: the template's own assistant header precedes the answer
    return made, ("" if template else lm_task.config.target_delimiter) + gold_answer(lm_task, doc)


def gold_answer(lm_task: Any, doc: Mapping[str, Any]) -> str:
    """The right answer as text; of several, the first."""
    answer = lm_task.doc_to_target(dict(doc))
    if not lm_task.multiple_input and isinstance(answer, int) and lm_task.config.doc_to_choice is not None:
        answer = lm_task.doc_to_choice(dict(doc))[answer]
    return str(answer[0] if isinstance(answer, list) else answer)


def asked(lm_task: Any, docs: Sequence[Mapping[str, Any]], template: Template | None = None) -> list[Any]:
    """lm-eval Instances for any rows of the task, numbered in order, each asked once."""
    return [
        one
        for number, doc in enumerate(docs)
        for one in _built(lm_task, dict(doc), number, prompt(lm_task, doc, template), template, 1)
    ]


def _built(lm_task: Any, doc: Any, number: int, shown: Any, template: Template | None, repeats: int) -> list[Any]:
    built = lm_task.construct_requests(
        doc=doc,
        ctx=shown,
        metadata=(lm_task.config.task, number, repeats),
        apply_chat_template=template is not None,
        chat_template=template,
    )
    return built if isinstance(built, list) else [built]


def requests(
    lm_task: Any, limit: int | None = None, template: Template | None = None, how: Generation = PLAIN, seed: int = 0
) -> list[Any]:
    """lm-eval Instances for the test split (the first ``limit`` rows), as lm-eval's evaluator builds them.

    Under another profile than ``direct`` a generated answer has the profile's budget and sampling, and every document
    as many requests as samples, each with a seed of its own that follows from ``seed``.
    """
    if lm_task.config.num_fewshot:
        lm_task.set_fewshot_seed(seed=lm_task.finbench_seed)  # the sampler has a state: each rendering starts it anew
    instances: list[Any] = []
    for doc_id, doc in lm_task.doc_iterator(rank=0, limit=limit, world_size=1):
        shown = prompt(lm_task, doc, template, how)
        for one in _built(lm_task, doc, doc_id, shown, template, lm_task.config.repeats):
            generated = how.profile != "direct" and one.request_type == "generate_until"
            instances += _samples(one, how, seed) if generated else [one]
    return instances


def _stops(task: str, until: list[str], how: Generation) -> list[str]:
    """The task's own stops; a turn of a chat has its end, and our grammar reads its lines itself: no line ends it."""
    known = catalog.tasks().get(task)
    ours = known is not None and not known.own and known.family not in ("finlora", "published")
    return [stop for stop in until if stop.strip()] if ours and how.profile in TEMPLATED else until


def _samples(one: Any, how: Generation, seed: int) -> Iterator[Asked]:
    text, own = one.args
    room = how.max_tokens or max(BUDGET[how.profile], int(own.get("max_gen_toks", 256)))
    asks = {"until": _stops(one.task_name, own.get("until") or [], how), "max_gen_toks": room, "do_sample": False}
    for sample in range(how.samples):
        if how.temperature:
            asks |= {"do_sample": True, "temperature": how.temperature}
            asks |= {"top_p": how.top_p} if how.top_p else {}
            asks |= {"seed": int(digest([seed, one.task_name, one.doc_id, sample])[:7], 16)}
        yield Asked(
            request_type=one.request_type,
            doc=one.doc,
            arguments=(text, dict(asks)),
            idx=one.idx,
            metadata=one.metadata,
            sample=sample,
            sure=how.profile if how.confidence else None,
        )
