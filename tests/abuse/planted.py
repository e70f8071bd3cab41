"""Personal data planted in every format that is read, and looked for in everything that is not the vault.

Not looked for are the days of examinations: the shifted days of some are by chance the true days of others.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
import tarfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from report_maker import code, document, item, pdf, table, workbook

from abuse.needles import WAYS, Needles
from abuse.outcome import Outcome
from abuse.world import command_line, dicom, folder, forking_sandbox, hl7, in_fork, new_database, put, uid, zipped

_SYLLABLES = ["zwick", "brenn", "trupp", "klimm", "dorff", "vogg", "strob", "haxl", "mirr", "pfurr", "knitz", "schwob"]
_LETTERS = {"ISO_IR 100": "äöüßéñ", "ISO_IR 192": "łşőğčž", "ISO_IR 144": "жщюяфы", "ISO_IR 6": "aeiouy"}
FINDINGS = ("No pleural effusion.", "A nodule of 4 mm in the left upper lobe.", "Pneumonia on the right side.")
FORMATS = ("csv", "hl7", "sr", "fhir", "text", "pdf", "xlsx", "hl7-latin", "csv-windows")


@dataclass(frozen=True, slots=True)
class Person:
    """Nobody."""

    index: int
    family: str
    given: str
    number: str
    accession: str
    born: date
    phone: str
    street: str
    physician: str
    charset: str

    @property
    def study(self) -> str:
        """The UID of the examination."""
        return uid("planted", self.index)

    @property
    def words(self) -> dict[str, str]:
        """What may not be found, by what it is."""
        born = {f"born {form}": self.born.strftime(form) for form in ("%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y")}
        names = ("family", "given", "number", "accession", "phone", "street", "physician")
        return {name: getattr(self, name) for name in names} | born | {"study": self.study, "object": self.object}

    @property
    def object(self) -> str:
        """The UID of the image."""
        return uid(f"planted{self.index}")

    @property
    def text(self) -> str:
        """The report."""
        return (
            f"Patient {self.given} {self.family}, born {self.born:%d.%m.%Y} ({self.born:%Y-%m-%d}), no. {self.number}, "
            f"accession {self.accession}, tel. {self.phone}, {self.street}.\n"
            f"FINDINGS: {FINDINGS[self.index % len(FINDINGS)]}\nReferred by Dr {self.physician}."
        )


def people(count: int, seed: int) -> list[Person]:
    """Nobodies with names that stand in no dictionary."""
    draw, found = random.Random(seed), []
    charsets = list(_LETTERS)
    for index in range(count):
        charset = charsets[index % len(charsets)]

        def word(charset: str = charset) -> str:
            letters = _LETTERS[charset]
            if charset == "ISO_IR 144":  # no Latin letters beside
                return "".join(draw.choice(letters) for _ in range(10)).capitalize()
            return (draw.choice(_SYLLABLES) + draw.choice(letters) * 2 + draw.choice(_SYLLABLES)).capitalize()

        number = f"{draw.randrange(10**8, 10**9)}"
        born = date(1930, 1, 1) + timedelta(days=draw.randrange(25_000))
        phone = f"+43 1 {draw.randrange(10**6, 10**7)}"
        street = f"{word()}gasse {draw.randrange(10, 99)}"
        accession = f"ACC{draw.randrange(10**8, 10**9)}"
        found.append(Person(index, word(), word(), number, accession, born, phone, street, word(), charset))
    return found


def image(person: Person) -> bytes:
    """An image with the person in its header, in private attributes and in nested sequences."""
    other, request, block = Dataset(), Dataset(), Dataset()
    other.PatientID, other.TypeOfPatientID = person.number, "TEXT"
    request.AccessionNumber, request.RequestingPhysician = person.accession, person.physician
    block.PatientAddress, block.PatientTelephoneNumbers = person.street, person.phone
    request.ReferencedPatientSequence = [block]
    born = f"{person.born:%Y%m%d}"
    data = dicom(
        f"planted{person.index}", person.index % 250,
        SpecificCharacterSet=person.charset, PatientName=f"{person.family}^{person.given}", PatientID=person.number,
        PatientBirthDate=born, AccessionNumber=person.accession, StudyInstanceUID=person.study,
        SeriesInstanceUID=uid("planted series", person.index), ReferringPhysicianName=person.physician,
        OtherPatientIDsSequence=[other], RequestAttributesSequence=[request], PatientAddress=person.street,
        StudyDescription=f"Chest {person.family}", SeriesDescription=f"for {person.physician}", ViewPosition="PA",
        ProtocolName=person.family, StudyDate="20200101",
    )  # fmt: skip
    from pydicom import dcmread

    d = dcmread(io.BytesIO(data))
    private = d.private_block(0x0011, "OWN NOTES", create=True)
    private.add_new(1, "LO", person.family)
    private.add_new(2, "LT", person.text if person.charset == "ISO_IR 192" else person.number)
    stream = io.BytesIO()
    d.save_as(stream)
    return stream.getvalue()


def report(person: Person, kind: str) -> dict[str, bytes]:
    """The report of a person in a format, as files whose names tell who it is."""
    born, name = f"{person.born:%Y%m%d}", f"{person.family}^{person.given}"
    header = ["accession_number", "patient_id", "patient_name", "birth_date", "report_text"]
    row = [person.accession, person.number, name, born, person.text]
    stem = f"{person.family}_{person.number}"
    about = {"name": name, "birth": born}
    if kind == "csv":
        return {f"{stem}.csv": table([header, row, [*row, "a cell too many"]])}
    if kind == "csv-windows":
        return {f"{stem}.csv": table([header, row], "cp1252" if _fits(person, "cp1252") else "utf-8", ";")}
    if kind == "hl7":
        return {f"{stem}.hl7": hl7(person.accession, person.number, person.text, study_uid=person.study, **about)}
    if kind == "hl7-latin":
        charset = "8859/1" if _fits(person, "latin-1") else "UNICODE UTF-8"
        return {f"{stem}.hl7": hl7(person.accession, person.number, person.text, charset=charset, **about)}
    if kind == "fhir":
        said = {"resourceType": "DiagnosticReport", "id": f"r{person.index}", "status": "final"}
        said |= {"identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": person.accession}]}
        said |= {"subject": {"identifier": {"value": person.number}, "display": f"{person.given} {person.family}"}}
        return {f"{stem}.json": json.dumps(said | {"conclusion": person.text}).encode()}
    if kind == "text":
        return {f"{person.family}/{person.accession}.txt": person.text.encode()}
    if kind == "xlsx":
        return {f"{stem}.xlsx": workbook([header, row])}
    head = {"AccessionNumber": person.accession, "PatientID": person.number, "PatientName": name}
    head |= {"StudyInstanceUID": person.study, "PatientBirthDate": born}
    head |= {"SOPInstanceUID": uid("planted report", person.index)}
    if kind == "sr":
        words = item("TEXT", code("121071", "Finding"), TextValue=person.text)
        return {f"{stem}.dcm": document(words, **head)}
    page = pdf(person.text) if _fits(person, "latin-1") else pdf(f"Accession {person.accession}. No effusion.")
    letter = {
        "EncapsulatedDocument": page + b"\0" * (len(page) % 2),
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
    }
    return {f"{stem}.dcm": document(sop_class="1.2.840.10008.5.1.4.1.1.104.1", **head, **letter)}


def _fits(person: Person, encoding: str) -> bool:
    try:
        return bool(person.text.encode(encoding))
    except UnicodeEncodeError:
        return False


def deliveries(where: Path, everybody: list[Person]) -> list[Path]:
    """A folder, a zip and a tar; with broken copies, so that things fail with the data at hand."""
    parts: list[dict[str, bytes]] = [{}, {}, {}]
    for person in everybody:
        place = parts[person.index % 3]
        inside = f"{person.family} {person.given}/{person.number}"
        data = image(person)
        place[f"{inside}/{person.accession}.dcm"] = data
        for name, words in report(person, FORMATS[person.index % len(FORMATS)]).items():
            place[f"{inside}/{name}"] = words
        if person.index % 10 == 0:
            place[f"{inside}/cut.dcm"] = data[:-20]
            place[f"{inside}/{person.family}.dcm"] = data[:200] + person.family.encode() * 9 + data[200:]
            place[f"{inside}/{person.family}.csv"] = f"{person.family},{person.number}\n1,2\n".encode()
            place[f"{inside}/{person.number}.hl7"] = f"MSH|^~\\&|{person.family}\rPID|{person.number}".encode()
            place[f"{inside}/{person.given}.json"] = f'{{"resourceType": "Patient", "id": "{person.number}"'.encode()
            place[f"{inside}/other.dcm"] = data[:-48] + bytes(48)
            place[f"{inside}/{person.family}.xyz"] = person.text.encode()
    put(where / parts_name(everybody[0]), parts[0])
    (where / f"{everybody[1].family}.zip").write_bytes(zipped(parts[1]))
    with tarfile.open(where / f"{everybody[2].family}.tar", "w") as archive:
        for name, data in parts[2].items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return [where / parts_name(everybody[0]), *sorted(where.glob("*.zip")), *sorted(where.glob("*.tar"))]


def parts_name(person: Person) -> str:
    """A folder is called after somebody as well."""
    return f"from {person.family}"


def _commands(out: Path, sources: list[Path]) -> list[list[str]]:
    questions = ["SELECT * FROM file_view", "SELECT * FROM report_view", "SELECT * FROM failure_view", "SELECT nothing"]
    return [
        *(["ingest", str(source), "--report", str(out / f"intake{i}.html")] for i, source in enumerate(sources)),
        ["ingest", *map(str, sources)],
        ["retry"],
        ["ingest", str(sources[0]), "--columns", "text=nothing_of_the_kind"],
        ["ingest", str(out / "is not there")],
        *([stage] for stage in ("assemble", "extract", "classify", "label", "cohort")),
        *([what] for what in ("status", "files", "failures", "findings")),
        *(["sql", question] for question in questions),
        ["page", str(out / "page.html")],
        ["export", "findings", str(out / "findings.csv")],
        ["export", "fhir", str(out / "fhir")],
        ["export", "omop", str(out / "omop")],
        ["export", "dicom", str(out / "dicom"), "--all"],
        ["export", "dicom", str(out / "dicom2"), "--all", "--keep-characteristics", "--clean-descriptors"],
    ]


def _run(path: Path, words: list[str]) -> tuple[int, str]:
    forking_sandbox()
    return command_line("--db", f"sqlite:///{path}", *words)


def dump(path: Path, *, vault: bool) -> dict[str, bytes]:
    """All that stands in the tables of the vault; or in all other tables, all views, and the file without the vault."""
    found = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        kinds = "('table')" if vault else "('table', 'view')"
        names = [n for (n,) in raw.execute(f"SELECT name FROM sqlite_master WHERE type IN {kinds}")]
        for name in names:
            if name.startswith("vault") == vault:
                cells = (c for row in raw.execute(f'SELECT * FROM "{name}"') for c in row if c is not None)
                found[name] = b"\n".join(c if isinstance(c, bytes) else str(c).encode() for c in cells)
    if not vault:
        copy = path.with_name("open.db")
        shutil.copyfile(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as raw:
            for name in [n for n in names if n.startswith("vault")]:
                raw.execute(f"DROP TABLE {name}")
            raw.execute("VACUUM")
        found["the file without the vault"] = copy.read_bytes()
        copy.unlink()
    return found


def run(count: int, seed: int) -> Outcome:
    """`count` people in nine formats of reports, delivered in three ways."""
    everybody = people(max(count, 3), seed)
    words = {word: (person.index, what) for person in everybody for what, word in person.words.items()}
    needles = Needles(words)
    hay: dict[str, bytes] = {}
    codes: Counter[int] = Counter()
    with folder() as where:
        out = where / "out"
        out.mkdir()
        (where / "in").mkdir()
        path = new_database(where / "work" / "x.db")
        sources = deliveries(where / "in", everybody)
        for number, asked in enumerate(_commands(out, sources)):
            status, said = in_fork(lambda asked=asked: _run(path, asked), 300)
            # the command line itself shows what its user has typed
            typed = sorted(
                {w for source in sources for w in (str(source.resolve()), source.name)}, key=len, reverse=True
            )
            for text in typed:
                said = said.replace(text, "")
            hay[f"what {number} {asked[0]} {asked[1] if asked[0] == 'export' else ''} says"] = said.encode()
            codes[status] += 1
        hay |= {f"table {name}": data for name, data in dump(path, vault=False).items()}
        kept = [p for folder_ in (out, where / "work") for p in folder_.rglob("*") if p.is_file()]
        hay |= {f"file {p.name}": p.read_bytes() for p in kept if not p.name.startswith("x.db")}
        hay["names of files"] = "\n".join(str(p.relative_to(where)) for p in kept).encode()
        vault = set()
        for data in dump(path, vault=True).values():
            vault |= {word for word, _ in needles.find(data)}
        with closing(sqlite3.connect(path)) as raw:
            matched, reports = raw.execute("SELECT sum(match = 'matched'), count(*) FROM report").fetchone()
            findings = raw.execute("SELECT count(*) FROM finding").fetchone()[0]
    problems: list[str] = []
    guilty: set[int] = set()
    for name, data in hay.items():
        for word, way in sorted(set(needles.find(data))):
            guilty.add(words[word][0])
            problems.append(f"PROBLEM {words[word][1]} of person {words[word][0]} as {way} in {name}")
    if codes[70] or reports < 0.9 * len(everybody) or not findings:
        problems.append(
            f"PROBLEM too little was done: exit codes {dict(codes)}, {reports} reports, {findings} findings"
        )
    control = _control(everybody, needles, vault)
    notes = (
        f"{sum(map(len, hay.values())) >> 10} KiB in {len(hay)} places, {len(words)} words in {len(WAYS)} ways; "
        f"{matched} of {reports} reports matched, {findings} findings; seed {seed}",
        *problems,
    )
    passed = 0 if problems and not guilty else len(everybody) - len(guilty)
    return Outcome(len(everybody), passed, control, notes)


def _control(everybody: list[Person], needles: Needles, vault: set[str]) -> str:
    """The same search finds everybody in the vault, and every way of writing where it is planted."""
    always = ("family", "number", "accession", "study", "object", "born %Y%m%d")
    there = sum(all(person.words[what] in vault for what in always) for person in everybody)
    word: Any = everybody[0].family
    written = 0
    for way, forms in WAYS.items():
        candidates = [p.family for p in everybody if way != "cyrillic" or p.charset == "ISO_IR 144"]
        for word in candidates:
            try:
                data = b"<" + forms(word)[0] + b">"
            except UnicodeEncodeError:
                continue
            written += word in {found for found, _ in needles.find(data)}
            break
    return f"{there} of {len(everybody)} found in the vault; {written} of {len(WAYS)} ways found"
