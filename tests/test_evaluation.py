"""Evaluation: equal to stock lm-eval, nothing scored twice, refusals before any score, cards without secrets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import make_llama
from finbench.cards import cardfiles, render
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError, Interrupted
from finbench.core.records import Adapter
from finbench.core.settings import Evaluation
from finbench.evaluation import evaluator, subjects
from finbench.models import adapters, bases
from finbench.training import recipes
from finbench.training.runner import train


@pytest.fixture(scope="module")
def adapter(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny Llama; do not write into it."""
    out = tmp_path_factory.mktemp("adapters") / "tiny"
    stated = {
        "base": str(llama),
        "tasks": ["mini_sentiment"],
        "limit": 64,
        "rank": 4,
        "dtype": "float32",
        "lr": 1e-2,
        "batch_size": 8,
    }
    assert isinstance(train(recipes.recipe(None, stated), out), Adapter)
    return out


def run(adapter: Path, llama: Path, out: Path, **options: Any) -> list[Any]:
    chosen = {"base": str(llama), "limit": 24, "out": out, "arguments": {"dtype": "float32"}, **options}
    return evaluator.evaluate([str(adapter)], **chosen)


def test_base_and_adapter_equal_stock_lm_eval(adapter: Path, llama: Path, tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = run(adapter, llama, tmp_path, tasks=["mini_sentiment", "mini_headline", "mini_xbrl_value"])
    manager = TaskManager(include_path=str(paths.shipped("tasks")), include_defaults=False)
    for card, peft in zip(found, (None, str(adapter)), strict=True):
        arguments = f"pretrained={llama},dtype=float32" + (f",peft={peft}" if peft else "")
        stock = simple_evaluate(
            "hf",
            model_args=arguments,
            tasks=[score.task for score in card.scores],
            limit=24,
            task_manager=manager,
            bootstrap_iters=0,
            batch_size=16,
            device="cpu",
        )
        for score in card.scores:
            theirs = stock["results"][score.task]
            for name, measure in score.metrics.items():
                assert measure.value == pytest.approx(theirs[f"{name},none"], abs=1e-12), (score.task, name)
            assert score.parse_rate.value == pytest.approx(theirs["parse_rate,none"])


def test_the_log_likelihood_form_equals_stock_lm_eval(adapter: Path, llama: Path, tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from finbench.data.sources import import_data
    from make_data import write_sources

    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    found = run(adapter, llama, tmp_path / "o", tasks=["fpb_mc"], data_dir=tmp_path / "data", limit=None)
    manager = TaskManager(
        include_path=str(paths.shipped("tasks")),
        include_defaults=False,
        metadata={"finbench_data_dir": str(tmp_path / "data")},
    )
    stock = simple_evaluate(
        "hf",
        model_args=f"pretrained={llama},dtype=float32,peft={adapter}",
        tasks=["finbench_fpb_mc"],
        task_manager=manager,
        bootstrap_iters=0,
        batch_size=16,
        device="cpu",
        log_samples=True,
    )
    card = found[1]
    assert card.scores[0].metrics["macro_f1"].value == pytest.approx(
        stock["results"]["finbench_fpb_mc"]["macro_f1,none"]
    )
    ours = [row["answer"] for row in cardfiles.read_samples(tmp_path / "o" / f"{card.subject.name}.json")]
    theirs = [
        [float(r[0][0]) for r in s["resps"]]
        for s in sorted(stock["samples"]["finbench_fpb_mc"], key=lambda s: s["doc_id"])
    ]
    assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), atol=1e-4)
    assert card.scores[0].parse_rate.value == 1.0


