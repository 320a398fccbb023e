"""The command line: parse, call one function, print."""

from __future__ import annotations

import gc
import sys

from finbench.cli import stopping

__all__ = ["main"]


def main() -> None:
    """Entry point. Ctrl-C while modules are still being imported is one line too."""
    stopping.note()
    gc.set_threshold(10_000)  # a million objects of libraries stay: looking at them was a sixth of a short command
    try:
        from finbench.cli import app

        app.main()
    except (KeyboardInterrupt, Exception) as fault:
        if not isinstance(fault, KeyboardInterrupt) and not stopping.was_asked():
            raise
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    finally:
        gc.freeze()  # the process ends: Python would look through all that is left for circles
