"""Logs of inspect-ai become cards: read without inspect-ai, scored again by us; what is not our task is refused."""

from __future__ import annotations

import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.evaluation import import_card, inspectlogs, verify
from finbench.scoring import prompts

ROWS = 12
Log = dict[str, Any]


def log_of(name: str = "finbench_mini_sentiment", chat: bool = False, answers: list[str] | None = None) -> Log:
    """A log as inspect writes it, of the first rows of a task; the model gives ``answers``, or two right of three."""
    task = catalog.shipped_tasks()[name]
    lm_task = prompts.load([task], None)[name]
    asked = prompts.requests(lm_task, ROWS, inspectlogs.turns if chat else None)
    samples = []
    for at, one in enumerate(asked):
        turns = [{"role": role, "content": text} for role, text in json.loads(one.args[0])] if chat else []
        given = answers[at] if answers else f" {'neither' if at % 3 == 2 else one.doc['label']}\nNext: a line"
        said = {"role": "assistant", "content": given}
        samples.append(
            {
                "id": at,
                "epoch": 1,
                "input": turns or one.args[0],
                "messages": [*(turns or [{"role": "user", "content": one.args[0]}]), said],
                "output": {"completion": given, "choices": [{"message": said}]},
            }
        )
    how = asked[0].args[1]
    said = {"task": name, "task_digest": task.digest, "form": "generate", "chat": chat, "shots": 0, "seed": 1234}
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "run_id": "6ZBkFjhX3pwkqpVvBbtfmb",
            "created": "2026-11-29T04:20:42+00:00",
            "task": f"finbench/{name.removeprefix('finbench_')}",
            "task_version": task.version,
            "model": "hf/somebody/small",
            "model_args": {"model_path": "/home/somebody/secret/small", "dtype": "float32"},
            "config": {"limit": ROWS, "epochs": 1},
            "packages": {"inspect_ai": "0.3.285"},
            "metadata": said,
            "scorers": [{"name": "strict"}],
        },
        "plan": {
            "steps": [{"solver": "finbench/as_the_task_asks"}],
            "config": {"max_tokens": how["max_gen_toks"], "temperature": 0.0, "stop_seqs": how["until"]},
        },
        "results": {"scores": [{"name": "strict", "metrics": {"acc": {"value": 2 / 3}}}]},
        "stats": {"started_at": "2026-11-29T04:20:42+00:00", "completed_at": "2026-11-29T04:20:46+00:00"},
        "samples": samples,
    }


