"""What ``faults.py`` disturbs: commands on a tiny base, a Hub on this machine, steps of a sweep without Ray."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pickle
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SMALL = ["--task", "mini_sentiment", "--limit", "32", "--rank", "4", "--lr", "0.01"]
SMALL += ["--set", "dtype=float32", "--set", "batch_size=8"]
SWEEP = """name: small
axes: {method: [rslora]}
common: {base: BASE, task: mini_sentiment, limit: 16, batch_size: 8, dtype: float32, epochs: 1, rank: 4}
eval: {limit: 8}
"""


@dataclass(frozen=True)
class Work:
    """A command, where it writes, and what of that a second run must write alike."""

    arguments: Callable[[Path], list[str]]
    results: str  # patterns of the files that nothing may change; none: what the Hub has
    again: tuple[str, ...] = ()  # options with which it goes on, once there is something to go on from
    began: str = ""  # the file or folder that shows that there is
    whole: bool = False  # at any moment all of that is there, or nothing
    online: bool = False  # it talks to a Hub, which lies in the folder ``hub`` of a case
    without: str = ""  # a package that it needs and that is not here
    before: Callable[[], None] = lambda: None  # in its own process, before it begins


def works(world: Path) -> dict[str, Work]:
    """The commands, on the small things that ``made`` has put into ``world``."""
    base, adapter, card = world / "base", world / "adapter", world / "cards" / "adapter.json"
    source, data = world / "sources" / "tfns", ["--data-dir", str(world / "data")]
    asked = ["eval", "--tasks", "tfns", "--limit", "24", "--arg", "dtype=float32", *data]
    hf, vllm = (
        ["--adapter", str(world / f"{wide}adapter"), "--base", str(world / f"{wide}base")] for wide in ("", "wide-")
    )
    no_vllm = "" if importlib.util.find_spec("vllm") else "vllm"
    return {
        "import": Work(
            lambda at: ["data", "import", "tfns", str(source), "--data-dir", str(at)], "tfns/*.jsonl", whole=True
        ),
        "train": Work(
            lambda at: ["train", "--base", str(base), *SMALL, "--out", str(at / "a")],
            "a/adapter_model.safetensors", ("--resume",), "a/checkpoints", whole=True,
        ),
        "eval": Work(lambda at: [*asked, *hf, "--out", str(at)], "*.samples.jsonl.zst"),
        "eval vllm": Work(
            lambda at: [*asked, *vllm, "--engine", "vllm", "--out", str(at)], "*.samples.jsonl.zst", without=no_vllm
        ),
        "push": Work(lambda at: ["push", str(adapter), "hub:org/new"], "", online=True, whole=True),
        "pull": Work(
            lambda at: ["pull", "hub:org/old", "--out", str(at / "a")], "a/*.safetensors a/*.json",
            whole=True, online=True,
        ),
        "export": Work(
            lambda at: ["card", "export", str(card), "--format", "lm-eval", "--out", str(at / "e")], "e/**/*.json*",
            whole=True,
        ),
        "leaderboard": Work(lambda at: ["leaderboard", "add", str(card), "--to", str(at / "b"), *data], "b/*cards/*"),
        "sweep": Work(
            lambda at: ["sweep", "run", str(world / "small.yaml"), "--out", str(at / "s")],
            "s/adapters/*/adapter_model.safetensors s/scorecards/*.zst", before=_alone,
        ),
    }  # fmt: skip


def made(world: Path, do: Callable[[list[str]], None]) -> Path:
    """A tiny base, an adapter on it, its card, sources of a data set, and a Hub that has the adapter: once."""
    if (world / "done").is_file():
        return world
    from huggingface_hub import constants

    import conftest
    import make_data
    from finbench.hub.dev.server import DevHub

    shutil.rmtree(world, ignore_errors=True)
    conftest.make_llama(world / "base")
    conftest.make_llama(world / "wide-base", hidden=128)  # whose attention heads vLLM takes on a CPU
    for wide in ("", "wide-"):
        conftest.make_lora(world / f"{wide}adapter", world / f"{wide}base", "org/tiny-llama", seed=1)
    (world / "small.yaml").write_text(SWEEP.replace("BASE", str(world / "base")))
    for name, files in make_data.write_sources(world / "given").items():
        (world / "sources" / name).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, world / "sources" / name)
    constants.HF_HUB_OFFLINE = False  # as it may be outside; the Hub of this machine is asked all the same
    with DevHub(world / "hub") as hub:
        conftest.upload(hub, "org/old", conftest.files_of(world / "adapter"))
    constants.HF_HUB_OFFLINE = True
    for name, place in (("import", world / "data"), ("eval", world / "cards"), ("train", world / "trained")):
        do(works(world)[name].arguments(place))
    (world / "done").touch()
    return world


# ---------------------------------------------------------------- a Hub


_PORT: dict[int, int] = {}


@contextmanager
def hub(at: Path, faults: Sequence[str] = ()) -> Iterator[None]:
    """A Hub in a process of its own, on what lies in ``at/hub``; this process's children talk to it."""
    from huggingface_hub import constants

    import conftest
    from finbench.hub.dev.server import DevHub

    running = DevHub(at / "hub", _PORT.get(0, 0))  # the same for all, for what is published names it
    _PORT[0] = running.server_address[1]
    running.faults.set(*faults)
    child = os.fork()
    if not child:
        try:
            with_parent()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what it says of a client that was killed
            running.serve_forever()
        finally:
            os._exit(0)
    running.socket.close()
    constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = False, str(at / "hf" / "hub")
    old = dict(os.environ)
    os.environ |= conftest.hub_environment(running, at / "hf")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= old
        constants.HF_HUB_OFFLINE = True
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def published(at: Path) -> list[str]:
    """What was pushed: name and hash of each file, and how many commits that took; nothing for an empty repository."""
    from finbench.hub.dev.store import Store

    repo = Store(at / "hub").repository("models", "org/new")
    if not (repo.folder / "repo.json").is_file():
        return []
    commits = [repo.resolve("main")]
    while parent := repo.commit_of(commits[-1])["parent"]:
        commits.append(parent)
    files = [f"{path} {file.sha256}" for path, file in repo.tree(commits[0]).items() if path != ".gitattributes"]
    return [*files, f"commits: {len(commits)}"] if files else []


