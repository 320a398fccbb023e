"""The documentation site's own pages (docs/site_hooks.py). `make docs` builds the whole of it with --strict."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import finbench
from finbench.core import catalog, paths

ROOT = Path(finbench.__file__).parents[1]


@pytest.fixture(scope="module")
def hooks() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))


def test_every_task_has_a_page_with_its_prompt_licence_and_commands(hooks: dict[str, Any]) -> None:
    pages = hooks["_task_pages"]()
    for name, task in catalog.tasks().items():
        if name.endswith("_mc"):
            continue
        page = pages[f"task/{name.removeprefix('finbench_')}.md"]
        golden = json.loads((paths.shipped("tasks") / "golden" / f"{name}.json").read_text(encoding="utf-8"))
        assert len(golden["pairs"]) >= 3
        for prompt, answer in golden["pairs"]:
            assert f"\n{prompt}\n" in page
            assert f"\n{answer.strip()}\n" in page
        assert task.licence in page
        assert task.paper in page
        assert f"--tasks {name} " in page
        assert task.shipped or task.data in page
        assert f"]({name.removeprefix('finbench_')}.md)" in pages["task/index.md"]
    assert "2,506 train / 367 validation / 723 test, made of a part of the authors' files" in pages["task/fpb.md"]
    assert "600 train / 150 test" in pages["task/mini_sentiment.md"]
    assert "--metadata agreement=N" in pages["task/fpb.md"]
    assert "`fpb_mc`" in pages["task/fpb.md"]


def test_every_log_likelihood_form_is_on_the_page_of_its_task(hooks: dict[str, Any]) -> None:
    pages = "".join(hooks["_task_pages"]().values())
    forms = [name.removeprefix("finbench_") for name in catalog.tasks() if name.endswith("_mc")]
    assert forms
    assert [form for form in forms if f"- `{form}`" not in pages] == []


def test_every_public_name_is_on_a_page_of_the_api(hooks: dict[str, Any]) -> None:
    shown = {name for _, names in hooks["API"].values() for name in names}
    assert shown == set(finbench.__all__) - {"__version__"}
    pages = "".join(hooks["_api_pages"]().values())
    assert [name for name in sorted(shown) if f"::: finbench.{name}\n" not in pages] == []


@pytest.mark.parametrize(
    ("uri", "source", "link", "becomes"),
    [
        ("hub.md", "docs/hub.md", "[s](../SECURITY.md)", "[s](security.md)"),
        ("security.md", "SECURITY.md", "[x](docs/xbrl.md#rules)", "[x](xbrl.md#rules)"),
        ("sweep.md", "docs/sweep.md", "[e](../examples)", "[e](https://a.b/c/tree/main/examples)"),
        ("a.md", "docs/a.md", "[e](../examples/slurm.sh)", "[e](https://a.b/c/blob/main/examples/slurm.sh)"),
        ("tutorials/t.md", "docs/tutorials/t.md", "[i](../index.md)", "[i](../index.md)"),
        ("a.md", "docs/a.md", "[h](https://x.y/z.md) [i](#here)", "[h](https://x.y/z.md) [i](#here)"),
        ("a.md", "docs/a.md", "```\n[s](../SECURITY.md)\n```", "```\n[s](../SECURITY.md)\n```"),
        ("a.md", "docs/a.md", "![p](leaderboard.png)", "![p](leaderboard.png)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(
    hooks: dict[str, Any], uri: str, source: str, link: str, becomes: str
) -> None:
    assert hooks["relinked"](link, ROOT / source, uri, "https://a.b/c/") == becomes


def test_what_a_page_cannot_show_is_told(hooks: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    text = "![a](../README.md) ![b](../none.png) [c](../none.md)"
    hooks["relinked"](text, ROOT / "docs/a.md", "a.md", "")
    assert [record.getMessage() for record in caplog.records] == [
        "a.md: a picture has to lie in docs/: ../README.md",
        "a.md: no such file: ../none.png",
        "a.md: no such file: ../none.md",
    ]


def test_where_the_address_of_the_repository_is_not_known_files_of_it_are_named(hooks: dict[str, Any]) -> None:
    text = (
        "[e](../examples/slurm.sh), [CONTRIBUTING.md](../tests/conftest.py), [examples/slurm.sh](../examples/slurm.sh)"
    )
    assert hooks["relinked"](text, ROOT / "docs/a.md", "a.md", "") == (
        "e (`examples/slurm.sh`), CONTRIBUTING.md (`tests/conftest.py`), examples/slurm.sh"
    )


def test_no_address_of_the_project_is_made_up() -> None:
    listed = subprocess.run(["git", "grep", "-lI", "finbench"], cwd=ROOT, capture_output=True, text=True, check=True)
    host = re.compile(
        r"(github\.com|gitlab\.com|codeberg\.org|readthedocs\.(io|org)|pypi\.org/project|zenodo\.org/records?)/[^\s\"')>]*"
        r"finbench|[\w-]+\.github\.io|finbench\.(readthedocs|org|io|ai|dev|com)\b",
        re.IGNORECASE,
    )
    found = {
        f"{name}: {match[0]}"
        for name in listed.stdout.splitlines()
        if not name.startswith("tests/")
        for match in host.finditer((ROOT / name).read_text(encoding="utf-8", errors="replace"))
    }
    assert found == set()


def test_a_link_to_nothing_is_a_warning_which_strict_refuses(
    hooks: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    hooks["relinked"]("[x](../no-such-file.md)", ROOT / "docs" / "hub.md", "hub.md", "https://a.b/c")
    assert "no such file: ../no-such-file.md" in caplog.text


def test_a_page_that_the_nav_forgot_is_put_into_it(hooks: dict[str, Any], tmp_path: Path) -> None:
    class Config(dict[str, Any]):
        nav: Any = None

    config = Config()
    config.nav = [{"Start": ["index.md"]}, {"Data": [{"Tasks": "task/"}]}, {"Reference": [{"Python": "api/"}]}]
    nav = hooks["on_config"](config).nav
    assert "hub.md" in nav[2]["Reference"]
    assert {"Sentiment": [{"fpb": "task/fpb.md"}]} not in nav
    assert nav[1]["Data"][0]["Tasks"][0] == "task/index.md"


def test_the_nav_names_only_pages_that_exist(hooks: dict[str, Any]) -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("!ENV", "")
    made = {*hooks["ELSEWHERE"], "task/", "api/"}
    named = set(hooks["_named"](yaml.safe_load(text)["nav"]))
    assert [name for name in named - made if not (ROOT / "docs" / name).is_file()] == []


def test_a_notebook_becomes_a_page_with_its_outputs(hooks: dict[str, Any]) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": "print(1)",
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "display_data", "data": {"image/svg+xml": ["<svg/>"], "text/plain": "<SVG>"}},
            ],
        },
    ]
    page, pictures = hooks["notebook_page"]({"cells": cells}, "own")
    assert "# Title\ntext" in page
    assert "```python\nprint(1)\n```" in page
    assert "```{ .text .output }\n1\n```" in page
    assert "(own-1.svg)" in page
    assert pictures == {"own-1.svg": "<svg/>"}
