"""Pairs of answers: which they are, the loss and its gradients, exact resume, the record, refusals."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import finbench
from conftest import Once
from finbench.cards import cardfiles
from finbench.cli.app import app
from finbench.cli.show import trainings
from finbench.core import catalog
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Adapter, Recipe
from finbench.core.seal import salted
from finbench.data import import_data
from finbench.models import adapters, bases
from finbench.scoring import prompts, task_of_examples
from finbench.training import loops, pairwise, preferences, recipes, runner
from finbench.training.trainer import Keeper, arguments
from make_data import write_sources

PAIRS = [
    ("The sentiment of: sales rose.\nAnswer:", " positive", " neutral"),
    ("The sentiment of: sales fell.\nAnswer:", " negative", " positive"),
    ("The sentiment of: the board met.\nAnswer:", " neutral", " positive, I think, since boards are good"),
    ("Short:", " yes", " no no no"),
]


def file_of(path: Path, pairs: Any = PAIRS, names: tuple[str, str, str] = ("prompt", "chosen", "rejected")) -> Path:
    path.write_text("".join(json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs))
    return path


def recipe(base: Path, pairs: Path, **overrides: Any) -> Recipe:
    stated = {"base": str(base), "preferences": str(pairs), "batch_size": 2, "rank": 4, "dtype": "float32", "lr": 1e-2}
    return recipes.recipe(None, {**stated, **overrides})


def trained(stated: Recipe, out: Path, **how: Any) -> Adapter:
    made = runner.train(stated, out, **how)
    assert isinstance(made, Adapter)
    return made


@pytest.fixture(scope="session")
def card(once: Once, llama: Path) -> Path:
    """A card of a base on train rows: it answers with what is no label, or with nothing."""

    def make(folder: Path) -> None:
        how = {"tasks": "mini_sentiment", "limit": 8, "reports": False}
        finbench.evaluate(model=str(llama), metadata={"split": "train"}, out=folder, **how)

    [path] = once("card-of-train", make).glob("*.json")
    return path


@pytest.fixture(scope="session")
def start(once: Once, llama: Path) -> Path:
    """An adapter that learnt rows."""

    def make(folder: Path) -> None:
        stated = {"base": str(llama), "tasks": ["mini_sentiment"], "limit": 8, "batch_size": 4, "rank": 4}
        trained(recipes.recipe(None, {**stated, "dtype": "float32", "lr": 1e-2, "name": "begun"}), folder)

    return once("start-of-pairs", make)


def rewritten(card: Path, folder: Path, change: Any, **of_card: Any) -> Path:
    """The card with its sample rows changed one by one, and ``of_card``."""
    rows = cardfiles.read_samples(card)
    for row in rows:
        change(row)
    folder.mkdir(exist_ok=True)
    made = cardfiles.read(card).model_copy(update=of_card)
    cardfiles.write(folder / card.name, made, rows)
    return folder / card.name


def prepared(stated: Recipe) -> Any:
    return runner.prepare(stated)


# ---------------------------------------------------------------- the loss


def alone(model: Any, row: Any) -> Any:
    """The log-probability of a row's answer, by the model as it is and without anything of ours."""
    ids = torch.tensor([row.ids])
    found = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    at = torch.arange(len(row.ids) - 1)
    return found[at, ids[0, 1:]][row.prompt - 1 :].sum()


