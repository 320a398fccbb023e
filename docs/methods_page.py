"""docs/methods.md: what the methods declare (finbench/methods) and what was measured (benchmarks/*_cpu.json)."""

# ruff: noqa: E501 - the page's lines are as long as its tables need

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import irqlora_page

from finbench.core import catalog, paths
from finbench.core.prose import wrapped
from finbench.methods import METHODS, TUNERS
from finbench.methods.base import SERVED, Method
from finbench.methods.lora import REFUSED as REFUSED_OPTIONS
from finbench.methods.tuners import REFUSED_TUNERS as REFUSED_TUNERS
from finbench.training import recipes

RESULTS = Path(__file__).parent.parent / "benchmarks" / "methods_cpu.json"
PEFT = "https://huggingface.co/docs/peft/package_reference/"
STATED = ("lr", "rank", "alpha")
HEAD = """# Methods

Written by `python docs/generate.py` from `finbench/methods/` and `benchmarks/methods_cpu.json`.
In a terminal `finbench methods` lists them, and `finbench methods NAME` explains every option.

A method says what is trained beside, or instead of, a frozen weight `W` of `o` outputs and `h`
inputs. `B` is `o x r`, `A` is `r x h`, `s` is `alpha / r`.
Bits say how `W` is stored: in 16, in 8 (LLM.int8), or in 4 (NF4 with double quantisation).
You choose method and bits separately: `finbench train --task fpb --method dora --bits 4`.
What does not work together is refused, with the reason, before any weight is loaded.

## Which one?

| for | take |
|--|--|
| a first try; an adapter that every runtime serves, many beside one base | `lora` |
| a base that does not fit in 16 bits | `qlora`, or `loftq`, which starts nearer to the 16-bit base |
| a rank of 64 or more | `rslora` |
| half of `lora`'s trained numbers and optimiser state | `lora-fa` |
| adapters of the fewest numbers | `vera` |
| an update of more rank than A and B have | `rosa`, `relora`, `randlora` |
| knowing what a low rank costs | `full`, on a small base |

No method is known to be best: once each has its own learning rate, published studies find them
close together ([Learning rates](#learning-rates)). [A study](study.md) compares six.

## The methods

| method | what it computes | trained numbers a layer | defaults | paper |
|--|--|--|--|--|
"""
OF_THEM = """
Defaults are those of `adapters_zoo/_defaults.yaml` ({general}) unless a method has its own.
They are a start, not a result: see [Learning rates](#learning-rates).
Without a recipe's file, `finbench train` fits rate, batch, epochs and rank to base and rows:
[what it chooses](training.md#defaults-for-base-and-rows).

These methods have settings of their own. Type `--set option=value`, or put them under `options` in
a recipe:

| method | option | default | what it is |
|--|--|--|--|
{options}

## Mixtures of experts

```
finbench train --base ./mixture --task fpb     # all layers, and the experts
finbench train --base ./mixture --task fpb --set target_modules=[q_proj,v_proj] \\
  --set target_parameters=[experts.gate_up_proj,experts.down_proj]
```

transformers holds the experts of a layer as one parameter, which is no layer. `lora`, `qlora`,
`rslora` and `lora+` learn an update of the recipe's rank for each expert. `target_parameters` names
such parameters by the ends of their names, and `rank_pattern` may give them another rank. In the
families of Mixtral and of Qwen's mixtures, peft also puts updates on experts (their fused gate and
up projections get twice the rank) and on the router where `target_modules` is `all-linear`: they
were linear layers once. Other methods of LoRA's family refuse that, and take layers alone: `--set
target_modules=[q_proj,v_proj]`. In 8 and 4 bits experts stay in 16. They take no dropout, `compile`
or `sharding`. vLLM serves such an adapter merged.

## What becomes of them

| methods | becomes | how it is served |
|--|--|--|
"""
COMBINED = """
On quantised weights `pissa` and `olora` are trained in two stages: they factorise in full precision
and quantise what the adapter does not hold. No adapter of the plain base equals the result, so a
whole 16-bit model is saved.

peft alone (`PeftModel.from_pretrained`) reads every saved adapter except those of `irqlora`.
It gives the logits that training ended with (in float32 to 1e-4; in bfloat16 to its rounding).
`tests/test_methods.py` checks this in a process without finbench, for every method and all bits, on
Llama's layers and GPT-2's.
The exception is a whole model from an 8-bit residual. int8 rounds the inputs of layers too, and a
16-bit model does not (up to 0.02 in log-probability).

`finbench eval` runs any of them.
For its run, an adapter of a float32 base is merged into the weights if that gives the same answers.
All others run beside the weights, and the card says which (`form`).

`finbench merge ADAPTER --out DIR` makes one 16-bit model.
An adapter of a quantised base goes onto the dequantised weights, which is the function that was
trained. With `--onto bf16` it goes onto the weights as published, which is another function.
It never goes into 4 or 8 bits, because quantising the sum would round the update away.
The record and the model card state the largest difference in log-probability, the mean divergence
and the share of equal predictions, compared with the adapter on its base.
An adapter of another program, without finbench.json, can be merged too.
Its files do not say the bits of its base, so 16 are assumed unless `--bits` says otherwise;
`merge.json` and the card say what is unknown.

### Several adapters as one

```
finbench merge runs/a runs/b --out ab                                  # the sum of their updates
finbench merge runs/a runs/b --how ties --weights 0.7,0.3 --out ab     # TIES
```

Several LoRAs of one base become one LoRA, without loading the base. An update is what a LoRA adds
to a weight. `cat` is the weighted sum of updates and `linear` their weighted mean; both are exact,
and their rank is the sum of the parts' ranks. `ties` keeps the largest numbers of each update and
takes the mean of those that have the sign of the majority ([Yadav et al. 2023]); `dare` drops
numbers at random and scales the others up ([Yu et al. 2023]); `dare_ties` does both. What these
make has no low rank: it is cut to `--rank`, and the largest error of that is printed and recorded.
By default that is the sum of the parts' ranks, too; a higher `--rank` loses less.
Updates that cancel each other out, or that 32 bits do not hold, are refused; nothing is written.
What merges reach beside an adapter that is trained on both tasks stands in
[training.md](training.md#two-tasks-merged-or-trained-on-both).
With equal weights `ties` is peft's `ties_svd`. peft's own `ties` and `linear` work on the two
factors of an update apart, which adds products of one adapter's factor with the other's.

`combined.json` names the parts with their hashes, weights and tasks. It states at most how many
test texts the parts have learnt; of a part without a record that is not known. Score the result
beside its parts, and beside one adapter trained on all tasks
(`finbench train --task fpb --task headlines`): which is better depends on the tasks.

[Yadav et al. 2023]: https://arxiv.org/abs/2306.01708
[Yu et al. 2023]: https://arxiv.org/abs/2311.03099

## Methods and bits: what a step costs

{work} Processor time of one thread ({cpu}, torch {torch}, {dtype}).
Other processes used the machine too: `rslora` and `lora+` do the same work as `lora` and took from
12 % less to 45 % more, so smaller differences mean nothing, and times of a step over other numbers
of steps cannot be compared.{moves}

| method, bits | trains | to start, s | a step, s | peak memory | on disk |
|--|--:|--:|--:|--:|--:|
"""
SCORES = """
These do not run on all of 16, 8 and 4 bits and on GPT-2's Conv1D layers; the others do:

| method | refused on | why |
|--|--|--|
{refused}

peft's options combine too where peft allows it: `--method lora+ --set use_dora=true` (which becomes
merged weights, as `--dry-run` says), `--method pissa --set use_rslora=true`,
`--method lora --set init_lora_weights=orthogonal`.
If an option turns `lora` into another method, use that method's name: `--method dora`, not
`--method lora --set use_dora=true`.
Before weights are loaded, names, types and ranges are checked, and peft puts its layers on the base
without its weights. These options are refused:

| option | why |
|--|--|
{options}

## Learning

{rows} rows of fpb, one epoch of {steps} steps, default learning rates, one seed, {n} test rows, `smollm2-135m`, greedy answers.

This shows that each method learns, `randlora` hardly (the majority label alone has 25), and at what
cost. It does not rank them: there is one seed, no rate was [searched](#learning-rates), and
intervals are of the test rows alone.

![macro-F1 against the time of a step](methods_cpu.png)

| method, bits | macro-F1, 95 % interval | lr | trains | tokens/s | peak memory | on disk |
|--|--:|--:|--:|--:|--:|--:|
"""
RATES = """
Tokens a second are by the clock, on a machine that other processes used too.

## Learning rates

Two studies (arXiv:2602.04998, arXiv:2601.22708) find nine and more LoRA variants within one or two
points of each other once each has its own learning rate.

`finbench tune RECIPE --budget N` gives any method the same budget: 2^N rates, a factor of two
apart, each trained on one row in 2^N. The better half of them is trained again on twice the rows,
and so on; each round costs one whole training. Scoring the rows held out (a fifth of train, at most
200 a task) comes on top. Rates are ranked by the likelihood of the answers held out; the test split
is not touched. A stopped search continues with the same command. `--dry-run` shows rates, rows,
steps and tokens of every round. The winner is a recipe:

```
finbench tune fpb-smollm2-135m-lora --budget 2
finbench train runs/tune-fpb-smollm2-135m-lora-s0/fpb-smollm2-135m-lora-tuned.yaml
```
"""
TUNERS_HEAD = """
## peft's other tuners

Use peft's own names and options: `--method fourierft --set n_frequency=500`.
`tests/test_tuners.py` trains, saves, reads and merges each of them; what peft's code cannot do is
refused. All become merged weights (above).

| method | bits | GPT-2's Conv1D | paper, or peft's page |
|--|--|--|--|
"""
NOT_HERE = """
Not here:

| tuner | why |
|--|--|
"""


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


