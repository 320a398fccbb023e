"""vLLM's OpenAI server in a process that ends, with all its children, when the one that started it ends."""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """``python -m finbench.serving.api ARGUMENTS`` is ``vllm serve ARGUMENTS``; standard input stays open."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    stated = make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])
    validate_parsed_serve_args(stated)
    ServeSubcommand.cmd(stated)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
