"""Executes the notebooks of the tutorials, so that what they show is what the code gives.

python docs/notebook.py            runs each in its folder and writes it with its outputs
python docs/notebook.py --check    runs each and says whether its outputs are still the same; exit 1 if not
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent / "tutorials").glob("*.ipynb"))


def executed(path: Path) -> Any:
    """The notebook, run from its first cell to its last by this Python. A cell that fails is an error."""
    notebook = nbformat.read(path, as_version=4)
    run = copy.deepcopy(notebook)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(run, timeout=300, kernel_name="python3", resources=place).execute()
    run.metadata = notebook.metadata  # not the version of whoever ran it
    for cell in run.cells:
        cell.metadata.pop("execution", None)  # times
    return run


def outputs(notebook: Any) -> list[Any]:
    """What the cells print and show."""
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def main() -> None:
    """Write, or with --check compare."""
    stale = []
    for path in NOTEBOOKS:
        run = executed(path)
        if sys.argv[1:] != ["--check"]:
            nbformat.write(run, path)
        elif outputs(run) != outputs(nbformat.read(path, as_version=4)):
            stale.append(path.name)
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; run: python docs/notebook.py")


if __name__ == "__main__":
    main()
