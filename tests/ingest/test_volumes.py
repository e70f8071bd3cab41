"""Series as real DICOM files, built from phantoms: each is read to exactly the phantom's array, or refused with its
reason, whatever the order of the files."""

import hashlib
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_maker import CT, dicom, uid
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from phenotype.imaging.dicom import Picture, read_pixels
from phenotype.imaging.files import FileRef, Unreadable
from phenotype.ingest.arrays import LOCALISER, Assembled, InstanceRow, SeriesRow, assemble
from phenotype.ingest.dicom import read_header

SC = "1.2.840.10008.5.1.4.1.1.7"
MR, PET, ENHANCED_CT = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("4", "128", "2.1"))
SEED = 20260704
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
SHAPE = (12, 10)


def phantom(n: int = 8, shape: tuple[int, int] = SHAPE, seed: int = 0, high: int = 4096) -> np.ndarray:
    """Stored values (n, rows, columns) of which no two slices are alike."""
    return np.random.default_rng((SEED, seed)).integers(0, high, (n, *shape), dtype=np.uint16)


def hounsfield(volume: np.ndarray) -> np.ndarray:
    return volume.astype(np.float32) - np.float32(1024)


def sliced(
    pixels: np.ndarray,
    position: Sequence[float],
    orientation: tuple[tuple[float, ...], ...] = AXIAL,
    number: int | None = None,
    **attributes: Any,
) -> bytes:
    """One slice of stored 16-bit pixels as a DICOM file."""
    syntax = attributes.pop("syntax", None)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    values: dict[str, Any] = {
        "SOPClassUID": CT,
        "Modality": "CT",
        "SeriesInstanceUID": uid("series"),
        "InstanceNumber": number,
        "ImagePositionPatient": [f"{v:.9g}" for v in position],
        "ImageOrientationPatient": [f"{v:.9g}" for axis in orientation for v in axis],
        "PixelSpacing": [0.75, 0.5],
        "SliceThickness": 3,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": pixels.astype(f"{order}{pixels.dtype.kind}2").tobytes(),
    } | attributes
    name = hashlib.sha256(repr((position, number, values["PixelData"], sorted(attributes))).encode()).hexdigest()
    if values["SOPClassUID"] in (MR, PET):
        values["Modality"] = {MR: "MR", PET: "PT"}[values["SOPClassUID"]]
    if values["SOPClassUID"] == MR and "RescaleSlope" not in attributes:
        values["RescaleSlope"] = values["RescaleIntercept"] = None
    if syntax in (RLELossless, JPEGLSLossless):
        read = pydicom.dcmread(io.BytesIO(dicom(name, **values)))
        read.compress(syntax, generate_instance_uid=False)
        stream = io.BytesIO()
        read.save_as(stream)
        return stream.getvalue()
    return dicom(name, **values, **({"syntax": syntax} if syntax else {}))


def stack(
    volume: np.ndarray,
    origin: Sequence[float] = (-100.0, -120.0, -50.0),
    step: Sequence[float] = (0.0, 0.0, 2.5),
    orientation: tuple[tuple[float, ...], ...] = AXIAL,
    first: int = 1,
    turn: int = 1,
    **attributes: Any,
) -> list[bytes]:
    """The slices of a volume; `first` is the number of the first one, and `turn` -1 numbers them downwards."""
    place = [np.asarray(origin) + i * np.asarray(step) for i in range(len(volume))]
    numbers = range(first, first + len(volume))[::turn]
    return [
        sliced(pixels, at, orientation, n, **attributes) for pixels, at, n in zip(volume, place, numbers, strict=True)
    ]


@dataclass
class Case:
    """Files of one series, and what must come of them: volumes and other images, or a refusal."""

    files: list[bytes]
    volumes: list[np.ndarray] = field(default_factory=list)
    refused: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    frames: list[np.ndarray] = field(default_factory=list)
    spacing: tuple[float, ...] = (2.5, 0.75, 0.5)
    view: str = "AXIAL"


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


