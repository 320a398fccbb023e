"""The first hour of a new user: no dead end, no silence, and every fault says what to type."""

from __future__ import annotations

import functools
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import finbench
from conftest import processor_time, quick
from endpoints import Answer, FakeEndpoint
from finbench import evaluate
from finbench.cards import cardfiles, reporting
from finbench.cli import helping
from finbench.cli.app import _COMMANDS, _GROUPS, app
from finbench.cli.show import trainings
from finbench.core import catalog, console, environment
from finbench.core.errors import FinbenchError, Interrupted, counted, listed
from finbench.core.installing import install
from finbench.core.records import Recipe
from finbench.evaluation import evaluator, options
from finbench.grid import driver, nodes, sweepfile, watch
from finbench.grid.places import Place
from finbench.grid.steps import Schedule
from finbench.methods import METHODS, Tuner
from finbench.models import adapters, bases
from finbench.scoring import golden_prompt, prompts, task_of_examples
from finbench.training import machines, planning, recipes, synonyms


def run(*arguments: object, columns: int = 100) -> Any:
    """What a command leaves: exit code, output, and the FinbenchError that ``main`` would have shown."""
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": str(columns)})


def told(*arguments: object) -> str:
    """The message and hint of a command that is refused."""
    fault = run(*arguments).exception
    assert isinstance(fault, FinbenchError), fault
    return str(fault)


# ---------------------------------------------------------------- warnings that save a night


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ("--model smollm2-135m --tasks mini --engine server", "Which endpoint?"),
        ("--model smollm2-135m --tasks mini --samples 4", "Add --profile think"),
        ("--model smollm2-135m --tasks mini --profile think --samples 4", "Add --temperature"),
        ("--model smollm2-135m --tasks mini --arg foo=1", "Unknown engine argument 'foo'"),
        ("--model smollm2-135m --tasks mini --budget 3", "Leave --budget out"),
        ("--model smollm2-135m --tasks fpb_mc --engine api", "no log-likelihoods"),
        ("--model smollm2-135m", "Which tasks?"),
        ("--model ./nope --tasks mini", "No such folder"),
        ("--model nope --tasks mini", "Unknown base 'nope'"),
        ("--model nope.gguf --tasks mini", "No such file: nope.gguf"),
        ("--adapter ./nope --tasks mini", "No such adapter folder"),
        ("--adapter ./nope", "No such adapter folder"),
        ("--model smollm2-135m --tasks mini --report trakio", "Unknown tracker 'trakio'"),
        ("--model smollm2-135m --tasks mini --metadata split=dev", "Unknown split 'dev'"),
        ("--model smollm2-135m --tasks mini --metadata noise=typo", "Unknown noise 'typo'"),
        ("--model smollm2-135m --tasks mini --metadata agree=75", "Unknown choice 'agree'"),
        ("--model smollm2-135m --tasks mini --metadata agreement=75", "No task here has a choice of agreement"),
        ("--model smollm2-135m --tasks fpb --metadata agreement=60", "Unknown agreement '60'"),
        ("--model smollm2-135m --tasks mini --out /proc/cards", "Cannot write /proc/cards"),
        ("--model smollm2-135m --tasks mini_sentiment --prompts wrods", "Unknown prompt 'wrods'. Did you mean words"),
        ("--adapter FOLDER --prompts wrods", "Unknown prompt 'wrods'. Did you mean words"),
    ],
)
def test_options_are_checked_before_anything_slow_is_imported(
    stated: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finbench, "evaluate", lambda **_: pytest.fail("what evaluates was imported"))
    assert line in told("eval", *stated.replace("FOLDER", str(tmp_path)).split())


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ("train --task mini_ner --out /proc/a", "Cannot write /proc/a"),
        ("train --task mini_ner --report trakio", "Unknown tracker 'trakio'"),
        ("tune --task mini_ner --out FILE/a", "is a file"),
        ("merge FOLDER --out /proc/a", "Cannot write /proc/a"),
        ("merge FOLDER FOLDER --out FILE/a", "is a file"),
        ("export FOLDER --out /proc/a", "Cannot write /proc/a"),
        ("pretrain FILE --out /proc/a", "Cannot write /proc/a"),
        ("report FOLDER --out /proc/a.md", "Cannot write /proc/a.md"),
        ("report FOLDER --out FOLDER", "is a folder"),
        ("merge FOLDER --out " + "a" * 300, "Cannot write aaa"),
        ("risk FOLDER --out /proc/a.html", "Cannot write /proc/a.html"),
        ("risk FOLDER --out FILE/a.md", "is a file"),
        ("risk FOLDER --out /dev/null/a.md", "is a file"),
        ("report FOLDER --out /dev/null", "is no plain file"),
        ("risk FOLDER --out a.pdf", "neither a page nor Markdown"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_work(stated: str, line: str, tmp_path: Path) -> None:
    """And before anything is read: neither folder holds what the command takes."""
    (tmp_path / "file").touch()
    words = stated.replace("FOLDER", str(tmp_path)).replace("FILE", str(tmp_path / "file"))
    assert line in told(*words.split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_the_place_of_a_page_names_a_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.html").mkdir()
    assert f"--out {tmp_path / 'a.html' / 'risk.html'}" in told("risk", tmp_path, "--out", tmp_path / "a.html")


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ("verify CARD --base smollm2-135m", "--base does nothing without --rerun"),
        ("verify CARD --seed 3 --base x", "Add --rerun auto, or leave --base and --seed out"),
        ("verify CARD --rerun 0 --base x", "--base does nothing without --rerun"),
        ("card rescore CARD --adapter a", "Add --ask, or leave --adapter out"),
        ("leaderboard add CARD --base x", "Add --rerun auto, or leave --base out"),
    ],
)
def test_an_option_that_would_do_nothing_is_not_ignored(stated: str, line: str, scored: Path) -> None:
    card = next(scored.glob("a-*.json"))
    assert line in told(*stated.replace("CARD", str(card)).split())


