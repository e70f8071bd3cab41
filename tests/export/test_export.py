"""Findings for other programs: FHIR as its models accept it, OMOP rows, a table and a frame; never a word of text."""

import csv
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.patient import Patient
from pydicom.sr.codedict import codes

from db.queries.reported import Coded, Reported, ReportFindings
from phenotype.export import fhir, frame, omop
from phenotype.export.write import write_fhir, write_omop, write_table
from phenotype.stage import Refused

MODELS = {"Patient": Patient, "Observation": Observation, "DiagnosticReport": DiagnosticReport}
NODULE = Coded("nodule", "Nodule", "RID3875", "", "27925004")
UPPER, LOWER = (
    Coded("upper_lobe", "Upper lobe", "", "", "45653009"),
    Coded("lower_lobe", "Lower lobe", "", "", "90572001"),
)


def finding(**told: Any) -> Reported:
    plain: dict[str, Any] = {
        "concept": NODULE, "category": "finding", "assertion": "present", "temporality": "current",
        "experiencer": "patient", "certainty": 1.0, "implied": False, "section": "findings", "start": 10, "end": 16,
        "side": "", "severity": "", "size_mm": None, "prior_size_mm": None, "count": "", "change": "", "rule": "",
        "sites": (),
    }  # fmt: skip
    return Reported(**plain | told)


def report(number: int = 1, *findings: Reported, patient: str | None = "p1") -> ReportFindings:
    day = date(2001, 2, 3) if patient else None
    read_at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return ReportFindings(f"r{number}", "s1", patient, day, "en", "run1", read_at, list(findings))


FULL = finding(
    assertion="uncertain", certainty=0.3, side="bilateral", severity="mild", size_mm=12.0, prior_size_mm=8.0, count="2",
    change="increased", sites=(UPPER, LOWER),
)  # fmt: skip
REPORTS = [
    report(1, finding(), FULL, finding(assertion="absent", severity="borderline"), finding(temporality="historical")),
    report(2, finding(experiencer="other"), finding(temporality="hypothetical")),
    report(3, patient=None),
]


def components(observation: dict[str, Any]) -> dict[str, Any]:
    return {
        c["code"].get("text") or c["code"]["coding"][0]["display"]: c.get("valueString")
        or c.get("valueQuantity", {}).get("value")
        or c["valueCodeableConcept"].get("text")
        or c["valueCodeableConcept"]["coding"][0]["display"]
        for c in observation.get("component", [])
    }


def test_resources_are_valid_fhir() -> None:
    found = [resource for r in REPORTS for resource in fhir.resources(r)]
    for resource in found:
        MODELS[resource["resourceType"]].model_validate(resource)
    kinds = [resource["resourceType"] for resource in found]
    assert (kinds.count("Observation"), kinds.count("DiagnosticReport"), kinds.count("Patient")) == (3, 3, 2)


def test_an_observation_tells_all_that_was_read() -> None:
    _, _, observation, _, whole = fhir.resources(REPORTS[0])
    assert observation["valueCodeableConcept"]["coding"][0]["display"] == "Indeterminate"
    assert observation["bodySite"]["text"] == "Upper lobe"
    assert components(observation) == {
        "Certainty of Finding": 30.0, "Finding site": "Lower lobe", "Laterality": "Right and left", "Severity": "Mild",
        "Length": 12.0, "earlier length": 8.0, "number": "2", "change since the prior examination": "increased",
    } | {"Laterality": "Bilateral"}  # fmt: skip
    offsets = {e["url"]: e for e in observation["extension"][0]["extension"]}
    assert (offsets["offset"]["valueInteger"], offsets["length"]["valueInteger"]) == (10, 6)
    systems = {c["system"]: c["code"] for c in observation["code"]["coding"]}
    assert systems == {fhir.OWN: "nodule", fhir.RADLEX: "RID3875", fhir.SNOMED: "27925004"}
    assert [r["reference"] for r in whole["result"]] == ["Observation/r1-1", "Observation/r1-2", "Observation/r1-3"]
    assert whole["effectiveDateTime"] == "2001-02-03"