# -- order, sense and spacing


@case
def numbered_upwards() -> Case:
    v = phantom()
    return Case(stack(v), [hounsfield(v)])


@case
def numbered_downwards() -> Case:
    v = phantom()
    return Case(stack(v, turn=-1), [hounsfield(v)])


@case
def numbers_that_lie() -> Case:
    v = phantom()
    files = [f for i in (3, 1, 7, 0, 2, 6, 4, 5) for f in stack(v[i : i + 1], (0, 0, 2.5 * i), first=100 - (i * 5) % 8)]
    return Case(files, [hounsfield(v)])


@case
def without_numbers() -> Case:
    v = phantom()
    return Case([sliced(p, (0, 0, 2.5 * i)) for i, p in enumerate(v)], [hounsfield(v)])


@case
def columns_that_run_to_the_front() -> Case:  # the normal points to the feet: still read upwards
    v = phantom()
    return Case(stack(v, orientation=((1, 0, 0), (0, -1, 0))), [hounsfield(v)])


@case
def prone() -> Case:
    v = phantom()
    return Case(stack(v, orientation=((-1, 0, 0), (0, -1, 0))), [hounsfield(v)])


@case
def coronal() -> Case:
    v = phantom()
    return Case(stack(v, step=(0, 2.5, 0), orientation=CORONAL), [hounsfield(v)], view="CORONAL")


@case
def sagittal() -> Case:
    v = phantom()
    return Case(stack(v, step=(2.5, 0, 0), orientation=SAGITTAL), [hounsfield(v)], view="SAGITTAL")


def turned(degrees: float) -> tuple[tuple[tuple[float, ...], ...], np.ndarray]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return ((1.0, 0.0, 0.0), (0.0, c, s)), np.array([0.0, -s, c])


@case
def oblique() -> Case:
    v, (orientation, normal) = phantom(), turned(20)
    return Case(stack(v, step=3.0 * normal, orientation=orientation), [hounsfield(v)], spacing=(3.0, 0.75, 0.5))


@case
def oblique_by_half_a_right_angle() -> Case:  # as near to axial as to coronal: rounding must not decide
    v, (orientation, normal) = phantom(), turned(45)
    return Case(stack(v, step=3.0 * normal, orientation=orientation), [hounsfield(v)], spacing=(3.0, 0.75, 0.5))


@case
def doubly_oblique() -> Case:
    row = np.array([0.9, 0.3, 0.1]) / np.linalg.norm([0.9, 0.3, 0.1])
    normal = np.cross(row, [-0.2, 0.9, 0.2])
    normal /= np.linalg.norm(normal)
    orientation = (tuple(row), tuple(np.cross(normal, row)))
    v = phantom()
    return Case(stack(v, step=1.25 * normal, orientation=orientation), [hounsfield(v)], spacing=(1.25, 0.75, 0.5))


@case
def positions_rounded_to_a_tenth() -> Case:
    v = phantom()
    files = [sliced(p, (0, 0, round(1.25 * i * 1.003, 1)), number=i) for i, p in enumerate(v)]
    return Case(files, [hounsfield(v)], spacing=(round(8.8 / 7, 6), 0.75, 0.5))


@case
def orientations_that_tremble() -> Case:
    v = phantom()
    files = [
        sliced(p, (0, 0, 2.5 * i), ((1, 0.0004 * (-1) ** i + 0.0001 * i, 0), (0, 1, 0)), i) for i, p in enumerate(v)
    ]
    return Case(files, [hounsfield(v)])


@case
def two_slices() -> Case:
    v = phantom(2)
    return Case(stack(v), [hounsfield(v)])


@case
def one_slice() -> Case:
    v = phantom(1)
    return Case(stack(v), [hounsfield(v)[0]], spacing=(3.0, 0.75, 0.5))


@case
def one_slice_of_unknown_thickness() -> Case:
    v = phantom(1)
    return Case(stack(v, SliceThickness=None), frames=[hounsfield(v)[0]])


