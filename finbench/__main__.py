"""``python -m finbench``."""

from finbench.cli.app import main

main()