def test_what_lies_beside_is_named_where_nothing_is_like_it(scored: Path, lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path / "runs" / "mine")
    assert f"{tmp_path / 'runs'} has mine." in told("eval", "--adapter", tmp_path / "runs" / "q", "--tasks", "mini")
    card = next(iter(sorted(scored.glob("a-*.json"))))
    assert f"Name one: {card}" in told("verify", scored)
    assert "finbench eval writes them" in told("verify", lora)  # whose JSON files are no cards


def test_figures_that_nothing_here_can_draw_are_refused_before_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    stated = ("report", tmp_path, "--out", tmp_path / "a.tex", "--figures", "svg,pdf,png")
    assert "Figures as PDF and PNG need vl-convert" in told(*stated)


def test_what_checks_options_imports_no_torch() -> None:
    code = "import sys; from finbench.evaluation import options; from finbench.models import adapters, bases; "
    code += "from finbench.training import batches; "
    code += "print([name for name in ('torch', 'transformers', 'lm_eval') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_without_a_dot_and_a_slash_is_a_model_and_an_adapter(
    lora: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama.parent)
    assert bases.resolve(llama.name).id == bases.resolve(str(llama)).id
    monkeypatch.chdir(lora.parent)
    assert adapters.find(lora.name).folder.resolve() == lora.resolve()
    (lora.parent / "smollm2-135m").mkdir(exist_ok=True)
    try:  # an alias stays one
        monkeypatch.setattr(bases.hub, "fetch", lambda name, _: (Path(name), "0" * 40))  # nothing is unpacked
        monkeypatch.setattr(bases, "_located", lambda alias, hub_id, *_: hub_id)
        assert bases.resolve("smollm2-135m") == catalog.bases()["smollm2-135m"].hub_id
    finally:
        (lora.parent / "smollm2-135m").rmdir()


