"""An exported adapter answered by llama.cpp: the first rows of a task, and its score beside the original's.

python benchmarks/gguf_proof.py ADAPTER [--base BASE] [--task fpb] [--limit 50] [--data-dir DATA] [--env FOLDER]

Of llama-cpp-python there is only a source distribution: it is built once, with a compiler and cmake, in an environment
of its own (--env), which takes many minutes. The adapter is scored by transformers on its base, exported,
and the file asked by llama.cpp's own server behind ``--engine server``: the same prompts, the same scorer. Ends with
exit code 1 where the scores differ by more than a row; prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import finbench
from finbench.cards import cardfiles
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.training import export

VERSION = "0.3.36"
_PATIENCE = 300.0  # seconds until the model is loaded
_LENGTH = 2048  # tokens of a prompt with its answer


def environment(folder: Path) -> Path:
    """The Python of an environment with llama-cpp-python; built where it is not there."""
    python = folder / "bin" / "python"
    if not python.is_file():
        print(f"Building llama-cpp-python {VERSION} in {folder}, once ...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", f"llama-cpp-python[server]=={VERSION}"]
        if subprocess.run(command, check=False).returncode:
            raise FinbenchError("llama-cpp-python was not built.", "Install a C++ compiler and cmake, and repeat it.")
    check = [python, "-c", "import llama_cpp.server.app; print(llama_cpp.__version__)"]
    found = subprocess.run(check, capture_output=True, text=True, check=False)
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1]
        raise FinbenchError(f"{folder} has no llama-cpp-python[server]: {last}", "Name another: --env ./llama")
    return python


@contextlib.contextmanager
def served(python: Path, model: Path, lora: Path | None = None) -> Iterator[str]:
    """The address of llama.cpp's server of a GGUF file, with a LoRA where one is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--model_alias", "exported", "--n_ctx", str(_LENGTH)]
    command += ["--lora_path", str(lora)] if lora else []
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + _PATIENCE
            while process.poll() is None and time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.5)
            else:
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()
                raise FinbenchError(f"llama.cpp does not serve it: {said[-1] if said else ''}", "Look at the file.")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def answered(card: Any, folder: Path) -> dict[str, str]:
    """The answer to each row of a card, by what the row is called."""
    [file] = [path for path in folder.glob("*.json") if cardfiles.read(path).subject.name == card.subject.name]
    return {str(row["doc"]): json.dumps(row["values"]) for row in cardfiles.read_samples(file)}


def main() -> int:
    """Score, export, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("--base", default=None)
    parser.add_argument("--task", default="fpb")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--env", type=Path, default=paths.cache_dir() / "llama-cpp")
    stated = parser.parse_args()
    python = environment(stated.env.absolute())
    [task] = catalog.expand([stated.task])
    asks: dict[str, Any] = {"tasks": [task.name], "limit": stated.limit, "data_dir": stated.data_dir}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = export(stated.adapter, folder / "gguf", base=stated.base)
        cards = finbench.evaluate(stated.adapter, base=stated.base, engine="hf", out=folder / "hf", **asks)
        original = cards[-1]
        with served(python, folder / "gguf" / "model.gguf") as url:
            [theirs] = finbench.evaluate(
                model="exported",
                engine="server",
                arguments={"url": url, "concurrency": "1"},
                out=folder / "llama",
                **asks,
            )
        ours, other = answered(original, folder / "hf"), answered(theirs, folder / "llama")
    same = sum(other.get(doc) == values for doc, values in ours.items())
    print(f"| | {task.main_metric} | rows scored alike |\n|--|--:|--:|")
    scores = [card.scores[0].metrics[task.main_metric].value for card in (original, theirs)]
    print(f"| the adapter on its base, by transformers | {100 * scores[0]:.1f} | |")
    print(f"| `model.gguf`, by llama-cpp-python {VERSION} | {100 * scores[1]:.1f} | {same} of {len(ours)} |")
    print(f"\nAdapter {made.adapter[:12]}, {made.weights}; {stated.limit} rows of {stated.task}.")
    return int(same < len(ours) - 1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FinbenchError as fault:
        sys.exit(f"error: {fault}")
