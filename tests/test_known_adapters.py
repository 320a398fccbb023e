"""Adapters of others, by the files of the zoo: what each needs to be scored here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finbench.cli.app import app
from finbench.core import catalog, refs
from finbench.core.errors import FinbenchError
from finbench.models import adapters, zoo

PAGE = (Path(__file__).parent.parent / "docs" / "known-adapters.md").read_text(encoding="utf-8")
KNOWN = zoo.known_adapters()


def test_there_are_twenty_and_the_page_names_them_all() -> None:
    assert len(KNOWN) == 20
    assert not KNOWN.keys() & {*zoo.entries(), *catalog.recipe_files()}  # `zoo show NAME` means one thing
    named = set(re.findall(r"^\| `([^`]+)` \|.*\|.*\|.*\|$", PAGE.partition("## In their")[0], re.MULTILINE))
    assert named == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_each_says_what_it_needs_or_why_it_is_not_scored(name: str) -> None:
    one = KNOWN[name]
    assert (one.hub is None) != (one.git is None)
    assert (one.hub or one.git or "").rpartition("/")[2] in PAGE
    assert bool(one.commands) == (one.refused is None)
    for blank in re.findall(r"\b[A-Z]{3,}\b(?=/| )", " ".join(one.commands) + " "):
        assert blank in (one.note or "")  # what to put there
    if one.refused is None:
        tasks = catalog.expand(one.tasks)
        labels = {label for task in tasks for label in task.labels or ()}
        assert labels <= set(one.words) or "finlora" in one.tasks  # its words are the tasks' own
        words = shlex.split(one.commands[-1])
        base = words[words.index("--base") + 1]
        assert base in catalog.bases() or refs.parse(base).kind == "hub"
        if one.hub and not one.pickled:
            assert refs.parse(words[words.index("--adapter") + 1]).name == one.hub


def test_the_zoo_lists_and_shows_them() -> None:
    listed = CliRunner().invoke(app, ["zoo", "list", "--json"], catch_exceptions=False).output
    assert json.loads(listed)["others"].keys() == KNOWN.keys()
    assert "fingpt-mt-llama3-8b" in CliRunner().invoke(app, ["zoo", "list"], catch_exceptions=False).output
    shown = CliRunner().invoke(app, ["zoo", "show", "fingpt-mt-llama2-7b-fiqa-qa"], catch_exceptions=False).output
    assert "--convert --out ./fingpt-mt-llama2-7b-fiqa-qa" in shown
    assert "--base llama-2-7b --no-chat --tasks fingpt" in shown
    named = CliRunner().invoke(app, ["zoo", "show", "zoo:fingpt-mt-llama2-7b"], catch_exceptions=False).output
    assert "--base llama-2-7b --no-chat --tasks fingpt" in named


def test_one_that_is_asked_for_as_if_it_were_pinned_says_what_it_needs() -> None:
    with pytest.raises(FinbenchError, match="of others, which is not pinned here") as fault:
        zoo.published("fingpt-mt-llama2-7b")
    assert "finbench zoo show fingpt-mt-llama2-7b" in fault.value.hint


@pytest.mark.parametrize(
    "typed",
    [
        *("pull NAME --out out", "pull zoo:NAME --out out", "pull NAME --convert --out out"),
        *("pull zoo:NAME --convert --out out", "eval --adapter NAME --tasks mini_sentiment", "merge NAME --out out"),
        *("export NAME --out out", "serve --adapter NAME"),
    ],
)
def test_every_command_leads_from_its_name_to_what_it_needs(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FinbenchError, match="^fingpt-mt-llama2-7b is an adapter of others") as fault:
        CliRunner().invoke(
            app, typed.replace("NAME", "fingpt-mt-llama2-7b").split(), catch_exceptions=False, standalone_mode=False
        )
    assert fault.value.hint == "What it needs: finbench zoo show fingpt-mt-llama2-7b"
    with pytest.raises(FinbenchError, match="Did you mean .*fingpt-mt-llama2-7b"):
        zoo.published("fingpt-mt-lama2-7b")


def test_the_name_of_a_pinned_one_leads_to_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zoo.yaml").write_text(f"mine: {{hub: org/a@{'0' * 40}, adapter: '0', bytes: 1}}\n")
    monkeypatch.setenv("FINBENCH_ZOO", str(tmp_path / "zoo.yaml"))
    with pytest.raises(FinbenchError, match="^mine is an adapter of the zoo") as fault:
        adapters.find("mine")
    assert fault.value.hint == "zoo:mine"


def test_a_zoo_entry_is_pinned_to_a_commit_not_to_a_branch_as_long() -> None:
    entry = zoo.ZooEntry(name="a", hub=f"org/a@{'z' * 40}", adapter="0", bytes=1)
    with pytest.raises(FinbenchError, match="not pinned to a commit"):
        _ = entry.ref
    assert entry.model_copy(update={"hub": f"org/a@{'0' * 40}"}).ref.pinned
