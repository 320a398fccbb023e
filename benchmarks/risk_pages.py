"""The risk pages of docs/examples: both embedded bases and their adapters on Financial PhraseBank.

    python benchmarks/risk_pages.py smollm2-135m --data-dir DATA
    python benchmarks/risk_pages.py gemma3-270m --data-dir DATA --prompted 100 --noisy 60 --limit 50

It trains where runs/ has no adapter, scores adapter and base, and writes a page of each. DATA is where
``finbench data import`` has put fpb, piqa and winogrande. Each step says what processor time it took.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import finbench
from finbench.training import recipes, runner

RECIPE = "fpb-smollm2-135m-lora"
PAGES = Path(__file__).parent.parent / "docs" / "examples"


def main(base: str, data: Path | None, prompted: int, noisy: int, general: str, limit: int) -> None:
    """Everything that the page of one adapter is made of, and of its base."""
    name = f"fpb-{base}-lora-s0"
    adapter, cards = Path("runs") / name, Path("runs") / "risk" / base

    def train() -> None:
        recipe = recipes.recipe(RECIPE, {"base": base, "name": name})
        runner.train(recipe, adapter, data_dir=data, resume=(adapter / "checkpoints").is_dir())

    if not (adapter / "finbench.json").is_file():
        _timed("training", train)
    how: dict[str, Any] = {"data_dir": data, "reports": False}
    steps: dict[str, dict[str, Any]] = {
        "fpb, fpb_mc": {"tasks": "fpb,fpb_mc", "out": cards},
        "eight prompts": {"tasks": "fpb_mc", "out": cards / "wordings", "prompts": "8", "limit": prompted},
        "validation rows": {"tasks": "fpb_mc", "out": cards / "validation", "metadata": {"split": "validation"}},
        "noise": {"tasks": "fpb_mc", "out": cards / "noisy", "metadata": {"noise": "all"}, "limit": noisy},
        general: {"tasks": general, "out": cards, "limit": limit},
    }
    for step, stated in steps.items():
        _timed(f"{step}, adapter and base", lambda stated=stated: finbench.evaluate(str(adapter), **stated, **how))
    short = base.partition("-")[0]
    for subject, page in ((f"{name}.json", f"{short}-fpb.html"), (f"{base}.json", f"{short}.html")):
        _timed(page, lambda subject=subject, page=page: finbench.risk(cards / subject, [cards], out=PAGES / page))


def _timed(what: str, step: Callable[[], Any]) -> None:
    before = _processor()
    step()
    print(f"{what}: {_processor() - before:.0f} s of processor time", flush=True)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", choices=("smollm2-135m", "gemma3-270m"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--prompted", type=int, default=300, help="documents by eight prompts")
    parser.add_argument("--noisy", type=int, default=300, help="documents under each noise")
    parser.add_argument("--general", default="piqa,winogrande")
    parser.add_argument("--limit", type=int, default=100, help="documents of each general task")
    options = parser.parse_args()
    main(options.base, options.data_dir, options.prompted, options.noisy, options.general, options.limit)
