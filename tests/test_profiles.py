"""Profiles: prompts of stock lm-eval, samples that can be had again, intervals over documents and samples, columns."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import finbench
from finbench.cards import cardfiles, terminal_tables
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Generation
from finbench.engines.dummy import DummyEngine
from finbench.engines.generation import Sampling
from finbench.engines.hf import HFEngine
from finbench.evaluation import evaluator
from finbench.evaluation.verification import verify
from finbench.models import bases
from finbench.scoring import measure, metrics, paired_difference, prompts, sampling
from finbench.scoring.taskcheck import task_of_examples

SAMPLED: dict[str, Any] = {"profile": "think", "temperature": 0.9, "top_p": 0.9, "samples": 3, "max_tokens": 20}
Asked = tuple[str, str, int, int, str]


def dummy(out: Path, **options: Any) -> Any:
    stated = {
        "engine": "dummy",
        "tasks": ["mini_sentiment"],
        "limit": 40,
        "out": out,
        "model": "smollm2-135m",
        **options,
    }
    [card] = evaluator.evaluate(**stated)
    return card


# ---------------------------------------------------------------- prompts


class Recorder(LM):
    """What stock lm-eval asks of a model, in the order of type, task, document and choice."""

    tokenizer_name = "recorder"

    def __init__(self, tasks: list[Any], **options: Any) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        manager = TaskManager(include_path=str(paths.shipped("tasks")), include_defaults=False)
        simple_evaluate(self, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options)

    def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
        self.asked += map(bytewise, requests)
        return [(-1.0, False)] * len(requests)

    loglikelihood_rolling = loglikelihood

    def generate_until(self, requests: Any) -> list[str]:
        self.asked += map(bytewise, requests)
        return ["positive"] * len(requests)

    def chat_template(self, chat_template: Any = False) -> str:
        return "it"

    def apply_chat_template(self, history: Any, add_generation_prompt: bool = True) -> str:
        return turns(history, add_generation_prompt)


def turns(history: Any, add_generation_prompt: bool = True) -> str:
    return json.dumps([history, add_generation_prompt])


def bytewise(request: Any) -> Asked:
    """All of a request that a model is given: prompt, stops, tokens and sampling, or prompt and label."""
    return request.request_type, request.task_name, request.doc_id, request.idx, json.dumps(request.args)


@pytest.mark.parametrize(
    ("chat", "turned", "system"),
    [
        (True, None, None),
        (True, False, None),
        (True, True, "Be brief."),
        (True, False, "Be brief."),
        (False, None, "Be."),
    ],
)
def test_prompts_are_those_of_stock_lm_eval_to_the_letter(chat: bool, turned: bool | None, system: str | None) -> None:
    names = ["finbench_mini_sentiment", "finbench_mini_ner", "finbench_mini_xbrl_value"]
    theirs = Recorder(
        names,
        num_fewshot=2,
        limit=4,
        system_instruction=system,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat if turned is None else turned,
        fewshot_random_seed=7,
    ).asked
    how = Generation(profile="direct", system_prompt=system, fewshot_as_multiturn=turned)
    lm_tasks = prompts.load([catalog.tasks()[name] for name in names], None, shots=2, seed=7)
    template = turns if chat else None
    ours = [bytewise(one) for name in names for one in prompts.requests(lm_tasks[name], 4, template, how)]
    assert sorted(ours) == sorted(theirs)
    assert len(ours) == 12
    assert not system or all(system in text for *_, text in ours)


@pytest.mark.parametrize("chat", [False, True])
def test_direct_asks_of_every_task_exactly_what_stock_lm_eval_asks(chat: bool) -> None:
    """Prompt, stops, tokens, sampling and labels, to the byte: a score under ``direct`` can depend on nothing else."""
    found = {name: task_of_examples(task) for name, task in catalog.shipped_tasks().items()}
    template = turns if chat else None
    ours = [bytewise(one) for lm_task in found.values() for one in prompts.requests(lm_task, None, template)]
    theirs = Recorder(list(found.values()), apply_chat_template=chat, fewshot_as_multiturn=chat).asked
    assert sorted(ours) == sorted(theirs)
    assert {kind for kind, *_ in ours} == {"generate_until", "loglikelihood"}
    assert {name for _, name, *_ in ours} == set(found)


def test_direct_is_given_to_the_engine_as_it_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Asked] = []
    real = DummyEngine.answer

    def answer(self: DummyEngine, requests: Any, done: Any) -> list[Any]:
        given.extend(map(bytewise, requests))
        return real(self, requests, done)

    monkeypatch.setattr(DummyEngine, "answer", answer)
    names = ["finbench_mini_sentiment", "finbench_mini_headline", "finbench_mini_ner", "finbench_mini_xbrl_value"]
    dummy(tmp_path, tasks=names, limit=None, profile="direct")
    assert sorted(given) == sorted(Recorder(names).asked)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2")
def test_direct_answers_are_those_of_stock_lm_eval_one_row_at_a_time(tmp_path: Path) -> None:
    """The embedded base in float32, to the byte: with rows in the groups of a run, and a row at a time.

    Half precision cannot be held so: what stands beside a row in a batch rounds otherwise (docs/evaluation.md).
    """
    engine = HFEngine(bases.resolve("smollm2-135m"), dtype="float32")
    names = ["mini_sentiment", "mini_headline", "mini_ner", "mini_xbrl", "mini_xbrl_value"]
    lm_tasks = prompts.load(catalog.expand(names), None)
    asked = [one for lm_task in lm_tasks.values() for one in prompts.requests(lm_task, 8)]
    stock = HFLM(pretrained=engine.plain, tokenizer=engine.tokenizer, batch_size=1)
    theirs = stock.generate_until(asked, disable_tqdm=True)
    assert engine.answer(asked, lambda done: None) == theirs
    assert engine.answer(asked[:10], lambda done: None) == theirs[:10]  # as the first ones are asked, to look at them
    assert len(set(theirs)) > 10
    labels = [
        Instance("loglikelihood", one.doc, (one.args[0], f" {label}"), at, one.metadata)
        for one in prompts.requests(lm_tasks["finbench_mini_sentiment"], 16)
        for at, label in enumerate(one.doc["choices"])
    ]
    ours = engine.answer(labels, lambda done: None)
    for (value, greedy), (their_value, their_greedy) in zip(ours, stock.loglikelihood(labels, True), strict=True):
        assert value == pytest.approx(their_value, abs=1e-3)
        assert greedy == their_greedy


def test_the_settings_are_on_the_card_and_make_a_run_of_their_own(tmp_path: Path) -> None:
    plain = dummy(tmp_path)
    assert plain.generation is None
    told = dummy(tmp_path, system_prompt="Be brief.", chat=True)
    assert told.generation == Generation(profile="direct", system_prompt="Be brief.")
    thought = dummy(tmp_path, profile="think", max_tokens=99)
    assert (thought.generation.profile, thought.generation.max_tokens, thought.subject.chat) == ("think", 99, True)
    assert len({plain.run_key, told.run_key, thought.run_key}) == 3
    assert [verify(path).level for path in sorted(tmp_path.glob("*.json"))] == ["samples-attached"] * 3


REFUSED = [
    ({"profile": "think", "tasks": ["winogrande"]}, "no room to reason", "generated"),
    ({"profile": "cot", "tasks": ["mini_sentiment", "winogrande"]}, "not for winogrande", "--profile"),
    ({"profile": "chat", "chat": False}, "needs the chat template", "--no-chat"),
    ({"max_tokens": 5}, "--max-tokens is for the profiles", "--profile think"),
    ({"temperature": 0.5}, "--temperature is for the profiles", "--temperature"),
    ({"profile": "think", "samples": 4}, "needs a temperature", "--temperature 0.6"),
    ({"profile": "think", "top_p": 0.5, "temperature": 0.0}, "--top-p is of sampling", "--temperature"),
    ({"profile": "think", "think_end": " "}, "--think-end is empty", "--think-end"),
    ({"fewshot_as_multiturn": True, "shots": 1}, "turns in a chat template only", "--chat"),
    ({"profile": "think", "max_tokens": 0}, "at least 1", ""),
    ({"profile": "think", "temperature": float("nan")}, "temperature", ""),
    ({"profile": "thinks"}, "'direct', 'chat', 'think' or 'cot'", ""),
]


@pytest.mark.parametrize(("options", "message", "hint"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(
    options: dict[str, Any], message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError) as fault:
        dummy(tmp_path / "out", **options)
    assert message in fault.value.message
    assert hint in fault.value.hint
    assert "\n" not in fault.value.message
    assert not list(tmp_path.glob("out/*.json"))


# ---------------------------------------------------------------- samples of a real model


def hf(llama: Path, out: Path, **options: Any) -> Any:
    stated = {**SAMPLED, "tasks": ["mini_sentiment"], "limit": 6, "out": out, "reports": False}
    [card] = evaluator.evaluate(model=str(llama), **stated, **{"arguments": {"dtype": "float32"}, **options})
    return card


def answers(out: Path) -> list[Any]:
    [path] = out.glob("*.json")
    return cardfiles.read_samples(path)


def test_samples_follow_from_the_seed_whatever_runs_beside_them(llama: Path, tmp_path: Path) -> None:
    card = hf(llama, tmp_path / "a")
    rows = answers(tmp_path / "a")
    assert [(row["index"], row["sample"]) for row in rows] == list(itertools.product(range(6), range(3)))
    hf(llama, tmp_path / "b", arguments={"dtype": "float32", "batch_size": 1})
    tokens = [(row["reasoning_tokens"], row["answer_tokens"], row["truncated"]) for row in rows]
    assert tokens == [(r["reasoning_tokens"], r["answer_tokens"], r["truncated"]) for r in answers(tmp_path / "b")]
    [score] = card.scores
    assert score.answers.thinking_tokens + score.answers.answer_tokens == sum(a + b for a, b, _ in tokens)
    assert score.answers.truncated.value == pytest.approx(np.mean([cut for *_, cut in tokens]))
    assert verify(next((tmp_path / "a").glob("*.json")), rerun=6, base=str(llama)).level == "reproduced"


def test_what_was_sampled_before_a_stop_is_not_sampled_again(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finbench.evaluation.journal import Journal

    hf(llama, tmp_path / "whole", arguments={"dtype": "float32", "batch_size": 2})
    real, kept = Journal.keep, []

    def keep(self: Journal, part: Any) -> None:
        real(self, part)
        kept.extend(part)
        if len(kept) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "keep", keep)
    with pytest.raises(Interrupted):
        hf(llama, tmp_path / "torn", arguments={"dtype": "float32", "batch_size": 2})
    hf(llama, tmp_path / "torn", arguments={"dtype": "float32", "batch_size": 2})
    assert len(kept) == len(set(kept)) == 18
    assert answers(tmp_path / "torn") == answers(tmp_path / "whole")


def test_a_run_that_is_killed_goes_on_with_the_same_samples(llama: Path, tmp_path: Path) -> None:
    """kill -9 at forward passes drawn at random, by tests/kills.py; the rows are then those of a run in one go."""
    stated = {**SAMPLED, "model": str(llama), "tasks": ["mini_sentiment"], "limit": 8, "data_dir": str(tmp_path)}
    stated |= {"out": str(tmp_path / "runs"), "arguments": {"dtype": "float32", "batch_size": 4}, "reports": False}
    (tmp_path / "runs").mkdir()
    script = str(Path(__file__).with_name("kills.py"))
    done = subprocess.run([sys.executable, script, json.dumps(stated), "1", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["stops"]
    assert answers(Path(told["out"])) == answers(tmp_path / "runs" / "whole")


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    """Against the softmax itself, cut by hand."""
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0]])
    share = np.exp(np.array([2.0, 1.0, 0.5, 0.0, -1.0]) / 0.7)
    share /= share.sum()
    share[3:] = 0  # the first three have 0.94, the first two 0.85
    share /= share.sum()
    drawn = [Sampling(0.7, 0.9, {0: seed}).tokens(logits, {0: 3})[0] for seed in range(4000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[3:].sum() == 0
    assert (((counts - 4000 * share)[:3] ** 2) / (4000 * share[:3])).sum() < 13.8  # chi-square, p = 0.001
    one = Sampling(0.7, 1.0, {0: 1, 1: 2}).tokens(logits.repeat(2, 1), {0: 5, 1: 9})
    assert one[1] == Sampling(0.7, 1.0, {1: 2}).tokens(logits, {1: 9})[0]


# ---------------------------------------------------------------- statistics


def test_pass_at_k_is_the_mean_over_all_choices_of_k() -> None:
    for right in range(7):
        outcomes = [1] * right + [0] * (6 - right)
        for k in range(1, 7):
            brute = np.mean([max(chosen) for chosen in itertools.combinations(outcomes, k)])
            assert sampling.pass_at(6, right, k) == pytest.approx(brute)


def test_the_commonest_reading_wins_and_a_tie_is_shared() -> None:
    assert sampling.vote(["a", "b", "a"], [1, 0, 1]) == 1
    assert sampling.vote(["a", "b", "b"], [1, 0, 0]) == 0
    assert sampling.vote(["a", "b", "", ""], [1, 0, 0, 0]) == 0.5
    assert sampling.vote(["", ""], [0, 0]) == 0
    same = [("3.20", "3.2"), ("$1,000", "1000"), ("Positive.", "positive"), ("a  b", "A b")]
    same += [("us-gaap:Assets", "**Tag:** Assets"), ('{"b": 1, "a": "X"}', '```json\n{"a": "x",\n"b": 1}\n```')]
    assert all(sampling.reading(one, {}) == sampling.reading(other, {}) for one, other in same)
    assert sampling.reading("5", {}) != sampling.reading("50", {})
    assert sampling.reading("x", {"f": ("up", "up", ("up", "down"))}) == sampling.reading(
        "y", {"f": ("down", "up", ("up", "down"))}
    )
    assert sampling.reading("x", {"parse_rate": 0.0}) == ""


def test_several_samples_give_the_mean_of_their_scores() -> None:
    rng = np.random.default_rng(0)
    labels = ("a", "b", "c")
    values = [(labels[g], labels[p], labels) for g, p in rng.integers(3, size=(240, 2))]
    values = [(values[at - at % 4][0], *values[at][1:]) for at in range(240)]  # one gold a document of four samples
    how = metrics.aggregations("finbench_mini_sentiment")["macro_f1"]
    found = measure(values, how, within=(0, 1), samples=4)
    assert found.value == pytest.approx(np.mean([how(values[run::4]) for run in range(4)]), abs=1e-12)
    gap = paired_difference(values, values[::-1], how, None, 4).measure
    other = np.mean([how(values[::-1][run::4]) for run in range(4)])
    assert gap.value == pytest.approx(found.value - other, abs=1e-9)
    one = measure(values[::4], how, within=(0, 1))
    assert one == measure(values[::4], how, within=(0, 1), samples=1)


def coverage(documents: int, samples: int, size: int, naive: bool = False) -> float:
    """How often the interval of the mean holds the truth: documents of unlike difficulty, in sources of ``size``."""
    rng, hits = np.random.default_rng(documents + samples + size), 0
    for _ in range(400):
        source = np.repeat(rng.beta(1.2, 0.8, size=documents // size), size)
        ease = np.clip(source + rng.normal(0, 0.05, size=documents), 0, 1)
        drawn = (rng.random((documents, samples)) < ease[:, None]).astype(float).ravel().tolist()
        clusters = [str(at // (samples * size)) for at in range(documents * samples)]
        if naive:
            found = measure(drawn, metrics.mean, None, within=(0, 1))
        else:
            found = measure(drawn, metrics.mean, clusters, within=(0, 1), samples=samples)
        assert found.low is not None
        hits += found.low <= 0.6 <= found.high
    return hits / 400


@pytest.mark.parametrize(("documents", "samples", "size"), [(40, 5, 1), (120, 5, 1), (240, 4, 4)])
def test_intervals_respect_documents_and_samples(documents: int, samples: int, size: int) -> None:
    """By simulation: 95 %, up to chance; all answers taken for independent ones hold it far too seldom."""
    assert 0.92 <= coverage(documents, samples, size) <= 0.98
    assert coverage(documents, samples, size, naive=True) < 0.87


def test_a_card_of_samples_has_votes_and_pass_at_k_that_verify_recomputes(tmp_path: Path) -> None:
    card = dummy(tmp_path, profile="think", temperature=0.6, samples=5, limit=60)
    found = card.scores[0].answers
    assert sorted(found.pass_at) == ["1", "2", "4", "5"]
    rows = answers(tmp_path)
    right = np.array([row["values"]["acc"] for row in rows]).reshape(60, 5)
    assert found.pass_at["1"].value == pytest.approx(right.mean()) == pytest.approx(card.scores[0].metrics["acc"].value)
    assert found.pass_at["5"].value == pytest.approx(right.max(axis=1).mean())
    path = next(tmp_path.glob("*.json"))
    edited = json.loads(path.read_text())
    edited["scores"][0]["answers"]["majority"]["value"] = 0.99
    edited["scores"][0]["answers"]["thinking_tokens"] = 5
    path.write_text(json.dumps(edited))
    told = {fault.field for fault in verify(path).faults}
    assert {"scores[finbench_mini_sentiment].answers.thinking_tokens"} <= told
    assert any("majority" in place for place in told)


# ---------------------------------------------------------------- columns


def test_profiles_are_columns_of_their_own_and_compared_only_when_asked(tmp_path: Path) -> None:
    dummy(tmp_path / "d", chat=True)
    dummy(tmp_path / "t", profile="think", arguments={"answers": "gold"})
    files = [next((tmp_path / side).glob("*.json")) for side in "dt"]
    with pytest.raises(FinbenchError, match="profile: direct and think") as fault:
        finbench.compare(files)
    assert "--across-profiles" in fault.value.hint
    [pair] = finbench.compare(files, across_profiles=True)
    assert pair.contests[0].winner == "b"
    report = finbench.report(files)
    assert "mini_sentiment, chat template" in report
    assert "mini_sentiment, think" in report
    assert len(terminal_tables([cardfiles.read(file) for file in files])) == 2
    more = dummy(tmp_path / "s", profile="think", temperature=0.5, samples=2)
    assert more.generation.samples == 2
    with pytest.raises(FinbenchError, match="samples: 1 and 2"):
        finbench.compare([files[1], next((tmp_path / "s").glob("*.json"))], across_profiles=True)


# ---------------------------------------------------------------- an endpoint


class Thinker:
    """A server that thinks: with a reasoning parser or without; one that takes no chat_template_kwargs."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.strict = self.parses = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply({"data": [{"id": "thinker"}]})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.seen.append(asked)
                if owner.strict and "chat_template_kwargs" in asked:
                    self.reply({"error": {"message": "Unrecognized request argument: chat_template_kwargs"}}, 400)
                    return
                cut = asked["max_tokens"] < 20
                thought, answer = "Is it positive? negative?", "" if cut else "\n\nneutral\nFor it is."
                message = {"content": f"<think>{thought}" + ("" if cut else f"</think>{answer}")}
                if owner.parses:
                    message = {"content": answer or None, "reasoning_content": thought}
                usage = {"completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 25}}
                reason = "length" if cut else "stop"
                self.reply({"choices": [{"message": message, "finish_reason": reason}], "usage": usage})

            def reply(self, body: Any, state: int = 200) -> None:
                text = json.dumps(body).encode()
                self.send_response(state)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def thinker() -> Iterator[Thinker]:
    """It runs for one test."""
    made = Thinker()
    yield made
    made.server.shutdown()


@pytest.mark.parametrize("parses", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_an_endpoint_thinks_to_the_end_and_its_final_part_is_scored(
    thinker: Thinker, parses: bool, strict: bool, tmp_path: Path
) -> None:
    thinker.parses, thinker.strict = parses, strict
    stated: dict[str, Any] = {"engine": "server", "model": "thinker", "tasks": ["mini_sentiment"], "limit": 6}
    stated |= {"arguments": {"url": thinker.url}, "profile": "think"}
    [card] = evaluator.evaluate(**stated, out=tmp_path / "a", max_tokens=64)
    [score] = card.scores
    assert {row["answer"] for row in answers(tmp_path / "a")} == {
        "neutral\nFor it is."
    }  # whole: the grammar reads lines
    assert (score.parse_rate.value, score.answers.thinking_tokens, score.answers.answer_tokens) == (1.0, 150, 30)
    answered = [asked for asked in thinker.seen if not (strict and "chat_template_kwargs" in asked)]
    assert len(answered) == 6
    assert all("stop" not in asked and asked["max_tokens"] == 64 for asked in thinker.seen)
    assert all(strict or asked["chat_template_kwargs"]["enable_thinking"] for asked in answered)
    [cut] = evaluator.evaluate(**stated, out=tmp_path / "b", max_tokens=8)
    assert (cut.scores[0].answers.truncated.value, cut.scores[0].parse_rate.value) == (1.0, 0.0)
    assert {row["answer"] for row in answers(tmp_path / "b")} == {""}
    [path] = (tmp_path / "b").glob("*.json")
    assert verify(path).level == "samples-attached"


@pytest.mark.parametrize("options", [{}, {"samples": 3, "temperature": 0.5}])
def test_first_answers_of_a_profile_are_looked_at(
    options: dict[str, Any], llama: Path, tmp_path: Path, capsys: Any
) -> None:
    """Whose answers are taken apart, and may be several for a document."""
    stated = {"tasks": ["mini_sentiment"], "limit": 12, "profile": "chat", "max_tokens": 4, "look": 2, **options}
    evaluator.evaluate(model=str(llama), out=tmp_path, **stated)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("raw answer") == 2
    assert "WARNING" in said
    assert "--max-tokens" in said
