"""Reports as DICOM objects: structured reports of any template, PDF and CDA in an envelope."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from report_maker import CDA, STUDY, code, document, item, pdf

from phenotype.imaging import encoding
from phenotype.imaging.files import Unreadable
from phenotype.ingest.contents import Ignored, Record
from phenotype.ingest.reports.documents import CLASSES, read_document

FINDING, FINDINGS = code("121071", "Finding"), code("121070", "Findings")
IMPRESSION, IMPRESSIONS = code("121073", "Impression"), code("121072", "Impressions")
PDF, LETTER = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.104.2"


def read(data: bytes, name: str = "BasicTextSRStorage") -> Record:
    (row,) = read_document(name, encoding.layout(data)).rows
    return row


def text(*items: Dataset) -> str:
    row = read(document(*items))
    assert not row.refusal
    return row.text


def words(value: str, name: Dataset = FINDING, *below: Dataset, **options: str) -> Dataset:
    return item("TEXT", name, *below, TextValue=value, **options)


def coded(name: Dataset, meaning: str, *below: Dataset, **options: str) -> Dataset:
    return item("CODE", name, *below, ConceptCodeSequence=[code("1", meaning)], **options)


def measured(name: Dataset, value: str, unit: str = "mm", *below: Dataset) -> Dataset:
    d = Dataset()
    d.NumericValue, d.MeasurementUnitsCodeSequence = value, [code(unit, "unit", "UCUM")]
    return item("NUM", name, *below, MeasuredValueSequence=[d])


def reference(study: str, instance: str) -> Dataset:
    sop, series, found = Dataset(), Dataset(), Dataset()
    sop.ReferencedSOPInstanceUID, series.ReferencedSOPSequence = instance, [sop]
    found.StudyInstanceUID, found.ReferencedSeriesSequence = study, [series]
    return found


def test_one_text_is_just_that():
    assert text(words("FINDINGS: Clear.\r\nDry.")) == "FINDINGS: Clear.\nDry."
    assert text(item("CONTAINER", FINDINGS, words("Clear."))) == "Clear."


def test_sections_in_reading_order():
    sections = [
        item("CONTAINER", code("121060", "History"), words("Cough.", code("121060", "History"))),
        item("CONTAINER", FINDINGS, words("Clear."), words("No effusion.")),
        item("CONTAINER", IMPRESSIONS, words("Normal.", IMPRESSION)),
    ]
    assert text(*sections) == "HISTORY: Cough.\nFINDINGS: Clear.\nNo effusion.\nIMPRESSION: Normal."
    assert text(words("Clear."), words("Normal.", IMPRESSION)) == "FINDINGS: Clear.\nIMPRESSION: Normal."


def test_codes_numbers_and_dates():
    side = coded(code("272741003", "Laterality"), "Left", relation="HAS CONCEPT MOD")
    nodule = coded(
        FINDING, "Nodule", side, measured(code("1", "Diameter"), "8.5"), measured(code("2", "Count"), "2", "1")
    )
    when = item("DATE", code("3", "Compared with"), Date="20190203")
    then = item("DATETIME", code("4", "Told at"), DateTime="20200102030405")
    score = measured(code("5", "Score"), "3", "{score}")
    assert text(item("CONTAINER", FINDINGS, nodule, when, then, score)).split("\n") == [
        "Findings: Nodule (Left)", "Diameter: 8.5 mm", "Count: 2", "Compared with: 2019-02-03",
        "Told at: 2020-01-02 03:04:05", "Score: 3",
    ]  # fmt: skip


def test_who_observed_and_what_points_elsewhere_is_left_out():
    observer = item(
        "PNAME", code("121008", "Person Observer Name"), PersonName="Secret^Doctor", relation="HAS OBS CONTEXT"
    )
    reader = item("PNAME", code("121008", "Read by"), PersonName="Secret^Doctor")
    uid = item("UIDREF", code("121012", "Device"), UID="1.2.3", relation="HAS OBS CONTEXT")
    picture = item("IMAGE", None, relation="INFERRED FROM", ReferencedSOPSequence=[])
    again = item("", None, relation="INFERRED FROM", ReferencedContentItemIdentifier=[1, 1])
    again.ValueType = None
    context = words("Protocol", code("9", "Acquisition"), relation="HAS ACQ CONTEXT")
    assert text(observer, reader, uid, context, words("Clear.", FINDING, picture, again)) == "Clear."


def test_language():
    language = item(
        "CODE", code("121049", "Language"), relation="HAS CONCEPT MOD", ConceptCodeSequence=[code("de-AT", "German")]
    )
    row = read(document(language, words("Kein Erguss.")))
    assert (row.language, row.text) == ("de-at", "Kein Erguss.")


def test_where_the_values_stand():
    row = read(
        document(
            words("Clear."), ContentDate="20200102", ContentTime="030405", PatientBirthDate="19600101", PatientSex="F",
            StudyDate="20200101", IssuerOfPatientID="H", CompletionFlag="COMPLETE", VerificationFlag="VERIFIED",
        )
    )  # fmt: skip
    assert row == Record(
        1, accession="A1", study_uid=STUDY, patient="P1", issuer="H", name="Doe^Jane", birth="19600101", sex="F",
        age_years=60.0,
        date="2020-01-01", text="Clear.", key=f"{STUDY}.9", status="final", issued="2020-01-02T03:04:05",
    )  # fmt: skip


def test_requests_evidence_and_predecessors():
    request = Dataset()
    request.AccessionNumber = "A5"
    row = read(
        document(
            words("Clear."), AccessionNumber="", ReferencedRequestSequence=[request], PreliminaryFlag="FINAL",
            CurrentRequestedProcedureEvidenceSequence=[reference(f"{STUDY}.7", "1.2")],
            PredecessorDocumentsSequence=[reference(STUDY, f"{STUDY}.8")],
        )
    )  # fmt: skip
    assert (row.accession, row.study_uid, row.key, row.status) == ("A5", f"{STUDY}.7", f"{STUDY}.8", "corrected")


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ({"PreliminaryFlag": "PRELIMINARY", "VerificationFlag": "VERIFIED"}, "preliminary"),
        ({"PreliminaryFlag": "FINAL"}, "final"),
        ({"CompletionFlag": "PARTIAL", "VerificationFlag": "UNVERIFIED"}, "preliminary"),
        ({"VerificationFlag": "VERIFIED"}, "final"),
        ({"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED"}, ""), ({}, ""),
    ],
)  # fmt: skip
def test_statuses(flags, status):
    assert read(document(words("Clear."), **flags)).status == status


def test_charsets():
    for charset, value in (
        ("ISO_IR 100", "Größe"),
        ("ISO_IR 192", "肺野"),
        ("ISO_IR 144", "Лёгкие"),
        (["", "ISO 2022 IR 87"], "肺野は清"),
    ):
        assert read(document(words(value), SpecificCharacterSet=charset)).text == value


def test_reports_without_text_or_key():
    assert read(document()).refusal == "no_text"
    bare = read(document(words("Clear."), AccessionNumber="", StudyInstanceUID=""))
    assert bare.refusal == "no_key"
    deep = words("Clear.")
    for _ in range(45):
        deep = item("CONTAINER", FINDINGS, deep)
    assert read(document(deep)).refusal == "bad_structure"


def test_what_is_no_report():
    for name in ("XRayRadiationDoseSRStorage", "KeyObjectSelectionDocumentStorage", "ChestCADSRStorage"):
        assert name in CLASSES
        with pytest.raises(Ignored) as ignored:
            read(document(words("x")), name)
        assert ignored.value.code == f"not_a_report:{name}"
    with pytest.raises(Ignored) as ignored:
        read(
            document(words("x"), ConceptNameCodeSequence=[code("113701", "X-Ray Radiation Dose Report")]),
            "EnhancedSRStorage",
        )
    assert ignored.value.code == "not_a_report:dose"


def test_enveloped_pdf():
    data = pdf("Clear chest.\nNo effusion.")
    sealed = {"sop_class": PDF, "MIMETypeOfEncapsulatedDocument": "application/pdf"}
    row = read(document(**sealed, EncapsulatedDocument=data + b"\0" * (len(data) % 2)), "EncapsulatedPDFStorage")
    assert (row.text, row.accession, row.refusal) == ("Clear chest.\nNo effusion.", "A1", "")
    assert (
        read(document(**sealed, EncapsulatedDocument=pdf("", "")), "EncapsulatedPDFStorage").refusal == "no_text_layer"
    )
    assert read(document(**sealed, EncapsulatedDocument=data[:200]), "EncapsulatedPDFStorage").refusal == "bad_pdf"
    assert read(document(**sealed), "EncapsulatedPDFStorage").refusal == "missing_tag:EncapsulatedDocument"


def test_enveloped_cda():
    data = CDA + b" " * (len(CDA) % 2)
    row = read(
        document(sop_class=LETTER, EncapsulatedDocument=data, MIMETypeOfEncapsulatedDocument="text/XML"),
        "EncapsulatedCDAStorage",
    )
    assert row.text == "BEFUND: Kein Erguss.\nHerz normal\nBEURTEILUNG: Unauffällig."
    assert (row.language, row.key, row.refusal) == ("de-at", f"{STUDY}.9", "")
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><ClinicalDocument>&b;</ClinicalDocument> '
    sealed = document(sop_class=LETTER, EncapsulatedDocument=bomb, MIMETypeOfEncapsulatedDocument="text/XML")
    assert read(sealed, "EncapsulatedCDAStorage").refusal == "bad_xml"


def test_values_agree_with_the_oracle():
    """pydicom's own reading of the tree, item after item."""
    from io import BytesIO

    import pydicom

    sections = [item("CONTAINER", code(str(i), f"Part {i}"), words(f"text {i}"), words(f"more {i}")) for i in range(12)]
    data = document(*sections)
    tree = pydicom.dcmread(BytesIO(data)).ContentSequence
    said = [leaf.TextValue for section in tree for leaf in section.ContentSequence]
    assert [line.rpartition(": ")[2] for line in read(data).text.split("\n")] == said
    assert Code("121071", "DCM", "Finding").meaning == FINDING.CodeMeaning


def test_real_reports(shared_data):
    found = []
    for path in sorted((shared_data / "dicom").rglob("*.dcm")):
        try:
            where = encoding.layout(path.read_bytes())
            if where.sop_class == "1.2.840.10008.5.1.4.1.1.88.11":
                found += read_document("BasicTextSRStorage", where).rows
        except Unreadable:
            continue
    assert len(found) == 2 and not any(row.refusal for row in found)
    assert any("quamous cell carcinoma, relatively superficial" in row.text for row in found)
