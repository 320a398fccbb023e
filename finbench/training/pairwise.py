"""Learning from pairs of answers: DPO (Rafailov et al. 2023, arXiv:2305.18290) by the passes of the loop.

Both answers to a prompt are rows of one pass, in which their prompt is run once. The reference is the model at the
start, whose log-probabilities are computed once, before the first step: there is no second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finbench.core.errors import FinbenchError
from finbench.models.prefixes import common
from finbench.training import batches, loops, ranks
from finbench.training.batches import TrainingRow
from finbench.training.trainer import AnswerTrainer


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse answer, as two rows. ``number``: its place among all of the run."""

    number: int
    chosen: TrainingRow
    rejected: TrainingRow

    @property
    def ids(self) -> list[int]:
        """The tokens of both rows."""
        return self.chosen.ids + self.rejected.ids

    @property
    def answer(self) -> int:
        """Tokens of both that bear loss."""
        return self.chosen.answer + self.rejected.answer


class PairPasses(loops.Passes):
    """Passes of whole pairs."""

    def apart(self, units: Sequence[Any]) -> list[TrainingRow]:
        """The rows of some pairs: of each the chosen one, then the rejected one."""
        return [row for pair in units for row in (pair.chosen, pair.rejected)]

    def cut(self, rows: Sequence[Any]) -> list[list[Any]]:
        """The pairs of a step, in passes of as many tokens as those of rows; one that is longer is alone."""
        if self.loop == "padded":
            many = max(1, self.rows // 2)
            return [list(rows[first : first + many]) for first in range(0, len(rows), many)]
        made: list[list[Any]] = []
        used = scored = 0
        for pair in sorted(rows, key=lambda pair: pair.chosen.ids) if self.shares else rows:
            whole = len(pair.ids) - (common(pair.chosen.ids, pair.rejected.ids) if self.shares else 0)
            new = whole - (common(made[-1][-1].chosen.ids, pair.chosen.ids) if made and self.shares else 0)
            if not made or used + new > self.tokens or scored + pair.answer > self.answers:
                made.append([])
                used, scored, new = 0, 0, whole
            made[-1].append(pair)
            used, scored = used + new, scored + pair.answer
        return made


class PairTrainer(AnswerTrainer):
    """The loss -log sigmoid(beta (g_c - g_r)), g being what an answer's log-probability has gained on the reference.

    With ``sft_weight`` this times -log p(chosen) a token is added (Pang et al. 2024, arXiv:2404.19733). A step's loss
    is the mean over its pairs. Beside it are logged the share of pairs whose chosen answer gained more
    (``accuracy``) and the mean of beta (g_c - g_r) (``margin``), both before the step.
    """

    reference: Any = None  # (pairs, 2), of chosen and rejected answers

    def refer(self, pairs: Sequence[Pair]) -> None:
        """Take the model as it is for the reference. Each process computes a share, and all get the whole.

        Raises FinbenchError for log-probabilities that are not finite.
        """
        mine, _ = batches.share(pairs, self.accelerator.process_index, self.accelerator.num_processes)
        found: dict[int, list[float]] = {}
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():  # as training will run it
            for part in self.passes.cut(sorted(mine, key=lambda pair: len(pair.ids))):
                made = self.passes.prepare(part, self.args.device)
                with loops.attending(made):
                    both = self._both(self.model, made, part).tolist()
                found.update({pair.number: given for pair, given in zip(part, both, strict=True)})
        for others in ranks.gathered(found):
            found |= others
        self.reference = torch.tensor([found[pair.number] for pair in pairs], device=self.args.device)
        if odd := int((~self.reference.isfinite()).any(1).sum()):
            raise FinbenchError(
                f"The reference gives {odd:,} of {len(pairs):,} pairs a log-probability that is not finite.",
                "Compute in another type: --set dtype=float32; or start from another adapter: --from",
            )

    def _both(self, model: Any, made: Any, part: Sequence[Pair]) -> Any:
        """(pairs, 2): log-probabilities of the whole answers."""
        each = loops.log_probabilities(model, made).split([row.answer for row in self.passes.apart(part)])
        return torch.stack([tokens.sum() for tokens in each]).view(-1, 2)

    def size(self, rows: Sequence[Any]) -> int:
        return len(rows)

    def summed(self, model: Any, made: Any, part: Sequence[Any]) -> Any:
        both = self._both(model, made, part)
        gained = both - self.reference[[pair.number for pair in part]]
        margins = self.recipe.beta * (gained[:, 0] - gained[:, 1])
        self.tally += torch.stack([(margins > 0).sum(), margins.sum(), torch.ones_like(margins).sum()]).detach()
        loss = -torch.nn.functional.logsigmoid(margins).sum()
        if self.recipe.sft_weight:
            tokens = torch.tensor([pair.chosen.answer for pair in part], device=both.device)
            loss -= self.recipe.sft_weight * (both[:, 0] / tokens).sum()
        return loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        self.tally = torch.zeros(3, device=self.args.device)  # pairs that are right, margins, pairs
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.process_index >= len(inputs["rows"]):  # a pair of another process was run, with weight 0
            self.tally.zero_()
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(self.tally)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            right, margin, count = self.tally.tolist()
            logs |= {"accuracy": round(right / count, 6), "margin": round(margin / count, 6)}
        super().log(logs, start_time)
