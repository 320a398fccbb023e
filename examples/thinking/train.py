"""Teach a small model to think in <think> and to answer, with a chat template that turns thinking on and off.

    python examples/thinking/train.py --out runs/thinker
    finbench eval --model ./runs/thinker --tasks mini_sentiment --profile think --max-tokens 96

The rows are made of the training rows of mini_sentiment: a few words of the sentence, what they mean for an investor,
and the label. One row in three answers without thinking. Takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from finbench.core import catalog
from finbench.models import bases
from finbench.scoring import prompts

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
        thinks, label = number % 3 > 0, str(doc["label"])
        template = bases.chat_template(tokenizer, "thinker", {"enable_thinking": thinks})
        words = " ".join(str(doc["text"]).split()[-6:]).rstrip(" .")
        thought = f'<think>\nThe sentence ends with "{words}". {MEANS[label]}\n</think>\n\n' if thinks else ""
        made.append((str(prompts.prompt(lm_task, doc, template)), f"{thought}{label}{tokenizer.eos_token}"))
    return made


def batch(tokenizer: Any, part: list[tuple[str, str]]) -> dict[str, Any]:
    """Padded tensors; only the answers are learnt."""
    encoded = [[tokenizer.encode(text, add_special_tokens=False) for text in row] for row in part]
    width = max(len(prompt) + len(answer) for prompt, answer in encoded)
    pad = tokenizer.eos_token_id
    full = [prompt + answer for prompt, answer in encoded]
    masked = [[-100] * len(prompt) + answer for prompt, answer in encoded]
    return {
        "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids in full]),
        "labels": torch.tensor([ids + [-100] * (width - len(ids)) for ids in masked]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in full]),
    }


def train(out: Path, *, base: str = "smollm2-135m", count: int = 192, epochs: int = 2, seed: int = 0) -> Path:
    """Train, merge, and save the model with its template to ``out``."""
    torch.manual_seed(seed)
    model, tokenizer = bases.load(bases.resolve(base), 16, bases.compute_dtype("auto"))
    tokenizer.chat_template = TEMPLATE
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    learnt = rows(tokenizer, count, seed)
    steps = epochs * len(learnt) // 8
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    shuffled = random.Random(seed)
    model.train()
    for step in range(steps):
        loss = model(**batch(tokenizer, shuffled.sample(learnt, 8))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 10 == 9:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    merged = model.merge_and_unload()
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    train(parser.parse_args().out)
