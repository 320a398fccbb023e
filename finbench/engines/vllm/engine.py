"""The engine ``vllm``: plans requests, hands them to engine processes, and puts the answers together."""

from __future__ import annotations

import functools
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from finbench.core.console import say
from finbench.core.errors import FinbenchError
from finbench.core.records import Bits, DType
from finbench.engines import choices, race, thinking, turns
from finbench.engines.interface import Done, Engine, Generated
from finbench.engines.lm import HARMLESS
from finbench.engines.servable import targets
from finbench.engines.vllm import forced_runs, memory, parity
from finbench.engines.vllm.processes import Pool
from finbench.models import adapters, bases

_WINDOW = 8192  # requests that are planned at a time, which bounds memory
_FIELD = 256  # what a document counts there of which the best label is wanted: of all its labels few are run at a time
_CPU_CACHE = 2 * 2**30  # bytes of keys and values on a CPU, unless VLLM_CPU_KVCACHE_SPACE says otherwise
_CPU_BATCH = 2048  # tokens a step on a CPU; more gain nothing, and a step must stay short to be noticed
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
_GREEDY_OWN = {"repetition_penalty"}  # of a model's generation config: what vLLM takes and greedy decoding feels

_Asked = Sequence[tuple[Path | None, Any]]  # adapters, and requests to them


