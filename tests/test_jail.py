"""Bombs: what a stranger's file makes of time and memory is one message within seconds, and the rest goes on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import quick
from finbench.core import jail
from finbench.core.errors import FinbenchError
from finbench.models import bases, tokenguard


def _spent() -> float:
    """Processor seconds of this process and of its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.fixture
def _cheap() -> Iterator[None]:
    """The test may take five seconds of the processor, and a gigabyte beside what is there."""
    import transformers  # noqa: F401  what every command that loads a model has

    before, held = _spent(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert quick(_spent() - before, 7.0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 2**20  # KiB


# ---------------------------------------------------------------- the jail itself


def _endless() -> None:
    while True:
        pass


def _hungry() -> int:
    return len([bytearray(2**24) for _ in range(1000)])


def _refuses() -> None:
    raise FinbenchError("No.", "Type yes.")


def _dies() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _says_too_much() -> str:
    return "x" * 2**25


def _fails() -> None:
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("work", "match"),
    [
        (_hungry, "took more than 0.25 GB"),
        (_refuses, "^No.\nType yes.$"),
        (_dies, "or broke its reader"),
        (_says_too_much, "or broke its reader"),
        (_fails, "X cannot be read: KeyError: 'lost'"),
        (lambda: {1, 2}, "X cannot be read|broke its reader"),
    ],
)
def test_whatever_happens_inside_is_one_message(work: Callable[[], Any], match: str) -> None:
    with pytest.raises(FinbenchError, match=match):  # a quarter of a gigabyte can take a busy machine a second
        jail.confined(work, what="X", hint="Choose another.", seconds=20.0, memory=2**28)


def test_what_never_ends_is_stopped() -> None:
    with pytest.raises(FinbenchError, match="X was stopped after 1 s"):
        jail.confined(_endless, what="X", hint="Choose another.", seconds=1.0, memory=2**28)


def test_its_result_comes_back_and_nothing_else_does(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def work(a: int, b: str) -> list[Any]:
        seen.append(a)
        os.write(1, b"noise")
        os.write(2, b"noise")
        return [a, b, None]

    assert jail.confined(work, 1, "ü", what="X", hint="") == [1, "ü", None]
    assert seen == []
    assert capfd.readouterr() == ("", "")


def test_it_starts_in_a_moment_and_leaves_no_process() -> None:
    before = _spent()
    for _ in range(5):
        assert jail.confined(abs, -1, what="X", hint="") == 1
    assert quick(_spent() - before, 1.0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_thread_may_use_it_too() -> None:
    found: list[Any] = []
    one = threading.Thread(target=lambda: found.append(jail.confined(abs, -2, what="X", hint="")))
    one.start()
    one.join(20)
    assert found == [2]


def test_one_that_waits_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jail, "_STALLED", 0.3)
    with pytest.raises(FinbenchError, match="was stopped"):
        jail.confined(time.sleep, 60, what="X", hint="", seconds=0.1)


# ---------------------------------------------------------------- tokenizers


@pytest.fixture
def base(llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama, tmp_path / "base")


def _change(base: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    path = base / name
    stated = json.loads(path.read_text())
    change(stated)
    path.write_text(json.dumps(stated))


def _replaces(pattern: dict[str, str], content: str, times: int = 30) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": pattern, "content": content}] * times}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


TOKENIZERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "30 doublings at load": lambda t: t.update(normalizer=_replaces({"String": "e"}, "ee")),
    "30 doublings of a rare word": lambda t: t.update(normalizer=_replaces({"String": "EURO"}, "EUROEURO")),
    "one replacement by a megabyte": lambda t: t.update(normalizer=_replaces({"String": "q"}, "q" * 2**20, 1)),
    "a place between characters": lambda t: t.update(normalizer=_replaces({"Regex": "(?=.)"}, "xxxx", 4)),
    "30 byte levels": lambda t: t.update(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
            ]
            * 30,
        }
    ),
    "a decoder that doubles": lambda t: t.update(
        decoder={
            "type": "Sequence",
            "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 30,
        }
    ),
    "a long prefix": lambda t: t.update(normalizer={"type": "Prepend", "prepend": "x" * 10**6}),
    "filled up": lambda t: t.update(
        padding={
            "strategy": {"Fixed": 10**10},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|end|>",
        }
    ),
    "a search without end": lambda t: t.update(pre_tokenizer=_split(r"(x+x+)+y|(?:a|a)+$|(\w+\s?)+$|((\p{L}*)*)*=")),
    "a search of its own words": lambda t: t.update(pre_tokenizer=_split(r"(?:(?:EUR)+)+Z")),
    "a hundred patterns": lambda t: t.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [_split(f"a{n}") for n in range(200)]}
    ),
    "a template of a million": lambda t: t.update(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}] * 200_000
            + [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}},
        }
    ),
    "added tokens without end": lambda t: t.update(
        added_tokens=[
            {**t["added_tokens"][0], "id": n, "content": f"{n:x}" * 40, "normalized": n % 2 == 0}
            for n in range(200_000)
        ]
    ),
    "deep": lambda t: t.update(normalizer=json.loads('{"type": "Sequence", "normalizers": [' * 25 + "]}" * 25)),
}


