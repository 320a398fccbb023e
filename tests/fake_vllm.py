"""A package ``vllm`` that holds no model: it behaves on a machine without a GPU as the real one does on a GPU.

It forks its workers, with tensor parallelism it keeps nothing in its own process, it fits its context to a memory,
and it notes what it was asked for. What it lacks of the real one, ``test_vllm_names.py`` looks up there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LENGTH = 64  # tokens that the memory of its GPU holds
FILES = {
    "vllm/__init__.py": """
from dataclasses import dataclass
class SamplingParams:
    def __init__(self, **stated): self.__dict__.update(stated)
class EngineArgs:
    def __init__(self, **stated): self.stated = stated
""",
    "vllm/platforms.py": """
class current_platform:
    is_cpu = staticmethod(lambda: False)
""",
    "vllm/sampling_params.py": "class RequestOutputKind:\n    FINAL_ONLY = 2\n",
    "vllm/lora/request.py": """
class LoRARequest:
    def __init__(self, name, number, path): self.name = name
""",
    "vllm/usage/usage_lib.py": "import enum\nclass UsageContext(enum.Enum):\n    LLM_CLASS = 'LLM_CLASS'\n",
    "vllm/v1/sample/logits_processor/__init__.py": "class LogitsProcessor: pass\n",
    "vllm/v1/sample/logits_processor/builtin.py": "def process_dict_updates(*arguments): pass\n",
    "vllm/utils/argparse_utils.py": "import argparse\nclass FlexibleArgumentParser(argparse.ArgumentParser): pass\n",
    "vllm/entrypoints/common/__init__.py": "",
    "vllm/entrypoints/cli/serve.py": """
import sys
from vllm.v1.engine.llm_engine import forked
class ServeSubcommand:
    @staticmethod
    def cmd(stated): print(forked(), stated.module, *stated.rest, flush=True)
""",
    "vllm/v1/engine/llm_engine.py": """
import json, multiprocessing, os
from types import SimpleNamespace as Namespace

def _child(queue): queue.put("a forked child lives")

def forked():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_child, args=(queue,))
    process.start()
    process.join(20)
    if process.is_alive():
        process.kill()
        raise RuntimeError("a forked child hangs")
    return queue.get()

class LLMEngine:
    @classmethod
    def from_engine_args(cls, arguments, usage_context=None):
        forked()
        made = cls()
        made.gpus, made.waiting = arguments.stated["tensor_parallel_size"], []
        noted = {key: value for key, value in arguments.stated.items() if key != "logits_processors"}
        noted |= {"usage_context": usage_context and usage_context.value}
        noted |= {"method": os.environ.get("VLLM_WORKER_MULTIPROC_METHOD")}
        noted |= {"cards": os.environ.get("CUDA_VISIBLE_DEVICES")}
        open(os.environ["NOTED"], "w").write(json.dumps(noted))
        if fault := os.environ.get("FAULT"):
            raise ValueError(fault)
        asked = arguments.stated["max_model_len"]
        made.model_config = Namespace(max_model_len=LENGTH if asked == -1 else asked)
        return made
    def add_lora(self, adapter): pass
    def add_request(self, number, prompt, parameters, lora_request=None):
        self.waiting.append((number, prompt["prompt_token_ids"]))
    def has_unfinished_requests(self): return bool(self.waiting)
    def step(self):
        done, self.waiting = self.waiting, []
        said = Namespace(token_ids=[5, 6], logprobs=None, finish_reason="stop")
        return [Namespace(finished=True, request_id=f"{number}-a", outputs=[said]) for number, _ in done]
    def collective_rpc(self, method):
        assert method == "finbench_peak"
        return [10**9 + rank for rank in range(self.gpus)]
""".replace("LENGTH", str(LENGTH)),
}
PARSING = """
def make_arg_parser(parser):
    parser.add_argument("rest", nargs="*")
    parser.set_defaults(module=__name__)
    return parser
def validate_parsed_serve_args(stated): pass
"""


def install(folder: Path, monkeypatch: Any, parsing: str = "vllm/entrypoints/common/cli_args.py") -> Path:
    """Put it on the path of the processes that are started; return the file in which it notes what it was asked for.

    ``parsing``: where it has the arguments of its server.
    """
    for name, text in {**FILES, parsing: PARSING}.items():
        place = folder / "site" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        for parent in place.relative_to(folder / "site").parents:
            if parent.name:
                (folder / "site" / parent / "__init__.py").touch()
    root = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{folder / 'site'}:{root}")
    monkeypatch.setenv("NOTED", str(folder / "noted.json"))
    return folder / "noted.json"


def noted(file: Path) -> dict[str, Any]:
    """What its engine was asked for."""
    return dict(json.loads(file.read_text()))