def test_snomed_codes_are_those_that_dicom_may_use() -> None:
    free = {getattr(codes.SCT, name).value for name in codes.SCT.dir()}
    used = {*fhir._PRESENCE.values(), fhir._UNCERTAIN, *fhir._SIDES.values(), *fhir._SEVERITIES.values()}
    used |= {fhir._LATERALITY, fhir._SEVERITY, fhir._SITE, fhir._LENGTH}
    assert {code for code, _ in used} <= free


def test_fhir_files(tmp_path: Path) -> None:
    assert write_fhir(REPORTS, tmp_path / "fhir") == 3
    lines = {p.name: p.read_text().splitlines() for p in (tmp_path / "fhir").iterdir()}
    assert {name: len(own) for name, own in lines.items()} == {
        "Patient.ndjson": 1, "Observation.ndjson": 3, "DiagnosticReport.ndjson": 3,
    }  # fmt: skip
    known = {f"{r['resourceType']}/{r['id']}" for own in lines.values() for r in map(json.loads, own)}
    assert len(known) == 7
    for line in lines["DiagnosticReport.ndjson"]:
        assert {r["reference"] for r in json.loads(line).get("result", [])} <= known
    with pytest.raises(Refused, match="there already"):
        write_fhir(REPORTS, tmp_path / "fhir")


def test_omop_rows(tmp_path: Path) -> None:
    assert write_omop(REPORTS, tmp_path / "omop") == 6
    with (tmp_path / "omop" / "note_nlp.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(omop.NOTE_NLP)
    assert [r["note_nlp_id"] for r in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [r["note_id"] for r in rows] == ["1", "1", "1", "1", "2", "2"]
    assert [r["term_exists"] for r in rows] == ["Y", "N", "N", "N", "N", "N"]
    assert [r["term_temporal"] for r in rows][3:] == ["past", "present", "hypothetical"]
    assert {r["snippet"] for r in rows} == {""}
    told = dict(pair.split("=") for pair in rows[1]["term_modifiers"].split(";"))
    assert told["certainty"] == "0.3" and told["site"] == "upper_lobe,lower_lobe" and told["prior_size_mm"] == "8"
    with (tmp_path / "omop" / "note.csv").open(newline="") as file:
        notes = list(csv.DictReader(file))
    assert list(notes[0]) == list(omop.NOTE)
    assert [(n["person_id"], n["note_source_value"], n["note_text"]) for n in notes] == [
        ("1", "r1", ""), ("1", "r2", ""), ("", "r3", ""),
    ]  # fmt: skip


def test_a_table_and_a_frame_say_the_same(tmp_path: Path) -> None:
    out = tmp_path / "findings.csv"
    assert write_table(REPORTS, out) == 6
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = frame.frame(REPORTS)
    assert list(rows[0]) == list(table.columns) == list(frame.COLUMNS)
    assert [r["sites"] for r in rows] == list(table["sites"])
    assert table["size_mm"].dtype == "float64" and table["concept"].dtype == "category"
    assert table["day"].dtype.kind == "M"
    grown = table[(table.size_mm > table.prior_size_mm)]
    assert list(grown.index) == [1]
    assert frame.frame([]).empty
    with pytest.raises(Refused, match="there already"):
        write_table(REPORTS, out)


def test_a_cell_that_a_spreadsheet_would_run_is_quoted(tmp_path: Path) -> None:
    write_table([report(1, finding(rule="=1+1"))], tmp_path / "x.csv")
    assert ",'=1+1," in (tmp_path / "x.csv").read_text()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield REPORTS[0]
        raise OSError(28, "No space left on device")

    for write in (write_fhir, write_omop, write_table):
        with pytest.raises(Refused, match="cannot be written"):
            write(broken(), tmp_path / "out")
        assert not (tmp_path / "out").exists()