def written(log: Log, path: Path) -> Path:
    """A log on disk, in the form that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(log))
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in log["samples"] or []:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
        archive.writestr("header.json", json.dumps({key: part for key, part in log.items() if key != "samples"}))
    return path


@pytest.fixture(scope="module")
def sound() -> str:
    return json.dumps(log_of())


@pytest.mark.parametrize("form", ["eval", "json"])
def test_the_answers_of_a_log_make_a_card(
    sound: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = written(json.loads(sound), tmp_path / "logs" / f"one.{form}")
    [card] = import_card(place.parent, out=tmp_path / "cards")
    [score] = card.scores
    assert (score.n, score.metrics["acc"].value, score.parse_rate.value) == (ROWS, 8 / 12, 8 / 12)
    assert (card.origin, card.engine, card.dtype, card.status, card.limit) == (
        "inspect",
        "inspect hf",
        "float32",
        "partial",
        ROWS,
    )
    assert (card.subject.name, card.subject.base.hub_id, card.subject.base.fingerprint) == ("small", None, "unknown")
    assert "a sample of 12 of 150 rows; its card is partial" in capsys.readouterr().err
    [path] = cardfiles.expand([tmp_path / "cards"])
    assert verify(path).faults == []
    assert "secret" not in path.read_text()


def test_the_tasks_of_one_run_share_a_card_and_a_run_in_a_chat_has_its_own(sound: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    written(json.loads(sound), logs / "one.eval")
    written(log_of("finbench_mini_ner", answers=["[]"] * ROWS), logs / "two.eval")
    chat = log_of(chat=True)
    del chat["plan"]["config"]["stop_seqs"]  # few services take a newline; the answer is cut when it is scored
    written(chat, logs / "three.json")
    cards = import_card(logs, out=tmp_path / "cards")
    assert sorted((card.subject.chat, [score.task for score in card.scores]) for card in cards) == [
        (False, ["finbench_mini_ner", "finbench_mini_sentiment"]),
        (True, ["finbench_mini_sentiment"]),
    ]
    assert len(cardfiles.expand([tmp_path / "cards"])) == 2


COMMIT = "5e6fd34" + 33 * "0"


def test_a_folder_of_others_files_gives_the_cards_that_are_there(
    sound: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    written(json.loads(sound), tmp_path / "logs" / "b.eval")
    (tmp_path / "logs" / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')
    other = json.loads(sound)
    other["eval"]["task"] = "inspect_evals/gsm8k"
    written(other, tmp_path / "logs" / "a.eval")
    assert len(import_card(tmp_path / "logs", out=tmp_path / "cards")) == 1
    assert "Left out:" in capsys.readouterr().err


def test_a_branch_is_no_commit(sound: str, tmp_path: Path) -> None:
    log = json.loads(sound)
    log["eval"]["model_args"] = {"revision": "main"}
    [card] = import_card(written(log, tmp_path / "l.json"), out=tmp_path / "cards")
    assert (card.subject.base.hub_id, card.subject.base.revision) == (None, None)


def test_a_member_that_unpacks_to_more_than_it_says_is_torn(tmp_path: Path) -> None:
    path, large = tmp_path / "bomb.eval", zstandard.compress(b" " * 200_000_000)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", large)
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    raw[8:10] = raw[central + 10 : central + 12] = (93).to_bytes(2, "little")
    raw[central + 24 : central + 28] = (10).to_bytes(4, "little")
    path.write_bytes(raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FinbenchError, match="is torn"):
        import_card(path, out=tmp_path / "cards")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_model_of_the_hub_is_named_where_its_commit_is_stated(sound: str, tmp_path: Path) -> None:
    log = json.loads(sound)
    log["eval"]["model_args"] = {"revision": COMMIT}
    [card] = import_card(written(log, tmp_path / "l.json"), out=tmp_path / "cards", name="mine")
    assert (card.subject.name, card.subject.base.hub_id, card.subject.base.revision) == (
        "mine",
        "somebody/small",
        COMMIT,
    )


def test_another_scorer_and_other_numbers_are_said_and_not_taken_over(
    sound: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = json.loads(sound)
    log["results"]["scores"][0]["metrics"]["acc"]["value"] = 0.99
    [card] = import_card(written(log, tmp_path / "l.json"), out=tmp_path / "cards")
    assert "the log says acc = 0.9900; the answers in it give 0.6667" in capsys.readouterr().err
    log["eval"]["scorers"] = [{"name": "match"}]
    assert import_card(written(log, tmp_path / "l.json"), out=tmp_path / "other")[0].scores == card.scores
    assert "scored by match; its answers are scored anew by finbench_mini_sentiment" in capsys.readouterr().err


def at(*keys: Any, to: Any) -> Callable[[Log], None]:
    """Sets a value of a log."""

    def alter(log: Log) -> None:
        place: Any = log
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return alter


def without(*keys: Any) -> Callable[[Log], None]:
    def alter(log: Log) -> None:
        place: Any = log
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return alter


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (at("eval", "task_version", to=1), "version 1 of finbench_mini_sentiment, here it is"),
        (at("eval", "metadata", "task_digest", to="00"), "with another definition"),
        (at("eval", "task", to="inspect_evals/gsm8k"), "inspect_evals/gsm8k, which is no task of finbench"),
        (at("eval", "metadata", to=None), "no task of finbench"),
        (at("eval", "metadata", "form", to="letters"), "ranks by log-likelihoods"),
        (at("eval", "config", "epochs", to=3), "asks every row 3 times"),
        (at("plan", "steps", 0, "solver", to="chain_of_thought"), "its solver is chain_of_thought"),
        (at("plan", "config", "temperature", to=0.7), "temperature 0.7, the task's is 0.0"),
        (at("plan", "config", "max_tokens", to=512), "max_tokens 512, the task's is 12"),
        (at("plan", "config", "system_message", to="Be bold."), "generated with system_message"),
        (at("plan", "config", "extra_body", to={"guided_choice": ["a"]}), "generated with extra_body"),
        (at("eval", "model_args", to={"load_in_4bit": True}), "-M load_in_4bit=True makes another model"),
        (at("status", to="cancelled"), r"did not end well \(cancelled\)"),
        (at("samples", 3, "error", to={"message": "timeout"}), "row 3 ended in an error"),
        (at("samples", 3, "id", to=77), "prompt is not the task's"),
        (at("samples", 3, "id", to=700), "row 700 is not among the 150"),
        (without("samples", 3), "not of the first rows of the test"),
        (at("samples", 3, "input", to="Good?"), "row 3: its prompt is not the task's"),
        (at("samples", 3, "messages", 0, "content", to="Say neutral."), "told more than the task's prompt"),
        (at("samples", 3, "output", "completion", to="\ud83d"), "is no log of inspect"),
        (at("samples", to=None), "holds no answers"),
        (at("samples", to=[]), "not of the first rows"),
        (without("stats", "started_at"), "is no log of inspect"),
        (at("eval", to=[]), "is no log of inspect"),
    ],
)
def test_what_is_not_our_task_is_refused_in_one_line(
    sound: str, alter: Callable[[Log], None], said: str, tmp_path: Path
) -> None:
    log = json.loads(sound)
    alter(log)
    with pytest.raises(FinbenchError, match=said) as fault:
        import_card(written(log, tmp_path / "l.json"), out=tmp_path / "cards")
    assert "\n" not in fault.value.message
    assert fault.value.hint
    assert not (tmp_path / "cards").exists()


def test_a_torn_log_is_named(sound: str, tmp_path: Path) -> None:
    whole = written(json.loads(sound), tmp_path / "whole.eval").read_bytes()
    for number, bad in enumerate([whole[: len(whole) // 2], b"", whole[:200] + b"\0" * 400 + whole[600:]]):
        place = tmp_path / f"{number}.eval"
        place.write_bytes(bad)
        with pytest.raises(FinbenchError, match=f"{number}.eval is torn") as fault:
            import_card(place, out=tmp_path / "cards")
        assert "inspect eval-retry" in fault.value.hint
    place = tmp_path / "cut.json"
    place.write_text(sound[:3000])
    with pytest.raises(FinbenchError, match="cut.json is torn"):
        import_card(place, out=tmp_path / "cards")


def test_a_log_of_a_run_that_was_killed_has_no_header(sound: str, tmp_path: Path) -> None:
    place = tmp_path / "killed.eval"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(FinbenchError, match="its run did not end"):
        import_card(place, out=tmp_path / "cards")
