"""What the user gave: a file, a folder or a zip -> documents, with the files that lie beside them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from finbench.core import zips
from finbench.core.errors import FinbenchError
from finbench.data.xbrl.parsing import HINT, MAX_BYTES, XBRLI, events, kind, local, refuse, refuse_declarations, root_of

MAX_UNPACKED = 4 * MAX_BYTES  # of a whole zip
MAX_RATIO = 300  # of a member of more than a mebibyte; markup packs 10 to 40 times, a bomb a thousand times
_DOCUMENTS = (".xml", ".xbrl", ".htm", ".html", ".xhtml")
_NEVER = re.compile(r"(?:.*_(?:lab|cal|def|pre)\.xml|R\d+\.(?:htm|xml)|FilingSummary\.xml)", re.IGNORECASE)
_DATED = ("filing_metadata.txt", "-index-headers.html", ".hdr.sgml")  # files that state when a filing was filed
_FILED = re.compile(
    rb"(?:filing date|filed as of date|<ACCEPTANCE-DATETIME>|<FILING-DATE>)\W{0,20}(\d{4})-?(\d\d)-?(\d\d)", re.I
)
_SCHEMA = re.compile(rb"<(?:[\w.-]{1,40}:)?schemaRef\b[^<>]{0,2000}?\bhref\s*=\s*[\"']([^\"'<>]{1,300})[\"']")
_IN_NAME = re.compile(r"(?<!\d)(\d{4})-(\d\d)-(\d\d)(?!\d)")

Files = dict[str, Callable[[], bytes]]  # file name -> its content


@dataclass(frozen=True)
class FilingFile:
    """One instance or inline document. ``beside`` has every file of its folder, itself among them."""

    name: str  # for messages: the path as given, and the member
    file: str
    data: bytes
    kind: str
    beside: Files
    more: tuple[tuple[str, bytes], ...] = ()  # file and content of the other documents of a set

    def stated_date(self) -> str:
        """The filing date (ISO) that a file beside this one states, else the one in this file's name, else ""."""
        for name in sorted(self.beside):
            if name.lower().endswith(_DATED) and (found := _FILED.search(self.beside[name]()[:100_000])):
                return "-".join(part.decode() for part in found.groups())
        dated = _IN_NAME.search(self.file)
        return "-".join(dated.groups()) if dated else ""


def documents(path: Path) -> Iterator[FilingFile]:
    """The filings in ``path``. Raises FinbenchError, file and reason named, if there is none."""
    try:
        if path.is_dir():
            yield from _of_folder(path)
        elif not path.is_file():
            raise FinbenchError(f"No such file: {path}", HINT)
        elif zipfile.is_zipfile(path):
            yield from _of_zip(path)
        else:
            data = _read(path)
            yield FilingFile(str(path), path.name, data, _kind_of_file(str(path), data), _files_in(path.parent))
    except OSError as fault:
        raise FinbenchError(f"{path}: cannot be read ({fault.strerror or fault}).", HINT) from fault


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise refuse(str(path), f"larger than {MAX_BYTES >> 20} MiB")
    return path.read_bytes()


def _files_in(folder: Path) -> Files:
    return {item.name: partial(_read, item) for item in sorted(folder.iterdir()) if item.is_file()}


def _kind_of_file(name: str, data: bytes) -> str:
    found = kind(data)
    if found in ("instance", "inline"):
        return found
    if not data.strip():
        raise refuse(name, "the file is empty")
    refuse_declarations(name, data)
    root = root_of(data)
    if root is None:
        root = next(element for event, element in events(name, data))  # raises if it is no XML
    what = f"it is an XBRL {found}, not the instance" if found else f"not XBRL: its root is <{local(root)[:40]}>"
    raise refuse(name, what)


def _of_folder(path: Path) -> Iterator[FilingFile]:
    """The documents directly in a folder, else those in its direct subfolders."""
    found = False
    for folder in (path, *sorted(item for item in path.iterdir() if item.is_dir())):
        for document in _of_files(str(folder), _files_in(folder)):
            found = True
            yield document
        if found and folder == path:
            return
    if not found:
        raise refuse(str(path), "no XBRL instance and no inline XBRL document in this folder")


def _of_files(where: str, files: Files) -> Iterator[FilingFile]:
    """The instances among ``files``, and the inline documents that no instance was extracted from."""
    instances: list[FilingFile] = []
    pages: list[FilingFile] = []
    for name, read in files.items():
        if name.lower().endswith(_DOCUMENTS) and not _NEVER.fullmatch(name):
            data = read()
            if XBRLI.encode() in data:
                refuse_declarations(f"{where}/{name}", data)
            if (what := kind(data)) in ("instance", "inline"):
                found = instances if what == "instance" else pages
                found.append(FilingFile(f"{where}/{name}", name, data, what, files))
    yield from instances
    extracted = {document.file for document in instances}
    for first, *others in _sets(pages):
        if not extracted & {f"{PurePosixPath(document.file).stem}_htm.xml" for document in (first, *others)}:
            yield replace(first, more=tuple((document.file, document.data) for document in others))


def _sets(found: list[FilingFile]) -> list[list[FilingFile]]:
    """Inline documents of one filing together: they name one schema of their own, or (but the first) none at all."""
    sets: dict[tuple[bytes, ...], list[FilingFile]] = {}
    for document in found:
        schemas = tuple(dict.fromkeys(_SCHEMA.findall(document.data)))
        own = not any(b"://" in schema for schema in schemas)
        sets.setdefault(schemas if own else (document.file.encode(),), []).append(document)
    loose = sets.pop((), [])
    if len(sets) == 1:
        next(iter(sets.values())).extend(loose)
        loose = []
    return [*sets.values(), *([document] for document in loose)]


def _of_zip(path: Path) -> Iterator[FilingFile]:
    try:
        archive = zips.opened(path)  # it stays open as long as one of its documents is in use
        folders: dict[str, Files] = {}
        for member in _members(path, archive):
            place = PurePosixPath(member.filename)
            folders.setdefault(str(place.parent), {})[place.name] = partial(_read_member, path, archive, member)
        found = [
            document
            for folder, files in sorted(folders.items())
            for document in _of_files(str(path) if folder == "." else f"{path}/{folder}", files)
        ]
    except zips.TORN as fault:
        raise refuse(str(path), f"not a zip file that can be read ({fault})") from fault
    if not found:
        raise refuse(str(path), "no XBRL instance and no inline XBRL document in this zip")
    yield from found


def _members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a zip, once all of them are known to be harmless."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > zips.MEMBERS:
        raise refuse(str(path), f"more than {zips.MEMBERS:,} files in the zip")
    unpacked = sum(member.file_size for member in members)
    # each may state the same bytes of the file
    if unpacked > MAX_UNPACKED or unpacked > max(2**20, MAX_RATIO * path.stat().st_size):
        raise refuse(str(path), f"a zip bomb: it would unpack to {unpacked >> 20:,} MiB")
    for member in members:
        name = member.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
            raise refuse(str(path), f"its member {name[:80]!r} points outside the zip")
        if member.flag_bits & 1:
            raise refuse(str(path), f"its member {name[:80]!r} is encrypted")
        if member.file_size > 2**20 and member.file_size > MAX_RATIO * max(member.compress_size, 1):
            raise refuse(str(path), f"a zip bomb: {name[:80]!r} unpacks to {member.file_size >> 20} MiB")
    return members


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MAX_BYTES:
        raise refuse(f"{path}/{member.filename}", f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return archive.read(member)
    except zips.TORN as fault:
        raise refuse(f"{path}/{member.filename}", f"the zip is torn ({fault})") from fault