def test_the_base_is_scored_once_for_any_number_of_adapters_and_runs(
    adapter: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finbench.engines.hf import HFEngine

    asked: list[int] = []
    real = HFEngine.answer
    monkeypatch.setattr(
        HFEngine,
        "answer",
        lambda self, requests, progress: (asked.append(len(requests)), real(self, requests, progress))[1],
    )
    first = run(adapter, llama, tmp_path)
    assert asked == [10, 14] * 2  # the first ones are looked at
    again = run(adapter, llama, tmp_path)
    assert asked == [10, 14] * 2
    assert [card.to_json() for card in again] == [card.to_json() for card in first]
    run(adapter, llama, tmp_path, tasks=["mini_headline", "mini_sentiment"])
    assert asked == [10, 14] * 4
    run(adapter, llama, tmp_path, arguments={"dtype": "bfloat16"})  # another dtype is another answer
    assert asked == [10, 14] * 6
    assert len(list(tmp_path.glob("*.json"))) == 4


def test_another_adapter_under_the_same_name_is_not_taken_from_the_cache(
    adapter: Path, llama: Path, tmp_path: Path
) -> None:
    copy = tmp_path / adapter.name
    shutil.copytree(adapter, copy)
    tensors = load_file(copy / adapters.WEIGHTS)
    save_file({name: 1.5 * tensor for name, tensor in tensors.items()}, copy / adapters.WEIGHTS)
    record = json.loads((copy / "finbench.json").read_text())
    record["files"] = adapters.decisive_files(copy)
    (copy / "finbench.json").write_text(json.dumps(record))
    one = run(adapter, llama, tmp_path / "o")
    other = run(copy, llama, tmp_path / "o")
    assert one[1].subject.adapter != other[1].subject.adapter
    assert one[1].run_key != other[1].run_key
    both = evaluator.evaluate(
        [str(adapter), str(copy)], base=str(llama), limit=24, out=tmp_path / "both", arguments={"dtype": "float32"}
    )
    assert len({card.subject.name for card in both}) == 3
    assert [card.scores[0].metrics for card in both[1:]] == [one[1].scores[0].metrics, other[1].scores[0].metrics]


def test_a_killed_evaluation_keeps_every_finished_task(adapter: Path, llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    command = [
        sys.executable,
        "-m",
        "finbench",
        "eval",
        "--adapter",
        str(adapter),
        "--base",
        str(llama),
        "--tasks",
        "mini",
        "--out",
        str(out),
        "--arg",
        "dtype=float32",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob("*.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    [path] = out.glob("*.json")
    kept = cardfiles.read(path)
    assert kept.status == "partial"
    assert kept.scores
    assert len(cardfiles.read_samples(path)) == sum(score.n for score in kept.scores)


def test_ctrl_c_says_what_is_kept(adapter: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finbench.engines.dummy import DummyEngine

    def stop(self: DummyEngine, requests: Any, progress: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(DummyEngine, "answer", stop)
    with pytest.raises(Interrupted, match="nothing was finished"):
        evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)


def test_a_full_disk_leaves_earlier_cards_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FinbenchError, match="No space left on device"):
        evaluator.evaluate(engine="dummy", tasks=["mini_sentiment", "mini_ner"], out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_the_dummy_that_knows_the_gold_scores_one_and_the_random_one_chance(tmp_path: Path) -> None:
    [gold] = evaluator.evaluate(engine="dummy", tasks=["mini"], out=tmp_path / "g", arguments={"answers": "gold"})
    assert {score.task: score.main.value for score in gold.scores} == {
        f"finbench_mini_{name}": 1.0 for name in ("headline", "ner", "sentiment", "xbrl", "xbrl_value")
    }
    [chance] = evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path / "r")
    score = chance.scores[0]
    assert score.metrics["acc"].low < 1 / 3 < score.metrics["acc"].high
    assert score.baselines["random"]["acc"] == pytest.approx(1 / 3, abs=0.02)
    expected = {"acc": 1 / 3, "macro_f1": 1 / 6, "weighted_f1": 1 / 6, "mcc": 0}
    assert score.baselines["majority"] == pytest.approx(expected)


def test_worked_examples_come_from_train_and_are_recorded(adapter: Path, llama: Path, tmp_path: Path) -> None:
    none, three = (run(adapter, llama, tmp_path / str(k), shots=k)[0] for k in (0, 3))
    assert three.shots == 3
    assert three.scores[0].prompt_tokens > 3 * none.scores[0].prompt_tokens
    assert three.run_key != none.run_key


def test_chat_follows_the_adapter_and_can_be_set(adapter: Path, llama: Path, tmp_path: Path) -> None:
    plain = run(adapter, llama, tmp_path)
    chat = run(adapter, llama, tmp_path, chat=True)
    assert [card.subject.chat for card in plain] == [False, False]
    assert [card.subject.chat for card in chat] == [True, True]
    assert chat[0].scores[0].prompt_tokens > plain[0].scores[0].prompt_tokens


def test_a_fully_fine_tuned_model_is_scored_beside_its_base(llama: Path, tmp_path: Path) -> None:
    stated = {
        "base": str(llama),
        "tasks": ["mini_sentiment"],
        "limit": 64,
        "dtype": "float32",
        "lr": 1e-3,
        "batch_size": 8,
    }
    train(recipes.recipe(None, {**stated, "method": "full"}), tmp_path / "f")
    base, full = run(tmp_path / "f", llama, tmp_path / "o")
    assert (base.subject.kind, full.subject.kind) == ("base", "model")
    assert full.form == "merged"
    assert full.scores[0].metrics != base.scores[0].metrics or full.run_key != base.run_key
    weights = tmp_path / "f" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64] + b"\0" * 64)
    with pytest.raises(FinbenchError, match="SHA-256 differs"):
        run(tmp_path / "f", llama, tmp_path / "o2")


# ---------------------------------------------------------------- refused before any score


def damaged(adapter: Path, folder: Path) -> Path:
    shutil.copytree(adapter, folder)
    return folder


def _tensors(folder: Path, change: Any, keep_record: bool = False) -> None:
    tensors = change(load_file(folder / adapters.WEIGHTS))
    save_file(tensors, folder / adapters.WEIGHTS)
    if not keep_record:
        (folder / "finbench.json").unlink()


def _nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(n for n in tensors if "q_proj.lora_A" in n)
    tensors[name][0, 0] = float("nan")
    return tensors


def _flip(folder: Path) -> None:
    raw = bytearray((folder / adapters.WEIGHTS).read_bytes())
    raw[-7] ^= 1
    (folder / adapters.WEIGHTS).write_bytes(raw)


def _huge_header(folder: Path) -> None:
    (folder / adapters.WEIGHTS).write_bytes(struct.pack("<Q", 2**40) + b"{}")
    (folder / "finbench.json").unlink()


DAMAGES = {
    "a flipped bit": (_flip, "SHA-256 differs"),
    "truncated": (
        lambda f: (f / adapters.WEIGHTS).write_bytes((f / adapters.WEIGHTS).read_bytes()[:-100]),
        "SHA-256 differs",
    ),
    "truncated, no record": (
        lambda f: (
            (f / "finbench.json").unlink(),
            (f / adapters.WEIGHTS).write_bytes((f / adapters.WEIGHTS).read_bytes()[:-100]),
        ),
        "torn",
    ),
    "NaN": (lambda f: _tensors(f, _nan), "not finite"),
    "zero B": (lambda f: _tensors(f, lambda t: {n: 0 * v if "lora_B" in n else v for n, v in t.items()}), "no effect"),
    "renamed tensors": (
        lambda f: _tensors(f, lambda t: {n.replace("model.layers", "model.blocks"): v for n, v in t.items()}),
        "match no module",
    ),
    "lost tensors": (
        lambda f: _tensors(f, lambda t: {n: v for n, v in t.items() if "layers.0.self_attn.q_proj" not in n}),
        "lacks 2 tensors that its adapter_config.json promises, such as .*q_proj",
    ),
    "a pickle": (
        lambda f: ((f / adapters.WEIGHTS).rename(f / "adapter_model.bin"), (f / "finbench.json").unlink()),
        "never loaded",
    ),
    "a pickle in disguise": (
        lambda f: ((f / adapters.WEIGHTS).write_bytes(b"\x80\x04\x95" + b"x" * 200), (f / "finbench.json").unlink()),
        "a pickle under another name",
    ),
    "an endless header": (_huge_header, "torn or not safetensors"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
    "a torn config": (lambda f: (f / "adapter_config.json").write_text('{"r": 4'), "torn or not JSON"),
    "a torn record": (lambda f: (f / "finbench.json").write_text("{"), "torn"),
    "code to import": (
        lambda f: (f / "adapter_config.json").write_text(
            json.dumps(
                {**json.loads((f / "adapter_config.json").read_text()), "auto_mapping": {"parent_library": "os"}}
            )
        ),
        "asks to run code",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adapter_is_refused(damage: str, adapter: Path, llama: Path, tmp_path: Path) -> None:
    change, message = DAMAGES[damage]
    folder = damaged(adapter, tmp_path / "a")
    change(folder)
    with pytest.raises(FinbenchError, match=message):
        run(folder, llama, tmp_path / "o", tasks=["mini_sentiment"])
    assert not list((tmp_path / "o").glob("*.json"))  # not even the base was scored


@pytest.mark.parametrize("change", [{"seed": 1}, {"layers": 3}, {"layers": 1}, {"hidden": 128}])
@pytest.mark.parametrize("recorded", [True, False])
def test_another_base_is_refused(change: dict[str, int], recorded: bool, adapter: Path, tmp_path: Path) -> None:
    """Equal shapes without a record cannot be told apart; everything else must be refused."""
    other = make_llama(tmp_path / "other", **change)
    folder = damaged(adapter, tmp_path / "a")
    if not recorded:
        (folder / "finbench.json").unlink()
    if not recorded and change == {"seed": 1}:
        run(folder, other, tmp_path / "o", tasks=["mini_sentiment"])
        return
    with pytest.raises(FinbenchError, match="another base" if recorded else "does not fit"):
        run(folder, other, tmp_path / "o", tasks=["mini_sentiment"])


def test_adapters_of_two_bases_are_each_scored_on_their_own(
    adapter: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--base` is for those that name none of bases.yaml; a base that nobody knows is a fault as before."""
    small, unknown = bases.resolve("smollm2-135m").id, damaged(adapter, tmp_path / "unknown")
    folder = damaged(adapter, tmp_path / "of-the-small-base")
    for path, base in ((folder, small), (unknown, small.model_copy(update={"alias": "gone", "hub_id": "org/gone"}))):
        record = json.loads((path / "finbench.json").read_text())
        record["base"] = json.loads(base.to_json())
        record["base"] |= {"fingerprint": "1" * 64} if path == unknown else {}
        (path / "finbench.json").write_text(json.dumps(record))
    found, _ = subjects.candidates(Evaluation(adapter=[str(adapter), str(folder)], base=str(llama)))
    known = bases.resolve(str(llama)).id.fingerprint
    assert sorted(one.subject.base.fingerprint for one in found) == sorted([known] * 2 + [small.fingerprint] * 2)
    assert "is scored on it" in capsys.readouterr().err
    with pytest.raises(FinbenchError, match="another base") as caught:
        subjects.candidates(Evaluation(adapter=[str(adapter), str(unknown)], base=str(llama)))
    assert caught.value.hint.endswith("; or score the adapters of each base by a command of its own.")


def test_a_base_that_an_earlier_finbench_named_otherwise_says_what_to_do(
    adapter: Path, llama: Path, tmp_path: Path
) -> None:
    """The same base by its name has another fingerprint: to name it again would lead in a circle."""
    folder = damaged(adapter, tmp_path / "an adapter")
    record = json.loads((folder / "finbench.json").read_text())
    record["base"]["fingerprint"] = "2d3f0b05" + record["base"]["fingerprint"][8:]
    (folder / "finbench.json").write_text(json.dumps(record))
    with pytest.raises(FinbenchError, match="an earlier finbench named it") as caught:
        run(folder, llama, tmp_path / "o", tasks=["mini_sentiment"])
    command = caught.value.hint.partition("without its record: ")[2]
    assert subprocess.run(command, shell=True, check=False).returncode == 0
    card = run(folder, llama, tmp_path / "o", tasks=["mini_sentiment"])[-1]
    assert card.subject.adapter is not None


def _base_without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def test_a_damaged_base_is_refused(llama: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        shutil.copytree(llama, tmp_path / name)
        return tmp_path / name

    torn = copy("torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    poisoned = copy("poisoned")
    tensors = load_file(poisoned / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 3] = float("inf")
    save_file(tensors, poisoned / "model.safetensors", metadata={"format": "pt"})
    lacking = copy("lacking")
    save_file(
        {n: t for n, t in load_file(lacking / "model.safetensors").items() if "layers.1.mlp" not in n},
        lacking / "model.safetensors",
        metadata={"format": "pt"},
    )
    hostile = copy("hostile")
    config = json.loads((hostile / "config.json").read_text()) | {"auto_map": {"AutoModelForCausalLM": "x.Y"}}
    (hostile / "config.json").write_text(json.dumps(config))
    for folder, message in (
        (torn, "torn"),
        (poisoned, "not finite"),
        (lacking, "lacks weights"),
        (hostile, "asks to run code"),
        (_base_without(copy("noweights"), "model.safetensors"), "no safetensors weights"),
        (_base_without(copy("notokens"), "tokenizer.json"), "no tokenizer"),
        (_base_without(copy("noconfig"), "config.json"), "config.json is missing"),
        (tmp_path / "nowhere", "No such folder"),
    ):
        with pytest.raises(FinbenchError, match=message):
            evaluator.evaluate(model=str(folder), tasks=["mini_sentiment"], limit=4, out=tmp_path / "o")
    assert not list((tmp_path / "o").glob("*.json"))


def test_an_over_long_prompt_is_refused_or_counted(tmp_path: Path) -> None:
    short = make_llama(tmp_path / "short", context=100)
    with pytest.raises(FinbenchError, match=r"context has 100 tokens.*prompts need up to"):
        evaluator.evaluate(model=str(short), tasks=["mini_sentiment"], limit=30, out=tmp_path / "o")
    assert not list((tmp_path / "o").glob("*.json"))
    [card] = evaluator.evaluate(
        model=str(short), tasks=["mini_sentiment"], limit=30, out=tmp_path / "o", arguments={"truncate": "left"}
    )
    assert 0 < card.scores[0].truncated <= 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["fbp", "mini_nre"]}, r"'fbp'.*fpb.*'mini_nre'.*mini_ner"),
        ({"tasks": ["fpb", "tfns"]}, "No data for fpb, tfns"),
        ({"tasks": ["mini_sentiment"], "engine": "hff"}, "No engine is called 'hff'"),
        ({"tasks": ["mini_sentiment"], "arguments": {"batchsize": "3"}}, "Did you mean batch_size"),
        ({"tasks": ["mini_sentiment"], "arguments": {"batch_size": "many"}}, "whole number"),
        ({"tasks": []}, "Which tasks"),
        ({"tasks": ["mini_sentiment"], "limit": 0}, "limit must be at least 1"),
    ],
)
def test_a_fault_of_the_command_is_named_with_what_to_type(
    options: dict[str, Any], message: str, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError, match=message):
        evaluator.evaluate(**{"model": str(llama), "out": tmp_path, **options})


def test_missing_data_is_answered_with_the_exact_import_command(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError) as caught:
        evaluator.evaluate(model=str(llama), tasks=["tfns"], out=tmp_path)
    assert "finbench data import tfns sent_train.csv sent_valid.csv" in caught.value.hint


def test_an_adapter_never_chooses_an_unknown_base(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="which bases.yaml does not know"):
        evaluator.evaluate([str(adapter)], tasks=["mini_sentiment"], out=tmp_path)


def test_a_known_alias_beside_another_repository_chooses_no_base(adapter: Path, tmp_path: Path) -> None:
    folder = damaged(adapter, tmp_path / "a")
    record = json.loads((folder / "finbench.json").read_text())
    other = {"alias": "smollm2-135m", "hub_id": "org/other", "revision": "f" * 40, "source": "hub"}
    (folder / "finbench.json").write_text(json.dumps({**record, "base": {**record["base"], **other}}))
    with pytest.raises(FinbenchError, match="names the base 'org/other', which bases.yaml does not know"):
        evaluator.evaluate([str(folder)], tasks=["mini_sentiment"], out=tmp_path)


def test_all_faulty_adapters_are_reported_at_once(adapter: Path, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FinbenchError, match=r"(?s)nowhere.*adapter_config.json is missing"):
        evaluator.evaluate([str(tmp_path / "nowhere"), str(tmp_path / "empty")], base=str(llama), out=tmp_path)


def test_a_model_of_nan_logits_is_not_scored(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights can be finite and still overflow; argmax of NaN would look like an answer."""
    from finbench.engines.hf import HFEngine

    engine = HFEngine(bases.resolve(str(llama)), dtype="float32")
    with torch.no_grad():
        engine.plain.model.norm.weight.fill_(float("nan"))
    lm_task = evaluator.prompts.load(catalog.expand(["mini_sentiment"]), None)["finbench_mini_sentiment"]
    with pytest.raises(FinbenchError, match="not finite"):
        engine.answer(evaluator.prompts.requests(lm_task, 4), lambda count: None)


# ---------------------------------------------------------------- what a card says


def test_a_card_holds_no_path_no_host_and_no_restricted_text(adapter: Path, llama: Path, tmp_path: Path) -> None:
    from finbench.data.sources import import_data
    from make_data import write_sources

    import_data("fpb", write_sources(tmp_path / "s")["fpb"], tmp_path / "data")
    cards_found = run(adapter, llama, tmp_path / "o", tasks=["fpb", "mini_sentiment"], data_dir=tmp_path / "data")
    rows = [row for path in (tmp_path / "o").glob("*.json") for row in cardfiles.read_samples(path)]
    text = "".join(card.to_json() for card in cards_found) + json.dumps(rows)
    for secret in (str(tmp_path), str(llama), "plc said its profit", os.environ.get("USER") or "no-such-user"):
        assert secret not in text
    restricted = [row for row in rows if row["task"] == "finbench_fpb"]
    assert restricted
    assert all("answer" not in row and len(row["answer_sha256"]) == 32 for row in restricted)
    assert all("answer" in row for row in rows if row["task"] == "finbench_mini_sentiment")


def test_metrics_recompute_from_the_samples(adapter: Path, llama: Path, tmp_path: Path) -> None:
    found = run(adapter, llama, tmp_path, tasks=["mini_sentiment"])
    for card in found:
        rows = cardfiles.read_samples(tmp_path / f"{card.subject.name}.json")
        golds = [row["values"]["acc"] for row in rows]
        assert card.scores[0].metrics["acc"].value == sum(golds) / len(golds)


def test_a_tampered_samples_file_is_noticed(tmp_path: Path) -> None:
    evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    path = cardfiles.samples_path(tmp_path / "dummy.json")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(FinbenchError, match="SHA-256"):
        cardfiles.read_samples(tmp_path / "dummy.json")


def test_reports_escape_what_a_card_says(tmp_path: Path) -> None:
    [card] = evaluator.evaluate(engine="dummy", tasks=["mini_sentiment"], out=tmp_path)
    hostile = card.model_copy(
        update={"subject": card.subject.model_copy(update={"name": "<script>alert(1)</script>|x"})}
    )
    assert "<script>" not in render.html([hostile])
    assert "\\|x" in render.markdown([hostile])
    page = (tmp_path / "report.html").read_text()
    how = page.partition("How it was measured")[2]
    for named in ("status", "base", "format", "computed as", "prompts", "seconds", "peak memory"):
        assert f'data-is="{named}"' in how  # on a phone each value has its name before it
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_another_choice_of_rows_is_another_card(tmp_path: Path) -> None:
    from finbench.data.sources import import_data
    from finbench.evaluation import rerun

    for level, end in (("50", "a"), ("75", "b")):
        lines = [f"Net sales of unit {n} rose to {n} million in quarter {end} .@positive" for n in range(60)]
        (tmp_path / f"Sentences_{level}Agree.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    import_data("fpb", sorted(tmp_path.glob("*.txt")), tmp_path / "data")
    common: dict[str, Any] = {"tasks": ["fpb"], "engine": "dummy", "out": tmp_path / "cards"}
    for chosen in ({}, {"agreement": "75"}, {}):
        [card] = evaluator.evaluate(**common, data_dir=tmp_path / "data", metadata=chosen)
        assert card.arguments == {f"metadata.{name}": value for name, value in chosen.items()}
    found = [cardfiles.read(path) for path in (tmp_path / "cards").glob("*.json")]
    assert sorted(card.scores[0].n for card in found) == sorted({card.scores[0].n for card in found})
    assert len(found) == 2
    few = min(found, key=lambda card: card.scores[0].n)
    rows = {"finbench_fpb": cardfiles.read_samples(cardfiles.place_for(tmp_path / "cards", "dummy", few.run_key))}
    again = rerun.rerun(few, rows, 5, data_dir=tmp_path / "data")
    assert not again[0].moved