@pytest.mark.parametrize("loop", ["padded", "packed", "shared"])
@pytest.mark.parametrize(("tokens", "sft"), [(40, 0.0), (2048, 0.0), (40, 0.7)])
def test_loss_and_gradients_are_the_formula(llama: Path, tmp_path: Path, loop: str, tokens: int, sft: float) -> None:
    pairs = file_of(tmp_path / "pairs.jsonl")
    run = prepared(recipe(llama, pairs, loop=loop, batch_size=4, beta=0.3, sft_weight=sft, pass_tokens=tokens))
    model, _ = runner.begin(run, torch.float32)
    how = arguments(run.recipe, run.steps, tmp_path, torch.float32)
    given = {"model": model, "args": how, "train_dataset": run.rows}
    trainer = pairwise.PairTrainer(run.sampler, None, run.recipe, run.passes, **given)
    with torch.no_grad():
        before = [[float(alone(model, row)) for row in (pair.chosen, pair.rejected)] for pair in run.rows]
    with trainer.at_work():
        trainer.refer(run.rows)
        torch.manual_seed(3)
        for tensor in trainer.trained():
            tensor.data += 0.05 * torch.randn_like(tensor)
        loss = trainer.training_step(model, {"rows": list(run.rows)})
    assert trainer.reference.tolist() == pytest.approx(torch.tensor(before), abs=1e-4)
    ours = [tensor.grad.clone() for tensor in trainer.trained()]
    model.zero_grad()
    losses, margins = [], []
    for pair, (chosen, rejected) in zip(run.rows, before, strict=True):
        margin = 0.3 * ((alone(model, pair.chosen) - chosen) - (alone(model, pair.rejected) - rejected))
        row = alone(model, pair.chosen) / pair.chosen.answer
        losses.append(-torch.nn.functional.logsigmoid(margin) - sft * row)
        margins.append(margin.item())
    expected = torch.stack(losses).mean()
    expected.backward()
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    for tensor, mine in zip(trainer.trained(), ours, strict=True):
        assert torch.allclose(mine, tensor.grad, atol=1e-5 * float(tensor.grad.abs().max()) + 1e-7, rtol=1e-4)
    right, total, count = trainer.tally.tolist()
    assert (right, count) == (sum(margin > 0 for margin in margins), 4)
    assert total == pytest.approx(sum(margins), abs=1e-4)


def test_a_prompt_is_run_once_for_both_its_answers(llama: Path, tmp_path: Path) -> None:
    long = [
        ("Is this sentence positive, negative or neutral? " * 3 + f"{n}\nAnswer:", " positive", " neutral")
        for n in "ab"
    ]
    run = prepared(recipe(llama, file_of(tmp_path / "pairs.jsonl", long)))
    rows = [row for pair in run.rows for row in (pair.chosen, pair.rejected)]
    assert run.passes.loop == "shared"
    assert run.passes.run(run.rows) < 0.5 * sum(len(row.ids) for row in rows)
    cut = pairwise.PairPasses("shared", 2, tokens=30).cut(run.rows)
    assert [len(part) for part in cut] == [1, 1]  # never through a pair


# ---------------------------------------------------------------- the run


def test_it_learns_what_is_preferred_and_the_record_says_of_what(llama: Path, start: Path, tmp_path: Path) -> None:
    pairs = file_of(tmp_path / "mine.jsonl", [(f"Is {name} good?\nAnswer:", " yes", " no no") for name in "abcd"])
    made = trained(recipe(llama, pairs, start=str(start), epochs=6), tmp_path / "a")
    curve = [loss for _, loss in made.training.loss_curve]
    assert curve[0] == pytest.approx(math.log(2), abs=1e-5)  # nothing is gained before the first step
    assert curve[-1] < 0.6
    assert made.training.preferred is not None
    assert made.training.preferred.accuracy == 1.0
    assert made.training.preferred.margin > 0.1
    assert made.recipe.preferences is not None
    assert made.recipe.start is not None
    assert (made.recipe.preferences.source, made.recipe.start.source) == ("mine.jsonl", start.name)
    assert made.recipe.start.identity == adapters.find(str(start)).identity
    assert [(part.set, part.rows) for part in made.data] == [("mini_sentiment", 8), ("mine.jsonl", 4)]
    assert made.recipe.tasks == {"finbench_mini_sentiment": 1.0}  # what it can do, as its start could
    assert made.contamination == adapters.record(start).contamination
    assert str(tmp_path) not in (tmp_path / "a" / "finbench.json").read_text()
    page = (tmp_path / "a" / "training.html").read_text()
    assert all(said in page for said in ("nats a pair (DPO)", "Margin", "Accuracy"))
    assert "4 pairs of answers, DPO with beta 0.1" in (tmp_path / "a" / "README.md").read_text()
    again = trained(recipe(llama, pairs, start=str(start), epochs=6), tmp_path / "a")
    assert again == made  # there already: not trained again
    with pytest.raises(FinbenchError, match="another adapter .*beta"):
        runner.train(recipe(llama, pairs, start=str(start), epochs=6, beta=0.5), tmp_path / "a")


