"""A PACS export of phantoms: real DICOM files and a CSV of reports, as untidy as real ones, and the truth beside it.

Everything follows from the seed: the same arguments write the same bytes.
"""

import csv
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from phenotype.demo.cases import Study, draw_studies
from phenotype.demo.dicom import draw_plate, radiograph_file, save, volume_files
from phenotype.demo.lesions import KINDS, Lesion, Placed, radiograph
from phenotype.demo.reports import Mention, Occasion, write_report
from phenotype.demo.volume import PlacedVolume, draw_volume

LESION_COLUMNS = (
    *("accession_number", "modality", "finding", "kind", "side", "zone", "size_mm", "planted", "reported"),
    *("centre_row", "centre_column", "top", "left", "bottom", "right"),
    *("centre_x_mm", "centre_y_mm", "centre_z_mm", "low_x_mm", "low_y_mm", "low_z_mm"),
    *("high_x_mm", "high_y_mm", "high_z_mm"),
)

README = """\
The truth about the export beside this folder, for measuring only. Nobody in it exists.

truth.csv     one line a study: the patient's group (phenotype), the size of the image (CT: of a slice), whether there
              is a report, and 1 for each finding that was planted into the image
lesions.csv   one line a lesion. Radiographs: centre and box in pixels of the written image (bottom and right are
              excluded; empty where a disease has no place). CT: centre and corners in mm as in DICOM (x to the
              patient's left, y to the back, z to the head). planted=0: the report invented it. reported=0: the report
              passes over it. side is the patient's; zone is upper, middle or lower; size_mm is the diameter (nodule,
              consolidation), the height (radiograph) or depth (CT) of fluid, the width of air or of the heart.
findings.csv  one line for each thing that a report says: concept, assertion (present, absent, uncertain), side, zone
troubles.csv  what was put in on purpose to be quarantined or left over: path or accession number, and why
personal.txt  every invented name, patient id and birth date (as written in headers): none may leave the vault
"""


