"""Small invented stand-ins for the authors' files, in their exact formats, imported into a data directory.

Run as ``python tests/make_data.py FOLDER``; tests use ``write_sources``.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

LABELS = ("negative", "neutral", "positive")
_VERBS = {
    "negative": ("fell", "slid", "shrank"),
    "neutral": ("was", "stood at", "came to"),
    "positive": ("rose", "grew", "jumped"),
}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """``count`` distinct (sentence, label) pairs about companies that do not exist."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        label = LABELS[number % 3]
        company = f"{rng.choice(['Alder', 'Birch', 'Cedar', 'Elm'])}{number + 1000 * seed} plc"
        made.append((f"{company} said its profit {rng.choice(_VERBS[label])} EUR {rng.randint(2, 99)} mn .", label))
    return made


def write_sources(folder: Path, count: int = 120) -> dict[str, list[Path]]:
    """The authors' files of every set, by set name."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, list[Path]] = {}
    rows = sentences(count, 1)
    fifty, every = folder / "Sentences_50Agree.txt", folder / "Sentences_AllAgree.txt"
    fifty.write_bytes("".join(f"{text}@{label}\r\n" for text, label in rows).encode("iso-8859-1"))
    every.write_bytes("".join(f"{text}@{label}\r\n" for text, label in rows[: count // 2]).encode("iso-8859-1"))
    made["fpb"] = [fifty, every]
    scores = {"negative": "-0.5", "neutral": "0.0", "positive": "0.6"}
    made["fiqa_sa"] = []
    for number, split in enumerate(("train", "test")):
        path = folder / f"task1_headline_ABSA_{split}.json"
        entries = {
            str(key): {
                "sentence": text,
                "info": [{"snippets": "['']", "target": "Alder", "sentiment_score": scores[label], "aspects": "[]"}],
            }
            for key, (text, label) in enumerate(sentences(count // (1 + 2 * number), 2 + number))
        }
        path.write_text(json.dumps(entries), encoding="utf-8")
        made["fiqa_sa"].append(path)
    codes = {"negative": 0, "positive": 1, "neutral": 2}
    made["tfns"] = []
    for number, split in enumerate(("train", "valid")):
        path = folder / f"sent_{split}.csv"
        lines = [f'"$ALDR {text}",{codes[label]}\n' for text, label in sentences(count // (1 + 2 * number), 4 + number)]
        path.write_text("text,label\n" + "".join(lines), encoding="utf-8")
        made["tfns"].append(path)
    return made


if __name__ == "__main__":
    from finbench.data.sources import import_data

    target = Path(sys.argv[1])
    for name, files in write_sources(target / "sources").items():
        print(import_data(name, files, target).rows)
