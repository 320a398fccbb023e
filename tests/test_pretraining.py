"""Pretraining: text to batches, the loop and its resumption, baselines, the report, the command."""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import runpy
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import hub_environment, upload
from finbench.cli import app
from finbench.core import catalog, paths
from finbench.core.console import Lines
from finbench.core.errors import FinbenchError
from finbench.hub.dev.server import DevHub
from finbench.pretraining import corpus, held, loop, members, mixture, prepared, report, run, shards, spec, vocabulary
from finbench.training import machines, timing

WORDS = tuple(f"word{number}" for number in range(30))


def texts(count: int, seed: int = 0) -> list[str]:
    """Invented documents, all different."""
    rng = np.random.default_rng(seed)
    return [
        f"Document {seed}-{n}. " + " ".join(rng.choice(WORDS, int(rng.integers(20, 60)))) + "." for n in range(count)
    ]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for number, content in enumerate(texts(120)):
        (folder / f"{number:03}.txt").write_text(content)
    return folder


def recipe(text: Path, base: Path | None = None, **more: Any) -> spec.PretrainRecipe:
    """A tiny recipe."""
    start = {"base": str(base)} if base else {"shape": "llama-tiny", "vocabulary": 300, "config": SMALL}
    stated = {
        "name": "tiny",
        "start": start,
        "structure": {"kind": "lowrank", "rank": 8},
        "data": [{"text": str(text)}],
        "context": 16,
        "steps": 6,
        "batch": 4,
        "micro_batch": 2,
        "held_out": 0.1,
        "lr": 1e-3,
        "dtype": "float32",
        "save_every": 2,
        "eval_every": 3,
        **more,
    }
    return spec.PretrainRecipe.parse(stated, "test")


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 48}


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process; its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001  a child must never go on as its parent
        os._exit(3)


# ---------------------------------------------------------------- the recipe


