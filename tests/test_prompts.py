"""Several prompts of a task: what they say, what they give together, and that nothing else changes by them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import finbench
from finbench import evaluation
from finbench.cards import byprompt, cardfiles
from finbench.cards.render import html, markdown
from finbench.cards.reporting import FORMATS
from finbench.cli.show import scorecards
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.files import digest
from finbench.core.measures import Measure
from finbench.core.records import Generation
from finbench.engines import DummyEngine, choices
from finbench.scoring import metrics, prompted, prompts, task_of_examples, wordings
from finbench.scoring.crossed import crossed
from finbench.scoring.stats import t_quantile

RANKED = [task.name for task in catalog.expand(["finbench", "mc", "long"])]
LABELS = "finbench_mini_sentiment"


def shown_by(lm_task: Any, doc: dict[str, Any]) -> list[str]:
    """Every text that the model sees of a row: of each choice its own where they differ."""
    made = prompts.prompt(lm_task, doc)
    return made if isinstance(made, list) else [made]


@pytest.mark.parametrize("name", RANKED)
def test_every_ranked_task_has_eight_prompts_that_show_the_row_and_not_its_answer(name: str) -> None:
    """At least eight, no two alike; the first is the task's own, bit for bit; none changes with the answer."""
    task = catalog.tasks()[name]
    lm_task, known = task_of_examples(task), wordings.of(task)
    assert len(known) >= 8
    assert len({one.name for one in known}) == len(known)
    golden = json.loads((paths.shipped("tasks") / "golden" / f"{name}.json").read_text())
    docs = list(lm_task.dataset["test"])
    for doc, pair in zip(docs, golden["pairs"], strict=True):
        asked = [wordings.put(lm_task, one) for one in known]
        assert list(prompts.pair(asked[0], doc)) == pair
        every = [
            (tuple(shown_by(one, doc)), tuple(one.doc_to_choice(doc) if task.form == "choice" else ())) for one in asked
        ]
        assert len(set(every)) == len(every)
        for wording, one, (texts, _) in zip(known, asked, every, strict=True):
            assert all(part in text for text in texts for part in doc["text"].split("_")[:1])
            assert doc["text"] in texts[0] or lm_task.multiple_input
            for field, other in (("label", None), ("answer", "4711"), ("score", 0.125), ("entities", [])):
                if field not in doc or lm_task.multiple_input:
                    continue
                if field == "label":
                    labels = list(range(len(doc["choices"]))) if isinstance(doc["label"], int) else doc["choices"]
                    other = next(label for label in labels if label != doc["label"])
                assert shown_by(one, {**doc, field: other}) == list(texts), wording.name


@pytest.mark.parametrize("name", [name for name in RANKED if catalog.tasks()[name].form == "generate"])
def test_every_prompt_of_a_generated_answer_says_which_labels_there_are_or_what_form_it_has(name: str) -> None:
    """An answer is read strictly: a prompt that says less than another would be judged by what it left out."""
    task = catalog.tasks()[name]
    lm_task = task_of_examples(task)
    for wording in wordings.of(task):
        asked = wordings.put(lm_task, wording)
        for doc in lm_task.dataset["test"]:
            own = {**doc, **{field: "#" for field in ("text", "question", "options", "formula_name") if field in doc}}
            [said] = shown_by(asked, {**own, "history": []} if "history" in doc else own)
            listed = wordings.labels_of(asked, doc) if task.labels and "entities" not in doc else []
            if "options" in doc or "numeral" in doc:
                listed = []
            assert all(re.search(rf"\b{re.escape(str(label))}\b", said) for label in listed), (wording.name, said)
            assert listed or len(re.findall(r"[a-z-]{3,}", said.lower())) >= 3, (wording.name, said)