@pytest.mark.parametrize("command", ["eval", "train"])
def test_tasks_and_their_data_are_asked_for_before_a_base_is_touched(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetching or unpacking a base takes minutes."""
    monkeypatch.setattr(bases, "resolve", lambda *_: pytest.fail("a base was touched"))
    for task, line in (("nope", "Unknown task 'nope'"), ("fpb", "finbench data import fpb")):
        stated = ["--model", "smollm2-135m", "--tasks", task] if command == "eval" else ["--task", task]
        assert line in told(command, *stated)


def test_nobody_at_the_endpoint_is_one_hint_within_seconds() -> None:
    started = time.process_time()
    said = told("eval", "--engine", "server", "--arg", "url=http://127.0.0.1:9/v1", "--model", "m",
                "--tasks", "mini_sentiment")  # fmt: skip
    assert "takes no connection" in said
    assert said.endswith("Start the server, or correct its address: --arg url=http://127.0.0.1:8000/v1")
    assert quick(time.process_time() - started, 10)


@pytest.fixture
def spoken(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an endpoint that always answers so: (text, why it ended)."""
    text, ended = request.param
    said = {"text": text, "message": {"content": text}, "finish_reason": ended}
    with FakeEndpoint(lambda *_: Answer({"model": "m", "choices": [said]})) as there:
        yield there.url


def test_words_of_lm_eval_stay_out_of_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever loads a task; lm-eval tells of keyword arguments that nobody can give here."""
    task = catalog.tasks()["finbench_mini_sentiment"]
    for load in (lambda: prompts.load([task], None), lambda: task_of_examples(task)):
        logging.getLogger("lm_eval").setLevel(logging.NOTSET)  # as in a process of its own
        load()
    assert "kwargs" not in caplog.text


BAD = {
    "wordy": (("I think that it is good", "stop"), "are not in the form", "such as 'I think that it is good'"),
    "empty": (("", "stop"), "are empty", "--profile chat"),
    "cut": (
        ("The sentence says that", "length"),
        "are not in the form asked for: they were cut off by the limit",
        "--profile chat",
    ),
}


@pytest.mark.parametrize(("spoken", "what", "more"), BAD.values(), ids=BAD, indirect=["spoken"])
def test_answers_that_cannot_be_read_are_told_loudly(
    spoken: str, what: str, more: str, tmp_path: Path, capsys: Any
) -> None:
    evaluate(model="m", tasks="mini_sentiment", engine="server", arguments={"url": spoken}, out=tmp_path)
    said = capsys.readouterr().err
    assert said.count("WARNING") == 1
    assert f"10 of the first 10 answers {what}" in said
    assert more in said
    report = (tmp_path / "report.md").read_text()
    assert "m: only 0.0 % of the answers are in the form asked for" in report
    assert "| m, weights not known |  |" in report  # nor does it have 16 bits
    assert "endpoint:" not in report
    assert "endpoint:" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("spoken", [(" positive", "stop"), (" positive", "length")], indirect=True)
def test_readable_answers_are_not_warned_of(spoken: str, tmp_path: Path, capsys: Any) -> None:
    """A label that the limit of tokens ended is a label."""
    evaluate(model="m", tasks="mini_sentiment", engine="server", arguments={"url": spoken}, out=tmp_path)
    assert "WARNING" not in capsys.readouterr().err
    assert "only" not in (tmp_path / "report.md").read_text()


def test_answers_that_turn_bad_later_are_told_too(tmp_path: Path, capsys: Any) -> None:
    asked: list[Any] = []

    def answer(path: str, body: Any) -> Answer:
        asked.append(body)
        return Answer({"choices": [{"text": " positive" if len(asked) <= 10 else "Well ...", "finish_reason": "stop"}]})

    with FakeEndpoint(answer) as there:
        stated = {"arguments": {"url": there.url, "concurrency": 1}, "out": tmp_path}
        evaluate(model="m", tasks="mini_sentiment", engine="server", **stated)
    assert "140 of the 150 answers are not in the form asked for" in capsys.readouterr().err


def test_a_model_that_is_here_is_told_by_its_tokens(llama: Path, tmp_path: Path, capsys: Any) -> None:
    """Of a text of transformers or vLLM only its length says that nothing else ended it."""
    evaluate(model=str(llama), tasks="mini_sentiment", limit=12, out=tmp_path)
    said = capsys.readouterr().err
    assert f"Loading {llama.name}, to compute in " in said
    assert "they were cut off by the limit of tokens" in said
    assert "--profile chat" in said


# ---------------------------------------------------------------- hints


@pytest.mark.parametrize(("key", "own"), [("learning_rate", "lr"), ("num_train_epochs", "epochs"), ("r", "rank")])
def test_what_others_call_a_key_is_answered_with_ours_at_once(key: str, own: str) -> None:
    began = processor_time()
    done = subprocess.run(
        [sys.executable, "-m", "finbench", "train", "--task", "mini_sentiment", "--set", f"{key}=1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"unknown recipe key '{key}' (here it is {own})" in done.stderr
    assert quick(processor_time() - began, 1.0)


def test_no_synonym_is_an_option_of_a_method() -> None:
    options = {name for method in METHODS.values() if not isinstance(method, Tuner) for name in method.option_names()}
    others = synonyms.SYNONYMS.keys() | synonyms.ELSEWHERE.keys()
    assert not options & others, options & others
    assert not synonyms.SYNONYMS.keys() & synonyms.ELSEWHERE.keys()
    assert not synonyms.ELSEWHERE.keys() & Recipe.model_fields.keys()
    assert set(synonyms.SYNONYMS.values()) <= Recipe.model_fields.keys()
    assert not synonyms.SYNONYMS.keys() & Recipe.model_fields.keys()
    assert METHODS["lora"].option_names() - METHODS["lora"].options.keys() <= synonyms.options_of_peft()
    assert "foo_bar" not in synonyms.options_of_peft()
    stated = {"tasks": ["mini_ner"], "method": "c3a", "block_size": 8}  # of this tuner it is an option
    assert recipes.recipe(None, stated).options == {"block_size": 8}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("max_steps", "epochs says how long"),
        ("logging_steps", "every step is logged"),
        ("save_total_limit", "the two newest checkpoints are kept"),
        ("neftune_noise_alpha", "here it is neftune"),
        ("learning-rate", "here it is lr"),
        ("--per_device_train_batch_size", "here it is batch_size"),
        ("sample_packing", "here it is loop"),
        ("batch-size", "write batch_size"),
        ("trust_remote_code", "no code of a model is run"),
    ],
)
def test_what_has_no_counterpart_says_what_is_done_instead(key: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match=f"unknown recipe key '{key}' \\({said}"):
        recipes.recipe(None, {"tasks": ["mini_ner"], key: 1})
    if key != "batch-size":
        with pytest.raises(FinbenchError, match=said):
            recipes.check_keys([key])


def test_every_setting_of_transformers_trainer_is_answered() -> None:
    """But those of its own inner workings, which no recipe has."""
    from transformers import TrainingArguments

    inner = (
        "torch_",
        "fp16_",
        "bf16_",
        "eval_",
        "log_",
        "include_",
        "ddp_",
        "dataloader_",
        "trackio_",
        "enable_",
        "hub_",
    )
    rest = {
        "tf32",
        "use_cache",
        "prediction_loss_only",
        "batch_eval_metrics",
        "restore_callback_states_from_checkpoint",
    }
    rest |= {"full_determinism", "debug", "skip_memory_metrics", "greater_is_better", "average_tokens_across_devices"}
    known = synonyms.SYNONYMS.keys() | synonyms.ELSEWHERE.keys() | Recipe.model_fields.keys() | rest
    names = {name for name in TrainingArguments.__dataclass_fields__ if not name.startswith(("_", *inner))}
    assert names - known == set()


def test_a_file_of_another_command_is_named(tmp_path: Path) -> None:
    examples = Path(__file__).parents[1] / "examples"
    assert "is a sweep, not a recipe.\nfinbench sweep " in told("train", examples / "sweep-cpu.yaml")
    assert "is a pretraining, not a recipe.\nfinbench pretrain " in told("train", examples / "pretrain-small.yaml")
    recipe, sweep = tmp_path / "recipe.yaml", tmp_path / "sweep.yaml"
    recipe.write_text("tasks: [mini_ner]\nlr: 1.0e-3\n")
    assert "is a recipe, not a sweep" in told("sweep", recipe, "--dry-run")
    sweep.write_text("name: x\naxes: {learning_rate: [1.0e-3]}\ncommon: {task: mini_ner}\n")
    assert "here it is lr" in told("sweep", sweep, "--dry-run")
    readme = tmp_path / "README.md"
    readme.write_text("# A model\n")
    assert told("verify", readme).startswith(f"{readme} is not a scorecard.")


@pytest.mark.parametrize("columns", [80, 120])
def test_the_doctor_fits_one_screen(columns: int, tmp_path: Path) -> None:
    found = run("doctor", "--data-dir", tmp_path, columns=columns)
    lines = found.output.rstrip().splitlines()
    assert len(lines) <= 16
    assert len([line for line in lines if line.startswith(("ok", "note")) and " cores " not in line]) <= 6
    assert all(len(line) <= columns for line in lines)
    assert "0 of" in found.output
    assert "data fpb" not in found.output
    assert "data fpb" in run("doctor", "--all", "--data-dir", tmp_path, columns=columns).output


def test_a_plan_is_for_this_machine_unless_another_is_named(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(machines, "_layers", lambda dtype, threads: (1e11, 1e11))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = recipes.recipe(None, {"tasks": ["mini_sentiment"], "base": str(llama), "limit": 32})
    assert planning.plan(wanted)["gpu"] == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, known in (("NVIDIA L4", "l4"), ("NVIDIA H100 80GB HBM3", "h100")):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_, name=name: name)
        assert machines.this() == known
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Something New")
    with pytest.raises(FinbenchError, match="Something New"):
        machines.this()


def commands() -> list[str]:
    """Every command, as it is typed."""
    return [*_COMMANDS, *(f"{group} {name}" for group, (_, members) in _GROUPS.items() for name in members)]


def test_every_help_has_two_examples_whose_options_exist() -> None:
    assert set(helping.EXAMPLES) - {"sweep"} == set(commands())
    for name, examples in helping.EXAMPLES.items():
        assert len(examples) == 2
        for example in examples:
            assert example.startswith(name.removesuffix(" run"))
            words = shlex.split(example)
            if words[0] == "lm-eval":
                continue
            known = run(*name.split(), "--help", columns=200).output
            known += run("sweep", "run", "--help", columns=200).output if name == "sweep" else ""
            for option in (word for word in words if word.startswith("--")):
                assert option in known, example


def test_the_keys_of_an_option_are_a_table() -> None:
    assert set(helping.ARGUMENTS) == {name for own in options.ARGUMENTS.values() for name in own} - {
        "max_length",
        "gpu_memory",
    }
    for name, (engines, _) in helping.ARGUMENTS.items():
        assert all(name in options.ARGUMENTS[engine] for engine in engines.split()), name
    shown = run("train", "--help").output
    assert "gradient_checkpointing" in shown
    assert "requests_per_minute" in run("eval", "--help").output


def test_a_sweep_has_subcommands_and_takes_a_file_as_before(tmp_path: Path) -> None:
    assert "No sweep has run in" in told("sweep", "status", tmp_path)
    assert "No such sweep file" in told("sweep", "nothing.yaml")
    assert "No such sweep file" in told("sweep", "--dry-run", "nothing.yaml")
    assert "No such sweep file" in told("sweep", "run", "nothing.yaml")
    assert run("sweep", "status").exit_code == 2


def test_a_demo_that_is_stopped_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("Stopped after step 3 of 38.", "Go on with the same command and --resume.")

    monkeypatch.setattr(finbench, "train", stopped)
    assert told("demo", "--out", tmp_path).endswith(f"Go on with the same command: finbench demo --out {tmp_path}")


def test_one_is_not_several() -> None:
    assert [counted(number, "finding") for number in (0, 1, 2, 1234)] == [
        "0 findings",
        "1 finding",
        "2 findings",
        "1,234 findings",
    ]


def test_what_takes_its_time_says_so_off_a_terminal(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_TELL", 0.01)
    with console.waiting("Unpacking"):
        time.sleep(0.2)
    said = capsys.readouterr().err
    assert said.startswith("Unpacking ...\n")
    assert "still at it" in said


# ---------------------------------------------------------------- a sweep never waits in silence


def grid_of(folder: Path, **needs: object) -> Any:
    path = folder / "sweep.yaml"
    stated = {"name": "x", "axes": {"seed": [0, 1]}, "common": {"task": "mini_ner"}, "needs": needs}
    path.write_text(yaml.safe_dump(stated))
    found = sweepfile.read(path)
    return Schedule(found, sweepfile.cells(found), {}, lambda _: False)


SMALL = [{"CPU": 2.0, "memory": 3.46 * 2**30}, {"CPU": 8.0, "memory": 2e9}]


@pytest.mark.parametrize("needs", [{"memory": 4}, {"cpus": 9}, {"cpus": 4, "memory": 3}])
def test_what_no_node_can_take_is_refused_and_named(needs: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    board = grid_of(tmp_path, **needs)
    with pytest.raises(FinbenchError) as fault:
        nodes.check_nodes(board, SMALL, growing=False)
    assert "the largest node offers 2 and 3.7 GB" in fault.value.message
    nodes.check_nodes(board, SMALL, growing=True)
    assert "They wait for a node that does." in capsys.readouterr().err


@pytest.mark.parametrize("needs", [{"memory": 3.7}, {"cpus": 8}, {}, {"cpus": 2, "memory": 3}])
def test_what_a_node_can_take_is_not(needs: dict[str, Any], tmp_path: Path) -> None:
    nodes.check_nodes(grid_of(tmp_path, **needs), SMALL, growing=False)


def test_gpus_cpus_and_memory_have_to_be_of_one_node(tmp_path: Path) -> None:
    """A small node with GPUs beside a large one without."""
    there = [{"CPU": 2.0, "memory": 4e9, "GPU": 2.0}, {"CPU": 32.0, "memory": 256e9}]
    nodes.check_nodes(grid_of(tmp_path, gpus=2, cpus=2, memory=4), there, growing=False)
    for needs in ({"cpus": 8}, {"memory": 16}):
        with pytest.raises(FinbenchError) as fault:
            nodes.check_nodes(grid_of(tmp_path, gpus=1, **needs), there, growing=False)
        assert "beside 1 GPU; the largest node with so many offers 2 and 4.0 GB beside 2" in fault.value.message
    [waits, *_] = nodes.unplaced(grid_of(tmp_path, gpus=4), there)
    assert "beside 4 GPUs; the largest node offers 32 and 256.0 GB beside 0" in waits


def test_a_dry_run_refuses_what_the_sweep_refuses_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "free_host_memory", lambda: 24 * 10**9)
    for needs, refused in (({"memory": 400}, True), ({"cpus": 4096}, True), ({"memory": 10}, False)):
        grid_of(tmp_path, **needs)
        for where in (None, "auto"):  # of a cluster nothing is known before it is asked
            act = functools.partial(driver.sweep, tmp_path / "sweep.yaml", ray_address=where, dry_run=True)
            if refused and where is None:
                with pytest.raises(FinbenchError, match="the largest node offers") as fault:
                    act()
                assert "--ray" in fault.value.hint
            else:
                act()
    stated = yaml.safe_load((tmp_path / "sweep.yaml").read_text()) | {"needs": {"gpus": 1, "cpus": 4096}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(stated))
    driver.sweep(tmp_path / "sweep.yaml", dry_run=True)  # GPUs are planned for anywhere


def test_what_waits_is_told_and_is_not_called_running(tmp_path: Path) -> None:
    board, place = grid_of(tmp_path, memory=4), Place(str(tmp_path / "out"))
    seen = watch.Watch(board, place)
    seen.unplaced = nodes.unplaced(board, SMALL)
    seen.tell(set(board.steps))
    found = watch.sweep_status(str(tmp_path / "out"))
    assert (found["running"], found["waiting"]) == (0, 2)
    assert "steps wait for a larger node: train " in watch.line(found)


def test_only_what_a_worker_has_begun_is_running(tmp_path: Path) -> None:
    """Of two steps of which a node's memory holds one, Ray has both and a worker one."""
    board, place = grid_of(tmp_path, memory=4), Place(str(tmp_path / "out"))
    first = next(key for key, step in board.steps.items() if step.cell)
    mark = {"name": "train it", "since": "2026-01-31T12:00:00+00:00", "pid": 1, "keys": [first]}
    place.write(f"running/{first}.json", json.dumps(mark) + "\n")
    watch.Watch(board, place).tell(set(board.steps))
    found = watch.sweep_status(str(tmp_path / "out"))
    assert (found["running"], found["waiting"]) == (1, 1)
    assert [one["name"] for one in found["doing"]] == ["train it"]
    assert "0 of 2 cells done, 1 running, 1 waiting" in watch.line(found)


def test_the_example_for_a_small_machine_asks_for_no_more_than_it_needs() -> None:
    """On 4 GB Ray offers about 3."""
    found = sweepfile.read(Path(__file__).parents[1] / "examples" / "sweep-cpu.yaml")
    assert found.needs.memory is None


# ---------------------------------------------------------------- verify reads as a verdict


@pytest.mark.parametrize("where", ["score", "sample", "setting"])
def test_nothing_is_ok_that_a_fault_refutes_and_faults_come_first(where: str, tmp_path: Path) -> None:
    stated = {"tasks": "mini_sentiment,mini_headline", "engine": "dummy", "limit": 20, "out": tmp_path}
    evaluate(**stated)
    [path] = (one for one in tmp_path.glob("*.json"))
    whole = run("verify", path).output
    assert whole.index("ok") < whole.index("samples-attached")
    assert "fault" not in whole
    card = json.loads(path.read_text())
    if where == "sample":
        samples = next(tmp_path.glob("*.zst"))
        samples.write_bytes(samples.read_bytes()[:-20])
    elif where == "score":
        card["scores"][0]["metrics"]["acc"]["value"] = 0.95
    else:
        card["seed"] = 7
    path.write_text(json.dumps(card))
    done = run("verify", path)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0].startswith("fault")
    assert lines[-1].startswith("Not to be trusted")
    right = [line for line in lines if line.startswith("ok")]
    edited = card["scores"][0]["task"].removeprefix("finbench_")
    assert not [line for line in right if f" {edited}: " in line and where != "setting"]
    assert not [line for line in right if "seal" in line and where != "sample"]
    if where == "score":  # the other task was found right
        assert len([line for line in right if "every metric" in line]) == 1
    assert len(json.loads(run("verify", path, "--json").output)["checks"]) == len(right)