# -- missing, doubled, uneven


@case
def a_slice_is_missing() -> Case:
    files = stack(phantom())
    return Case([*files[:3], *files[4:]], refused="missing_slices")


@case
def several_slices_are_missing() -> Case:
    files = stack(phantom(12))
    return Case([*files[:3], *files[4:6], *files[8:]], refused="missing_slices")


@case
def the_end_is_missing() -> Case:  # nothing tells that: what is there is read
    v = phantom()
    return Case(stack(v)[:6], [hounsfield(v[:6])])


@case
def a_slice_came_twice() -> Case:
    v = phantom()
    return Case([*stack(v), *stack(v[2:3], (-100, -120, -45), first=90)], [hounsfield(v)], left_out={"same_slice": 1})


@case
def everything_came_twice() -> Case:
    v = phantom()
    return Case(stack(v) + stack(v, first=101), [hounsfield(v)], left_out={"same_slice": 8})


@case
def a_position_has_two_contents() -> Case:
    v, other = phantom(), phantom(1, seed=1)
    return Case([*stack(v), *stack(other, (-100, -120, -45), first=90)], refused="doubled_slices")


@case
def uneven_distances() -> Case:
    v = phantom()
    files = [sliced(p, (0, 0, 2.5 * i + (1.1 if i > 4 else 0)), number=i) for i, p in enumerate(v)]
    return Case(files, refused="uneven_spacing")


# -- several stacks in one series


def phases(n: int, label: str, **attributes: Any) -> Case:
    volumes = [phantom(seed=k) for k in range(n)]
    made = [stack(v, first=1 + 8 * k, **{label: k + 1}, **attributes) for k, v in enumerate(volumes)]
    expected = [v.astype(np.float32) if attributes else hounsfield(v) for v in volumes]
    return Case([f for files in made for f in files], expected)


@case
def two_acquisitions() -> Case:
    return phases(2, "AcquisitionNumber")


@case
def two_echoes() -> Case:
    return phases(2, "EchoNumbers", SOPClassUID=MR)


@case
def three_times() -> Case:
    return phases(3, "TemporalPositionIdentifier", SOPClassUID=MR)


@case
def four_b_values() -> Case:
    return phases(4, "DiffusionBValue", SOPClassUID=MR)


@case
def two_phases_numbered_one_after_the_other() -> Case:
    a, b = phantom(), phantom(seed=1)
    return Case(stack(a) + stack(b, first=9), [hounsfield(a), hounsfield(b)])


@case
def three_phases_numbered_place_by_place() -> Case:
    volumes = [phantom(seed=k) for k in range(3)]
    files = [sliced(v[i], (0, 0, 2.5 * i), number=1 + 3 * (7 - i) + k) for k, v in enumerate(volumes) for i in range(8)]
    return Case(files, [hounsfield(v) for v in volumes])


@case
def two_phases_numbered_without_a_system() -> Case:
    numbers = random.Random(SEED).sample(range(1, 100), 16)
    files = [
        sliced(p, (0, 0, 2.5 * i), number=numbers.pop()) for k in range(2) for i, p in enumerate(phantom(8, seed=k))
    ]
    return Case(files, refused="doubled_slices")


@case
def two_phases_without_numbers() -> Case:
    files = [sliced(p, (0, 0, 2.5 * i)) for k in range(2) for i, p in enumerate(phantom(8, seed=k))]
    return Case(files, refused="doubled_slices")


@case
def empty_slices_of_two_phases_are_no_doubles() -> Case:
    a, b = phantom(), phantom(seed=1)
    a[-1], b[-1] = 0, 0
    return Case(stack(a) + stack(b, first=9), [hounsfield(a), hounsfield(b)])


@case
def phases_that_lie_between_each_other() -> Case:  # as one stack it would be even, and mix two phases
    a, b = phantom(), phantom(seed=1)
    return Case(
        stack(a, AcquisitionNumber=1) + stack(b, (-100, -120, -48.75), AcquisitionNumber=2, first=9),
        [hounsfield(a), hounsfield(b)],
    )