@pytest.mark.usefixtures("_cheap")
@pytest.mark.parametrize("change", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_a_tokenizer_that_is_a_bomb(base: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    _change(base, "tokenizer.json", change)
    try:
        tokenizer = bases.load_tokenizer(bases.Base(None, base))  # type: ignore[arg-type]
    except FinbenchError:
        return
    # what is let in must be harmless on any text
    for text in ("e" * 2_000, "EURO" * 500, "xx" * 500 + "!", "a" * 2_000, "EUR" * 300 + "!"):
        made = tokenizer(text)["input_ids"]
        assert len(made) < 40 * len(text)
        assert len(tokenizer.decode(made)) < 40 * len(text)


@pytest.mark.usefixtures("_cheap")
@pytest.mark.parametrize(
    "changed",
    [
        {"tokenizer_class": "T5Tokenizer", "extra_ids": 10**9},
        {"tokenizer_class": "PegasusTokenizer", "offset": 10**9},
        {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 10**9},
        pytest.param(
            {"added_tokens_decoder": {str(n): {"content": f"<{n}>"} for n in range(200_000)}}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"additional_special_tokens": ["x" * 20 + str(n) for n in range(200_000)]}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda changed: "-".join(map(str, changed.values()))[:30],
)
def test_a_configuration_of_a_tokenizer_that_is_a_bomb(base: Path, changed: dict[str, Any]) -> None:
    _change(base, "tokenizer_config.json", lambda stated: stated.update(changed))
    said = ""
    try:
        tokenguard.check(base)
    except FinbenchError as fault:
        said = fault.message
    assert "\n" not in said


def test_numbers_without_end_are_refused_before_they_are_read(base: Path) -> None:
    (base / "tokenizer.json").write_text('{"model": {"vocab": {}}, "x": [' + "[]," * 20_000_000 + "0]}")
    with pytest.raises(FinbenchError, match="more than 6,000,000 values"):
        bases.resolve(str(base))


def test_labels_without_end(base: Path) -> None:
    _change(base, "config.json", lambda stated: stated.update(num_labels=10**9))
    with pytest.raises(FinbenchError, match="num_labels is 1,000,000,000"):
        bases.resolve(str(base))


def test_a_tokenizer_is_tried_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    real = jail.confined
    monkeypatch.setattr(jail, "confined", lambda *given, **how: tried.append(how["what"]) or real(*given, **how))
    monkeypatch.setattr(tokenguard, "_passed", set())
    one = bases.Base(None, base)  # type: ignore[arg-type]
    bases.load_tokenizer(one)
    bases.load_tokenizer(one)
    tokenguard._passed.clear()  # as in the next process
    bases.load_tokenizer(one)
    assert len(tried) == 1
    _change(base, "tokenizer.json", lambda stated: stated["added_tokens"][0].update(lstrip=True))
    bases.load_tokenizer(one)
    assert len(tried) == 2


# ---------------------------------------------------------------- Parquet


def _parquet(path: Path, **columns: Any) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


def _repeated(text: str, times: int) -> Any:
    import numpy
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(numpy.zeros(times, "int32"), [text])


def _listed(values: Any) -> Any:
    import pyarrow

    return pyarrow.ListArray.from_arrays([0, len(values)], values)


def _nothing(times: int) -> Any:
    import pyarrow

    return pyarrow.nulls(times)


PARQUETS: dict[str, Callable[[Path], Path]] = {
    "12 million rows": lambda path: _parquet(path, x=_repeated("a", 12_000_000)),
    "a long text, repeated": lambda path: _parquet(path, x=_repeated("a" * 2**20, 100_000)),
    "a long text in a list": lambda path: _parquet(path, x=_listed(_repeated("a" * 2**18, 2_000))),
    "a list of nothing": lambda path: _parquet(path, x=_listed(_nothing(40_000_000))),
}


@pytest.mark.parametrize("make", PARQUETS.values(), ids=PARQUETS.keys())
def test_a_parquet_file_that_is_a_bomb(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    from finbench.data import readers

    path = make(tmp_path / "bomb.parquet")
    before = _spent()
    with pytest.raises(FinbenchError, match=r"a bomb\?|was stopped"):
        next(readers.decode_parquet(readers.SourceFile(path)))
    assert quick(_spent() - before, 6.0)


# ---------------------------------------------------------------- YAML, JSON, zip


def _zip_of_many(path: Path) -> None:
    import zipfile

    line = ('{"a": "' + "x" * 60 + '"}\n') * 20_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(90):  # each is small enough by itself
            archive.writestr(f"{number}.jsonl", line)


TEXTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a list in YAML": (
        "a.yaml",
        lambda path: path.write_text("a: [" + "1," * 499_000 + "1]"),
        "more than 50,000 parts",
    ),
    "lines in YAML": ("b.yaml", lambda path: path.write_text("a:\n" + "- 1\n" * 240_000), "more than 50,000"),
    "objects in JSON": (
        "a.json",
        lambda path: path.write_text("[" + "{}," * 13_000_000 + "{}]"),
        "more than 12,000,000",
    ),
    "lists in JSON": (
        "b.json",
        lambda path: path.write_text('[{"a":[' + "[]," * 13_000_000 + "[]]}]"),
        "more than 12,0",
    ),
    "a header in CSV": ("a.csv", lambda path: path.write_text(",".join(map(str, range(20_000))) + "\n"), "20,000 col"),
    "many files in a zip": ("a.zip", _zip_of_many, "a zip bomb"),
}


def test_a_row_of_more_values_than_any_has_is_told_and_left_out(tmp_path: Path) -> None:
    from finbench.data import readers

    path = tmp_path / "a.jsonl"
    path.write_text('{"x": [' + "[]," * 300_000 + "0]}\n" + '{"x": "' + "," * 150_000 + '"}\n')
    told, row = readers.decode_jsonl(readers.SourceFile(path))
    assert told == f"{path}:1: a row of more than 200,000 values"
    assert not isinstance(row, str)


@pytest.mark.usefixtures("_cheap")
@pytest.mark.parametrize("more", ['<row r="900000000"><c r="A900000000"><v>1</v></c></row>', "far"])
def test_a_sheet_of_rows_or_columns_that_nobody_wrote(tmp_path: Path, more: str) -> None:
    """One cell may say that it is in any row, or in the last column; openpyxl makes up what lies between."""
    import io
    import zipfile

    import openpyxl

    from finbench.data import spreadsheets

    book, made = openpyxl.Workbook(), io.BytesIO()
    for line in (("text", "label"), ("profit rose", "positive")):
        book.active.append(line)
    book.save(made)
    if more == "far":
        more = "".join(f'<row r="{n}"><c r="XFD{n}"><v>1</v></c></row>' for n in range(3, 400))
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(made) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as altered:
        for part in whole.namelist():
            altered.writestr(part, whole.read(part).replace(b"</sheetData>", f"{more}</sheetData>".encode()))
    with pytest.raises(FinbenchError, match="1,048,576 rows or 5,000,000 cells"):
        list(spreadsheets.rows("a.xlsx", path.read_bytes()))


@pytest.mark.usefixtures("_cheap")
@pytest.mark.parametrize(("name", "make", "match"), TEXTS.values(), ids=TEXTS.keys())
def test_a_text_that_is_a_bomb(tmp_path: Path, name: str, make: Callable[[Path], Any], match: str) -> None:
    from finbench.core import taskfiles
    from finbench.data import readers

    def read(path: Path) -> Any:
        if path.suffix == ".yaml":
            return taskfiles.read_yaml(path)
        return [list(readers.decoder_of(file, None)(file)) for file in readers.expand([path], "*.jsonl")]

    make(tmp_path / name)
    with pytest.raises(FinbenchError, match=match):
        read(tmp_path / name)


def test_rows_of_a_parquet_file_are_read(tmp_path: Path) -> None:
    from finbench.data import readers

    path = _parquet(tmp_path / "a.parquet", text=["one", "two"], label=_repeated("up", 2), spans=[[{"a": 1}], []])
    found = [one.row for one in readers.decode_parquet(readers.SourceFile(path)) if not isinstance(one, str)]
    assert found == [
        {"text": "one", "label": "up", "spans": [{"a": 1}]},
        {"text": "two", "label": "up", "spans": []},
    ]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FinbenchError, match="not valid Parquet"):
        list(readers.decode_parquet(readers.SourceFile(path)))


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq", "PiSSA"])
def test_an_adapter_that_decomposes_the_base_is_refused_by_its_configuration(
    lora: Path, tmp_path: Path, start: str
) -> None:
    from finbench.models import adapters

    folder = shutil.copytree(lora, tmp_path / "a")
    (folder / "finbench.json").unlink(missing_ok=True)
    _change(folder, "adapter_config.json", lambda stated: stated.update(init_lora_weights=start))
    before = _spent()
    with pytest.raises(FinbenchError, match="changes the base model itself"):
        adapters.read(folder)
    assert quick(_spent() - before, 1.0)


@pytest.mark.parametrize(
    "stated",
    [
        {"peft_type": "FOURIERFT", "n_frequency": 10**10},
        {"peft_type": "VBLORA", "num_vectors": 10**10},
        {"peft_type": "UNILORA", "theta_d_length": 10**12},
        {"peft_type": "WAVEFT", "n_frequency": 10**9},
    ],
)
def test_sizes_of_other_tuners_are_bounded(lora: Path, tmp_path: Path, stated: dict[str, Any]) -> None:
    from finbench.models import adapters

    folder = shutil.copytree(lora, tmp_path / "a")
    (folder / "finbench.json").unlink(missing_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"target_modules": ["q_proj"], "seed": 10**12, **stated}))
    with pytest.raises(FinbenchError, match="no adapter's is so large"):
        adapters.read(folder)


