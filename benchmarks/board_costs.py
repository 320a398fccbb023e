"""What a leaderboard of thousands costs: ``run`` and ``page`` of ``benchmarks/board_scale.py``.

Each step is a command of finbench as a user types it, measured by the clock and by processor time of all its processes,
whose memory is summed with what they share counted once. A step that is written in the results is not done again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import board_scale
import numpy as np

from finbench.core import environment
from finbench.core import threads as cores
from finbench.core.prose import wrapped

RESULTS = Path(__file__).with_name("board_scale.json")
PAGE = Path(__file__).parents[1] / "leaderboards" / "README.md"
MARKS = (
    "<!-- board-scale: written by `python benchmarks/board_scale.py page` -->\n",
    "<!-- /board-scale -->\n",
)
GOAL_AT = 5000  # subjects, on two cores
MINUTE, GB = 60.0, 1e9
STEPS = ("first", "again", "review", "more")
SEEDS, MOST_TESTED = 5, 1000  # simulated tests whose groups are compared, and subjects at most
_ALONE = 1.3  # times its processor time that a process takes where nobody else is there
GOALS = {  # what is asked of the largest board, and in what unit it is told
    "first_s": (15 * MINUTE, 1.0),
    "first_bytes": (4 * GB, GB),
    "more_s": (20.0, 1.0),
    "request_cpu_s": (60.0, 1.0),
    "interactive_ms_desktop": (1000.0, 1.0),
    "interactive_ms_phone": (1000.0, 1.0),
    "search_ms_overview_median": (100.0, 1.0),
    "search_ms_task_median": (100.0, 1.0),
}
SHOWN = {  # number -> (as it is called, its unit, digits)
    "first_s": ("first build, by the clock, s", 1.0, 0),
    "first_cpu_s": ("first build, of processor, s", 1.0, 0),
    "first_bytes": ("its memory at the peak, GB", GB, 2),
    "again_cpu_s": ("the same again, of processor, s", 1.0, 0),
    "more_s": ("one card more, by the clock, s", 1.0, 1),
    "more_cpu_s": ("one card more, of processor, s", 1.0, 0),
    "review_cpu_s": ("`leaderboard review` of a card, of processor, s", 1.0, 0),
    "review_bytes": ("its memory at the peak, GB", GB, 2),
    "request_cpu_s": ("a pull request of a card, reviewed, taken and built, of processor, s", 1.0, 0),
    "cards_bytes": ("cards with samples, MB", 1e6, 0),
    "page_bytes": ("page and tables, MB", 1e6, 1),
    "cache_bytes": ("cache, MB", 1e6, 1),
    "first_screen_bytes": ("first screen, kB", 1e3, 0),
    "interactive_ms_desktop": ("first screen interactive, ms", 1.0, 0),
    "interactive_ms_phone": ("on a phone's screen, ms", 1.0, 0),
    "search_ms_overview_median": ("search or filter on the first screen, ms", 1.0, 0),
    "search_ms_task_median": ("search or filter on a test's page, ms", 1.0, 0),
}


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, processor seconds, bytes of all its processes at their peak."""

    seconds: float
    processor: float
    memory: int

    def as_dict(self, step: str) -> dict[str, Any]:
        """By the names of the results."""
        return {
            f"{step}_s": round(self.seconds, 1),
            f"{step}_cpu_s": round(self.processor, 1),
            f"{step}_bytes": self.memory,
        }


def cost(words: Sequence[str | Path], cache: Path) -> Cost:
    """Run a command of finbench to its end and measure it; SystemExit where it fails."""
    environ = os.environ | {"FINBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    start, before = time.monotonic(), os.times()
    command = [sys.executable, "-m", "finbench", "leaderboard", *map(str, words)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], sum(_resident(pid) for pid in _tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    after = os.times()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.monotonic() - start, used, peak[0])


def _tree(pid: int) -> list[int]:
    try:
        threads = [*Path(f"/proc/{pid}/task").iterdir()]
        own = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(below for child in own for below in _tree(child))]


def _resident(pid: int) -> int:
    """Proportional share of memory: what processes share counts once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def size(folder: Path, *left_out: str) -> int:
    """Bytes of the files in a folder, without those in ``left_out`` of it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if path.relative_to(folder).parts[0] not in left_out)


