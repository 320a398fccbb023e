"""Push in child processes that a test may kill at any request: run by tests/e2e/test_kills.py.

Imports everything once and forks a child for each line of JSON on stdin: arguments of ``push``, or, where there is no
``path``, of ``leaderboard.push``. Prints the child's process id at once, its exit status when it is gone: 0 done,
1 a FinbenchError, -9 killed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import peft  # noqa: F401
import transformers  # noqa: F401

from finbench import leaderboard
from finbench.core.errors import FinbenchError
from finbench.leaderboard import charts
from finbench.publishing.publish import push


def main() -> None:
    """Until stdin ends."""
    gc.freeze()  # children do not look for garbage among what was imported
    print("ready", flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        if "path" not in arguments:
            charts.bundle(), charts.scatter()  # seconds, once for all children
        child = os.fork()
        if not child:
            try:
                if "path" in arguments:
                    push(**arguments)
                else:
                    leaderboard.push(arguments["to"], Path(arguments["folder"]))
                os._exit(0)
            except FinbenchError as fault:
                print(fault.message, file=sys.stderr, flush=True)
                os._exit(1)
            except BaseException:  # noqa: BLE001  a child must never go on as its parent
                import traceback

                traceback.print_exc()
                os._exit(3)
        print(child, flush=True)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
