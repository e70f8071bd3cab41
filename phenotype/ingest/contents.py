"""What delivered files hold, as plain values, and the small parsers that headers and tables share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from phenotype.executors import Refused

if TYPE_CHECKING:
    from phenotype.imaging.geometry import Vector3, Vector6


class Ignored(Refused):
    """A sound object that is not wanted, by the rule named in `code`."""


@dataclass(frozen=True, slots=True)
class DicomFile:
    """What is kept of a header. Text is stripped and empty where absent; ages are years, lengths mm.

    For an enhanced multi-frame whose frames form a stack, `position` is that of the first slice and `thickness` the
    distance between slices; where they form none, `position` is None.
    """

    sop_class: str  # keyword, or "private" for a class without one
    sop_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    modality: str
    rows: int
    columns: int
    frames: int
    patient_number: str = ""
    issuer: str = ""
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    age_years: float | None = None
    accession: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    series_description: str = ""
    body_part: str = ""
    view: str = ""
    frame_of_reference: str = ""
    series_number: str = ""
    number: int | None = None
    localiser: bool = False
    position: Vector3 | None = None
    orientation: Vector6 | None = None
    spacing: tuple[float, float] | None = None
    thickness: float | None = None
    pixel_digest: str = ""  # SHA-256 of the stored pixels, as they stand in the file
    acquisition: str = ""  # numbers that tell stacks in one series apart, as "2/1": acquisition, echo, time ...
    lossy: bool = False
    burned_in: str = ""  # text in the pixels: declared, denied, likely (by the kind of image), or empty
    view_basis: str = ""  # where `view` was read: header, code, description, contradicted; or empty
    modality_basis: str = ""  # header; class: the SOP class says otherwise, and counts; secondary: a capture
    body_part_basis: str = ""  # header, description, both, contradicted; or empty


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A PNG or JPEG: its size in pixels. Whose it is must be told by a table."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a delivered file says of a study: a report (`text`), a listed picture (`image`), or both; or the
    `refusal` why it is neither. Text is stripped and empty where nothing is said."""

    number: int  # in its file, from 1
    accession: str = ""
    study_uid: str = ""
    patient: str = ""  # the record number
    issuer: str = ""  # who gave that number
    name: str = ""  # of the patient, as the source writes it
    birth: str = ""  # as the source writes it
    sex: str = ""  # F, M, O or empty
    age_years: float | None = None
    date: str = ""  # of the examination: ISO, or empty
    modality: str = ""
    text: str = ""
    image: str = ""  # the picture's name, with folders where they are given
    view: str = ""
    key: str = ""  # what the source calls the report: all versions of one report share it
    status: str = ""  # preliminary, final, corrected, addendum, cancelled; empty where nothing is said
    issued: str = ""  # when this version was written: ISO date and time, so that text sorts; or empty
    language: str = ""  # as the source says
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Records:
    """The reports and lists of a delivered file, as they were understood."""

    rows: tuple[Record, ...] = field(repr=False)
    told: str = ""  # what was understood, in one line without any content


@dataclass(frozen=True, slots=True)
class Read:
    """What a file turned out to be. Without content, `state` and `reason` say why."""

    # SHA-256 of its bytes, for a text also of what its name says; empty where they could not be had
    digest: str
    kind: str  # dicom, picture, or a format of reports; empty where that could not be told
    content: DicomFile | PictureFile | Records | None = None
    state: str = "ingested"
    reason: str = ""


def day(text: str) -> date | None:
    """A DICOM date (YYYYMMDD, or YYYY.MM.DD as of old), an ISO date, or one with points (DD.MM.YYYY), which nobody
    writes in another order; None for anything else."""
    match = re.match(r"^(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})(?:\D.*)?$", text.strip())
    pointed = None if match else re.match(r"^(\d{1,2})\. ?(\d{1,2})\. ?(\d{4})(?:\D.*)?$", text.strip(), re.DOTALL)
    parts = match.groups() if match else pointed.groups()[::-1] if pointed else ()
    try:
        return date(*(int(part) for part in parts)) if parts else None
    except ValueError:
        return None


OLDEST = 130.0  # years; what is beyond stands for "unknown", as 999Y does


def age(text: str, born: date | None = None, seen: date | None = None) -> float | None:
    """Years from a DICOM age ("045Y", "018M", "003W", "010D") or a plain number, else from the two dates."""
    match = re.match(r"^(\d{1,3}(?:\.\d+)?)\s*([YMWD]?)$", text.strip().upper())
    if match:
        per_year = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.25}[match[2]]
        years = float(match[1]) / per_year
        if years <= OLDEST:
            return round(years, 3)
    years = (seen - born).days / 365.25 if born and seen else -1.0
    return round(years, 3) if 0 <= years <= OLDEST else None


def sex_of(text: str) -> str:
    """F, M, O or empty."""
    first = text.strip()[:1].upper()
    return {"W": "F"}.get(first, first) if first in ("F", "M", "O", "W") else ""