class VLLMEngine(Engine):
    """One start for a base and all ``folders`` of adapters. It starts when it is first asked.

    ``max_length``: tokens of a prompt with its answer; by default the base's context, or what a GPU has memory for.
    ``gpu_memory``: the share of each GPU's memory that vLLM takes, by default 0.92.
    """

    name = "vllm"
    mixes = True

    def __init__(
        self,
        base: bases.Base,
        folders: Sequence[Path],
        dtype: DType = "auto",
        batch_size: int | None = None,
        tensor_parallel: int = 1,
        data_parallel: int = 1,
        max_length: int | None = None,
        gpu_memory: float | None = None,
        bits: Bits = 16,
    ) -> None:
        import torch
        from transformers import GenerationConfig

        self.base, self.folders, self.bits = base, list(dict.fromkeys(folders)), bits
        self.dtype = bases.dtype_name(dtype)
        self.encoder = Encoder(bases.load_tokenizer(base))
        context = min((n for n in (max_length, bases.context_length(base)) if n), default=None)
        self.max_length = (context or self.encoder.tokenizer.model_max_length) - 1  # one more is always said
        self.on_cpu = not torch.cuda.is_available()
        self.count = data_parallel
        # the adapters' names inside vLLM, from their content: equal names mean equal answers, so caches cannot mix
        self.names = {folder: "a" + adapters.identity(folder)[:24] for folder in self.folders}
        held = [
            {"name": name, "id": int(name[1:13], 16) + 1, "path": str(folder.resolve())}
            for folder, name in self.names.items()
        ]
        self.stated, self.fits = max_length is not None, self.max_length
        engine = self._engine(batch_size, tensor_parallel, gpu_memory or memory.SHARE)
        self.settings = {"engine": engine, "adapters": held}
        self.use(None)
        self.pool: Pool | None = None
        self.gaps: dict[Path | None, float] = {}
        stated = (base.folder / "generation_config.json").is_file()
        own = GenerationConfig.from_pretrained(base.folder, local_files_only=True) if stated else None
        self.generation: dict[str, Any] = own.to_diff_dict() if own else {}  # the model's own, where not the default

    def _engine(self, batch_size: int | None, tensor_parallel: int, share: float) -> dict[str, Any]:
        engine: dict[str, Any] = {
            "model": str(self.base.folder),
            "dtype": self.dtype,
            "max_model_len": self.max_length + 1 if self.stated else memory.AUTO_FIT,
            "tensor_parallel_size": tensor_parallel,
            "enable_prefix_caching": True,
            "async_scheduling": False,  # tokens that are forced must be known before the next step
            "disable_log_stats": True,
            "max_logprobs": forced_runs.MOST_IDS,
            "generation_config": "vllm",  # what the model's own says is passed with each request
            "hf_overrides": {"head_dtype": "float32"},  # half precision makes ties of close labels
        }
        if self.bits == 4:
            engine["quantization"] = "bitsandbytes"  # NF4 with double quantisation, as methods/quantise.py has it
        if batch_size:
            engine["max_num_seqs"] = batch_size
        if self.on_cpu:
            engine |= {"enforce_eager": True, "block_size": 32}
            engine["max_num_batched_tokens"] = max(_CPU_BATCH, batch_size or 0)
            if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
                engine["kv_cache_memory_bytes"] = _CPU_CACHE
        else:
            engine["gpu_memory_utilization"] = share
        if self.folders:
            count = len(self.folders)
            engine |= {
                "enable_lora": True,
                "max_lora_rank": memory.largest_rank(self.folders),
                # on a CPU vLLM's own code takes tokens without an adapter for those of the last slot: it stays empty
                "max_loras": count + 1 if self.on_cpu else self._slots(tensor_parallel, share),
                "max_cpu_loras": count + 1,
                "lora_target_modules": sorted({name for folder in self.folders for name in targets(folder)}),
            }
        return engine

    def _slots(self, tensor_parallel: int, share: float) -> int:
        needed = memory.holding(self.base, self.folders, self.dtype).on(tensor_parallel, self.bits)
        return needed.slots(share * memory.card()[1], len(self.folders))

    def use(self, adapter: Path | None) -> None:
        if adapter is not None and adapter not in self.names:
            raise FinbenchError(
                f"{adapter} was not given when the engine was made.",
                "Name it when the engine is made: VLLMEngine(base, [folder, ...])",
            )
        self.current, self.form = adapter, "unmerged" if adapter else "base"

    def prompt_tokens(self, request: Any) -> tuple[int, int]:
        prompt = len(self.encoder.tok_encode(request.args[0]))
        if request.request_type == "loglikelihood":
            return prompt, prompt + len(self.encoder.tok_encode(request.args[1], add_special_tokens=False)) - 1
        return prompt, prompt + int(request.args[1].get("max_gen_toks", 256)) - 1  # the last one is said, not read

    def chat_template(self) -> Any:
        return thinking.chat_template(self.encoder.tokenizer, self.base.id.alias, self.profile)

    def memory(self) -> int:
        return sum(worker.memory for worker in self.pool.workers) if self.pool else 0

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None

    def answer(self, requests: Sequence[Any], done: Done) -> list[Any]:
        return self.answer_all([(self.current, request) for request in requests], done)

    def answer_all(self, asked: _Asked, done: Done) -> list[Any]:
        pool = self._started()
        answers: dict[int, Any] = {}

        def deliver(part: Mapping[int, Any]) -> None:
            answers.update(part)
            done(part)

        for window in _windows(asked, self.best):
            scored = [at for at in window if asked[at][1].request_type == "loglikelihood"]
            raced = [at for at in scored if asked[at][1].task_name in self.best]
            self._race(pool, raced, asked, deliver)
            self._score(pool, sorted(set(scored) - set(raced)), asked, deliver)
            self._continue(pool, sorted(set(window) - set(scored)), asked, deliver)
        return [answers[at] for at in range(len(asked))]

    def _started(self) -> Pool:
        if self.pool is not None:
            return self.pool
        if not self.on_cpu:  # vLLM takes most of a GPU's memory: peft goes first
            known = parity.references(self.base, self.folders, self.dtype, self.bits)
        pool = Pool(self.settings, self.count, self.on_cpu)
        try:
            if self.on_cpu:  # while vLLM loads
                known = parity.references(self.base, self.folders, self.dtype, self.bits)
            pool.await_ready()
            self._fitted(min(worker.max_length for worker in pool.workers) - 1)
            self.gaps = parity.check(known, functools.partial(self._probe, pool), self.dtype)
        except BaseException:
            pool.close()
            raise
        served = {folder: gap for folder, gap in self.gaps.items() if folder}
        if served:
            worst = max(served.values())
            say(f"vLLM serves {len(served)} adapters unmerged; log-probabilities differ from peft's by {worst:.1g}.")
        if None in self.gaps:
            gap = f"{self.gaps[None]:.1g}, where {self.dtype} explains {parity.OF_BASE[self.dtype]:.1g}"
            say(f"vLLM quantised the base to NF4; log-probabilities differ from transformers' by {gap}.")
        self.pool = pool
        return pool

    def _fitted(self, length: int) -> None:
        """Take note of what vLLM has memory for, in tokens that it can read."""
        self.fits = min(self.max_length, length)
        if self.fits < self.max_length:
            own = f"the base sees {self.max_length + 1:,}"
            say(f"vLLM has room for prompts and answers of {self.fits + 1:,} tokens; {own}.")

    def _all_fit(self, lengths: Iterable[int]) -> None:
        """Refuse what the base could read and this memory cannot hold: to cut it would be another question."""
        if self.stated:
            return
        longest = min(max(lengths, default=0), self.max_length)
        if longest > self.fits:
            raise FinbenchError(
                f"A prompt with its answer has {longest + 1:,} tokens; vLLM has room for {self.fits + 1:,} here.",
                "More memory (--arg tensor_parallel=2 on two GPUs), or cut prompts on the left, as the scorecard will "
                f"show: --max-length {self.fits + 1} --arg truncate=left",
            )

    def _probe(self, pool: Pool, adapter: Path | None, ids: list[list[int]]) -> parity.Scores:
        texts = [self.encoder.tokenizer.encode(text) for text in parity.PROBES]
        runs = [forced_runs.ForcedRun(0, text, [], [0], [part]) for text, part in zip(texts, ids, strict=True)]
        found: dict[int, list[float]] = {}
        for part in pool.answers([(at, self._scoring(at, run, adapter)) for at, run in enumerate(runs)]):
            for answer in part:
                scored = forced_runs.read(runs[answer["id"]], answer)
                found[answer["id"]] = [scored[0, token][0] for token in ids[answer["id"]]]
        return [found[at] for at in range(len(runs))]

    def _scoring(self, number: int, run: forced_runs.ForcedRun, adapter: Path | None) -> dict[str, Any]:
        name = self.names[adapter] if adapter else None
        return {"id": number, "adapter": name, "prompt": run.prompt, "forced": run.forced, "ids": run.ids}

    def _pairs(self, window: Sequence[int], asked: _Asked) -> Iterator[tuple[Path | None, list[int], Any]]:
        for adapter in dict.fromkeys(asked[at][0] for at in window):
            own = [at for at in window if asked[at][0] == adapter]
            pairs = self.encoder.loglikelihood([asked[at][1] for at in own], disable_tqdm=True)
            self._all_fit(len(context) + len(continuation) - 1 for context, continuation in pairs)
            yield adapter, own, pairs

    def _score(self, pool: Pool, window: Sequence[int], asked: _Asked, deliver: Done) -> None:
        """Requests of one window, by adapter; those near a root go first, of all adapters."""
        first: list[tuple[Path | None, _Ledger, forced_runs.ForcedRun]] = []
        later = []
        for adapter, own, pairs in self._pairs(window, asked):
            ledger = _Ledger(choices.plan(pairs, self.max_length), own)
            if empty := ledger.empty():
                deliver(empty)
            made = [(adapter, ledger, run) for run in forced_runs.runs(ledger.plan)]
            first += made[: len(ledger.plan.trees)]
            later += made[len(ledger.plan.trees) :]
        planned = first + later
        requests = [(run.tree, self._scoring(number, run, adapter)) for number, (adapter, _, run) in enumerate(planned)]
        for part in pool.answers(requests):
            ready: dict[int, Any] = {}
            for answer in part:
                _, ledger, run = planned[answer["id"]]
                ready |= ledger.enter(run, answer)
            if ready:
                deliver(ready)

    def _race(self, pool: Pool, window: Sequence[int], asked: _Asked, deliver: Done) -> None:
        """Requests of which the best of each document is wanted: heats of the whole window together."""
        racing: list[tuple[Path | None, list[int], race.Race]] = []
        for adapter, own, pairs in self._pairs(window, asked):
            for field in race.fields([race.document(asked[at][1]) for at in own], pairs):
                plan = choices.plan([pairs[number] for number in field], self.max_length)
                racing.append((adapter, [own[number] for number in field], race.Race(plan)))
        running = set(range(len(racing)))
        while running:
            for share in [share for share in sorted(running) if racing[share][2].over]:
                running.discard(share)
                deliver(dict(zip(racing[share][1], racing[share][2].answers(), strict=True)))
            planned = [(share, run) for share in sorted(running) for run in forced_runs.runs(racing[share][2].heat())]
            requests = [(share, self._scoring(at, run, racing[share][0])) for at, (share, run) in enumerate(planned)]
            for part in pool.answers(requests):
                for answer in part:
                    share, run = planned[answer["id"]]
                    racing[share][2].enter(run.tree, forced_runs.read(run, answer))

    def _continue(self, pool: Pool, window: Sequence[int], asked: _Asked, deliver: Done) -> None:
        until: dict[int, list[str]] = {}
        requests = []
        own = self.generation.get("eos_token_id")
        settings = {key for key, value in self.generation.items() if value is not None and not key.startswith("_")}
        for at in window:
            adapter, request = asked[at]
            text, stated = request.args
            how = normalize_gen_kwargs(dict(stated), 256)
            limit = int(how["max_gen_toks"])
            room = choices.room(limit, self.max_length + 1)
            others = {key for key, value in how.items() if value is not None} - {"until", "max_gen_toks", "do_sample"}
            if odd := sorted(others - set(_SAMPLING)):
                raise FinbenchError(f"The engine vllm cannot generate with {odd[0]}.", "Use --engine hf")
            if odd := sorted(settings - HARMLESS - _GREEDY_OWN):
                said = f"The model's own generation_config.json has {odd[0]}, which vLLM does not do."
                raise FinbenchError(said, "Use --engine hf")
            eot = self.encoder.eot_token_id
            eos = self.encoder.tok_decode([eot], skip_special_tokens=False)
            until[at] = handle_stop_sequences(how.get("until"), eos=eos)
            prompt = self.encoder.tok_batch_encode([text])[0][0].tolist()
            self._all_fit([len(prompt) + limit - 1])
            asks = {
                "id": at,
                "adapter": self.names[adapter] if adapter else None,
                "prompt": prompt[-room:],
                "limit": limit,
                # a turn of another profile ends by itself: the task's stops are for what follows the reasoning
                "stop": [stop for stop in until[at] if stop] if self.profile == "direct" else [],
                "ends": sorted({eot, *(own if isinstance(own, list) else [own])} - {None}),
                "sampling": {
                    **{key: value for key, value in self.generation.items() if key in _GREEDY_OWN},
                    **{key: how[key] for key in sorted(others)},
                },
            }
            if not asks["prompt"]:
                raise FinbenchError(choices.NO_PROMPT, choices.WITH_TEXT)
            requests.append((at, asks))
        for part in pool.answers(requests):
            if self.profile != "direct":
                deliver({one["id"]: self._turn(one, *asked[one["id"]][1].args) for one in part})
                continue
            texts = {one["id"]: self.encoder.tok_decode(one["tokens"], skip_special_tokens=True) for one in part}
            deliver({at: postprocess_generated_text(text, until[at], None) for at, text in texts.items()})

    def _turn(self, said: Mapping[str, Any], prompt: str, how: Mapping[str, Any]) -> Generated:
        return turns.of_tokens(
            self.encoder, said["tokens"], said["ended"], prompt, how["until"], self.profile, self.think_end
        )


