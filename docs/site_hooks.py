"""What the site has besides the pages in docs/: a page per task, the Python API, the notebook, pages of the top folder.

mkdocs calls the functions ``on_*`` (mkdocs.yml names this file under ``hooks``). Nothing is written into docs/.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import finbench
from finbench.core import catalog, paths
from finbench.core.records import Task
from finbench.core.strict import Record
from finbench.evaluation import check

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import File, Files
    from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LOG = logging.getLogger("mkdocs.plugins.finbench")  # in this namespace --strict counts warnings

# Pages whose Markdown lies elsewhere in the repository.
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "leaderboard.md": "leaderboards/leaderboard.md",
}
# The public names of finbench by page.
API = {
    "train": ("Train", ("train", "tune", "plan", "sweep", "merge", "combine", "export", "pretrain")),
    "evaluate": ("Evaluate and serve", ("evaluate", "ask", "new_task", "include_tasks", "serve")),
    "cards": ("Compare, verify, report", ("compare", "verify", "report", "import_card", "export_card")),
    "risk": ("Risk", ("risk", "calibrate", "contextual", "robustness", "by_prompt", "by_year")),
    "publish": ("Data and the Hub", ("import_data", "check_data", "push", "pull")),
    "records": ("Records and errors", ("Recipe", "Adapter", "Subject", "Score", "Scorecard", "FinbenchError")),
}


# ---------------------------------------------------------------- mkdocs' events


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the nav, and every page that the nav forgot at the end of Reference."""
    assert config.nav is not None
    made = {
        "task/": ["task/index.md", *({title: pages} for title, pages in _task_nav())],
        "api/": ["api/index.md", *({title: f"api/{name}.md"} for name, (title, _) in API.items())],
    }
    config.nav = _filled(config.nav, made)
    named = set(_named(config.nav))
    forgotten = [path.name for path in sorted(DOCS.glob("*.md")) if path.name not in named]
    next(group["Reference"] for group in config.nav if "Reference" in group).extend(forgotten)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for name, text in {**_task_pages(), **_api_pages()}.items():
        files.append(File.generated(config, name, content=text))
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    board = ROOT / "leaderboards"
    shown = [board / name for name in ("index.html", "feed.atom", "leaderboard.csv", "leaderboard.json")]
    for path in (*shown, *(path for path in sorted((board / "page").rglob("*")) if path.is_file())):
        name = f"board/{path.relative_to(board).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for path in sorted(DOCS.glob("tutorials/*.ipynb")):
        name = path.relative_to(DOCS).with_suffix(".md").as_posix()
        page, pictures = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.stem)
        files.append(File.generated(config, name, content=page))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{picture}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that are right in the repository become links that are right on the site."""
    source = _source(page.file)
    return markdown if source is None else relinked(markdown, source, page.file.src_uri, config.repo_url or "")


# ---------------------------------------------------------------- links

_LINK = re.compile(r"(?P<before>!?\[[^\]]*\]\()(?!\w+:|#|/)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def relinked(markdown: str, source: Path, uri: str, repo_url: str) -> str:
    """The Markdown of the file ``source``, with its relative links as the page ``uri`` of the site needs them.

    Files that are not on the site are linked in the repository; where its address is not known (empty), they are only
    named. Fenced code is left as it is.
    """

    def moved(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(source.parent / match["target"]))
        inside, anchor = _on_site(path), match["anchor"] or ""
        if inside is None and (match["before"].startswith("!") or not path.exists()):
            why = "a picture has to lie in docs/" if path.exists() else "no such file"
            LOG.warning("%s: %s: %s", uri, why, match["target"])
        if inside is None:
            kind, where = "tree" if path.is_dir() else "blob", path.relative_to(ROOT).as_posix()
            if not repo_url:
                said = match["before"][1:-2]
                return said if where in said else f"{said} (`{where}`)"
            return f"{match['before']}{repo_url.rstrip('/')}/{kind}/main/{where}{anchor})"
        return f"{match['before']}{os.path.relpath(inside, os.path.dirname(uri) or '.')}{anchor})"

    return _outside_code(markdown, lambda text: _LINK.sub(moved, text))


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """``change`` applied to everything but fenced code."""
    return "".join(part if part.startswith("```") else change(part) for part in _FENCE.split(markdown))


def _source(file: File) -> Path | None:
    """The file in the repository that a page was written in; None for a generated page."""
    if file.src_uri in ELSEWHERE:
        return ROOT / ELSEWHERE[file.src_uri]
    return Path(file.abs_src_path) if file.abs_src_path and file.generated_by is None else None


def _on_site(path: Path) -> str | None:
    """Where a file of the repository is among the site's sources; None if it is not there."""
    for name, source in ELSEWHERE.items():
        if path == ROOT / source:
            return name
    if path == ROOT / "leaderboards" / "index.html":
        return "board/index.html"
    if not path.is_relative_to(DOCS) or path.suffix == ".py":
        return None
    return path.relative_to(DOCS).as_posix().replace(".ipynb", ".md")


# ---------------------------------------------------------------- nav


def _filled(nav: list[Any], made: dict[str, list[Any]]) -> list[Any]:
    """The nav with the lists of ``made`` in place of the names that stand for them."""
    filled = []
    for item in nav:
        if isinstance(item, dict):
            (title, value), *_ = item.items()
            value = _filled(value, made) if isinstance(value, list) else made.get(value, value)
            item = {title: value.replace(".ipynb", ".md") if isinstance(value, str) else value}
        filled.append(item)
    return filled


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(part)


# ---------------------------------------------------------------- a page per task


def _short(task: Task) -> str:
    return task.name.removeprefix(catalog.PREFIX)


def _families() -> dict[str, list[Task]]:
    """Tasks by the title of their family. The log-likelihood form of a task is shown on that task's page."""
    shown = [task for name, task in catalog.tasks().items() if not name.endswith("_mc")]
    families = dict.fromkeys([*catalog.FAMILIES, *(task.family for task in shown)])
    return {
        catalog.FAMILIES.get(family, family): own
        for family in families
        if (own := [task for task in shown if task.family == family])
    }


def _task_nav() -> Iterator[tuple[str, list[Any]]]:
    for title, tasks in _families().items():
        short = re.split(r"[:(,]| with | written ", title)[0].strip()  # the nav is narrow
        yield short, [{_short(task): f"task/{_short(task)}.md"} for task in tasks]


def _task_pages() -> dict[str, str]:
    pages = {f"task/{_short(task)}.md": "".join(_task_page(task)) for own in _families().values() for task in own}
    pages["task/index.md"] = "".join(_task_index())
    return pages


def _comment(task: Task) -> tuple[str, str]:
    """What a task asks, as the comment on top of its YAML says it, and what it says of lm-eval's options."""
    first = (paths.shipped("tasks") / f"{task.name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    said, _, option = first.lstrip("# ").partition(" --metadata ")
    return said, option


def _rows(task: Task) -> dict[str, int]:
    """Rows by split: of a shipped set those of its files, of others what was measured. Empty where nobody counted."""
    if task.shipped:
        found = paths.shipped("tasks") / "mini"
        files = {split: found / f"{task.set}.{split}.jsonl" for split in ("train", "validation", "test")}
        return {split: len(f.read_text(encoding="utf-8").splitlines()) for split, f in files.items() if f.is_file()}
    return dict(check.measured().get(task.set, {}).get("rows", {}))


def _sizes(task: Task) -> str:
    size = check.measured().get(task.set)
    rows = " / ".join(f"{count:,} {split}" for split, count in _rows(task).items())
    part = ", made of a part of the authors' files" if size and not size["complete"] else ""
    return (rows or "not counted, as the files were not available") + part


def _task_index() -> Iterator[str]:
    yield (
        "# Tasks\n\nEvery task is an ordinary lm-evaluation-harness task. finbench and stock `lm_eval` both run it.\n"
        "Each page shows the prompt, the sizes, the licence, and how to get the data.\n"
        "[Data sets](../tasks.md) lists what was corrected in which set.\n"
    )
    for title, tasks in _families().items():
        yield f"\n## {title}\n\n| task | what it asks | test rows | main metric |\n|--|--|--:|--|\n"
        for task in tasks:
            test = _rows(task).get("test")
            count = "not counted" if test is None else f"{test:,}"
            yield f"| [`{_short(task)}`]({_short(task)}.md) | {_comment(task)[0]} | {count} | `{task.main_metric}` |\n"


def _task_page(task: Task) -> Iterator[str]:
    short, (said, option) = _short(task), _comment(task)
    config = catalog.merged(paths.shipped("tasks") / f"{task.name}.yaml")
    others = [name for entry in config["metric_list"] if (name := entry["metric"]) != task.main_metric]
    forms = [other for name, other in catalog.tasks().items() if name.endswith("_mc") and other.set == task.set]
    forms = [other for other in forms if other.name.startswith(task.name + "_")]
    how = "the model generates text" if task.form == "generate" else "log-likelihood of the choices"
    facts = {
        "family": task.family,
        "answer": how,
        "labels": ", ".join(f"`{label}`" for label in task.labels or []) or "no fixed set",
        "main metric": f"`{task.main_metric}`",
        "other metrics": ", ".join(f"`{name}`" for name in others) or "none",
        "baselines": ", ".join(f"{key.replace('_', ' ')} {100 * v:.1f} %" for key, v in task.baselines.items()),
        "rows": _sizes(task),
        "licence": f"{task.licence}; texts {'are not' if task.restricted else 'may be'} published with results",
        "source": task.paper,
        "version": f"{task.version}, digest `{task.digest[:12]}`",
    }
    yield f"# `{short}`\n\n{said}\n\n| | |\n|--|--|\n"
    yield from (f"| {key} | {value} |\n" for key, value in facts.items())
    yield "\n## The prompt\n\nAs the model sees it, zero-shot, on invented rows. Below each stands the right answer.\n"
    golden = json.loads((paths.shipped("tasks") / "golden" / f"{task.name}.json").read_text(encoding="utf-8"))
    if golden["digest"] != task.digest:
        LOG.warning("%s: the golden prompts are of another version; run: finbench tasks check --write", task.name)
    for row, (prompt, answer) in zip(task.examples, golden["pairs"], strict=True):
        yield f"\n````{{ .text .prompt }}\n{prompt}\n````\n\n````{{ .text .answer }}\n{answer.strip()}\n````\n"
        if task.form == "choice":
            yield f"\nChoices: {', '.join(f'`{choice}`' for choice in row['choices'])}.\n"
    yield "\n## The data\n\n"
    if task.shipped:
        yield f"The rows ship with finbench. Split: {task.split}.\n"
    else:
        yield f"```sh\n{task.data}\n```\n\n"
        entry = paths.helper("sets").SETS.get(task.set)
        if entry is not None:
            hub = f"`{entry.hub.path}`" if entry.hub else "not there"
            yield f"- source: {entry.origin}; {entry.whole:,} rows in the authors' files\n- on the Hub: {hub}\n"
        yield f"- split: {task.split}\n"
        if entry is not None and entry.corrected:
            yield f"- corrected: {entry.corrected}\n"
        for why, count in check.measured().get(task.set, {}).get("dropped", {}).items():
            yield f"- left out: {count:,} ({why})\n"
    yield "\n## Run it\n\n```sh\n"
    yield f"finbench eval --model smollm2-135m --tasks {short}\n"
    yield f'lm_eval run --include_path "$(finbench tasks path)" --tasks {task.name} \\\n'
    yield "  --model hf --model_args pretrained=YOUR/MODEL\n```\n"
    if option:
        name, _, values = option.rstrip(".").partition(": ")
        yield f"\n`--metadata {name.removeprefix(catalog.PREFIX)}=N` chooses the rows, with N one of {values}.\n"
    if forms:
        yield "\nOther forms:\n\n"
        yield from (f"- `{_short(form)}`: {_comment(form)[0].removeprefix(catalog.PREFIX)}\n" for form in forms)


# ---------------------------------------------------------------- the API


def _api_pages() -> dict[str, str]:
    """A page per group: mkdocstrings fills it from the docstrings."""
    index = [
        "# Python\n\nThe main commands are functions too. `import finbench` is quick: it loads them on first use.\n"
    ]
    pages = {}
    for page, (title, names) in API.items():
        parts = [f"# {title}\n"]
        for name in names:
            options = {"heading": f"finbench.{name}", "toc_label": name}
            fields = _fields(name)
            if fields:  # a record: its table says more than a list of attributes
                options |= {"members": False, "show_bases": False}
            shown = yaml.safe_dump({"options": options}, sort_keys=False)
            parts.append(f"\n::: finbench.{name}\n" + "".join(f"    {line}\n" for line in shown.splitlines()) + fields)
        pages[f"api/{page}.md"] = "".join(parts)
        names_shown = ", ".join(f"[`{name}`]({page}.md#finbench.{name})" for name in names)
        index.append(f"\n**[{title}]({page}.md)**: {names_shown}\n")
    return {**pages, "api/index.md": "".join(index)}


def _fields(name: str) -> str:
    """The fields of a record as a table; empty for what is no record."""
    record = getattr(finbench, name)
    if not (isinstance(record, type) and issubclass(record, Record)):
        return ""
    rows = ["\n| field | type | meaning |\n|--|--|--|\n"]
    for key, field in record.model_fields.items():
        kind = record.__annotations__.get(key) or getattr(field.annotation, "__name__", field.annotation)
        default = "" if field.is_required() else f" (default `{field.get_default(call_default_factory=True)!r}`)"
        rows.append(f"| `{field.alias or key}` | `{kind}` | {field.description or ''}{default} |\n")
    return "".join(rows)


# ---------------------------------------------------------------- notebooks


def notebook_page(notebook: dict[str, Any], stem: str) -> tuple[str, dict[str, str | bytes]]:
    """An executed notebook as Markdown, and its pictures by file name."""
    parts, pictures = [], {}
    for number, cell in enumerate(notebook["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", [])})
            if "image/svg+xml" in data:
                name = f"{stem}-{number}.svg"
                pictures[name] = "".join(data["image/svg+xml"])
                parts.append(f"![The figure that the cell above draws]({name})")
            elif "image/png" in data:
                name = f"{stem}-{number}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![The figure that the cell above draws]({name})")
            elif "text/markdown" in data:
                parts.append("".join(data["text/markdown"]))
            else:
                parts.append("```{ .text .output }\n" + "".join(data["text/plain"]).rstrip() + "\n```")
    return "\n\n".join(parts) + f"\n\n[The notebook]({stem}.ipynb)\n", pictures
