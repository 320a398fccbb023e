"""``python -m finbench``."""

from finbench.cli import main

main()
