"""FHIR reports: resources, bundles, bulk exports, R4 and R5."""

import json
from datetime import UTC, datetime

import pytest
from fhir.resources.diagnosticreport import DiagnosticReport as R5
from fhir.resources.R4B.diagnosticreport import DiagnosticReport as R4
from report_maker import STUDY, diagnostic, fhir, form, pdf

from phenotype.ingest.contents import Ignored, Record
from phenotype.ingest.reports.fhir import read_fhir
from phenotype.stage import Refused

UID = {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}
PATIENT = {
    "resourceType": "Patient", "id": "77", "name": [{"family": "Doe", "given": ["Jane", "M"]}],
    "birthDate": "1960-01-01",
    "gender": "female",
    "identifier": [{"value": "SSN"}, {"type": {"coding": [{"code": "MR"}]}, "system": "urn:h", "value": "P1"}],
}  # fmt: skip
IMAGING = {
    "resourceType": "ImagingStudy", "id": "i1", "started": "2020-01-01T10:00:00Z", "modality": [{"code": "CT"}],
    "identifier": [UID, {"type": {"coding": [{"code": "ACSN"}]}, "value": "A7"}],
}  # fmt: skip
ORDER = {"resourceType": "ServiceRequest", "id": "s1", "identifier": [{"value": "A8"}]}


def one(*resources, **values) -> Record:
    (row,) = read_fhir(fhir(diagnostic(**values), *resources)).rows
    return row


def code(data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        read_fhir(data)
    return refused.value.code


def test_where_the_values_stand():
    row = one(
        PATIENT, IMAGING, identifier=[{"value": "R9"}], subject={"reference": "Patient/77"}, language="de-AT",
        imagingStudy=[{"reference": "ImagingStudy/i1"}], issued="2020-01-02T03:04:05+01:00", status="amended",
    )  # fmt: skip
    assert row == Record(
        1, accession="A7", study_uid=STUDY, patient="P1", issuer="urn:h", name="Doe^Jane M", birth="1960-01-01",
        sex="F",
        date="2020-01-01", modality="CT", text="Clear.", key="R9", status="corrected", issued="2020-01-02T03:04:05",
        language="de-at",
    )  # fmt: skip


def test_r5_names_the_study_otherwise():
    r4, r5 = (
        one(IMAGING, identifier=None, **{name: [{"reference": "ImagingStudy/i1"}]})
        for name in ("imagingStudy", "study")
    )
    assert r4 == r5 and (r5.accession, r5.study_uid) == ("A7", STUDY)


@pytest.mark.parametrize(
    ("values", "accession"),
    [
        ({"identifier": [{"system": "urn:x/AccessionNumber", "value": "A2"}]}, "A2"),
        ({"identifier": [{"value": "R1"}, {"type": {"coding": [{"code": "ACSN"}]}, "value": "A3"}]}, "A3"),
        ({"identifier": [{"value": "R1"}], "basedOn": [{"reference": "ServiceRequest/s1"}]}, "A8"),
        ({"identifier": None, "basedOn": [{"identifier": {"value": "A4"}}]}, "A4"),
        ({"identifier": None, "basedOn": [{"reference": "#c"}], "contained": [{**ORDER, "id": "c"}]}, "A8"),
        ({"identifier": [{"value": "R1"}]}, "R1"),
        ({"identifier": {"value": "R1"}}, "R1"),
        ({"identifier": [{"value": 17}]}, "17"),
        ({"identifier": None, "study": [{"identifier": UID}]}, ""),
        ({"identifier": None}, None),
        ({"identifier": "A1"}, None),
    ],
)
def test_the_accession_number(values, accession):
    row = one(ORDER, **values)
    assert (row.accession, row.refusal) == (accession or "", "no_key" if accession is None else "")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("registered", "preliminary"), ("partial", "preliminary"), ("preliminary", "preliminary"), ("final", "final"),
        ("amended", "corrected"), ("corrected", "corrected"), ("appended", "addendum"), ("cancelled", "cancelled"),
        ("entered-in-error", "cancelled"), ("unknown", ""), (None, ""), (7, ""),
    ],
)  # fmt: skip
def test_statuses(said, status):
    assert one(status=said).status == status


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"conclusion": " Clear.\r\nDry. "}, "Clear.\nDry."),
        ({"presentedForm": [form("Findings: Clear.")]}, "Findings: Clear."),
        ({"presentedForm": [form("Lungs dry.")]}, "Lungs dry.\nIMPRESSION: Clear."),
        ({"conclusion": None, "presentedForm": [form("Größe")]}, "Größe"),
        (
            {"conclusion": None, "presentedForm": [form("Größe".encode("latin-1"), "text/plain; charset=ISO-8859-1")]},
            "Größe",
        ),
        ({"conclusion": None, "presentedForm": [form("Größe".encode("utf-16"), "text/plain;charset=utf-16")]}, "Größe"),
        ({"conclusion": None, "presentedForm": [form("Größe".encode(), "text/plain; charset=nonsense")]}, "Größe"),
        ({"conclusion": None, "presentedForm": [form("<div><p>a &lt; b</p><p>c</p></div>", "text/html")]}, "a < b\nc"),
        ({"conclusion": None, "presentedForm": [form(pdf("Clear chest."), "application/pdf")]}, "Clear chest."),
        ({"conclusion": None, "presentedForm": [form(pdf("as PDF"), "application/pdf"), form("as text")]}, "as text"),
        ({"conclusion": None, "presentedForm": form("no list")}, "no list"),
        ({"conclusion": None, "text": {"div": "<div><h1>Chest</h1>Clear.<br/>Dry.</div>"}}, "Chest\nClear.\nDry."),
        ({"presentedForm": [{"url": "http://x/y", "contentType": "application/pdf"}]}, "Clear."),
        ({"conclusion": "a\u0000b\ud800c"}, "abc"),
    ],
)
def test_texts(values, text):
    found = one(
        **{
            name: value
            for name, value in values.items()
            if name != "conclusion" or value is None or "\ud800" not in value
        }
    )
    if "\ud800" in str(values.get("conclusion")):  # as JSON can write what is no character
        found = read_fhir(json.dumps(diagnostic(**values)).encode()).rows[0]
    assert (found.text, found.refusal) == (text, "")


