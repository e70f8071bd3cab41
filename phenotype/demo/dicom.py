"""Phantoms as the DICOM files that a PACS would send: radiographs (CR and DX) and CT series."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from phenotype.demo.cases import Study
from phenotype.demo.thorax import Array
from phenotype.demo.volume import Space


@dataclass(frozen=True, slots=True)
class Plate:
    """How a radiograph is written down."""

    bits: int  # stored, 8 to 14
    inverted: bool  # MONOCHROME1
    digital: bool  # DX rather than CR
    rle: bool


def draw_plate(rng: np.random.Generator) -> Plate:
    """Most are 12 bits and MONOCHROME2; about one in twenty is compressed."""
    return Plate(
        bits=int(rng.choice([8, 10, 12, 12, 12, 14])),
        inverted=bool(rng.random() < 0.2),
        digital=bool(rng.random() < 0.5),
        rle=bool(rng.random() < 0.05),
    )


def radiograph_file(study: Study, picture: Array, plate: Plate) -> FileDataset:
    """One image; `picture` is 0..1 and dense is bright."""
    assert study.view is not None  # noqa: S101 - a radiograph has one
    sop = DigitalXRayImageStorageForPresentation if plate.digital else ComputedRadiographyImageStorage
    d = _header(
        study, str(sop), "DX" if plate.digital else "CR", "image", implicit=study.seed % 7 == 0 and not plate.rle
    )
    d.SeriesDescription, d.BodyPartExamined, d.ViewPosition = "Chest PA", "CHEST", "PA"
    d.PatientOrientation = ["L", "F"]
    d.ImagerPixelSpacing = [f"{study.view.spacing:.4f}"] * 2
    if study.seed % 2:
        d.PixelSpacing = d.ImagerPixelSpacing
    if plate.digital:
        d.PresentationIntentType, d.PixelIntensityRelationship = "FOR PRESENTATION", "LOG"
        d.PixelIntensityRelationshipSign = -1 if plate.inverted else 1
    top = 2**plate.bits - 1
    values = np.rint(picture * top)
    pixels = (top - values if plate.inverted else values).astype(np.uint8 if plate.bits == 8 else np.uint16)
    _pixels(d, pixels, plate.bits)
    d.PhotometricInterpretation = "MONOCHROME1" if plate.inverted else "MONOCHROME2"
    d.WindowCenter, d.WindowWidth = str((top + 1) // 2), str(top + 1)
    if plate.rle:
        d.compress(RLELossless, generate_instance_uid=False)
    return d


def volume_files(study: Study, hu: NDArray[np.int16], space: Space) -> Iterator[FileDataset]:
    """One file a slice, from feet to head; instance numbers count from the head for every other series."""
    thick, dy, dx = space.spacing
    z0, y0, x0 = space.origin
    downwards = study.seed % 2 == 0
    for k in range(space.slices):
        d = _header(study, str(CTImageStorage), "CT", f"slice {k}", implicit=False)
        d.SeriesDescription, d.BodyPartExamined, d.PatientPosition = "Thorax 5.0", "CHEST", "HFS"
        d.InstanceNumber = space.slices - k if downwards else k + 1
        d.FrameOfReferenceUID = _uid(study, "frame")
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.ImagePositionPatient = [f"{v:.4f}" for v in (x0, y0, z0 + k * thick)]
        d.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        d.SliceLocation = f"{z0 + k * thick:.2f}"
        d.SliceThickness, d.PixelSpacing = f"{thick:.2f}", [f"{dy:.4f}", f"{dx:.4f}"]
        d.KVP, d.RescaleIntercept, d.RescaleSlope, d.RescaleType = "120", "-1024", "1", "HU"
        _pixels(d, np.clip(hu[k].astype(np.int32) + 1024, 0, 4095).astype(np.uint16), 12)
        d.PhotometricInterpretation = "MONOCHROME2"
        d.WindowCenter, d.WindowWidth = ["40", "-600"], ["400", "1500"]
        yield d


def save(d: FileDataset, path: Path) -> None:
    """Write the file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    d.save_as(path, enforce_file_format=True)


def _uid(study: Study, what: str) -> str:
    return str(generate_uid(entropy_srcs=[str(study.seed), study.accession, what]))


def _header(study: Study, sop: str, modality: str, what: str, *, implicit: bool) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop
    meta.MediaStorageSOPInstanceUID = _uid(study, what)
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID = _uid(study, "study"), _uid(study, "series")
    d.AccessionNumber, d.StudyID, d.Modality = study.accession, study.accession[-6:], modality
    person = study.person
    d.PatientName, d.PatientID, d.PatientSex = person.name, person.patient_id, person.sex
    d.PatientBirthDate, d.PatientAge = _day(person.birth), f"{study.age:03d}Y"
    d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = _day(study.day)
    d.StudyTime = d.SeriesTime = d.ContentTime = f"{7 + study.seed % 12:02d}{study.seed % 60:02d}00"
    d.StudyDescription, d.Manufacturer, d.InstitutionName = "Chest", "Phantom Works", "Imaginary General Hospital"
    d.ReferringPhysicianName = "Nemo^Ursula"
    d.SeriesNumber, d.InstanceNumber = "1", "1"
    return d


def _pixels(d: FileDataset, pixels: NDArray[np.uint8] | NDArray[np.uint16], bits: int) -> None:
    d.Rows, d.Columns = pixels.shape
    d.SamplesPerPixel, d.PixelRepresentation, d.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit = 8 * pixels.itemsize, bits, bits - 1
    d.PixelData = pixels.tobytes()
    d["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"


def _day(day: date) -> str:
    return day.strftime("%Y%m%d")
