"""Readers under Atheris, which follows their code: whether it finds what the inputs of ``fuzzed.py`` do not.

    pip install atheris                                   # Python 3.11 to 3.13, Linux
    python benchmarks/fuzz_guided.py READER [--seconds 120]    after: python benchmarks/faults.py run fuzz

It begins with Hypothesis's inputs as its corpus. ``cov`` of the line INITED is the code that these reach, that of DONE
what was reached in the end; a fault that is no message is printed once, and its input kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

with atheris.instrument_imports(include=["finbench", "yaml", "json.decoder"]):
    import fuzzed

    from finbench.core.errors import FinbenchError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=fuzzed.READERS)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--inputs", type=int, default=400, help="of Hypothesis, to begin with")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "faults")
    given = parser.parse_args()
    out = given.out.resolve()
    os.environ |= {"HF_HUB_OFFLINE": "1", "FINBENCH_CACHE": str(out / "cache")}
    place, corpus = out / "cases" / f"guided-{given.reader}", out / "corpus" / given.reader
    for folder in (place, corpus):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for part in ("base", "adapter", "cards"):
        shutil.copytree(out / "world" / part, place / part)
    with atheris.instrument_imports(include=["finbench", "yaml"]):
        good, read = fuzzed._readers()[given.reader]
        whole = good(place)
        (corpus / "good").write_bytes(whole)
        for number, content in enumerate(fuzzed._inputs(whole, given.inputs, 0)):
            (corpus / str(number)).write_bytes(content)
        path = place / given.reader
        path.write_bytes(whole)
        read(path)  # what is imported late
    words = place / "words"
    quoted = ["".join(f"\\x{byte:02x}" for byte in token) for token in fuzzed.TOKENS if 0 < len(token) < 100]
    words.write_text("".join(f'"{word}"\n' for word in quoted))
    told = set[tuple[str, int]]()

    def once(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
        except FinbenchError:
            pass
        except Exception as fault:  # noqa: BLE001  what is looked for here
            frame = traceback.extract_tb(fault.__traceback__)[-1]
            if (mark := (f"{type(fault).__name__} {frame.filename}", frame.lineno or 0)) not in told:
                told.add(mark)
                (out / "cases" / f"odd-guided-{len(told)}-{given.reader}").write_bytes(content)
                print("FOUND", mark, str(fault)[:200], flush=True)

    arguments = [sys.argv[0], str(corpus), f"-max_total_time={given.seconds}", "-rss_limit_mb=6000", "-timeout=30"]
    arguments += [f"-max_len={max(4096, 2 * len(whole))}", f"-dict={words}", f"-artifact_prefix={place}/"]
    atheris.Setup(arguments, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