def test_it_starts_with_the_weights_of_the_adapter(llama: Path, start: Path, tmp_path: Path) -> None:
    stated = recipe(llama, file_of(tmp_path / "pairs.jsonl"), start=str(start))
    model, _ = runner.begin(prepared(stated), torch.float32)
    from peft import get_peft_model_state_dict

    stored, there = load_file(start / "adapter_model.safetensors"), get_peft_model_state_dict(model)
    assert stored.keys() == there.keys()
    assert all(torch.equal(stored[name], there[name]) for name in stored)
    assert (stated.rank, stated.base) == (4, str(llama))


def test_a_run_that_was_stopped_ends_in_the_same_bits(
    llama: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = recipe(llama, file_of(tmp_path / "pairs.jsonl"), start=str(start), epochs=3, save_every=2)
    trained(stated, tmp_path / "whole")
    real = Keeper.on_step_end

    def stopping(self: Any, args: Any, state: Any, control: Any, **other: Any) -> None:
        self.interrupted = state.global_step == 3
        real(self, args, state, control, **other)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_step_end", stopping)
        with pytest.raises(Interrupted):
            trained(stated, tmp_path / "stopped")
    trained(stated, tmp_path / "stopped", resume=True)
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- which pairs


def test_a_card_gives_the_right_answer_beside_the_failure(card: Path, llama: Path, tmp_path: Path) -> None:
    rows = {row["index"]: row for row in cardfiles.read_samples(card)}

    def change(row: dict[str, Any]) -> None:
        """Row 0 answers rightly, row 1 with nothing, row 2 is known by a hash that nobody can read, row 3 by one."""
        if row["index"] == 0:
            gold = row["values"]["macro_f1"][0]
            row["values"] |= {
                name: [gold, gold, row["values"]["macro_f1"][2]] for name in ("macro_f1", "mcc", "weighted_f1")
            }
        if row["index"] == 1:
            row["answer"] = " "
        if row["index"] in (2, 3):
            del row["answer"]
            wrong = "neutral" if row["values"]["macro_f1"][0] != "neutral" else "positive"
            row["answer_sha256"] = salted("who knows" if row["index"] == 2 else f" {wrong}")

    path = rewritten(card, tmp_path / "cards", change)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preferences, "say", said.append)
        run = prepared(recipe(llama, path))
    assert said == [
        "mini_sentiment: 5 pairs; left out: 1 empty, 1 known by a hash alone, for the licence lets no text be shown."
    ]
    lm_task = prompts.load(catalog.expand(["mini_sentiment"]), None, metadata={"split": "train"})[
        "finbench_mini_sentiment"
    ]
    docs, tokenizer = prompts.rows(lm_task, "test"), bases.load_tokenizer(run.base)
    assert len(rows) == 8
    for pair, number in zip(run.rows, (3, 4, 5, 6, 7), strict=True):
        prompt, answer = prompts.pair(lm_task, docs[number])
        assert tokenizer.decode(pair.chosen.ids, skip_special_tokens=True) == prompt + answer
        shown = tokenizer.decode(pair.rejected.ids[pair.rejected.prompt :], skip_special_tokens=True)
        assert shown.strip() in (("neutral", "positive") if number == 3 else (rows[number]["answer"].strip(),))
    [part] = run.data
    assert (part.set, part.rows, part.choices) == ("mini_sentiment", 5, {"split": "train"})
    assert part.digest != prepared(recipe(llama, card)).data[0].digest


def test_choices_give_the_likeliest_label() -> None:
    task = catalog.tasks()["finbench_fpb_mc"]
    lm_task = task_of_examples(task)
    docs = prompts.rows(lm_task, "test")
    labels = [str(label) for label in lm_task.doc_to_choice(docs[0])]
    assert preferences._said({"answer": [-3.0, -0.5, -2.0]}, lm_task, docs[0]) == labels[1]
    right = preferences._right(task, lm_task, docs)
    assert [row["values"]["acc"] for row in right] == [1.0] * len(docs)


def test_rows_of_other_names_and_in_a_template(llama: Path, tmp_path: Path) -> None:
    pairs = file_of(tmp_path / "p.jsonl", [("Up?", "yes", "no")], ("question", "good", "bad"))
    named = {"preferences": {"source": str(pairs), "map": {"prompt": "question", "chosen": "good", "rejected": "bad"}}}
    raw = prepared(recipe(llama, pairs, **named))
    assert raw.first_pair == ["Up?", " yes", "\n[instead of]", " no"]
    chat = prepared(recipe(llama, pairs, **named, chat=True))
    assert chat.first_pair[0].endswith("<assistant>")
    assert chat.first_pair[1] == "yes"


