"""What the process asks of its machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from finbench.core import environment
kept = environment.keep_freed_memory() if sys.argv[1] == "keep" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    parts = [bytes([1]) * (1 << 22) for _ in range(4)]
    del parts
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **variables: str) -> tuple[str, int]:
    """(the function's answer, pages that were asked for) of 50 times four blocks of 4 MB, as tensors ask for them."""
    free = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, what]
    done = subprocess.run(command, env=free | variables, capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_tensors() -> None:
    kept, pages = faults("keep")
    assert kept == "True"
    assert pages < 2 * 4 * 1024  # 4 MB are 1,024 pages: once, and not fifty times
    assert faults("leave")[1] > 5 * pages
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_thresholds_set_as_tunables_of_glibc_stay() -> None:
    assert faults("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")[0] == "False"
