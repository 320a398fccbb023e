"""Pickled weights become safetensors, in a process that can do nothing else; whatever is more than tensors does not."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import finbench
from conftest import files_of, upload
from finbench import hub
from finbench.core import jail
from finbench.core.errors import FinbenchError
from finbench.core.files import sha256_file
from finbench.hub.dev.server import DevHub
from finbench.models import adapters, bases, pickles, unpickle


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.canary}'",)


@pytest.fixture
def pickled(lora: Path, tmp_path: Path) -> Path:
    """A good adapter, as older ones are published: its weights a pickle, and no record."""
    folder = tmp_path / "old-adapter"
    folder.mkdir()
    shutil.copyfile(lora / "adapter_config.json", folder / "adapter_config.json")
    torch.save(load_file(lora / adapters.WEIGHTS), folder / "adapter_model.bin")
    return folder


def saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def converted(content: bytes) -> bytes:
    made = io.BytesIO()
    unpickle.convert(io.BytesIO(content), made, len(content))
    return made.getvalue()


def refused(folder: Path, match: str) -> str:
    """It is refused in one line, nothing is written, and what was there stays; the hint."""
    before = {path.name: sha256_file(path) for path in folder.iterdir() if path.is_file()}
    out = folder.parent / "out"
    with pytest.raises(FinbenchError, match=match) as caught:
        finbench.pull(str(folder), out, convert=True)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 700
    assert not out.exists()
    assert not list(folder.parent.glob(".out*"))
    assert {path.name: sha256_file(path) for path in folder.iterdir() if path.is_file()} == before
    return caught.value.hint


# ---------------------------------------------------------------- what is converted


def test_an_adapter_of_the_hub_keeps_its_tensors_and_says_where_they_come_from(
    dev_hub: DevHub, pickled: Path, lora: Path, tmp_path: Path
) -> None:
    sha = upload(dev_hub, "org/old", {**files_of(pickled), "optimizer.pt": b"\x80", "training_args.bin": b"\x80"})
    with pytest.raises(FinbenchError, match="--convert"):
        finbench.pull("hub:org/old", tmp_path / "out")
    done = finbench.pull("hub:org/old", tmp_path / "out", convert=True)
    assert done.source == f"hub:org/old@{sha}"
    assert done.adapter is not None
    assert done.adapter.kind == "peft"
    made, known = load_file(tmp_path / "out" / adapters.WEIGHTS), load_file(lora / adapters.WEIGHTS)
    assert made.keys() == known.keys()
    assert all(torch.equal(made[name], known[name]) for name in known)
    record = json.loads((tmp_path / "out" / pickles.RECORD).read_text())
    assert record["source"] == done.source
    about = record["files"]["adapter_model.bin"]
    assert about["sha256"] == sha256_file(pickled / "adapter_model.bin")
    assert about["written_sha256"] == sha256_file(tmp_path / "out" / adapters.WEIGHTS)
    assert not list((tmp_path / "out").glob("*.bin"))
    with pytest.raises(FinbenchError, match="only pickled weights"):  # the fetched pickle is nobody else's
        hub.fetch("org/old")
    assert finbench.pull("hub:org/old", tmp_path / "out", convert=True).adapter == done.adapter  # its own, again


def test_a_model_in_shards_becomes_one_that_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=32
    )
    model, folder = LlamaForCausalLM(config), tmp_path / "model"
    model.config.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    names, places = sorted(model.state_dict()), {}
    for number in (0, 1):
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        torch.save({name: model.state_dict()[name] for name in names[number::2]}, folder / file)
        places |= dict.fromkeys(names[number::2], file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    done = finbench.pull(str(folder), tmp_path / "out", convert=True)
    assert done.as_dict()["kind"] == "model"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_every_kind_of_tensor_that_safetensors_has(zipped: bool, tmp_path: Path) -> None:
    tied = torch.randn(3, 4)
    known = {
        "half": torch.randn(4, 2).half(),
        "brain": torch.randn(3).bfloat16(),
        "number": torch.tensor(2.5),
        "ids": torch.arange(5),
        "mask": torch.tensor([True, False]),
        "turned": torch.randn(4, 6).T,
        "empty": torch.zeros(0, 4),
        "embedding": tied,
        "head": tied,
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    (tmp_path / "a.safetensors").write_bytes(converted(saved(known, _use_new_zipfile_serialization=zipped)))
    made = load_file(tmp_path / "a.safetensors")
    assert made.keys() == known.keys()
    assert all(torch.equal(made[name], tensor) and made[name].dtype == tensor.dtype for name, tensor in known.items())


# ---------------------------------------------------------------- what is not


def test_code_is_never_run(pickled: Path, tmp_path: Path) -> None:
    for value in (Evil(tmp_path / "CANARY"), {"a": Evil(tmp_path / "CANARY")}):
        (pickled / "adapter_model.bin").write_bytes(saved(value))
        refused(pickled, "it needs posix.system, which is more than tensors")
    assert not (tmp_path / "CANARY").exists()


def test_a_file_that_asks_for_all_memory_gets_none(pickled: Path) -> None:
    content = saved({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=False)
    whole = b"K\xe8\x03".replace(b"K", b"M") + b"N"  # the number 1000, then None: the storage's size
    assert content.count(whole) == 1
    huge = b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"N"
    (pickled / "adapter_model.bin").write_bytes(content.replace(whole, huge))
    refused(pickled, "more memory than tensors of its size take")


def compressed(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    return made.getvalue()


def shortened(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part)[: 8 if "/data/" in part.filename else None])
    return made.getvalue()


def overlapping(content: bytes) -> bytes:
    """An archive whose directory names the same bytes again and again, under other names."""
    end = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    directory = content[start:end]
    if (locator := directory.find(b"PK\x06\x06")) >= 0:  # torch writes the large form too
        directory = directory[:locator]
    count = int.from_bytes(content[end + 8 : end + 10], "little") * 50
    tail = b"PK\x05\x06" + b"\0" * 4 + count.to_bytes(2, "little") * 2
    return content[:start] + directory * 50 + tail + (len(directory) * 50).to_bytes(4, "little") + start.to_bytes(
        4, "little"
    ) + b"\0\0"  # fmt: skip


ONE = torch.randn(1000)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a zip bomb": (lambda: compressed(saved({"a": torch.zeros(10_000_000)})), "compressed"),
    "a directory that repeats itself": (lambda: overlapping(saved({"a": ONE})), "more bytes than the file has"),
    "a storage that is shorter than it says": (lambda: shortened(saved({"a": ONE})), "does not match"),
    "values that repeat": (lambda: saved({"a": torch.zeros(1).expand(10**12)}), "repeats its values"),
    "windows on each other": (lambda: saved({"a": ONE.as_strided((900, 100), (1, 1))}), "repeats its values"),
    "one storage under many names": (lambda: saved({str(n): ONE for n in range(50)}), "share their values"),
    "a sparse tensor": (
        lambda: saved({"a": torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6))}),
        "sparse coo",
    ),
    "a quantised tensor": (lambda: saved({"a": torch.quantize_per_tensor(ONE, 0.1, 0, torch.qint8)}), "quantised"),
    "complex numbers": (lambda: saved({"a": torch.zeros(2, dtype=torch.complex64)}), "complex64"),
    "a tensor of nowhere": (lambda: saved({"a": torch.zeros(2, device="meta")}), "no plain tensor"),
    "a checkpoint around the tensors": (lambda: saved({"state_dict": {"a": ONE}}), "state_dict is a dict"),
    "a number": (lambda: saved({"a": ONE, "epoch": 3}), "epoch is a int"),
    "a list": (lambda: saved([ONE]), "holds a list"),
    "nothing": (lambda: saved({}), "not tensors by their names"),
    "a name that is no text": (lambda: saved({1: ONE}), "names a tensor"),
    "a name that safetensors keeps for itself": (lambda: saved({"__metadata__": ONE}), "names a tensor"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_more_or_less_than_tensors_is_refused(name: str) -> None:
    made, match = HOSTILE[name]
    with pytest.raises((unpickle.NoTensors, RuntimeError), match=match):
        converted(made())


def test_a_torn_file_is_refused_wherever_it_ends() -> None:
    for zipped in (True, False):
        whole = saved({"a": ONE, "b": torch.zeros(3)}, _use_new_zipfile_serialization=zipped)
        for cut in range(0, len(whole), max(1, len(whole) // 23)):
            with pytest.raises(Exception) as caught:  # torch's own, of a dozen kinds
                converted(whole[:cut])
            assert unpickle._said(caught.value)
            assert "\n" not in unpickle._said(caught.value)


def zipped(**parts: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/"), content)
    return made.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 40123456\n"
OTHERS: dict[str, tuple[bytes, str, str]] = {
    "a zip of a folder": (zipped(adapter__adapter_model_bin=b"\x80"), "zip archive of other files", "Ask its author"),
    "a torn zip": (saved({"a": torch.zeros(99)})[:300], "its archive is torn: fetch it again", "Ask its author"),
    "a pointer": (POINTER, "a pointer of Git LFS to a file that was not fetched", "git lfs pull"),
    "a page": (b"\n<!DOCTYPE html>\n<title>Sign in</title>" + b"<p>" * 999, "a web page .'<!DOCTYPE html>'.", "a key"),
    "an error": (b'{"error": "Invalid credentials"}', "a text .'{.error.: .Invalid credentials.}'.", "a key"),
    "a long text, cut within a character": ("é".encode() * 999, "a text .'é+'.", "a key"),
    "nothing": (b"", "is empty, not a file of weights", "Fetch it again"),
    "safetensors": (b"\2" + b"\0" * 7 + b"{}", "safetensors under another name", "Rename it to adapter_model.safe"),
    "bytes": (bytes(range(99, 256)), "is no pickle, or it is torn", "Fetch it again"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_pickle_is_named_for_what_it_is(name: str, pickled: Path) -> None:
    content, match, hint = OTHERS[name]
    (pickled / "adapter_model.bin").write_bytes(content)
    assert hint in refused(pickled, match)


def test_weights_that_git_has_not_fetched_are_named_so(lora: Path, llama: Path, tmp_path: Path) -> None:
    """Also where safetensors or a GGUF should be."""
    for place, name in ((lora, adapters.WEIGHTS), (llama, "model.safetensors")):
        folder = Path(shutil.copytree(place, tmp_path / place.name))
        (folder / name).write_bytes(POINTER)
        with pytest.raises(FinbenchError, match=f"{name} is a pointer of Git LFS to a file that was not fetched"):
            adapters.read(folder) if place is lora else bases.resolve(str(folder))
    (tmp_path / "a.gguf").write_bytes(POINTER)
    with pytest.raises(FinbenchError, match="a.gguf is a pointer of Git LFS"):
        bases.resolve(str(tmp_path / "a.gguf"))


def test_an_archive_whose_names_are_in_no_stated_encoding_is_read(pickled: Path, lora: Path, tmp_path: Path) -> None:
    whole = (pickled / "adapter_model.bin").read_bytes()
    parts, made = io.BytesIO(), io.BytesIO(whole)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(parts, "w") as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    (pickled / "adapter_model.bin").write_bytes(parts.getvalue())
    finbench.pull(str(pickled), tmp_path / "out", convert=True)
    made_of, known = load_file(tmp_path / "out" / adapters.WEIGHTS), load_file(lora / adapters.WEIGHTS)
    assert all(torch.equal(made_of[name], known[name]) for name in known)


def test_what_is_no_adapter_after_all_leaves_nothing(pickled: Path) -> None:
    tensors = torch.load(pickled / "adapter_model.bin")
    next(iter(tensors.values()))[0, 0] = float("nan")
    torch.save(tensors, pickled / "adapter_model.bin")
    refused(pickled, r"/out/adapter_model.safetensors: .* not finite")


def test_folders_that_are_refused_before_any_pickle_is_opened(
    pickled: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "_one", lambda *_: pytest.fail("a pickle was opened"))
    config = json.loads((pickled / "adapter_config.json").read_text())
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (pickled / "tokenizer.json").symlink_to(secret)
    refused(pickled, "link that leads outside")
    (pickled / "tokenizer.json").unlink()
    (pickled / "adapter_config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    refused(pickled, "asks to run code")
    (pickled / "adapter_config.json").write_text(json.dumps(config))
    (pickled / "adapter_model.pt").write_bytes(b"")
    refused(pickled, "adapter_model.bin and adapter_model.pt")
    (pickled / "adapter_model.pt").unlink()
    shutil.copyfile(lora / adapters.WEIGHTS, pickled / adapters.WEIGHTS)
    refused(pickled, "nothing is to be converted")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for out, match in ((mine, "holds other files: thesis.txt"), (pickled, "holds other files: adapter_config.json")):
        with pytest.raises(FinbenchError, match=match):
            finbench.pull(str(pickled), out, convert=True)
    assert (mine / "thesis.txt").read_text() == "years of work"


# ---------------------------------------------------------------- the process


def _attempts(folder: str, parent: int) -> dict[str, str]:
    reading = os.open(os.path.join(folder, "open"), os.O_RDWR)
    jail.shut(4)
    tried: dict[str, Callable[[], object]] = {
        "open": lambda: os.open(os.path.join(folder, "open"), os.O_RDONLY),
        "connect": lambda: socket.socket(),
        "remove": lambda: os.unlink(os.path.join(folder, "open")),
        "rename": lambda: os.rename(os.path.join(folder, "open"), os.path.join(folder, "moved")),
        "make": lambda: os.mkdir(os.path.join(folder, "made")),
        "start": lambda: os.fork() or os._exit(0),
        "run": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(parent, signal.SIGKILL),
        "fill the disk": lambda: os.pwrite(reading, b"12345678", 4),
        "free itself": lambda: __import__("resource").setrlimit(7, (100, 100)),
    }
    found = {}
    for name, attempt in tried.items():
        try:
            attempt()
            found[name] = "done"
        except OSError as fault:
            found[name] = type(fault).__name__
        except ValueError:
            found[name] = "ValueError"
    return {**found, "read": os.pread(reading, 4, 0).decode()}


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the kernel's calls are known of these two")
def test_a_shut_process_reads_what_is_open_and_does_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("mine")
    found = jail.confined(_attempts, str(tmp_path), os.getpid(), what="it", hint="")
    assert found.pop("read") == "mine"
    assert "done" not in found.values(), found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["open"]
    assert (tmp_path / "open").read_text() == "mine"