def _paper(stated: str) -> str:
    name, arxiv, number = stated.partition("arXiv:")
    return f"{name}[arXiv:{number}](https://arxiv.org/abs/{number})" if arxiv else stated


def _defaults(method: Method) -> str:
    return ", ".join(f"{key} {_number(value)}" for key, value in recipes.defaults_of(method).items())


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bits(method: Method) -> str:
    return ", ".join(str(bits) for bits in method.bits)


def _own_options() -> str:
    lines = []
    for method in METHODS.values():
        for key, value in method.options.items():
            shown = "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
            lines.append(_row([f"`{method.name}`", f"`{key}`", shown, method.about[key]]))
    return "".join(lines).rstrip()


def _becomes() -> str:
    lines = []
    for kind, how in SERVED.items():
        names = [f"`{name}`" for name, method in METHODS.items() if method.becomes == kind]
        lines.append(_row([", ".join(names), kind, how]))
    return "".join(lines)


def _refused() -> str:
    lines = []
    for method in METHODS.values():
        others = [str(bits) for bits in (16, 8, 4) if bits not in method.bits]
        if others:
            lines.append(_row([f"`{method.name}`", ", ".join(others), method.refused]))
        if not method.conv1d:
            lines.append(_row([f"`{method.name}`", "GPT-2", "peft has it for nn.Linear only, not for Conv1D"]))
    return "".join(lines).rstrip()


