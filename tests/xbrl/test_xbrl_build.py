"""finbench data xbrl: sets on the disk, splits, options, faults, attacks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import processor_time, quick
from finbench.cli.app import app
from finbench.core import paths
from finbench.core.errors import FinbenchError
from finbench.data.xbrl import parsing
from finbench.data.xbrl.build import SETS, build_questions
from xbrl_samples import inline, instance, measured, shown, statement

MINI = paths.shipped("tasks") / "mini" / "filings"


def rows_of(folder: Path, set_: str, split: str) -> list[dict[str, Any]]:
    path = folder / set_ / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_companies_are_on_one_side_and_the_card_says_what_was_read(tmp_path: Path) -> None:
    built = build_questions([MINI], tmp_path / "out", max_context=600, test_companies=["Vexford", "9900000007"])
    for set_ in SETS:
        sides = {
            split: {row["company"] for row in rows_of(tmp_path / "out", set_, split)} for split in ("train", "test")
        }
        assert sides["test"] == {"Vexford Pumps Inc.", "Hollis & Tern Books Corp."}
        assert not sides["train"] & sides["test"]
        validation = rows_of(tmp_path / "out", set_, "validation")
        assert 0 < len(validation) < built.rows[set_]["train"] / 4
        card = json.loads((tmp_path / "out" / set_ / "dataset.json").read_text(encoding="utf-8"))
        assert card["rows"] == built.rows[set_]
        for name, sha in card["sha256"].items():
            assert hashlib.sha256((tmp_path / "out" / set_ / name).read_bytes()).hexdigest() == sha
        assert len(card["filings"]) == 9
        for entry in card["filings"]:
            for name, sha in entry["sha256"].items():
                assert hashlib.sha256((MINI / name).read_bytes()).hexdigest() == sha
        assert card["options"] == {"seed": 0, "max_context": 600, "filed_after": ""}
        identities = [
            row["id"] for split in ("train", "validation", "test") for row in rows_of(tmp_path / "out", set_, split)
        ]
        assert len(set(identities)) == len(identities)


def test_without_a_test_company_all_is_test(tmp_path: Path) -> None:
    built = build_questions([MINI / "vexford-20211231.htm"], tmp_path)
    assert all(set(counts) == {"test"} for counts in built.rows.values())


def test_the_same_filings_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        build_questions([MINI], tmp_path / name, max_context=600, seed=5, test_companies=["Vexford"])
    assert tree(tmp_path / "one") == tree(tmp_path / "other")
    code = (
        "from pathlib import Path; from finbench.data.xbrl.build import build_questions; import sys;"
        "build_questions([Path(sys.argv[1])], Path(sys.argv[2]), max_context=600, seed=5, test_companies=['Vexford'])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(MINI), str(tmp_path / "third")], check=True, env=environment)
    assert tree(tmp_path / "third") == tree(tmp_path / "one")


def test_a_zip_a_folder_and_a_file_are_the_same_filing(tmp_path: Path) -> None:
    stem = "oakmere-20211231"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in (f"{stem}.htm", f"{stem}_lab.xml"):
            archive.write(MINI / name, name)
    (tmp_path / "folder").mkdir()
    for name in (f"{stem}.htm", f"{stem}_lab.xml"):
        (tmp_path / "folder" / name).write_bytes((MINI / name).read_bytes())
    found = [
        build_questions([path], tmp_path / f"out{n}")
        for n, path in enumerate((tmp_path / "a.zip", tmp_path / "folder", MINI / f"{stem}.htm"))
    ]
    digests = [[entry["sha256"] for entry in built.filings] for built in found]
    assert digests[0] == digests[1] == digests[2]
    assert [tree(tmp_path / f"out{n}")["xbrl_tags/test.jsonl"] for n in range(3)] == [
        tree(tmp_path / "out0")["xbrl_tags/test.jsonl"]
    ] * 3


def test_an_instance_that_was_extracted_from_an_inline_document_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a.htm").write_bytes(inline(shown("Revenues", "5")))
    (tmp_path / "a_htm.xml").write_bytes(instance(statement()))
    built = build_questions([tmp_path], tmp_path / "out")
    assert [entry["inline"] for entry in built.filings] == [False]


def test_only_filings_after_a_date(tmp_path: Path) -> None:
    for name in ("a-2024-02-03.xml", "undated.xml"):
        (tmp_path / name).write_bytes(instance(statement()).replace(b"0042", b"0042" if name[0] == "a" else b"0043"))
    files = [tmp_path / "a-2024-02-03.xml", tmp_path / "undated.xml"]
    built = build_questions(files, tmp_path / "out", filed_after="2024-01-31")
    assert [entry["name"] for entry in built.filings] == ["a-2024-02-03.xml"]
    assert built.skipped == [f"{files[1]}: no filing date is stated, and its period ended 2023-12-31"]
    assert (
        len(build_questions(files, tmp_path / "out", filed_after="2023-12-31").filings) == 2
    )  # filed after its period's end
    with pytest.raises(FinbenchError, match="leaves no filing.*filed 2024-02-03"):
        build_questions(files[:1], tmp_path / "out", filed_after="2024-02-03")


# ---------------------------------------------------------------- faults


def refused(arguments: list[str | Path], tmp_path: Path) -> str:
    """The message of a refusal; nothing may have been written, and it must come soon."""
    start = processor_time()
    out = tmp_path / "never"
    run = subprocess.run(
        [sys.executable, "-m", "finbench", "data", "xbrl", *map(str, arguments), "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert quick(processor_time() - start, 5)
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert not out.exists()
    return run.stderr


def raises(path: Path, tmp_path: Path, **options: Any) -> FinbenchError:
    """The refusal of one file by the library."""
    start = processor_time()
    with pytest.raises(FinbenchError) as caught:
        build_questions([path], tmp_path / "never", **options)
    assert quick(processor_time() - start, 5)
    assert not (tmp_path / "never").exists()
    assert caught.value.hint
    return caught.value


def doctype(body: str) -> bytes:
    return instance(statement()).replace(b"?>\n", f"?>\n<!DOCTYPE xbrl [{body}]>\n".encode(), 1)


LOL = '<!ENTITY a "lol">' + "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(12))
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "entity expansion": (lambda: doctype(LOL), "declares XML entities"),
    "an external entity": (lambda: doctype('<!ENTITY a SYSTEM "file:///etc/hostname">'), "declares XML entities"),
    "a parameter entity": (lambda: doctype('<!ENTITY % a SYSTEM "http://localhost:9/x.dtd"> %a;'), "declares XML entities"),
    "entities in UTF-16": (lambda: doctype(LOL).decode().replace("UTF-8", "UTF-16").encode("utf-16"), "declares XML entities"),
    "an entity that is not declared": (lambda: instance(statement() + "&nbsp;"), "not well-formed XML"),
    "deep nesting": (lambda: instance("<a>" * 100_000 + "</a>" * 100_000), "nested deeper than 256"),
    "deep nesting, inline": (lambda: inline("<b>" * 100_000 + "</b>" * 100_000), "nested deeper than 256"),
    "a torn file": (lambda: instance(statement())[:-200], "not well-formed XML"),
    "no XML": (lambda: b"%PDF-1.7 not a filing", "not well-formed XML"),
    "an empty file": (lambda: b" \n", "the file is empty"),
    "other XML": (lambda: b"<rss><channel/></rss>", "not XBRL: its root is <rss>"),
    "plain HTML": (lambda: b"<html><body><p>Hello</p></body></html>", "not XBRL: its root is <html>"),
    "a linkbase": (lambda: (MINI / "oakmere-20211231_lab.xml").read_bytes(), "it is an XBRL linkbase"),
    "no facts": (lambda: instance("").replace(b"dei:", b"link:"), "holds no facts"),
    "no facts, inline": (lambda: inline(""), "holds no facts"),
    "nothing of us-gaap": (lambda: instance(statement().replace("us-gaap:", "own:")), "no question can be asked"),
    "a context without a period": (lambda: instance("<context id='x'><entity/></context>" + statement()), "'x' cannot be read"),
    "a date that is none": (lambda: instance(statement()).replace(b"2023-12-31</instant>", b"yesterday</instant>"), "cannot be read"),
    "too many elements": (lambda: instance("<a/>" * 2_100_000), "more than 2,000,000 elements"),
    "one huge text": (lambda: instance(f"<us-gaap:N contextRef='d'>{'x' * 11_000_000}</us-gaap:N>"), "not well-formed XML"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_with_name_and_reason(kind: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[kind]
    path = tmp_path / "filing.xml"
    path.write_bytes(make())
    fault = raises(path, tmp_path)
    assert str(path) in fault.message
    assert reason in fault.message
    assert len(fault.message.splitlines()) == 1


def test_an_external_dtd_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    canary = tmp_path / "canary.dtd"
    canary.write_text('<!ATTLIST xbrl id CDATA "read">')
    path = tmp_path / "a.xml"
    path.write_bytes(
        instance(statement()).replace(b"?>\n", f'?>\n<!DOCTYPE xbrl SYSTEM "{canary.as_uri()}">\n'.encode(), 1)
    )
    build_questions([path], tmp_path / "out")
    (root,) = [
        element
        for event, element in parsing.events("a", path.read_bytes())
        if event == "end" and parsing.local(element) == "xbrl"
    ]
    assert root.get("id") is None


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    with path.open("wb") as handle:
        handle.truncate(parsing.MAX_BYTES + 1)
    assert "larger than 128 MiB" in raises(path, tmp_path).message


def test_an_inline_document_that_is_too_large_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "a.htm"
    path.write_bytes(inline(shown("Revenues", "5") + "x" * (81 << 20)))
    assert "an inline document larger than 80 MiB" in raises(path, tmp_path).message


def test_a_hostile_label_linkbase_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.htm").write_bytes(inline(shown("Revenues", "5")))
    (tmp_path / "a_lab.xml").write_bytes(b"<!DOCTYPE x [" + LOL.encode() + b"]><x>&m;</x>")
    fault = raises(tmp_path / "a.htm", tmp_path)
    assert "a_lab.xml" in fault.message
    assert "declares XML entities" in fault.message


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.xml": bytes(200 << 20)}, "a zip bomb"),
        ({f"{n}.xml": bytes(1 << 20) for n in range(600)}, "a zip bomb"),
        ({"../a.xml": b"x"}, "points outside"),
        ({"/etc/a.xml": b"x"}, "points outside"),
        ({"x\\..\\..\\a.xml": b"x"}, "points outside"),
        ({"C:/a.xml": b"x"}, "points outside"),
        ({"readme.txt": b"x"}, "no XBRL instance"),
        ({str(n): b"" for n in range(10_001)}, "more than 10,000 files"),
        ({"a.xml": doctype(LOL)}, "declares XML entities"),
    ],
    ids=["bomb", "many", "up", "absolute", "windows", "drive", "empty", "members", "entities"],
)
def test_hostile_zips(members: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    fault = raises(zipped(tmp_path / "a.zip", members), tmp_path)
    assert str(tmp_path / "a.zip") in fault.message
    assert reason in fault.message


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.xml": instance(statement()) + b" " * (40 << 20)})
    raw = bytearray(path.read_bytes())
    size = (len(instance(statement())) + (40 << 20)).to_bytes(4, "little")
    for place in [n for n in range(len(raw) - 4) if raw[n : n + 4] == size]:
        raw[place : place + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)
    assert str(path) in raises(path, tmp_path).message


def test_an_encrypted_and_a_torn_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.xml": instance(statement())})
    whole = path.read_bytes()
    flagged = bytearray(whole)
    flagged[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(flagged)
    assert "encrypted" in raises(path, tmp_path).message
    torn = bytearray(whole)
    torn[60:90] = bytes(30)
    path.write_bytes(torn)
    assert "a.zip" in raises(path, tmp_path).message


def test_the_command_names_every_fault_at_once_and_writes_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.xml"
    bad.write_bytes(b"<rss/>")
    said = refused([MINI / "oakmere-20211231.htm", bad, tmp_path / "none.xml"], tmp_path)
    assert f"{bad}: not XBRL" in said
    assert f"No such file: {tmp_path / 'none.xml'}" in said
    assert "Give an XBRL instance" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_context": 10}, "--max-context 10: too small"),
        ({"filed_after": "soon"}, "--filed-after soon: not a date"),
        ({"test_companies": ["Nobody"]}, "--test-company Nobody: no such company here"),
        ({"test_companies": ["Oakmere"]}, "no row is left for train"),
        ({"filed_after": "2030-01-01"}, "leaves no filing"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    assert reason in raises(MINI / "oakmere-20211231.htm", tmp_path, **options).message


def test_the_same_filing_twice(tmp_path: Path) -> None:
    path = tmp_path / "copy.htm"
    path.write_bytes((MINI / "oakmere-20211231.htm").read_bytes())
    with pytest.raises(FinbenchError, match="the same filing"):
        build_questions([MINI / "oakmere-20211231.htm", path], tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_an_earlier_set_stays_when_a_later_build_fails(tmp_path: Path) -> None:
    build_questions([MINI / "oakmere-20211231.htm"], tmp_path / "out")
    before = tree(tmp_path / "out")
    bad = tmp_path / "bad.xml"
    bad.write_bytes(b"<rss/>")
    with pytest.raises(FinbenchError):
        build_questions([MINI / "vexford-20211231.htm", bad], tmp_path / "out")
    assert tree(tmp_path / "out") == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(SETS)


def test_the_command_prints_json_and_lines(tmp_path: Path) -> None:
    runner = CliRunner()
    lines = runner.invoke(app, ["data", "xbrl", str(MINI / "oakmere-20211231.htm"), "--out", str(tmp_path)])
    assert lines.exit_code == 0
    assert "Oakmere Instruments Inc., 9900000000-10-K-20211231 (filing date not stated)" in lines.stdout
    told = runner.invoke(
        app, ["data", "xbrl", str(MINI / "oakmere-20211231.htm"), "--data-dir", str(tmp_path), "--json"]
    )
    report = json.loads(told.stdout)
    assert set(report["rows"]) == set(SETS)
    assert report["filings"][0]["company"] == "Oakmere Instruments Inc."


def test_a_large_filing_takes_little_time_and_memory(tmp_path: Path) -> None:
    """Thirty times the facts of a 10-K, 32 MiB: below ten seconds and a gigabyte, the interpreter included."""
    item = '<us-gaap:Item{0} contextRef="d" unitRef="usd" decimals="0">{0}</us-gaap:Item{0}>'
    block = "<us-gaap:Note contextRef='d'>" + "&lt;p&gt;" * 10_000 + "</us-gaap:Note>"
    other = '<us-gaap:Part contextRef="s" unitRef="usd" decimals="0">{}</us-gaap:Part>'
    body = (
        statement()
        + "".join(item.format(n) for n in range(200))
        + block * 340
        + "".join(map(other.format, range(40_000)))
    )
    path = tmp_path / "a.xml"
    path.write_bytes(instance(body))
    assert path.stat().st_size > 30 << 20
    seconds, peak = measured(str(path), "--out", str(tmp_path / "out"))
    assert quick(seconds, 10)
    assert peak < 1 << 20
