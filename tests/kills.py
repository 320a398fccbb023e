"""Kill evaluations at a seeded forward pass each, go on, and report: run by tests/test_journal.py.

One process imports everything once and forks a child for each attempt; a child counts its forward passes in a file and
kills itself with SIGKILL at a chosen one. What it prints is JSON, one line a kill.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import lm_eval.models.huggingface  # noqa: F401
import peft  # noqa: F401

from finbench.engines.forward import Forward
from finbench.evaluation import evaluator


def attempt(arguments: dict[str, Any], counter: Path, die_at: int | None) -> int:
    """Evaluate in a child; return its wait status. Each forward pass adds a byte to ``counter`` when it is through."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        real, passes = Forward.call, 0

        def counted(self: Forward, *given: Any) -> Any:
            nonlocal passes
            passes += 1
            if passes == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(self, *given)
            with counter.open("ab") as handle:
                handle.write(b".")
            return found

        Forward.call = counted  # type: ignore[method-assign]
        evaluator.evaluate(**{**arguments, "out": Path(arguments["out"]), "data_dir": Path(arguments["data_dir"])})
        os._exit(0)
    except BaseException:  # noqa: BLE001  a child must never go on as its parent
        import traceback

        traceback.print_exc()
        os._exit(3)


def main() -> None:
    """Arguments: evaluation arguments as JSON, number of kills, seed."""
    gc.freeze()  # children do not look for garbage among what was imported
    stated, kills, seed = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    home, rng = Path(stated["out"]), random.Random(seed)
    whole = home / "whole-passes"
    assert attempt({**stated, "out": str(home / "whole")}, whole, None) == 0
    passes = whole.stat().st_size
    for number in range(kills):
        counter, out = home / f"passes-{number}", str(home / f"cards-{number}")
        counter.touch()
        status, stops = 1, []
        while status and len(stops) < 20:
            # the last stop is behind the whole work: the run ends by itself
            die_at = rng.randint(2, passes + 2) if len(stops) < 3 else None
            status = attempt({**stated, "out": out}, counter, die_at)
            if status:
                assert os.WIFSIGNALED(status), status
                stops.append(die_at)
        print(json.dumps({"stops": stops, "passes": counter.stat().st_size, "whole": passes, "out": out}), flush=True)


if __name__ == "__main__":
    main()
