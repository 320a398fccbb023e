"""The tutorials run: every ```sh block in order, and what its comments say it prints. One trains on fewer rows."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from test_new_task import LABELS, sentences, table
from typer.testing import CliRunner

import finbench
from finbench.cli.app import app

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
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize("name", ["train-and-score", "your-own-model", "your-own-data"])
def test_tutorial(name: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    run(name, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_the_tutorial_of_an_own_benchmark_on_real_sentences(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    source = real_data / "fomc" / "chatgpt_answers" / "chatgpt_lab-manual-combine_5768.csv"
    shutil.copy(source, tmp_path / "work" / "fomc.csv")
    run("own-benchmark", tmp_path, {"--epochs 3": "--limit 48"})  # five minutes of training show nothing more


def test_the_tutorial_of_an_own_benchmark_on_invented_sentences(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same commands, in this process and with a tiny base."""
    monkeypatch.chdir(tmp_path)
    codes = {label: str(number) for number, label in enumerate(LABELS)}
    rows = [(codes[stance], text) for text, stance in sentences(150)]
    table(Path("fomc.csv"), rows, ("true_label", "original_sent"))
    found = steps((TUTORIALS / "own-benchmark.md").read_text(encoding="utf-8"))
    commands = [shlex.split(code.replace("\\\n", " ")) for code, _ in found if code.startswith("finbench")]
    assert [words[1] for words in commands] == ["tasks", "train", "eval", "compare", "report"]
    for words, (_, stated) in zip(commands, found[1:], strict=True):
        if "cat" in words:
            words = words[: words.index("cat")]
        tiny = [str(llama) if word == "smollm2-135m" else word for word in words[1:]]
        tiny = [word.replace("smollm2-135m", "tiny-llama") if word.endswith(".json") else word for word in tiny]
        done = CliRunner().invoke(app, tiny)
        assert done.exit_code == 0, (words, done.output, done.exception)
        printed = " ".join((done.output + (Path("table.md").read_text() if words[1] == "report" else "")).split())
        for text in stated:
            assert text in printed, (text, done.output)


def run(name: str, tmp_path: Path, shorter: Mapping[str, str] = MappingProxyType({})) -> None:
    """Every block of a tutorial, in a folder of its own, but for what is named to be done shorter."""
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    for stated, instead in shorter.items():
        assert stated in text
        text = text.replace(stated, instead)
    found = steps(text)
    assert 5 <= len(found) <= 12
    work, programs = tmp_path / "work", tmp_path / "bin"
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
@pytest.mark.usefixtures("smollm2")
def test_the_notebook_gives_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = runpy.run_path(str(ROOT / "docs" / "notebook.py"))
    for path in notebook["NOTEBOOKS"]:
        stored = nbformat.read(path, as_version=4)
        assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code"), "a cell was not run"
        assert notebook["outputs"](notebook["executed"](path)) == notebook["outputs"](stored)
