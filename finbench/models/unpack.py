"""``python -m finbench.models.unpack GGUF FOLDER [DTYPE]``: de-quantise a GGUF file into an ordinary model folder."""

from __future__ import annotations

import sys
from pathlib import Path

from finbench.core import jail

_SECONDS, _SECOND = 120.0, 2**21  # seconds of the processor for any file, and bytes that take one more
_MEMORY = 12 * 2**30  # bytes of address space beside the weights: torch alone maps several


def dequantise(gguf: Path, target: Path, dtype: str = "float32") -> None:
    """Write a GGUF model as an ordinary safetensors folder. In float32 it needs 20 x the file's size of memory.

    transformers marks a model it read from GGUF as quantised and refuses to save it, so its weights move into
    a fresh model of the same configuration. Logits are identical.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=getattr(torch, dtype))
    configuration = loaded.config
    if hasattr(configuration, "quantization_config"):
        del configuration.quantization_config
    plain = AutoModelForCausalLM.from_config(configuration, dtype=getattr(torch, dtype))
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


if __name__ == "__main__":
    size = Path(sys.argv[1]).stat().st_size
    jail.limit(_SECONDS + size / _SECOND, _MEMORY + 24 * size)  # a file may say that it holds anything
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
