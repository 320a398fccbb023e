"""What the importers made of the files at hand, for docs/tasks.md: rows, rows left out, baselines.

    python benchmarks/sets.py --data-dir DATA            # tells where the YAMLs' baselines are not those of the rows
    python benchmarks/sets.py --data-dir DATA --write    # and writes tasks/measured.json

DATA is where ``finbench data import`` and ``finbench data xbrl`` have put the rows. Sets that are not there are left as
they were measured before.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finbench.core import catalog, paths
from finbench.data.sources import describe_set
from finbench.scoring import modelfree, prompts

FILE = Path(__file__).resolve().parent.parent / "tasks" / "measured.json"
TOLERANCE = 0.015  # the YAMLs state random labels exactly and some shares of the authors' complete files


def measured(data_dir: Path) -> dict[str, Any]:
    """``{set: rows read, the authors' rows, rows by split, rows left out by reason}``."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    table = paths.helper("sets").SETS
    for name in dict.fromkeys(task.set for task in catalog.tasks().values() if not task.shipped):
        card = describe_set(name, data_dir)
        if card:
            found[name] = {
                "read": card["read"],
                "complete": card.get("complete", True),
                "rows": card["rows"],
                "dropped": card["dropped"],
            }
            if name in table:
                found[name]["whole"] = table[name].whole
    return dict(sorted(found.items()))


def faults(data_dir: Path) -> Iterator[str]:
    """Baselines of accuracy that the test rows contradict."""
    here = [task for task in catalog.tasks().values() if not task.shipped and describe_set(task.set, data_dir)]
    for task in here:
        lm_task = prompts.load([task], data_dir)[task.name]
        found = modelfree.baselines(lm_task, prompts.rows(lm_task, "test"))
        for name, stated in task.baselines.items():
            kind = next((kind for kind in modelfree.BASELINES if f"{name}_".startswith(f"{kind}_")), "")
            value = found.get(kind, {}).get(name.removeprefix(kind).removeprefix("_") or task.main_metric)
            if value is not None and abs(value - stated) > TOLERANCE:
                yield f"{task.name}: {name} is {stated}, the rows say {value:.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    logging.disable(logging.WARNING)  # lm-eval's, of --metadata
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = json.dumps(measured(given.data_dir), indent=1) + "\n"
    if given.write:
        FILE.write_text(text, encoding="utf-8")
    wrong = list(faults(given.data_dir))
    sys.exit("\n".join(wrong) or (0 if given.write or text == FILE.read_text(encoding="utf-8") else "stale: --write"))