def test_configurations_of_finbench_are_read_in_c_as_they_are_in_python_and_others_never() -> None:
    from finbench.core import paths, taskfiles

    files = [path for name in ("tasks", "adapters_zoo") for path in paths.shipped(name).glob("*")]
    files = [path for path in files if path.suffix in ("", ".yaml") and path.is_file()]  # templates have no ending
    assert len(files) > 100
    for path in files:
        text = path.read_text(encoding="utf-8")
        one, other = (
            taskfiles._constructed(text, path.parent, kind) for kind in (taskfiles._FastLoader, taskfiles._StrictLoader)
        )
        assert one == other, path
        assert taskfiles._is_ours(path)
    assert not taskfiles._is_ours(paths.shipped("tasks") / "lib" / "some.yaml")
    assert not taskfiles._is_ours(paths.shipped("tasks").parent / "some.yaml")


def _listed_often(path: Path, count: int = 400_000) -> None:
    """A zip whose list names the same file again and again: 46 bytes each, of which Python makes an object."""
    import io
    import struct
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.jsonl", '{"text": "a", "label": "b"}\n')
    whole = made.getvalue()
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    rest = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, count * (end - start), start, 0)
    path.write_bytes(whole[:start] + whole[start:end] * count + rest)


def _same_bytes(path: Path) -> None:
    """A zip of forty files, each of 90 MB, that are all the same 90 kB of it, and state that they are 2 MB."""
    import struct
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a.jsonl", '{"text": "a", "label": "b"}\n' + " " * (90 << 20))
        [info] = archive.infolist()
    whole = path.read_bytes()
    start, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
    entry = whole[start : start + 20] + struct.pack("<L", 2_000_000) + whole[start + 24 : end]
    rest = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 40, 40, 40 * len(entry), start, 0)
    path.write_bytes(whole[:start] + entry * 40 + rest)
    assert info.compress_size < 200_000


