"""Results of stock lm-eval become scorecards, scored again by us; what is not our task is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finbench.cards import cardfiles
from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.data.sources import import_data
from finbench.evaluation import evaluator, import_card
from finbench.evaluation.verification import verify
from finbench.scoring import prompts
from make_data import write_sources


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a small PhraseBank."""
    folder = tmp_path_factory.mktemp("data")
    import_data("fpb", write_sources(folder / "sources")["fpb"], folder)
    return folder


def stock(llama: Path, data: Path, out: Path, *arguments: str) -> Path:
    """What ``lm_eval run`` writes, in a process without finbench's path."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args"]
    command += [f"pretrained={llama},dtype=float32", "--include_path", str(paths.shipped("tasks")), "--device", "cpu"]
    command += ["--log_samples", "--output_path", str(out), "--limit", "12", "--batch_size", "16", *arguments]
    environment = {**os.environ, "FINBENCH_DATA": str(data), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def output(llama: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over a generative and a log-likelihood task; do not write into it."""
    out = tmp_path_factory.mktemp("stock")
    return stock(llama, data, out, "--tasks", "finbench_mini_sentiment,finbench_mini_ner,finbench_fpb_mc")


def test_their_answers_give_the_scores_that_our_own_run_gives(
    output: Path, llama: Path, data: Path, tmp_path: Path
) -> None:
    [theirs] = import_card(output, out=tmp_path / "theirs", data_dir=data)
    [ours] = evaluator.evaluate(
        model=str(llama),
        tasks=["mini_sentiment", "mini_ner", "fpb_mc"],
        limit=12,
        out=tmp_path / "ours",
        data_dir=data,
        arguments={"dtype": "float32"},
    )
    assert theirs.origin == "lm-eval"
    assert (theirs.engine, theirs.dtype, theirs.status, theirs.limit) == ("lm-eval hf", "float32", "partial", 12)
    for one, other in zip(theirs.scores, ours.scores, strict=True):
        assert (one.task, one.n, one.metrics, one.lenient) == (other.task, other.n, other.metrics, other.lenient)
        assert (one.task_digest, one.data.digest, one.baselines) == (
            other.task_digest,
            other.data.digest,
            other.baselines,
        )
    [path] = cardfiles.expand([tmp_path / "theirs"])
    found = verify(path, data_dir=data)
    assert (found.level, found.faults) == ("samples-attached", [])
    assert (tmp_path / "theirs" / "report.html").is_file()


def test_cards_of_both_can_be_compared_and_say_no_path(output: Path, llama: Path, data: Path, tmp_path: Path) -> None:
    from finbench.cards.comparison import compare

    import_card(output, out=tmp_path / "theirs", data_dir=data)
    evaluator.evaluate(
        model=str(llama), tasks=["mini_sentiment"], limit=12, out=tmp_path / "ours", arguments={"dtype": "float32"}
    )
    [mine] = cardfiles.expand([tmp_path / "ours"])
    [other] = cardfiles.expand([tmp_path / "theirs"])
    [pair] = compare([mine, other])
    assert pair.contests[0].differing == []
    text = other.read_text() + json.dumps(cardfiles.read_samples(other))
    for secret in (str(llama.parent), str(tmp_path), "plc said its profit"):
        assert secret not in text


def test_importing_twice_writes_one_card_and_another_run_another(output: Path, data: Path, tmp_path: Path) -> None:
    for _ in range(2):
        import_card(output, out=tmp_path, data_dir=data, name="mine")
    assert len(cardfiles.expand([tmp_path])) == 1


def test_chat_template_and_worked_examples_are_recorded(llama: Path, data: Path, tmp_path: Path) -> None:
    options = ("--tasks", "finbench_mini_sentiment", "--apply_chat_template", "--num_fewshot", "2")
    out = stock(llama, data, tmp_path / "chat", *options)
    [card] = import_card(out, out=tmp_path / "cards", data_dir=data)
    assert (card.subject.chat, card.shots, card.seed) == (True, 2, 1234)
    assert card.chat_template
    assert (card.scores[0].fewshot_split, bool(card.scores[0].fewshot_digest)) == ("train", True)
    other = tamper(out, tmp_path / "t", "samples*", each(lambda r: r["arguments"]["gen_args_0"].update(arg_0="Good?")))
    with pytest.raises(FinbenchError, match="its prompt is not the task's"):
        import_card(other, out=tmp_path / "o", data_dir=data)


# ---------------------------------------------------------------- refused


