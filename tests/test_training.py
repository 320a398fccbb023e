"""Training: what is learnt from, exact resume after kill -9, whole checkpoints, faults before the first step."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import Once
from finbench.cli.show import trainings
from finbench.core import catalog
from finbench.core.errors import FinbenchError
from finbench.core.files import folder_atomic, sha256_file
from finbench.core.records import Adapter
from finbench.models import adapters, bases, modelfiles
from finbench.scoring import prompts
from finbench.training import batches, checkpoints, encoding, recipes
from finbench.training.runner import prepare, train

FULL = {"method": "full", "lr": 1e-3, "rank": 16, "dropout": 0.0}  # which has no rank: the defaults pass, others do not


def recipe(base: Path, **overrides: Any) -> Any:
    stated = {
        "base": str(base),
        "tasks": ["mini_sentiment"],
        "limit": 64,
        "batch_size": 8,
        "rank": 4,
        "dropout": 0.1,
        "dtype": "float32",
        "save_every": 3,
        "lr": 1e-2,
    }
    return recipes.recipe(None, {**stated, **overrides})


def trained(base: Path, out: Path, **overrides: Any) -> Adapter:
    made = train(recipe(base, **overrides), out)
    assert isinstance(made, Adapter)
    return made


def test_the_adapter_folder_loads_with_plain_peft_and_names_no_local_path(llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = trained(llama, tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir() if not p.name.startswith(".")) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "finbench.json",
        "training.html",
        "training.svg",
    ]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), tmp_path / "a")
    assert made.training.trainable_parameters == sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    assert made.training.loss_curve[0][1] > made.training.final_loss
    written = "".join((tmp_path / "a" / n).read_text() for n in ("README.md", "adapter_config.json", "finbench.json"))
    assert str(tmp_path) not in written
    assert str(llama.parent) not in written


def test_rslora_scales_by_the_square_root_of_the_rank(llama: Path) -> None:
    from finbench.methods import method_named

    scales = {}
    for method in ("lora", "rslora"):
        model, _ = bases.load(bases.resolve(str(llama)), 16, torch.float32)
        wrapped = method_named(method).apply(model, recipe(llama, method=method, rank=16, alpha=32))
        layers = [m for m in wrapped.modules() if isinstance(getattr(m, "scaling", None), dict)]
        scales[method] = {layer.scaling["default"] for layer in layers}
    assert scales == {"lora": {2.0}, "rslora": {8.0}}


def test_a_run_of_one_step_is_not_spent_on_warming_up(llama: Path, tmp_path: Path) -> None:
    """The rate begins at 0: an adapter of that one step would be its base, and a search would see no difference."""
    made = trained(llama, tmp_path / "a", limit=8, warmup=0.5)
    assert made.training.steps == 1
    adapters.read(tmp_path / "a")  # which refuses one whose every B is zero


def test_full_fine_tuning_makes_a_whole_model(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = trained(llama, tmp_path / "f", **FULL)
    assert made.kind == "model"
    assert made.training.trainable_parameters == made.training.total_parameters
    one, other = (load_file(folder / "model.safetensors") for folder in (llama, tmp_path / "f"))
    assert all(not torch.equal(one[name], other[name]) for name in one)
    AutoModelForCausalLM.from_pretrained(tmp_path / "f")


def test_the_training_text_is_the_tasks_prompt_byte_for_byte(llama: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    lm_task = prompts.load(catalog.expand(["mini_sentiment"]), None)["finbench_mini_sentiment"]
    request = prompts.requests(lm_task, 1)[0]
    prompt, answer = prompts.pair(lm_task, request.doc)
    assert prompt == request.args[0]
    row = next(encoding.RowEncoder(tokenizer).rows([encoding.Rendered.of_pair(prompt, answer)]))
    assert row.ids[: -row.answer] == tokenizer.encode(request.args[0])
    assert tokenizer.decode(row.ids[-row.answer : -1]) == " " + request.doc["label"]
    assert row.ids[-1] == tokenizer.eos_token_id


def test_a_chat_recipe_trains_on_what_a_chat_task_shows(llama: Path) -> None:
    run = prepare(recipe(llama, chat=True))
    assert run.first_pair[0].startswith("<user>")
    assert run.first_pair[0].endswith("<assistant>")
    assert not run.first_pair[1].startswith(" ")


# ---------------------------------------------------------------- order of rows


def test_the_sampler_visits_every_row_once_and_pads_little() -> None:
    lengths = [random.Random(i).randint(20, 200) for i in range(1000)]
    sampler = batches.StepSampler(lengths, 16, 4, seed=1)
    for epoch in range(3):
        sampler.epoch = epoch
        assert sorted(index for step in sampler for index in step) == list(range(1000))
    padded = sum(len(part) * max(lengths[index] for index in part) for part in sampler.batches(0))
    assert 1 - sum(lengths) / padded < 0.03
    steps = list(sampler.first(17))
    assert [len(step) for step in steps] == [64] * 15 + [40] + [64]  # 63 batches: the last step of an epoch has three
    assert [index for step in steps[:16] for index in step] == [i for part in sampler.batches(0) for i in part]
    assert sampler.batches(0) != sampler.batches(1)
    assert sampler.batches(1) == batches.StepSampler(lengths, 16, 4, seed=1).batches(1)


def test_weights_mix_tasks_by_rows(llama: Path) -> None:
    one = prepare(recipe(llama, tasks=["mini_sentiment", "mini_headline:0.5"], limit=None))
    assert len(one.rows) == 900
    twice = batches.share_of(one.rows[:10], 2.3, seed=0)
    assert len(twice) == 23
    assert all(twice.count(row) >= 2 for row in one.rows[:10])


# ---------------------------------------------------------------- killed, torn, resumed

_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training import recipe
from finbench.training.runner import train
train(recipe(Path(sys.argv[1]), epochs=6), Path(sys.argv[2]), resume=True)
"""


