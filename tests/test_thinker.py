"""A small model that was taught to think, through every engine: the final part is parsed, what is cut off is not."""

from __future__ import annotations

import importlib.util
import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Once
from finbench.cards import cardfiles
from finbench.evaluation import evaluator, verify
from finbench.models import bases

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parent.parent / "examples" / "thinking" / "train.py"


@pytest.fixture(scope="module")
def thinker(kept: Once) -> Path:
    """The model of examples/thinking: minutes of training."""
    return kept("thinker", runpy.run_path(str(RECIPE))["train"])


def scored(out: Path, **options: Any) -> Any:
    """The score of 40 sentences, proven by its own samples."""
    stated: dict[str, Any] = {
        "tasks": ["mini_sentiment"],
        "limit": 40,
        "profile": "think",
        "max_tokens": 96,
    }
    [card] = evaluator.evaluate(out=out, **{**stated, **options})
    [path] = out.glob("*.json")
    assert verify(path).level == "samples-attached"
    return card.scores[0]


def thinks(score: Any) -> None:
    """It reasons for a sentence, and nearly every answer parses strictly."""
    assert score.parse_rate.value >= 0.95
    assert score.answers.truncated.value <= 0.05
    assert 15 < score.answers.thinking_tokens / score.n < 80


def test_through_transformers(thinker: Path, tmp_path: Path) -> None:
    model: dict[str, Any] = {"model": str(thinker), "arguments": {"dtype": "float32"}}
    thinking = scored(tmp_path / "think", **model, limit=100)
    thinks(thinking)
    # better than by chance, of three labels; another processor trains another model, and fewer sentences scatter more
    assert thinking.metrics["acc"].value > 0.42
    plain = scored(tmp_path / "chat", **model, profile="chat")
    assert plain.answers.thinking_tokens == 0  # the template's switch is off
    assert plain.parse_rate.value >= 0.95
    direct = scored(tmp_path / "direct", **model, profile="direct", max_tokens=None, chat=True, limit=12)
    assert direct.parse_rate.value < 0.05  # why there are profiles
    cut = scored(tmp_path / "cut", **model, max_tokens=12, limit=12)
    assert (cut.answers.truncated.value, cut.parse_rate.value, cut.answers.answer_tokens) == (1.0, 0.0, 0)
    sampled = scored(tmp_path / "s", **model, limit=12, temperature=0.7, top_p=0.95, samples=3)
    assert sampled.parse_rate.value >= 0.9
    assert sampled.answers.majority.value >= sampled.metrics["acc"].value - 0.1
    assert sampled.answers.pass_at["3"].value >= sampled.answers.pass_at["1"].value


@pytest.fixture(scope="module")
def endpoint(thinker: Path) -> Iterator[str]:
    """The address of /chat/completions over the model, with the template's variables as vLLM's server takes them."""
    model, tokenizer = bases.load(bases.resolve(str(thinker)), 16, torch.float32)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({"data": [{"id": "thinker"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ids = tokenizer.apply_chat_template(
                asked["messages"],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
                **asked["chat_template_kwargs"],
            )
            with lock, torch.inference_mode():
                made = model.generate(**ids, max_new_tokens=asked["max_tokens"], do_sample=False)
            said = made[0, ids["input_ids"].shape[1] :].tolist()
            ended = said[-1] == tokenizer.eos_token_id
            message = {"content": tokenizer.decode(said, skip_special_tokens=True)}
            choice = {"message": message, "finish_reason": "stop" if ended else "length"}
            self.reply({"choices": [choice], "usage": {"completion_tokens": len(said)}})

        def reply(self, body: Any) -> None:
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_through_an_endpoint(thinker: Path, endpoint: str, tmp_path: Path) -> None:
    stated: dict[str, Any] = {"engine": "server", "model": "thinker", "arguments": {"url": endpoint}, "limit": 24}
    found = scored(tmp_path / "server", **stated)
    thinks(found)
    here = scored(tmp_path / "hf", model=str(thinker), arguments={"dtype": "float32"}, limit=24)
    assert abs(found.main.value - here.main.value) < 0.1
    assert found.answers.thinking_tokens == pytest.approx(here.answers.thinking_tokens, rel=0.2)


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm_cache")
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_through_vllm(thinker: Path, tmp_path: Path) -> None:
    stated: dict[str, Any] = {"model": str(thinker), "arguments": {"dtype": "float32"}}
    found = scored(tmp_path / "vllm", engine="vllm", **stated)
    thinks(found)
    here = scored(tmp_path / "hf", **stated)
    assert found.main.value == pytest.approx(here.main.value, abs=0.05)
    assert found.answers.thinking_tokens == pytest.approx(here.answers.thinking_tokens, rel=0.02)
    cut = scored(tmp_path / "cut", engine="vllm", **stated, max_tokens=12)
    assert (cut.answers.truncated.value, cut.parse_rate.value) == (1.0, 0.0)
    sampled: dict[str, Any] = {"engine": "vllm", "limit": 10, "temperature": 0.7, "samples": 2}
    one, other = (scored(tmp_path / name, **stated, **sampled) for name in ("one", "other"))
    assert one.answers == other.answers
    rows = [cardfiles.read_samples(next((tmp_path / name).glob("*.json"))) for name in ("one", "other")]
    assert [row["answer"] for row in rows[0]] == [row["answer"] for row in rows[1]]
