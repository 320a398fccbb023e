"""The whole story against the development Hub: train, score, publish; a stranger fetches, scores and checks it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import files_of, hub_environment, upload
from finbench.cards import cardfiles
from finbench.hub.dev.server import DevHub

pytestmark = pytest.mark.slow
TRAINING = ["--task", "mini_sentiment", "--limit", "64", "--rank", "4", "--lr", "0.01"]
TRAINING += ["--set", "dtype=float32", "--set", "batch_size=8"]
TASKS = ["--tasks", "mini_sentiment", "--limit", "16", "--arg", "dtype=float32"]


class Person:
    """Somebody with a machine: an environment and empty caches of their own."""

    def __init__(self, running: DevHub, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.environment = {
            **os.environ,
            **hub_environment(running, home / "hf"),
            "FINBENCH_CACHE": str(home / "cache"),
            "XDG_CACHE_HOME": str(home / "xdg"),
            "FINBENCH_ZOO": str(home / "zoo.yaml"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def run(self, *command: str, **environment: str) -> str:
        """Run a command that must succeed; what it printed."""
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env={**self.environment, **environment},
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def finbench(self, *arguments: str, **environment: str) -> str:
        """Run finbench."""
        return self.run(sys.executable, "-m", "finbench", *arguments, **environment)


def blocks(readme: str, kind: str) -> list[str]:
    """The code blocks of a card."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language == kind]


def test_train_publish_fetch_and_check(dev_hub: DevHub, llama: Path, tmp_path: Path) -> None:
    author, stranger = Person(dev_hub, tmp_path / "author"), Person(dev_hub, tmp_path / "stranger")
    base = f"hub:org/tiny-llama@{upload(dev_hub, 'org/tiny-llama', files_of(llama), private=False)}"
    author.finbench("train", "--base", base, *TRAINING, "--out", "runs/tiny")
    author.finbench("eval", "--adapter", "runs/tiny", "--base", base, *TASKS)
    planned = json.loads(author.finbench("push", "runs/tiny", "hub:org/tiny", "--public", "--dry-run", "--json"))
    pushed = json.loads(author.finbench("push", "runs/tiny", "hub:org/tiny", "--public", "--json"))
    assert planned["changes"] == pushed["changes"]
    assert planned["readme"] == pushed["readme"]
    assert pushed["published"]["url"].startswith(dev_hub.url)
    sha, readme = pushed["published"]["commit"], pushed["readme"]

    # a stranger without an account, with an empty cache: the same numbers
    stranger.environment["HF_TOKEN"] = ""
    stranger.finbench("eval", "--adapter", f"hub:org/tiny@{sha}", "--base", base, *TASKS)
    pairs = []
    for person in (author, stranger):
        folder = person.home / "scorecards"
        cards = {card.subject.kind: card for card in cardfiles.folder(folder)}
        rows = {p.name: cardfiles.read_samples(p) for p in folder.glob("*.json")}
        pairs.append(
            (cards["peft"].scores[0].metrics, cards["base"].scores[0].metrics, sorted(map(str, rows.values())))
        )
        assert cards["peft"].subject.base.revision == base.partition("@")[2]
    assert pairs[0] == pairs[1]
    card = next(p for p in (stranger.home / "scorecards").glob("*.json") if cardfiles.read(p).subject.adapter)
    assert cardfiles.read(card).subject.adapter_source == f"hub:org/tiny@{sha}"
    assert "reproduced" in stranger.finbench("verify", str(card), "--rerun", "5", "--base", base)

    # plain peft, from a plain download
    stranger.run("hf", "download", "org/tiny", "--local-dir", "downloaded")
    code = (
        "from peft import PeftModel; from transformers import AutoModelForCausalLM as M;"
        "m = PeftModel.from_pretrained(M.from_pretrained('org/tiny-llama'), 'downloaded'); print(type(m).__name__)"
    )
    assert "PeftModelForCausalLM" in stranger.run(sys.executable, "-c", code)
    published = next((stranger.home / "downloaded" / "finbench" / "scorecards").glob("*lora*.json"))
    assert "samples-attached" in stranger.finbench("verify", str(published))

    # the card's own snippets, as they stand
    [snippet] = blocks(readme, "python")
    stranger.run(sys.executable, "-c", snippet)
    lines = [line for block in blocks(readme, "") for line in block.splitlines()]
    [command] = [line for line in lines if line.startswith("finbench ")]
    stranger.finbench(*command.split()[1:], "--out", "again", "--arg", "dtype=float32")
    assert any(line.startswith("vllm serve org/tiny-llama --revision ") for line in lines)

    # without a network
    stranger.finbench("eval", "--adapter", "hub:org/tiny", "--base", base, *TASKS, "--out", "off", HF_HUB_OFFLINE="1")
    # and as an entry of the zoo
    stranger.finbench("zoo", "add", "hub:org/tiny")
    assert "zoo:tiny" in stranger.finbench("zoo", "list", COLUMNS="200")


def test_a_merged_model(dev_hub: DevHub, llama: Path, tmp_path: Path) -> None:
    """For those who want one set of files: a merged model, with tokenizer and generation config."""
    author = Person(dev_hub, tmp_path / "author")
    base = f"hub:org/tiny-llama@{upload(dev_hub, 'org/tiny-llama', files_of(llama), private=False)}"
    author.finbench("train", "--base", base, *TRAINING, "--out", "runs/tiny")
    author.finbench("merge", "runs/tiny", "--base", base, "--dtype", "float32", "--out", "runs/merged")
    author.finbench("eval", "--adapter", "runs/merged", "--base", base, *TASKS)
    pushed = json.loads(author.finbench("push", "runs/merged", "hub:org/full", "--json"))
    paths = {change["path"] for change in pushed["changes"]}
    assert paths >= {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "README.md"}
    assert "base_model_relation: finetune" in pushed["readme"]
    [snippet] = blocks(pushed["readme"], "python")
    author.run(sys.executable, "-c", snippet)
    author.finbench("eval", "--adapter", "hub:org/full", "--base", base, *TASKS, "--out", "fetched")
    author.finbench("eval", "--model", "hub:org/full", *TASKS, "--out", "model")
    scores = [
        next(card for card in cardfiles.folder(author.home / place) if place == "model" or card.subject.kind == "model")
        for place in ("scorecards", "fetched", "model")
    ]
    assert scores[0].scores[0].metrics == scores[1].scores[0].metrics == scores[2].scores[0].metrics
