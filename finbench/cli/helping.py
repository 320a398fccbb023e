"""What ``--help`` says besides the options: two examples of each command, and the keys that an option takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from typer.core import TyperCommand, TyperGroup

EXAMPLES: dict[str, tuple[str, str]] = {
    "train": ("train --task fpb --base smollm2-135m", "train --data mine.jsonl --base ./my-model --set warmup=0.1"),
    "plan": (
        "plan --task fpb --base llama-3.1-8b --bits 4 --gpu l4",
        "plan examples/pretrain-gpt2-124m.yaml --gpu h100",
    ),
    "eval": ("eval --adapter runs/fpb-smollm2-135m-lora-s0", "eval --model ./my-model --tasks fpb,fomc --limit 100"),
    "ask": (
        'ask runs/fpb-smollm2-135m-lora-s0 "Sales fell by a tenth."',
        'ask hub:org/name "Rates stay where they are." --task fomc',
    ),
    "try": ("try runs/fpb-smollm2-135m-lora-s0", "try hub:org/name --task fomc --port 7861"),
    "serve run": ("serve --adapter runs/a --adapter runs/b", "serve --base smollm2-135m --allow-owner org --port 8001"),
    "serve add": ("serve add zoo:name", "serve add ./runs/b --name fpb-2 --url http://127.0.0.1:8001/v1"),
    "serve remove": ("serve remove fpb-2", "serve remove fpb-2 --wait"),
    "serve list": ("serve list", "serve list --json"),
    "demo": ("demo", "demo --out /tmp/demo"),
    "doctor": ("doctor", "doctor --all"),
    "export": ("export runs/a --to ollama --out mine", "export runs/a --to mlx --out mlx"),
    "merge": ("merge runs/a --out merged", "merge runs/a runs/b --how ties --weights 0.7,0.3 --out ab"),
    "tune": ("tune --task fpb --base smollm2-135m", "tune my-recipe.yaml --budget 4 --dry-run"),
    "methods": ("methods", "methods dora"),
    "pretrain": ("pretrain examples/pretrain-small.yaml --dry-run", "pretrain mine.yaml --set structure.rank=64"),
    "sweep": ("sweep examples/sweep-cpu.yaml --dry-run", "sweep status runs/sweep-cpu"),
    "sweep run": ("sweep examples/sweep-cpu.yaml", "sweep grid.yaml --ray auto --out s3://bucket/grid"),
    "sweep status": ("sweep status runs/sweep-cpu", "sweep status s3://bucket/grid --json"),
    "sweep fetch": ("sweep fetch s3://bucket/grid", "sweep fetch s3://bucket/grid --out runs/grid"),
    "compare": ("compare scorecards/a.json scorecards/base.json", "compare scorecards --tasks fpb --show 20"),
    "verify": ("verify scorecards/a.json", "verify scorecards/a.json --rerun 50 --adapter runs/a"),
    "report": ("report scorecards", "report runs/*/scorecards --format latex --out table.tex"),
    "runs": ("runs", "runs /data/experiments --json"),
    "lm-eval": ("lm-eval run --model finbench --tasks finbench_fpb", "lm-eval ls tasks"),
    "bases": ("bases", "bases --json"),
    "push": ("push runs/a hub:org/name --dry-run", "push --benchmark hub:org/name --dry-run"),
    "adopt": ("adopt runs/a", "adopt runs/a --json"),
    "pull": ("pull hub:org/name --out adapter", "pull ./old --convert --out adapter"),
    "risk": ("risk runs/a --out risk.html", "risk scorecards/a.json scorecards --out risk.md"),
    "card noise": ("card noise scorecards/a.json noisy/a.json", "card noise scorecards/a.json noisy/*.json --json"),
    "card contextual": (
        "card contextual scorecards/a.json content-free/a.json",
        "card contextual a.json free.json --tasks headlines_mc --json",
    ),
    "card years": ("card years scorecards", "card years test.json --cutoff 2024-08"),
    "card prompts": ("card prompts scorecards", "card prompts a.json b.json --tasks fpb_mc --json"),
    "card calibration": ("card calibration scorecards", "card calibration test.json --validation val.json --error 0.1"),
    "card import": ("card import lm-eval-output/", "card import answers.csv --task fpb --name gpt-x"),
    "card export": (
        "card export scorecards/a.json --format lm-eval",
        "card export a.json --format eval-results --benchmark hub:o/b",
    ),
    "card rescore": ("card rescore scorecards", "card rescore scorecards/a.json --ask --adapter runs/a"),
    "tasks list": ("tasks list", "tasks list --json"),
    "tasks show": ("tasks show fpb", "tasks show ./my-benchmark"),
    "tasks new": ("tasks new notes.csv --text note --label stance", "tasks new q.csv --kind number --tolerance 1%"),
    "tasks path": ("tasks path", "tasks path --json"),
    "tasks check": ("tasks check", "tasks check --write"),
    "data check": ("data check mine.jsonl", "data check mine.csv --map prompt=question,completion=answer"),
    "data import": ("data import fpb Sentences_*Agree.txt", "data import tfns"),
    "data xbrl": ("data xbrl filings/", "data xbrl filings/ --help"),
    "data lock": ("data lock", "data lock --json"),
    "data list": ("data list", "data list --json"),
    "data audit": ("data audit fpb", "data audit mine.jsonl"),
    "leaderboard add": ("leaderboard add scorecards", "leaderboard add scorecards/a.json --adapter runs/a --rerun 20"),
    "leaderboard reproduce": (
        "leaderboard reproduce --dry-run",
        "leaderboard reproduce --key ~/.ssh/finbench --at runs --only a,b",
    ),
    "leaderboard build": ("leaderboard build", "leaderboard build leaderboards --check"),
    "leaderboard review": (
        "leaderboard review leaderboards --against ../main/leaderboards",
        "leaderboard review leaderboards --against ../main/leaderboards --comment comment.md",
    ),
    "leaderboard pack": ("leaderboard pack cards", "leaderboard pack dataset/scorecards leaderboards"),
    "leaderboard unpack": ("leaderboard unpack unpacked", "leaderboard unpack cards dataset"),
    "leaderboard push": ("leaderboard push hub:org/board --dry-run", "leaderboard push hub:org/board --public"),
    "zoo list": ("zoo list", "zoo list --json"),
    "zoo show": ("zoo show fpb-smollm2-135m-lora", "zoo show NAME > mine.yaml"),
    "zoo add": ("zoo add hub:org/name", "zoo add hub:org/name@main --name fpb-8b"),
    "dev hub": ("dev hub", "dev hub --port 0 --fault 429=2"),
}

# of ``eval --arg``: name -> (engines that take it, what it is); evaluation.options checks values
ARGUMENTS = {
    "dtype": ("hf vllm", "auto, float32, bfloat16 or float16"),
    "batch_size": ("hf vllm", "rows at once; default: what fits"),
    "truncate": ("hf vllm", "left: cut prompts that do not fit"),
    "labels": ("hf vllm", "best: run only the labels that can still win"),
    "merge": ("hf", "no: compute the adapter beside the weights"),
    "tensor_parallel": ("vllm", "GPUs that share the base"),
    "data_parallel": ("vllm", "copies of the base"),
    "answers": ("dummy", "what it answers"),
    "url": ("server api", "address: http://127.0.0.1:8000/v1"),
    "concurrency": ("server api", "requests under way; default: 16"),
    "timeout": ("server api", "seconds of silence"),
    "requests_per_minute": ("server api", "limit that is kept"),
    "tokens_per_minute": ("server api", "limit that is kept"),
    "price_in": ("server api", "USD for a million tokens of prompts"),
    "price_out": ("server api", "USD for a million tokens of answers"),
    "answered_by": ("server api", "another name of the same model"),
    "withheld": ("server api", "wrong: what a filter withheld counts so"),
    "body": ("server", "more fields of a request, as JSON"),
    "reasoning_effort": ("api", "minimal, low, medium or high"),
}


def keys(command: str) -> tuple[str, Iterable[tuple[str, str, str]]] | None:
    """(title, rows of key, default or engines, what it is) of the option that takes keys; None where there is none."""
    if command == "eval":
        return "Keys of --arg", [(name, *about) for name, about in ARGUMENTS.items()]
    if command not in ("train", "plan", "tune"):
        return None
    from finbench.core import catalog, paths
    from finbench.core.records import Recipe

    defaults = catalog.read_yaml(paths.shipped("adapters_zoo") / "_defaults.yaml")
    own = {"name", "base", "tasks", "data", "method", "bits", "rank", "lr", "epochs", "seed", "limit", "search"}
    own |= {"preferences", "start"}
    rows = []
    for name, field in Recipe.model_fields.items():
        if name not in own:
            default = (
                str(defaults.get(name, "")).lower() if isinstance(defaults.get(name), bool) else defaults.get(name, "")
            )
            rows.append((name, str(default), field.description or _PLAIN.get(name, "")))
    return "Keys of --set, with their defaults", rows


_NAMED_BY = {"--adapter": "an adapter", "--model": "a model", "--task": "a task", "--tasks": "tasks"}
_PLAIN = {
    "alpha": "scale of the update: alpha / rank",
    "dropout": "of the update's input, in training",
    "schedule": "linear, cosine or constant",
    "weight_decay": "of AdamW",
    "dtype": "auto, float32, bfloat16 or float16",
    "lr": "peak learning rate",
}


class Command(TyperCommand):
    """A command whose help ends with examples and keys."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """An argument that is none is told by which option it may be named."""
        try:
            return super().parse_args(ctx, args)
        except Exception as fault:
            said, options = str(getattr(fault, "message", "")), {name for param in self.params for name in param.opts}
            by = [f"{what} by {name}" for name, what in _NAMED_BY.items() if name in options]
            if by and "extra argument" in said:
                fault.message = f"{said}. It is named by an option: {', '.join(by)}."  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The options as typer shows them, then ours."""
        super().format_help(ctx, formatter)
        name = ctx.command_path.partition(" ")[2].removeprefix("-m finbench ")
        show(name)