# ---------------------------------------------------------------- refusals


def of_test(card: Path) -> list[tuple[str, str, str]]:
    lm_task = prompts.load(catalog.expand(["mini_sentiment"]), None)["finbench_mini_sentiment"]
    doc = prompts.rows(lm_task, "test")[0]
    return [*PAIRS, (f"Read this: {doc['text']}\nAnswer:", " yes", " no")]


@pytest.mark.parametrize(
    ("pairs", "said", "hint"),
    [
        ([("a?", "b", "b ")], "1 rows of p.jsonl are no pairs:\n  p.jsonl:1: its two answers are the same", "bad_rows"),
        ([("a?", "b", "")], "p.jsonl:1: its rejected is empty", "bad_rows"),
        ([(" ", "b", "c")], "p.jsonl:1: its prompt is empty", "bad_rows"),
        ([("a?", "b", 3)], "p.jsonl:1: its rejected is no text", "bad_rows"),
        ([("a?", "b\ud83d", "c")], "p.jsonl:1: its chosen has half of a character", "bad_rows"),
        ([("a " * 600, "b", "c")], "1 of 1 pairs of p.jsonl are longer than 512 tokens", "long_rows=drop"),
    ],
)
def test_rows_that_are_no_pairs(llama: Path, tmp_path: Path, pairs: Any, said: str, hint: str) -> None:
    with pytest.raises(FinbenchError) as fault:
        prepared(recipe(llama, file_of(tmp_path / "p.jsonl", pairs)))
    assert said in fault.value.message
    assert hint in (fault.value.hint or "")
    with_right = file_of(tmp_path / "p.jsonl", [*PAIRS, *pairs])
    assert len(prepared(recipe(llama, with_right, bad_rows="drop", long_rows="drop")).rows) == 4


def test_rows_of_a_test_are_refused(llama: Path, start: Path, card: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match=r"Of the pairs of p.jsonl, 1 are test rows of mini_sentiment"):
        prepared(recipe(llama, file_of(tmp_path / "p.jsonl", of_test(card)), start=str(start)))


def test_tests_of_a_task_that_is_not_ranked_are_known(tmp_path: Path) -> None:
    task = catalog.tasks()["finbench_finlora_tfns"]
    assert not task.shipped
    assert task not in catalog.expand(["finbench"])
    assert preferences._tests([task.name], tmp_path / "data") == {}  # not here: nothing to look for
    import_data(task.set, write_sources(tmp_path / "s")[task.set], tmp_path / "data")
    assert len(preferences._tests([task.name], tmp_path / "data")[task.set]) > 0


