"""docs/scorecard.md and docs/scorecard.schema.json from the records, docs/methods.md from the methods and measurements.

python docs/generate.py            writes them
python docs/generate.py --check    says whether they are what they should be; exit 1 if not
"""

# ruff: noqa: E501 - the page's lines are as long as its tables need

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import methods_page

from finbench.core import records
from finbench.core.prose import wrapped

HERE = Path(__file__).parent
NOUNS = (
    "Scorecard",
    "Subject",
    "BaseModelId",
    "Quantised",
    "Generation",
    "Score",
    "Answers",
    "Hosted",
    "Overlap",
    "Prompts",
    "Prompt",
    "Measure",
    "DataId",
    "Provenance",
)
HEAD = """# The scorecard, schema {number}

Written by `python docs/generate.py` from `finbench/core/records.py`.
[scorecard.schema.json](scorecard.schema.json) is the same for programs.

A scorecard is two files: `<name>.json`, one [Scorecard](#scorecard), and
`<name>.samples.jsonl.zst`, one line for every document and task.
A card gives the number of its schema under `schema`.
Schema {number} will stay readable: later ones only add keys that may be absent.

## What can be checked

`finbench verify CARD` recomputes what can be recomputed and says how far a card can be believed:

| level | what it means |
|--|--|
| `self-reported` | there are no samples: the numbers are possible (a share of n documents is k/n, counts fit) and nothing more |
| `samples-attached` | every value, interval and count follows from the samples, by the task's own scorer; where the data lie on the machine, golds and answers too |
| `reproduced` | with `--rerun auto` (or N): the model that the card names was asked again on documents of each task, drawn at that moment, and answered the same: all of them in float32 with the same versions, else 49 in 50. There, one document too many proves nothing, and the level stays as it is; whatever differs beyond that is a fault, and the level is `none`. [What that is worth](threats.md) |

Samples do not decide names, settings, versions and times. Two keys cover these:

- `run_key` follows from subject, settings and versions;
- `seal` is the SHA-256 of the card without that key, a colon, and four hex digits of a salted hash
  for every value in order of its path. So a later edit is noticed and named.
  An edit of a sample row is noticed by the SHA-256 of the samples; recomputing then names what
  does not follow.

A card of another version of a task than the installed finbench has is a fault, because its answers
cannot be scored again. The message names the finbench that wrote it.

A number must be written as a number, and nothing may follow the samples in their file.
A seal is no signature: if somebody edits a card and seals it again, only recomputing, or asking the
model again, can show it.

## Sample rows

| key | type | meaning |
|--|--|--|
| `task`, `index` | string, integer | which task, and which row of its test split |
| `doc` | string | salted hash of the zero-shot prompt: SHA-256 of `finbench-v1:` and the text, first 32 hex digits |
| `cluster` | string | salted hash of the source that documents share (the row's `group`, else its text); intervals resample clusters |
| `values` | object | what the task's scorer gives for this answer, by metric |
| `answer` | string or list | the answer, or the log-likelihoods of the labels (where the card's arguments say `labels: best`, upper bounds of all but the best); only where the licence lets texts be shown |
| `answer_sha256` | string | its salted hash otherwise |
| `reasoning_tokens`, `answer_tokens`, `truncated` | integer, integer, true or false | of answers under another profile than direct: tokens of the reasoning and of what follows it, and whether the budget cut the answer off (then it is empty) |
| `sample` | integer | number of the answer to this prompt, where there are several: one row for each |
| `reading` | string | where there are several: a hash of what the answer says, by which samples vote; empty where it did not parse |
| `confidence` | integer | under `--confidence`: how sure the answer says that it is, 0 to 100; absent where it says nothing |
| `year` | integer | of the row's document, where its set or its filing says it |
| `prompts` | object | what other prompts gave of this row (`--prompts`), by name: `values` and `answer` or `answer_sha256` as above, and of two prompts that list labels in two orders `place`: whether the answer is listed `first` or `last` |
| `of` | integer | under `--metadata noise=...`: the row that this one was made of |
"""


def kind(schema: dict[str, Any]) -> str:
    """A JSON Schema type in words, with links to the records."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if schema.get("type") == "array":
        return "list of " + kind(schema.get("items", {}))
    if schema.get("type") == "object":
        return "object of " + kind(schema["additionalProperties"]) if schema.get("additionalProperties") else "object"
    return str(schema.get("type", "any"))


def page() -> str:
    """The Markdown page."""
    schema = records.Scorecard.model_json_schema(by_alias=True)
    found = {**schema["$defs"], "Scorecard": schema}
    parts = [HEAD.format(number=records.SCHEMA)]
    for name in NOUNS:
        noun = found[name]
        parts.append(f"\n## {name}\n\n{noun['description'].splitlines()[0]}\n\n| key | type | meaning |\n|--|--|--|\n")
        for key, stated in noun["properties"].items():
            said = stated.get("description", "") or getattr(records, name).model_fields.get(key, None) or ""
            said = said if isinstance(said, str) else ""
            optional = "" if key in noun.get("required", []) else " (may be absent)"
            parts.append(f"| `{key}` | {kind(stated)}{optional} | {said} |\n")
    return wrapped("".join(parts))


def files() -> dict[Path, str]:
    """What the files should hold."""
    schema = records.Scorecard.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return {
        HERE / "scorecard.md": page(),
        HERE / "scorecard.schema.json": json.dumps(schema, indent=1) + "\n",
        HERE / "methods.md": methods_page.page(),
    }


def main() -> None:
    """Write, or with --check compare."""
    stale = [path.name for path, text in files().items() if not path.is_file() or path.read_text() != text]
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"stale: {', '.join(stale)}; run: python docs/generate.py" if stale else 0)
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