@case
def step_and_shoot() -> Case:
    v = phantom(9)
    files = [sliced(p, (0, 0, 2.5 * i), number=i, AcquisitionNumber=1 + i // 3) for i, p in enumerate(v)]
    return Case(files, [hounsfield(v)])


@case
def an_acquisition_each() -> Case:
    v = phantom(9)
    files = [sliced(p, (0, 0, 2.5 * i), number=i, AcquisitionNumber=i) for i, p in enumerate(v)]
    return Case(files, [hounsfield(v)])


@case
def a_gap_between_acquisitions() -> Case:
    v = phantom(9)
    files = [sliced(p, (0, 0, 2.5 * i), number=i, AcquisitionNumber=1 + i // 4) for i, p in enumerate(v) if i != 4]
    return Case(files, refused="missing_slices")


@case
def a_phase_lost_a_slice() -> Case:
    made = phases(3, "AcquisitionNumber")
    del made.files[8 + 3]
    return Case(made.files, [made.volumes[0], made.volumes[2]], left_out={"missing_slices": 7})


@case
def most_phases_lost_a_slice() -> Case:
    made = phases(3, "AcquisitionNumber")
    del made.files[16 + 3], made.files[8 + 3]
    return Case(made.files, refused="doubled_slices")


@case
def bolus_tracking_before_the_scan() -> Case:
    v, tracked = phantom(9), phantom(4, seed=1)
    tracking = stack(tracked, (-100, -120, -45), step=(0, 0, 0), AcquisitionNumber=1)
    return Case(tracking + stack(v, AcquisitionNumber=2, first=5), [hounsfield(v)], left_out={"doubled_slices": 4})


@case
def two_distances() -> Case:
    a, b = phantom(), phantom(6, seed=1)
    files = stack(a) + stack(b, (-100, -120, -25), step=(0, 0, 5), first=9, SliceThickness=5)
    return Case(files, [hounsfield(a), hounsfield(b)], spacing=())


@case
def times_that_differ_with_each_slice() -> Case:  # cardiac phases: TriggerTime tells nothing, the numbers do
    volumes = [phantom(seed=k) for k in range(3)]
    files = [
        sliced(
            p,
            (0, 0, 2.5 * i),
            number=1 + 3 * i + k,
            SOPClassUID=MR,
            TriggerTime=round(40 * k + 1.7 * i, 1),
            EchoTime=1.5,
        )
        for k, v in enumerate(volumes)
        for i, p in enumerate(v)
    ]
    return Case(files, [v.astype(np.float32) for v in volumes])


@case
def an_acquisition_each_in_two_phases() -> Case:
    volumes = [phantom(seed=k) for k in range(2)]
    files = [
        sliced(p, (0, 0, 2.5 * i), SOPClassUID=MR, AcquisitionNumber=1 + 8 * k + i, TemporalPositionIdentifier=k + 1)
        for k, v in enumerate(volumes)
        for i, p in enumerate(v)
    ]
    return Case(files, [v.astype(np.float32) for v in volumes])


@case
def a_dynamic_pet() -> Case:
    volumes = [phantom(seed=k) for k in range(3)]
    files = [
        sliced(p, (0, 0, 2.5 * i), number=1 + 8 * k + i, SOPClassUID=PET, FrameReferenceTime=1000.5 * (k + 1))
        for k, v in enumerate(volumes)
        for i, p in enumerate(v)
    ]
    return Case(files, [hounsfield(v) for v in volumes])


# -- what does not belong together


@case
def a_localiser_inside() -> Case:
    v = phantom()
    scout = sliced(phantom(1, (16, 16))[0], (0, 0, 0), CORONAL, 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return Case([scout, *stack(v)], [hounsfield(v)], left_out={"localiser": 1})


@case
def nothing_but_localisers() -> Case:
    return Case(stack(phantom(3), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))


@case
def two_planes() -> Case:
    a, b = phantom(), phantom(5, seed=1)
    return Case(
        stack(a) + stack(b, step=(0, 2.5, 0), orientation=CORONAL, first=9), [hounsfield(a), hounsfield(b)], view=""
    )


@case
def strays_of_another_plane() -> Case:
    v = phantom()
    strays = stack(phantom(2, seed=1), step=(2.5, 0, 0), orientation=SAGITTAL, first=9)
    return Case(stack(v) + strays, [hounsfield(v)], left_out={"other_orientation": 2})


@case
def three_planes_of_one_slice() -> Case:
    planes = (AXIAL, CORONAL, SAGITTAL)
    files = [sliced(p, (0, 0, 0), o, i) for i, (p, o) in enumerate(zip(phantom(3), planes, strict=True))]
    return Case(files, refused="mixed_orientation")


@case
def two_sizes() -> Case:
    a, b = phantom(6), phantom(4, (8, 8), seed=1)
    return Case(stack(a) + stack(b, first=9), [hounsfield(a), hounsfield(b)])


@case
def a_stray_of_another_size() -> Case:
    v = phantom()
    stray = stack(phantom(1, (16, 16)), first=9)
    return Case(stack(v) + stray, [hounsfield(v)], left_out={"other_size": 1})


@case
def two_fields_of_view() -> Case:
    a, b = phantom(6), phantom(6, seed=1)
    return Case(stack(a) + stack(b, PixelSpacing=[0.4, 0.4], first=9), [hounsfield(a), hounsfield(b)], spacing=())


@case
def a_screen_shot_inside() -> Case:
    v = phantom()
    shot = np.arange(48, dtype=np.uint8).reshape(8, 6)
    picture = dicom("shot", SOPClassUID=SC, Modality="CT", SeriesInstanceUID=uid("series"), PixelData=shot.tobytes())
    return Case([*stack(v), picture], [hounsfield(v)], frames=[shot.astype(np.float32)])


@case
def no_positions() -> Case:
    return Case(
        [sliced(p, (), number=i, ImagePositionPatient=None) for i, p in enumerate(phantom())], refused="no_position"
    )


@case
def one_without_position() -> Case:
    v = phantom()
    lost = sliced(phantom(1, seed=1)[0], (), number=9, ImagePositionPatient=None)
    return Case([*stack(v), lost], [hounsfield(v)], left_out={"no_position": 1})


@case
def no_pixel_spacing() -> Case:
    return Case(stack(phantom(), PixelSpacing=None), refused="no_spacing")


@case
def directions_not_at_right_angles() -> Case:
    return Case(stack(phantom(), orientation=((1, 0, 0), (1, 0, 0))), refused="no_position")


# -- a tilted gantry


def sheared(volume: np.ndarray, columns_each: float, padding: float) -> np.ndarray:
    """Each slice moved down by `columns_each` rows for each slice above the middle, half pixels as means."""
    middle, straight = (len(volume) - 1) / 2, np.empty(volume.shape, np.float32)
    for i, pixels in enumerate(volume):
        whole, half = divmod(round((i - middle) * columns_each * 2), 2)
        rows = np.arange(volume.shape[1])
        fill = pixels.min()

        def at(r: np.ndarray, pixels: np.ndarray = pixels, fill: float = fill) -> np.ndarray:
            known = (r >= 0) & (r < len(pixels))
            return np.where(known[:, None], pixels[np.clip(r, 0, len(pixels) - 1)], fill)

        moved = at(rows - whole)
        if half:
            between = (rows - whole - 1 >= 0) & (rows - whole < len(pixels))
            moved = np.where(between[:, None], (at(rows - whole) + at(rows - whole - 1)) / 2, fill)
        straight[i] = moved
    return straight


@case
def a_tilted_gantry() -> Case:  # half a row of 0.75 mm on 2.5 mm: 8.5 degrees
    v = phantom(9)
    files = stack(v, step=(0, 0.375, 2.5))
    return Case(files, [sheared(hounsfield(v), 0.5, 0)], left_out={"gantry_tilt_corrected": 0})


@case
def a_gantry_tilted_the_other_way() -> Case:
    v = phantom(8)
    files = stack(v, step=(0, -0.75, 2.5))
    return Case(files, [sheared(hounsfield(v), -1.0, 0)], left_out={"gantry_tilt_corrected": 0})


@case
def a_gantry_that_moved() -> Case:
    files = [sliced(p, (0, 0.3 * i * i, 2.5 * i), number=i) for i, p in enumerate(phantom())]
    return Case(files, refused="gantry_tilt")


@case
def a_gantry_tilted_too_far() -> Case:
    return Case(stack(phantom(), step=(0, 2.5, 2.5)), refused="gantry_tilt")


@case
def a_gantry_tilted_by_a_quarter_degree() -> Case:
    v = phantom()
    return Case(stack(v, step=(0, 0.01, 2.5)), [hounsfield(v)])


# -- the values of pixels


@case
def negatives_in_a_series_in_hounsfield_units() -> Case:  # a unit is not turned by the way it is to be shown
    v = phantom()
    files = stack(v)[:5] + stack(v, PhotometricInterpretation="MONOCHROME1")[5:]
    return Case(files, [hounsfield(v)])


@case
def negatives_in_a_series_without_unit() -> Case:
    v = phantom()
    negative = stack(4095 - v, SOPClassUID=MR, PhotometricInterpretation="MONOCHROME1")
    return Case(stack(v, SOPClassUID=MR)[:5] + negative[5:], [v.astype(np.float32)])


@case
def a_rescale_for_each_slice() -> Case:
    v = phantom()
    slopes = [round(0.1234567 * (i + 1), 7) for i in range(8)]
    files = [
        sliced(p, (0, 0, 2.5 * i), number=i, SOPClassUID=PET, RescaleSlope=str(s), RescaleIntercept="0")
        for i, (p, s) in enumerate(zip(v, slopes, strict=True))
    ]
    return Case(
        files, [np.stack([(p.astype(np.float64) * s).astype(np.float32) for p, s in zip(v, slopes, strict=True)])]
    )


@case
def overlays_in_unused_bits() -> Case:
    v = phantom()
    dirty = v | (np.random.default_rng(SEED).integers(0, 16, v.shape).astype(np.uint16) << 12)
    return Case(stack(dirty), [hounsfield(v)])


@case
def signed_pixels_with_overlays() -> Case:
    v = phantom().astype(np.int16) - 2048
    dirty = (v & 0x0FFF) | (np.random.default_rng(SEED).integers(0, 16, v.shape).astype(np.uint16) << 12).astype(
        np.int16
    )
    return Case(stack(dirty, PixelRepresentation=1), [hounsfield(v)])


@case
def pixels_in_the_upper_bits() -> Case:
    v = phantom()
    return Case(stack((v << 3) | 5, HighBit=14), [hounsfield(v)])


@case
def padding_around_the_field_of_view() -> Case:
    v = phantom().astype(np.int16)
    expected = v.copy()
    v[:, :2] = -2000
    for p in expected:
        p[:2] = p[2:].min()
    files = stack(v, PixelRepresentation=1, PixelPaddingValue=-2000, BitsStored=16, HighBit=15)
    return Case(files, [hounsfield(expected)])


@case
def a_transfer_syntax_each() -> Case:
    v = phantom()
    kinds = [
        None,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        DeflatedExplicitVRLittleEndian,
        JPEGLSLossless,
    ]
    files = [sliced(p, (0, 0, 2.5 * i), number=i, syntax=kinds[i % 6]) for i, p in enumerate(v)]
    return Case(files, [hounsfield(v)])


@case
def an_odd_number_of_bytes() -> Case:
    v = phantom(3, (5, 5), high=256)
    files = [
        sliced(
            p,
            (0, 0, 2.5 * i),
            number=i,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelData=p.astype("u1").tobytes() + b"\0",
        )
        for i, p in enumerate(v)
    ]
    return Case(files, [hounsfield(v)])


# -- multi-frame objects


def enhanced(
    volume: np.ndarray, places: Sequence[Sequence[float]], slopes: Sequence[float] = (), name: int = 1
) -> bytes:
    """An enhanced CT: what the frames share in one sequence, the position and rescale of each in the other."""

    def group(**values: Any) -> Dataset:
        made = Dataset()
        for keyword, value in values.items():
            setattr(made, keyword, value)
        return made

    def rescale(slope: float) -> list[Dataset]:
        return [group(RescaleSlope=f"{slope:.10g}", RescaleIntercept="-1024", RescaleType="HU")]

    shared = group(
        PlaneOrientationSequence=[group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[group(PixelSpacing=[0.75, 0.5], SliceThickness=3)],
    )
    if not slopes:
        shared.PixelValueTransformationSequence = rescale(1)
    own = [group(PlanePositionSequence=[group(ImagePositionPatient=[str(v) for v in place])]) for place in places]
    for frame, slope in zip(own, slopes, strict=False):
        frame.PixelValueTransformationSequence = rescale(slope)
    return sliced(
        volume[0],
        (),
        number=name,
        SOPClassUID=ENHANCED_CT,
        NumberOfFrames=len(volume),
        PixelData=volume.astype("<u2").tobytes(),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
        **dict.fromkeys(
            (
                "ImagePositionPatient",
                "ImageOrientationPatient",
                "PixelSpacing",
                "SliceThickness",
                "RescaleSlope",
                "RescaleIntercept",
            )
        ),
    )


@case
def enhanced_objects_of_one_frame() -> Case:
    v = phantom()
    slopes = [0.5 * (i + 1) for i in range(8)]
    files = [enhanced(v[i : i + 1], [(0, 0, 2.5 * i)], slopes[i : i + 1], name=i) for i in range(8)]
    return Case(files, [np.stack([p * np.float32(s) - np.float32(1024) for p, s in zip(v, slopes, strict=True)])])


@case
def frames_in_order() -> Case:
    v = phantom()
    return Case([enhanced(v, [(0, 0, 2.5 * i) for i in range(8)])], [hounsfield(v)])


@case
def frames_the_other_way_round() -> Case:
    v = phantom()
    return Case([enhanced(v[::-1], [(0, 0, 2.5 * (7 - i)) for i in range(8)])], [hounsfield(v)])


@case
def frames_with_a_rescale_each() -> Case:
    v = phantom()
    slopes = [0.1 * (i + 1) for i in range(8)]
    expected = [
        (p.astype(np.float64) * float(f"{s:.10g}") - 1024).astype(np.float32) for p, s in zip(v, slopes, strict=True)
    ]
    return Case([enhanced(v, [(0, 0, 2.5 * i) for i in range(8)], slopes)], [np.stack(expected)])


@case
def frames_with_a_gap() -> Case:  # no volume: frames as they stand
    v = phantom()
    return Case([enhanced(v, [(0, 0, 2.5 * i + (2.5 if i > 3 else 0)) for i in range(8)])], frames=[hounsfield(v)])


@case
def frames_of_two_stacks() -> Case:
    v = phantom()
    return Case([enhanced(v, [(0, 0, 2.5 * (i % 4)) for i in range(8)])], frames=[hounsfield(v)])


@case
def frames_of_a_tilted_gantry() -> Case:
    v = phantom()
    return Case([enhanced(v, [(0, 0.75 * i, 2.5 * i) for i in range(8)])], frames=[hounsfield(v)])


@case
def a_multiframe_beside_slices() -> Case:
    a, b = phantom(), phantom(seed=1)
    return Case([*stack(a), enhanced(b, [(0, 0, 2.5 * i) for i in range(8)])], [hounsfield(a), hounsfield(b)])


# -- the way that ingestion goes, without a database


def row(name: str, data: bytes) -> tuple[InstanceRow, str]:
    head = read_header(data)
    made = InstanceRow(
        id=name,
        sop_class=head.sop_class,
        number=head.number,
        rows=head.rows,
        columns=head.columns,
        frames=head.frames,
        view=LOCALISER if head.localiser else head.view,
        position=head.position,
        orientation=head.orientation,
        spacing=head.spacing,
        thickness=head.thickness,
        acquisition=head.acquisition,
        pixel_hash=head.pixel_digest or None,
    )
    return made, head.modality


def ingested(files: Sequence[bytes], order: Sequence[int], folder: Path) -> list[tuple[Assembled, Picture]]:
    """The images of a series whose files come in this order."""
    refs, rows, modalities = {}, [], set()
    for place, i in enumerate(order):
        path = folder / f"{place:03}"
        path.write_bytes(files[i])
        made, modality = row(path.name, files[i])
        refs[made.id] = FileRef(str(path))
        rows.append(made)
        modalities.add(modality)
    assert len(modalities) == 1
    images = assemble(SeriesRow("series", "study", modalities.pop(), tuple(rows)))
    return [(image, read_pixels([refs[name] for name in image.instances])) for image in images]


def digests(arrays: Sequence[np.ndarray]) -> list[str]:
    return sorted(
        hashlib.sha256(repr(a.shape).encode() + np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays
    )


def orders(count: int) -> list[list[int]]:
    shuffled = list(range(count))
    random.Random(SEED).shuffle(shuffled)
    return [shuffled, shuffled[::-1]]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_series_is_read_exactly_or_refused(name: str, tmp_path: Path):
    print(f"seed {SEED}")
    made = CASES[name]()
    for order in orders(len(made.files)):
        if made.refused:
            with pytest.raises(Unreadable) as refused:
                ingested(made.files, order, tmp_path)
            assert refused.value.code == made.refused
            continue
        images = ingested(made.files, order, tmp_path)
        volumes = [(image, picture) for image, picture in images if image.kind == "volume"]
        others = [picture.pixels for image, picture in images if image.kind != "volume"]
        assert all(picture.pixels.dtype == np.float32 for _, picture in images)
        assert digests([picture.pixels for _, picture in volumes]) == digests(made.volumes)
        assert digests(others) == digests(made.frames)
        for image, picture in volumes:
            assert image.slices == (1 if picture.pixels.ndim == 2 else len(picture.pixels))
            if picture.pixels.ndim == 3:
                assert picture.spacing_mm == image.spacing
            if made.spacing:
                assert image.spacing == pytest.approx(made.spacing, abs=1e-6)
            assert not made.view or image.view in (made.view, "")
            assert picture.tilt_corrected == ("gantry_tilt_corrected" in made.left_out)
        left: dict[str, int] = {}
        for image, _ in images:
            for reason, count in image.left_out.items():
                left[reason] = left.get(reason, 0) + count
        assert left == made.left_out
        # conservation: an instance is in one image, or left out
        placed = [i for image, _ in images for i in image.instances]
        assert len(placed) == len(set(placed)) and (not images or len(placed) + sum(left.values()) == len(made.files))


def test_there_are_enough_cases():
    assert len(CASES) >= 40


@pytest.mark.parametrize("by", ["file name", "InstanceNumber"])
def test_any_other_order_gives_another_volume(by: str, tmp_path: Path):
    """The control: were slices sorted like this, the digests would not be those of the phantoms."""
    print(f"seed {SEED}")
    wrong = 0
    for name in ("numbered_downwards", "numbers_that_lie", "oblique", "coronal"):
        made = CASES[name]()
        files = [made.files[i] for i in orders(len(made.files))[0]]
        if by == "InstanceNumber":
            files.sort(key=lambda data: read_header(data).number or 0)
        refs = []
        for i, data in enumerate(files):
            (tmp_path / f"{i:03}").write_bytes(data)
            refs.append(FileRef(str(tmp_path / f"{i:03}")))
        wrong += digests([read_pixels(refs).pixels]) != digests(made.volumes)
    assert wrong == (4 if by == "file name" else 2)
