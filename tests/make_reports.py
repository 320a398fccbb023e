"""Invented files of the sets about reports, stance and textbooks, in their authors' formats."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

SEEDS = ("5768", "78516", "944601")


def workbook(path: Path, rows: Sequence[Sequence[Any]], shared: bool = False) -> Path:
    """An Excel file of one sheet, its texts in the cells or, as Excel itself does it, in a part of their own."""
    texts: list[str] = []

    def cell(value: Any, place: str) -> str:
        if not isinstance(value, str):
            return f'<c r="{place}" t="n"><v>{value}</v></c>'
        if shared:
            texts.append(value)
            return f'<c r="{place}" t="s"><v>{len(texts) - 1}</v></c>'
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'

    lines = [
        f'<row r="{n}">' + "".join(cell(value, f"{chr(65 + at)}{n}") for at, value in enumerate(row)) + "</row>"
        for n, row in enumerate(rows, 1)
    ]
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {"workbook": "sheet.main", "worksheets/sheet1": "worksheet"} | (
        {"sharedStrings": "sharedStrings"} if shared else {}
    )
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    link = f'<Relationship Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        typed = "".join(
            f'<Override PartName="/xl/{part}.xml" ContentType="{kind}.{name}+xml"/>' for part, name in parts.items()
        )
        types = "http://schemas.openxmlformats.org/package/2006/content-types"
        book.writestr("[Content_Types].xml", f'<Types xmlns="{types}">{typed}</Types>')
        sheets = '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets>'
        book.writestr("xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}">{sheets}</workbook>')
        relations = "http://schemas.openxmlformats.org/package/2006/relationships"
        book.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{relations}">{link}</Relationships>')
        data = f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData></worksheet>'
        book.writestr("xl/worksheets/sheet1.xml", data)
        if shared:
            items = "".join(f"<si><t>{escape(text)}</t></si>" for text in texts)
            book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{main}">{items}</sst>')
    return path


def context(number: int) -> dict[str, Any]:
    """A context of TAT-QA with a question of each kind."""
    uid, now, before = f"{number:08x}", 40 + number, 50 + 2 * number

    def question(order: int, kind: str, answer: Any, scale: str, text: str) -> dict[str, Any]:
        told = {"uid": f"{uid}-q{order}", "order": order, "question": text, "answer": answer, "scale": scale}
        more = {"derivation": "", "answer_type": kind, "answer_from": "table", "rel_paragraphs": []}
        return told | more | {"req_comparison": False}

    return {
        "table": {"uid": uid, "table": [["", "2019", "2018"], [f"Sales {number}", f"${now}.5", f"({before})"]]},
        "paragraphs": [
            {"uid": f"{uid}-p2", "order": 2, "text": "All figures are in millions."},
            {"uid": f"{uid}-p1", "order": 1, "text": f"Norvane {number} sells dies and moulds."},
        ],
        "questions": [
            question(1, "span", [f"${now}.5"], "million", f"What were the sales {number} in 2019?"),
            question(2, "multi-span", ["dies", "moulds"], "", f"What does Norvane {number} sell?"),
            question(3, "count", "2", "", f"How many years of sales {number} are shown?"),
            question(4, "arithmetic", -12.5 - number, "million", f"What is the change in sales {number}?"),
            question(5, "arithmetic", -22.22, "percent", f"What is the percentage change in sales {number}?"),
        ],
    }


def page(number: int, question: int = 1) -> dict[str, Any]:
    """A record of FinQA by its authors' keys."""
    a, b = 100 + number, 400
    name = f"NRV/20{10 + number // 100}/page_{number}.pdf"
    asked = f"what share of the {b} is item {number}?" if question == 1 else f"item {number} is what part of the {b}?"
    qa = {"question": asked, "answer": f"{100 * a / b:.1f}%"}
    qa |= {"program": f"divide({a}, {b})", "exe_ans": round(a / b, 5), "gold_inds": {}, "explanation": ""}
    return {
        "pre_text": [f"norvane group reports item {number} .", "."],
        "post_text": ["it is stated in millions ."],
        "filename": name,
        "table": [["", "2019"], [f"item {number}", f"$ {a}"], ["total", f"$ {b}"]],
        "qa": qa,
        "id": f"{name}-{question}",
    }