@pytest.mark.parametrize(("option", "said"), [("--adapter", "No such adapter folder"), ("--base", "No such folder")])
def test_a_model_that_is_not_there_is_told_before_rows_are_read(option: str, said: str, scored: Path) -> None:
    [card] = scored.glob("a-*.json")
    samples = cardfiles.samples_path(card)
    samples.rename(scored / "kept")
    try:
        assert said in told("verify", card, "--rerun", "3", option, "./nope")
    finally:
        (scored / "kept").rename(samples)


# ---------------------------------------------------------------- ask, try


SENTENCE = "Quarterly earnings at Norvane Group jumped on strong orders."


@pytest.mark.parametrize("columns", [80, 120])
def test_one_sentence_side_by_side(columns: int, lora: Path, llama: Path) -> None:
    """Probabilities are those that transformers and peft give, label by label."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stated = ("ask", lora, SENTENCE, "--task", "mini_sentiment", "--base", llama)
    shown = run(*stated, columns=columns).stdout
    assert all(len(line) <= columns for line in shown.splitlines())
    assert "tiny-llama" in shown
    assert "stranger" in shown
    replies = json.loads(run(*stated, "--json").stdout)
    plain, below = (AutoModelForCausalLM.from_pretrained(llama) for _ in range(2))
    encode = AutoTokenizer.from_pretrained(llama)
    prompt = golden_prompt(catalog.tasks()["finbench_mini_sentiment"]).removesuffix(" positive")

    def likelihood(model: Any, label: str) -> float:
        begun, whole = encode(prompt).input_ids, encode(f"{prompt} {label}").input_ids
        with torch.inference_mode():
            logits = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
        return sum(float(logits[at - 1, whole[at]]) for at in range(len(begun), len(whole)))

    for reply, model in zip(replies, (plain, PeftModel.from_pretrained(below, lora)), strict=True):
        values = torch.tensor([likelihood(model, label) for label in ("negative", "neutral", "positive")])
        found = torch.tensor(list(reply["probabilities"].values()))
        assert torch.allclose(found, values.softmax(0), atol=0.02)  # bfloat16 there
        assert sum(reply["probabilities"].values()) == pytest.approx(1)
        assert 0 < reply["mass"] < 1


def test_a_task_without_labels_has_answers_alone(lora: Path, llama: Path) -> None:
    replies = finbench.ask(str(lora), SENTENCE, task="mini_ner", base=str(llama))
    assert [reply.probabilities for reply in replies] == [None, None]
    assert all(reply.answer for reply in replies)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ((SENTENCE, "--task", "nope"), "Unknown task 'nope'"),
        ((SENTENCE, "--task", "headlines"), "headlines asks about more than a text: question"),
        ((SENTENCE, "--task", "sentiment"), "is a group of"),
        ((SENTENCE,), "As which task"),
        (("  ", "--task", "fpb"), "the text is empty"),
        (("word " * 600, "--task", "mini_sentiment"), "reads 512"),
    ],
)
def test_what_cannot_be_asked_is_one_line(more: tuple[str, ...], line: str, lora: Path, llama: Path) -> None:
    assert line in told("ask", lora, *more, "--base", llama)


def test_the_page_answers_as_the_command_does(lora: Path, llama: Path) -> None:
    pytest.importorskip("gradio")
    from gradio_client import Client

    from finbench.evaluation import Asker
    from finbench.serving import page

    asker = Asker(str(lora), "mini_sentiment", base=str(llama))
    made = page.build(asker)
    _, url, _ = made.launch(server_name="127.0.0.1", server_port=None, quiet=True, prevent_thread_lock=True)
    try:
        client = Client(url, verbose=False)
        found = client.predict(SENTENCE, api_name="/ask")
        replies = asker.ask(SENTENCE)
        for number, reply in enumerate(replies):
            shares = {one["label"]: one["confidence"] for one in found[2 * number]["confidences"]}
            assert shares == pytest.approx(reply.probabilities)
            assert found[2 * number + 1] == reply.answer
        with pytest.raises(Exception, match="nothing to ask"):
            client.predict("  ", api_name="/ask")
    finally:
        made.close(verbose=False)
        asker.close()


def test_without_gradio_the_page_names_what_to_install(
    lora: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert install("try") in told("try", lora, "--task", "mini_sentiment", "--base", llama)


# ---------------------------------------------------------------- what a paper needs


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects on one small task, beside each other."""
    place = tmp_path_factory.mktemp("scored")
    for seed, name in enumerate("ab"):
        evaluate(engine="dummy", tasks="mini_sentiment", seed=seed, out=place / name)
    for card in place.glob("*/*"):
        if card.suffix in (".json", ".zst") and not card.name.startswith("."):
            card.rename(place / f"{card.parent.name}-{card.name}")
    return place


