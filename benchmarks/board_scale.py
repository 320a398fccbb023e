"""A leaderboard of thousands: simulated subjects whose true abilities are known, and what a build of them costs.

    python benchmarks/board_scale.py make FOLDER --subjects 1000 [--tasks 20] [--documents 100] [--seed 0]
    python benchmarks/board_scale.py pairs FOLDER        groups beside those of every permutation test
    python benchmarks/board_scale.py groups --sizes 100,1000,5000 [--documents 100]   the same for one test, in memory
    python benchmarks/board_scale.py run FOLDER --sizes 100,1000,5000 [--browser]   writes benchmarks/board_scale.json
    python benchmarks/board_scale.py page                the table of leaderboards/README.md, from what was written

A ``make`` or ``run`` that was stopped goes on when it is repeated; what is made stays in FOLDER.

Cards are those of real runs in every field: samples by the tasks' own scorers, intervals by the functions that make a
card's, run key and seal. What is simulated is who answers: a subject is as able as drawn, a document as hard as drawn,
and an answer is right with the probability that follows (Rasch). Abilities come in levels, so that some subjects are
truly level; one in ten recipes has three trainings, each as able as its recipe and its seed make it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import csv
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.files import sha256_file, stable_json
from finbench.core.records import DataId, Score, Scorecard
from finbench.core.seal import card_seal, salted
from finbench.scoring import metrics, sample_counts, split_metrics, values_of

TEMPLATE = Path(__file__).resolve().parents[1] / "leaderboards" / "scorecards" / "fpb-smollm2-135m.json"
TASKS = [
    "fpb", "finqa", "tfns_mc", "boolq", "numclaim", "xbrl_tags", "fiqa_sa", "winogrande", "fomc", "xbrl_calc",
    "fpb_mc", "mmlu", "tfns", "fin_math", "nwgi3", "convfinqa", "fomc_mc", "xbrl_reason", "numclaim_mc", "xbrl_values",
]  # fmt: skip
LEVELS = 40  # true abilities that there are
SPREAD, SEEDS = 1.2, 0.08  # standard deviation of abilities and, between trainings of a recipe, of one ability (logits)
OWNERS = 7  # subjects an owner
KNOWN = 20_000  # intervals that are kept for subjects with equal counts
PART = 50  # cards that a process is asked for at once


@dataclass(frozen=True)
class Asked:
    """A task's documents: how hard each is, and the sample rows and values of every answer that is given to it."""

    task: str
    hard: Any  # logits, shape (documents,)
    gold: Any  # number of the right answer, shape (documents,)
    rows: list[list[dict[str, Any]]]  # by document and answer
    lines: list[list[str]]

    @property
    def answers(self) -> int:
        """How many different ones there are to a document."""
        return len(self.rows[0])


def asked(name: str, documents: int, rng: Any) -> Asked:
    """Documents of a task, and what its scorer makes of every answer."""
    task = catalog.tasks()[catalog.PREFIX + name]
    labels = task.labels or ["right", "wrong"]
    gold = rng.integers(len(labels), size=documents) if task.labels else np.zeros(documents, int)
    rows = [
        [_row(task, number, labels, int(gold[number]), said) for said in range(len(labels) + bool(task.labels))]
        for number in range(documents)
    ]
    if task.form == "choice":
        rows = [own[: len(labels)] for own in rows]  # one of the labels is always the likeliest
    lines = [[stable_json(row) + "\n" for row in own] for own in rows]
    return Asked(task.name, rng.normal(0, 1, documents), gold, rows, lines)


def _row(task: Any, number: int, labels: Sequence[str], gold: int, said: int) -> dict[str, Any]:
    choice = task.form == "choice"
    word = labels[said] if said < len(labels) else ""
    likely = [-1.0 if place == said else -2.5 - 0.5 * place for place in range(len(labels))]
    if task.labels:
        scorer = metrics.config(task.name)["process_results"]
        doc = {"label": labels[gold], "target": labels[gold], "text": "Answer: ", "choices": list(labels)}
        values = metrics.function(scorer)(doc, [(one, one == -1.0) for one in likely] if choice else [word])
    else:
        right = float(said == gold)
        chosen = {name: metrics.known_as(how) == "chosen_mean" for name, how in metrics.aggregations(task.name).items()}
        values = {name: 1.0 if name == "parse_rate" else [1.0, right] if own else right for name, own in chosen.items()}
    text = f"{task.name} {number}"
    row = {"task": task.name, "index": number, "doc": salted(text), "cluster": salted("text:" + text)[:16]}
    answer = {"answer": likely} if choice else {"answer_sha256": salted(word)} if task.restricted else {"answer": word}
    return json.loads(stable_json(row | {"values": values} | answer))


