"""Leaderboards for tests: cards of the dummy engine under other names, sealed as an honest hand would."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

from finbench.cards import cardfiles
from finbench.core.records import Answers, Generation, Hosted, Measure, Scorecard
from finbench.evaluation import evaluator
from finbench.evaluation.verification import Verification
from finbench.leaderboard import page
from finbench.leaderboard.board import Board, board
from finbench.leaderboard.rows import BoardCard

HOSTILE = (
    '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>|`*_[x](javascript:alert(1))\u2028'
)


def benchmark() -> Any:
    """``benchmarks/board_scale.py``, which makes honest cards of simulated subjects."""
    path = Path(__file__).parent.parent / "benchmarks" / "board_scale.py"
    spec = importlib.util.spec_from_file_location("board_scale", path)
    assert spec
    assert spec.loader
    sys.modules["board_scale"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(made: Board) -> dict[str, str]:
    """Every file of a board's page by its name."""
    return {name: one.text() if isinstance(one, page.PagePart) else one for name, one in page.files(made)}


def read_script(text: str) -> tuple[str, Any]:
    """Part and value of a data file of the page."""
    found = re.search(r"finbench\((\".*?\"), '(.*)'\);\n", text)
    assert found
    return json.loads(found[1]), json.loads(re.sub(r"\\([\\'])", r"\1", found[2]))


def scored(out: Path, data: Path, tasks: list[str], *, answers: str = "random", seed: int = 0, **options: Any) -> Path:
    """A card of the dummy engine; returns its path."""
    place = out / f"{answers}-{seed}-{options.get('limit')}"
    evaluator.evaluate(
        engine="dummy", tasks=tasks, seed=seed, out=place, data_dir=data, arguments={"answers": answers}, **options
    )
    return place / "dummy.json"


def renamed(card: Path, to: Path, **subject: Any) -> Path:
    """The card of another subject, as if its answers were given by that: run key and seal follow."""
    found, rows = cardfiles.read(card), cardfiles.read_samples(card)
    if found.engine == "dummy":  # which stands on no leaderboard
        tiny = found.subject.base.model_copy(update={"alias": "tiny", "fingerprint": f"{7:064x}"})
        found = found.model_copy(update={"engine": "hf", "subject": found.subject.model_copy(update={"base": tiny})})
    # the dummy engine answers in no time, which has no place on a chart
    scores = [score.model_copy(update={"seconds": 1.5 + number}) for number, score in enumerate(found.scores)]
    made = found.model_copy(update={"subject": found.subject.model_copy(update=subject), "scores": scores})
    made = made.model_copy(update={"run_key": cardfiles.run_key(made)})
    to.parent.mkdir(parents=True, exist_ok=True)
    cardfiles.write(to, made, rows)
    return to


def adapter(number: int, **more: Any) -> dict[str, Any]:
    """What makes a subject an adapter."""
    return {
        "name": f"adapter-{number}",
        "adapter": f"{number:064x}",
        "adapter_name": f"adapter-{number}",
        "kind": "peft",
        "method": "lora",
        "rank": 8,
        "seed": number,
        "trainable_parameters": 4_884_480,
        **more,
    }


def folder(place: Path, data: Path) -> Path:
    """A leaderboard of a base and a guessing adapter, which are level, and of one adapter that knows the answers."""
    scratch, cards = place.with_name(place.name + "-scratch"), place / "scorecards"
    tasks = ["fpb", "headlines", "fin_ner", "fiqa_score"]
    base = scored(scratch, data, tasks, seed=9)
    renamed(base, cards / "base.json", name="tiny")
    renamed(scored(scratch, data, tasks, seed=1), cards / "guess.json", **adapter(1))
    renamed(scored(scratch, data, tasks, answers="gold"), cards / "gold.json", **adapter(2, method="dora", bits=4))
    renamed(scored(scratch, data, tasks, seed=3, limit=10), cards / "partial.json", **adapter(3))
    return place


def many(card: Path, count: int, tasks: int = 1, name: str = "subject") -> Board:
    """A board of ``count`` cards made of one, with other values; ``tasks`` tests, all of them whole."""
    found, rows = cardfiles.read(card), cardfiles.read_samples(card)
    draw = random.Random(0)
    entries = []
    for number in range(count):
        scores = []
        for task in range(tasks):
            score = found.scores[task % len(found.scores)]
            value = draw.uniform(0.2, 0.95)
            main = Measure(value=value, low=value - 0.04, high=value + 0.03, method="bootstrap, 10000 resamples")
            data = score.data.model_copy(update={"digest": f"{task:064x}"})
            new = {"metrics": {**score.metrics, score.main_metric: main}, "seconds": draw.uniform(3, 90), "data": data}
            scores.append(score.model_copy(update={"prompt_tokens": 5000, **new}))
        subject = found.subject.model_copy(update=adapter(number, name=f"{name}-{number}", rank=4 + number % 4 * 4))
        update = {"subject": subject, "scores": scores, "peak_memory_bytes": draw.randrange(10**9, 10**10)}
        made: Scorecard = found.model_copy(update=update)
        # rows of the first documents only, and none of the tests between subjects: what is tried is the page
        samples = {task: [row for row in rows if row["task"] == task][:40] for task in {row["task"] for row in rows}}
        entries.append(BoardCard(f"card-{number}", made, {}, Verification("card"), "samples-attached"))
        entries[-1].samples.update(samples if number < 3 else {})
    return board(entries)


def thinking(card: Path) -> Board:
    """A test of six models that think behind endpoints: strict, lenient, cut off, reasoning and price all differ."""
    entries = []
    for number, entry in enumerate(many(card, 6).entries):
        score = entry.card.scores[0]
        strict = score.metrics[score.main_metric]
        cut = Measure(value=number / 20, low=None, high=None, method="none, invented")
        thought, said = 40 * 3**number * score.n, 9 * score.n
        answers = Answers(thinking_tokens=thought, answer_tokens=said, truncated=cut)
        hosted = Hosted(
            requests=score.n, first="2026-11-01", last="2026-11-02", models={"m": score.n}, fingerprints={},
            prompt_tokens=5000, answer_tokens=thought + said, reasoning_tokens=thought,
            cost=1e-5 * (thought + said), price_in=1.0, price_out=10.0, prices="as stated",
        )  # fmt: skip
        lenient = {score.main_metric: strict.model_copy(update={"value": min(1.0, strict.value + 0.03)})}
        made = score.model_copy(update={"answers": answers, "lenient": lenient, "hosted": hosted})
        how = {"scores": [made], "generation": Generation(profile="think", max_tokens=4096)}
        entries.append(dataclasses.replace(entry, samples={}, card=entry.card.model_copy(update=how)))
    return board(entries)
