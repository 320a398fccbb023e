"""Teach a small model to think in <think> and to answer, with a chat template that turns thinking on and off.

    python examples/thinking/train.py --out runs/thinker
    finbench eval --model ./runs/thinker --tasks mini_sentiment --profile think --max-tokens 96

The rows are made of the training rows of mini_sentiment: a few words of the sentence, what they mean for an investor,
and the label. Every other row answers without thinking. Takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import finbench
from finbench.core import catalog
from finbench.models import bases
from finbench.scoring import prompts
from finbench.training import recipes

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MEANS = {
    "positive": "That is good news for an investor.",
    "negative": "That is bad news for an investor.",
    "neutral": "That is neither good nor bad news for an investor.",
}


def rows(tokenizer: Any, count: int, seed: int) -> list[tuple[str, str]]:
    """(prompt, answer with the end of the turn) of ``count`` sentences."""
    task = catalog.tasks()["finbench_mini_sentiment"]
    lm_task = prompts.load([task], None)[task.name]
    docs = prompts.rows(lm_task, "train")
    made = []
    for number, doc in enumerate(random.Random(seed).sample(docs, min(count, len(docs)))):
        thinks, label = number % 2 > 0, str(doc["label"])
        template = bases.chat_template(tokenizer, "thinker", {"enable_thinking": thinks})
        words = " ".join(str(doc["text"]).split()[-6:]).rstrip(" .")
        thought = f'<think>\nThe sentence ends with "{words}". {MEANS[label]}\n</think>\n\n' if thinks else ""
        made.append((str(prompts.prompt(lm_task, doc, template)), f"{thought}{label}{tokenizer.eos_token}"))
    return made


def train(out: Path, *, base: str = "smollm2-135m", count: int = 192, epochs: int = 2, seed: int = 0) -> Path:
    """Train, merge, and save the model with its template to ``out``."""
    tokenizer = bases.load_tokenizer(bases.resolve(base))
    tokenizer.chat_template = TEMPLATE
    with tempfile.TemporaryDirectory() as place:
        data, adapter = Path(place) / "thoughts.jsonl", Path(place) / "adapter"
        pairs = [{"prompt": prompt, "completion": answer} for prompt, answer in rows(tokenizer, count, seed)]
        data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        stated = {"base": base, "data": [str(data)], "epochs": epochs, "batch_size": 8, "lr": 1e-3, "seed": seed}
        finbench.train(recipes.recipe(None, stated), adapter)
        finbench.merge(str(adapter), out, base=base)
    tokenizer.save_pretrained(out)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    train(parser.parse_args().out)