def test_cards_that_give_no_pairs(card: Path, llama: Path, wide: Path, start: Path, tmp_path: Path) -> None:
    def same(row: dict[str, Any]) -> None:
        pass

    def right(row: dict[str, Any]) -> None:
        row["values"]["macro_f1"][1] = row["values"]["macro_f1"][0]

    known = cardfiles.read(card)
    other = [known.scores[0].model_copy(update={"task_digest": 64 * "0", "version": 1})]
    moved = [known.scores[0].model_copy(update={"data": known.scores[0].data.model_copy(update={"digest": 64 * "0"})})]
    for change, of_card, said in (
        (right, {}, "has no strict failure to learn from"),
        (same, {"arguments": {}}, "is of test rows, which nothing may learn from"),
        (same, {"engine": "dummy"}, "is of the engine dummy, which has no base to train"),
        (same, {"scores": other}, "is of version 1, and here is version"),
        (same, {"scores": moved}, "are not those of the data here"),
        (same, {"shots": 2}, "was asked with 2 worked examples"),
        (same, {"subject": known.subject.model_copy(update={"chat": True})}, "was asked with the chat template"),
    ):
        path = rewritten(card, tmp_path / "cards", change, **of_card)
        with pytest.raises(FinbenchError, match=said):
            prepared(recipe(llama, path))
    with pytest.raises(FinbenchError, match="is of another base"):
        prepared(recipe(wide, card))
    with pytest.raises(FinbenchError, match="was trained on another base"):
        prepared(recipe(wide, card, start=str(start)))
    with pytest.raises(FinbenchError, match="has no answers of finbench_mini_ner"):
        prepared(recipe(llama, card, tasks=["mini_ner"]))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("index", 99, r"Row 99 of finbench_mini_sentiment on tiny-llama's card is of no document"),
        ("index", -1, "Row -1 .* is of no document of the data here"),
        ("doc", 32 * "0", "Row 1 .* is of no document of the data here"),
        ("answer", [-1.0, -2.0], "Row 1 .* has no answer of this task"),
        ("answer", [], "has no answer of this task"),
        ("answer", ["a"], "has no answer of this task"),
        ("answer", None, "has no answer of this task"),
        ("answer", 5, "has no answer of this task"),
    ],
)
def test_sample_rows_that_somebody_wrote(
    card: Path, llama: Path, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    def change(row: dict[str, Any]) -> None:
        if row["index"] == 1:
            row[key] = value

    with pytest.raises(FinbenchError, match=said):
        prepared(recipe(llama, rewritten(card, tmp_path / "cards", change)))


def test_a_card_that_cannot_be_read_is_not_taken_for_rows(card: Path, llama: Path, tmp_path: Path) -> None:
    stated = json.loads(card.read_text())
    (tmp_path / "later.json").write_text(json.dumps({**stated, "schema": 99}))
    with pytest.raises(FinbenchError, match="later.json: schema"):
        prepared(recipe(llama, tmp_path / "later.json"))
    with pytest.raises(FinbenchError, match="is a folder, not a scorecard") as fault:
        prepared(recipe(llama, card.parent))
    assert card.name in (fault.value.hint or "")


def test_the_recipe_of_a_run_learns_the_same_pairs_again(llama: Path, start: Path, tmp_path: Path) -> None:
    how = {"tasks": "mini_sentiment,mini_xbrl_value", "limit": 4, "reports": False}
    [card] = finbench.evaluate(model=str(llama), metadata={"split": "train"}, out=tmp_path, **how)
    of_two = tmp_path / f"{card.subject.name}.json"
    whole = prepared(recipe(llama, of_two, start=str(start)))
    assert prepared(whole.recipe).decisive == whole.decisive  # as each of several processes gathers them
    narrow = prepared(recipe(llama, of_two, start=str(start), tasks=["mini_sentiment"]))
    assert (len(narrow.rows), prepared(narrow.recipe).decisive) == (4, narrow.decisive)
    with pytest.raises(FinbenchError, match="has answers of finbench_mini_sentiment as well, which the adapter"):
        prepared(recipe(llama, of_two, start=str(start), tasks=["mini_xbrl_value"]))


def test_a_test_that_nobody_looked_for_in_the_pairs_is_not_told_as_looked_for(
    llama: Path, start: Path, tmp_path: Path
) -> None:
    shutil.copytree(start, tmp_path / "start")
    stated = json.loads((start / "finbench.json").read_text())
    stated["contamination"] = {"looked_for": {"fpb": 970}, "found": {}, "editions": {}}
    (tmp_path / "start" / "finbench.json").write_text(json.dumps(stated))
    made = prepared(recipe(llama, file_of(tmp_path / "p.jsonl"), start=str(tmp_path / "start")))
    assert made.contamination is not None
    assert "fpb" not in made.contamination.looked_for  # it is not on this machine


def test_a_recipe_in_a_file_names_its_start(llama: Path, start: Path, tmp_path: Path) -> None:
    file_of(tmp_path / "p.jsonl")
    (tmp_path / "r.yaml").write_text(f"base: {llama}\npreferences: p.jsonl\nstart: {{source: {start}}}\nbeta: 0.2\n")
    made = recipes.recipe(str(tmp_path / "r.yaml"))
    assert (made.rank, made.beta) == (4, 0.2)
    (tmp_path / "r.yaml").write_text(f"base: {llama}\npreferences: p.jsonl\nstart: {start}\n")
    assert recipes.recipe(str(tmp_path / "r.yaml")).start == made.start


def test_a_process_without_a_pair_of_its_own_counts_none(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(recipe(llama, file_of(tmp_path / "p.jsonl")))
    model, _ = runner.begin(run, torch.float32)
    given = {"model": model, "args": arguments(run.recipe, run.steps, tmp_path, torch.float32)}
    trainer = pairwise.PairTrainer(run.sampler, None, run.recipe, run.passes, train_dataset=run.rows, **given)
    with trainer.at_work():
        trainer.refer(run.rows)
        monkeypatch.setattr(type(trainer.accelerator), "process_index", 2)
        trainer.training_step(model, {"rows": list(run.rows[:2])})
    assert trainer.tally.tolist() == [0, 0, 0]


def test_a_reference_that_is_not_finite(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loops.log_probabilities

    def some(model: Any, made: Any) -> Any:
        return real(model, made) + (0 if torch.is_grad_enabled() else math.inf)

    monkeypatch.setattr(pairwise.loops, "log_probabilities", some)
    monkeypatch.setattr(loops, "settled", lambda passes, *_: (passes, ""))
    with pytest.raises(FinbenchError, match="The reference gives 4 of 4 pairs a log-probability that is not finite"):
        runner.train(recipe(llama, file_of(tmp_path / "p.jsonl")), tmp_path / "a")
    assert not (tmp_path / "a" / "checkpoints").exists()  # before the first step


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"method": "pissa"}, "Pairs are not learnt by method pissa"),
        ({"data": "mine"}, "data does not go with pairs"),
        ({"validation": 0.1}, "validation does not go with pairs"),
        ({"neftune": 5}, "neftune does not go with pairs"),
        ({"sharding": "fsdp"}, "in shards"),
        ({"tasks": {"mini_sentiment": 0.5}}, "take no weight"),
        ({"beta": 0}, "beta"),
    ],
)
def test_what_does_not_go_with_pairs(llama: Path, tmp_path: Path, stated: dict[str, Any], said: str) -> None:
    if "data" in stated:
        stated = {"data": str(file_of(tmp_path / "m.jsonl", names=("prompt", "completion", "more")))}
    with pytest.raises(FinbenchError, match=said):
        recipe(llama, file_of(tmp_path / "p.jsonl"), **stated)