@dataclass(frozen=True)
class Subject:
    """Who answers: ``level`` is the number of its true ability, ``recipe`` names what it is one of the trainings of."""

    name: str
    owner: str
    ability: float
    level: int
    recipe: str
    seed: int | None


def subjects(count: int, rng: Any) -> Iterator[Subject]:
    """``count`` of them: bases, adapters with one training, and recipes with three."""
    levels = np.sort(rng.normal(0, SPREAD, LEVELS))
    for number in itertools.count():
        level, owner = int(rng.integers(LEVELS)), f"owner-{number // OWNERS}"
        if number % 10 == 9:
            for seed in range(3):
                able = levels[level] + rng.normal(0, SEEDS)
                yield Subject(f"recipe-{number}-s{seed}", owner, able, level, f"recipe-{number}", seed)
        else:
            yield Subject(f"subject-{number}", owner, levels[level], level, f"subject-{number}", None)


class Maker:
    """Writes cards. Documents, the scorer's rows and the intervals of equal counts are made once for all subjects.

    Who answers what depends on the seed and the subject's number alone, so that any process makes the same card.
    """

    def __init__(self, tasks: int, documents: int, seed: int) -> None:
        self.seed, drawn = seed, np.random.default_rng(seed)
        chosen = [TASKS[number % len(TASKS)] for number in range(tasks)]
        self.asked = sorted((asked(name, documents, drawn) for name in chosen), key=lambda one: one.task)
        self.template = cardfiles.read(TEMPLATE)
        self.known: dict[Any, Any] = {}

    def card(self, subject: Subject, number: int) -> tuple[Scorecard, str]:
        """A subject's card without its seal, and the text of its samples."""
        scores, lines, rng = [], [], np.random.default_rng([self.seed, 2, number])
        for one in self.asked:
            said = answered(one, subject.ability, rng)
            lines += [own[answer] for own, answer in zip(one.lines, said, strict=True)]
            scores.append(self._score(one, said, round(float(rng.uniform(5, 60)), 2)))
        base = self.template.subject.base.model_copy(update={"alias": "simulated", "hub_id": None, "source": "folder"})
        update: dict[str, Any] = {"name": subject.name, "base": base}
        if subject.seed is None:
            update["base"] = base.model_copy(update={"fingerprint": f"{number:064x}", "alias": subject.name})
        else:
            update |= {"adapter": f"{number:064x}", "adapter_name": subject.name, "kind": "peft", "method": "lora"}
            update |= {"rank": 8, "seed": subject.seed, "trainable_parameters": 10**6}
            update["adapter_source"] = f"{subject.owner}/{subject.name}"
        who = self.template.subject.model_copy(update=update)
        form = "unmerged" if subject.seed is not None else "none"
        made = self.template.model_copy(update={"subject": who, "scores": scores, "form": form})
        return made.model_copy(update={"run_key": cardfiles.run_key(made)}), "".join(lines)

    def _score(self, one: Asked, said: Any, seconds: float) -> Score:
        task, count = catalog.tasks()[one.task], len(said)
        kinds = one.task, np.bincount(one.gold * one.answers + said).tobytes()
        if kinds not in self.known:
            rows = [own[answer] for own, answer in zip(one.rows, said, strict=True)]
            parts = split_metrics(values_of(rows), metrics.aggregations(one.task), None, 1)
            if len(self.known) == KNOWN:
                self.known.pop(next(iter(self.known)))
            self.known[kinds] = *parts, sample_counts(rows)
        strict, lenient, rate, counts = self.known[kinds]
        digest = salted(f"rows of {one.task}, {count}") * 2
        data = DataId(set=task.set, split="test", rows=count, digest=digest, origin="files")
        return Score(
            task=task.name, version=task.version, task_digest=task.digest, family=task.family, form=task.form,
            main_metric=task.main_metric, data=data, licence=task.licence, overlap=None, metrics=strict,
            lenient=lenient, parse_rate=rate, lower_is_better=metrics.lower_is_better(task.name), baselines={},
            truncated=0, prompt_tokens=60 * count, seconds=seconds,
            prompt_style=task.prompt_style, fewshot_split=None, fewshot_digest=None, **counts,
        )  # fmt: skip

    def write(self, folder: Path, subject: Subject, number: int) -> str:
        """Write a subject's card, unless it is there; returns its name in the order of arrival."""
        name = f"{subject.owner}/{subject.name}/{subject.name}"
        path = folder / "scorecards" / f"{name}.json"
        if path.is_file():
            return name
        card, samples = self.card(subject, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        place = cardfiles.samples_path(path)
        place.write_bytes(zstandard.ZstdCompressor(level=1).compress(samples.encode()))
        card = card.model_copy(update={"samples": sha256_file(place), "seal": None})
        text = card.model_copy(update={"seal": card_seal(json.loads(card.to_json()))}).to_json()
        half = path.with_name(f".{path.name}")
        half.write_text(text)
        half.replace(path)  # a killed run goes on with the card that it was at
        return name


def answered(one: Asked, ability: float, rng: Any) -> Any:
    """Numbers of the answers that a subject gives, shape (documents,)."""
    right = rng.random(len(one.hard)) < 1 / (1 + np.exp(one.hard - ability))
    other = (one.gold + 1 + rng.integers(one.answers - 1, size=len(one.hard))) % one.answers
    return np.where(right, one.gold, other)


_makers: dict[tuple[int, int, int], Maker] = {}  # of a process


def _written(folder: Path, stated: tuple[int, int, int], some: Sequence[tuple[int, Subject]]) -> list[str]:
    """Write some subjects' cards, in a process of their own."""
    if stated not in _makers:
        _makers[stated] = Maker(*stated)
    return [_makers[stated].write(folder, subject, number) for number, subject in some]


def make(folder: Path, count: int, tasks: int = 20, documents: int = 100, seed: int = 0) -> dict[str, Any]:
    """Write a leaderboard of ``count`` subjects, and their true abilities beside it; returns these by name.

    Cards that are there stay, so that what was interrupted goes on.
    """
    chosen = list(itertools.islice(subjects(count, np.random.default_rng([seed, 1])), count))
    numbered = list(enumerate(chosen))
    parts = [numbered[start : start + PART] for start in range(0, count, PART)]
    stated = itertools.repeat(folder), itertools.repeat((tasks, documents, seed))
    with concurrent.futures.ProcessPoolExecutor() if len(parts) > 1 else contextlib.nullcontext() as pool:
        done = pool.map(_written, *stated, parts) if pool else map(_written, *stated, parts)
        names = [name for some in done for name in some]
    (folder / "arrivals.txt").write_text("".join(f"{name}\n" for name in names))
    truth = {one.recipe if one.seed is not None else one.name: one.level for one in chosen}
    folder.with_name(folder.name + ".truth.json").write_text(json.dumps(truth))
    return truth


def agreement(folder: Path, truth: dict[str, int]) -> dict[str, Any]:
    """Groups against the truth: leaders from whom a subject that is truly as able was told, and order of groups."""
    by_test: dict[str, list[tuple[int, int]]] = {}
    with (folder / "leaderboard.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            if row.get("group") and row["subject"] in truth:
                by_test.setdefault(row["task"], []).append((int(row["group"]), truth[row["subject"]]))
    wrong = leaders = ordered = pairs = 0
    for rows in by_test.values():
        for group in sorted({group for group, _ in rows}):
            leader = next(level for own, level in rows if own == group)
            below = [level for own, level in rows if own > group]
            leaders, wrong = leaders + 1, wrong + (leader in below)
            ordered += sum(level < leader for level in below)
            pairs += len(below)
    return {
        "tests": len(by_test),
        "groups": leaders,
        "leaders_told_from_their_equal": wrong / max(leaders, 1),
        "truly_below_their_leader": ordered / max(pairs, 1),
    }


def pairs(folder: Path) -> dict[str, Any]:
    """Groups as they are built beside those of which every permutation test was done, and how many of these were."""
    from finbench.leaderboard import groups, known
    from finbench.leaderboard.board import board
    from finbench.leaderboard.reading import entries

    rows = alike = few = every = differing = 0
    for test in board(entries(folder)).tests:
        rivals = [groups.rival(row, test.spread) for row in test.rows]
        made, all_of_them = known.Kept(), known.Kept()
        quick = groups.tied(test.score, rivals, made)
        slow = groups.tied(test.score, rivals, all_of_them, every=True)
        rows, alike = rows + len(rivals), alike + sum(a == b for a, b in zip(quick, slow, strict=True))
        few, every, differing = few + len(made.used), every + len(all_of_them.used), differing + (quick != slow)
    return {"rows": rows, "same_group": alike, "tests_that_differ": differing, "done": few, "of": every}


def grouped(count: int, documents: int, seed: int, every: bool) -> dict[str, Any]:
    """Groups of ``count`` subjects in one test, without cards: permutation tests done, time, agreement."""
    from finbench.leaderboard import evidence, groups, known

    maker = Maker(1, documents, seed)
    [one] = maker.asked
    kinds = {stable_json(row["values"]["macro_f1"]): None for own in one.rows for row in own}
    place = {kind: number for number, kind in enumerate(kinds)}
    code = np.array([[place[stable_json(row["values"]["macro_f1"])] for row in own] for own in one.rows])
    found, drawn = [], np.random.default_rng([seed, 3])
    for who in itertools.islice(subjects(count, np.random.default_rng([seed, 1])), count):
        said = answered(one, who.ability, drawn)
        codes = code[np.arange(documents), said].astype(np.uint32)
        proof = evidence.Proof("docs", None, 1, (), tuple(kinds), codes, None)
        summed = metrics.summed("macro_f1", proof.values)
        assert summed is not None
        found.append((float(summed.statistic(summed.parts.sum(axis=0))), who.level, proof))
    found.sort(key=lambda row: -row[0])
    score: Any = argparse.Namespace(task=one.task, main_metric="macro_f1")
    rivals, pairs_made = [groups.Rival([proof]) for _, _, proof in found], known.Kept()
    start = time.process_time()
    quick = groups.tied(score, rivals, pairs_made)
    took = time.process_time() - start
    levels = [level for _, level, _ in found]
    leaders = {group: levels[quick.index(group)] for group in set(quick)}
    wrong = sum(
        any(level == leader for level, own in zip(levels, quick, strict=True) if own > group)
        for group, leader in leaders.items()
    )
    made = {"subjects": count, "documents": documents, "groups": max(quick), "tests": len(pairs_made.used)}
    made |= {"seconds": round(took, 2), "leaders_told_from_their_equal": wrong}
    if every:
        all_of_them, start = known.Kept(), time.process_time()
        slow = groups.tied(score, rivals, all_of_them, every=True)
        made |= {"same_group": sum(a == b for a, b in zip(quick, slow, strict=True)), "of_tests": len(all_of_them.used)}
        made |= {"seconds_of_all": round(time.process_time() - start, 2)}
    return made


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "page", "pairs", "groups"])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("board-scale"))
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--sizes", default="100,1000")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--browser", action="store_true")
    stated = parser.parse_intermixed_args()
    if stated.what == "make":
        make(stated.folder, stated.subjects, stated.tasks, stated.documents, stated.seed)
        return
    if stated.what == "pairs":
        print(json.dumps(pairs(stated.folder)))
        return
    if stated.what == "groups":
        for count in map(int, stated.sizes.split(",")):
            print(json.dumps(grouped(count, stated.documents, stated.seed, count <= 1000)), flush=True)
        return
    import board_costs  # beside this file, which is a script's way

    if stated.what == "run":
        sizes = [int(size) for size in stated.sizes.split(",")]
        board_costs.run(stated.folder, sizes, stated.tasks, stated.documents, stated.browser)
    else:
        board_costs.page()


if __name__ == "__main__":
    main()
