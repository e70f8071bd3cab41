"""One delivered file read: its digest and what it holds, in one pass over its bytes. Runs on any worker.

What a file is, its bytes say; its name counts where bytes alone cannot tell. `FORMATS` is the table of readers: a new
format enters by one line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TypeAlias

from phenotype.executors import Refused
from phenotype.imaging.archives import is_tar
from phenotype.imaging.compression import compression_of, inner_name
from phenotype.imaging.dicom import is_picture, picture_size
from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.ingest.contents import DicomFile, PictureFile, Read, Records
from phenotype.ingest.contents import Ignored as IgnoredByRule
from phenotype.ingest.dicom import read_object
from phenotype.ingest.reports import fhir, files, hl7, markup, sheets
from phenotype.ingest.tables import looks_like_table, read_table

Content: TypeAlias = DicomFile | PictureFile | Records

NAMED = frozenset({"text", "pdf", "rtf"})  # whose they are, their names say


@dataclass(frozen=True)
class Delivered:
    """The bytes of a file, its name inside the delivery, and what the user has said of columns and names."""

    data: bytes
    name: str
    columns: Mapping[str, str]
    names: str

    @cached_property
    def suffix(self) -> str:
        """The end of the name, as in ".csv"."""
        return PurePosixPath(self.name).suffix.lower()

    @cached_property
    def start(self) -> bytes:
        """The first bytes without marks, framing and the zeros of UTF-16."""
        return self.data[:4096].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xfe\xff\x0b\x1c \t\r\n")[:512]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: how to know it, and its reader, which raises Ignored or Refused."""

    kind: str
    fits: Callable[[Delivered], object]
    read: Callable[[Delivered], Content | tuple[str, Content]]  # with a digest where it needs its own


def _refused(code: str, message: str) -> Callable[[Delivered], Records]:
    def read(_: Delivered) -> Records:
        raise Refused(code, message)

    return read


def _bare_dicom(file: Delivered) -> bool:
    return file.data[:2] in (b"\x02\0", b"\x08\0", b"\0\x08")


def _is_named(file: Delivered) -> bool:
    return bool(file.names) and bool(files.pattern(file.names).search(file.name))


def _zip_holds(part: bytes) -> Callable[[Delivered], bool]:
    return lambda file: file.data[:4] == b"PK\x03\x04" and part in file.data  # names stand in a zip as they are


_HL7 = re.compile(rb"(?:MSH|FHS|BHS)[^A-Za-z0-9\s]")
_SAVE = "save it in another format: .xlsx, .csv or .txt"

# in this order, DICOM first since most files are: the first that fits reads
FORMATS = (
    Format("dicom", lambda f: f.data[128:132] == b"DICM", lambda f: read_object(f.data)),
    Format("picture", lambda f: is_picture(f.data), lambda f: PictureFile(*picture_size(f.data))),
    Format("dicom", _bare_dicom, lambda f: read_object(f.data)),
    Format("pdf", lambda f: b"%PDF-" in f.data[:1024], lambda f: files.read_pdf(f.data, f.name, f.names)),
    Format("parquet", lambda f: f.data[:4] == b"PAR1", lambda f: sheets.read_parquet(f.data, f.columns)),
    Format("xlsx", _zip_holds(b"xl/workbook.xml"), lambda f: sheets.read_workbook(f.data, f.columns)),
    Format("docx", _zip_holds(b"word/document.xml"), _refused("word_save_as_txt", _SAVE)),
    Format("ods", _zip_holds(b"content.xml"), _refused("opendocument_save_as_xlsx", _SAVE)),
    Format("xls", lambda f: f.data[:4] == b"\xd0\xcf\x11\xe0", _refused("office_save_as_xlsx", _SAVE)),
    Format("rtf", lambda f: f.start[:5] == b"{\\rtf", lambda f: files.read_rtf(f.data, f.name, f.names)),
    Format("hl7", lambda f: _HL7.match(f.start), lambda f: hl7.read_hl7(f.data)),
    Format("table", lambda f: f.suffix in (".csv", ".tsv", ".tab"), lambda f: read_table(f.data, f.columns)),
    Format("text", _is_named, lambda f: files.read_text(f.data, f.name, f.names)),
    Format("fhir", lambda f: f.start[:1] in (b"{", b"["), lambda f: fhir.read_fhir(f.data)),
    Format("xml", lambda f: f.start[:5] in (b"<?xml", b"<eCit", b"<Clin"), lambda f: markup.read_xml(f.data)),
    Format("text", lambda f: files.is_accompanying(f.name), lambda f: files.read_text(f.data, f.name, f.names)),
    Format(
        "table",
        lambda f: f.suffix in files.TEXTS and looks_like_table(f.data),
        lambda f: read_table(f.data, f.columns),
    ),
    Format("text", lambda f: f.suffix in files.TEXTS, lambda f: files.read_text(f.data, f.name, f.names)),
    Format("", lambda f: is_tar(f.data[:512]), _refused("nested_archive", "it holds an archive")),
    Format("", lambda f: compression_of(f.data), _refused("nested_archive", "it is compressed more than once")),
    Format("", lambda _: True, lambda f: read_object(f.data)),
)


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """Reads a batch of files on a worker."""

    columns: Mapping[str, str]
    names: str

    def __call__(self, inputs: dict[str, FileRef]) -> dict[str, Read]:
        """What each file turned out to be, by its id."""
        return {file_id: read_file(ref, self.columns, self.names) for file_id, ref in inputs.items()}


def read_file(ref: FileRef, columns: Mapping[str, str], names: str = "") -> Read:
    """Read a delivered file. What is wrong with its content is part of the answer; that it cannot be read at all (it
    is gone, the disk fails) raises `Unreadable`, since that may be otherwise the next time.

    `columns` names columns of tables (meaning -> header), `names` is the pattern of file names for one report a file,
    as in "{patient}/{accession}.txt".
    """
    try:
        data = open_bytes(ref)
    except Unreadable as error:
        if error.code in ("missing", "unreadable_file", "bad_archive"):
            raise
        return Read("", "", None, "quarantined", error.code)
    return read_delivered(Delivered(data, inner_name(ref.member.partition("/")[2] or ref.path), columns, names))


def read_delivered(file: Delivered) -> Read:
    """What the bytes of a file hold, or why they hold nothing that is taken in."""
    kind = ""
    try:
        found = next(format_ for format_ in FORMATS if format_.fits(file))
        kind = found.kind
        content = found.read(file)
    except IgnoredByRule as rule:
        return Read(hashlib.sha256(file.data).hexdigest(), kind, None, "ignored", rule.code)
    except (Refused, Unreadable) as error:
        return Read(hashlib.sha256(file.data).hexdigest(), kind, None, "quarantined", error.code)
    if isinstance(content, tuple):
        own, content = content
        return Read(own, "dicom" if isinstance(content, DicomFile) else "sr", content)
    digest = hashlib.sha256(file.data)
    if kind in NAMED and isinstance(content, Records):  # the same words under another name are another report
        digest.update(repr([(row.accession, row.patient, row.study_uid) for row in content.rows]).encode())
    return Read(digest.hexdigest(), kind, content)
