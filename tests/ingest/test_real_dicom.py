"""Real DICOM files of many makers: what can be read is read to the right pixels, everything else has its reason."""

import gzip
import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from sqlalchemy import func, select

from db.queries.images import image_files
from db.session import Database
from db.tables import ExportFile, Image, Task, VaultExportFile
from phenotype.imaging import encoding
from phenotype.imaging.decoding import decodable, stored_pixels
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef, Unreadable
from phenotype.imaging.header import Header
from phenotype.ingest.stage import Conservation

# By folder, kind of file (its ending where it is no plain DICOM file) and outcome; so that a change is seen. All files
# of `dicom/` in one delivery, so that copies of one object in several encodings contradict each other.
OUTCOMES = {
    ("cornerstone_wado", "", "conflict", "other_pixels"): 4,  # the CT slice again: lossless, so the next line but one
    ("cornerstone_wado", "", "duplicate", "same_object"): 2,  # ... and native or deflated
    ("cornerstone_wado", "", "ingested", ""): 6,  # a structured report is one of them
    ("dcm4che", "", "ignored", "dicomdir"): 1,
    ("dcm4che", "", "ingested", ""): 14,
    ("dcm4che", "", "quarantined", "transfer_syntax"): 1,  # JPEG XL
    ("dcmqi", "", "ignored", "archive"): 1,
    ("dcmqi", "in archive", "ingested", ""): 20,
    ("fo_dicom", "", "conflict", "other_pixels"): 1,
    ("fo_dicom", "", "ignored", "archive"): 1,
    ("fo_dicom", "", "ignored", "dicomdir"): 1,
    ("fo_dicom", "", "ignored", "not_an_image:RTImageStorage"): 1,
    ("fo_dicom", "", "ignored", "not_an_image:private"): 1,
    ("fo_dicom", "", "ingested", ""): 22,
    ("fo_dicom", "", "quarantined", "bad_structure"): 3,
    ("fo_dicom", "", "quarantined", "codestream"): 1,  # frames of a slide, smaller than the header says
    ("fo_dicom", "", "quarantined", "missing_tag:Rows"): 3,
    ("fo_dicom", "", "quarantined", "no_pixel_data"): 4,
    ("fo_dicom", "", "quarantined", "truncated"): 2,
    ("fo_dicom", "in archive", "ingested", ""): 11,
    ("robyoung_dicom_test_files", "", "conflict", "other_pixels"): 21,
    ("robyoung_dicom_test_files", "", "duplicate", "same_object"): 7,
    ("robyoung_dicom_test_files", "", "ignored", "not_an_image:RTDoseStorage"): 6,
    ("robyoung_dicom_test_files", "", "ignored", "not_an_image:RTImageStorage"): 1,
    ("robyoung_dicom_test_files", "", "ignored", "not_an_image:RTIonPlanStorage"): 2,
    ("robyoung_dicom_test_files", "", "ignored", "not_an_image:RTPlanStorage"): 1,
    ("robyoung_dicom_test_files", "", "ignored", "not_an_image:RTStructureSetStorage"): 1,
    ("robyoung_dicom_test_files", "", "ignored", "not_an_image:SegmentationStorage"): 2,
    ("robyoung_dicom_test_files", "", "ingested", ""): 30,  # here too
    ("robyoung_dicom_test_files", "", "quarantined", "missing_tag:SOPClassUID"): 3,
    ("robyoung_dicom_test_files", "", "quarantined", "not_dicom"): 1,
    ("robyoung_dicom_test_files", "", "quarantined", "truncated"): 2,
    ("robyoung_dicom_test_files", ".zst", "duplicate", ""): 13,  # of members of the archive of dcmqi, byte for byte
    ("robyoung_dicom_test_files", ".zst", "ingested", ""): 14,
}
# Kind, modality and number of slices of what is put together; single slices and pictures apart
IMAGES = {
    ("frames", "MR", 10): 1,  # several stacks without a position
    ("frames", "MR", 19): 1,  # the phases of a moving knee
    ("frames", "OT", 2): 1,
    ("frames", "US", 2): 1,
    ("volume", "CT", 2): 2,
    ("volume", "CT", 3): 2,
    ("volume", "MR", 3): 2,  # of a scout of three planes, each a volume
    ("volume", "MR", 4): 1,
    ("volume", "MR", 5): 1,
    ("volume", "MR", 20): 1,
}
# Series that are no volume: an MR with ten of its slices; two of one slice in several lossy copies
REFUSED = {"doubled_slices": 2, "missing_slices": 1}

