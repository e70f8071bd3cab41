"""Small deliveries of reports in every format, for tests."""

import base64
import csv
import io
import json
import zipfile
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

STUDY = "1.2.826.0.1.3680043.8.498.1"


def table(rows: list[list[str]], encoding: str = "utf-8", delimiter: str = ",", end: str = "\r\n") -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=end).writerows(rows)
    return stream.getvalue().encode(encoding)


def hl7(
    *segments: str, header: str = "MSH|^~\\&|RIS|H|R|H|20200102030405||ORU^R01|1|P|2.5.1", encoding: str = "utf-8"
) -> bytes:
    """A message with this header, a patient and an order unless they are given, and these segments."""
    given = {segment[:3] for segment in segments}
    before = [] if "PID" in given else ["PID|1||P1^^^H^MR||Doe^Jane||19600101|F"]
    before += [] if "OBR" in given else ["OBR|1|A1|A1|CXR^Chest^L|||20200101||||||||||||||||||F"]
    lines = (
        [header, *before, *segments]
        if "PID" not in given or "OBR" in given
        else [header, segments[0], *before, *segments[1:]]
    )
    return "".join(f"{line}\r" for line in lines).encode(encoding)


def obx(
    *lines: str, kind: str = "TX", code: str = "18748-4^Diagnostic imaging report^LN", status: str = "F"
) -> list[str]:
    return [f"OBX|{i}|{kind}|{code}||{line}||||||{status}" for i, line in enumerate(lines, 1)]


def diagnostic(**values: Any) -> dict[str, Any]:
    """A DiagnosticReport of patient P1 and study A1, unless told otherwise; None takes a value away."""
    found = {
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "status": "final",
        "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": "A1"}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4"}]},
        "subject": {"identifier": {"value": "P1"}},
        "conclusion": "Clear.",
    } | values
    return {name: value for name, value in found.items() if value is not None}


def fhir(*resources: Any) -> bytes:
    return "\n".join(json.dumps(resource, ensure_ascii=False) for resource in resources).encode()


def form(data: bytes | str, media_type: str = "text/plain") -> dict[str, str]:
    content = data.encode() if isinstance(data, str) else data
    return {"contentType": media_type, "data": base64.b64encode(content).decode()}


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    d = Dataset()
    d.CodeValue, d.CodingSchemeDesignator, d.CodeMeaning = value, scheme, meaning
    return d


def item(kind: str, name: Dataset | None = None, *below: Dataset, relation: str = "CONTAINS", **values: Any) -> Dataset:
    """An item of a structured report."""
    d = Dataset()
    d.RelationshipType, d.ValueType = relation, kind
    if name is not None:
        d.ConceptNameCodeSequence = [name]
    for keyword, value in values.items():
        setattr(d, keyword, value)
    if below:
        d.ContentSequence = list(below)
    return d


def document(*below: Dataset, sop_class: str = "1.2.840.10008.5.1.4.1.1.88.11", **values: Any) -> bytes:
    """A structured report with these items, or another document."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = sop_class, f"{STUDY}.9"
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID = sop_class, f"{STUDY}.9"
    d.StudyInstanceUID, d.SeriesInstanceUID = STUDY, f"{STUDY}.2"
    d.AccessionNumber, d.PatientID, d.PatientName, d.Modality = "A1", "P1", "Doe^Jane", "SR"
    d.ValueType = "CONTAINER"
    d.ConceptNameCodeSequence = [code("18748-4", "Diagnostic imaging report", "LN")]
    if below:
        d.ContentSequence = list(below)
    for keyword, value in values.items():
        setattr(d, keyword, value)
    stream = io.BytesIO()
    d.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def pdf(*pages: str) -> bytes:
    """A PDF with these texts, a page each; a page without text stands for a scan."""
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for text in pages:
        shown = " T* ".join(f"({line}) Tj" for line in text.replace("(", "\\(").replace(")", "\\)").split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET".encode("latin-1") if text else b""
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects) + 2} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def workbook(*sheets: list[list[Any]]) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def parquet(rows: list[list[Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet as format_

    header, *body = rows
    stream = io.BytesIO()
    columns = {name: list(values) for name, values in zip(header, zip(*body, strict=True), strict=True)}
    format_.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


OPENI = b"""<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR1"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough &lt; 1 week</AbstractText>
<AbstractText Label="FINDINGS">Clear.</AbstractText><AbstractText Label="IMPRESSION">Normal chest.</AbstractText>
</Abstract></Article></MedlineCitation>
<parentImage id="CXR1_1_IM-0001-3001"><url>x.jpg</url></parentImage>
<parentImage id="CXR1_1_IM-0001-4001"/></eCitation>"""

CDA = b"""<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:ps3-20="urn:dicom-org:ps3-20">
<id root="1.2.3" extension="D1"/><effectiveTime value="20200102030405+0100"/><languageCode code="de-AT"/>
<setId extension="S1"/><recordTarget><patientRole><id root="1.9" extension="P1" assigningAuthorityName="H"/><patient>
<name><given>Jane</given><family>Doe</family></name><administrativeGenderCode code="F"/><birthTime value="19600101"/>
</patient></patientRole></recordTarget><inFulfillmentOf><order><id extension="A1"/></order></inFulfillmentOf>
<documentationOf><serviceEvent><id root="1.2.826.0.1.3680043.8.498.1"/>
<effectiveTime><low value="20200101"/></effectiveTime>
</serviceEvent></documentationOf><component><structuredBody><component><section><title>Befund</title>
<text><paragraph>Kein Erguss.</paragraph><table><tr><td>Herz</td><td>normal</td></tr></table></text></section>
</component><component><section><title>Beurteilung</title><text>Unauff\xc3\xa4llig.</text></section></component></structuredBody></component>
</ClinicalDocument>"""


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()
