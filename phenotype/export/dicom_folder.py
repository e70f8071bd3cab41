"""A folder of de-identified DICOM files, made study by study; a run that was stopped continues.

It holds dicom/<patient>/<study>/<series>/<instance>.dcm, all of them surrogates; manifest.csv and manifest.json; and
refused.csv with the reason of each object that does not leave.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from db.queries.vault import looked
from db.session import Database, vault_key
from phenotype.executors import run_batches
from phenotype.export import burned_in, dicom_selection
from phenotype.export.deidentify import Options, Person, edition, uid_key
from phenotype.export.dicom import Item, Plan, Written, put, write_objects
from phenotype.export.dicom_selection import Held, Selection
from phenotype.sandbox import Limits
from phenotype.stage import Refused

Progress = Callable[[int, int, str], None]

JOURNAL: Final = ".journal.ndjson"
NOTE: Final = (
    "Pseudonymised and de-identified by machine, by the profile and options named here. Not anonymous: who holds the "
    "database can tell whose these images are, faces and rare findings may tell it to others."
)
_BATCH: Final = 8
_COLUMNS: Final = (
    "patient", "study", "series", "instance", "file", "size", "sha256", "sop_class", "transfer_syntax", "burned_in",
    "masked", "outside",
)  # fmt: skip


@dataclass(slots=True)
class Exported:
    """What became of a selection."""

    patients: int = 0
    studies: int = 0
    objects: int = 0  # in the folder now
    before: int = 0  # of them, those of an earlier run
    masked: int = 0  # objects with pixels painted over
    refused: Counter[str] = field(default_factory=Counter)
    not_exported: Counter[str] = field(default_factory=Counter)  # documents, doses, results: by reason
    counts: Counter[str] = field(default_factory=Counter)  # attributes by what was done with them


def export_dicom(
    database: Database,
    out: Path,
    selection: Selection,
    options: Options,
    *,
    text: str = "quarantine",
    executor: str = "here",
    who: str = "",
    progress: Progress = lambda *_: None,
) -> Exported:
    """Write the objects of a selection to the folder `out`, which is new or was begun with the same options.

    `text` says what becomes of text in pixels: "quarantine", "mask" or "keep". Who exported what is written down in
    the vault. Raises Refused: "selection", "cohort", "study", "exists", "other_options", "burned_in", "no_ocr".
    """
    if text not in burned_in.MODES:
        raise Refused("burned_in", f"'{text}' is unknown; use {', '.join(burned_in.MODES)}")
    if text == "mask":
        burned_in.require()
    with database.reading() as session:
        key, studies = vault_key(session), selection.ids(session)
        left_behind = dicom_selection.not_exported(session) if selection.everything else Counter[str]()
    with database.writing() as session:
        told = f"{len(studies)} studies, options {_told(options)}, burned-in text {text}"
        looked(session, who, "export dicom", told)
    plan = Plan(str(out), uid_key(key), options, text)
    with database.reading() as session, _Journal(out, plan) as journal:
        done = Exported(before=len(journal.there), not_exported=left_behind)
        total, count = dicom_selection.count(session, studies), 0
        under_way: dict[str, Held] = {}
        batches = _batches(dicom_selection.held(session, studies), journal, under_way)
        for outcome in run_batches(executor, partial(write_objects, plan), batches, limits=_limits(text)):
            for instance, written in outcome.outputs.items():
                journal.add(under_way.pop(instance), written)
            for instance, failure in outcome.failures.items():
                journal.refuse(under_way.pop(instance), failure.reason)
            count += len(outcome.outputs) + len(outcome.failures)
            progress(count + done.before, total, "")
        _finish(out, plan, journal, done)
    return done


def _limits(text: str) -> Limits:
    """Reading text in many frames takes minutes, everything else seconds."""
    return Limits(cpu_seconds=900, wall_seconds=3600.0) if text == "mask" else Limits(cpu_seconds=60)


def _told(options: Options) -> str:
    return "+".join(code for code, _ in options.codes())


def _target(held: Held) -> str:
    return f"dicom/{held.whose.patient}/{held.study}/{held.series}/{held.instance}.dcm"


def _batches(rows: Iterable[Held], journal: _Journal, under_way: dict[str, Held]) -> Iterator[dict[str, Item]]:
    batch: dict[str, Item] = {}
    for held in rows:
        if held.instance in journal.there:
            continue
        if held.sop_class == "picture" or held.state != "ingested":
            journal.refuse(held, "not_dicom" if held.sop_class == "picture" else f"{held.state}:{held.reason}")
            continue
        under_way[held.instance] = held
        person = Person(held.whose.patient, held.whose.days, held.whose.known)
        batch[held.instance] = Item(held.ref, _target(held), person, held.burned_in)
        if len(batch) == _BATCH:
            yield batch
            batch = {}
    if batch:
        yield batch


class _Journal:
    """What was written, line by line, so that a run that was killed continues; and what was refused in this run."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.path, self.there, self.refused = out / JOURNAL, dict[str, int](), list[tuple[str, ...]]()
        sign = [edition(), plan.burned_in, asdict(plan.options), metadata.version("phenotype")]
        sign.append(hmac.new(plan.key, b"journal", hashlib.sha256).hexdigest()[:16])
        head = json.dumps({"plan": sign}, sort_keys=True)
        try:
            if self.path.exists():
                self._read(out, head)
            elif out.exists() and any(out.iterdir()):
                raise Refused("exists", f"{out.name} holds something else; choose another name")
            out.mkdir(parents=True, exist_ok=True)
            self.file: TextIO = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise Refused("export", f"{out.name} cannot be written: {error.strerror}") from None
        if not self.path.stat().st_size:
            self._line(head)

    def _read(self, out: Path, head: str) -> None:
        whole = self.path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):  # a line that was being written when the run was killed
            os.truncate(self.path, end)
        lines = whole[:end].decode("utf-8").splitlines()
        if lines and lines[0] != head:
            raise Refused("other_options", f"{out.name} was begun with other options or by another database")
        for number, line in enumerate(lines[1:], 1):
            entry = json.loads(line)
            path = out / entry["file"]
            if path.is_file() and path.stat().st_size == entry["size"]:
                self.there[entry["instance"]] = number

    def add(self, held: Held, written: Written) -> None:
        """An object that was written."""
        names = {"patient": held.whose.patient, "study": held.study, "series": held.series, "instance": held.instance}
        self._line(json.dumps(names | {"file": _target(held)} | asdict(written)))
        self.there[held.instance] = -1

    def refuse(self, held: Held, reason: str) -> None:
        """An object that does not leave; it is tried again the next time."""
        self.refused.append(
            (held.whose.patient, held.study, held.series, held.instance, reason.split(": ", maxsplit=1)[0])
        )

    def entries(self) -> Iterator[dict[str, Any]]:
        """What the folder holds; of an object that was written twice, the last."""
        with self.path.open(encoding="utf-8") as file:
            last = {json.loads(line)["instance"]: number for number, line in enumerate(islice(file, 1, None), 1)}
            file.seek(0)
            for number, line in enumerate(islice(file, 1, None), 1):
                entry = json.loads(line)
                if last[entry["instance"]] == number and entry["instance"] in self.there:
                    yield entry

    def _line(self, text: str) -> None:
        self.file.write(text + "\n")
        self.file.flush()

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _finish(out: Path, plan: Plan, journal: _Journal, done: Exported) -> None:
    """The manifest of everything that the folder holds, and the list of what was refused."""
    patients, studies = set[str](), set[str]()
    with _table(out / "manifest.csv", _COLUMNS) as write:
        for entry in journal.entries():
            write([int(v) if isinstance(v := entry[column], bool) else v for column in _COLUMNS])
            patients.add(entry["patient"])
            studies.add(entry["study"])
            done.objects += 1
            done.masked += bool(entry["masked"] or entry["outside"])
            done.counts.update(entry["counts"])
    done.patients, done.studies = len(patients), len(studies)
    done.refused = Counter(row[-1] for row in journal.refused)
    with _table(out / "refused.csv", ("patient", "study", "series", "instance", "reason")) as write:
        for row in journal.refused:
            write(row)
    codes = plan.options.codes(clean_pixels=plan.burned_in == "mask")
    summary = {
        "software": f"phenotype {metadata.version('phenotype')}, pydicom {metadata.version('pydicom')}",
        "profile": f"DICOM PS3.15 {edition()} Annex E",
        "codes": [{"value": value, "meaning": meaning} for value, meaning in codes],
        "options": asdict(plan.options),
        "burned_in_text": plan.burned_in,
        "note": NOTE,
        "patients": done.patients,
        "studies": done.studies,
        "objects": done.objects,
        "masked": done.masked,
        "refused": dict(sorted(done.refused.items())),
        "not_exported": dict(sorted(done.not_exported.items())),
        "attributes": dict(sorted(done.counts.items())),
    }
    put(out / "manifest.json", (json.dumps(summary, indent=1) + "\n").encode())
    for left in out.rglob(".*.part"):  # of workers that were killed
        left.unlink()


@contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], Any]]:
    beside = path.with_name(f".{path.name}.part")
    with beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer.writerow
    beside.replace(path)
