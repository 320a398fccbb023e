"""An exported adapter answered by llama.cpp or MLX: the first rows of a task, and its score beside the original's.

python benchmarks/export_proof.py ADAPTER [--to gguf|mlx] [--base BASE] [--task fpb] [--limit 50] [--data-dir DATA]
    [--env FOLDER]

The adapter is scored by transformers on its base, exported, and what was written asked by llama.cpp's or mlx-lm's own
server behind ``--engine server``: the same prompts, the same scorer. The server lies in an environment of its own
(--env), made once: of llama-cpp-python there is only a source distribution, which a compiler and cmake build in many
minutes. Ends with exit code 1 where more than one row is scored otherwise; prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import finbench
from finbench.cards import cardfiles
from finbench.core import catalog, paths
from finbench.core.errors import FinbenchError
from finbench.training import export

_PATIENCE = 300.0  # seconds until the model is loaded
_LENGTH = 2048  # tokens of a prompt with its answer


class Peer(NamedTuple):
    """Who answers: what to install, what says that it is there, what is asked, by which name, in words."""

    packages: list[str]
    check: str
    module: list[str]
    file: str
    name: str
    words: str

    @property
    def version(self) -> str:
        """Of the package that serves."""
        return self.packages[-1].rpartition("==")[2]


_LLAMA = ["--n_ctx", str(_LENGTH), "--model_alias", "exported"]
PEERS = {
    "gguf": Peer(
        ["llama-cpp-python[server]==0.3.36"], "llama_cpp.server.app", ["llama_cpp.server", *_LLAMA],
        "model.gguf", "exported", "llama-cpp-python",
    ),
    "mlx": Peer(["mlx[cpu]==0.32.4", "mlx-lm==0.32.2"], "mlx_lm.server", ["mlx_lm.server"], "", "", "mlx-lm"),
}  # fmt: skip


def environment(folder: Path, peer: Peer) -> Path:
    """The Python of an environment with the peer; made where it is not there."""
    python = folder / "bin" / "python"
    if not python.is_file():
        print(f"Installing {peer.words} {peer.version} in {folder}, once ...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", *peer.packages]
        if subprocess.run(command, check=False).returncode:
            raise FinbenchError(f"{peer.words} was not installed.", "llama.cpp needs a C++ compiler and cmake.")
    found = subprocess.run([python, "-c", f"import {peer.check}"], capture_output=True, text=True, check=False)
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1]
        raise FinbenchError(f"{folder} has no {peer.words}: {last}", "Name another: --env ./folder")
    return python


@contextlib.contextmanager
def served(python: Path, peer: Peer, model: Path) -> Iterator[str]:
    """The address of the peer's server of what was exported."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", *peer.module, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as home:
        (Path(home) / "hub").mkdir()  # whose models mlx-lm lists beside the one that it serves
        outside = {"HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | outside)
        try:
            until = time.monotonic() + _PATIENCE
            while process.poll() is None and time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.5)
            else:
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()
                raise FinbenchError(f"{peer.words} does not serve it: {said[-1] if said else ''}", "Look at the file.")
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
    parser.add_argument("--to", choices=PEERS, default="gguf")
    parser.add_argument("--base", default=None)
    parser.add_argument("--task", default="fpb")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--env", type=Path, default=None)
    stated = parser.parse_args()
    peer = PEERS[stated.to]
    python = environment((stated.env or paths.cache_dir() / peer.words).absolute(), peer)
    [task] = catalog.expand([stated.task])
    asks: dict[str, Any] = {"tasks": [task.name], "limit": stated.limit, "data_dir": stated.data_dir}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        made = export(stated.adapter, folder / "made", to=stated.to, base=stated.base)
        model = folder / "made" / peer.file
        cards = finbench.evaluate(stated.adapter, base=stated.base, engine="hf", out=folder / "hf", **asks)
        original = cards[-1]
        with served(python, peer, model) as url:
            [theirs] = finbench.evaluate(
                model=peer.name or str(model),
                engine="server",
                arguments={"url": url, "concurrency": "1"},
                out=folder / "theirs",
                **asks,
            )
        ours, other = answered(original, folder / "hf"), answered(theirs, folder / "theirs")
    same = sum(other.get(doc) == values for doc, values in ours.items())
    print(f"| | {task.main_metric} | rows scored alike |\n|--|--:|--:|")
    scores = [card.scores[0].metrics[task.main_metric].value for card in (original, theirs)]
    print(f"| the adapter on its base, by transformers | {100 * scores[0]:.1f} | |")
    print(
        f"| exported, {made.weights}, by {peer.words} {peer.version} | {100 * scores[1]:.1f} | {same} of {len(ours)} |"
    )
    print(f"\nAdapter {made.adapter[:12]}; {stated.limit} rows of {stated.task}.")
    return int(same < len(ours) - 1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FinbenchError as fault:
        sys.exit(f"error: {fault}")