@pytest.mark.parametrize(
    ("forms", "reason"),
    [
        ([{"url": "http://x/y", "contentType": "application/pdf"}], "url_only"),
        ([form("{\\rtf1}", "text/rtf")], "no_text"),
        ([form(pdf(""), "application/pdf")], "no_text_layer"), ([{"data": "%%%"}], "bad_base64"),
        ([form(b"x", "image/png")], "media_type"),
        ([form(b"x", "application/pdf")], "bad_pdf"), ([{}], "no_text"), (None, "no_text"),
        ([None, 1, "x"], "no_text"), ([form("")], "no_text"),
        ([form(b"\1" * 100)], "not_text"),
    ],
)  # fmt: skip
def test_reports_without_text(forms, reason):
    row = one(conclusion=None, presentedForm=forms)
    assert (row.refusal, row.accession, row.text) == (reason, "A1", "")


def test_a_logical_id_is_no_record_number():
    assert one(subject={"reference": "Patient/77"}).patient == ""
    assert one(PATIENT, subject={"reference": "https://x/fhir/Patient/77"}).patient == "P1"


def test_bundles():
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": PATIENT},
        {"fullUrl": "urn:uuid:2", "resource": IMAGING},
        {"resource": diagnostic(subject={"reference": "urn:uuid:1"}, imagingStudy=[{"reference": "urn:uuid:2"}])},
        {"resource": diagnostic(identifier=None)},
        {"resource": None},
        {"resource": {"resourceType": "Bundle", "entry": [{"resource": diagnostic(conclusion="nested")}]}},
    ]
    records = read_fhir(json.dumps({"resourceType": "Bundle", "entry": entries}, indent=1).encode())
    assert [(r.number, r.text, r.patient, r.refusal) for r in records.rows] == [
        (1, "Clear.", "P1", ""),
        (2, "Clear.", "P1", "no_key"),
        (3, "nested", "P1", ""),
    ]
    assert records.rows[0].study_uid == STUDY and records.told == "fhir, 2 other resources, 3 records, 1 no_key"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_encodings_and_line_ends(encoding, end):
    lines = [json.dumps(diagnostic(conclusion="Größe, Erguß"), ensure_ascii=False)] * 2
    rows = read_fhir((end.join(lines) + end).encode(encoding)).rows
    assert [r.text for r in rows] == ["Größe, Erguß"] * 2


def test_one_bad_line_spoils_no_other():
    good = fhir(diagnostic())
    deep = b'{"resourceType":"DiagnosticReport","x":' + b"[" * 200_000
    records = read_fhir(b"\n".join([good, b"{broken", good, b'"text"', deep, b'{"a": 1}', b"1" * 5000, good]))
    assert [(r.number, r.refusal) for r in records.rows] == [
        (1, ""), (2, "bad_json"), (3, ""), (4, "bad_json"), (5, "bad_json"), (6, "bad_json"), (7, ""),
    ]  # fmt: skip
    assert "A1" not in records.told and "P1" not in records.told


def test_other_files():
    with pytest.raises(Ignored) as ignored:
        read_fhir(fhir(PATIENT, PATIENT))
    assert ignored.value.code == "not_a_report:Patient"
    with pytest.raises(Ignored) as ignored:
        read_fhir(fhir({"resourceType": "JaneDoe"}))
    assert ignored.value.code == "not_a_report:other"
    assert code(b"{}") == code(b"[1, 2]") == code(b'{"a": {"resourceType": "DiagnosticReport"}}') == "unknown_json"
    assert code(b'{"resourceType": ') == code(b"[" * 100_000) == code(b"{" * 100_000) == "bad_json"


def test_values_agree_with_the_oracle():
    """What fhir.resources accepts is read with the same values, R4 (as R4B) and R5."""
    common = {
        "issued": "2020-01-02T03:04:05+00:00",
        "effectiveDateTime": "2020-01-01",
        "presentedForm": [form("Lungs clear.")],
    }
    for model, name in ((R4, "imagingStudy"), (R5, "study")):
        resource = diagnostic(**common, **{name: [{"identifier": UID}]})
        read, row = model.model_validate(resource), one(**common, **{name: [{"identifier": UID}]})
        assert row.status == read.status and row.accession == read.identifier[0].value
        assert row.patient == read.subject.identifier.value and row.text.endswith(read.conclusion)
        assert (
            row.date == read.effectiveDateTime.isoformat()[:10]
            and row.issued == read.issued.astimezone(UTC).isoformat()[:19]
        )
        assert datetime.fromisoformat(row.issued) and getattr(read, name)[0].identifier.value.endswith(row.study_uid)