def test_compare_takes_a_folder_and_says_what_settles(scored: Path) -> None:
    found = run("compare", scored, columns=80)
    assert found.exit_code == 0, found.exception
    assert "n to settle: documents like these" in " ".join(found.stdout.split())
    assert len(json.loads(run("compare", scored, "--json").stdout)) == 1


def test_of_several_cards_of_a_subject_the_one_that_fits_is_compared(scored: Path, tmp_path: Path) -> None:
    """As after a first look at a few rows: the whole test has its card beside it, under a name with its run's key."""
    a, b = tmp_path / "a", tmp_path / "b"
    for limit in (20, None):
        evaluate(engine="dummy", tasks="mini_sentiment", limit=limit, out=b)
    evaluate(engine="dummy", tasks="mini_sentiment", seed=1, out=a)
    for card in [*a.iterdir(), *b.iterdir()]:
        if card.name.endswith((".json", ".zst")):
            card.rename(tmp_path / f"{card.parent.name}-{card.name}")
    path = next(one for one in tmp_path.glob("a-*.json"))
    renamed = cardfiles.read(path)
    rows = cardfiles.read_samples(path)
    subject = renamed.subject.model_copy(update={"name": "adapter", "kind": "peft", "adapter": "0" * 64})
    cardfiles.write(path, renamed.model_copy(update={"subject": subject}), rows)
    done = run("compare", tmp_path)
    assert done.exit_code == 0, done.exception
    [left] = [one.name for one in tmp_path.glob("b-*.json") if cardfiles.read(one).limit]
    assert f"Left out, of other tasks, rows or settings than {path.name}: {left}." in " ".join(done.stderr.split())
    done = run("compare", tmp_path / left, tmp_path, "--tasks", "mini_sentiment")  # who is named first is compared
    assert done.exit_code == 1
    assert left in f"{done.stderr}{done.exception}"
    assert f"those that fit: finbench compare {tmp_path}" in told("compare", path, tmp_path / left)


