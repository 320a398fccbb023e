"""The tutorials run as they stand: every ```sh block in order, and what its comments say it prints."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import finbench

ROOT = Path(finbench.__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(r"^```sh\n(?P<code>.*?)^```\n(?P<stated>(?:<!-- expect: [^\n]* -->\n)*)", re.MULTILINE | re.DOTALL)


def steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a tutorial, block by block, each with the texts that its output must hold."""
    return [(match["code"], re.findall(r"<!-- expect: (.*) -->", match["stated"])) for match in _BLOCK.finditer(text)]


def test_the_blocks_of_a_tutorial_are_found_with_what_they_must_print() -> None:
    text = """```sh
a
b
```
<!-- expect: one -->
<!-- expect: two -->

```text
no
```

```sh
c
```

```sh
d
```
<!-- expect: three -->
"""
    assert steps(text) == [("a\nb\n", ["one", "two"]), ("c\n", []), ("d\n", ["three"])]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-and-score", "your-own-model", "your-own-data"])
def test_tutorial(name: str, tmp_path: Path) -> None:
    found = steps((TUTORIALS / f"{name}.md").read_text(encoding="utf-8"))
    assert 5 <= len(found) <= 12
    work, programs = tmp_path / "work", tmp_path / "bin"
    work.mkdir()
    programs.mkdir()
    for program in ("finbench", "lm_eval"):  # those of this very Python, wherever its scripts lie
        (programs / program).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {program} "$@"\n')
        (programs / program).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FINBENCH_DATA": str(tmp_path / "data"),
    }
    for code, stated in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=1800,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}"
        printed = " ".join(done.stdout.split())  # tables and sentences break where the terminal ends
        for text in stated:
            assert " ".join(text.split()) in printed, f"{code}\n{done.stdout}"


@pytest.mark.slow
def test_the_notebook_gives_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = runpy.run_path(str(ROOT / "docs" / "notebook.py"))
    for path in notebook["NOTEBOOKS"]:
        stored = nbformat.read(path, as_version=4)
        assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code"), "a cell was not run"
        assert notebook["outputs"](notebook["executed"](path)) == notebook["outputs"](stored)