def conversation(number: int) -> dict[str, Any]:
    """A conversation of ConvFinQA by its authors' keys, about the page of the same number."""
    record = page(number)
    a = 100 + number
    told = {"dialogue_break": [f"what was item {number}?", "and the total?", "what share is that?"]}
    told |= {"exe_ans_list": [float(a), 400.0, round(a / 400, 5)], "turn_program": [str(a), "400", f"divide({a}, 400)"]}
    kept = {key: record[key] for key in ("pre_text", "post_text", "table", "filename", "qa")}
    return kept | {"id": f"Single_{record['id']}", "annotation": told}


def program_of_thoughts(number: int) -> dict[str, Any]:
    """The same conversation as Program-of-Thoughts rewrote it."""
    told = conversation(number)
    a = 100 + number
    return {
        "id": told["id"],
        "questions": told["annotation"]["dialogue_break"],
        "programs": [f"ans = {a}", "ans = 400", f"x0 = {a} / 400; ans = x0"],
        "answer": round(a / 400, 5),
        "text": " ".join(told["pre_text"] + told["post_text"]),
        "table": "\n".join(" | ".join(cell or "-" for cell in row) for row in told["table"]),
    }


def _json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _textbook(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("id", "task", "question", "choice", "ground_truth", "figure", "fin_capability"))
        writer.writerows(rows)
    return path


def report_sources(folder: Path, count: int) -> dict[str, list[Path]]:
    """Files of every set, by set name."""
    made: dict[str, list[Path]] = {}
    numbers = {"train": range(count), "dev": range(count, count + 9), "test_gold": range(count + 9, count + 20)}
    made["tatqa"] = [_json(folder / f"tatqa_dataset_{s}.json", [*map(context, ns)]) for s, ns in numbers.items()]
    made["finqa"] = [
        _json(folder / "finqa" / f"{s.removesuffix('_gold')}.json", [page(n, q) for n in ns for q in (1, 2)])
        for s, ns in numbers.items()
    ]
    talks = {"train": numbers["train"], "dev": numbers["dev"]}
    files = [_json(folder / "convfinqa" / f"{s}.json", [*map(conversation, ns)]) for s, ns in talks.items()]
    made["convfinqa"] = made["convfinqa_own"] = files
    said = [
        f"The Committee {verb} the rate at meeting {n}." for n in range(count) for verb in ("raised", "cut", "kept")
    ]
    rows = [(n, text, 2020, (1, 0, 2)[n % 3]) for n, text in enumerate(said)]
    made["fomc"] = []
    for kind in ("combine", "split-combine"):
        for place, seed in enumerate(SEEDS):
            cut, head = len(rows) // 3, ("index", "sentence", "year", "label")
            for split, part in (("test", rows[place::3][:cut]), ("train", rows[1::2])):
                path = workbook(folder / f"lab-manual-{kind}-{split}-{seed}.xlsx", [head, *part], shared=place > 0)
                if split == "test":
                    made[f"fomc_{kind.replace('-', '_')}_{seed}"] = [path]
                if (kind, seed) == ("split-combine", SEEDS[0]):
                    made["fomc"].append(path)
    claims = [(f"we expect sales of ${n} million." if n % 4 == 0 else f"sales were ${n} million.", int(n % 4 == 0))
              for n in range(count)]  # fmt: skip
    made["numclaim"] = [
        workbook(folder / f"gold_{kind}_numclaim-{split}-5768.xlsx", [("text", "label"), *part])
        for kind, split, part in (("arpts", "train", claims[::2]), ("ec", "test", claims[1::2]))
    ]
    for split, numbers_of in (("validation", range(9)), ("test", range(9, 9 + count))):
        lines = [
            row
            for n in numbers_of
            for row in (
                (f"b{n}", "bool", f"A bond pays {n} dollars.", "", ("1.0", "0.0", "1")[n % 3], "", "TU"),
                (f"m{n}", "mcq", f"What is asset {n}?", "A. debt\nB. cash\nC. tax", "ABC"[n % 3], "", "TR: SP"),
                (f"p{n}", "mcq", f"What does figure {n} show?", "A. debt\nB. cash\nC. tax", "A", f"f{n}.png", "TU"),
                (f"c{n}", "calcu", f"What is {n} less 12.5? (Unit: dollar)", "", f"–{12.5 - n / 100:.2f}", "", "NM"),
            )
        ]
        path = _textbook(folder / f"{split}_set.csv", lines)
        for kind in ("truth", "choice", "calc"):
            made.setdefault(f"xfinbench_{kind}", []).append(path)
    return made