@pytest.mark.parametrize(
    "overrides",
    [
        {"accumulate": 3, "epochs": 2.5, "neftune": 5.0},
        FULL,
        {"tasks": ["mini_sentiment", "mini_headline:0.3"], "limit": 30},
        {"limit": 5, "epochs": 4, "save_every": 1},
        {"schedule": "cosine", "dtype": "bfloat16"},
        {"method": "dora", "bits": 4, "dtype": "bfloat16"},
        {"method": "lora-ga"},
        {"method": "corda"},
        {"dropout": 0.2, "loop": "packed", "options": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}},
    ],
    ids=str,
)
def test_any_recipe_resumes_exactly_from_any_checkpoint(
    overrides: dict[str, Any], llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "prune", lambda *_: None)
    monkeypatch.setattr("finbench.training.checkpoints.shutil.rmtree", lambda *_, **__: None)
    monkeypatch.setattr("finbench.training.checkpoints.clear", lambda *_, **__: None)
    whole = trained(llama, tmp_path / "whole", **overrides)
    kept = sorted((tmp_path / "whole" / "checkpoints").glob("checkpoint-*"), key=checkpoints.step_of)
    assert len(kept) > 1
    for checkpoint in kept:
        out = tmp_path / checkpoint.name
        (out / "checkpoints").mkdir(parents=True)
        shutil.copytree(checkpoint, out / "checkpoints" / checkpoint.name)
        shutil.copy(checkpoint.parent / "run.json", out / "checkpoints")
        resumed = train(recipe(llama, **overrides), out, resume=True)
        assert isinstance(resumed, Adapter)
        assert resumed.files == whole.files, checkpoint.name
        assert resumed.training.loss_curve == whole.training.loss_curve
        assert resumed.training.tokens == whole.training.tokens


def _start(base: Path, out: Path) -> subprocess.Popen[bytes]:
    code = _RUN.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, str(base), str(out)], stderr=subprocess.PIPE)


def _steps(out: Path) -> list[int]:
    return sorted(checkpoints.step_of(p) for p in (out / "checkpoints").glob("checkpoint-*"))


