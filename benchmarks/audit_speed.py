"""How long an audit of 100,000 invented rows takes, and the memory it needs.

python benchmarks/audit_speed.py [ROWS]
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from finbench.data.audit import audit

WORDS = [
    f"{a}{b}{c}" for a in ("bel", "cor", "dan", "fen", "gol") for b in "aeiou" for c in ("rak", "mont", "vis", "tol")
]


def main() -> None:
    """Write the rows, audit them, print the figures."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for split, share in (("train", 0.8), ("test", 0.2)):
            with (Path(folder) / f"{split}.jsonl").open("w", encoding="utf-8") as handle:
                for _ in range(round(rows * share)):
                    text = " ".join(draw.choices(WORDS, k=draw.randint(8, 30)))
                    handle.write(json.dumps({"text": text, "label": draw.choice(["up", "down", "flat"])}) + "\n")
        start = time.perf_counter()
        found = audit([Path(folder)])
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rows:,} rows in {seconds:.1f} s, {peak:,.0f} MiB, {len(found.findings)} findings")


if __name__ == "__main__":
    main()
