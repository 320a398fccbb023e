"""What the workflows of a leaderboard run, on a clone; and builds that are killed, or two at once in one folder."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import boards
from finbench import leaderboard
from finbench.cli.app import app
from finbench.leaderboard import building, precedence

ROOT = Path(__file__).parent.parent
board_scale = boards.benchmark()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of its own, and a name for commits."""
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\nname = t\nemail = t@example.org\n[init]\ndefaultBranch = main\n")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository with a leaderboard of three subjects, and no pages yet."""
    work = tmp_path / "work"
    board_scale.make(work / "leaderboards", 3, 1, 40)
    (work / "leaderboards.truth.json").unlink()
    git(work, "init", "-q"), git(work, "add", "."), git(work, "commit", "-qm", "cards")
    git(tmp_path, "clone", "-q", "--bare", "work", "origin.git")
    return tmp_path / "origin.git"


def git(place: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=place, check=True, capture_output=True, text=True).stdout


def steps(job: str) -> list[str]:
    """The commands of a job of the workflow, without those that install."""
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "leaderboard.yml").read_text())
    found = [step["run"] for step in flow["jobs"][job]["steps"] if "run" in step]
    return [run for run in found if not run.startswith("pip ")]


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_workflows_commands_take_a_pull_request_and_build_what_is_merged(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written, in order, on clones: review and build of the request, then build and push on main."""
    git(tmp_path, "clone", "-q", "origin.git", "main"), git(tmp_path, "clone", "-q", "origin.git", "pr")
    folder = tmp_path / "pr" / "leaderboards"
    who = board_scale.Subject("newcomer", "stranger", 9.0, 0, "newcomer", None)
    precedence.arrived(folder, [board_scale.Maker(1, 40, 0).write(folder, who, 9)])
    git(tmp_path / "pr", "add", "."), git(tmp_path / "pr", "commit", "-qm", "a card")

    def run(command: str, where: Path) -> None:
        monkeypatch.chdir(where)
        if command.startswith("finbench "):
            found = CliRunner().invoke(app, shlex.split(command)[1:])
            assert found.exit_code == 0, found.output
        elif "${{" not in command:
            subprocess.run(["bash", "-e", "-c", command], cwd=where, check=True, capture_output=True)

    commands = steps("review")
    assert [command.split()[2] for command in commands if command.startswith("finbench")] == ["review", "build"]
    for command in commands:
        run(command, tmp_path)
    assert "| `newcomer` | `" in (tmp_path / "comment.md").read_text()
    git(tmp_path / "pr", "push", "-q", "origin", "HEAD:main")
    git(tmp_path / "main", "pull", "-q")
    for command in steps("build"):
        run(command, tmp_path / "main")
    pushed = git(origin, "ls-tree", "-r", "--name-only", "main")
    assert "leaderboards/index.html" in pushed
    assert "newcomer" in git(origin, "show", "main:leaderboards/leaderboard.md")


def forked(work: Callable[[], Any]) -> int:
    """Start ``work`` in a process of its own; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def test_a_build_that_is_killed_leaves_nothing_that_the_next_does_not_mend(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, clean = tmp_path / "work" / "leaderboards", tmp_path / "clean"
    shutil.copytree(place, clean)
    leaderboard.build(clean)
    write, written = building.write_atomic, []

    def until_killed(path: Path, data: Any) -> None:
        written.append(path)
        if len(written) == 8:
            for torn in (path.with_name(f".{path.name}.abcdefgh"), place / ".leaderboard.csv.abcdefgh"):
                torn.write_bytes(data if isinstance(data, bytes) else data.encode())  # a file that it was writing
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)

    def work() -> None:
        monkeypatch.setattr(building, "write_atomic", until_killed)
        leaderboard.build(place)

    _, status = os.waitpid(forked(work), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (place / "page" / "compare.html").exists()
    leaderboard.build(place)
    assert tree(place) == tree(clean)


def test_two_builds_at_once_in_one_folder_give_what_one_gives(origin: Path, tmp_path: Path) -> None:
    place, clean = tmp_path / "work" / "leaderboards", tmp_path / "clean"
    shutil.copytree(place, clean)
    leaderboard.build(clean)
    children = [forked(lambda: leaderboard.build(place)) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert tree(place) == tree(clean)
