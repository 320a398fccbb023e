"""BERTScore of the explanations in scorecards of ``xbrl_term``: an extra, beside the task's chrF and ROUGE-L.

    python benchmarks/bertscore.py CARD... --encoder FOLDER [--layer 17] [--data-dir DATA]

Greedy matching of contextual embeddings by cosine (Zhang et al. 2020, arXiv:1904.09675), without idf weights and
rescaling; the numbers are those of the package bert-score (a test compares). FOLDER is an encoder on this machine,
such as roberta-large, for which the paper takes layer 17; nothing is fetched. It measures likeness, not truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from finbench.cards import cardfiles
from finbench.core import catalog
from finbench.core.console import quiet
from finbench.core.errors import FinbenchError
from finbench.scoring import prompts, stats

TASK = "finbench_xbrl_term"


class Encoder:
    """An encoder cut off after ``layer`` (all of them where None), in float32 on the CPU."""

    def __init__(self, folder: Path, layer: int | None = None) -> None:
        if not (folder / "config.json").is_file():
            raise FinbenchError(
                f"{folder}: no encoder, it has no config.json.", "Give the folder of a BERT-like model."
            )
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, add_prefix_space=True, local_files_only=True)
        self.model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        layers = int(self.model.config.num_hidden_layers)
        self.layer = layers if layer is None else layer
        if not 0 <= self.layer <= layers:
            raise FinbenchError(f"--layer {layer}: the encoder has {layers} layers.", f"Give 0 to {layers}.")
        self.longest = min(512, int(self.model.config.max_position_embeddings) - 2)

    @torch.inference_mode()
    def __call__(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors (tokens, width) of a text, and which of them count: all but the special tokens."""
        ids = self.tokenizer(text.strip(), truncation=True, max_length=self.longest)["input_ids"]
        states = self.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[self.layer][0]
        special = {self.tokenizer.cls_token_id, self.tokenizer.sep_token_id}
        counts = torch.tensor([token not in special for token in ids])
        return torch.nn.functional.normalize(states, dim=-1), counts


def bertscore(answers: Sequence[str], golds: Sequence[str], encoder: Encoder) -> np.ndarray:
    """(n, 3) precision, recall and F1 of each answer against its gold; 0 for an empty answer."""
    found = np.zeros((len(answers), 3))
    known = {gold: encoder(gold) for gold in dict.fromkeys(golds)}
    for place, (answer, gold) in enumerate(zip(answers, golds, strict=True)):
        ours, counted = encoder(answer)
        theirs, wanted = known[gold]
        if counted.any() and wanted.any():
            likeness = ours @ theirs.T
            precision = float(likeness.max(dim=1).values[counted].mean())
            recall = float(likeness.max(dim=0).values[wanted].mean())
            total = precision + recall
            found[place] = precision, recall, 2 * precision * recall / total if total else 0.0
    return found


def pairs(card: Path, data_dir: Path | None) -> tuple[list[str], list[str], list[str]]:
    """The first lines of a card's answers, the reference explanations, and the rows' clusters."""
    rows = [row for row in cardfiles.read_samples(card) if row["task"] == TASK]
    if not rows:
        raise FinbenchError(f"{card} has no score of xbrl_term.", "Type: finbench eval --tasks xbrl_term")
    lm_task = prompts.load(catalog.expand([TASK]), data_dir)[TASK]
    docs = prompts.rows(lm_task, "test")
    if max(row["index"] for row in rows) >= len(docs):
        raise FinbenchError(f"{card}: it was made with more rows than are here.", "Give the same --data-dir.")
    lines = [str(row["answer"]).strip().splitlines() for row in rows]
    answers = [" ".join(line[0].split()) if line else "" for line in lines]
    return answers, [docs[row["index"]]["answer"] for row in rows], [str(row["cluster"]) for row in rows]


def table(cards: Sequence[Path], encoder: Encoder, data_dir: Path | None) -> Iterator[str]:
    """Lines of Markdown: one a card."""
    yield "| card | n | precision | recall | F1 | 95 % |"
    yield "|--|--:|--:|--:|--:|--|"
    for card in cards:
        answers, golds, clusters = pairs(card, data_dir)
        scores = bertscore(answers, golds, encoder)
        parts = np.column_stack([scores[:, 2], np.ones(len(scores))])
        measure = stats.estimate(parts, lambda sums: stats.ratio(sums[..., 0], sums[..., 1]), clusters)[0]
        precision, recall, f1 = (f"{100 * value:.2f}" for value in scores.mean(axis=0))
        yield (
            f"| {card.stem} | {len(answers):,} | {precision} | {recall} | {f1} "
            f"| {100 * measure.low:.2f}-{100 * measure.high:.2f} |"
        )


def main() -> int:
    """Print a table; 1 for a fault that the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="+", type=Path)
    parser.add_argument("--encoder", required=True, type=Path)
    parser.add_argument("--layer", type=int)
    parser.add_argument("--data-dir", type=Path)
    chosen = parser.parse_args()
    quiet()
    try:
        print("\n".join(table(chosen.cards, Encoder(chosen.encoder, chosen.layer), chosen.data_dir)))
    except FinbenchError as fault:
        print(fault)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
