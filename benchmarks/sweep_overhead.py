"""What the scheduler itself costs: steps that do nothing, through Ray, with every file that a real step writes.

python benchmarks/sweep_overhead.py [--cells 2000]    # writes benchmarks/sweep_overhead.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from finbench.core import environment
from finbench.grid import driver, sweepfile
from finbench.grid.places import Place
from finbench.grid.steps import Schedule

RESULTS = Path(__file__).with_suffix(".json")


def idle(payload: dict[str, Any]) -> dict[str, Any]:
    """In a worker: all that comes with a step, but not the step."""
    from finbench.grid import driver, work

    work.run = lambda step: {"state": "done"}
    return driver._task(payload)


def run(count: int) -> dict[str, Any]:
    """Steps a second, cells a second, of ``count`` cells whose steps do nothing."""
    stated = sweepfile.Sweep(name="nothing", axes={"seed": list(range(count))}, common={"tasks": ["mini_sentiment"]})
    start = time.perf_counter()
    cells = sweepfile.cells(stated)
    read = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder)
        board = Schedule(stated, cells, {})
        ray = driver._ray()
        with contextlib.ExitStack() as stack:
            stack.enter_context(driver._cluster(ray, None))
            start = time.perf_counter()
            driver._task = idle
            one = driver.Driver(ray, board, place, None)
            one.run()
            seconds = time.perf_counter() - start
        files = len(list((Path(folder) / "steps").iterdir()))
        start = time.perf_counter()
        again = Schedule(stated, cells, place.steps())
        resumed = time.perf_counter() - start
        assert again.over
    return {
        "cells": count,
        "steps": files,
        "seconds": round(seconds, 2),
        "cells_per_second": round(count / seconds, 1),
        "seconds_to_read_the_file": round(read, 2),
        "seconds_to_see_that_all_is_done": round(resumed, 2),
        **environment.hardware(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    found = run(parser.parse_args().cells)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