def steps(
    place: Path, count: int, tasks: int, documents: int, browser: bool
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is measured of one size, in order: a name that the results have once it is done, and how it is done."""
    folder, cache, request = (place / f"{name}-{count}" for name in ("board", "cache", "request"))

    def made() -> dict[str, Any]:
        start = time.monotonic()
        board_scale.make(folder, count, tasks, documents)
        return {"made_s": round(time.monotonic() - start, 1), "cards_bytes": size(folder / "scorecards")}

    def first() -> dict[str, Any]:
        shutil.rmtree(cache, ignore_errors=True)
        found = cost(["build", folder], cache).as_dict("first")
        truth = json.loads(folder.with_name(f"{folder.name}.truth.json").read_text())
        sizes = {"cache_bytes": size(cache), "page_bytes": size(folder, "scorecards")}
        return found | sizes | board_scale.agreement(folder, truth)

    def reviewed() -> dict[str, Any]:
        shutil.rmtree(request, ignore_errors=True)
        shutil.copytree(folder / "scorecards", request / "scorecards", copy_function=os.link)
        shutil.copy(folder / "arrivals.txt", request)
        with (request / "arrivals.txt").open("a") as lines:
            lines.write(f"{newcomer(request, 'asked')}\n")
        found = cost(["review", request, "--against", folder], cache).as_dict("review")
        shutil.rmtree(request)
        return found

    def more() -> dict[str, Any]:
        alone = place / f"alone-{count}"
        card = alone / "scorecards" / f"{newcomer(alone, 'newcomer')}.json"
        added = cost(["add", card, "--to", folder, "--owner", "stranger"], cache)
        built = cost(["build", folder], cache)
        shutil.rmtree(alone)
        both = Cost(added.seconds + built.seconds, added.processor + built.processor, max(added.memory, built.memory))
        return both.as_dict("more") | {"add_cpu_s": round(added.processor, 1)}

    def alike() -> dict[str, Any]:
        made = [board_scale.grouped(count, documents, seed, every=True) for seed in range(SEEDS)]
        names = {"subjects": "alike_of", "same_group": "alike", "tests": "tests_done", "of_tests": "tests_of"}
        return {name: sum(one[told] for one in made) for told, name in names.items()}

    def newcomer(to: Path, name: str) -> str:
        maker = board_scale.Maker(tasks, documents, 0)
        return maker.write(to, board_scale.Subject(name, "stranger", 0.3, -1, name, None), 10**9 + len(name))

    def shown() -> dict[str, Any]:
        import board_browser  # playwright is an extra

        found = board_browser.measured(folder)
        return {"first_screen_bytes": found.pop("first_bytes")} | found

    yield "made_s", made
    yield "first_s", first
    yield "again_s", lambda: cost(["build", folder], cache).as_dict("again")
    yield "review_s", reviewed
    yield "more_s", more
    if count <= MOST_TESTED:
        yield "alike", alike
    if browser:
        yield "first_screen_bytes", shown


def run(place: Path, sizes: Sequence[int], tasks: int, documents: int, browser: bool) -> None:
    """Measure what is not there yet; each step is written at once."""
    asked = {"tasks": tasks, "documents": documents}
    found = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    if {name: found.get(name) for name in asked} != asked:
        found = asked | {"boards": {}}
    found["hardware"] = environment.hardware() | {"cores": math.ceil(cores.cores())}
    for count in sizes:
        own = found["boards"].setdefault(str(count), {})
        for name, step in steps(place, count, tasks, documents, browser):
            if name not in own:
                own |= step()
                print(count, json.dumps(own), flush=True)
                _keep(found)
    _keep(found)


def _keep(found: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def growth(counts: Sequence[int], values: Sequence[float]) -> float:
    """The exponent of a number's growth with the subjects: least squares of logarithms."""
    return float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-9)), 1)[0])


