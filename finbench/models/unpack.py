"""``python -m finbench.models.unpack GGUF FOLDER [DTYPE]``: de-quantise a GGUF file into an ordinary model folder."""

from __future__ import annotations

import functools
import struct
import sys
from pathlib import Path

from finbench.core import jail
from finbench.core.errors import FinbenchError
from finbench.core.safety import refuse_sizes

_SECONDS, _SECOND = 120.0, 2**21  # seconds of the processor for any file, and bytes that take one more
_MEMORY = 12 * 2**30  # bytes of address space beside the weights: torch alone maps several


def dequantise(gguf: Path, target: Path, dtype: str = "float32") -> None:
    """Write a GGUF model as an ordinary safetensors folder, with the weights that transformers reads from it.

    It needs memory of two to three times the weights. ``from_pretrained`` would keep a packed copy of them as well, and
    marks the model as quantised, which cannot be saved.
    """
    import gguf as library
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    # each of the three would read a vocabulary of 262,144 tokens again, for fifteen seconds
    library.GGUFReader = functools.cache(library.GGUFReader)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    refuse_sizes(config.to_dict(), Path(gguf.name))  # a few bytes may state any number of layers
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    read = load_gguf_checkpoint(gguf, return_tensors=True, model_to_load=model, torch_dtype=getattr(torch, dtype))
    model.load_state_dict(read.pop("tensors"), strict=False, assign=True)
    model.tie_weights()
    lacking = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if lacking:
        raise ValueError(f"it lacks weights: {', '.join(lacking[:3])} ({len(lacking)} in all)")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    size = Path(sys.argv[1]).stat().st_size
    jail.limit(_SECONDS + size / _SECOND, _MEMORY + 24 * size)  # a file may say that it holds anything
    try:
        dequantise(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except FinbenchError as fault:
        sys.exit(fault.message)
    except (struct.error, ValueError) as fault:
        if isinstance(fault, struct.error) or "reshape" in str(fault) or "larger dtype" in str(fault):
            sys.exit(f"it ends before all that it states ({str(fault)[:200]})")
        raise