# The same pixels in several encodings without loss, each group of one value
CT_SLICE = "cornerstone_wado/CTImage.dcm"
LOSSLESS = {
    CT_SLICE: [f"{CT_SLICE}_{name}*" for name in ("Deflated", "JPEG2000", "JPEGLS", "JPEGProcess14", "Little", "RLE")],
    "robyoung*/MR_small_implicit.dcm": [f"robyoung*/MR_small_{name}*" for name in ("big", "jp2k", "jpeg_ls", "padded")],
    "robyoung*/emri_small.dcm": [f"robyoung*/emri_small_{name}*" for name in ("RLE", "big", "jpeg_2k", "jpeg_ls")],
    "robyoung*/SC_rgb_expb.dcm": [f"robyoung*/SC_rgb_{name}.dcm" for name in ("gdcm_KY", "jpeg_gdcm")],
    "robyoung*/SC_rgb_16bit.dcm": ["robyoung*/SC_rgb_expb_16bit.dcm"],
    "robyoung*/SC_rgb_32bit.dcm": [f"robyoung*/SC_rgb_{name}_32bit.dcm" for name in ("expb", "rle")],
    "robyoung*/SC_rgb_2frame.dcm": ["robyoung*/SC_rgb_expb_2frame.dcm"],
    "robyoung*/SC_rgb_16bit_2frame.dcm": [f"robyoung*/SC_rgb_{name}_16bit_2frame.dcm" for name in ("expb", "rle")],
    "robyoung*/SC_rgb_dcmtk_ebcyn2_dcmd.dcm": ["robyoung*/SC_rgb_dcmtk_ebcys4_dcmd.dcm"],
    "robyoung*/OBXXXX1A_2frame.dcm": ["robyoung*/OBXXXX1A_rle_2frame.dcm"],
    "robyoung*/MR2_UNCI.dcm": ["robyoung*/MR2_J2KI.dcm"],
    "robyoung*/rtdose.dcm": ["robyoung*/rtdose_rle.dcm"],
    "robyoung*/rtdose_1frame.dcm": [f"robyoung*/rtdose_{name}_1frame.dcm" for name in ("expb", "rle")],
}
# With loss: the greatest and the mean difference of any pixel, of what is stored
LOSSY = {
    (CT_SLICE, f"{CT_SLICE}_JPEGProcess2_4*"): (36, 4),  # sequential, 12 bits
    (CT_SLICE, f"{CT_SLICE}_JPEGProcess6_8*"): (36, 4),  # progressive
    (CT_SLICE, f"{CT_SLICE}_JPEGProcess10_12*"): (36, 4),
    ("robyoung*/JPEG-LL.dcm", "robyoung*/JPEG-lossy.dcm"): (36, 3),
    ("robyoung*/US1_UNCI.dcm", "robyoung*/US1_J2KI.dcm"): (46, 2),
    ("fo_dicom/GH538-jpeg14sv1.dcm", "fo_dicom/GH538-jpeg1.dcm"): (18, 1),
    ("robyoung*/SC_rgb_dcmtk_ebcynp_dcmd.dcm", "robyoung*/SC_rgb_dcmtk_+eb+cy+np.dcm"): (0, 0),
    ("robyoung*/SC_rgb_dcmtk_ebcyn2_dcmd.dcm", "robyoung*/SC_rgb_jpeg_dcmtk.dcm"): (0, 0),
}


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    if not (shared_data / "dicom").is_dir():
        pytest.skip("no ../shared/data/dicom: real DICOM files are absent")
    return shared_data / "dicom"


def one(folder: Path, pattern: str) -> FileRef:
    (found,) = folder.glob(pattern)
    return FileRef(str(found))


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def test_every_real_file_has_its_outcome(real: Path, database: Database, ingest: Callable[..., Conservation]):
    ledger = ingest(database, real)
    query = select(VaultExportFile.path, VaultExportFile.member, ExportFile.state, ExportFile.reason)
    with database.reading() as session:
        outcomes: Counter[tuple[str, str, str, str]] = Counter()
        for path, member, state, reason in session.execute(
            query.join(ExportFile, ExportFile.id == VaultExportFile.file_id)
        ):
            folder = Path(path).relative_to(real.resolve()).parts[0]
            kind = "in archive" if member else ".zst" if path.endswith(".zst") else ""
            outcomes[folder, kind, state, reason] += 1
        images = {image.id: image for image in session.scalars(select(Image))}
        files = image_files(session, sorted(images))
        failed = session.execute(select(Task.reason, func.count()).where(Task.state == "failed").group_by(Task.reason))
        refused = {reason.partition(":")[0]: count for reason, count in failed}
    assert outcomes == OUTCOMES and ledger.found == sum(OUTCOMES.values())
    assert Counter((i.kind, i.modality, i.slices) for i in images.values() if i.slices > 1) == IMAGES
    assert refused == REFUSED
    for image_id, image in images.items():  # what was taken in is read, without exception
        pixels = read_pixels([FileRef(*file) for file in files[image_id].files]).pixels
        assert pixels.dtype == np.float32 and np.isfinite(pixels).all()
        assert pixels.shape[-2:] == (image.rows, image.columns)
        assert pixels.shape[:-2] == ((image.slices,) if image.slices > 1 else ())


