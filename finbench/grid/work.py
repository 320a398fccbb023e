"""What a worker does of a sweep: one step, stated by a small mapping, answered by another. Runs in Ray's processes.

Every step is what a command of finbench does, and goes on where a killed one stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finbench.core import catalog, environment, tracking
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Recipe
from finbench.engines.vllm import memory
from finbench.grid.places import Place

SEARCH, TRAIN, SCORE = "search", "train", "score"


def run(step: Mapping[str, Any]) -> dict[str, Any]:
    """Do a step; return {state: done, failed or stopped, seconds, message, hint, ...}. Raises nothing that is ours."""
    started = time.time()
    answer: dict[str, Any] = {"state": "done", "started": started, "pid": os.getpid(), "node": _node()}
    try:
        _take_share(step)
        for folder in step.get("own_tasks", ()):
            catalog.include_tasks(folder)
        answer |= _score(step) if step["kind"] == SCORE else _train(step)
    except (Interrupted, KeyboardInterrupt):
        answer["state"] = "stopped"
    except FinbenchError as fault:
        answer |= {"state": "failed", "message": fault.message, "hint": fault.hint}
    except Exception as fault:  # noqa: BLE001  a bug, or a library's own fault, ends this cell and no other
        message = f"{type(fault).__name__}: {' '.join(str(fault).split())}"[:400]
        answer |= {"state": "failed", "message": message, "hint": "", "trace": traceback.format_exc()}
    with contextlib.suppress(RuntimeError):  # of a GPU that fails since the step did, of which the answer tells
        environment.release_memory()  # of the model that was scored; this process goes on with another step
    return {**answer, "seconds": round(time.time() - started, 3)}


def _take_share(step: Mapping[str, Any]) -> None:
    """Let torch take no more of a GPU than the step was given, so that one too large ends itself and no neighbour."""
    if 0 < step.get("gpus", 0) < 1:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(float(step["gpus"]))


def _gpu_memory(step: Mapping[str, Any]) -> float | None:
    """The share of a GPU that an engine may take: as the file states it, else by the share that the step was given."""
    stated: float | None = step.get("gpu_memory")
    gpus: float = step.get("gpus", 0)
    if stated is not None or not 0 < gpus < 1 or step["how"]["engine"] not in ("auto", "hf", "vllm"):
        return stated
    return round(memory.SHARE * gpus, 4)


def _node() -> str:
    ray = sys.modules.get("ray")  # not there where a step is done without it
    return str(ray.get_runtime_context().get_node_id())[:8] if ray and ray.is_initialized() else ""


def _train(step: Mapping[str, Any]) -> dict[str, Any]:
    """Search a learning rate, or train an adapter."""
    from finbench.training import train, tune

    place, recipe = Place(step["place"]), Recipe.parse(step["recipe"], "recipe")
    _base(recipe.base)
    out = place.work() / step["folder"]
    answer: dict[str, Any]
    if step["kind"] == SEARCH:
        found, _ = tune(recipe, out, budget=step["budget"], data_dir=_data(step))
        answer = {"lr": found.lr, "search": found.search.model_dump() if found.search else None}
    else:
        resume = (out / "checkpoints").is_dir()
        made = train(
            recipe, out, data_dir=_data(step), resume=resume, processes=step["processes"], report=step["report"]
        )
        assert not isinstance(made, dict)
        answer = {"tokens_per_second": made.training.tokens_per_second, "memory": made.training.peak_memory_bytes}
    place.send(step["folder"])
    return answer


def _score(step: Mapping[str, Any]) -> dict[str, Any]:
    """Score a base, or adapters of one base on one engine. The base's own card is there: it is not made again."""
    from finbench.cards import trackers
    from finbench.evaluation import evaluate
    from finbench.models import adapters

    place, folders = Place(step["place"]), step["folders"]
    out = place.work() / "scorecards"
    if place.folder is None and step["beside"]:  # the base's own card, which the adapters' scoring takes from there
        place.fetch_cards(out, step["beside"])
    here = [place.fetch(folder) for folder in folders]
    cards = evaluate(
        [str(folder) for folder in here],
        model=None if folders else step["base"],
        base=step["base"] if folders else None,
        tasks=step["tasks"],
        out=out,
        data_dir=_data(step),
        reports=False,
        gpu_memory=_gpu_memory(step),
        **step["how"],
    )
    by_adapter = {card.subject.adapter: card for card in cards}
    wanted = [by_adapter[adapters.find(str(folder)).identity] for folder in here] if folders else cards
    trackers.report_cards(tracking.named(step["report"]), wanted, out)
    return {
        "parts": [
            {
                "files": _sent(place, out, card, step["tasks"]),
                "scores": {s.task: [s.main_metric, s.main.value] for s in card.scores if s.task in step["tasks"]},
            }
            for card in wanted
        ]
    }


def _sent(place: Place, out: Path, card: Any, tasks: Sequence[str]) -> list[str]:
    """Names of a card's files in the results, where no other node's card of the same name or run can lie."""
    from finbench.cards import cardfiles
    from finbench.core.files import digest

    path = cardfiles.place_for(out, card.subject.name, card.run_key)
    if place.folder is not None:
        return [path.name, cardfiles.samples_path(path).name]
    own = f"{cardfiles.slug(card.subject.name)}-{card.run_key[:8]}-{digest(sorted(tasks))[:8]}.json"
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / own
        cardfiles.excerpt(path, tasks, made)  # of a run that several nodes score, each sends its own tasks
        files = [cardfiles.samples_path(made), made]
        for file in files:
            place.send_file(file, f"scorecards/{file.name}")
    return [file.name for file in files]


def _data(step: Mapping[str, Any]) -> Path | None:
    return Path(step["data_dir"]) if step["data_dir"] else None


def _base(reference: str) -> None:
    """Fetch a base once a node: the first worker does, the others wait for it."""
    from filelock import FileLock

    from finbench.core import paths
    from finbench.core.files import digest
    from finbench.models import bases

    lock = paths.cache_dir() / "locks" / f"{digest(reference)[:16]}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(lock)):
        bases.resolve(reference)