@pytest.mark.usefixtures("_cheap")
@pytest.mark.parametrize(
    ("make", "reader"),
    [
        *((_listed_often, reader) for reader in ("rows", "filings", "workbook")),
        *((_same_bytes, reader) for reader in ("rows", "filings")),
    ],
)
def test_a_zip_that_names_its_files_too_often(make: Callable[[Path], None], reader: str, tmp_path: Path) -> None:
    from finbench.data import readers, spreadsheets
    from finbench.data.xbrl import inputs

    path = tmp_path / "a.zip"
    make(path)
    before = _spent()
    reading: Callable[[], Any] = {
        "rows": lambda: readers.expand([path], "*.jsonl"),
        "filings": lambda: list(inputs.documents(path)),
        "workbook": lambda: list(spreadsheets.rows("a.xlsx", path.read_bytes())),
    }[reader]
    with pytest.raises(FinbenchError, match="a zip bomb"):
        reading()
    assert quick(_spent() - before, 2.0)


@pytest.mark.usefixtures("_cheap")
def test_a_zip_of_thousands_of_filings_is_opened_once(tmp_path: Path) -> None:
    import zipfile

    from finbench.data.xbrl import inputs

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(2_500):
            archive.writestr(f"{number}.xml", b'<a xmlns="http://www.xbrl.org/2003/instance"/>')
    before = _spent()
    with pytest.raises(FinbenchError, match="no XBRL instance"):
        list(inputs.documents(tmp_path / "a.zip"))
    assert quick(_spent() - before, 4.0)


