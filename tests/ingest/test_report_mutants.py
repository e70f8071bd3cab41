"""Damaged reports of every format: each ends as records or as a reason, and none takes long."""

import random
import time

import pytest
from report_maker import (
    CDA,
    OPENI,
    code,
    diagnostic,
    document,
    fhir,
    form,
    hl7,
    item,
    obx,
    parquet,
    pdf,
    table,
    workbook,
)

from phenotype.ingest.contents import Records
from phenotype.ingest.reading import Delivered, read_delivered
from phenotype.ingest.reports.text import MAX_TEXT

SEED, MUTANTS = 20240817, 60
RIS = [["accession_number", "patient_id", "report_text"], ["A1", "P1", "Größe normal,\nclear"], ["A2", "P2", "x"]]
RTF = rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\uc1 Gr\'f6\'dfe normal.\par \u916?T {\b x}}"
BUNDLE = {
    "resourceType": "Bundle",
    "entry": [
        {"fullUrl": "urn:x", "resource": diagnostic(presentedForm=[form("Clear."), form("<p>x</p>", "text/html")])},
        {"resource": {"resourceType": "Patient", "id": "1", "identifier": [{"value": "P1"}]}},
    ],
}
SEEDS = {
    "r.csv": table(RIS),
    "wide.csv": table(RIS, "utf-16"),
    "r.hl7": hl7(*obx("FINDINGS: \\.br\\a \\T\\ b~c \\X41\\", "d"), "NTE|1||x"),
    "pdf.hl7": hl7(f"OBX|1|ED|x||^TEXT^PLAIN^Base64^{form('Clear')['data']}||||||F"),
    "r.json": fhir(BUNDLE),
    "r.ndjson": fhir(*(diagnostic(id=str(i)) for i in range(4))),
    "openi.xml": OPENI,
    "cda.xml": CDA,
    "A1.pdf": pdf("Clear chest", "Page two"),
    "A1.rtf": RTF,
    "A1.txt": "Größe normal".encode(),
    "r.xlsx": workbook(RIS),
    "r.parquet": parquet(RIS),
    "sr.dcm": document(
        item("TEXT", code("121071", "Finding"), TextValue="Clear"),
        item("CONTAINER", code("121070", "Findings"), item("DATE", code("1", "Seen"), Date="20200101")),
    ),
}
PIECES = (
    b"null",
    b"true",
    b"1e99",
    b"[[[[",
    b"{{{{",
    b'"\\ud800"',
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\\bin9 ",
    b"|^~\\&",
)


def mutant(data: bytes, source: random.Random) -> bytes:
    damaged, kind = bytearray(data), source.randrange(6)
    for _ in range(source.choice((1, 1, 2, 5, 20))):
        at = source.randrange(len(damaged)) if damaged else 0
        if kind == 0:
            damaged[at : at + 1] = bytes([source.randrange(256)])
        elif kind == 1:
            del damaged[at : at + source.randrange(1, 20)]
        elif kind == 2:
            damaged[at:at] = bytes(source.choices(b'|^~\\&\r\n"{}[],:<>\0\xff', k=source.randrange(1, 5)))
        elif kind == 3:
            again = source.randrange(len(damaged)) if damaged else 0
            damaged[at:at] = damaged[again : again + source.randrange(1, 80)]
        elif kind == 4:
            del damaged[at : len(damaged) if source.random() < 0.3 else at + 1]
        else:
            damaged[at : at + 4] = source.choice(PIECES)
    return bytes(damaged)


@pytest.mark.parametrize("name", SEEDS)
def test_mutants(name):
    outcomes = set()
    for number in range(MUTANTS):
        data = mutant(SEEDS[name], random.Random(f"{SEED}/{name}/{number}"))
        try:
            found = read_delivered(Delivered(data, name, {}, ""))
        except Exception:
            print(f"seed {SEED}, mutant {number} of {name}")
            raise
        assert (found.content is not None) == (found.state == "ingested") and (
            found.content is not None or found.reason
        )
        if isinstance(found.content, Records):
            for row in found.content.rows:
                values = f"{row.accession}{row.patient}{row.name}{row.key}{row.text}"
                assert "\0" not in values and values.encode() is not None  # what a database takes
        outcomes.add(found.state)
    sound = read_delivered(Delivered(SEEDS[name], name, {}, "")).content
    assert isinstance(sound, Records) and not any(
        row.refusal for row in sound.rows
    )  # the control: unharmed, it is read
    assert name == "A1.txt" or outcomes != {"ingested"} or name.endswith((".hl7", ".rtf"))


HEAD = "MSH|^~\\&|R|H|R|H|2020||ORU^R01|1|P|2.5\rPID|1||P1\rOBR|1|A|A\r"
HTML = ("<", "<a ", "<!--", "<![a", "</", "&#", "<script></scrip", "<div>", "&#1" + "1" * 40)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(
            ("x.hl7", f"{HEAD}OBX|1|TX|x||{piece * 60_000}||||||F".encode())
            for piece in ("\\", "\\X41", "~", "a\n", "\\.sp5\\")
        ),
        ("x.hl7", (HEAD + "OBX|2|TX|x||abc||||||F\r" * 20_000).encode()),
        ("x.hl7", (HEAD + "OBR|1|A|A\r" * 20_000).encode()),
        *(("x.json", fhir(diagnostic(conclusion=None, presentedForm=[form(p * 60_000, "text/html")]))) for p in HTML),
        ("x.json", b"[" * 300_000),
        ("x.xml", b"<?xml version='1.0'?>" + b"<a>" * 60_000),
        ("x.csv", b"," * 200_000),
        ("x.csv", b"accession,report\n" + b'"' * 200_001),
        ("A1.txt", b"a\xe4b " * 60_000),
        ("A1.rtf", b"{\\rtf1" + b"\\u1 \\par{}" * 40_000),
        ("A1.rtf", b"{\\rtf1" + b"\\" * 200_000),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_time_grows_no_faster_than_the_file(name, data):
    start = time.process_time()
    found = read_delivered(Delivered(data, name, {}, ""))
    assert time.process_time() - start < 5  # measured below 0.3 s; what grows with the square takes minutes
    assert found.reason or isinstance(found.content, Records)
    if isinstance(found.content, Records):
        assert all(len(row.text) <= MAX_TEXT for row in found.content.rows)
