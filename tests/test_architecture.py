"""The house: imports point down, packages are used through what they show, start-up is light, tasks stand alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

import finbench
from conftest import processor_time, quick, task_helper
from finbench.cards import cardfiles
from finbench.core import catalog, paths

PACKAGE = Path(finbench.__file__).parent
ROOT = PACKAGE.parent


def _layers() -> dict[str, int]:
    """Package -> layer, as the table in CONTRIBUTING.md has it: the one place where layers are stated."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return {name: int(layer) for layer, name in re.findall(r"^\| (\d+) \| `([a-z]+)` \|", page, re.MULTILINE)}


def _modules() -> dict[str, Path]:
    """Dotted name -> file, of all modules of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[1] not in ("tasks", "adapters_zoo"):
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of everything of the package that a module imports, at its top or inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "finbench":
            found += [(str(node.module), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names if alias.name.startswith("finbench.")]
    return found


def _package(module: str) -> str:
    return [*module.split("."), ""][1]


def _target(module: str, name: str, modules: dict[str, Path]) -> str:
    """The module that ``from module import name`` brings in."""
    return f"{module}.{name}" if f"{module}.{name}" in modules else module


def test_the_folders_are_the_layers_and_imports_point_down() -> None:
    layers, modules = _layers(), _modules()
    assert {_package(name) for name in modules} - {"", "__main__"} == set(layers)
    wrong = []
    for user, path in modules.items():
        for module, name in _imports(path):
            own, other = _package(user), _package(_target(module, name, modules))
            if own in layers and other and own != other and layers[other] >= layers[own]:
                wrong.append(f"{user} imports {module}.{name}")
    assert wrong == []


def _shown(module: str) -> set[str]:
    return set(getattr(__import__(module, fromlist=["__all__"]), "__all__", ()))


def _may_use(module: str, name: str, modules: dict[str, Path]) -> bool:
    """Is every step of ``from module import name`` something that the package above shows?"""
    parts = _target(module, name, modules).split(".")
    steps = all(part in _shown(".".join(parts[:number])) for number, part in enumerate(parts[2:], 2))
    inside_a_module = modules[".".join(parts)].name != "__init__.py"
    return steps and (inside_a_module or ".".join(parts) != module or name in _shown(module)) and name[:1] != "_"


def test_nobody_imports_what_another_package_does_not_show() -> None:
    modules = _modules()
    wrong = []
    for user, path in modules.items():
        for module, name in _imports(path):
            foreign = _package(user) != _package(_target(module, name, modules))
            version = (module, name) == ("finbench.core.version", "__version__")
            if foreign and module != "finbench" and not version and not _may_use(module, name, modules):
                wrong.append(f"{user} imports {module}.{name}")
    assert wrong == []


def _homes(path: Path) -> list[tuple[str, str]]:
    """(name, module it is imported from, "" for what is defined there) of all that an ``__init__`` states."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = []
    for node in [*body, *(line for block in body if isinstance(block, ast.If) for line in block.body)]:
        if isinstance(node, ast.ImportFrom):
            found += [(alias.asname or alias.name, str(node.module)) for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.name, ""))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [(target.id, "") for target in targets if isinstance(target, ast.Name)]
    return found


def test_what_a_package_shows_exists_and_is_stated_once() -> None:
    modules = _modules()
    for module, path in modules.items():
        if path.name != "__init__.py":
            continue
        shown = list(getattr(__import__(module, fromlist=["__all__"]), "__all__", ()))
        assert len(shown) == len(set(shown)), module
        for name in shown:
            assert getattr(__import__(module, fromlist=[name]), name) is not None, (module, name)
            homes = [home for stated, home in _homes(path) if stated == name]
            if f"{module}.{name}" in modules:
                # `from package import name` gives the module, once anybody has imported it: so it must be meant
                assert homes in ([], [module]), (module, name)
            else:
                assert len(homes) == 1, (module, name)


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = _modules()
    graph = {
        user: {_target(module, name, modules) for module, name in _imports(path)} - {user}
        for user, path in modules.items()
        if path.name != "__init__.py"
    }

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for other in graph.get(start, ()):
            if other == goal or (other not in seen and not seen.add(other) and reaches(other, goal, seen)):  # type: ignore[func-returns-value]
                return True
        return False

    assert [module for module in graph if reaches(module, module, {module})] == []


def test_a_class_name_means_one_thing() -> None:
    names = Counter(
        node.name
        for path in _modules().values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_modules_and_functions_fit_in_a_head() -> None:
    for path in _modules().values():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 440, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 75, (path.name, node.name, length)


def test_public_names_are_the_same_at_every_use() -> None:
    for name in finbench.__all__:
        first = getattr(finbench, name)
        assert getattr(finbench, name) is first, name
        assert name == "__version__" or callable(first), name


HEAVY = ("torch", "transformers", "peft", "lm_eval", "datasets", "numpy")


@pytest.mark.parametrize(
    ("words", "unwanted", "limit"),
    [("--help", HEAVY, 0.5), ("tasks list", HEAVY, 0.6), ("eval --shot 5", (*HEAVY, "finbench.core.catalog"), 0.5)],
)
def test_what_computes_nothing_is_fast_and_loads_nothing_heavy(
    words: str, unwanted: tuple[str, ...], limit: float
) -> None:
    code = (
        "import sys, finbench.cli as c\n"
        f"sys.argv = ['finbench', *{words.split()}]\n"
        "try: c.main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {unwanted} if m in sys.modules])\n"
    )
    spent = []
    for _ in range(3):
        start = processor_time()  # of children too: a busy machine does not matter
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        spent.append(processor_time() - start)
    assert done.stdout.strip().endswith("[]")
    assert quick(min(spent), limit)


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
    older = (ROOT / "leaderboards" / "README.md").read_text(encoding="utf-8").rpartition("Of earlier versions")[2]
    for path in paths_found:
        card, rows = cardfiles.read(path), cardfiles.read_samples(path)
        part = card.limit or any(score.data.share for score in card.scores)
        assert card.status == ("partial" if part else "complete")
        assert len(rows) == sum(score.n for score in card.scores)
        for score in card.scores:
            own = [row for row in rows if row["task"] == score.task]
            if "acc" in score.metrics:
                assert score.metrics["acc"].value == pytest.approx(sum(row["values"]["acc"] for row in own) / score.n)
            task = catalog.tasks()[score.task]
            current = (score.version, score.task_digest) == (task.version, task.digest)
            # cards that hold too little to be scored anew are named where the cards are described
            assert current or (f"`{path.stem}`" in older and score.version < task.version), f"{path.name}: {score.task}"
            assert score.form == "choice" or not task.restricted or all("answer" not in row for row in own)


def test_recipes_state_only_what_differs() -> None:
    defaults = yaml.safe_load((paths.shipped("adapters_zoo") / "_defaults.yaml").read_text())
    for path in catalog.recipe_files().values():
        stated = yaml.safe_load(path.read_text())
        assert [key for key in stated if defaults.get(key) == stated[key]] == [], path.name


def test_every_public_function_says_what_it_is() -> None:
    silent = []
    for path in _modules().values():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.FunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                silent.append(f"{path.name}: {node.name}")
    assert silent == []


def test_no_pickle_and_no_stray_file_is_committed() -> None:
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    unsafe = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy")
    assert not [name for name in listed if name.endswith(unsafe)]  # what finbench would not load itself
    known = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md"}
    assert {name for name in listed if "/" not in name and not name.startswith(".")} == known | {
        "CITATION.cff",
        "hatch_build.py",
        "mkdocs.yml",
        "pyproject.toml",
    }
