"""benchmarks/bertscore.py: the numbers of the package bert-score, on a small random encoder; what it refuses."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from finbench.core import paths
from finbench.core.errors import FinbenchError

ROOT = paths.shipped("tasks").parent
WORDS = [
    "things",
    "of",
    "value",
    "that",
    "the",
    "entity",
    "owns",
    "or",
    "controls",
    "amount",
    "goodwill",
    "before",
    "any",
    "impairment",
    "was",
    "taken",
    "off",
    "liability",
]
GOLDS = ["Things of value that the entity owns.", "Amount of goodwill before any impairment.", "Things of value"]
ANSWERS = ["Things the entity controls", "Amount of goodwill before any impairment.", ""]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("bertscore_script", ROOT / "benchmarks" / "bertscore.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory, script: ModuleType) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *dict.fromkeys(WORDS)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, initializer_range=1.0, **sizes)
    BertModel(config).save_pretrained(folder)
    return folder


def test_equal_texts_score_one_and_empty_ones_nothing(script: ModuleType, encoder_folder: Path) -> None:
    found = script.bertscore(ANSWERS, GOLDS, script.Encoder(encoder_folder))
    assert found.shape == (3, 3)
    assert found[1] == pytest.approx([1, 1, 1], abs=1e-6)
    assert (found[2] == 0).all()
    assert 0 < found[0, 2] < 1
    swapped = script.bertscore(GOLDS[:1], ANSWERS[:1], script.Encoder(encoder_folder))
    assert swapped[0] == pytest.approx(found[0, [1, 0, 2]], abs=1e-6)  # precision is the other's recall


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_numbers_are_those_of_bert_score(script: ModuleType, encoder_folder: Path, layer: int) -> None:
    peer = pytest.importorskip("bert_score", reason="the package bert-score is not installed")
    theirs = peer.score(ANSWERS[:2], GOLDS[:2], model_type=str(encoder_folder), num_layers=layer, device="cpu")
    ours = script.bertscore(ANSWERS[:2], GOLDS[:2], script.Encoder(encoder_folder, layer))
    assert ours == pytest.approx(np.stack([part.numpy() for part in theirs], axis=1), abs=1e-5)


def test_what_cannot_be(script: ModuleType, encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FinbenchError, match="no encoder"):
        script.Encoder(tmp_path)
    with pytest.raises(FinbenchError, match="has 2 layers"):
        script.Encoder(encoder_folder, 3)


def test_a_card_of_xbrl_term_gets_its_line(
    script: ModuleType,
    encoder_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole way: import, task with the dummy engine, BERTScore of its card."""
    from typer.testing import CliRunner

    from finbench.cli.app import app
    from finbench.data.sources import import_data
    from make_xbrl import xbrl_sources

    import_data("xbrl_term", xbrl_sources(tmp_path, 12)["xbrl_term"], tmp_path / "data")
    runner = CliRunner()
    common = [
        "--tasks",
        "xbrl_term",
        "--engine",
        "dummy",
        "--data-dir",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "cards"),
    ]
    done = runner.invoke(app, ["eval", *common])
    assert done.exit_code == 0, done.output
    (card,) = [path for path in (tmp_path / "cards").glob("*.json") if "scores" in json.loads(path.read_text())]
    command = ["bertscore.py", str(card), "--encoder", str(encoder_folder), "--data-dir", str(tmp_path / "data")]
    monkeypatch.setattr(sys, "argv", command)
    assert script.main() == 0
    assert f"| {card.stem} | 12 |" in capsys.readouterr().out