@pytest.mark.parametrize("name", [name for name in RANKED if catalog.tasks()[name].labels])
def test_words_for_labels_are_one_to_one_and_read_by_the_tasks_own_scorer(name: str) -> None:
    """Every right answer is right by every prompt, every label is read back as itself, another one is wrong."""
    task = catalog.tasks()[name]
    lm_task = task_of_examples(task)
    for wording in wordings.of(task):
        asked = wordings.put(lm_task, wording)
        assert len(set(wording.words.values())) == len(wording.words)
        assert not wording.words or wording.words.keys() == set(task.labels or ())
        for doc in lm_task.dataset["test"]:
            right = prompts.gold_answer(asked, doc)
            if task.form == "choice":
                options = asked.doc_to_choice(doc)
                assert len(set(options)) == len(options)
                results: list[Any] = [(float(option == right), True) for option in options]
                assert asked.process_results(doc, results)["acc"] == 1
            elif "entities" not in doc:
                for label in task.labels or ():
                    word = wordings.words_of(wording, doc).get(label, label)
                    found = asked.process_results(doc, [f" {word}."])
                    assert found["acc"] == float(label == doc["label"]), (wording.name, label)
                    assert found["parse_rate"] == 1
                read = [value for value in found.values() if isinstance(value, tuple)]
                assert all(doc["label"] in value for value in read)


def test_the_prompts_are_those_of_their_version() -> None:
    """Prompts that change under one version would make scores of one name differ."""
    stated = catalog.read_yaml(paths.shipped("tasks") / "_prompts")
    golden = json.loads((paths.shipped("tasks") / "golden" / "_prompts.json").read_text())
    assert {"version": stated["version"], "digest": digest(stated)} == golden


def test_eight_prompts_share_what_they_can() -> None:
    """Tokens of eight prompts in trees are at most three times those of one, of texts as long as the PhraseBank's.

    Words and signs stand in for tokens.
    """
    task = catalog.tasks()[LABELS]
    [lm_task] = prompts.load([task], None).values()

    rows = list(lm_task.dataset["test"])
    docs = [{**one, "text": f"{one['text']} {two['text']}"} for one, two in zip(rows[::2], rows[1::2], strict=True)]

    def tokens(wanted: list[wordings.Wording]) -> int:
        groups: dict[str, list[choices.Request]] = {}
        for one in wanted:
            asked = wordings.put(lm_task, one)
            for doc in docs:
                known = [hash(part) for part in re.findall(r"\w+|[^\w ]", str(prompts.prompt(asked, doc)))]
                groups.setdefault(wordings.start(asked), []).append((known, [0]))
        plans = [choices.plan(requests, 2048) for requests in groups.values()]
        return sum(len(plan.prefix) + sum(len(tree.tokens) for tree in plan.trees) for plan in plans)

    known = wordings.of(task)
    assert tokens(known[:8]) <= 3 * tokens(known[:1])


def test_the_interval_of_the_mean_covers_other_documents_and_other_prompts() -> None:
    """By simulation of known components: 95 % of the intervals hold the truth; over documents alone far fewer."""
    rng, held, alone, found = np.random.default_rng(0), 0, 0, []
    for _ in range(400):
        by_document, by_prompt = rng.normal(0, 0.3, 120), rng.normal(0, 0.1, (8, 1))
        table = 0.6 + by_document + by_prompt + rng.normal(0, 0.3, (8, 120))
        own = crossed(table)
        found.append([own.document, own.prompt, own.rest])
        held += abs(own.mean - 0.6) <= t_quantile(own.df) * own.error
        alone += abs(table[0].mean() - 0.6) <= 1.96 * table[0].std(ddof=1) / 120**0.5
    assert 0.92 <= held / 400 <= 0.98
    assert alone / 400 < 0.7
    assert np.mean(found, axis=0) == pytest.approx([0.09, 0.01, 0.09], rel=0.1)
    assert sum(own.share.values()) == pytest.approx(1)
    assert crossed(np.full((3, 5), 0.5)).error == 0


