"""Every FinbenchError says what to do next, or why there is nothing to type."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import finbench
from finbench.core.errors import NOTHING_TO_TYPE, FinbenchError, reason, unknown

_PACKAGE = Path(finbench.__file__).parent
_SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(_PACKAGE.rglob("*.py"))}
_MARKER = "NOTHING_TO_TYPE"


def _bases(kind: ast.ClassDef) -> set[str]:
    return {base.id for base in kind.bases if isinstance(base, ast.Name)}


def _faults() -> set[str]:
    """The names of FinbenchError and of every class made from it."""
    kinds = [node for text in _SOURCES.values() for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    found = {"FinbenchError"}
    while more := {kind.name for kind in kinds if _bases(kind) & found} - found:
        found |= more
    return found


def _hints(call: ast.Call, place: int, name: str) -> list[ast.expr]:
    """What a call gives as its hint: both branches of a choice, nothing where it gives none."""
    given = call.args[place : place + 1] + [word.value for word in call.keywords if word.arg == name]
    return [part for hint in given for part in ([hint.body, hint.orelse] if isinstance(hint, ast.IfExp) else [hint])]


def _without(text: str, faults: set[str]) -> Iterator[int]:
    """The lines of ``text`` that make a fault without a hint, or with the marker and no comment beside it."""
    tree, lines = ast.parse(text), text.splitlines()
    others = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not _bases(node) & faults}
    made = dict.fromkeys(faults - (others - {"FinbenchError"}), (1, "hint")) | {"unknown": (3, "list_command")}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if name not in made:
            continue
        hints = _hints(call, *made[name])
        empty = [hint for hint in hints if isinstance(hint, ast.Constant) and not str(hint.value).strip()]
        marked = any(isinstance(hint, ast.Name) and hint.id == _MARKER for hint in hints)
        around = lines[max(0, call.lineno - 2) : call.end_lineno]
        if not hints or empty or (marked and not any("#" in line for line in around)):
            yield call.lineno


def test_every_fault_says_what_to_do_next() -> None:
    faults = _faults()
    found = [
        f"{path.relative_to(_PACKAGE)}:{line}" for path, text in _SOURCES.items() for line in _without(text, faults)
    ]
    assert not found, f"no hint, and no {_MARKER} with a comment: {', '.join(found)}"
    made = sum(text.count("FinbenchError(") for text in _SOURCES.values())
    assert made > 400, made  # the walk saw the package


def test_a_fault_without_a_hint_is_found() -> None:
    faults = {"FinbenchError", "Refused"}
    for source in (
        "raise FinbenchError('a')",
        "raise FinbenchError('a', '')",
        "raise FinbenchError('a', hint=' ')",
        "raise FinbenchError('a', 'b' if c else '')",
        "raise errors.Refused('a')",
        "raise unknown('task', 'a', known, '')",
        f"raise FinbenchError('a', {_MARKER})",
        "class Refused(FinbenchError): ...\nraise Refused('a')",
    ):
        assert list(_without(source, faults)), source
    for source in (
        "raise FinbenchError('a', 'b')",
        "raise FinbenchError('a', hint=f'b {c}')",
        "raise unknown('task', 'a', known, 'finbench tasks list')",
        f"# Ctrl-C is its end\nraise FinbenchError('a', {_MARKER})",
        "class Refused(Exception): ...\nraise Refused('a')",
    ):
        assert not list(_without(source, faults)), source


def test_the_marker_shows_nothing() -> None:
    assert str(FinbenchError("Stopped.", NOTHING_TO_TYPE)) == "Stopped."


@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.5])
def test_a_light_command_that_is_interrupted_says_so(seconds: float, tmp_path: Path) -> None:
    """Wherever it is: among its imports, in the parser of its options, or at work."""
    code = (
        "import signal, sys, time, finbench.core.catalog as c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "c.bases = lambda: time.sleep(30)\n"
        "sys.argv = ['finbench', 'bases']\n"
        "from finbench.cli import main\n"
        "print('here', flush=True); main()"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "here\n"
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 130
    assert said.startswith("Stopped.\n")
    assert "Traceback" not in said


_MADE_OF_CTRL_C = {
    "torch": "raise ImportError('KeyboardInterrupt: <EMPTY MESSAGE>')",
    "numpy": "raise SystemError('initialization of _multiarray_umath raised unreported exception')",
    "ours": "from finbench.core.errors import FinbenchError; raise FinbenchError('A package is torn.', 'Mend it.')",
    "kept": "from finbench.core.errors import Interrupted; raise Interrupted('Stopped after 3 rows.', 'Repeat it.')",
    "light": "raise ImportError('pydantic_core')",
}


@pytest.mark.parametrize("what", _MADE_OF_CTRL_C)
@pytest.mark.parametrize("pressed", [True, False])
def test_what_a_library_makes_of_ctrl_c_is_no_broken_installation(what: str, pressed: bool) -> None:
    """A library in C that is interrupted while it is imported raises another fault, some without a word of it."""
    press = "try:\n  signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: pass\n" if pressed else ""
    where = "import finbench.cli.app as a; a.app = work" if what != "light" else "sys.modules['typer'] = None"
    code = (
        "import signal, sys\nfrom finbench.cli import main, stopping\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nstopping.note()\n"  # a background job ignores it
        f"def work():\n  {_MADE_OF_CTRL_C[what]}\n{where}\n{press}main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if not pressed:
        assert run.returncode == (130 if what == "kept" else 1)
        assert not run.stderr.startswith("Stopped.")
    else:
        assert (run.returncode, run.stdout) == (130, "")
        assert run.stderr.startswith("Stopped after 3 rows.\nRepeat it." if what == "kept" else "Stopped.\n")
        assert "Error" not in run.stderr


def test_a_wrong_name_is_told_the_right_ones_all_where_they_are_few() -> None:
    few, many = ["md", "latex", "html"], [f"task_{number}" for number in range(30)]
    said = [
        unknown("format", "late", few, "the list").message,
        unknown("format", "zzz", few, "the list").message,
        unknown("task", "tsak_7", many, "the list").message,
        unknown("task", "zzz", many, "the list").message,
        unknown("set", "zzz", [], "the list").message,
    ]
    assert said == [
        "Unknown format 'late'. Did you mean latex? There are md, latex and html.",
        "Unknown format 'zzz'. There are md, latex and html.",
        "Unknown task 'tsak_7'. Did you mean task_7 or task_27 or task_17?",
        "Unknown task 'zzz'.",
        "Unknown set 'zzz'.",
    ]


def test_a_reason_is_one_line_and_goes_on_where_the_first_only_leads_to_it() -> None:
    assert reason(RuntimeError("Error(s) in loading M:\n\tsize mismatch for q\n\tsize mismatch for k")) == (
        "Error(s) in loading M: size mismatch for q"
    )
    assert reason(ValueError("no\nmore")) == "no"
    assert reason(ValueError("ends so:")) == "ends so:"
    assert reason(AssertionError()) == "AssertionError"