class Encoder(TemplateLM):
    """Texts to tokens as HFLM makes them: special tokens, empty contexts, spaces at the seam; it answers nothing."""

    backend = "causal"
    add_bos_token = None
    custom_prefix_token_id = None

    tok_encode = HFLM.tok_encode
    tok_decode = HFLM.tok_decode
    tok_batch_encode = HFLM.tok_batch_encode
    eot_token_id = HFLM.eot_token_id
    prefix_token_id = HFLM.prefix_token_id

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
        """What lm-eval's ``loglikelihood`` gives: (context, continuation) in tokens."""
        return [(list(context), list(continuation)) for _, context, continuation in requests]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise NotImplementedError

    loglikelihood_rolling = generate_until


class _Ledger:
    """The requests of a plan, by their numbers in the call, and what is still to come for each."""

    def __init__(self, plan: choices.TreePlan, numbers: Sequence[int]) -> None:
        self.plan, self.numbers = plan, numbers
        self.scored: list[dict[tuple[int, int], tuple[float, bool]]] = [{} for _ in plan.trees]  # by node and token
        self.waiting = [dict(tree.paths) for tree in plan.trees]

    def empty(self) -> dict[int, tuple[float, bool]]:
        return {self.numbers[at]: (0.0, True) for at, target in enumerate(self.plan.targets) if not target}

    def enter(self, run: forced_runs.ForcedRun, answer: Mapping[str, Any]) -> dict[int, tuple[float, bool]]:
        """Take what a run found; return the answers that are whole now, by number."""
        scored, waiting = self.scored[run.tree], self.waiting[run.tree]
        scored |= forced_runs.read(run, answer)
        ready = {}
        for request, path in list(waiting.items()):
            targets = self.plan.targets[request]
            if all(place in scored for place in zip(path, targets, strict=True)):
                ready[self.numbers[request]] = choices.total(path, targets, scored)
                del waiting[request]
        return ready


def _windows(asked: _Asked, raced: Container[str]) -> Iterator[list[int]]:
    """Numbers of requests, a window at a time; those of one document stay together."""
    window: list[int] = []
    size, before = 0, None
    for at, (adapter, request) in enumerate(asked):
        at_document = adapter, race.document(request)
        if at_document != before and size >= _WINDOW:
            yield window
            window, size = [], 0
        if request.task_name not in raced:
            size += 1
        elif at_document != before:
            size += _FIELD
        before = at_document
        window.append(at)
    if window:
        yield window
