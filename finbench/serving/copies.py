"""A server's folder in the cache: its terms, and copies of the adapters that it takes; gone when the server is."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from finbench.core import paths
from finbench.core.files import cannot_write
from finbench.serving.terms import Terms

_MARK = ".finbench-serving"  # in folders that are ours; locked as long as the server runs


def written(terms: Terms) -> tuple[contextlib.ExitStack, Terms, Path]:
    """A new folder, which goes when the stack is closed; the terms that name it; their file in it.

    What servers that were killed have left is removed first. Raises FinbenchError where the cache cannot be written.
    """
    from filelock import FileLock

    cache, stack = paths.cache_dir(), contextlib.ExitStack()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "serving.lock"):  # else another could find a folder that is not locked yet
            for mark in cache.glob(f"serving-*/{_MARK}"):
                with contextlib.suppress(OSError), FileLock(mark, timeout=0):  # a lock that is held is an OSError too
                    shutil.rmtree(mark.parent, ignore_errors=True)
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-", dir=cache)))
            stack.enter_context(FileLock(place / _MARK))
        terms = terms.model_copy(update={"place": str(place)})
        stated = place / "terms.json"
        stated.write_text(terms.to_json(), encoding="utf-8")
    except OSError as fault:
        stack.close()
        raise cannot_write(cache, fault) from fault
    return stack, terms, stated
