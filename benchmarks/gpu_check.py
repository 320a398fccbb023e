"""Does finbench do on this GPU what it does on a processor, and how fast? At most eight minutes; no Hub.

    python benchmarks/gpu_check.py run [--only 1,3] [--seed 0]   # writes benchmarks/gpu_check_<card>.json
    python benchmarks/gpu_check.py run --tiny                    # on a processor: that the script itself works
    python benchmarks/gpu_check.py page                          # the tables of docs/training.md and docs/vllm.md

Bases are Llamas of random weights with the shape of a real one. The sections (gpu_sections.py) run one after the other,
each in a process of its own, since a fault of CUDA ends its process: a table of what was found, the limit, pass or
fail. Exit 1 if anything fails; after a failure of section 0 nothing else is run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from finbench.core import environment
from finbench.core.console import out as console

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
SECTIONS = {
    "0": "versions, dtype, kernels",
    "1": "packed and shared rows beside padded ones in float32",
    "2": "NF4 on the GPU beside the processor",
    "3": "tokens a second on rows of FPB's lengths, 8B",
    "4": "tokens a second on rows of 2,048, 8B",
    "5": "compile, kernels, optimisers, checkpointing, resume",
    "6": "FSDP with one process",
    "7": "vLLM: parity, ranks, many adapters",
    "8": "serve: two adapters, killed parent",
    "9": "finbench plan beside what was measured",
}
PAGES = {DOCS / "training.md": "01234569", DOCS / "vllm.md": "78"}
MARKS = ("<!-- measured by benchmarks/gpu_check.py -->", "<!-- end of gpu_check -->")
NOBODY = "**Nobody has run `python benchmarks/gpu_check.py run` on a GPU yet**, so no figure stands here.\n"


def run(options: argparse.Namespace) -> int:
    """Every section in a process of its own; the table, the JSON, and whether something failed."""
    asked = options.only.split(",") if options.only else list(SECTIONS)
    if odd := sorted(set(asked) - set(SECTIONS)):
        sys.exit(f"No section {', '.join(odd)}; there are {', '.join(SECTIONS)}")
    if options.only and not options.out:
        sys.exit("With --only, say where to write: --out part.json")
    if not options.tiny and _card().startswith("no GPU"):
        sys.exit("No CUDA device is here, or torch was built without CUDA; --tiny runs on a processor")
    end = time.monotonic() + (math.inf if options.tiny else 60 * options.minutes)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in asked:
            began, rows = time.monotonic(), _section(number, options, Path(folder), end)
            for row in rows:
                row |= {"section": int(number)}
                said = escape(f"{row['name']}: {row['found']}" + (f"  ({row['limit']})" if row["limit"] else ""))
                console.print(f"{number}  {_mark(row['passed'])}  {said}")
            console.print(f"   [dim]{SECTIONS[number]}: {time.monotonic() - began:.0f} s[/dim]")
            found += rows
            if number == "0" and any(row["passed"] is False for row in rows):
                console.print("What is above comes first: nothing else is run.")
                break
    card = _card()
    written = {"card": card, "tiny": options.tiny, "seed": options.seed, "checks": found}
    written["provenance"] = environment.provenance("vllm").model_dump()
    name = "tiny" if options.tiny else card.lower().replace(" ", "-")
    target = options.out or HERE / f"gpu_check_{name}.json"
    target.write_text(json.dumps(written, indent=1) + "\n")
    console.print(_table(written))
    console.print(f"{card}: {target}")
    return int(any(row["passed"] is False for row in found))


def _section(number: str, options: argparse.Namespace, folder: Path, end: float) -> list[dict[str, Any]]:
    """The rows of one section; a process that dies, or is not through at the ``end`` of all, is a row too."""
    results = folder / f"{number}.json"
    earlier = [str(path) for path in sorted(folder.glob("*.json"))]
    command = [sys.executable, str(HERE / "gpu_sections.py"), number, str(results), str(options.seed)]
    command += ["--tiny"] if options.tiny else []
    process = subprocess.Popen([*command, *earlier], start_new_session=True)
    why = ""
    try:
        code = process.wait(1800 if options.tiny else max(0.1, end - time.monotonic()))
        why = f"its process ended with code {code}" if code else ""
    except subprocess.TimeoutExpired:
        why = "not through when the time was over: --minutes 20"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    rows: list[dict[str, Any]] = json.loads(results.read_text())["rows"] if results.is_file() else []
    if why:
        rows.append({"name": SECTIONS[number], "found": why, "limit": "it ends well", "passed": False})
    return rows


def _card() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"no GPU ({platform.machine()})"


def _mark(passed: bool | None) -> str:
    return {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: "[dim]  - [/dim]"}[passed]


def _table(written: dict[str, Any]) -> Table:
    table = Table(title=f"{written['card']}, seed {written['seed']}")
    for column in ("", "check", "found", "limit", ""):
        table.add_column(column)
    for row in written["checks"]:
        shown = [escape(row[key]) for key in ("name", "found", "limit")]
        table.add_row(str(row["section"]), *shown, _mark(row["passed"]))
    return table


def page(sections: str, known: list[dict[str, Any]]) -> str:
    """The part of a page that is about ``sections``: a table a card, or that nobody has measured one."""
    if not known:
        return NOBODY
    parts = []
    for one in known:
        made = one["provenance"]
        versions = ", ".join(
            f"{name} {made['packages'][name]}" for name in ("torch", "vllm") if name in made["packages"]
        )
        parts.append(f"{one['card']}, {versions}, {made['created'][:10]}, seed {one['seed']}:\n\n")
        parts.append("| check | found | limit | |\n|--|--|--|--|\n")
        parts += [
            f"| {row['name']} | {row['found']} | {row['limit']} | {_word(row['passed'])} |\n"
            for row in one["checks"]
            if str(row["section"]) in sections
        ]
    return "".join(parts)


def _word(passed: bool | None) -> str:
    return {True: "pass", False: "**fail**", None: ""}[passed]


def pages() -> dict[Path, str]:
    """The pages as they should be, from the committed measurements of cards."""
    files = [path for path in sorted(HERE.glob("gpu_check_*.json")) if path.stem != "gpu_check_tiny"]
    known = [json.loads(path.read_text()) for path in files]
    made = {}
    for path, sections in PAGES.items():
        before, _, rest = path.read_text().partition(MARKS[0])
        made[path] = f"{before}{MARKS[0]}\n{page(sections, known)}{MARKS[1]}{rest.partition(MARKS[1])[2]}"
    return made


def main() -> None:
    """Parse, then run the check or write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "page"])
    parser.add_argument("--only", help=f"sections by comma: {', '.join(f'{n} {t}' for n, t in SECTIONS.items())}")
    parser.add_argument("--minutes", type=float, default=8, help="after which what is left is not run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tiny", action="store_true", help="small models, on a processor: limits of speed are left out"
    )
    parser.add_argument("--out", type=Path, help="JSON; default benchmarks/gpu_check_<card>.json")
    options = parser.parse_args()
    if options.what == "run":
        sys.exit(run(options))
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