def test_a_recipe_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    whole = "start: {shape: llama-tiny, vocabulary: 300}\ndata: [{text: a.txt}]\nsteps: 3\n"
    path.write_text(whole + "contxt: 8\n")
    with pytest.raises(FinbenchError, match=r"unknown key 'contxt' \(did you mean context"):
        spec.read_recipe(path)
    path.write_text(whole.replace("shape: llama-tiny", "shape: llama-tinny"))
    with pytest.raises(FinbenchError, match="Did you mean llama-tiny"):
        spec.read_recipe(path)
    path.write_text(whole.replace("llama-tiny,", "llama-tiny, shpe: 3,"))
    with pytest.raises(FinbenchError, match=r"start.shpe'.*did you mean shape"):
        spec.read_recipe(path)
    path.write_text(whole)
    found = spec.read_recipe(
        path, {"structure.kind": "lowrank", "structure.rank": 0.5, "data.0.per": "line", "lr": 1e-2}
    )
    assert (found.structure.rank, found.data[0].per, found.lr, found.name) == (0.5, "line", 1e-2, "r")
    assert spec.read_recipe(path, {"tokens": 512 * 32 * 7 + 1}).total_steps == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": None}, "either tokens or steps"),
        ({"warmup_dense_steps": 6}, "leaves none of 6 steps"),
        ({"steps": None, "tokens": 4096, "warmup_dense_steps": 100_000}, "leaves none of"),
        ({"structure": "dense", "baselines": ["dense"]}, "dense itself"),
        ({"structure": {"kind": "cola", "rank": 8}, "warmup_dense_steps": 2}, "cola computes no matrix"),
        (
            {"structure": {"kind": "lowrank", "rank": 8, "init": "kaiming"}, "warmup_dense_steps": 2},
            "throw the weights",
        ),
        ({"relora": {"rank": 4}}, "relora goes on with a dense base"),
        ({"data": [{"text": "a", "weight": 1}, {"text": "b"}]}, "every source a weight"),
        ({"data": [{"text": "a", "jsonl": "b"}]}, "exactly one of text"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(FinbenchError, match=said):
        recipe(tmp_path, **change)


def test_the_structure_takes_over_trained_weights_by_truncation(tmp_path: Path) -> None:
    assert recipe(tmp_path).resolved.init == "spectral"
    assert recipe(tmp_path, warmup_dense_steps=2).resolved.init == "svd"
    assert recipe(tmp_path, seed=7).resolved.seed == 7


def test_the_page_names_every_key_and_the_examples_can_be_read() -> None:
    root = Path(__file__).parent.parent
    page = (root / "docs" / "pretrain.md").read_text(encoding="utf-8")
    keys = {*spec.PretrainRecipe.model_fields, *spec.StartSpec.model_fields, *spec.TextSource.model_fields}
    assert [key for key in keys if f"`{key}" not in page] == []
    assert all(shape in page for shape in spec.SHAPES)
    for path in (root / "examples").glob("pretrain-*.yaml"):
        assert spec.read_recipe(path).name == path.stem
        stated = catalog.read_yaml(path)
        assert [key for key in stated if stated[key] == spec.PretrainRecipe.model_fields[key].default] == [], path.name


def test_the_page_of_results_is_that_of_the_committed_measurement() -> None:
    root = Path(__file__).parent.parent
    bench = runpy.run_path(str(root / "benchmarks" / "pretrain_cpu.py"))
    assert (root / "docs" / "pretrain-results.md").read_text(encoding="utf-8") == bench["page"]()
    pictures = bench["pictures"]()
    assert pictures
    assert {path: path.read_text(encoding="utf-8") for path in pictures} == pictures


# ---------------------------------------------------------------- text


def test_documents_of_every_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\nStill one.\n\nTwo.\n\n\nThree, which is longer.\n")
    (tmp_path / "b.jsonl").write_text('{"body": "x y"}\n\n{"body": "z"}\n')

    def found(**stated: Any) -> list[str]:
        return list(corpus.raw(corpus.locate(spec.TextSource(**stated), "s")))

    place = str(tmp_path / "a.txt")
    assert len(found(text=place)) == 1
    assert found(text=place, per="paragraph") == ["One.\nStill one.", "Two.", "Three, which is longer."]
    assert found(text=place, per=100) == ["One.\nStill one.\n\nTwo.\n\nThree, which is longer."]
    assert len(found(text=place, per="line")) == 7
    assert found(jsonl=str(tmp_path / "*.jsonl"), field="body") == ["x y", "z"]
    with pytest.raises(FinbenchError, match=r"b.jsonl:1: no field 'text'; it has body"):
        found(jsonl=str(tmp_path / "b.jsonl"))
    with pytest.raises(FinbenchError, match="no file at text"):
        found(text=str(tmp_path / "nothing*.txt"))
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    with pytest.raises(FinbenchError, match="not UTF-8"):
        found(text=str(tmp_path / "c.txt"))
    import datasets

    datasets.Dataset.from_dict({"text": ["p", "q"]}).save_to_disk(tmp_path / "set")
    assert found(folder=str(tmp_path / "set")) == ["p", "q"]
    with pytest.raises(FinbenchError, match="no column 'words'; it has text"):
        found(folder=str(tmp_path / "set"), field="words")


@pytest.mark.slow
def test_a_data_set_on_the_hub_is_streamed_at_one_commit(dev_hub: DevHub, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": content, "n": 1}) + "\n" for content in texts(5)).encode()
    commit = upload(dev_hub, "me/texts", {"train.jsonl": lines}, kind="dataset")
    program = (  # in a process of its own: datasets reads the Hub's address when it is imported
        "import json, sys; from finbench.pretraining import corpus, spec\n"
        "found = corpus.locate(spec.TextSource(hub=sys.argv[1], field=sys.argv[2]), 'texts')\n"
        "print(json.dumps([found.revision, list(corpus.raw(found))]))\n"
    )

    def run_it(*arguments: str) -> Any:
        environment = {**os.environ, **hub_environment(dev_hub, tmp_path / "home")}
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    done = run_it("hub:me/texts", "text")
    assert json.loads(done.stdout.splitlines()[-1]) == [commit, texts(5)], done.stderr[-2000:]
    assert "no column 'body'; it has" in run_it("hub:me/texts", "body").stderr
    assert "me/none" in run_it("hub:me/none", "text").stderr.splitlines()[-2]


XBRL = 'xmlns:ix="http://www.xbrl.org/2013/inlineXBRL" xmlns:xbrli="http://www.xbrl.org/2003/instance"'
LONG = "It is sold in many shops of the country, and to some customers abroad, at prices which follow costs. " * 3
REPORT = f"""<html xmlns="http://www.w3.org/1999/xhtml" {XBRL}><head><title>hidden words</title></head><body>
<div style="display: none"><ix:header><ix:hidden>hidden words</ix:hidden></ix:header></div>
<p>Item 1. Business</p><div>The Company makes <b>widgets</b>&nbsp;and parts.<br/>{LONG}</div>
<p>Item 7. Discussion</p><p>{LONG}</p>
<table><tr><td><div>Widgets</div></td><td>12<br/></td><td>14</td></tr><tr><td>Parts</td><td>3</td><td>4</td></tr></table>
<p>17</p></body></html>"""
BLOCK = f"&lt;div&gt;&lt;p&gt;Leases&lt;/p&gt;&lt;p&gt;{LONG}&lt;/p&gt;&lt;/div&gt;"
INSTANCE = f"""<xbrli:xbrl xmlns:xbrli="http://www.xbrl.org/2003/instance" xmlns:g="http://fasb.org/us-gaap/2023">
<g:LeasesPolicyTextBlock contextRef="c">{BLOCK}</g:LeasesPolicyTextBlock>
<g:NotesTextBlock contextRef="c">&lt;p&gt;Note 1&lt;/p&gt;{BLOCK}</g:NotesTextBlock>
<g:Assets contextRef="c" unitRef="u">12</g:Assets></xbrli:xbrl>"""


def test_filings_become_text(tmp_path: Path) -> None:
    for name, content in (("a", REPORT), ("b", INSTANCE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.{'htm' if name == 'a' else 'xml'}").write_text(content)
    found = list(corpus.raw(corpus.locate(spec.TextSource(filings=str(tmp_path)), "filings")))
    business, discussion, notes = found
    assert business.startswith("Item 1. Business\n\nThe Company makes widgets and parts.\n\nIt is sold")
    assert discussion.endswith("Widgets 12 14\n\nParts 3 4")  # a row of a table is a line, a number alone is none
    assert notes == f"Note 1\n\nLeases\n\n{LONG.strip()}"  # and the policy in it not again
    assert all("hidden words" not in passage and "<" not in passage for passage in found)


def test_which_side_a_document_is_on_depends_on_its_words_alone() -> None:
    divider = corpus.Divider(0.3)
    placed = {text: divider.held_out(text) for text in texts(300)}
    assert divider.held_out(texts(1)[0]) is None
    assert divider.held_out("  \n") is None
    assert divider.held_out("half \ud800") is None
    assert divider.dropped == {"exact copies": 1, "empty": 1, "not Unicode": 1}
    assert 60 < sum(held_out is True for held_out in placed.values()) < 120
    again = corpus.Divider(0.3)
    for text, held_out in reversed(placed.items()):
        assert held_out is not None
        other = again.held_out(text.upper().replace(".", " !"))  # a copy that differs in case and punctuation
        assert other is held_out


def built(text: Path, llama: Path, share: float = 0.1) -> shards.Shards:
    """The shards of a source for the tokenizer of a base."""
    tokenizer = vocabulary.tokenizer_of(spec.StartSpec(base=str(llama)), [], share)
    return shards.build(corpus.locate(spec.TextSource(text=str(text)), "text"), tokenizer, share, Lines())


def test_shards_hold_the_tokens_of_the_documents(text: Path, llama: Path) -> None:
    found = built(text, llama)
    tokenizer = vocabulary.tokenizer_of(spec.StartSpec(base=str(llama)), [], 0.1)
    divider = corpus.Divider(0.1)
    documents = [(path.read_text(), divider.held_out(path.read_text())) for path in sorted(text.iterdir())]
    train = [content for content, held_out in documents if held_out is False]
    stream = [id for part in train for id in [tokenizer.eos_token_id, *tokenizer.encode(part)]]
    assert found.dtype == np.uint16
    assert np.concatenate(found.pieces).tolist() == stream
    assert found.about["train_bytes"] == sum(len(part.encode()) for part in train)
    windows = [found.window(number, 16) for number in range(found.windows(16))]
    assert [part[0] for part in windows] == stream[: 16 * len(windows) : 16]
    assert all(one[-1] == two[0] for one, two in itertools.pairwise(windows))
    part = found.held(10**9)
    assert part.bytes == sum(len(content.encode()) for content, held_out in documents if held_out)
    few = found.held(20)
    assert 0 < few.documents < part.documents
    assert few.bytes < part.bytes


def test_tokenising_goes_on_after_a_kill(
    text: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PIECE", 400)
    monkeypatch.setattr(shards, "_TOGETHER", 500)
    whole = built(text, llama)
    assert len(whole.pieces) > 4
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "other"))
    flush = shards._Writer.flush

    def deadly(self: Any) -> None:
        if len(self.pieces) == 3:  # its tokens are written, its record is not
            shards._write(self.folder / "train-00003.bin", np.zeros(3, np.uint16))
            os.kill(os.getpid(), signal.SIGKILL)
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr(shards._Writer, "flush", deadly)
        assert in_child(lambda: built(text, llama) and None) == signal.SIGKILL
    folder = next(path for path in (paths.cache_dir() / "pretrain").glob("text-*") if path.is_dir())
    assert sorted(path.name for path in folder.glob("piece-*")) == [f"piece-0000{n}.json" for n in range(3)]
    again = built(text, llama)
    assert again.about == whole.about
    assert np.array_equal(np.concatenate(again.pieces), np.concatenate(whole.pieces))
    (folder / "train-00001.bin").write_bytes(b"12")
    with pytest.raises(FinbenchError, match="is torn"):
        built(text, llama)


def test_no_piece_is_called_whole_that_the_disk_did_not_take(
    text: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.concatenate(built(text, llama).pieces)
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "other"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.nbytes - 1, before[1]))
    try:
        with pytest.raises(FinbenchError, match="Cannot write .*: File too large"):
            built(text, llama)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert np.array_equal(np.concatenate(built(text, llama).pieces), whole)


def test_a_vocabulary_is_made_of_training_documents_and_is_the_same_again(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = [corpus.locate(spec.TextSource(text=str(text)), "text")]
    start = spec.StartSpec(shape="llama-tiny", vocabulary=320)
    one = vocabulary.tokenizer_of(start, located, 0.1)
    monkeypatch.setenv("FINBENCH_CACHE", str(tmp_path / "other"))
    two = vocabulary.tokenizer_of(start, located, 0.1)
    assert vocabulary.identity(one) == vocabulary.identity(two)
    assert len(one) == 320
    assert one.decode(one.encode("Déjà vu: 5 % \n x")) == "Déjà vu: 5 % \n x"
    assert vocabulary.frame(one) == ([one.eos_token_id], [])


# ---------------------------------------------------------------- the order


def test_permutations_are_permutations() -> None:
    for size in (1, 2, 3, 17, 64, 1000):
        assert sorted(mixture.permuted(place, size, "k") for place in range(size)) == list(range(size))
    assert [mixture.permuted(p, 50, "a") for p in range(50)] != [mixture.permuted(p, 50, "b") for p in range(50)]


def test_sources_take_turns_by_weight_and_nothing_comes_twice_in_an_epoch(tmp_path: Path, llama: Path) -> None:
    parts = []
    for name, count in (("large", 200), ("small", 40)):
        folder = tmp_path / name
        folder.mkdir()
        for number, content in enumerate(texts(count, seed=count)):
            (folder / f"{number:03}.txt").write_text(content)
        parts.append(built(folder, llama))
    one = mixture.Mixture(parts, [3.0, 1.0], 16, 8, seed=1)
    steps = 300
    order = [one.step(step) for step in range(steps)]
    assert one.step(217) == order[217]  # of no other step
    assert mixture.Mixture(parts, [3.0, 1.0], 16, 8, seed=2).step(0) != order[0]
    share = Counter(pick.source for step in order for pick in step)
    assert share[0] / (steps * 8) == pytest.approx(0.75, abs=0.01)
    assert one.epochs(steps) == [share[source] / one.windows[source] for source in (0, 1)]
    for source in (0, 1):
        for epoch in range(math.ceil(one.epochs(steps)[source])):
            own = [p.window for step in order for p in step if (p.source, p.epoch) == (source, epoch)]
            assert len(set(own)) == len(own)
            whole = epoch < math.floor(one.epochs(steps)[source])
            assert not whole or len(own) == one.windows[source]
    by_size = mixture.Mixture(parts, [None, None], 16, 8, seed=1)
    assert by_size.weights[0] == pytest.approx(one.windows[0] / sum(one.windows))
    with pytest.raises(FinbenchError, match="less than one sequence"):
        mixture.Mixture(parts, [1.0, 1.0], 10**6, 8, seed=1)


# ---------------------------------------------------------------- bits per byte


def test_bits_per_byte_are_those_of_every_token_of_text(text: Path, llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    part = built(text, llama).held(10**9)
    model = AutoModelForCausalLM.from_pretrained(llama).double()
    context = 32
    found = held.score(model, {"text": part}, context, rows=3)["text"]
    nats, count = 0.0, 0
    for first in range(0, len(part.ids) - 1, context):  # as one would do it without a library
        window = torch.tensor(part.ids[first : first + context + 1])
        with torch.no_grad():
            logs = model(window[None, :-1]).logits[0].log_softmax(-1)
        for place in range(len(window) - 1):
            if part.text[first + place + 1]:
                nats -= float(logs[place, window[place + 1]])
                count += 1
    assert (found.tokens, found.bytes) == (count, part.bytes)
    assert found.nats == pytest.approx(nats, rel=1e-6)  # the loss is taken in float32
    assert found.per_byte == pytest.approx(nats / math.log(2) / part.bytes, rel=1e-6)


def test_the_schedule_rises_and_falls_to_its_share(tmp_path: Path) -> None:
    stated = recipe(tmp_path, steps=100, warmup=0.1, final=0.1)
    found = [loop.factor(stated, step) for step in range(101)]
    assert found[0] == pytest.approx(0.1)
    assert max(found) == found[9] == found[10] == 1.0
    assert found[100] == pytest.approx(0.1)
    assert all(one >= two for one, two in itertools.pairwise(found[10:]))


# ---------------------------------------------------------------- runs


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model's folder."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def same(one: Path, two: Path) -> bool:
    """Whether two folders hold the same tensors, bit by bit."""
    left, right = weights(one), weights(two)
    return bool(left) and left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_with_its_baselines_from_nothing_to_the_report(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stated = recipe(text, baselines=["dense", "parameters", "flops"], steps=12, lr=5e-3)
    plan = run.pretrain(stated, out, dry_run=True)
    assert isinstance(plan, dict)
    assert not out.exists()
    done = run.pretrain(stated, out)
    assert isinstance(done, run.Pretrained)
    assert [model.name for model in done.models] == ["model", "dense", "dense-parameters", "dense-flops"]
    assert [model["parameters"] for model in plan["models"]] == [model.parameters for model in done.models]
    assert all(model.bits < model.first_bits for model in done.models)
    for model in done.models:
        assert sum(part.parameters for part in model.parts) == model.parameters
        assert sum(tensor.numel() for tensor in weights(out / model.folder).values()) == model.parameters
    assert all([step for step, _ in model.loss_curve] == list(range(1, 13)) for model in done.models)
    own, whole, matched, _ = done.models
    assert own.compression == pytest.approx(whole.parameters / own.parameters)
    assert matched.parameters == pytest.approx(own.parameters, rel=0.05)
    assert own.tokens == 12 * 4 * 16
    assert done.sources[0].epochs == pytest.approx(12 * 4 / ((done.sources[0].tokens - 1) // 16), abs=1e-3)
    assert prepared.read_record(out / "pretrain.json") == done
    assert not (out / "checkpoints").exists()
    with monkeypatch.context() as patch:
        patch.setattr(report, "from_template", None)  # a report that fails costs no record
        with pytest.raises(TypeError):
            report.write(done, tmp_path / "again")
    assert prepared.read_record(tmp_path / "again" / "pretrain.json") == done
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "speed: this over dense" in (out / "report.md").read_text()
    assert report.commands(done, out)[0] == f"finbench eval --model {out}/model-dense --tasks piqa,fpb"
    before = (out / "model" / "factorised.safetensors").stat().st_mtime_ns
    assert run.pretrain(stated, out) == done  # nothing to do
    assert (out / "model" / "factorised.safetensors").stat().st_mtime_ns == before
    with pytest.raises(FinbenchError, match="begun with another recipe"):
        run.pretrain(recipe(text, steps=12, lr=4e-3), out)


def test_gpt2_in_factors_its_dense_form_and_its_quantised_copies(text: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from finbench.models.structured import storage

    small = {"n_embd": 64, "n_layer": 1, "n_head": 2}
    start = {"shape": "gpt2-tiny", "vocabulary": 300, "config": small}
    done = run.pretrain(recipe(text, start=start, store=[8, 4], steps=2), tmp_path / "run")
    assert isinstance(done, run.Pretrained)
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        factors = storage.load(tmp_path / "run" / "model")(ids).logits
        dense = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model-dense")(ids).logits
    assert torch.allclose(factors, dense, atol=1e-4)
    [model] = done.models
    assert model.stored.keys() == {"8", "4"}
    assert max(model.stored.values()) < model.bytes
    # what a copy loses is measured on the copy: int8 next to nothing, NF4 more
    whole = model.bits_curve[-1][1]
    assert {bits: found.keys() for bits, found in model.stored_bits.items()} == {"8": whole.keys(), "4": whole.keys()}
    [source] = whole
    lost = {bits: abs(found[source] - whole[source]) for bits, found in model.stored_bits.items()}
    assert 0 < lost["8"] < 0.01
    assert lost["8"] < lost["4"] < 0.5
    assert "stored at 8 bits" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert model.cutting is not None
    assert {layer.form for layer in model.cutting.layers} == {"Conv1D"}


def test_every_model_answers_the_tasks_of_the_recipe(text: Path, tmp_path: Path) -> None:
    """CoLA too, which has no dense form."""
    more = {"tasks": ["mini_sentiment"], "steps": 2, "baselines": ["parameters"]}
    context = {"context": 128, "start": {"shape": "llama-tiny", "vocabulary": 300, "config": SMALL}}
    done = run.pretrain(recipe(text, structure={"kind": "cola", "rank": 8}, **more, **context), tmp_path / "run")
    assert isinstance(done, run.Pretrained)
    assert [model.dense_folder for model in done.models] == [None, "dense-parameters"]
    assert all(0 <= model.scores["mini_sentiment"] <= 1 for model in done.models)
    assert "mini_sentiment" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize("step", [3, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 5))])
def test_a_killed_run_ends_in_the_same_bits(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The dense warm-up ends with step 3, a checkpoint is written every two steps of a phase."""
    stated = recipe(text, warmup_dense_steps=3, structure={"kind": "lowrank", "rank": 8, "frobenius_decay": 1e-3})
    whole = run.pretrain(stated, tmp_path / "whole")
    real = loop.PretrainTrainer.training_step

    def deadly(self: Any, *given: Any, **named: Any) -> Any:
        if self.phase.first + self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *given, **named)

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(loop.PretrainTrainer, "training_step", deadly)
        assert in_child(lambda: run.pretrain(stated, out) and None) == signal.SIGKILL
    if step > 1:
        with pytest.raises(FinbenchError, match="holds an unfinished run"):
            run.pretrain(stated, out)
    again = run.pretrain(stated, out, resume=True)
    assert same(out / "model", tmp_path / "whole" / "model")
    assert isinstance(whole, run.Pretrained)
    assert isinstance(again, run.Pretrained)
    assert again.models[0].loss_curve == whole.models[0].loss_curve
    assert again.models[0].bits_curve == whole.models[0].bits_curve
    assert [step for step, _ in whole.models[0].bits_curve] == [0, 3, 3, 6]  # before and after the truncation
    assert again.models[0].cutting == whole.models[0].cutting


def test_a_refusal_before_the_first_checkpoint_leaves_nothing(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that is too small; after a checkpoint, what there is stays and the run goes on from it."""
    out, step, done = tmp_path / "deep" / "out", loop.PretrainTrainer.training_step, itertools.count(1)

    def small(self: Any, *given: Any, **named: Any) -> Any:
        if next(done) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, *given, **named)

    monkeypatch.setattr(loop.PretrainTrainer, "training_step", small)
    room = 1
    with pytest.raises(FinbenchError, match="The GPU's memory ran out") as fault:
        run.pretrain(recipe(text), out)
    assert "--set micro_batch=1 --set recompute=true" in fault.value.hint
    assert not out.parent.exists()
    done, room = itertools.count(1), 4  # a checkpoint is written every two steps
    with pytest.raises(FinbenchError, match="The GPU's memory ran out"):
        run.pretrain(recipe(text), out)
    assert list(out.glob("checkpoints/*/checkpoint-*"))
    done, room = itertools.count(1), 10**6
    assert run.pretrain(recipe(text), out, resume=True).models
    assert not (out / "checkpoints").exists()


def test_ctrl_c_keeps_everything(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finbench.core.errors import Interrupted

    run.pretrain(recipe(text), tmp_path / "whole")
    real = loop.PretrainTrainer.training_step

    def stopped(self: Any, *given: Any, **named: Any) -> Any:
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop.PretrainTrainer, "training_step", stopped)
        with pytest.raises(Interrupted, match="Stopped after step 3 of 6"):
            run.pretrain(recipe(text), tmp_path / "stopped")
    run.pretrain(recipe(text), tmp_path / "stopped", resume=True)
    assert same(tmp_path / "stopped" / "model", tmp_path / "whole" / "model")


def test_a_base_is_compressed_and_goes_on(text: Path, llama: Path, tmp_path: Path) -> None:
    stated = recipe(text, llama, structure={"kind": "lowrank", "compression": 1.2}, baselines=["dense"])
    done = run.pretrain(stated, tmp_path / "run")
    assert isinstance(done, run.Pretrained)
    model, dense = done.models
    assert model.compression >= 1.2
    assert model.cutting is not None
    assert all(0 < error < 1 for error in model.cutting.errors)
    assert model.base_bits == dense.bits_curve[0][1]  # both are the base as it was
    assert model.first_bits != pytest.approx(dense.first_bits, abs=1e-6)
    assert done.base is not None


def test_relora_goes_on_with_a_base_and_leaves_an_ordinary_model(text: Path, llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    stated = recipe(text, llama, structure="dense", relora={"rank": 2, "every": 2}, baselines=["dense"], lr=1e-2)
    own = members.relora_recipe(stated)
    assert (own.lr, own.schedule, own.warmup, own.name) == (stated.lr, stated.schedule, stated.warmup, stated.name)
    held_out = {"validation", "validate_on", "validate_every", "select", "patience"}  # pretraining has its own
    others = {"limit", "search", "data", "neftune", "preferences", "beta", "sft_weight", "start"}
    assert own.model_fields_set >= {*type(own).model_fields} - others - held_out
    done = run.pretrain(stated, tmp_path / "run")
    assert isinstance(done, run.Pretrained)
    model, dense = done.models
    assert model.trainable_parameters < model.parameters == dense.parameters
    assert model.first_bits == dense.first_bits
    assert model.bits < model.first_bits
    base, after = (AutoModelForCausalLM.from_pretrained(path) for path in (llama, tmp_path / "run" / "model"))
    name = "model.layers.0.self_attn.q_proj.weight"
    update = after.state_dict()[name] - base.state_dict()[name]
    assert torch.linalg.matrix_rank(update, rtol=1e-4) > 2  # three cycles of rank 2


def test_a_configuration_that_makes_no_model_is_refused_before_any_text_is_read(text: Path, tmp_path: Path) -> None:
    start = {"shape": "llama-tiny", "vocabulary": 300}
    for config, said in (
        ({"hidden_sise": 3}, "no key of LlamaConfig. Did you mean hidden_size"),
        ({"vocab_size": 3}, "comes from tokenizer"),
        ({"num_hidden_layers": "many"}, "makes no model"),
    ):
        with pytest.raises(FinbenchError, match=said):
            run.pretrain(recipe(text, start={**start, "config": config}), tmp_path / "run")
    with pytest.raises(FinbenchError, match="no document is held out"):
        run.pretrain(recipe(text, held_out=1e-9), tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FinbenchError, match="holds other files"):
        run.pretrain(recipe(text), tmp_path / "mine")


def test_named_shapes_have_the_parameters_of_their_names() -> None:
    from transformers import AutoTokenizer  # noqa: F401

    class Tokenizer:
        bos_token_id, eos_token_id = 0, 0

        def __init__(self, size: int) -> None:
            self.size = size

        def __len__(self) -> int:
            return self.size

    for shape, vocabulary_size, context, expected in (
        ("gpt2-124m", 50257, 1024, 124_439_808),
        ("gpt2-1.5b", 50257, 1024, 1_557_611_200),
        ("llama-2-7b", 32000, 4096, 6_738_415_616),
        ("llama-2-13b", 32000, 4096, 13_015_864_320),
    ):
        stated = spec.PretrainRecipe.parse(
            {
                "name": "x",
                "start": {"shape": shape, "tokenizer": "t"},
                "data": [{"text": "t"}],
                "context": context,
                "steps": 2,
            },
            "test",
        )
        [one] = members.members(stated, Tokenizer(vocabulary_size))
        assert members.size(one, stated).parameters == expected


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"structure": "dense", "optimizer": "fira"}], ids=["adamw", "fira"])
def test_two_processes_take_the_steps_of_one(text: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    path = tmp_path / "r.json.yaml"
    path.write_text(recipe(text, batch=6, micro_batch=2, **more).model_dump_json(exclude_defaults=True))
    script = tmp_path / "go.py"
    script.write_text(
        "import pathlib, sys\nfrom finbench.pretraining import run\n"
        "run.pretrain(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
    )
    for count in (1, 2):
        command = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), str(script), str(path)]
        done = subprocess.run(
            [sys.executable, *command, str(tmp_path / f"of-{count}")], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / f"of-{count}" / "pretrain.json").read_text()) for count in (1, 2))
    assert two["processes"] == 2
    for (step, loss), (other_step, other) in zip(
        one["models"][0]["loss_curve"], two["models"][0]["loss_curve"], strict=True
    ):
        assert step == other_step
        assert loss == pytest.approx(other, rel=1e-4)
    left, right = weights(tmp_path / "of-1" / "model"), weights(tmp_path / "of-2" / "model")
    assert all(torch.allclose(left[name], right[name], atol=1e-4) for name in left)


def planned(capsys: Any, monkeypatch: Any, *arguments: str) -> tuple[int, str]:
    """(exit status, what ``finbench plan`` prints)."""
    monkeypatch.setattr(sys, "argv", ["finbench", "plan", *arguments])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out or " ".join(said.err.split())


def test_a_plan_states_tokens_and_hours_and_reads_no_text(capsys: Any, monkeypatch: Any) -> None:
    """GPT-2 124M from nothing, dense and in factors; the recipe's text is not there."""
    asked = (str(Path(__file__).parents[1] / "examples/pretrain-gpt2-124m.yaml"), "--gpu", "h100")
    found = json.loads(planned(capsys, monkeypatch, *asked, "--price", "2", "--json")[1])
    model, dense = found["models"][:2]
    assert found["tokens"] == pytest.approx(2.5e9, rel=1e-3)
    assert (model["name"], dense["name"]) == ("model", "dense")
    assert dense["parameters"] == 124_439_808  # GPT-2's own
    assert model["parameters"] < dense["parameters"]
    share, _ = timing.share(machines.card("h100"))
    assert dense["hours"] == pytest.approx(dense["work"] / (989e12 * share * 49.9 / 96) / 3600, rel=1e-3)
    assert model["hours"] < dense["hours"]
    assert dense["cost"] == pytest.approx(2 * dense["hours"], abs=0.01)
    again = json.loads(planned(capsys, monkeypatch, *asked, "--set", "recompute=true", "--json")[1])
    assert again["models"][0]["hours"] == pytest.approx(4 / 3 * model["hours"], rel=1e-2)
    whole = ("--gpu", "a100-40", "--gpus", "8", "--set", "tokens=300_000_000_000", "--json")
    published = json.loads(planned(capsys, monkeypatch, asked[0], *whole)[1])["models"][1]
    assert published["hours"] == pytest.approx(96, rel=0.02)  # nanoGPT's about 4 days
    for more, status, said in (
        ((), 0, "hours"),
        (("--gpu", "l4", "--set", "micro_batch=512"), 1, "GiB, and l4 has 22"),
        (("--task", "fpb"), 1, "its plan takes no --task"),
    ):
        assert said in planned(capsys, monkeypatch, *asked, *more)[1]
        assert planned(capsys, monkeypatch, *asked, *more)[0] == status
