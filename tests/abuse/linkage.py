"""Linkage: reports that come late, early, twice, in versions, without a number, or under somebody else's.

Each case is a few deliveries, taken in as they are and in the reverse order: in the end every report has the same
match, study and place among its versions.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from abuse.outcome import Outcome
from abuse.world import dicom, folder, forking_sandbox, hl7, in_fork, new_database, put, take_in, uid
from db.session import Database

NONE = ("unmatched", "", "")
UNSURE = ("ambiguous", "", "")
Files = dict[str, bytes]
Expected = tuple[str, str, str, int]  # match, by what, study, whether it is current


@dataclass(frozen=True, slots=True)
class Case:
    """Deliveries (name -> bytes), and what must become of each report, by its words; `first` is what there is after
    the first delivery."""

    name: str
    deliveries: tuple[dict[str, bytes], ...]
    reports: dict[str, Expected]
    first: dict[str, Expected] | None = None


def cases() -> list[Case]:
    """All of them. Numbers of one are in no other."""
    found: list[Case] = []

    def own(letter: str) -> str:
        return f"{letter}{1000 + len(found)}"

    def study(n: int = 1, accession: str | None = None, patient: str | None = None, **attributes: Any) -> bytes:
        values = {"AccessionNumber": own("A") if accession is None else accession}
        values |= {"PatientID": own("P") if patient is None else patient, "StudyInstanceUID": uid("link", own("S"), n)}
        return dicom(
            f"link{len(found)}/{n}", n, **(values | {"SeriesInstanceUID": uid("series", own("S"), n)} | attributes)
        )

    def say(words: str, accession: str | None = None, patient: str | None = None, **values: Any) -> bytes:
        return hl7(
            own("A") if accession is None else accession, own("P") if patient is None else patient, words, **values
        )

    def csv(*lines: str, header: str = "accession_number,patient_id,report_text") -> bytes:
        return "\n".join([header, *lines]).encode()

    def fhir(words: str, **values: Any) -> bytes:
        usual = {"resourceType": "DiagnosticReport", "id": own("F"), "status": "final", "conclusion": words}
        usual |= {"subject": {"identifier": {"value": own("P")}}, "effectiveDateTime": "2020-01-01"}
        return json.dumps(usual | values).encode()

    def add(
        name: str, *deliveries: dict[str, bytes], first: dict[str, Expected] | None = None, **reports: Expected
    ) -> None:
        found.append(Case(name, deliveries, {w.replace("_", " "): e for w, e in reports.items()}, first))

    def matched(n: int = 1, by: str = "accession", current: int = 1) -> Expected:
        return "matched", by, uid("link", own("S"), n), current

    s = "s.dcm"
    add("plain", {s: study(), "r.hl7": say("Clear")}, Clear=matched())
    late = {"r.hl7": say("Early words")}
    add("before_its_study", late, {s: study()}, first={"Early words": (*NONE, 1)}, Early_words=matched())
    add("without_study", {"r.hl7": say("Alone")}, Alone=(*NONE, 1))
    only_uid = say("By uid", "", study_uid=uid("link", own("S"), 1), key=own("K"))
    add("by_study_uid", {s: study(accession=""), "r.hl7": only_uid}, By_uid=matched(by="study_uid"))
    contradicting = say("Uid counts", own("B"), study_uid=uid("link", own("S"), 1))
    add("uid_before_accession", {s: study(1), "t.dcm": study(2, own("B")), "r.hl7": contradicting},
        Uid_counts=matched(by="study_uid"))  # fmt: skip
    table = csv(f"{uid('link', own('S'), 1)},{own('P')},Uid in a table")
    add("uid_where_the_accession_belongs", {s: study(), "r.csv": table}, Uid_in_a_table=matched(by="study_uid"))
    prelim, final = say("First look", status="P", when="20200102"), say("Second look", when="20200103")
    add("preliminary_final", {s: study(), "1.hl7": prelim}, {"2.hl7": final},
        first={"First look": matched()}, First_look=matched(current=0), Second_look=matched())  # fmt: skip
    prelim, final = say("One look", status="P"), say("Other look")
    add("preliminary_and_final_at_one_time", {s: study(), "1.hl7": final}, {"2.hl7": prelim},
        One_look=matched(current=0), Other_look=matched())  # fmt: skip
    final, corrected = say("Left side", when="20200102"), say("Right side", status="C", when="20200103")
    add("corrected", {s: study(), "1.hl7": final}, {"2.hl7": corrected},
        first={"Left side": matched()}, Left_side=matched(current=0), Right_side=matched())  # fmt: skip
    final, more = say("Words", when="20200102"), say("More words", status="A", when="20200103")
    add("addendum", {s: study(), "1.hl7": final}, {"2.hl7": more}, Words=matched(), More_words=matched())
    last = say("New words", status="C", when="20200104")
    final, more = say("Old words", when="20200102"), say("Added words", status="A", when="20200103")
    add("addendum_then_corrected", {s: study(), "1.hl7": final}, {"2.hl7": more}, {"3.hl7": last},
        Old_words=matched(current=0), Added_words=matched(current=0), New_words=matched())  # fmt: skip
    final, gone = say("Wrong patient", when="20200102"), say("Withdrawn", status="X", when="20200103", withdrawn=True)
    add("cancelled", {s: study(), "1.hl7": final}, {"2.hl7": gone},
        first={"Wrong patient": matched()}, Wrong_patient=matched(current=0), Withdrawn=matched(current=0))  # fmt: skip
    final, gone = say("Wrong study", when="20200102"), say("No longer valid", status="X", when="20200103")
    add("cancelled_with_final_words", {s: study(), "1.hl7": final}, {"2.hl7": gone},
        Wrong_study=matched(current=0), No_longer_valid=matched(current=0))  # fmt: skip
    keys = [own("K"), own("L")]
    both = {f"{i}.hl7": say(w, key=k) for i, (w, k) in enumerate(zip(("Chest", "Abdomen"), keys, strict=True))}
    add("two_reports_of_one_study", {s: study()} | both, Chest=matched(), Abdomen=matched())
    add("two_studies_of_one_accession", {s: study(1), "t.dcm": study(2), "r.hl7": say("Which")}, Which=(*UNSURE, 1))
    two = {s: study(1), "t.dcm": study(2, patient=own("Q"))}
    add("the_patient_tells", two | {"r.hl7": say("Mine", patient=own("Q"))}, Mine=matched(2))
    add("accession_of_somebody_else", {s: study(patient=own("Q"))}, {"r.hl7": say("Not his")}, Not_his=(*UNSURE, 1))
    reused = {"t.dcm": study(2, patient=own("Q")), "u.hl7": say("New owner", patient=own("Q"), key=own("K"))}
    add("accession_used_again", {s: study(1), "r.hl7": say("Old owner")}, reused,
        Old_owner=matched(1), New_owner=matched(2))  # fmt: skip
    add("zeros_before_a_number", {s: study(patient="007701")}, {"r.hl7": say("Zeros", patient="7701")}, Zeros=matched())
    spelled = say("Case", patient=f"AB{own('P')}")
    add("case_and_spaces_of_a_number", {s: study(patient=f"ab {own('P')}"), "r.hl7": spelled}, Case=matched())
    add(
        "zeros_before_an_accession",
        {s: study(accession="0099123"), "r.hl7": say("Exactly", "99123")},
        Exactly=(*NONE, 1),
    )
    add("spaces_around_an_accession", {s: study(), "r.hl7": say("Spaces", f" {own('A')} ")}, Spaces=matched())
    add("wildcards", {s: study(), "r.hl7": say("Any", f"{own('A')[:-1]}*"), "q.hl7": say("Some", f"{own('A')[:-1]}_")},
        Any=(*NONE, 1), Some=(*NONE, 1))  # fmt: skip
    add("no_number_at_all", {s: study(), "r.json": fhir("Of that day")}, Of_that_day=matched(by="date"))
    days = {f"{d}.dcm": study(d, "", StudyDate=f"2020010{d}") for d in (2, 3)}  # a radiograph every morning
    add("no_number_and_another_day", days | {"r.json": fhir("Of the day before")}, Of_the_day_before=(*UNSURE, 1))
    same = csv(f"{own('A')},{own('P')},In two formats")
    add("in_two_formats", {s: study(), "r.csv": same}, {"r.hl7": say("In two formats")}, In_two_formats=matched())
    add("delivered_twice", {s: study(), "1.hl7": say("Twice")}, {"2.hl7": say("Twice")}, Twice=matched())
    add("study_in_two_deliveries", {s: study()}, {"t.dcm": study(SOPInstanceUID=uid("link", own("T")))},
        {"r.hl7": say("Third delivery")}, Third_delivery=matched())  # fmt: skip
    add("no_patient_in_the_report", {s: study(), "r.csv": csv(f"{own('A')},,Nobody said")}, Nobody_said=matched())
    add("no_patient_in_the_study", {s: study(patient=""), "r.hl7": say("Nobody there")}, Nobody_there=matched())
    return found


_REPORTS = """
SELECT v.text, r.match, r.matched_by, coalesce(s.study_uid, ''), r.id IN (SELECT id FROM current_report) AS is_current,
  r.id IN (SELECT report FROM unmatched_report_view) AS listed, e.path