def table(found: dict[str, Any]) -> str:
    """What was measured, how it grows, and which goals are missed."""
    boards = {int(count): own | dict(_parts(own)) for count, own in found["boards"].items()}
    for own in boards.values():
        if {"review_cpu_s", "more_cpu_s"} <= own.keys():
            own["request_cpu_s"] = own["review_cpu_s"] + own["more_cpu_s"]
    counts = sorted(boards)
    told = found["hardware"]
    lines = [
        f"Simulated cards of {found['tasks']} tasks and {found['documents']} documents each, with samples, "
        f"on {told['cores']} cores ({told['cpu']}):",
        "",
        f"| | {' | '.join(f'{count:,} subjects' for count in counts)} | grows as n to the |",
        "|--|" + "--:|" * (len(counts) + 1),
    ]
    for name, (called, unit, digits) in SHOWN.items():
        values = [boards[count].get(name) for count in counts]
        known = [(count, value) for count, value in zip(counts, values, strict=True) if value is not None]
        power = f"{growth(*zip(*known, strict=True)):.2f}" if len(known) > 1 else "–"  # type: ignore[arg-type]
        cells = ["–" if value is None else f"{value / unit:,.{digits}f}" for value in values]
        lines.append(f"| {called} | {' | '.join(cells)} | {power} |")
    bound = growth(counts, [count * math.log(count) for count in counts]) if len(counts) > 1 else math.nan
    lines += ["", f"n log n grows as n to the {bound:.2f} between these sizes.", ""]
    for count in counts:
        if "groups" in (own := boards[count]):
            wrong, right = own["leaders_told_from_their_equal"], own["truly_below_their_leader"]
            lines.append(
                f"- {count:,} subjects: {own['groups']:,} groups in {own['tests']} tests. A truly equal subject stands "
                f"below {wrong:.1%} of their leaders' groups, where 5 % may; of the pairs of a leader and a subject of "
                f"a later group {right:.1%} are in the true order."
            )
        if "alike" in own:
            lines.append(
                f"- Of {SEEDS} more tests of {count:,} subjects {own['alike']:,} of "
                f"{own['alike_of']:,} stand in the group that they have where every permutation test is done; "
                f"{own['tests_done']:,} of {own['tests_of']:,} of these tests were done."
            )
    spent = [
        (own[f"{step}_s"], own[f"{step}_cpu_s"]) for own in boards.values() for step in STEPS if f"{step}_s" in own
    ]
    waited = max(seconds / processor for seconds, processor in spent)
    if waited > _ALONE:
        lines += ["", f"Others used the machine too: by the clock a step took up to {waited:.1f} times its own time."]
    return wrapped("\n".join([*lines, "", *_goals(boards), ""]))


def _parts(own: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Numbers that stand one level deeper, by both names."""
    for name, value in own.items():
        if isinstance(value, dict):
            yield from ((f"{name}_{part}", number) for part, number in value.items())


def _goals(boards: dict[int, dict[str, Any]]) -> Iterator[str]:
    """Each goal, and whether it is met; of a board that was not measured, what two smaller ones lead to expect."""
    there = GOAL_AT in boards
    if there:
        yield f"Goals at {GOAL_AT:,} subjects on two cores:"
    else:
        lacking = f"**No board of {GOAL_AT:,} subjects, for which the goals are, was measured.**"
        yield f"{lacking} What is expected of it is a fixed part and one that grows as n log n, from the two largest:"
    yield ""
    for name, (goal, unit) in GOALS.items():
        value = boards[GOAL_AT].get(name) if there else _expected(name, boards)
        verdict = "not measured" if value is None else "met" if value <= goal else "**missed**"
        told = "" if value is None else f"{'' if there else 'about '}{value / unit:,.{SHOWN[name][2]}f}, "
        yield f"- {SHOWN[name][0]}, at most {goal / unit:,.0f}: {told}{verdict}."


def _expected(name: str, boards: dict[int, dict[str, Any]]) -> float | None:
    """A number at ``GOAL_AT``; None where fewer than two boards have it."""
    known = sorted((count, own[name]) for count, own in boards.items() if name in own)[-2:]
    if len(known) < 2:
        return None
    (one, low), (other, high) = known
    slope = max(0.0, (high - low) / (other * math.log(other) - one * math.log(one)))
    return float(high + slope * (GOAL_AT * math.log(GOAL_AT) - other * math.log(other)))


def page() -> None:
    """Write the table between its marks."""
    before, rest = PAGE.read_text("utf-8").split(MARKS[0])
    made = table(json.loads(RESULTS.read_text("utf-8")))
    PAGE.write_text(f"{before}{MARKS[0]}\n{made}\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")