def with_parent() -> None:
    """End this process when the one that forked it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# ---------------------------------------------------------------- a sweep's steps, without a cluster


class _Lost(Exception):
    """A step whose process has died."""


class _Alone:
    """What a sweep asks of Ray, done by one process a step and one step at a time; it ends with its driver."""

    exceptions = SimpleNamespace(
        RayTaskError=type("RayTaskError", (Exception,), {}),
        TaskCancelledError=type("TaskCancelledError", (Exception,), {}),
        OutOfMemoryError=type("OutOfMemoryError", (Exception,), {}),
        RayError=_Lost,
    )

    def __init__(self) -> None:
        self.waiting: dict[int, Any] = {}
        self.answers: dict[int, bytes] = {}
        self.pipe: int | None = None

    def init(self, **_: Any) -> None: ...
    def shutdown(self) -> None: ...
    def is_initialized(self) -> bool:
        return False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0, "memory": 1e12}}]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, function: Any = None, **_: Any) -> Any:
        if function is None:
            return self.remote

        def start(payload: Any) -> int:
            number = len(self.waiting) + len(self.answers)
            self.waiting[number] = (function, payload)
            return number

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def wait(self, references: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        if timeout and not set(references) & set(self.answers):
            self._go_on(timeout)
        done = [one for one in references if one in self.answers][:num_returns]
        return done, [one for one in references if one not in done]

    def _go_on(self, timeout: float) -> None:
        """Begin the first of what waits, if nothing runs; take its answer, if it comes in time."""
        if self.pipe is None and self.waiting:
            self.number = min(self.waiting)
            function, payload = self.waiting[self.number]
            self.pipe, writing = os.pipe()
            if not os.fork():
                try:
                    with_parent()
                    os.setpgid(0, 0)
                    with os.fdopen(writing, "wb") as saying:
                        pickle.dump(function(payload), saying)
                finally:
                    os._exit(0)
            os.close(writing)
        if self.pipe is not None and select.select([self.pipe], [], [], timeout)[0]:
            with os.fdopen(self.pipe, "rb") as hearing:
                self.answers[self.number] = hearing.read()
            self.pipe = None
            del self.waiting[self.number]

    def get(self, reference: int) -> Any:
        if not self.answers[reference]:
            raise _Lost("the process died")
        return pickle.loads(self.answers[reference])


def _alone() -> None:
    sys.modules["ray"] = _Alone()  # type: ignore[assignment]
