"""What the process asks of its machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import torch
import yaml
from test_training import recipe

from finbench.core import environment
from finbench.core.errors import FinbenchError
from finbench.evaluation import doctor, preflight
from finbench.grid import driver
from finbench.pretraining import pretrain, read_recipe
from finbench.serving import vllm_server
from finbench.training import launch, runner, tuning

FAULTS = """
import resource, sys
from finbench.core import environment
kept = environment.keep_freed_memory() if sys.argv[1] == "keep" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    parts = [bytes([1]) * (1 << 22) for _ in range(4)]
    del parts
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **variables: str) -> tuple[str, int]:
    """(the function's answer, pages that were asked for) of 50 times four blocks of 4 MB, as tensors ask for them."""
    free = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, what]
    done = subprocess.run(command, env=free | variables, capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_tensors() -> None:
    kept, pages = faults("keep")
    assert kept == "True"
    assert pages < 2 * 4 * 1024  # 4 MB are 1,024 pages: once, and not fifty times
    assert faults("leave")[1] > 5 * pages
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_freed_in_pieces_goes_back() -> None:
    """glibc keeps what lies below something that is still held."""
    held = [bytes([1]) * (1 << 16) for _ in range(1600)]  # of 100 MB
    full = Path("/proc/self/statm").read_text().split()[1]
    del held[:-1]
    environment.release_memory()
    pages = int(full) - int(Path("/proc/self/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") > 60e6


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_thresholds_set_as_tunables_of_glibc_stay() -> None:
    assert faults("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")[0] == "False"


# ---------------------------------------------------------------- a GPU that torch cannot use


@pytest.fixture
def beside_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an NVIDIA GPU, by its driver's files, and a torch that was built without CUDA."""
    devices = tmp_path / "dev"
    devices.mkdir()
    (devices / "nvidia0").touch()
    monkeypatch.setattr(environment, "_DEVICES", devices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return devices


def test_a_torch_without_cuda_beside_a_gpu_is_refused_unless_it_is_hidden(
    beside_a_gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FinbenchError, match=r"An NVIDIA GPU is here, but torch \S+ was built without CUDA") as caught:
        environment.check_gpu()
    assert "https://pytorch.org/get-started" in caught.value.hint
    assert "CUDA_VISIBLE_DEVICES= finbench" in caught.value.hint
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # whose driver is too old, for example
    with pytest.raises(FinbenchError, match=r"was built for CUDA 13\.0 and finds none"):
        environment.check_gpu()
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        environment.check_gpu()
    for hidden in ("", " ", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        environment.check_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(FinbenchError, match="An NVIDIA GPU is here"):
        environment.check_gpu()
    (beside_a_gpu / "nvidia0").unlink()
    (beside_a_gpu / "nvidiactl").touch()  # of a driver without a card
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    environment.check_gpu()
    for said, code, refused in (("GPU 0: NVIDIA L4", 0, True), ("No devices were found", 0, False), ("GPU", 9, False)):
        tool.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
        tool.chmod(0o755)
        if refused:
            with pytest.raises(FinbenchError, match="An NVIDIA GPU is here"):
                environment.check_gpu()
        else:
            environment.check_gpu()


def test_whatever_computes_refuses_it_and_leaves_nothing(
    beside_a_gpu: Path, llama: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_ray", lambda: None)
    monkeypatch.setattr(driver.sweepfile, "read", lambda file: SimpleNamespace(name="one"))
    monkeypatch.setattr(driver.sweepfile, "cells", lambda stated, data_dir: [])
    out = tmp_path / "runs" / "one"
    pretraining = read_recipe(Path(__file__).parent.parent / "examples" / "pretrain-small.yaml")
    ways: list[Callable[[], object]] = [
        lambda: runner.train(recipe(llama), out),
        lambda: runner.train(recipe(llama), out, dry_run=True),
        lambda: tuning.tune(recipe(llama), out),
        lambda: tuning.search_outline(recipe(llama)),
        lambda: launch.process_count(2, None),
        lambda: pretrain(pretraining, out),
        lambda: driver.sweep(Path("sweep.yaml"), str(out)),
        lambda: preflight.choose("auto", [], {}),
        lambda: preflight.choose("hf", [], {}),
        lambda: preflight.choose("vllm", [], {}),
        lambda: vllm_server.serve([str(lora)], base=str(llama)),
    ]
    for way in ways:
        with pytest.raises(FinbenchError, match="An NVIDIA GPU is here"):
            way()
        assert not out.parent.exists()
    preflight.choose("dummy", [], {})  # computes nothing
    assert [line.state for line in doctor._hardware() if line.what == "GPU"] == ["fault"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    runner.train(recipe(llama), out, dry_run=True)


# ---------------------------------------------------------------- folders


def test_a_run_that_fails_leaves_no_folder_and_takes_nothing_of_others(tmp_path: Path) -> None:
    def fail(folder: Path, *leaves: str) -> None:
        with pytest.raises(FinbenchError, match="Another finbench process works"), environment.owner(folder):
            pass
        for name in leaves:
            (folder / name).touch()
        raise ValueError("no")

    def failed(folder: Path, *leaves: str) -> None:
        with pytest.raises(ValueError, match="no"), environment.owner(folder):
            fail(folder, *leaves)

    failed(tmp_path / "runs" / "a")
    assert not (tmp_path / "runs").exists()
    failed(tmp_path / "runs" / "a", "kept")
    assert sorted(path.name for path in (tmp_path / "runs" / "a").iterdir()) == [".lock", "kept"]
    failed(tmp_path / "runs" / "b")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]
    (tmp_path / "mine").mkdir()
    failed(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    with environment.owner(tmp_path / "whole"):
        pass
    assert (tmp_path / "whole").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FinbenchError, match="file"), environment.owner(tmp_path / "file"):
        pass
    assert (tmp_path / "file").is_file()


def test_a_folder_that_its_owner_takes_away_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner before leaves between our opening of the lock and our getting it."""
    folder, tries = tmp_path / "runs", []
    real = filelock.FileLock.acquire

    def acquire(self: filelock.FileLock, *arguments: object) -> object:
        got = real(self)
        if not tries:
            (folder / ".lock").unlink()
            folder.rmdir()
        tries.append(got)
        return got

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with environment.owner(folder):
        assert (folder / ".lock").exists()
    assert len(tries) == 3  # and once more by the ``with`` that gives it back


# ---------------------------------------------------------------- how finbench is installed


def test_what_is_missing_is_installed_from_where_finbench_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    from finbench.core import installing

    root = Path(installing.__file__).resolve().parents[2]
    monkeypatch.chdir(tmp_path)
    assert installing.install("ray") == f'pip install -e "{root}[ray]"'  # a checkout
    assert installing.update() == f'git -C "{root}" pull'
    monkeypatch.chdir(root)
    assert installing.update() == "git pull"
    assert installing.install("ray", "board") == 'pip install -e ".[ray,board]"'
    monkeypatch.setattr(installing, "__file__", str(tmp_path / "site" / "finbench" / "core" / "installing.py"))
    noted: list[str | None] = []
    of_pip = type("Distribution", (), {"read_text": lambda *_: noted[-1]})
    monkeypatch.setattr(metadata, "distribution", lambda _: of_pip())
    for stated, origin in (
        (None, ""),  # of an index
        ('{"url": "file:///a/finbench.whl", "archive_info": {}}', " @ file:///a/finbench.whl"),
        ('{"url": "https://x.org/f", "vcs_info": {"vcs": "git", "commit_id": "abc"}}', " @ git+https://x.org/f@abc"),
        ("[]", ""),
        ("{", ""),
    ):
        noted.append(stated)
        assert installing.install("ray") == f'pip install "finbench[ray]{origin}"'
        assert installing.update() == f'pip install --force-reinstall "finbench{origin.removesuffix("@abc")}"'
    assert installing.install(again=True) == 'pip install --force-reinstall "finbench"'


def test_no_message_says_by_itself_how_finbench_is_installed() -> None:
    package = Path(__file__).parents[1] / "finbench"
    found = [path.name for path in package.rglob("*.py") if re.search(r"pip install [^\n]*finbench", path.read_text())]
    assert found == ["installing.py"]


def test_no_page_and_no_example_installs_finbench_from_where_it_is_not() -> None:
    root = Path(__file__).parents[1]
    pages = [root / "README.md", root / "CHANGELOG.md", root / "Makefile"]
    pages += [path for folder in ("docs", "examples", "adapters_zoo") for path in (root / folder).rglob("*.*")]
    of_index = re.compile(rb"""pip install ([^\n]* )?["']?finbench[\["' ]""")
    assert [path.name for path in pages if path.is_file() and of_index.search(path.read_bytes())] == []
    cluster = yaml.safe_load((root / "examples" / "cluster.yaml").read_text())
    mounted = {there for there, here in cluster["file_mounts"].items() if (root / here / "pyproject.toml").is_file()}
    assert {"~/finbench"} == mounted
    assert any('pip install -e "$HOME/finbench[ray]"' in command for command in cluster["setup_commands"])