@pytest.mark.parametrize("key", ["beta", "sft_weight"])
def test_what_is_about_pairs_without_pairs(key: str) -> None:
    with pytest.raises(FinbenchError, match=f"{key} is about pairs of answers, and there are none"):
        recipes.recipe(None, {"tasks": ["mini_sentiment"], key: 0.2})


def test_an_adapter_to_start_from_decides_and_contradicts(llama: Path, start: Path, lora: Path, tmp_path: Path) -> None:
    pairs = file_of(tmp_path / "p.jsonl")
    plain = {"preferences": str(pairs), "start": str(start)}
    made = recipes.recipe(None, {**plain, "base": str(llama)})
    assert (made.rank, made.lr) == (4, pytest.approx(1e-5))  # its own rank; a hundredth of the method's rate
    with pytest.raises(FinbenchError, match=r"rank 8 is not that of begun, which it starts from: 4"):
        recipes.recipe(None, {**plain, "rank": 8})
    with pytest.raises(FinbenchError, match="no adapter that finbench trained"):
        recipes.recipe(None, {**plain, "start": str(lora)})
    with pytest.raises(FinbenchError, match="by pairs of answers alone"):
        recipes.recipe(None, {"tasks": ["mini_sentiment"], "start": str(start), "base": str(llama)})


def test_runs_of_several_pairs_are_told_apart_by_the_name_of_the_file() -> None:
    assert trainings._valued({"source": "mine.jsonl", "weight": 1.0, "map": {}}) == "mine.jsonl"


def test_the_command(card: Path, llama: Path, start: Path) -> None:
    told = ["train", "--pairs", str(card), "--from", str(start), "--base", str(llama), "--dry-run"]
    found = CliRunner().invoke(app, told)
    assert found.exit_code == 0, found.output
    assert "[instead of]" in found.output
    assert "8 of pairs of" in found.output
    assert "of 16 pairs" in found.output
    assert "rows" not in found.output.partition("first row")[0].partition("folder")[2]
    shown = json.loads(CliRunner().invoke(app, [*told, "--json"]).stdout)
    assert (shown["rows"], shown["recipe"]["beta"]) == (8, 0.1)
    fault = CliRunner().invoke(app, ["eval", "--model", str(llama), "--tasks", "mini_sentiment", "--shots", "2",
                                     "--metadata", "split=train"])  # fmt: skip
    assert isinstance(fault.exception, FinbenchError)
    assert "Worked examples are rows of train" in fault.exception.message