FROM report r JOIN vault_report v ON v.report_id = r.id LEFT JOIN vault_study s ON s.study_id = r.study_id
JOIN vault_export_file e ON e.file_id = r.file_id
"""


def _reports(path: Path) -> tuple[dict[str, dict[str, Expected]], int]:
    """Case -> words -> what became of the report; and how many reports the list of the unmatched gets wrong."""
    found: dict[str, dict[str, Expected]] = {}
    wrong = 0
    database = Database(f"sqlite:///{path}")
    with database.reading() as session:
        for words, match, by, study, current, listed, place in session.execute(text(_REPORTS)):
            found.setdefault(Path(place).parent.name, {})[words] = (match, by, study, current)
            wrong += listed != (match != "matched" and current)
    database.close()
    return found, wrong


def _take_in(where: Path, all_cases: list[Case], *, backwards: bool) -> tuple[dict[str, Any], dict[str, Any], int]:
    order = "backwards" if backwards else "forwards"
    path = new_database(where / f"{order}.db")
    for case in all_cases:
        for number, files in enumerate(case.deliveries[::-1] if backwards else case.deliveries):
            put(where / order / f"delivery{number}" / case.name, files)
    forking_sandbox()
    first: dict[str, Any] = {}
    for delivery in sorted((where / order).iterdir()):
        take_in(path, delivery)
        first = first or _reports(path)[0]
    found, wrong = _reports(path)
    return first, found, wrong


def run(count: int, seed: int) -> Outcome:
    """Every case in both orders; `count` and `seed` change nothing."""
    all_cases, problems, bad = cases(), [], 0
    with folder() as where:
        both = [in_fork(lambda b=b: _take_in(where, all_cases, backwards=b)) for b in (False, True)]
    for order, (first, found, wrong) in zip(("forwards", "backwards"), both, strict=True):
        for case in all_cases:
            now, early = found.get(case.name, {}), first.get(case.name, {})
            if now != case.reports:
                problems.append(f"PROBLEM {case.name} {order}: {now}, not {case.reports}")
            elif order == "forwards" and case.first is not None and early != case.first:
                problems.append(f"PROBLEM {case.name}, first delivery: {early}, not {case.first}")
        if wrong:
            problems.append(f"PROBLEM {wrong} reports in the list of the unmatched, or not, against what they are")
    bad = len(problems)
    control = sum(_naive(case) for case in all_cases)
    tried = 2 * len(all_cases)
    return Outcome(tried, tried - bad, f"{control} of {len(all_cases)} wrong by accession alone", tuple(problems))


def _naive(case: Case) -> bool:
    """The negative control: whether a program gets it wrong that links by accession alone, the last report counting."""
    from io import BytesIO

    from pydicom import dcmread

    studies: dict[str, str] = {}
    linked: dict[str, str] = {}
    last: Counter[str] = Counter()
    words: dict[str, str] = {}
    for files in case.deliveries:
        for data in files.values():
            if data[128:132] == b"DICM":
                d = dcmread(BytesIO(data), stop_before_pixels=True)
                studies[str(d.AccessionNumber)] = str(d.StudyInstanceUID)
            elif data[:3] == b"MSH":
                accession = data.decode().split("\rOBR")[1].split("|")[18]
                said = data.decode().split("OBX|1|")[1].split("|")[3]
                linked[said], words[accession] = studies.get(accession, ""), said
                last[accession] += 1
    current = {w for w, e in case.reports.items() if e[3]}
    return bool(linked) and ({w: e[2] for w, e in case.reports.items()} != linked or set(words.values()) != current)