@pytest.mark.parametrize("columns", [80, 120])
def test_no_word_of_a_list_of_tasks_is_broken(columns: int) -> None:
    shown = run("tasks", "list", columns=columns).stdout
    assert all(len(line) <= columns for line in shown.splitlines())
    words = set(re.findall(r"[a-z0-9_]+", shown))
    listed = [task for name, task in catalog.tasks().items() if not name.endswith("_mc")]
    assert {task.name.removeprefix(catalog.PREFIX) for task in listed} <= words
    assert {part for task in listed for part in (task.family, task.form, task.main_metric)} <= words


def test_a_list_of_tasks_says_what_can_be_run_now_and_begins_with_it(tmp_path: Path) -> None:
    (tmp_path / "fpb").mkdir()
    (tmp_path / "fpb" / "dataset.json").write_text("{}")
    lines = run("tasks", "list", "--data-dir", tmp_path, columns=80).stdout.splitlines()
    said = {words[0]: words[1:] for words in map(str.split, lines) if words}
    assert lines[1].strip() == "mini"
    assert said["mini_sentiment"] == ["generate", "macro_f1", "shipped"]
    assert said["fpb"] == ["both", "macro_f1", "here"]
    assert said["fingpt_fpb"] == ["generate", "macro_f1", "fpb:", "here"]
    assert said["tfns"] == ["both", "macro_f1", "not", "here"]
    assert list(said).index("sentiment") < list(said).index("finlora")