def write_export(
    out: Path,
    *,
    studies: int = 320,
    volumes: int = 20,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write an export of `studies` radiographs and `volumes` CT volumes to `out`, and the truth to `out`.truth.

    `out`/dicom holds the images, `out`/reports.csv the reports; `progress` is called with (studies done, all). Raises
    FileExistsError where either folder holds anything, ValueError for fewer than five radiographs.
    """
    beside = out.with_name(out.name + ".truth")
    for folder in (out, beside):
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"not empty: {folder.name}")
    if studies < 5:
        raise ValueError("the troubles of an export need at least 5 studies")
    (out / "dicom").mkdir(parents=True, exist_ok=True)
    beside.mkdir(parents=True, exist_ok=True)

    planned = draw_studies(studies, volumes, seed)
    silent = next((s.accession for s in planned[2:] if s.person.group == "healthy"), "")
    truths, places, findings, reports = [], [], [], []
    for n, study in enumerate(planned, 1):
        rng = np.random.default_rng([seed, 4, n])
        shape, placed = _write_study(study, out / "dicom", n, rng)
        has_report = study.accession != silent
        lesions = [p.lesion for p in placed]
        written = write_report(rng, lesions, Occasion(study.modality, study.previous, _letterhead(study, rng)))
        reported = written.reported if has_report else (False,) * len(lesions)
        truths.append(_truth_row(study, lesions, shape, has_report))
        places += [_lesion_row(study, p, int(r)) for p, r in zip(placed, reported, strict=True)]
        if has_report:
            if written.invented:
                places.append(_lesion_row(study, Placed(written.invented, None, None), 1, planted=0))
            findings += [_finding_row(study, m) for m in written.mentions]
            reports.append(_report_row(study, written.text))
        if progress:
            progress(n, len(planned))

    troubles = _troubles(out, planned, reports, seed)
    if silent:
        troubles.append((silent, "study without a report"))
    order = np.random.default_rng([seed, 5]).permutation(len(reports))
    head: tuple[str, ...] = ("accession_number", "patient_id", "study_date", "modality", "report_text")
    _table(out / "reports.csv", head, [reports[i] for i in order])
    head = ("accession_number", "patient_id", "modality", "phenotype", "rows", "columns", "has_report", *KINDS)
    _table(beside / "truth.csv", head, truths)
    _table(beside / "lesions.csv", LESION_COLUMNS, places)
    _table(beside / "findings.csv", ("accession_number", "concept", "assertion", "side", "zone"), findings)
    _table(beside / "troubles.csv", ("what", "trouble"), troubles)
    people = {s.person for s in planned}
    personal = {p.name for p in people} | {p.patient_id for p in people} | {f"{p.birth:%Y%m%d}" for p in people}
    (beside / "personal.txt").write_text("\n".join(sorted(personal)) + "\n", encoding="utf-8")
    (beside / "README").write_text(README, encoding="utf-8")


def _write_study(
    study: Study, folder: Path, n: int, rng: np.random.Generator
) -> tuple[tuple[int, int], Sequence[Placed | PlacedVolume]]:
    """Write the images of a study; rows and columns, and where its lesions lie."""
    home = folder / (study.person.patient_id if rng.random() < 0.6 else f"S{n:05d}")
    if study.view is not None:
        picture, placed = radiograph(study.person.build, study.view, study.lesions)
        d = radiograph_file(study, picture, draw_plate(rng))
        save(d, home / f"{n:04d}" / _name(str(d.SOPInstanceUID), n, rng))
        return picture.shape, placed
    hu, space, found = draw_volume(study.person.build, study.lesions, study.seed)
    names = rng.permutation(space.slices)  # a PACS writes slices as they come
    for k, d in zip(names, volume_files(study, hu, space), strict=True):
        save(d, home / f"CT{n:04d}" / f"IM{k:06d}")
    return (hu.shape[1], hu.shape[2]), found


def _name(uid: str, n: int, rng: np.random.Generator) -> str:
    """File names as the exporters of different makers choose them."""
    return str(rng.choice([f"IM{n:06d}", f"{n:08d}", uid, f"{uid}.dcm", "1.DCM", f"chest {n}.dcm", f"I{n}.img"]))


def _letterhead(study: Study, rng: np.random.Generator) -> str:
    """A few reports name their patient."""
    if rng.random() >= 0.04:
        return ""
    last, first = study.person.name.split("^")
    return f"Patient: {first} {last}, born {study.person.birth:%d.%m.%Y}, ID {study.person.patient_id}"


def _troubles(
    out: Path, planned: Sequence[Study], reports: list[tuple[object, ...]], seed: int
) -> list[tuple[str, str]]:
    """Put in what real exports have; path or accession, and why."""
    rng = np.random.default_rng([seed, 6])
    files = sorted(p for p in (out / "dicom").rglob("*") if p.is_file() and not p.parent.name.startswith("CT"))
    twin, torn = (files[int(i)] for i in rng.choice(len(files), 2, replace=False))
    copy = twin.with_name(f"Copy of {twin.name}")
    shutil.copyfile(twin, copy)
    data = torn.read_bytes()
    cut = torn.with_name(f"{torn.name}_part")
    cut.write_bytes(data[: int(len(data) * rng.uniform(0.4, 0.8))])
    note = out / "dicom" / "README.TXT"
    note.write_text("Exported by Imaginary General Hospital. No images in this file.\n", encoding="utf-8")
    stray = "DEMO0000001"
    text = "FINDINGS: No pleural effusion or pneumothorax. IMPRESSION: Normal chest."
    reports.append((stray, planned[0].person.patient_id, "20200229", "CR", text))
    return [
        (copy.relative_to(out).as_posix(), "duplicate file"),
        (cut.relative_to(out).as_posix(), "truncated file"),
        (note.relative_to(out).as_posix(), "text file"),
        (stray, "report without a study"),
    ]


def _truth_row(study: Study, lesions: Sequence[Lesion], shape: tuple[int, int], has_report: bool) -> tuple[object, ...]:
    found = {lesion.finding for lesion in lesions}
    flags = (int(finding in found) for finding in KINDS)
    person = study.person
    return (study.accession, person.patient_id, study.modality, person.group, *shape, int(has_report), *flags)


def _lesion_row(study: Study, placed: Placed | PlacedVolume, reported: int, planted: int = 1) -> tuple[object, ...]:
    lesion = placed.lesion
    head = (study.accession, study.modality, lesion.finding, KINDS[lesion.finding])
    about = (*head, lesion.side, lesion.zone, f"{lesion.size:g}" if lesion.size else "", planted, reported)
    if isinstance(placed, PlacedVolume):
        return (*about, *[""] * 6, *placed.centre, *placed.low, *placed.high)
    if placed.box is None or placed.centre is None:
        return (*about, *[""] * 15)
    box = placed.box
    return (*about, *placed.centre, box.top, box.left, box.bottom, box.right, *[""] * 9)


def _finding_row(study: Study, mention: Mention) -> tuple[object, ...]:
    return (study.accession, mention.concept, mention.assertion, mention.side, mention.zone)


def _report_row(study: Study, text: str) -> tuple[object, ...]:
    return (study.accession, study.person.patient_id, f"{study.day:%Y%m%d}", study.modality, text)


def _table(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