def tamper(output: Path, target: Path, pattern: str, alter: Any) -> Path:
    """A copy in which every line of the files of ``pattern`` went through ``alter``."""
    shutil.copytree(output, target)
    for path in target.rglob(pattern):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(row) + "\n" for row in alter(rows)))
        else:
            path.write_text(json.dumps(alter(json.loads(path.read_text()))))
    return target


def each(change: Any) -> Any:
    def alter(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        change(rows[3])
        return rows

    return alter


def in_results(change: Any) -> Any:
    def alter(results: dict[str, Any]) -> dict[str, Any]:
        change(results)
        return results

    return alter


REFUSED = {
    "another gold": (
        "samples*sentiment*",
        each(lambda r: r["doc"].update(label="other")),
        "document .* is not the row",
    ),
    "another prompt": (
        "samples*sentiment*",
        each(lambda r: r["arguments"]["gen_args_0"].update(arg_0="Is it good?")),
        "its prompt is not the task's",
    ),
    "another way to generate": (
        "samples*sentiment*",
        each(lambda r: r["arguments"]["gen_args_0"]["arg_1"].update(do_sample=True, temperature=1.0)),
        "how its answer was generated is not the task's",
    ),
    "another choice": (
        "samples*fpb_mc*",
        each(lambda r: r["arguments"]["gen_args_0"].update(arg_1=" splendid")),
        "the choice is not the task's",
    ),
    "a system instruction": (
        "results*",
        in_results(lambda r: r.update(system_instruction="Say positive.")),
        "a system instruction stood before every prompt",
    ),
    "a document twice": ("samples*sentiment*", lambda rows: [*rows, rows[0]], "missing or occur twice"),
    "a document less": ("samples*sentiment*", lambda rows: rows[1:], "missing or occur twice"),
    "no answer": ("samples*sentiment*", each(lambda r: r.update(resps=[])), "0 answers to 1 requests"),
    "not a number": (
        "samples*fpb_mc*",
        each(lambda r: r.update(resps=[[["many", "False"]], [["-1", "False"]], [["-1", "False"]]])),
        "not a sample of lm-eval",
    ),
    "another version": (
        "results*",
        in_results(lambda r: r["versions"].update(finbench_mini_sentiment=77)),
        "version 77 of the task",
    ),
    "no number at all": (
        "samples*fpb_mc*",
        each(lambda r: r.update(resps=[[["nan", "False"]], [["-inf", "False"]], [["-1", "False"]]])),
        "a log-likelihood is no finite number",
    ),
    "arguments of another kind": ("samples*sentiment*", each(lambda r: r.update(arguments=[1])), "not a sample of lm-"),
    "no document": ("samples*sentiment*", each(lambda r: r.pop("doc")), "is not the row of the data here"),
    "a date of no calendar": ("results*", in_results(lambda r: r.update(date=1e300)), "no results file of lm-eval"),
    "a date in words": ("results*", in_results(lambda r: r.update(date="today")), "no results file of lm-eval"),
    "less than no time": (
        "results*",
        in_results(lambda r: r.update(total_evaluation_time_seconds="-5")),
        "no results file of lm-eval",
    ),
    "a seed in words": (
        "results*",
        in_results(lambda r: r["config"].update(fewshot_seed="many")),
        "no results file of lm-eval",
    ),
    "a name that is none": ("results*", in_results(lambda r: r.update(model_name=7)), "no results file of lm-eval"),
    "arguments in a list": (
        "results*",
        in_results(lambda r: r["config"].update(model_args=["a"])),
        "no results file of lm-eval",
    ),
    "no version": ("results*", in_results(lambda r: r.pop("versions")), "no results file of lm-eval"),
    "no task of ours": ("results*", in_results(lambda r: r.update(versions={"hellaswag": 1})), "no samples of a finb"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_our_task_is_refused(what: str, output: Path, data: Path, tmp_path: Path) -> None:
    pattern, alter, message = REFUSED[what]
    with pytest.raises(FinbenchError, match=message):
        import_card(tamper(output, tmp_path / "t", pattern, alter), out=tmp_path / "o", data_dir=data)
    assert not list((tmp_path / "o").glob("*.json"))


def test_their_own_numbers_are_not_taken_over(
    output: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def better(results: dict[str, Any]) -> None:
        results["results"]["finbench_mini_sentiment"]["acc,none"] = 0.99

    forged = tamper(output, tmp_path / "t", "results*", in_results(better))
    [card] = import_card(forged, out=tmp_path / "o", data_dir=data)
    score = next(score for score in card.scores if score.task == "finbench_mini_sentiment")
    assert score.metrics["acc"].value != 0.99
    assert "their file says acc = 0.9900" in " ".join(capsys.readouterr().err.split())


def test_the_leaderboard_takes_their_output(output: Path, data: Path, tmp_path: Path) -> None:
    from finbench import leaderboard
    from finbench.leaderboard import commands
    from finbench.leaderboard.board import board
    from finbench.leaderboard.reading import entries

    [added] = leaderboard.add([output], to=tmp_path / "board", name="theirs", data_dir=data)
    assert added == tmp_path / "board" / "scorecards" / "theirs.json"
    found = entries(tmp_path / "board")
    [lm_task] = board(found).tests  # mini tasks are never shown
    assert (lm_task.task, lm_task.whole, lm_task.rows[0].entry.level) == ("fpb_mc", False, "samples-attached")
    [stock] = [command for _, command in commands.reproduce(found[0]).steps if command.startswith("lm_eval run")]
    assert "--limit 12 --log_samples" in stock


def cut(output: Path, target: Path) -> Path:
    """A copy in which the sentiment task has five rows and separators of unicode, and says so."""

    def shorter(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = rows[:5]
        kept[0]["resps"] = [["positive\u2028and\x85more"]]
        return kept

    def counted(results: dict[str, Any]) -> None:
        results["n-samples"]["finbench_mini_sentiment"]["effective"] = 5

    tamper(output, target / "a", "samples*sentiment*", shorter)
    tamper(target / "a", target / "b", "results*", in_results(counted))
    shutil.rmtree(target / "a")
    for path in target.rglob("samples*sentiment*"):
        path.write_text("".join(json.dumps(json.loads(line), ensure_ascii=False) + "\n" for line in path.open()))
    return target


def test_a_share_as_limit_gives_a_card_for_each_number_of_rows(output: Path, data: Path, tmp_path: Path) -> None:
    """``lm_eval --limit 0.1`` cuts every task at another number of rows."""
    made = import_card(cut(output, tmp_path / "t"), out=tmp_path / "o", data_dir=data)
    assert sorted((card.limit, len(card.scores), card.status) for card in made) == [
        (5, 1, "partial"),
        (12, 2, "partial"),
    ]
    paths_ = cardfiles.expand([tmp_path / "o"])
    assert len(paths_) == 2
    for path in paths_:
        assert (verify(path, data_dir=data).level, verify(path, data_dir=data).faults) == ("samples-attached", [])


def test_rows_that_were_taken_away_are_missed(output: Path, data: Path, tmp_path: Path) -> None:
    other = tamper(output, tmp_path / "t", "samples*sentiment*", lambda rows: rows[:5])
    with pytest.raises(FinbenchError, match="has 5 documents; its results file says 12"):
        import_card(other, out=tmp_path / "o", data_dir=data)


def test_a_set_with_fewer_rows_than_the_limit_is_whole(
    output: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cut(output, tmp_path / "t")
    load = prompts.load

    def short(*arguments: Any, **options: Any) -> dict[str, Any]:
        lm_tasks = load(*arguments, **options)
        for name, lm_task in lm_tasks.items():
            if "sentiment" in name:
                lm_task.dataset["test"] = lm_task.dataset["test"].select(range(5))
        return lm_tasks

    monkeypatch.setattr(prompts, "load", short)
    [card] = import_card(other, out=tmp_path / "o", data_dir=data)
    assert card.limit == 12
    assert sorted(score.n for score in card.scores) == [5, 12, 12]


def test_tasks_of_others_do_not_change_the_shots(output: Path, data: Path, tmp_path: Path) -> None:
    def others(results: dict[str, Any]) -> None:
        results["versions"]["gsm8k"] = 3
        results["n-shot"]["gsm8k"] = 5

    [card] = import_card(
        tamper(output, tmp_path / "t", "results*", in_results(others)), out=tmp_path / "o", data_dir=data
    )
    assert card.shots == 0


def test_a_path_of_windows_gives_its_last_part_only(output: Path, data: Path, tmp_path: Path) -> None:
    def windows(results: dict[str, Any]) -> None:
        results["config"]["model_args"] = {"pretrained": "C:\\Users\\somebody\\tiny-llama"}
        results["model_name"] = "C:\\Users\\somebody\\tiny-llama"

    forged = tamper(output, tmp_path / "t", "results*", in_results(windows))
    [card] = import_card(forged, out=tmp_path / "o", data_dir=data)
    assert card.subject.name == card.subject.base.alias == "tiny-llama"
    assert "somebody" not in card.to_json()


def test_an_empty_folder_is_answered_with_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="No results_") as caught:
        import_card(tmp_path)
    assert "--log_samples" in caught.value.hint