def png_width(path: Path) -> int:
    """As the header of the file says."""
    return int.from_bytes(path.read_bytes()[16:20], "big")


def test_figures_in_every_format_beside_a_labelled_table(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.tex"
    run("report", scored, "--format", "latex", "--out", out, "--figures", "pdf,png,svg")
    begun = {"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<svg"}
    for kind, mark in begun.items():
        assert (tmp_path / f"table-mini-sentiment.{kind}").read_bytes().lstrip()[:4] == mark
    text = out.read_text()
    assert r"\label{tab:finbench-mini-sentiment}" in text
    assert "{table-mini-sentiment.pdf}" in text
    assert r"\label{fig:finbench-mini-sentiment}" in text
    assert r"Whiskers: 95 \% intervals over " in text
    assert png_width(tmp_path / "table-mini-sentiment.png") == 2500  # 600 points of 72 an inch, 300 dots an inch
    assert [listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert "Dashed: majority label and random label." in text
    evaluate(engine="dummy", tasks="mini_sentiment", limit=20, out=tmp_path / "few")
    both = run("report", scored, tmp_path / "few", "--format", "latex").stdout
    assert "a sample of 20 rows" in both
    assert r"\label{tab:finbench-mini-sentiment}" in both  # conditions stand in the head
    assert "Unknown figure format 'gif'" in told("report", scored, "--out", out, "--figures", "gif")
    assert "Add --out" in told("report", scored, "--figures", "pdf")


@pytest.mark.parametrize(("name", "begun"), [("a.tex", "%"), ("a.html", "<!doctype html>"), ("a.md", "|"), ("a", "|")])
def test_a_report_is_in_the_format_that_its_name_ends_in(name: str, begun: str, scored: Path, tmp_path: Path) -> None:
    assert run("report", scored, "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / name).read_text().lstrip().lower().startswith(begun)
    run("report", scored, "--out", tmp_path / name, "--format", "html")
    assert "<!doctype html>" in (tmp_path / name).read_text().lower()


def test_runs_are_told_apart_by_what_differs(
    lora: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("runs", tmp_path).stdout.startswith("No run lies in")
    assert "is no folder" in told("runs", tmp_path / "nowhere")
    base = {"tasks": ["mini_sentiment"], "base": str(llama), "limit": 16, "dtype": "float32"}
    for name, rank in (("one", 4), ("two", 8)):
        finbench.train(recipes.recipe(None, {**base, "rank": rank}), tmp_path / name)
    said = " ".join(capsys.readouterr().err.split())
    assert f"lora on {llama}. Reading rows of mini_sentiment ..." in said  # before anything is read
    assert f"Loading {llama.name}, to learn 16 rows in" in said
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "finbench.json").write_text("{")
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    asked = recipes.recipe(None, {**base, "rank": 16}).model_dump(mode="json") | {"base": llama.name}
    command = {"command": "finbench train --task fpb --rank 16 --out begun", "loop": "shared", "dtype_used": "x"}
    (tmp_path / "begun" / "checkpoints" / "run.json").write_text(json.dumps({"recipe": asked, **command}))
    found = {Path(one["folder"]).name: one for one in json.loads(run("runs", tmp_path, "--json").stdout)}
    assert {name: one["state"] for name, one in found.items()} == {
        "one": "done",
        "two": "done",
        "broken": "unreadable",
        "begun": "unfinished",
    }
    assert (found["one"]["differs"], found["two"]["differs"]) == ({"rank": 4}, {"rank": 8})
    assert found["begun"]["differs"] == {"rank": 16}  # as asked, not what auto became
    with environment.owner(tmp_path / "begun"):  # as a training holds it
        found = {Path(one["folder"]).name: one for one in json.loads(run("runs", tmp_path, "--json").stdout)}
        assert (found["begun"]["state"], found["one"]["state"]) == ("running", "done")
        assert "begun goes on" not in run("runs", tmp_path).stdout
    for columns in (80, 120):
        shown = run("runs", tmp_path, columns=columns).stdout
        assert all(len(line) <= columns or " goes on: " in line for line in shown.splitlines())
        assert "begun goes on: finbench train --task fpb --rank 16 --out begun --resume" in shown
    assert "finbench train --task fpb --rank 16 --out begun --resume" in told("eval", "--adapter", tmp_path / "begun")


def test_runs_name_what_a_score_is_of_and_show_whole_models(
    lora: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part of a test, other bits, and models of whole weights."""
    base = {"tasks": ["mini_sentiment"], "base": str(llama), "limit": 16, "dtype": "float32", "rank": 4}
    finbench.train(recipes.recipe(None, base), tmp_path / "one")
    evaluator.evaluate(
        [str(tmp_path / "one")], base=str(llama), tasks=["mini_sentiment"], out=tmp_path / "scorecards", limit=200,
        arguments={"dtype": "float32"},
    )  # fmt: skip
    [path] = [p for p in (tmp_path / "scorecards").glob("*.json") if cardfiles.read(p).subject.adapter]
    card, rows = cardfiles.read(path), cardfiles.read_samples(path)
    part = [s.model_copy(update={"data": s.data.model_copy(update={"share": 0.25})}) for s in card.scores]
    four = card.subject.model_copy(update={"bits": 4})
    for name, change in (("whole", {}), ("part", {"scores": part}), ("four", {"subject": four})):
        made = card.model_copy(update={"limit": None, **change})
        made = made.model_copy(update={"run_key": cardfiles.run_key(made)})
        cardfiles.write(tmp_path / "scorecards" / f"{name}.json", made, rows)
    model = {"name": "dense", "folder": "dense", "loss_curve": [[1, 4.0], [2, 3.0]], "scores": {"finbench_fpb": 0.5}}
    stated = {
        "provenance": {"created": "2026-01-01T00:00:00Z"},
        "models": [model, model | {"name": "b", "folder": "b"}],
    }
    (tmp_path / "pre").mkdir()
    (tmp_path / "pre" / "pretrain.json").write_text(json.dumps(stated))
    capsys.readouterr()
    merged = finbench.merge(str(tmp_path / "one"), tmp_path / "merged", base=str(llama), dtype="float32")
    assert f" into {llama.name}; what is written is " in capsys.readouterr().err  # minutes with a large base
    trainings.merged(merged, tmp_path / "merged")
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"Next: finbench eval --adapter {tmp_path / 'merged'}")
    found = {Path(run["folder"]).name: run for run in json.loads(run("runs", tmp_path, "--json").stdout)}
    scores = found["one"]["scores"]
    assert list(scores) == [
        "finbench_mini_sentiment, base in nf4",
        "finbench_mini_sentiment, 25.0 % of the test",
        "finbench_mini_sentiment",
    ]
    assert (found["dense"]["what"], found["dense"]["loss"], found["b"]["scores"]) == (
        "pretrained, dense", 3.0, {"finbench_fpb": 0.5})  # fmt: skip
    assert found["merged"]["what"] == "merged"
    assert "25.0" in run("runs", tmp_path, columns=200).stdout  # a narrow terminal folds the rest of the head
