"""The command line: parse, call one function, print."""

from finbench.cli.app import main

__all__ = ["main"]
