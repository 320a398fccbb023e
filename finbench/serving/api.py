"""vLLM's OpenAI server in a process that ends, with all its children, when the one that started it ends."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from typing import Any

from finbench.core import lifeline

ARGUMENTS = ("vllm.entrypoints.common.cli_args", "vllm.entrypoints.launchers.cli_args")  # since vLLM 0.33; in 0.32


def main() -> None:
    """``python -m finbench.serving.api ARGUMENTS`` is ``vllm serve ARGUMENTS``; standard input stays open."""
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # this process has threads, which a fork may lock for ever
    threading.Thread(target=lifeline.end_with_parent, daemon=True).start()
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parsing = arguments_of_vllm()
    stated = parsing.make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])
    parsing.validate_parsed_serve_args(stated)
    ServeSubcommand.cmd(stated)


def arguments_of_vllm() -> Any:
    """The module in which this vLLM parses the arguments of its server."""
    for name in ARGUMENTS[:-1]:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    return importlib.import_module(ARGUMENTS[-1])


if __name__ == "__main__":
    main()
