"""Documents are true: commands exist, tables are those of committed results, lines are short, links resolve."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import finbench
from finbench.cli import app
from finbench.core.prose import wrapped

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ("leaderboards/scorecards/", "tests/golden/")  # what programs wrote, not prose
LONGEST = 100  # characters of a line of prose


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if not name.startswith(RESULTS)]


PAGES = _tracked()


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines, by number, that are in no fence."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- form


def test_the_readme_is_short() -> None:
    lines = _read("README.md").splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > LONGEST] == []


@pytest.mark.parametrize("name", PAGES)
def test_lines_of_prose_are_short(name: str) -> None:
    long = []
    for number, line in _prose(_read(name)):
        said = re.sub(r"https?://\S+", "", line)
        if len(said) > LONGEST and not said.lstrip().startswith(("|", "<!--")):
            long.append(f"{name}:{number}: {len(said)} characters")
    assert long == []


def test_wrapping_keeps_words_tables_and_fences() -> None:
    word = "word " * 30
    page = f"# {word}\n\n- {word}\n  {word}\n\n| {word} |\n\n```\n{word}\n```\n\n1. {word}\nshort\n\nshort\nlines\n"
    made = wrapped(page)
    assert made.split() == page.split()
    assert wrapped(made) == made
    assert [line for line in made.splitlines() if len(line) > LONGEST] == [f"# {word}", f"| {word} |", word]
    assert "\n\nshort\nlines\n" in made
    signs = wrapped("a " * 49 + "- b + 1. c " + "d " * 40)
    assert all(not re.match(r"[-+]|\d\.", line) for line in signs.splitlines())


# ---------------------------------------------------------------- links


def _targets(text: str) -> Iterator[str]:
    for _, line in _prose(text):
        bare = re.sub(r"`[^`]*`", "", line)
        yield from re.findall(r"\]\(([^)\s]+)\)", bare)
        yield from re.findall(r"^\[[^\]]+\]: (\S+)", bare)
        yield from re.findall(r"""(?:href|src)=["']([^"']+)["']""", bare)


def _anchors(text: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    found: set[str] = set()
    for _, line in _prose(text):
        if heading := re.match(r"#+\s+(.*)", line):
            shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
            again = sum(1 for known in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", known))
            found.add(f"{slug}-{again}" if again else slug)
        found |= set(re.findall(r"""\bid=["']([^"']+)["']""", line))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(name: str) -> None:
    text, wrong = _read(name), []
    for target in _targets(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file, _, anchor = target.partition("#")
        if re.search(r"(^|/)(task|api)/[\w-]+\.md$", file):
            continue  # made by docs/site_hooks.py when the site is built, which fails on a link to nowhere
        path = ((ROOT / name).parent / file).resolve() if file else ROOT / name
        if not path.exists():
            wrong.append(f"{target}: no such file")
        elif anchor and path.suffix == ".md" and anchor not in _anchors(path.read_text(encoding="utf-8")):
            wrong.append(f"{target}: no such heading")
    assert wrong == []


def test_anchors_are_those_of_github() -> None:
    text = "# The rules\n## `finbench plan`: what it needs\n## [A](b.md) and C_d\n## The rules\n"
    assert _anchors(text) == {"the-rules", "finbench-plan-what-it-needs", "a-and-c_d", "the-rules-1"}


@pytest.mark.parametrize("name", PAGES)
def test_scripts_that_are_named_exist(name: str) -> None:
    named = re.findall(r"\b((?:benchmarks|docs|examples|finbench|tests)/[\w/-]+\.(?:py|sh))\b", _read(name))
    assert [path for path in dict.fromkeys(named) if not (ROOT / path).is_file()] == []


# ---------------------------------------------------------------- commands


def test_every_command_in_the_documents_exists() -> None:
    called: dict[str, str] = {}
    for name in PAGES:
        text = _read(name)
        fences = "\n".join(re.findall(r"^ *```\w*$(.*?)^ *```$", text, re.MULTILINE | re.DOTALL))
        found = re.findall(r"^ *(?:\$ |\.venv/bin/)?finbench ([a-z][a-z-]+)", fences, re.MULTILINE)
        called |= dict.fromkeys([*found, *re.findall(r"`finbench ([a-z][a-z-]+)", text)], name)
    done = subprocess.run([sys.executable, "-m", "finbench", "--help"], capture_output=True, text=True, check=True)
    offered = set(re.findall(r"^│ ([a-z][a-z-]+)\b", done.stdout, re.MULTILINE))
    assert {"train", "eval", "data", "lm-eval"} <= set(called) & offered
    assert {command: name for command, name in called.items() if command not in offered} == {}
    page = _read("docs/commands.md")
    assert [command for command in sorted(offered) if not re.search(rf"`(finbench )?{command}\b", page)] == []
    inside = [(group, name) for group, (_, members) in app._GROUPS.items() for name in members if name != "run"]
    assert ("card", "years") in inside
    rows = "\n".join(line for line in page.splitlines() if line.startswith("| `finbench "))
    assert [one for one in inside if not re.search(rf"`finbench {one[0]} [^|]*\b{one[1]}\b", rows)] == []


# ---------------------------------------------------------------- results


def _printed(script: str, what: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / script), what]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_table_of_the_readme_is_what_the_terminal_shows() -> None:
    shown = _printed("fpb_smollm2.py", "terminal").rstrip()
    assert len(shown.splitlines()) == 7
    assert f"\n{shown}\n```" in _read("README.md")


def test_the_results_of_the_quickstart_are_those_of_the_committed_scorecards() -> None:
    lines = [line for line in _printed("fpb_smollm2.py", "table").splitlines() if line.startswith("|")]
    assert len(lines) > 5
    assert "\n".join(lines) in _read("docs/quickstart.md")


def test_the_page_of_the_suite_is_that_of_the_committed_scorecards() -> None:
    suite = runpy.run_path(str(ROOT / "benchmarks" / "suite_smollm2.py"))
    assert _read("docs/suite.md") == suite["page"]()


def test_the_tables_of_statistics_are_those_of_the_committed_simulation() -> None:
    intervals = runpy.run_path(str(ROOT / "benchmarks" / "intervals.py"))
    shown = _read("docs/statistics.md")
    assert shown == intervals["page"](json.loads(_read("benchmarks/intervals.json")), shown)


def test_the_page_of_speed_is_that_of_the_committed_measurement() -> None:
    bench = runpy.run_path(str(ROOT / "benchmarks" / "eval_cpu.py"))
    assert _read("docs/speed.md") == bench["page"](json.loads(_read("benchmarks/eval_cpu.json")))


def test_the_page_of_long_reports_is_that_of_the_committed_count_over_the_rows_of_today(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    counted = json.loads(_read("benchmarks/reports_cpu.json"))
    bench = runpy.run_path(str(ROOT / "benchmarks" / "reports_cpu.py"))
    assert _read("docs/reports-speed.md") == bench["page"](counted)
    numeric = _read("docs/numeric.md")
    for row in counted["count"]:
        assert f"\n| {row['task']} | {row['rows']:,} |" in numeric  # the rows that are attacked there


def test_pages_have_what_was_measured_on_gpus_or_say_that_nobody_did() -> None:
    for path, text in runpy.run_path(str(ROOT / "benchmarks" / "gpu_check.py"))["pages"]().items():
        assert path.read_text() == text, "run: python benchmarks/gpu_check.py page"


@pytest.mark.slow
def test_the_plan_beside_published_trainings_is_the_page_s() -> None:
    bench = runpy.run_path(str(ROOT / "benchmarks" / "plan_points.py"))
    page = _read("docs/training.md")
    assert bench["filled"](page) == page


def test_the_figures_of_vllm_are_those_of_the_committed_measurement() -> None:
    bench = runpy.run_path(str(ROOT / "benchmarks" / "eval_vllm.py"))
    begin, end = bench["MARKS"]
    made = bench["page"](json.loads(_read("benchmarks/eval_vllm.json")))
    assert f"{begin}\n{made}\n{end}" in _read("docs/vllm.md")


def test_a_release_has_one_version_everywhere() -> None:
    version = finbench.__version__
    stated = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    assert (stated["version"], zenodo["version"]) == (version, version)
    assert f"## [{version}] - {stated['date-released']}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"finbench, version {version}." in (ROOT / "README.md").read_text()
    creators = [one["name"] for one in zenodo["creators"]]
    assert creators == [one["name"] for one in stated["authors"]]


def test_every_promise_of_security_names_rows_that_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the tables of faults are those of the counts that were kept."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    faults = runpy.run_path(str(ROOT / "benchmarks" / "faults.py"))
    promised = _read("SECURITY.md").partition("## What is promised")[2].partition("\n## ")[0]
    promises = re.split(r"(?m)^- (?=\*\*)", promised)[1:]
    assert len(promises) > 10
    shown = _read("docs/reliability.md").partition(faults["START"])[2].partition(faults["END"])[0]
    for promise in promises:
        named = re.search(r"\*Rows: (.+?)\.\*", promise, re.DOTALL)
        assert named, promise.splitlines()[0]
        for row in re.split(r";\s+", named[1]):
            assert f"| {row} " in shown, row
    assert shown.strip() == faults["tables"](json.loads(_read("benchmarks/faults.json"))).strip()


def test_every_word_that_chooses_tests_of_a_row_of_faults_chooses_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is renamed would leave its row in silence, and the row would go on to promise what it showed."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    faults = runpy.run_path(str(ROOT / "benchmarks" / "faults.py"))
    for row, (chosen, files) in faults["TESTS"].items():
        tests = {}
        for file, _, only in (file.partition("::") for file in files):
            tests[file] = [file, *re.findall(r"(?m)^def (test_\w+)", _read(file))]
            assert not only or only in tests[file], f"{row}: there is no {only}"
        words = chosen.split(" or ")
        for word in words:
            assert any(word in name for names in tests.values() for name in names), f"{row}: no test has {word}"
        for file, names in tests.items():
            assert any(word in name for word in words for name in names), f"{row}: no word chooses one of {file}"
