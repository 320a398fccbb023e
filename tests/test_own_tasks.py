"""Benchmarks of others: known everywhere, never ranked; code in them is shown, and runs only when it is trusted."""

from __future__ import annotations

import contextlib
import json
import os
import py_compile
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_new_task import sentences, table

import finbench
from conftest import processor_time, quick
from finbench.cards import cardfiles, compare, report
from finbench.core import catalog, owntasks, paths, taskcode, templates
from finbench.core.errors import FinbenchError
from finbench.core.records import Overlap
from finbench.evaluation import evaluate, import_card, verify
from finbench.leaderboard import intake
from finbench.models import bases
from finbench.publishing import push
from finbench.scoring import foreign, prompts
from finbench.training import recipes, runner

ROWS = [{"q": f"Is {n} even?", "a": "yes" if n % 2 == 0 else "no"} for n in range(24)]
PLAIN: dict[str, Any] = {
    "task": "parity",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "test": "test.jsonl"}},
    "training_split": "train",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{q}}\nAnswer:",
    "doc_to_target": "a",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match"}],
    "metadata": {"version": 2.0},
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that code of a stranger would make, named to it by the environment."""
    path = tmp_path / "CANARY"
    monkeypatch.setenv("CANARY", str(path))
    yield path
    assert not path.exists()


EVIL = "import os\nopen(os.environ['CANARY'], 'w').close()\n\ndef f(*a, **k):\n    return 'x'\n"


def made(folder: Path, **changed: Any) -> Path:
    """A folder with one plain task of lm-eval, as anybody would write it; None takes a key away."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**PLAIN, **changed}.items() if value is not None}
    text = yaml.safe_dump(config, sort_keys=False).replace("'!!f ", "!function ").replace("!!f'", "")
    (folder / "parity.yaml").write_text(text)
    for split, rows in (("train", ROWS[:12]), ("test", ROWS[12:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def function(name: str) -> str:
    return f"!!f {name}!!f"


# ---------------------------------------------------------------- a plain folder


def test_a_plain_folder_is_scored_compared_verified_and_reported_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder = made(tmp_path / "parity")
    cards = evaluate(tasks=str(folder), engine="dummy", out=tmp_path / "a")
    evaluate(tasks=str(folder), engine="dummy", seed=1, out=tmp_path / "b")
    [score] = cards[0].scores
    assert (score.task, score.family, score.n, score.data.origin) == ("parity", "own", 12, "own")
    assert score.main_metric == "exact_match"
    assert score.task_digest == catalog.tasks()["parity"].digest
    gold = evaluate(tasks=str(folder), engine="dummy", arguments={"answers": "gold"}, out=tmp_path / "gold")
    assert gold[0].scores[0].main.value == 1.0
    path = tmp_path / "a" / "dummy.json"
    assert verify(path).level == "samples-attached"
    [pair] = compare([path, tmp_path / "b" / "dummy.json"])
    assert pair.contests[0].task == "parity"
    assert "parity, exact match" in report([path])
    monkeypatch.chdir(folder)  # stock lm-eval looks for data files from where one stands
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    stock = simple_evaluate("dummy", tasks=["parity"], task_manager=manager, bootstrap_iters=0)
    assert stock["n-samples"]["parity"]["effective"] == 12


def test_a_card_finds_its_folder_by_digest_and_says_what_to_type_where_it_is_gone(tmp_path: Path) -> None:
    folder = made(tmp_path / "parity")
    evaluate(tasks=str(folder), engine="dummy", out=tmp_path / "cards")
    card = tmp_path / "cards" / "dummy.json"
    catalog.forget()
    os.environ[catalog.VARIABLE] = ""
    assert verify(card).level == "samples-attached"  # remembered
    catalog.forget()
    os.environ[catalog.VARIABLE] = ""
    evaluate(tasks="mini_sentiment", engine="dummy", limit=4, out=tmp_path / "cards")  # its report shows both
    evaluate(tasks="mini_sentiment", engine="dummy", seed=1, limit=4, out=tmp_path / "cards")
    assert "parity" in report([tmp_path / "cards"])
    catalog.forget()
    os.environ[catalog.VARIABLE] = ""
    made(folder, doc_to_text="{{q}} Say:")  # another benchmark now
    with pytest.raises(FinbenchError, match="parity is no task of this finbench") as caught:
        verify(card)
    assert "--include-path DIR" in caught.value.hint
    catalog.include_tasks(folder)
    assert [fault.field for fault in verify(card).faults] == ["scores[parity].task_digest"]


def test_own_cards_never_reach_the_leaderboard_whatever_they_call_themselves(tmp_path: Path) -> None:
    folder = made(tmp_path / "parity", metadata={"version": 1, "finbench_family": "sentiment"})
    evaluate(tasks=str(folder), engine="dummy", out=tmp_path / "cards")
    assert any("parity is no task of finbench" in fault for fault in intake.check(tmp_path / "cards" / "dummy.json"))
    evaluate(tasks=f"{folder},mini_sentiment", engine="dummy", out=tmp_path / "mixed")
    assert any("parity is no task" in fault for fault in intake.check(tmp_path / "mixed" / "dummy.json"))
    path = tmp_path / "cards" / "dummy.json"
    forged = json.loads(path.read_text())
    forged["scores"][0]["family"] = "sentiment"
    card = type(cardfiles.read(path)).parse(forged, "forged")
    cardfiles.write(path, card, cardfiles.read_samples(path))
    assert "scores[parity].family" in [fault.field for fault in verify(path).faults]


def test_names_of_finbench_are_not_taken_and_a_group_of_a_folder_works(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="fpb is the name of a task of finbench"):
        catalog.include_tasks(made(tmp_path / "one", task="fpb"))
    folder = made(tmp_path / "two")
    (folder / "all.yaml").write_text("group: all_own\ntask: [parity]\n")
    catalog.include_tasks(folder)
    assert [task.name for task in catalog.expand(["all_own"])] == ["parity"]
    (folder / "all.yaml").write_text("group: all_own\ntask: [all_own]\n")
    catalog.include_tasks(folder)
    with pytest.raises(FinbenchError, match="or the group itself"):
        catalog.expand(["all_own"])
    with pytest.raises(FinbenchError, match="No such folder of tasks"):
        catalog.expand(["./nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FinbenchError, match="holds no task of lm-eval"):
        catalog.expand([str(tmp_path / "empty")])


def test_folders_come_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [made(tmp_path / "one"), made(tmp_path / "two", task="parity2")]
    monkeypatch.setenv(catalog.VARIABLE, os.pathsep.join(map(str, folders)))
    catalog.tasks.cache_clear()
    catalog.groups.cache_clear()
    assert {"parity", "parity2"} <= set(catalog.tasks())
    assert recipes.recipe(None, {"tasks": ["parity:0.5"]}).tasks == {"parity": 0.5}


def test_the_weight_of_a_path_and_of_lm_evals_task_is_told_from_its_name(tmp_path: Path) -> None:
    folder = made(tmp_path / "parity")
    assert recipes.recipe(None, {"tasks": [f"{folder}:0.5"]}).tasks == {"parity": 0.5}
    assert recipes.recipe(None, {"tasks": ["lm_eval:boolq:0.25"]}).tasks == {"lm_eval:boolq": 0.25}


def test_worked_examples_never_come_from_the_test(tmp_path: Path) -> None:
    folder = made(tmp_path / "parity", training_split="test", fewshot_split="test")
    with pytest.raises(FinbenchError, match="no split for worked examples"):
        evaluate(tasks=str(folder), engine="dummy", shots=2, out=tmp_path / "cards")
    lm_task = prompts.load(catalog.expand(["parity"]), None)["parity"]
    assert prompts.rows(lm_task, "train") == []
    assert len(prompts.rows(lm_task, "test")) == 12


EXAMPLES: dict[str, tuple[dict[str, Any], str]] = {  # what a file says of worked examples, and where they come from
    "a split of their own": ({"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}}, "dev"),
    "said beside the sampler": ({"fewshot_config": {"split": "dev", "sampler": "first_n"}}, "dev"),
    "train, unsaid": ({"training_split": "train"}, "train"),
    "train, beside what is asked": (
        {"training_split": "train", "test_split": None, "validation_split": "dev"},
        "train",
    ),
    "validation, unsaid": ({"validation_split": "dev"}, "dev"),
    "listed": (
        {"fewshot_config": {"sampler": "first_n", "samples": [{"q": "Is 7 odd?", "a": "yes"}, {"q": "8?", "a": "no"}]}},
        "samples",
    ),
    "in words of their own": (
        {
            "fewshot_split": "dev",
            "fewshot_config": {"doc_to_text": "{{q}} Reason:", "doc_to_target": "It is so: {{a}}"},
        },
        "dev",
    ),
}


@pytest.mark.parametrize(("says", "split"), EXAMPLES.values(), ids=EXAMPLES)
def test_worked_examples_come_from_where_the_file_says_and_prompts_are_those_of_stock_lm_eval(
    says: dict[str, Any], split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    files = {name: f"{name}.jsonl" for name in ("train", "test", "dev")}
    told = {"training_split": None, "dataset_kwargs": {"data_files": files}, **says}
    folder = made(tmp_path / "parity", **told)
    dev = [{"q": f"Is {n} even?", "a": "no"} for n in range(101, 113, 2)]
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dev))
    [card] = evaluate(tasks=str(folder), engine="dummy", shots=2, seed=3, out=tmp_path / "cards")
    assert (card.scores[0].fewshot_split, bool(card.scores[0].fewshot_digest)) == (split, True)
    assert not verify(tmp_path / "cards" / "dummy.json").faults
    monkeypatch.chdir(folder)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    stock = simple_evaluate(
        "dummy", tasks=["parity"], num_fewshot=2, fewshot_random_seed=3, task_manager=manager, bootstrap_iters=0
    )
    theirs = [sample["arguments"][0][0] for sample in stock["samples"]["parity"]]
    task = prompts.load([catalog.tasks()["parity"]], None, shots=2, seed=3)["parity"]
    assert [one.args[0] for one in prompts.requests(task)] == theirs
    assert theirs[0].count("?") == 3
    with pytest.raises(FinbenchError, match="worked examples, fewer than 40 shots"):
        prompts.load([catalog.tasks()["parity"]], None, shots=40)


def test_rows_that_do_not_fit_together_are_said_by_what_datasets_found(tmp_path: Path) -> None:
    folder = made(tmp_path / "parity")
    (folder / "test.jsonl").write_text('{"q": "Is 7 even?", "a": "no", "why": "It is odd."}\n')
    with pytest.raises(FinbenchError, match="Couldn't cast .*because column names don't match"):
        evaluate(tasks=str(folder), engine="dummy", out=tmp_path / "cards")


def test_worked_examples_in_other_words_have_another_digest(tmp_path: Path) -> None:
    found = set()
    for number, words in enumerate(("{{q}}", "{{q}} So:", "{{q}} So:")):
        config = {"fewshot_config": {"doc_to_text": words}, "fewshot_split": "train"}
        folder = made(tmp_path / str(number) / "parity", **config)
        catalog.forget()
        os.environ[catalog.VARIABLE] = ""
        [card] = evaluate(tasks=str(folder), engine="dummy", shots=2, out=tmp_path / str(number))
        found.add(card.scores[0].fewshot_digest)
    assert len(found) == 2


# ---------------------------------------------------------------- code

SHOWN = [  # what is shown and asked about: (changes, what is said)
    ({"process_results": function("utils.f")}, "calls utils.f"),
    ({"doc_to_text": function("utils.f")}, "calls utils.f"),
    ({"process_docs": function("utils.f")}, "calls utils.f"),
    ({"custom_dataset": function("utils.f")}, "calls utils.f"),
    ({"metric_list": [{"metric": function("utils.f")}]}, "calls utils.f"),
    ({"metric_list": [{"metric": "exact_match", "aggregation": function("utils.f")}]}, "calls utils.f"),
    ({"fewshot_config": {"sampler": function("utils.f")}}, "calls utils.f"),
    ({"filter_list": [{"name": "x", "filter": [{"function": "custom", "filter_fn": function("utils.f")}]}]}, "utils.f"),
    ({"class": function("utils.f")}, "class makes the task by Python"),
    ({"process_results": function("lm_eval.utils.import_function")}, "calls lm_eval.utils.import_function"),
    ({"dataset_path": "pandas"}, "read by a program of its own"),
    ({"dataset_path": "./evil"}, "neither a data set of the Hub"),
    ({"dataset_path": "evil.py"}, "read by a program of its own"),
    ({"dataset_kwargs": {"trust_remote_code": True}}, "asks to run the code of a data set"),
    ({"dataset_kwargs": {"data_files": "/etc/passwd"}}, "lies outside of the folder"),
    ({"dataset_kwargs": {"data_files": ["../../secret.jsonl"]}}, "lies outside of the folder"),
    ({"dataset_kwargs": {"data_files": "https://example.org/x.jsonl"}}, "lies outside of the folder"),
    ({"metric_list": [{"metric": "someone/metric"}]}, "is a program on the Hub"),
    ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "is a program on the Hub"),
    ({"unsafe_code": True}, "unsafe_code"),
    ({"use_prompt": "promptsource:x"}, "use_prompt"),
    ({"doc_to_text": "{{ q.__class__.__mro__ }}"}, "has the attribute __mro__"),
    ({"doc_to_text": "{{ cycler.__init__.__globals__.os.popen('id').read() }}"}, "the template of doc_to_text"),
    ({"doc_to_text": "{% for i in range(10**9) %}x{% endfor %}"}, "the template of doc_to_text"),
    ({"doc_to_text": "{{ 'x' * 9999999999 }}"}, "the template of doc_to_text has a mul"),
    ({"doc_to_text": "{{ q | attr('__class__') }}"}, "the filter attr"),
    ({"description": "{% include 'x' %}"}, "the template of description"),
    ({"filter_list": [{"name": "x", "filter": [{"function": "regex", "regex_pattern": "(a+)+$"}]}]}, "without end"),
    ({"metric_list": [{"metric": "exact_match", "regexes_to_ignore": ["(a|aa)+$"]}]}, "without end"),
    ({"doc_to_text": "{{ q | regex_replace('(.*)(.*)(.*)(.*)z', '') }}"}, "without end"),
    ({"doc_to_text": "{{ q | regex_replace(q, '') }}"}, "without end"),
]


@pytest.mark.parametrize(("changes", "said"), SHOWN)
def test_code_is_shown_and_not_run(changes: dict[str, Any], said: str, tmp_path: Path, canary: Path) -> None:
    folder = made(tmp_path / "parity", **changes)
    (folder / "utils.py").write_text(EVIL)
    with pytest.raises(FinbenchError) as caught:
        catalog.include_tasks(folder)
    assert said in caught.value.message
    assert "utils.py (5 lines, SHA-256" in caught.value.message
    assert "--trust-task-code" in caught.value.hint
    assert not list((paths.cache_dir() / "trusted-tasks").glob("*"))


REFUSED = [  # whatever the user trusts
    ({"process_results": function("..tmp.evil.f")}, "is of no file in"),
    ({"process_results": function("os.system")}, "is of no file in"),
    ({"process_results": function("f")}, "is of no file in"),
    ({"process_results": function("../evil.f")}, "is of no file in"),
    ({"include": "../outside.yaml"}, "lies outside of"),
    ({"include": "/etc/passwd"}, "lies outside of"),
    ({"include": "parity.yaml"}, "includes itself"),
    ({"include": 3}, "include is a file or a list of files"),
    ({"output_type": "loglikelihood_rolling"}, "output_type is loglikelihood_rolling"),
    ({"repeats": 3}, "repeats is not 1"),
    ({"doc_to_image": "image"}, "pictures or sounds"),
    ({"task": "../../x"}, "no name of a task"),
    ({"task": "a\x1b[2Jb"}, "no name of a task"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_leads_out_of_the_folder_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path, canary: Path
) -> None:
    (tmp_path / "outside.yaml").write_text("task: x\n")
    (tmp_path / "evil.py").write_text(EVIL)
    with pytest.raises(FinbenchError, match=said.replace("[", r"\[")):
        catalog.include_tasks(made(tmp_path / "parity", **changes), trust=True)


def test_a_function_that_an_include_names_and_the_task_hides_is_seen_too(tmp_path: Path, canary: Path) -> None:
    """lm-eval resolves what an included file names before the task's own key takes its place."""
    folder = made(tmp_path / "parity", include="_shared")
    (folder / "_shared").write_text("doc_to_text: !function ..tmp.evil.f\n")
    with pytest.raises(FinbenchError, match="is of no file in"):
        catalog.include_tasks(folder, trust=True)
    (folder / "_shared").write_text("doc_to_text: !function utils.f\n")
    (folder / "utils.py").write_text(EVIL)
    with pytest.raises(FinbenchError, match="calls utils.f"):
        catalog.include_tasks(folder)


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "parity")
    (tmp_path / "secret.txt").write_text("secret")
    for name, target in (("rows.jsonl", tmp_path / "secret.txt"), ("data", tmp_path), ("gone", tmp_path / "nothing")):
        (folder / name).symlink_to(target)
        with pytest.raises(FinbenchError, match="leads outside|no plain file"):
            catalog.include_tasks(folder, trust=True)
        (folder / name).unlink()
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(FinbenchError, match="no plain file"):
        catalog.include_tasks(folder, trust=True)


BOMBS = [
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "task: bomb\n",
    "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 10)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "task: bomb\n",
    "task: &a [*a]\n",
    "task: x\nmetadata: &m {inner: *m}\n",
    "task: x\n" + "[" * 50_000,
    "task: x\n" + "".join(f"k{n}: 1\n" for n in range(60_000)),
    "task: x\n" + "".join(f"k{n}: 1\n" for n in range(24_000)),
    "task: x\nx: !!python/object/apply:os.system ['touch $CANARY']\n",
    "task: x\nx: !!python/name:os.system\n",
    "task: x\n? [1, 2]\n: 3\n",
]


@pytest.mark.parametrize("text", BOMBS)
def test_bombs_and_tags_of_yaml_end_quickly(text: str, tmp_path: Path, canary: Path) -> None:
    folder = tmp_path / "bomb"
    folder.mkdir()
    (folder / "x.yaml").write_text(text)
    start = processor_time()
    with contextlib.suppress(FinbenchError):
        catalog.include_tasks(folder, trust=True)
    assert quick(processor_time() - start, 5)


def test_trust_is_remembered_by_digest_and_a_changed_file_asks_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "def score(doc, results):\n    return {'exact_match': float(results[0].strip() == doc['a'])}\n"
    folder = made(tmp_path / "parity", process_results=function("utils.score"))
    (folder / "utils.py").write_text(code)
    with pytest.raises(FinbenchError, match="carries code"):
        evaluate(tasks=str(folder), engine="dummy", out=tmp_path / "cards")
    catalog.include_tasks(folder, trust=True)
    assert "is trusted from now on" in capsys.readouterr().err
    catalog.forget()
    gold = {"answers": "gold"}
    [card] = evaluate(tasks=str(folder), engine="dummy", arguments=gold, out=tmp_path / "cards")
    assert card.scores[0].main.value == 1.0
    assert not (folder / "__pycache__").exists()
    moved = shutil.copytree(folder, tmp_path / "elsewhere")  # the same content needs no second word
    catalog.forget()
    catalog.include_tasks(moved)
    (moved / "utils.py").write_text(code.replace("strip()", "strip('.')"))
    for _ in range(2):
        with pytest.raises(FinbenchError, match="carries code"):
            catalog.include_tasks(moved)
    catalog.forget()
    (folder / "notes.txt").write_text("read by the code, perhaps")
    with pytest.raises(FinbenchError, match="carries code"):
        catalog.include_tasks(folder)


def test_a_file_that_changes_after_it_was_named_is_looked_at_again(tmp_path: Path, canary: Path) -> None:
    folder = made(tmp_path / "parity")
    [task] = catalog.include_tasks(folder)
    (folder / "utils.py").write_text(EVIL)
    made(folder, doc_to_text=function("utils.f"))
    with pytest.raises(FinbenchError, match="carries code"):
        prompts.load([task], None)


def test_what_python_has_compiled_beside_a_helper_never_runs(tmp_path: Path, canary: Path) -> None:
    """An unchecked .pyc runs instead of its source, whatever the source is: of a folder it is never read."""
    folder = tmp_path / "own"
    (folder / "lib").mkdir(parents=True)
    for name in ("labels", "answers", "rows", "shots"):
        shutil.copy(paths.shipped("tasks") / "lib" / f"{name}.py", folder / "lib")
    shutil.copy(paths.shipped("tasks") / "_labels_generate", folder)
    (folder / "rows").mkdir()
    row = {"text": "Rates rise.", "label": "up"}
    for split in ("train", "test"):
        (folder / "rows" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    stated = {"finbench_labels": ["up", "down"], "finbench_set": "own", "finbench_data": "in its folder"}
    config = {"task": "own", "include": "_labels_generate", "doc_to_text": "{{text}}", "validation_split": None}
    (folder / "own.yaml").write_text(yaml.safe_dump({**config, "metadata": stated}))
    (tmp_path / "evil.py").write_text(EVIL)
    cached = folder / "lib" / "__pycache__"
    cached.mkdir()
    for name in ("labels", "answers", "rows", "shots"):
        target = cached / Path(py_compile.compile(str(tmp_path / "evil.py"))).name.replace("evil", name)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(tmp_path / "evil.py"), cfile=str(target), invalidation_mode=mode)
    [task] = catalog.include_tasks(folder)  # its helpers are finbench's own: nothing to trust
    lm_task = prompts.load([task], None)[task.name]
    assert prompts.rows(lm_task, "test")[0]["label"] == "up"
    (folder / "more.py").write_text("x = 1\n")
    with pytest.raises(FinbenchError, match="holds compiled code"):
        catalog.include_tasks(folder, trust=True)


def test_prompts_render_in_a_sandbox_and_plain_ones_as_before(tmp_path: Path, canary: Path) -> None:
    from jinja2.exceptions import SecurityError
    from lm_eval import utils

    foreign._sandbox()
    with pytest.raises(SecurityError):
        utils.apply_template("{{ q.__class__.__mro__ }}", {"q": "x"})
    with pytest.raises(SecurityError):
        utils.apply_template("{{ ''['__class__']['__mro__'] }}", {"q": "x"})
    allowed = "{{q.strip()}}{% for c in choices %}{{loop.index}}. {{c|upper}}\n{% endfor %}{{ 'a' if n > 1 else 'b' }}"
    assert templates.beyond(allowed) == ""
    assert utils.apply_template(allowed, {"q": " x ", "choices": ["y"], "n": 2}) == "x1. Y\na"


def test_a_metric_of_a_stranger_with_a_known_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Its items have another shape; its values may be of any size, and are then not shown as per cent."""
    code = (
        "def score(doc, results):\n    return {'points': [len(doc['q']), 7], 'unlisted': 1}\n\n"
        "def macro_f1(items):\n    return 100.0 + sum(a for a, b in items)\n"
    )
    metric = {"metric": "points", "aggregation": function("utils.macro_f1"), "higher_is_better": False}
    folder = made(tmp_path / "parity", process_results=function("utils.score"), metric_list=[metric])
    (folder / "utils.py").write_text(code)
    catalog.include_tasks(folder, trust=True)
    [card] = evaluate(tasks="parity", engine="dummy", out=tmp_path / "cards")
    assert card.scores[0].main.value > 100
    assert card.scores[0].lower_is_better == ["points"]
    assert verify(tmp_path / "cards" / "dummy.json").level == "samples-attached"
    (folder / "utils.py").write_text(code.replace("[len(doc['q']), 7]", "float('nan')"))
    catalog.include_tasks(folder, trust=True)
    with pytest.raises(FinbenchError, match="The scorer of parity fails .*no finite number"):
        evaluate(tasks="parity", engine="dummy", out=tmp_path / "other")


# ---------------------------------------------------------------- lm-eval's own tasks, and its output


def test_lm_evals_own_tasks_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = [{"question": f"Is {n} odd?", "passage": "Numbers.", "label": n % 2, "idx": n} for n in range(10)]
    table = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: {"train": table, "validation": table.select(range(6))})
    gold = {"answers": "gold"}
    [card] = evaluate(tasks="lm_eval:boolq", engine="dummy", arguments=gold, out=tmp_path / "cards")
    [score] = card.scores
    assert (score.task, score.form, score.n, score.main.value) == ("lm_eval:boolq", "choice", 6, 1.0)
    assert score.data.origin == "hub:aps/super_glue"
    assert verify(tmp_path / "cards" / "dummy.json").level == "samples-attached"
    with pytest.raises(FinbenchError, match=r"Unknown task of lm-eval 'boolqq'. Did you mean boolq"):
        catalog.expand(["lm_eval:boolqq"])


def test_the_data_of_lm_evals_task_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="data of lm_eval:arc_challenge are on the Hub .*allenai/ai2_arc.*OFFLINE"):
        evaluate(tasks="lm_eval:arc_challenge", engine="dummy", out=tmp_path / "cards")


def test_what_stock_lm_eval_wrote_of_an_own_task_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.__main__ import cli_evaluate

    folder = made(tmp_path / "parity")
    monkeypatch.chdir(folder)
    arguments = ["run", "--model", "dummy", "--include_path", ".", "--tasks", "parity", "--log_samples"]
    monkeypatch.setattr("sys.argv", ["lm_eval", *arguments, "--output_path", str(tmp_path / "theirs")])
    cli_evaluate()
    catalog.include_tasks(folder)
    [card] = import_card(tmp_path / "theirs", out=tmp_path / "cards", name="stock")
    assert [(score.task, score.n) for score in card.scores] == [("parity", 12)]
    assert verify(tmp_path / "cards" / "stock.json").level == "samples-attached"


def test_every_task_of_lm_eval_is_found_by_its_name() -> None:
    index = owntasks._index()
    assert len(index) > 5_000
    for name in ("hellaswag", "gsm8k", "mmlu_anatomy", "arc_easy", "winogrande"):
        assert owntasks.lm_eval_task(f"lm_eval:{name}").task.name == f"lm_eval:{name}"


def test_helpers_are_known_by_their_bytes_and_name(tmp_path: Path) -> None:
    source = paths.shipped("tasks") / "lib" / "labels.py"
    assert taskcode.is_helper(source)
    assert taskcode.is_helper(Path(shutil.copy(source, tmp_path / "labels.py")))
    assert not taskcode.is_helper(Path(shutil.copy(source, tmp_path / "rows.py")))
    (tmp_path / "labels.py").write_text(source.read_text() + "\n")
    assert not taskcode.is_helper(tmp_path / "labels.py")


def test_code_that_no_function_names_is_asked_about_too(tmp_path: Path, canary: Path) -> None:
    """``runpy.run_path`` of a folder runs the __main__ in it; a .pyc beside runs without any source."""
    (tmp_path / "evil.py").write_text(EVIL)
    folder = made(tmp_path / "parity")
    py_compile.compile(str(tmp_path / "evil.py"), cfile=str(folder / "more.pyc"))
    with pytest.raises(FinbenchError, match=r"more\.pyc \(compiled code"):
        catalog.include_tasks(folder)
    (folder / "more.pyc").unlink()
    (folder / "answers.py").mkdir()
    with pytest.raises(FinbenchError, match="called like a helper"):
        catalog.include_tasks(folder)


@pytest.mark.parametrize("package", [False, True])
def test_no_helper_imports_what_was_compiled_beside_it(package: bool, tmp_path: Path, canary: Path) -> None:
    """``tagging.py`` and ``rows.py`` load what lies beside them by Python's own import."""
    folder, lib = tmp_path / "own", paths.shipped("tasks") / "lib"
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(lib, folder / "lib", ignore=ignored)
    shutil.copy(paths.shipped("tasks") / "_labels_generate", folder)
    stated = {"finbench_labels": ["up", "down"], "finbench_set": "fpb", "finbench_data": "x"}
    config = {"task": "own", "include": "_labels_generate", "doc_to_text": "{{text}}", "metadata": stated}
    loader = "" if package else "custom_dataset: !function lib.tagging.load_all\n"
    (folder / "own.yaml").write_text(yaml.safe_dump(config) + loader)
    (tmp_path / "evil.py").write_text(EVIL)
    home, name = (folder / "lib" / "sets", "__init__") if package else (folder / "lib", "rows")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    target = home / "__pycache__" / f"{name}.{sys.implementation.cache_tag}.pyc"
    target.parent.mkdir(exist_ok=True)
    py_compile.compile(str(tmp_path / "evil.py"), cfile=str(target), invalidation_mode=mode)
    with without("finbench_sets"), pytest.raises(FinbenchError):  # the set is not here
        prompts.load(catalog.include_tasks(folder), None)


@contextlib.contextmanager
def without(package: str) -> Iterator[None]:
    """As if nothing of a package had been imported, and what is imported meanwhile is forgotten."""
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
    for name in kept:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
        sys.modules.update(kept)


def test_a_changed_file_that_the_scorer_loads_is_another_definition(tmp_path: Path) -> None:
    folder = made(tmp_path / "parity", process_results=function("utils.score"))
    (folder / "utils.py").write_text("from pathlib import Path\n\ndef score(*a):\n    return {'exact_match': 1}\n")
    (folder / "deep.py").write_text("x = 1\n")
    before = owntasks.read(folder).tasks["parity"].task.digest
    (folder / "deep.py").write_text("x = 2\n")
    assert owntasks.read(folder).tasks["parity"].task.digest != before


# ---------------------------------------------------------------- what an adapter has learnt of it


def learnt(base: Path, folder: Path, **stated: Any) -> Path:
    """An adapter of a step or two."""
    finbench.train(recipes.recipe(None, {"base": str(base), "dtype": "float32", "epochs": 0.2, **stated}), folder)
    return folder


def overlap_of(adapter: Path, base: Path, tasks: str, out: Path) -> Any:
    cards = evaluate(str(adapter), base=str(base), tasks=tasks, limit=4, out=out, reports=False)
    return next(card.scores[0].overlap for card in cards if card.subject.adapter)


def test_a_benchmark_that_was_made_of_what_an_adapter_learnt_is_found_out(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By content, whichever was made first; by the file's digest where the rows are gone; else it is not known."""
    monkeypatch.chdir(tmp_path)
    rows = sentences(150)
    source = table(tmp_path / "mine.csv", rows)
    wrapped = [(f"Say the stance. {text} Answer now:", stance) for text, stance in rows]
    mapped = {"map": {"prompt": "sentence", "completion": "stance"}}
    first = learnt(llama, tmp_path / "first", data=["mine.csv"], **mapped)
    other = learnt(llama, tmp_path / "other", data=[str(table(tmp_path / "wrapped.csv", wrapped))], **mapped)
    part = learnt(llama, tmp_path / "part", data=["mine.csv"], limit=40, **mapped)
    made = finbench.new_task(source, text="sentence", label="stance")
    test = {text for text, _ in rows} & {
        doc["text"] for doc in prompts.rows(prompts.load([made.task], None)["mine"], "test")
    }
    count = len(test)
    assert count == made.rows["test"]
    capsys.readouterr()
    assert overlap_of(first, llama, "./mine", tmp_path / "a").texts == count
    said = capsys.readouterr().err
    assert f"{count} of {count} test texts of mine stand in the rows that it learnt from" in said
    assert overlap_of(other, llama, "./mine", tmp_path / "b").texts == count  # inside longer texts
    run = runner.prepare(recipes.recipe(None, {"base": str(llama), "data": ["mine.csv"], "limit": 40, **mapped}))
    tokenizer = bases.load_tokenizer(run.base)
    texts = " ".join(tokenizer.decode(row.ids) for row in run.rows)
    assert overlap_of(part, llama, "./mine", tmp_path / "c").texts == sum(text in texts for text in test)
    assert "mine was made of these very rows" in capsys.readouterr().err  # where it was there before the training
    on_train = learnt(llama, tmp_path / "train", tasks=["./mine"])
    assert overlap_of(on_train, llama, "./mine", tmp_path / "d") == Overlap(texts=0, of=count)
    [card] = [path for path in (tmp_path / "a").glob("*.json") if "rows" in path.name]
    found = verify(card, adapter=str(first))
    assert not found.faults
    assert any(f"learnt from {count} of the {count} test texts" in note for note in found.notes)
    stated = cardfiles.read(card)
    hidden = [score.model_copy(update={"overlap": Overlap(texts=0, of=count)}) for score in stated.scores]
    cardfiles.write(card, stated.model_copy(update={"scores": hidden}), cardfiles.read_samples(card))
    assert [fault.field for fault in verify(card, adapter=str(first)).faults] == ["scores[mine].overlap"]
    source.unlink()
    (tmp_path / "wrapped.csv").write_text("sentence,stance\na,b\n")  # other rows under the name of those that are gone
    assert overlap_of(first, llama, "./mine", tmp_path / "e").texts == count  # of the very file
    assert overlap_of(other, llama, "./mine", tmp_path / "f") is None
    assert "is not known: wrapped.csv, which it learnt from, lies not here" in capsys.readouterr().err


def test_a_licence_stated_later_changes_neither_the_benchmark_nor_its_cards(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = finbench.new_task(table(tmp_path / "mine.csv", sentences(150)), text="sentence", label="stance")
    assert (made.task.licence, made.task.restricted) == ("not stated", True)
    evaluate(model=str(llama), tasks="./mine", out="cards", limit=5, reports=False)
    with pytest.raises(FinbenchError, match="does not let us publish") as fault:
        push(made.folder, "hub:me/mine", dry_run=True)
    assert "--licence cc-by-4.0" in fault.value.hint
    assert push(made.folder, "hub:me/mine", dry_run=True, licence="cc-by-4.0").readme.startswith(
        "---\nlicense: cc-by-4.0\n"
    )
    readme = made.folder / "README.md"
    readme.write_text(readme.read_text().replace("license: unknown", "license: cc-by-4.0"))
    catalog.forget()
    [task] = catalog.include_tasks(made.folder)
    assert (task.digest, task.licence, task.restricted) == (made.task.digest, "cc-by-4.0", False)
    found = verify(next(Path("cards").glob("*.json")))
    assert not found.faults
    assert not any(check.startswith("mine: 0 of") for check in found.checks)
    assert any("only hashes of them" in note for note in found.notes)
    push(made.folder, "hub:me/mine", dry_run=True)
    with pytest.raises(FinbenchError, match="states the licence cc-by-4.0, not mit"):
        push(made.folder, "hub:me/mine", dry_run=True, licence="mit")


def test_a_stale_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(catalog.VARIABLE, str(tmp_path / "gone"))
    catalog.forget()
    catalog.tasks.cache_clear()
    with pytest.raises(FinbenchError, match="No such folder of tasks") as fault:
        catalog.tasks()
    assert "unset FINBENCH_TASKS" in fault.value.hint