def test_where_all_answers_are_alike_the_mean_has_the_interval_of_the_own_prompt() -> None:
    own = Measure(value=1.0, low=0.97, high=1.0, method="exact")
    assert prompted._mean(np.ones((8, 60)), [own] * 8, (0.0, 1.0))[0] == own


def test_pseudo_values_have_the_metric_as_their_mean() -> None:
    """Also of sources with several documents, and of a metric that is no sum."""
    values = [("a", said, ("a", "b")) for said in "abaabb"]
    how, clusters = paths.helper("labels").macro_f1, ["x", "x", "y", "z", "z", "z"]
    for metric in (how, lambda items: how(items)):
        found = prompted.pseudo_values(values, metric, clusters, 1)
        assert len(found) == 3
        assert found.mean() == pytest.approx(how(values))


def scored(out: Path, **stated: Any) -> finbench.Scorecard:
    """A card of the dummy engine, which answers at random."""
    return finbench.evaluate(
        model="smollm2-135m", engine="dummy", tasks="mini_sentiment", limit=40, out=out, reports=False, **stated
    )[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cards of a random and a perfect subject by eight prompts."""
    out = tmp_path_factory.mktemp("prompts")
    scored(out / "random", prompts="8")
    scored(out / "gold", prompts="8", arguments={"answers": "gold"})
    return out


def test_a_card_of_several_prompts_is_that_of_its_own_prompt_and_more(folder: Path, tmp_path: Path) -> None:
    """Numbers and rows by the task's own prompt are those of a card without others; what others gave stands beside."""
    plain = scored(tmp_path)
    several = cardfiles.read(folder / "random" / "dummy.json")
    [own], [more] = plain.scores, several.scores
    same = {"prompts", "seconds"}
    assert own.model_dump(exclude=same) == more.model_dump(exclude=same)
    assert own.prompts is None
    rows = cardfiles.read_samples(folder / "random" / "dummy.json")
    assert prompted.rows_of(rows, "default") == cardfiles.read_samples(tmp_path / "dummy.json")
    found = more.prompts
    assert found is not None
    names = [one.name for one in found.each]
    assert names == [one.name for one in wordings.of(catalog.tasks()[LABELS])[:8]]
    assert found.each[0].main == more.main
    values = {one.name: one.main.value for one in found.each}
    assert found.spread == pytest.approx(max(values.values()) - min(values.values()))
    assert values[found.worst] == min(values.values())
    assert found.label_order_bias is not None
    assert found.answer_position_bias is None
    [perfect] = cardfiles.read(folder / "gold" / "dummy.json").scores
    assert perfect.prompts is not None
    assert perfect.prompts.spread == 0
    assert all(one.main.value == one.parse_rate == 1 for one in perfect.prompts.each)


def test_verify_recomputes_what_the_prompts_gave(folder: Path) -> None:
    """A whole card is believed; a number, an answer or a place that was changed is named."""
    path = folder / "random" / "dummy.json"
    assert not evaluation.verify(path).faults
    card, rows = cardfiles.read(path), cardfiles.read_samples(path)
    forged = folder / "forged" / "dummy.json"
    forged.parent.mkdir()
    [score] = card.scores
    assert score.prompts is not None
    better = score.model_copy(update={"prompts": score.prompts.model_copy(update={"spread": 0.0})})
    cardfiles.write(forged, card.model_copy(update={"scores": [better]}), rows)
    assert any(fault.field.endswith("prompts.spread") for fault in evaluation.verify(forged).faults)
    for name, change in (
        ("values", {"acc": 1.0}),
        ("answer", "positive"),
        ("place", "first"),
        ("more", 1),
    ):
        torn = json.loads(json.dumps(rows))
        entry = next(
            row["prompts"]["reversed"]
            for row in torn
            if row["prompts"]["reversed"]["values"]["acc"] == 0
            and row["prompts"]["reversed"]["place"] != "first"
            and row["prompts"]["reversed"]["answer"] != "positive"
        )
        entry[name] = {**entry["values"], **change} if name == "values" else change
        cardfiles.write(forged, card, torn)
        assert evaluation.verify(forged).faults, name
    for hostile in ({"reversed": 1}, {}, {"reversed": {"values": 3}}):
        torn = json.loads(json.dumps(rows))
        torn[0]["prompts"] = hostile
        cardfiles.write(forged, card, torn)
        assert evaluation.verify(forged).faults


@pytest.mark.parametrize("prompt", ["own", "reversed"])
def test_labels_of_ones_own_are_refused_before_anything_is_computed_over_them(
    prompt: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the million, in one row, they would fill memory."""
    path, forged = folder / "random" / "dummy.json", tmp_path / "forged.json"
    card, rows = cardfiles.read(path), json.loads(json.dumps(cardfiles.read_samples(path)))
    values = rows[0]["values"] if prompt == "own" else rows[0]["prompts"][prompt]["values"]
    values["macro_f1"][2] = [*values["macro_f1"][2], *map(str, range(100))]
    cardfiles.write(forged, card, rows)
    monkeypatch.setattr(prompted, "summary", lambda *_: pytest.fail("something is computed over them"))
    assert "is nothing that the task's scorer gives" in evaluation.verify(forged).faults[0].message


def test_a_card_that_leaves_the_tasks_own_prompt_out_is_refused(folder: Path, tmp_path: Path) -> None:
    """The first prompt's answers are those of the rows themselves; another in its place would be read by nobody."""
    path = folder / "random" / "dummy.json"
    card, rows = cardfiles.read(path), json.loads(json.dumps(cardfiles.read_samples(path)))
    for row in rows:
        gold, _, labels = row["prompts"]["cue"]["values"]["macro_f1"]
        row["prompts"]["cue"]["values"] |= {"acc": 1.0, "macro_f1": [gold, gold, labels]}  # not what it answered
        row["prompts"] = {name: row["prompts"][name] for name in ("cue", "lead")}
    task, [score] = catalog.tasks()[LABELS], card.scores
    how = metrics.aggregations(LABELS)[task.main_metric]
    said = prompted.summary(task, wordings.of(task)[1:3], rows, how, {})
    forged = tmp_path / "forged.json"
    cardfiles.write(forged, card.model_copy(update={"scores": [score.model_copy(update={"prompts": said})]}), rows)
    [fault] = evaluation.verify(forged, rerun=0).faults
    assert fault.field.endswith("prompts.each")


def test_what_was_answered_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped goes on where it was; more prompts are one more run into the same card, fewer are none."""
    whole, counts = DummyEngine.answer, []

    def stopped(self: Any, requests: Any, done: Any) -> Any:
        whole(self, requests[: len(requests) // 2], done)
        raise KeyboardInterrupt

    def counted(self: Any, requests: Any, done: Any) -> Any:
        counts.append(len(requests))
        return whole(self, requests, done)

    monkeypatch.setattr(DummyEngine, "answer", stopped)
    with pytest.raises(Interrupted):
        scored(tmp_path, prompts="8")
    monkeypatch.setattr(DummyEngine, "answer", counted)
    [first] = scored(tmp_path, prompts="8").scores
    assert counts == [160]
    assert first.prompts is not None
    assert scored(tmp_path).scores == scored(tmp_path, prompts="words").scores == [first]
    assert counts == [160]
    [more] = scored(tmp_path, prompts="all").scores
    assert counts == [160, 400]
    assert more.prompts is not None
    assert more.prompts.each[:8] == first.prompts.each
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_the_order_of_subjects_by_prompts(folder: Path) -> None:
    """Two subjects that never swap have tau 1; compare says by how many prompts each is ahead."""
    sides = [folder / "gold" / "dummy.json", folder / "random" / "dummy.json"]
    found = finbench.by_prompt(sides)
    [ranks] = found.ranks
    assert (ranks.tau, ranks.swapped, sorted(ranks.firsts.values())) == (1.0, 0.0, [0, 8])
    [pair] = finbench.compare(sides)
    [contest] = pair.contests
    assert len(contest.by_prompt) == 8
    assert all(gap > 0 for gap in contest.by_prompt.values())
    with pytest.raises(FinbenchError, match="No score here"):
        finbench.by_prompt(sides, tasks=["fpb"])


def test_tau_is_kendalls(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The mean over pairs of prompts of scipy's tau between the scores of the subjects."""
    from scipy.stats import kendalltau

    [one] = finbench.by_prompt([folder / "random" / "dummy.json"]).scores
    scores = np.random.default_rng(1).permuted(np.tile(np.arange(5.0), (8, 1)), axis=1).tolist()  # prompts, subjects
    group = []
    for subject in range(5):
        each = [
            prompt.model_copy(update={"main": prompt.main.model_copy(update={"value": scores[at][subject]})})
            for at, prompt in enumerate(one.prompts.each)
        ]
        group.append(
            byprompt.ByPrompt(
                str(subject), one.task, one.metric, one.own, one.prompts.model_copy(update={"each": each})
            )
        )
    taus = [kendalltau(scores[a], scores[b]).statistic for a, b in combinations(range(8), 2)]
    assert byprompt._stability(group).tau == pytest.approx(np.mean(taus))


def test_bias_of_order_is_that_of_a_subject_that_takes_what_is_listed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Always the first: 1; always the last: -1; always one label, wherever it stands: 0."""

    def answering(which: int) -> Any:
        def answer(self: Any, request: Any) -> str:
            listed = re.search(r"\((\w+), (\w+), (\w+)\)", request.args[0])
            return listed.groups()[which] if listed else "neutral"

        return answer

    for which, bias in ((0, 1.0), (2, -1.0), (1, 0.0)):
        monkeypatch.setattr(DummyEngine, "_answer", answering(which))
        [score] = scored(tmp_path / str(which), prompts="bare,reversed").scores
        assert score.prompts is not None
        assert score.prompts.label_order_bias is not None
        assert score.prompts.label_order_bias.value == bias


@pytest.mark.parametrize("n", [40, 60])
def test_a_bias_turned_round_has_the_interval_turned_round(n: int) -> None:
    """To the first or to the last, and to neither: of values that are all 0 or 1, it was that of a share."""
    alone = [str(row) for row in range(n)]
    for leaning in ([1.0] * 3 + [0.0] * (n - 3), [1.0] * n, [1.0] * (n - 5) + [-1.0] * 5, [0.5, 1.0] * (n // 2)):
        one = prompted.leaning_of(leaning, alone)
        other = prompted.leaning_of([-value for value in leaning], alone)
        assert one.value == pytest.approx(sum(leaning) / n) == pytest.approx(-other.value)
        assert (one.low, one.high) == pytest.approx((-(other.high or 0), -(other.low or 0)), abs=0.01)
        assert one.low is not None
        assert -1 <= one.low <= one.value <= (one.high or 0) <= 1
    none = prompted.leaning_of([0.0] * n, alone)
    assert none.low == -(none.high or 0)
    assert 0 < (none.high or 0) < 0.1
    clustered = prompted.leaning_of([0.0] * n, [str(row // 4) for row in range(n)])
    assert (clustered.high or 0) > (none.high or 0)  # fewer sources say less
    assert prompted.leaning_of([0.0], ["a"]).low is None


@pytest.mark.parametrize(
    ("stated", "tasks", "said"),
    [
        ("wrods", "mini_sentiment", "Did you mean words"),
        ("99", "mini_sentiment", "--prompts 99: mini_sentiment has 10 prompts"),
        ("1", "mini_sentiment", "--prompts 1: mini_sentiment has 10 prompts"),
        ("8", "mini_ner", "its own prompt alone"),
        ("wrods", "mini_ner,mini_sentiment", "Did you mean words"),
        ("", "mini_sentiment", "names no prompt beside"),
        (" ,,", "mini_sentiment", "names no prompt beside"),
        ("default", "mini_sentiment", "names no prompt beside"),
    ],
)
def test_prompts_that_a_task_does_not_have_are_refused(stated: str, tasks: str, said: str, tmp_path: Path) -> None:
    """Before anything is loaded or written."""
    with pytest.raises(FinbenchError, match=said):
        finbench.evaluate(model="smollm2-135m", engine="dummy", tasks=tasks, prompts=stated, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_task_without_other_prompts_is_asked_by_its_own_beside_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group is not refused for one of its tasks; which one it was is said."""
    [card] = finbench.evaluate(
        model="smollm2-135m", engine="dummy", tasks="mini_ner,mini_sentiment", prompts="2", limit=8, out=tmp_path
    )
    assert {score.task: bool(score.prompts) for score in card.scores} == {"finbench_mini_ner": False, LABELS: True}
    assert "mini_ner: there is no other prompt" in " ".join(capsys.readouterr().err.split())


def test_reports_and_the_end_of_a_run_show_what_prompts_gave(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``report.md``, ``report.html`` and ``finbench report`` name mean, spread and worst prompt; then what to type."""
    path = folder / "random" / "dummy.json"
    card = cardfiles.read(path)
    found = card.scores[0].prompts
    assert found is not None
    mean = f"{100 * found.mean.value:.1f}"
    for text in (markdown([card]), html([card]), *(finbench.report([path], format=kind) for kind in FORMATS)):
        assert all(part in text for part in (mean, found.worst)), text
    scorecards.scored([card], tmp_path)
    assert f"Next: finbench card prompts {tmp_path / 'dummy.json'}" in capsys.readouterr().out
    sure = card.model_copy(update={"generation": Generation(profile="chat", confidence=True)})
    scorecards.scored([sure], tmp_path)
    assert f"Next: finbench card calibration {tmp_path / 'dummy.json'}" in capsys.readouterr().out


def test_a_prompt_by_which_several_are_first_counts_for_none_of_them(folder: Path) -> None:
    sides = [folder / "gold" / "dummy.json", folder / "gold" / "dummy.json"]
    one, other = (finbench.by_prompt([path]).scores[0] for path in sides)
    ranks = byprompt._stability([replace(one, subject="a"), replace(other, subject="b")])
    assert (ranks.firsts, ranks.tied) == ({"a": 0, "b": 0}, 8)


def test_a_rerun_asks_every_prompt_of_the_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another prompt gave is asked again too: other answers to it alone are a fault of its name."""
    path = folder / "gold" / "dummy.json"
    found = evaluation.verify(path, rerun=5)
    assert not found.faults
    assert any("by 7 of 7 other prompts" in check for check in found.checks)
    honest = DummyEngine._answer

    def lying(self: Any, request: Any) -> Any:
        return "good" if "(bad, neutral, good)" in request.args[0] else honest(self, request)

    monkeypatch.setattr(DummyEngine, "_answer", lying)
    found = evaluation.verify(path, rerun=20)
    assert [fault.field for fault in found.faults] == [f"samples[{LABELS}].prompts.words"]
    assert found.level == "none"


def test_a_template_is_compiled_once_and_not_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import Environment

    compiled: list[str] = []
    plain: Any = Environment.compile

    def counted(self: Any, source: str, *rest: Any) -> Any:
        compiled.append(source)
        return plain(self, source, *rest)

    monkeypatch.setattr(Environment, "compile", counted)
    lm_task = prompts.load([catalog.tasks()[LABELS]], None)[LABELS]
    assert len(prompts.requests(lm_task)) > 50
    assert len(compiled) == len(set(compiled))
