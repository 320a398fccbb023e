"""The house: imports point down, start-up is light, tasks stand alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import finbench
from conftest import quick, task_helper
from finbench.cards import cardfiles
from finbench.core import catalog, paths
from finbench.scoring import metrics

PACKAGE = Path(finbench.__file__).parent
ROOT = PACKAGE.parent
LAYERS = (
    {"errors", "files", "console", "paths", "strict", "records"},
    {
        "catalog",
        "refs",
        "safety",
        "limits",
        "chatguard",
        "zoo",
        "quantiles",
        "stats",
        "earlier",
        "paired",
        "seal",
        "methods",
        "environment",
        "checkpoints",
        "batches",
        "launch",
        "hub",
        "devhub",
        "unpack",
        "modelfiles",
        "structured",
        "journal",
    },
    {
        "bases",
        "adapters",
        "prompts",
        "data",
        "scoring",
        "cardfiles",
        "cards",
        "engines",
        "lowrank",
        "packing",
        "loops",
        "speedups",
        "gpus",
        "sharding",
        "trainer",
        "subjects",
        "metrics",
        "vllmcheck",
    },
    {
        "preparation",
        "training",
        "rank",
        "evaluation",
        "check",
        "taskdocs",
        "examcheck",
        "doctor",
        "demo",
        "comparison",
        "plots",
        "tables",
        "rescore",
        "verification",
        "restating",
        "rerun",
        "reporting",
        "lmeval",
        "harness",
        "exports",
        "publishing",
        "pulling",
        "merging",
        "preflight",
        "serving",
        "tuning",
        "planning",
        "leaderboard",
        "grid",
        "pretraining",
    },
    {
        "views",
        "hubviews",
        "cardviews",
        "planviews",
        "methodviews",
        "gridviews",
        "pretrainviews",
        "cli",
        "cli_run",
        "cli_methods",
        "cli_cards",
        "cli_catalog",
        "cli_data",
        "cli_board",
        "cli_hub",
        "cli_sweep",
        "cli_pretrain",
        "__main__",
        "__init__",
    },
)


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _modules() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in ("tasks", "adapters_zoo")
    ]


def _imports(path: Path) -> set[str]:
    """Rooms of the package that a module imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "finbench":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("finbench."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("finbench.")}
    return found - {"__version__", _room(path)}


def _layer(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


def test_every_module_has_a_layer_and_imports_point_down() -> None:
    wrong = []
    for path in _modules():
        room = _room(path)
        wrong += [f"{room} imports {other}" for other in _imports(path) if _layer(other) > _layer(room)]
    assert wrong == []


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for path in _modules():
        graph.setdefault(_room(path), set()).update(_imports(path))

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        return any(
            other == goal or (other not in seen and reaches(other, goal, seen | {other}))
            for other in graph.get(start, ())
        )

    # records and errors import nothing of ours that imports them back; the same holds for every room
    assert [room for room in graph if room not in ("__init__", "cli") and reaches(room, room, {room})] == []


def test_the_layers_that_are_documented_are_these() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*) \|$", page, re.MULTILINE)
    for number, cells in rows:
        named = {name.rstrip("/") for name in re.findall(r"`([a-z_]+/?)`", cells)}
        assert named == LAYERS[int(number)] - {"__main__", "__init__"}, number
    assert len(rows) == len(LAYERS)


def test_modules_and_functions_fit_in_a_head() -> None:
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 430, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 75, (path.name, node.name, length)


def test_public_names_are_the_same_at_every_use() -> None:
    for name in finbench.__all__:
        first = getattr(finbench, name)
        assert getattr(finbench, name) is first, name
        assert name == "__version__" or callable(first), name


def test_help_is_fast_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, finbench.cli.app as c\n"
        "sys.argv = ['finbench', '--help']\n"
        "try: c.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'lm_eval', 'datasets', 'numpy') if m in sys.modules])\n"
    )
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
    assert done.stdout.strip().endswith("[]")
    assert quick(min(times), 0.5)


def test_task_helpers_import_neither_finbench_nor_each_other() -> None:
    # lm-eval, and what it needs itself
    allowed = set(sys.stdlib_module_names) | {"lm_eval", "datasets", "sacrebleu", "rouge_score"}
    for path in (paths.shipped("tasks") / "lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            # the package sets is one thing: its parts are imported from within it
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name


def test_task_files_are_short_and_named_as_they_are_called() -> None:
    for path in paths.shipped("tasks").glob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 30, path.name


def test_the_data_directory_rule_is_the_same_with_and_without_finbench(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = task_helper("rows")
    assert rows.data_dir() == paths.data_dir()
    monkeypatch.setenv("FINBENCH_DATA", str(tmp_path / "d"))
    assert rows.data_dir() == paths.data_dir() == tmp_path / "d"
    assert rows.data_dir(str(tmp_path / "x")) == paths.data_dir(tmp_path / "x")


def test_committed_scorecards_are_whole_and_hold_no_restricted_text() -> None:
    paths_found = sorted((ROOT / "leaderboards" / "scorecards").glob("*.json"))
    assert paths_found
    for path in paths_found:
        card, rows = cardfiles.read(path), cardfiles.read_samples(path)
        assert card.status == ("partial" if card.limit else "complete")
        assert len(rows) == sum(score.n for score in card.scores)
        for score in card.scores:
            own = [row for row in rows if row["task"] == score.task]
            if "acc" in score.metrics:
                assert score.metrics["acc"].value == pytest.approx(sum(row["values"]["acc"] for row in own) / score.n)
            task = catalog.tasks()[score.task]  # evidence of an earlier version of a task stays what it was
            known = {**metrics.history().get(score.task, {}), task.version: task.digest}
            assert known.get(score.version) == score.task_digest, f"{path.name}: score {score.task} again"
            assert score.form == "choice" or not task.restricted or all("answer" not in row for row in own)


def test_recipes_state_only_what_differs() -> None:
    defaults = yaml.safe_load((paths.shipped("adapters_zoo") / "_defaults.yaml").read_text())
    for path in paths.shipped("adapters_zoo").glob("*.yaml"):
        if path.stem not in ("_defaults", "bases", "published"):
            stated = yaml.safe_load(path.read_text())
            assert [key for key in stated if defaults.get(key) == stated[key]] == [], path.name


def test_every_public_function_says_what_it_is() -> None:
    silent = []
    for path in _modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.FunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                silent.append(f"{path.name}: {node.name}")
    assert silent == []