@pytest.mark.parametrize(("name", "inside"), [("a.zip", "a.jsonl"), ("b.zip", "a.xml"), ("a.xlsx", "xl/a.xml")])
def test_a_member_that_is_packed_by_lzma_and_torn_is_one_line(name: str, inside: str, tmp_path: Path) -> None:
    import zipfile

    from finbench.data import readers
    from finbench.data.xbrl import inputs

    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(inside, '{"text": "profit rose", "label": "positive"}\n' * 500)
    torn = bytearray(path.read_bytes())
    for place in range(30 + len(inside) + 17, 30 + len(inside) + 37):
        torn[place] ^= 0xFF
    path.write_bytes(torn)

    def read() -> Any:
        if inside == "a.xml":
            return list(inputs.documents(path))
        [file] = readers.expand([path], "*.jsonl *.xlsx")
        return list(readers.decoder_of(file, None)(file))

    with pytest.raises(FinbenchError, match=r"damaged|torn|not an Excel workbook"):
        read()


_MANY = b'{"results": [' + b"{}," * 4_100_000 + b"0]}"  # which would take a gigabyte


def _of_inspect(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "{}")
        for number in range(10):  # each is small enough by itself
            archive.writestr(f"samples/{number}.json", _MANY[:13] + _MANY[13 : 13 + 3 * 410_000] + b"0]}")


