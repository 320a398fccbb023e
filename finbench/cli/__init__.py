"""The command line: parse, call one function, print."""

from __future__ import annotations

import gc
import sys

__all__ = ["main"]


def main() -> None:
    """Entry point. Ctrl-C while modules are still being imported is one line too."""
    try:
        from finbench.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    finally:
        gc.freeze()  # the process ends: Python would look through all that is left for circles