def _cost(name: str, row: dict[str, Any]) -> str:
    cells = [f"{row['start_seconds']:.0f}", f"{row['step_seconds']:.2f}", *_sizes(row)]
    return _row([f"`{row['method']}`, {row['bits']}", f"{row['trainable_parameters']:,}", *cells])


def _sizes(row: dict[str, Any]) -> Sequence[str]:
    return f"{row['peak_memory_bytes'] / 1e9:.2f} GB", f"{row['bytes'] / 1e6:.1f} MB"


def _score(name: str, row: dict[str, Any], general: dict[str, Any]) -> str:
    value, low, high = (100 * number for number in row["macro_f1"])
    measured = f"{value:.1f} [{low:.1f}, {high:.1f}]"
    if name == "base":
        return _row(["base, untrained", measured, "", "", "", "", ""])
    trains, speed = f"{row['trainable_parameters']:,}", f"{row['tokens_per_second']:,.0f}"
    default = METHODS[row["method"]].defaults.get("lr", general["lr"])
    rate = f"{row['lr']:g}" + (f" (default now {default:g})" if row["lr"] != default else "")
    return _row([f"`{row['method']}`, {row['bits']}", measured, rate, trains, speed, *_sizes(row)])


def page() -> str:
    """The Markdown page."""
    general = catalog.read_yaml(paths.shipped("adapters_zoo") / "_defaults.yaml")
    found = json.loads(RESULTS.read_text())
    scores, costs = found["scores"], found["costs"]
    order = {name: number for number, name in enumerate(METHODS)}
    in_order = sorted(costs.items(), key=lambda item: (order[item[1]["method"]], -item[1]["bits"]))
    first, scored = in_order[0][1], next(row for name, row in scores.items() if name != "base")
    parts = [HEAD]
    for method in METHODS.values():
        parts.append(
            _row(
                [
                    f"`{method.name}`",
                    f"`{method.equation}`",
                    method.trains,
                    _defaults(method),
                    _paper(method.paper),
                ]
            )
        )
    general_ones = ", ".join(f"{key} {_number(general[key])}" for key in STATED)
    parts += [OF_THEM.format(general=general_ones, options=_own_options()), _becomes()]
    more = sorted({(row["method"], row["steps"]) for row in costs.values() if row["steps"] != first["steps"]})
    others = "".join(f", {steps} for `{name}`, which needs more" for name, steps in more)
    work = f"{first['steps']} steps{others}, of {first['rows'] // first['steps']} rows of fpb with `smollm2-135m`."
    moves = [f"{row['move_seconds']:.0f} s with `{row['method']}`" for _, row in in_order if "move_seconds" in row]
    changes = f" Not in a step: a change of subspace, {', '.join(moves)}." if moves else ""
    absent = ", ".join(f"`{name}`" for name in METHODS if name not in {row["method"] for row in costs.values()})
    changes += f" Not measured, here and below: {absent}." if absent else ""
    machine = {"cpu": first["hardware"]["cpu"], "torch": first["packages"]["torch"], "dtype": first["dtype"]}
    parts.append(COMBINED.format(work=work, moves=changes, **machine))
    parts += [_cost(name, row) for name, row in in_order]
    options = "".join(_row([f"`{name}`", why]) for name, why in REFUSED_OPTIONS.items()).rstrip()
    parts.append(
        SCORES.format(refused=_refused(), options=options, rows=scored["rows"], steps=scored["steps"], n=scored["n"])
    )
    ranked = sorted(
        scores.items(), key=lambda item: (-1, 0) if item[0] == "base" else (order[item[1]["method"]], -item[1]["bits"])
    )
    parts += [_score(name, row, general) for name, row in ranked]
    parts += [RATES, irqlora_page.section(), TUNERS_HEAD]
    for tuner in TUNERS.values():
        where = _paper(tuner.paper) if tuner.paper != "-" else f"[peft]({PEFT}{tuner.name})"
        parts.append(_row([f"`{tuner.name}`", _bits(tuner), "yes" if tuner.conv1d else "no", where]))
    parts.append(NOT_HERE)
    parts += [_row([f"`{name}`", why]) for name, why in REFUSED_TUNERS.items()]
    return wrapped("".join(parts))