class Group(TyperGroup):
    """A group of commands whose help ends with examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As that of a command."""
        super().format_help(ctx, formatter)
        show(str(ctx.info_name))


class RunGroup(Group):
    """``sweep FILE`` is ``sweep run FILE``, and ``serve --adapter A`` is ``serve run --adapter A``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before what names no subcommand."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


def examples_of(command: str) -> list[str]:
    """Two examples of a command; of a group, those of its only command, or the first ones of two."""
    if command in EXAMPLES:
        return list(EXAMPLES[command])
    members = [own for name, own in EXAMPLES.items() if name.startswith(f"{command} ")]
    return list(members[0]) if len(members) == 1 else [own[0] for own in members[:2]]


def show(command: str) -> None:
    """Print keys and examples of a command."""
    from finbench.core.console import out

    if stated := keys(command):
        title, rows = stated
        table = Table(title=title, title_justify="left", title_style="dim", box=None, show_header=False, pad_edge=False)
        for number in range(3):
            table.add_column(no_wrap=number == 0, overflow="fold", style="bold" if number == 0 else "")
        for row in rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        out.print(table)
        out.print()
    if found := examples_of(command):
        out.print("Examples", style="dim")
        for example in found:
            out.print(f"  finbench {example}", markup=False, highlight=False, soft_wrap=True)
