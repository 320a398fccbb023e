"""What peft makes of adapter folders by itself, in a process without finbench."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

_ALONE = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.float32}
stored = {
    16: None,
    8: BitsAndBytesConfig(load_in_8bit=True),
    4: BitsAndBytesConfig(load_in_4bit=True, **nf4),
}
found = []
for base, folder, kind, bits in json.loads(sys.argv[1]):
    origin, config = (base, stored[bits]) if kind == "peft" else (folder, None)
    model = AutoModelForCausalLM.from_pretrained(origin, dtype=torch.float32, quantization_config=config)
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):  # whose repacking spoils DoRA's norms
            layer.support_avx512bf16_for_cpu = False
    if kind == "peft":
        model = PeftModel.from_pretrained(model, folder)
    ids = torch.tensor([AutoTokenizer.from_pretrained(base).encode(sys.argv[2])])
    with torch.no_grad():
        found.append(model.eval()(ids).logits[0].float().log_softmax(-1))
assert not [name for name in sys.modules if name.split(".")[0] == "finbench"]
torch.save(found, sys.argv[3])
"""


def read_alone(runs: Iterable[tuple[Path, Path, str, int]], text: str, home: Path) -> list[torch.Tensor]:
    """Log-probabilities of ``text`` from each (base, folder, ``peft`` or ``model``, bits), float32."""
    stated = json.dumps([[str(base), str(folder), kind, bits] for base, folder, kind, bits in runs])
    command = [sys.executable, "-c", _ALONE, stated, text, str(home / "found.pt")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[torch.Tensor] = torch.load(home / "found.pt")
    return found