def _of_lm_eval(path: Path) -> None:
    stated = {"results": {}, "versions": {"finbench_mini_sentiment": 6}, "n-shot": {}, "config": {}}
    path.write_text(json.dumps(stated))
    path.with_name("samples_finbench_mini_sentiment_1.jsonl").write_bytes(_MANY)


def _of_every_eval_ever(path: Path) -> None:
    path.write_bytes(b'{"schema_version": "0.2.2", "evaluation_id": "x", ' + _MANY[1:])
    path.with_name(f"{path.stem}_samples.jsonl").write_bytes(b"{}\n")


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("results_1.json", lambda path: path.write_bytes(_MANY), {}),
        ("results_1.json", _of_lm_eval, {}),
        ("a.eval", _of_inspect, {}),
        ("a.json", _of_every_eval_ever, {}),
        ("a.json", lambda path: path.write_bytes(_MANY), {"task": "mini_sentiment"}),
    ],
    ids=["lm-eval's results", "lm-eval's samples", "inspect", "Every Eval Ever", "answers"],
)
def test_what_others_wrote_has_no_more_values_than_memory_holds(
    name: str, make: Callable[[Path], Any], options: dict[str, Any], tmp_path: Path
) -> None:
    from finbench.evaluation import import_card

    make(tmp_path / name)
    with pytest.raises(FinbenchError, match="more than 8,000,000 values"):
        import_card(tmp_path / name, out=tmp_path / "o", **options)


def test_a_training_record_of_millions_of_values_is_one_line(tmp_path: Path) -> None:
    from finbench.core.records import Subject
    from finbench.leaderboard import attested

    subject = Subject.model_construct(adapter="1" * 64)
    path = tmp_path / attested.training_file(subject)
    path.parent.mkdir()
    for content in (_MANY, b'{"x": "' + b" " * 2**24 + b'"}'):
        path.write_bytes(content)
        with pytest.raises(FinbenchError, match=r"more than [0-9,]+ (values|bytes)"):
            attested.trained(tmp_path, subject)


@pytest.mark.usefixtures("_cheap")
@pytest.mark.parametrize(
    ("part", "before", "more", "match"),
    [
        ("xl/worksheets/sheet1.xml", b"<sheetData", b'<sheetData a="%s"' % (bytes(range(97, 123)) * 500_000), "tag"),
        ("xl/worksheets/sheet1.xml", b"<sheetData", b"<!--%s--><sheetData" % (b"<abcdefgh>" * 1_200_000), "tag"),
        ("xl/worksheets/sheet1.xml", b"<sheetData", b"<!---->" * 2_000 + b"<sheetData", "tag"),
        (
            "xl/styles.xml",
            b"<cellXfs",
            b"<!-- x -->" * 10 + b" " * 17 * 2**20 + b"<cellXfs",
            "more than 16,777,216 bytes",
        ),
        (
            "xl/workbook.xml",
            b"</sheets>",
            b"".join(
                b'<sheet name="s%d" sheetId="%d" r:id="rId1" xmlns:r="http://schemas.openxmlformats.org/'
                b'officeDocument/2006/relationships"/>' % (n, n)
                for n in range(2, 1_200)
            )
            + b"</sheets>",
            "1,199 sheets",
        ),
    ],
    ids=["a tag", "a comment", "comments", "styles", "sheets"],
)
def test_a_workbook_that_takes_its_reader_minutes(
    part: str, before: bytes, more: bytes, match: str, tmp_path: Path
) -> None:
    import io
    import zipfile

    import openpyxl

    from finbench.data import spreadsheets

    book, made = openpyxl.Workbook(), io.BytesIO()
    for line in (("text", "label"), ("profit rose", "positive")):
        book.active.append(line)
    book.save(made)
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(made) as whole, zipfile.ZipFile(path, "w") as altered:
        for name in whole.namelist():
            content = whole.read(name)
            altered.writestr(name, content.replace(before, more, 1) if name == part else content)
    with pytest.raises(FinbenchError, match=match):
        list(spreadsheets.rows("a.xlsx", path.read_bytes()))
