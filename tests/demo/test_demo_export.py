"""The export: real DICOM, the same bytes from the same seed, the promised troubles, and truth that fits the files."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from phenotype.demo.export import write_export
from phenotype.demo.truth import Truth, read_truth

STUDIES, VOLUMES = 44, 3


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "export"
    write_export(out, studies=STUDIES, volumes=VOLUMES, seed=3)
    return out


@pytest.fixture(scope="module")
def truth(export: Path) -> Truth:
    return read_truth(export.with_name("export.truth"))


@pytest.fixture(scope="module")
def images(export: Path, truth: Truth) -> dict[Path, pydicom.FileDataset]:
    bad = {export / what for what, why in truth.troubles if why in ("truncated file", "text file")}
    files = [p for p in (export / "dicom").rglob("*") if p.is_file() and p not in bad]
    return {p: pydicom.dcmread(p) for p in files}


def digest(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_export(tmp_path / name, studies=8, volumes=1, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a.truth") == digest(tmp_path / "b.truth")
    ours, theirs = set(digest(tmp_path / "a").values()), set(digest(tmp_path / "c").values())
    assert len(ours & theirs) == 1  # the text file among the images


def test_refuses_to_write_over_something(export: Path):
    with pytest.raises(FileExistsError):
        write_export(export, studies=8, volumes=0)


def test_progress_counts_studies(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    write_export(tmp_path / "x", studies=6, volumes=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 7) for n in range(1, 8)]


def test_every_image_decodes_under_a_sane_header(images: dict[Path, pydicom.FileDataset]):
    plain = set()
    for d in images.values():
        assert d.pixel_array.shape == (d.Rows, d.Columns)
        assert d.pixel_array.max() < 2**d.BitsStored
        assert d.HighBit == d.BitsStored - 1
        assert d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID
        assert d.file_meta.MediaStorageSOPClassUID == d.SOPClassUID
        assert len(d.AccessionNumber) <= 16
        assert d.PatientBirthDate < d.StudyDate
        assert int(d.PatientAge[:3]) >= 18
        plain.add((d.Modality, d.PhotometricInterpretation, d.BitsStored, d.file_meta.TransferSyntaxUID.name))
    assert {p[0] for p in plain} == {"CR", "DX", "CT"}
    assert {p[1] for p in plain} == {"MONOCHROME1", "MONOCHROME2"}
    assert {8, 12} <= {p[2] for p in plain}
    assert "RLE Lossless" in {p[3] for p in plain}
    spacings = {tuple(map(float, d.ImagerPixelSpacing)) for d in images.values() if d.Modality != "CT"}
    assert len(spacings) > 3
    assert any(p.suffix != ".dcm" for p in images)


def test_inverted_plates_are_the_inverse(images: dict[Path, pydicom.FileDataset]):
    for d in images.values():
        if d.Modality == "CT":
            continue
        values = d.pixel_array / (2**d.BitsStored - 1)
        belly = values[-30:, d.Columns // 3 : 2 * d.Columns // 3].mean()  # always denser than the lungs
        lungs = values[d.Rows // 3 : d.Rows // 2, d.Columns // 4].mean()
        assert (belly < lungs) == (d.PhotometricInterpretation == "MONOCHROME1")


def test_ct_slices_make_a_volume_in_hounsfield_units(images: dict[Path, pydicom.FileDataset], truth: Truth):
    series: dict[str, list[tuple[str, pydicom.FileDataset]]] = {}
    for path, d in images.items():
        if d.Modality == "CT":
            series.setdefault(d.SeriesInstanceUID, []).append((path.name, d))
    assert len(series) == VOLUMES
    shuffled = 0
    for files in series.values():
        heights = [float(d.ImagePositionPatient[2]) for _, d in sorted(files, key=lambda f: f[0])]
        shuffled += heights != sorted(heights) and heights != sorted(heights, reverse=True)
        steps = np.diff(sorted(heights))
        assert 24 <= len(files) <= 32
        assert np.allclose(steps, float(files[0][1].SliceThickness), atol=0.01)
        hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for _, d in files])
        assert abs(np.median(hu[:, :3, :3]) + 1000) < 15
        assert hu.max() > 300  # bone
        assert (np.abs(hu + 850) < 60).mean() > 0.05  # lung
    assert shuffled == VOLUMES


def test_ct_lesions_are_denser_than_lung_where_the_truth_says(images: dict[Path, pydicom.FileDataset], truth: Truth):
    volumes = [lesion for lesion in truth.lesions if lesion.low and lesion.high and lesion.finding == "nodule"]
    slices = [d for d in images.values() if d.Modality == "CT"]
    for lesion in volumes:
        centre = np.add(lesion.low, lesion.high) / 2
        mine = [d for d in slices if d.AccessionNumber == lesion.accession]
        d = min(mine, key=lambda d: abs(float(d.ImagePositionPatient[2]) - centre[2]))
        column = round((centre[0] - float(d.ImagePositionPatient[0])) / float(d.PixelSpacing[1]))
        row = round((centre[1] - float(d.ImagePositionPatient[1])) / float(d.PixelSpacing[0]))
        assert d.pixel_array[row, column] - 1024 > -300
        assert (centre[0] > 0) == (lesion.side == "left")
    assert volumes


def test_troubles_are_there_once_each(export: Path, truth: Truth, images: dict[Path, pydicom.FileDataset]):
    why = {trouble: what for what, trouble in truth.troubles}
    assert set(why) == {
        "duplicate file",
        "truncated file",
        "text file",
        "report without a study",
        "study without a report",
    }
    hashes = list(digest(export / "dicom").values())
    assert len(hashes) - len(set(hashes)) == 1
    assert (export / why["duplicate file"]).is_file()
    with pytest.raises(InvalidDicomError):
        pydicom.dcmread(export / why["text file"])
    with pytest.raises((ValueError, AttributeError, EOFError)):
        _ = pydicom.dcmread(export / why["truncated file"], force=True).pixel_array
    reported = {row["accession_number"] for row in csv.DictReader((export / "reports.csv").open(encoding="utf-8"))}
    imaged = {d.AccessionNumber for d in images.values()}
    assert reported - imaged == {why["report without a study"]}
    assert imaged - reported == {why["study without a report"]}


def test_studies_patients_and_groups(truth: Truth, images: dict[Path, pydicom.FileDataset]):
    assert len(truth.studies) == STUDIES + VOLUMES
    assert set(truth.by_accession) == {d.AccessionNumber for d in images.values()}
    plates = [s for s in truth.studies if s.modality == "CR"]
    assert {s.phenotype for s in plates} == {"healthy", "heart failure", "pneumonia", "hyperinflation", "fibrosis"}
    assert 0.35 < np.mean([s.phenotype == "healthy" for s in plates]) < 0.6
    assert len({s.patient_id for s in plates}) < STUDIES  # some come twice
    assert all(s.abnormal == (s.phenotype != "healthy") for s in plates)
    for patient in {s.patient_id for s in truth.studies}:
        assert len({s.phenotype for s in truth.studies if s.patient_id == patient}) == 1
    sizes = {d.AccessionNumber: (d.Rows, d.Columns) for d in images.values()}
    assert all((s.rows, s.columns) == sizes[s.accession] for s in truth.studies)


def test_headers_hold_the_invented_people_and_nobody_else(export: Path, images: dict[Path, pydicom.FileDataset]):
    listed = set((export.with_name("export.truth") / "personal.txt").read_text(encoding="utf-8").splitlines())
    for d in images.values():
        assert {str(d.PatientName), d.PatientID, d.PatientBirthDate} <= listed