def test_killed_at_any_step_a_resumed_run_ends_in_the_same_bits(llama: Path, tmp_path: Path) -> None:
    """6 epochs of 8 steps, a checkpoint every 3: one kill in the second epoch, one in the fourth."""
    whole = trained(llama, tmp_path / "whole", epochs=6)
    out = tmp_path / "killed"
    rng = random.Random(11)
    for wanted in (15, 30):
        process = _start(llama, out)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and (not _steps(out) or _steps(out)[-1] < wanted):
            time.sleep(0.02)
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (out / "finbench.json").exists()
    resumed = train(recipe(llama, epochs=6), out, resume=True)
    assert isinstance(resumed, Adapter)
    assert resumed.files == whole.files
    assert resumed.training.loss_curve == whole.training.loss_curve


def test_ctrl_c_keeps_everything_and_says_how_to_go_on(llama: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "finbench",
        "train",
        "--base",
        str(llama),
        "--task",
        "mini_sentiment",
        "--epochs",
        "40",
        "--set",
        "dtype=float32",
        "--set",
        "batch_size=8",
        "--set",
        "save_every=5",
        "--out",
        str(tmp_path / "r"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not _steps(tmp_path / "r") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said
    newest, passed = checkpoints.newest(tmp_path / "r" / "checkpoints")
    assert newest is not None
    assert passed == []


@pytest.fixture(scope="module")
def stopped(llama: Path, once: Once) -> Path:
    """A run with two whole checkpoints, as a kill would leave it; do not write into it."""

    def make(out: Path) -> None:
        process = _start(llama, out)
        while process.poll() is None and len(_steps(out)) < 2:
            time.sleep(0.02)
        process.kill()
        process.wait()

    return once("stopped", make)


def test_a_torn_newest_checkpoint_is_passed_over_for_the_last_whole_one(
    llama: Path, stopped: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(stopped, tmp_path / "r") / "checkpoints"
    older, newer = [folder / f"checkpoint-{step}" for step in _steps(tmp_path / "r")[:2]]
    for path in sorted(newer.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert checkpoints.newest(folder)[0] == older, path.name
        path.unlink()
        assert checkpoints.newest(folder)[0] == older, path.name
        path.write_bytes(content)
    assert checkpoints.newest(folder)[0] == newer
    (newer / "trainer_state.json").unlink()
    made = train(recipe(llama, epochs=6), tmp_path / "r", resume=True)
    assert isinstance(made, Adapter)
    assert made.files == trained(llama, tmp_path / "whole", epochs=6).files


def test_a_run_is_neither_mixed_with_another_recipe_nor_overwritten(llama: Path, stopped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(stopped, tmp_path / "r")
    with pytest.raises(FinbenchError, match="unfinished run"):
        train(recipe(llama, epochs=6), out)
    with pytest.raises(FinbenchError, match=r"another recipe, base or data \(lr 0.01 there, 0.02 now\)"):
        train(recipe(llama, epochs=6, lr=2e-2), out, resume=True)


def test_a_finished_adapter_is_kept_and_not_trained_again(llama: Path, tmp_path: Path) -> None:
    trained(llama, tmp_path / "a")
    before = sha256_file(tmp_path / "a" / "finbench.json")
    trained(llama, tmp_path / "a")
    assert sha256_file(tmp_path / "a" / "finbench.json") == before
    with pytest.raises(FinbenchError, match=r"another adapter \(seed 0 there, 1 now"):
        trained(llama, tmp_path / "a", seed=1)


def test_the_next_command_names_a_base_that_has_no_alias(llama: Path, tmp_path: Path, capsys: Any) -> None:
    made = trained(llama, tmp_path / "a")
    for base, ending in (
        ("./my base", " --base './my base'"),
        ("hub:org/name", " --base hub:org/name"),
        ("smollm2-135m", ""),
    ):
        trainings.trained(made, tmp_path / "a", base)
        assert capsys.readouterr().out.endswith(f"Next: finbench eval --adapter {tmp_path / 'a'}{ending}\n")


def test_two_trainers_in_one_folder_are_refused(llama: Path, tmp_path: Path) -> None:
    from finbench.core import environment

    with environment.owner(tmp_path / "a"), pytest.raises(FinbenchError, match="Another finbench process"):
        trained(llama, tmp_path / "a")


def test_a_full_disk_stops_with_one_line_and_keeps_the_last_checkpoint(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.publish
    published: list[str] = []

    def full(staging: Path, target: Path) -> None:
        if published:
            raise OSError(28, "No space left on device")
        published.append(target.name)
        real(staging, target)

    monkeypatch.setattr(checkpoints, "publish", full)
    with pytest.raises(FinbenchError, match="No space left on device"):
        trained(llama, tmp_path / "a")
    assert _steps(tmp_path / "a") == [3]
    assert sorted(path.name for path in (tmp_path / "a" / "checkpoints").iterdir()) == ["checkpoint-3", "run.json"]
    monkeypatch.setattr(checkpoints, "publish", real)
    made = train(recipe(llama), tmp_path / "a", resume=True)
    assert isinstance(made, Adapter)


@pytest.mark.parametrize("library", ["safetensors", "torch"])
def test_a_disk_that_takes_no_more_is_one_line_whichever_library_finds_out(library: str, tmp_path: Path) -> None:
    """Real faults: no file may grow past 20,000 bytes. safetensors and torch raise errors of their own."""
    tensor = torch.zeros(90_000)
    write = {
        "safetensors": lambda staging: save_file({"a": tensor}, staging / "x"),
        "torch": lambda staging: torch.save({"a": tensor}, staging / "x"),
    }[library]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with (
            pytest.raises(FinbenchError, match="Cannot write .*out: ") as caught,
            folder_atomic(tmp_path / "out") as staging,
        ):
            write(staging)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "make room" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_fault_of_another_kind_keeps_its_trace(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), folder_atomic(tmp_path / "out"):
        raise RuntimeError("shapes do not match")


# ---------------------------------------------------------------- refused before the first step


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tasks": ["fbp"]}, "Did you mean fpb"),
        ({"tasks": ["fpb"]}, "No data for fpb"),
        ({"tasks": ["mini_sentiment:none"]}, "not a number"),
        ({"method": "loar"}, "Did you mean lora"),
        ({"method": "qlora", "bits": 16}, "runs on 4 bits"),
        ({"target_modules": ["q_porj"]}, "Did you mean q_proj"),
        ({"max_length": 30}, "longer than 30 tokens"),
        ({"rank": 0}, "rank"),
        ({"lr": -1.0}, "lr"),
        ({"bits": 5}, "bits"),
        ({"alhpa": 3}, "did you mean alpha"),
    ],
)
def test_a_fault_of_the_recipe_is_named_with_what_to_type(
    overrides: dict[str, Any], message: str, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(FinbenchError, match=message) as caught:
        train(recipe(llama, **overrides), tmp_path / "a")
    assert caught.value.hint or "rank" in overrides or "lr" in overrides or "bits" in overrides
    assert not (tmp_path / "a" / "finbench.json").exists()


def test_a_diverging_run_stops_and_suggests_a_rate(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match=r"diverged|not finite"):
        trained(llama, tmp_path / "a", lr=1e30, max_grad_norm=0.0)
    assert not (tmp_path / "a" / "finbench.json").exists()


def test_the_record_says_what_the_folder_holds(llama: Path, tmp_path: Path) -> None:
    made = trained(llama, tmp_path / "a")
    stored = json.loads((tmp_path / "a" / "finbench.json").read_text())
    assert stored["files"] == {
        name: sha256_file(tmp_path / "a" / name) for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    assert made.data[0].rows == 64
    assert made.base.fingerprint == modelfiles.fingerprint(llama)
    hostname = os.uname().nodename
    assert hostname not in (tmp_path / "a" / "finbench.json").read_text() or len(hostname) < 4


def test_the_fingerprint_survives_resaving_and_sees_every_other_base(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from conftest import make_llama

    copy = tmp_path / "copy"
    shutil.copytree(llama, copy)
    AutoModelForCausalLM.from_pretrained(llama).save_pretrained(copy, max_shard_size="200KB")
    (copy / "model.safetensors").unlink(missing_ok=True)
    assert modelfiles.fingerprint(copy) == modelfiles.fingerprint(llama)
    assert modelfiles.fingerprint(make_llama(tmp_path / "seed", seed=1)) != modelfiles.fingerprint(llama)
    assert modelfiles.fingerprint(make_llama(tmp_path / "deep", layers=3)) != modelfiles.fingerprint(llama)