def test_lossless_encodings_of_one_image_give_equal_pixels(real: Path):
    for first, others in LOSSLESS.items():
        expected = digest(read_pixels([one(real, first)]).pixels)
        assert {name for name in others if digest(read_pixels([one(real, name)]).pixels) != expected} == set()


def test_lossy_encodings_differ_as_little_as_told(real: Path):
    for (exact, lossy), (greatest, mean) in LOSSY.items():
        a, b = (read_pixels([one(real, name)]).pixels for name in (exact, lossy))
        difference = np.abs(a - b)
        print(lossy, difference.max(), difference.mean())
        assert 0 <= difference.max() <= greatest and difference.mean() <= mean
    assert decodable("1.2.840.10008.1.2.4.51", 12) and not decodable("1.2.840.10008.1.2.4.112", 8)


# Another reader, in a process for each file since it ends the process on some: SHA-256 of the stored pixels
ORACLE = """
import hashlib, os, sys
import gdcm
for path in sys.stdin.read().splitlines():
    if os.fork():
        os.wait()
        continue
    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if reader.Read():
        image = reader.GetImage()
        pixels = image.GetBuffer().encode("utf-8", "surrogateescape")
        print(hashlib.sha256(pixels).hexdigest(), path, flush=True)
    os._exit(0)
"""


def test_another_reader_decodes_the_same_pixels(real: Path, tmp_path: Path):
    ours: dict[str, str] = {}
    for path in [*sorted(p for p in real.rglob("*") if p.is_file() and p.suffix != ".zst"), *unpacked(real, tmp_path)]:
        try:
            with encoding.quiet():
                where = encoding.layout(path.read_bytes())
                head = Header(where, encoding.index(where))
                # colours are turned into RGB here, and left as they are there; planes of colours are in another order
                if head.text("PhotometricInterpretation").startswith("MONOCHROME") and "PixelData" in head:
                    if head.text("BitsAllocated") == "1":
                        continue  # left packed there
                    pixels = stored_pixels(head)
                    ours[str(path)] = hashlib.sha256(
                        pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
                    ).hexdigest()
        except Unreadable:
            continue
    run = subprocess.run(
        [sys.executable, "-c", ORACLE], input="\n".join(ours), capture_output=True, text=True, timeout=120, check=True
    )
    theirs = {path: found for found, path in (line.split(" ", 1) for line in run.stdout.splitlines())}
    assert {Path(path).name for path, found in theirs.items() if ours[path] != found} == set()
    assert len(theirs) >= 70
    # it refuses one without rescale of a class that it does not know, and falls over the one-frame doses
    assert sorted(Path(path).name.split("_")[0] for path in ours.keys() - theirs.keys()) == [
        "GH355.dcm", "rtdose", "rtdose", "rtdose",
    ]  # fmt: skip


def unpacked(real: Path, folder: Path) -> list[Path]:
    """The files of the set that are packed as .zst."""
    made = []
    for path in sorted(real.rglob("*.zst")):
        made.append(folder / path.stem)
        with path.open("rb") as packed, made[-1].open("wb") as file:
            zstandard.ZstdDecompressor().copy_stream(packed, file)
    return made


def test_a_real_series_lies_as_its_organs_do(
    shared_data: Path, database: Database, ingest: Callable[..., Conservation]
):
    """The organs were labelled in an array of its own, with its own axes: only the right sense of all three fits."""
    folder = shared_data / "ct_series"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/ct_series: the real CT series is absent")
    ledger = ingest(database, folder / "dicom")
    assert ledger.states == {"ingested": 20}
    with database.reading() as session:
        (image,) = session.scalars(select(Image))
        files = image_files(session, [image.id])[image.id].files
    picture = read_pixels([FileRef(*file) for file in files])
    assert picture.pixels.shape == (20, 512, 512) and picture.spacing_mm == (2.0, 0.9765625, 0.9765625)
    assert (image.view, image.left_out) == ("AXIAL", 0)
    packed = gzip.decompress((folder / "organs.nii.gz").read_bytes())
    columns, rows, slices = np.frombuffer(packed, "<i2", 3, 42)
    labels = np.frombuffer(packed, np.uint8, int(columns) * int(rows) * int(slices), 13168).reshape(
        slices, rows, columns
    )
    upright = labels[:, ::-1]  # its rows run to the front, its slices to the head, its columns to the left

    def spread(organs: np.ndarray) -> float:
        """Mean deviation of the values within an organ, HU."""
        found = np.bincount(organs.ravel())
        sums = (np.bincount(organs.ravel(), weights=picture.pixels.ravel() ** k) for k in (1, 2))
        mean, square = (total / np.maximum(found, 1) for total in sums)
        return float((np.sqrt(np.maximum(square - mean**2, 0)) * found)[1:].sum() / found[1:].sum())

    right = spread(upright)
    wrong = [spread(upright[::a, ::b, ::c]) for a in (1, -1) for b in (1, -1) for c in (1, -1)][1:]
    print(round(right, 1), [round(w, 1) for w in wrong])
    assert right < 0.8 * min(wrong)
