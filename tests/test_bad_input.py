"""What users and strangers get wrong, or do on purpose: one line each, no trace, no wrong score, nothing lost."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import make_gpt2, make_llama, make_lora
from finbench.cards import cardfiles
from finbench.cli import app
from finbench.core import catalog, installing
from finbench.core.errors import FinbenchError
from finbench.core.records import Recipe
from finbench.data.sources import import_data
from finbench.evaluation import evaluator
from finbench.models import adapters, bases, modelfiles
from finbench.scoring import prompts
from finbench.training import encoding, recipes
from finbench.training.runner import prepare, train
from make_data import write_sources

STATED = {
    "tasks": ["mini_sentiment"],
    "limit": 48,
    "rank": 4,
    "dtype": "float32",
    "lr": 1e-2,
    "batch_size": 8,
    "save_every": 2,
}


@pytest.fixture(scope="module")
def adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small adapter; do not write into it."""
    out = tmp_path_factory.mktemp("adapters") / "tiny"
    train(recipes.recipe(None, {**STATED, "base": str(llama)}), out)
    return out


def examine(*folders: Path, base: Path, out: Path, **options: Any) -> list[Any]:
    chosen = {"limit": 8, "tasks": ["mini_sentiment"], "arguments": {"dtype": "float32"}, **options}
    return evaluator.evaluate([str(folder) for folder in folders], base=str(base), out=out, **chosen)


def foreign(adapter: Path, folder: Path, **config: Any) -> Path:
    """A copy that finbench did not make, with another configuration."""
    shutil.copytree(adapter, folder)
    (folder / "finbench.json").unlink()
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def command(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str) -> str:
    """Run a command that must fail with exit 1; what it said, on one line."""
    monkeypatch.setattr(sys, "argv", ["finbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------- who is who


def test_an_adapter_is_its_weights_and_its_configuration(adapter: Path, llama: Path, tmp_path: Path) -> None:
    one, weak = foreign(adapter, tmp_path / "one"), foreign(adapter, tmp_path / "weak", lora_alpha=8)
    both = examine(one, weak, base=llama, out=tmp_path / "both", limit=40)
    alone = examine(weak, base=llama, out=tmp_path / "alone", limit=40)
    rows = [cardfiles.read_samples(tmp_path / "both" / f"{name}.json") for name in ("one", "weak")]
    assert both[1].subject.adapter != both[2].subject.adapter
    assert both[2].scores[0].metrics == alone[1].scores[0].metrics
    assert rows[0] != rows[1]
    (weak / "adapter_config.json").write_text((one / "adapter_config.json").read_text())
    again = examine(weak, base=llama, out=tmp_path / "alone", limit=40)
    assert again[1].run_key != alone[1].run_key


def test_where_an_adapter_names_its_base_does_not_change_it(adapter: Path, tmp_path: Path) -> None:
    moved = foreign(adapter, tmp_path / "moved", base_model_name_or_path="elsewhere", revision="abc")
    assert adapters.identity(moved) == adapters.identity(adapter)


@pytest.mark.parametrize(
    "change",
    [{"rms_norm_eps": 10.0}, {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}, {"hidden_act": "gelu"}],
)
def test_a_base_is_its_weights_and_what_decides_its_answers(
    change: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    shutil.copytree(llama, tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text()) | change
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    assert modelfiles.fingerprint(tmp_path / "b") != modelfiles.fingerprint(llama)


def test_rotary_settings_are_read_in_both_spellings(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "b")
    path = tmp_path / "b" / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    path.write_text(json.dumps({**config, "rope_theta": rope["rope_theta"], "rope_scaling": None}))
    assert modelfiles.fingerprint(tmp_path / "b") == modelfiles.fingerprint(llama)


def test_another_chat_template_is_another_task(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "b")
    keys = []
    for end in ("", "{# other #}"):
        template = tmp_path / "b" / "chat_template.jinja"
        template.write_text(template.read_text() + end)
        [card] = evaluator.evaluate(
            model=str(tmp_path / "b"), chat=True, tasks=["mini_sentiment"], limit=4, out=tmp_path / "o"
        )
        keys.append(card.run_key)
    assert keys[0] != keys[1]


def test_the_weights_that_are_named_are_those_that_are_loaded(llama: Path, tmp_path: Path) -> None:
    """A shard index beside model.safetensors is not what transformers loads."""
    other = make_llama(tmp_path / "other", seed=1)
    shutil.copy(llama / "model.safetensors", other / "model-00001-of-00001.safetensors")
    names = dict.fromkeys(load_file(llama / "model.safetensors"), "model-00001-of-00001.safetensors")
    (other / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert modelfiles.fingerprint(other) != modelfiles.fingerprint(llama)


@pytest.mark.parametrize("config", [{"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}])
def test_an_adapter_that_changes_the_base_is_refused(
    config: dict[str, Any], adapter: Path, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError, match="changes the base model itself"):
        examine(foreign(adapter, tmp_path / "p", **config), base=llama, out=tmp_path / "o")
    assert not list((tmp_path / "o").glob("*.json"))


def test_an_adapter_that_trains_biases_is_scored_as_a_model(
    gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No plain LoRA can be made of it, so the hint leads to two other commands."""
    made = make_lora(tmp_path / "b", gpt2, target_modules=["c_attn"], bias="all", fan_in_fan_out=True)
    weights = load_file(made / adapters.WEIGHTS)
    save_file({name: one + 0.1 * name.endswith("bias") for name, one in weights.items()}, made / adapters.WEIGHTS)
    with pytest.raises(FinbenchError, match="changes the base model itself") as caught:
        examine(made, base=gpt2, out=tmp_path / "o")
    first, then = caught.value.hint.removeprefix("It trains biases. Score it as a model: ").split(", then ")
    monkeypatch.chdir(tmp_path)
    for line in (f"{first} --base {gpt2}", f"{then} --tasks mini_sentiment --limit 2 --out cards"):
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as done:
            app.main()
        assert not done.value.code
    [card] = (tmp_path / "cards").glob("*.json")
    assert json.loads(card.read_text())["subject"]["name"] == "merged"


def test_a_base_with_an_adapter_in_its_folder_is_refused(adapter: Path, llama: Path, tmp_path: Path) -> None:
    """transformers would apply it in silence, under the clean base's name."""
    shutil.copytree(llama, tmp_path / "b")
    for name in ("adapter_config.json", adapters.WEIGHTS):
        shutil.copy(adapter / name, tmp_path / "b")
    with pytest.raises(FinbenchError, match="applied in silence"):
        evaluator.evaluate(model=str(tmp_path / "b"), tasks=["mini_sentiment"], limit=4, out=tmp_path / "o")


def test_every_file_that_decides_an_answer_is_listed(adapter: Path, llama: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "a")
    path = tmp_path / "a" / "finbench.json"
    stated = json.loads(path.read_text())
    for files, message in (({}, "files"), ({adapters.WEIGHTS: stated["files"][adapters.WEIGHTS]}, "does not list")):
        path.write_text(json.dumps({**stated, "files": files}))
        with pytest.raises(FinbenchError, match=message):
            examine(tmp_path / "a", base=llama, out=tmp_path / "o")


def test_faults_of_one_subject_stop_all_before_any_is_scored(adapter: Path, llama: Path, tmp_path: Path) -> None:
    """Also when they need an engine of their own: a fully fine-tuned model, other bits."""
    train(
        recipes.recipe(None, {**STATED, "base": str(llama), "method": "full", "rank": 16, "lr": 1e-3}), tmp_path / "f"
    )
    weights = load_file(tmp_path / "f" / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "f" / "model.safetensors", metadata={"format": "pt"})
    record = json.loads((tmp_path / "f" / "finbench.json").read_text())
    record["files"] = adapters.decisive_files(tmp_path / "f")
    (tmp_path / "f" / "finbench.json").write_text(json.dumps(record))
    with pytest.raises(FinbenchError, match="not finite"):
        examine(adapter, tmp_path / "f", base=llama, out=tmp_path / "o")
    assert not list((tmp_path / "o").glob("*.json"))


def test_worked_examples_do_not_depend_on_what_was_rendered_before() -> None:
    lm_task = prompts.load(catalog.expand(["mini_sentiment"]), None, shots=2, seed=3)["finbench_mini_sentiment"]
    first = [request.args[0] for request in prompts.requests(lm_task, 5)]
    assert [request.args[0] for request in prompts.requests(lm_task, 5)] == first
    with pytest.raises(FinbenchError, match="fewer than 10000 shots"):
        prompts.load(catalog.expand(["mini_sentiment"]), None, shots=10_000)


# ---------------------------------------------------------------- training folders


def test_a_run_is_resumed_only_on_the_data_and_base_it_was_begun_with(llama: Path, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "s")
    import_data("fpb", sources["fpb"], tmp_path / "d")
    recipe = recipes.recipe(None, {**STATED, "base": str(llama), "tasks": ["fpb"]})
    run = prepare(recipe, tmp_path / "d")
    train(recipe, tmp_path / "a", data_dir=tmp_path / "d")
    sources["fpb"][0].write_bytes(b"".join(f"Extra {i} about Oak plc rose .@positive\r\n".encode() for i in range(60)))
    import_data("fpb", sources["fpb"][:1], tmp_path / "d")
    assert prepare(recipe, tmp_path / "d").data != run.data
    with pytest.raises(FinbenchError, match=r"another adapter \(data\)"):
        train(recipe, tmp_path / "a", data_dir=tmp_path / "d")


def test_the_folder_above_an_adapter_says_where_the_adapter_is(adapter: Path) -> None:
    with pytest.raises(FinbenchError, match="is not an adapter folder") as caught:
        adapters.stated_config(adapter.parent)
    assert caught.value.hint == f"Did you mean {adapter}?"


def test_somebody_elses_folder_is_not_written_into(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    with pytest.raises(FinbenchError, match="holds other files"):
        train(recipes.recipe(None, {**STATED, "base": str(llama)}), tmp_path / "project")
    assert (tmp_path / "project" / "README.md").read_text() == "mine"
    other = tmp_path / "project" / "checkpoints"  # of another trainer, which calls its files alike
    (tmp_path / "project" / "README.md").unlink()
    other.mkdir()
    (other / "run.json").write_text('{"id": 7}')
    (other / "weights.pt").write_bytes(b"mine")
    with pytest.raises(FinbenchError, match="holds other files"):
        train(recipes.recipe(None, {**STATED, "base": str(llama)}), tmp_path / "project")
    assert (other / "weights.pt").read_bytes() == b"mine"


def test_a_training_removes_nothing_but_its_own_when_it_ends(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a" / "checkpoints"
    (place / "checkpoint-7").mkdir(parents=True)
    (place / "run.json").write_text('{"versions": {}}')  # begun by us, and used by somebody as well
    mine = [place / "notes.txt", place / "checkpoint-7" / "model.pt"]
    for path in mine:
        path.write_text("mine")
    train(recipes.recipe(None, {**STATED, "base": str(llama)}), tmp_path / "a")
    assert (tmp_path / "a" / "finbench.json").is_file()
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert sorted(path.name for path in place.iterdir()) == ["checkpoint-7", "notes.txt"]
    assert "it holds files that are not of this run" in capsys.readouterr().err


def test_the_record_names_no_local_path(adapter: Path, llama: Path) -> None:
    text = (adapter / "finbench.json").read_text()
    assert str(llama) not in text
    assert json.loads(text)["recipe"]["base"] == llama.name


def test_positions_are_limited_by_what_the_architecture_calls_them(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    base = make_gpt2(tmp_path / "gpt2")
    GPT2LMHeadModel(GPT2Config(vocab_size=600, n_positions=40, n_embd=64, n_layer=2, n_head=4)).save_pretrained(base)
    with pytest.raises(FinbenchError, match="longer than 40 tokens"):
        prepare(recipes.recipe(None, {**STATED, "base": str(base)}))


def test_a_weight_that_leaves_no_row_is_refused(llama: Path) -> None:
    with pytest.raises(FinbenchError, match="leaves none of 48 rows"):
        prepare(recipes.recipe(None, {**STATED, "base": str(llama), "tasks": ["mini_sentiment:0.0001"]}))


def test_a_tokenizer_that_ends_texts_by_itself_changes_nothing(llama: Path) -> None:
    class Ending:
        """Appends end-of-text to every text, as some tokenizers do."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.bos_token, self.eos_token_id = inner, None, inner.eos_token_id

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [*self.inner.encode(text), self.eos_token_id]

    plain = bases.load_tokenizer(bases.resolve(str(llama)))
    pair = encoding.Rendered.of_pair("Sales rose.\nAnswer:", " positive")
    one, other = (next(encoding.RowEncoder(tokenizer).rows([pair])) for tokenizer in (Ending(plain), plain))
    assert one == other


# ---------------------------------------------------------------- commands, files


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "x=["), "not a YAML value"),
        (("--set", "lr=2024-13-45"), "not a YAML value"),
        (("--set", "task=5"), "tasks:"),
        (("--set", "tasks=5"), "two names of one key"),
        (("--set", "target_modules=[]"), "target_modules"),
        (("--set", "name=../x"), "name"),
        (("--seed", "99999999999999"), "seed"),
        (("--lr", "nan"), "lr"),
        (("--epochs", "1e308"), "epochs"),
        (("--rank", "0"), "rank"),
        (("--base", ""), "Not a valid reference"),
        (("--out", "/proc/nowhere"), "Cannot write"),
    ],
)
def test_odd_options_of_train(
    arguments: tuple[str, ...], said: str, llama: Path, monkeypatch: Any, capsys: Any
) -> None:
    base = () if "--base" in arguments else ("--base", str(llama))
    assert said in command(monkeypatch, capsys, "train", "--task", "mini_sentiment", "--limit", "8", *base, *arguments)


@pytest.mark.parametrize(
    "text",
    [
        "tasks: 5",
        "tasks: {5: 1}",
        "1: 2",
        "tasks: " + "[" * 3000,
        "lr: 2024-13-45",
        "- a",
        "a: 1\na: 2",
        "\x00",
        "tasks: [fpb]\nlr: high",
        "tasks: [fpb]\nseed: -1",
        "tasks: {fpb: .nan}",
    ],
)
def test_odd_recipe_files(text: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "My Recipe.yaml").write_text(text)
    assert "error:" in command(monkeypatch, capsys, "train", str(tmp_path / "My Recipe.yaml"))


def test_a_recipe_file_of_any_name_is_trained_under_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "My Recipe (2).yaml").write_text("tasks: [mini_ner]\n")
    recipe = recipes.recipe(str(tmp_path / "My Recipe (2).yaml"))
    assert isinstance(recipe, Recipe)
    assert recipe.name == "my-recipe-2-s0"


BROKEN_BASES = {
    "no end-of-text token": (
        "tokenizer_config.json",
        '{"tokenizer_class": "PreTrainedTokenizerFast"}',
        "no end-of-text",
    ),
    "an empty tokenizer": ("tokenizer.json", "{}", "holds no tokenizer"),
    "a tokenizer of lists": ("tokenizer.json", '{"model": []}', "holds no tokenizer"),
    "text for a number": ("config.json", '{"model_type": "llama", "hidden_size": "a"}', "cannot be loaded"),
    "no architecture": ("config.json", "{}", "cannot be loaded"),
    "deep nesting": ("config.json", "[" * 100_000, "torn or not JSON"),
}


@pytest.mark.parametrize("fault", BROKEN_BASES)
def test_odd_bases_are_refused_by_train_and_eval(fault: str, llama: Path, tmp_path: Path) -> None:
    name, content, message = BROKEN_BASES[fault]
    shutil.copytree(llama, tmp_path / "b")
    (tmp_path / "b" / name).write_text(content)
    with pytest.raises(FinbenchError, match=message):
        train(recipes.recipe(None, {**STATED, "base": str(tmp_path / "b")}), tmp_path / "a")
    with pytest.raises(FinbenchError, match=message):
        evaluator.evaluate(model=str(tmp_path / "b"), tasks=["mini_sentiment"], limit=4, out=tmp_path / "o")


def test_a_template_that_refuses_is_one_line(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "b")
    (tmp_path / "b" / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(FinbenchError, match="chat template"):
        evaluator.evaluate(model=str(tmp_path / "b"), chat=True, tasks=["mini_sentiment"], limit=4, out=tmp_path / "o")


@pytest.mark.parametrize(
    "config", [{"r": "x"}, {"r": 10**6}, {"r": -1}, {"peft_type": "NOPE"}, {"target_modules": None}]
)
def test_odd_adapter_configurations(config: dict[str, Any], adapter: Path, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError):
        examine(foreign(adapter, tmp_path / "a", **config), base=llama, out=tmp_path / "o")


def test_eight_bit_floats_are_looked_at_too(adapter: Path, llama: Path, tmp_path: Path) -> None:
    folder = foreign(adapter, tmp_path / "a")
    tensors = {name: t.to(torch.float8_e4m3fn) for name, t in load_file(folder / adapters.WEIGHTS).items()}
    save_file(tensors, folder / adapters.WEIGHTS)
    adapters.read(folder)


def test_a_newer_record_says_so(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "a")
    path = tmp_path / "a" / "finbench.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 7, "energy": 3}))
    with pytest.raises(FinbenchError, match="written by a newer finbench") as caught:
        adapters.read(tmp_path / "a")
    assert caught.value.hint == f"Update finbench: {installing.update()}"


@pytest.mark.parametrize("name", ["my[0]", "m[bold]y", "a|b", "<img src=x onerror=alert(1)>", "x`y", "$(touch z)"])
def test_names_are_shown_as_they_are(name: str, adapter: Path, llama: Path, tmp_path: Path, capsys: Any) -> None:
    from finbench.cli.show import scorecards

    folder = foreign(adapter, tmp_path / name)
    found = examine(folder, base=llama, out=tmp_path / "o")
    scorecards.scored(found, tmp_path / "o")
    assert name[:16] in capsys.readouterr().out
    report = (tmp_path / "o" / "report.md").read_text() + (tmp_path / "o" / "report.html").read_text()
    assert "<img" not in report


ROWS = {
    "no label": '{"id":"1","text":"Sales rose."}',
    "no text": '{"id":"1","label":"positive"}',
    "a foreign label": '{"id":"1","text":"Sales rose.","label":"bullish"}',
    "a number for text": '{"id":"1","text":5,"label":"positive"}',
    "not JSON": '{"id":',
    "deep nesting": '{"id":' + "[" * 100_000,
    "half a surrogate pair": '{"id":"1","text":"Sales \\ud800 rose.","label":"positive"}',
    "a list": "[]",
}


@pytest.mark.parametrize("fault", ROWS)
def test_a_torn_canonical_file_is_named_with_its_line(fault: str, llama: Path, tmp_path: Path) -> None:
    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "d")
    path = tmp_path / "d" / "fpb" / "test.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n" + ROWS[fault] + "\n")
    with pytest.raises(FinbenchError, match=r"test\.jsonl:2: ") as caught:
        evaluator.evaluate(model=str(llama), tasks=["fpb"], data_dir=tmp_path / "d", out=tmp_path / "o")
    assert "finbench data import fpb" in caught.value.hint


def test_an_empty_canonical_file_is_refused(llama: Path, tmp_path: Path) -> None:
    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "d")
    (tmp_path / "d" / "fpb" / "test.jsonl").write_text("")
    with pytest.raises(FinbenchError, match="no rows"):
        evaluator.evaluate(model=str(llama), tasks=["fpb"], data_dir=tmp_path / "d", out=tmp_path / "o")


def test_files_of_undecodable_names_are_imported(tmp_path: Path) -> None:
    [fifty, _] = write_sources(tmp_path / "s")["fpb"]
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Sentences_50Agree\xff.txt"))
    shutil.copy(fifty, odd)
    assert import_data("fpb", [odd], tmp_path / "d").rows["test"] > 0


def test_odd_data_directories(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "fpb").mkdir()
    (tmp_path / "fpb" / "dataset.json").write_text("[1]")
    assert "dataset.json is torn" in command(monkeypatch, capsys, "data", "list", "--data-dir", str(tmp_path))
