"""What to ask a PACS for: values that are matched exactly, checked before they are sent and again in the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from phenotype.stage import Refused

_UID = re.compile(r"(?=.*[0-9])[0-9.]{1,64}")  # no `..`, which is a way out of an address
_DAYS = re.compile(r"(\d{8})|(\d{8})-(\d{8})|(\d{8})-|-(\d{8})")
_WILD = re.compile(r"[*?\\\x00-\x1f\x7f]")  # matched as patterns or several values; control characters
# field: (keyword, tag, longest value)
_KEYS = {
    "study_date": ("StudyDate", "00080020", 17),
    "modality": ("ModalitiesInStudy", "00080061", 16),
    "patient": ("PatientID", "00100020", 64),
    "accession": ("AccessionNumber", "00080050", 16),
    "study_uid": ("StudyInstanceUID", "0020000D", 64),
}


@dataclass(frozen=True, slots=True)
class Query:
    """Which studies are wanted, and of them which series (`modality`). Empty fields ask for anything.

    Raises Refused("query") for a value that a PACS would take for a pattern, and where nothing is asked for.
    """

    study_date: str = ""  # YYYYMMDD, or a range: YYYYMMDD-YYYYMMDD, open at either end
    modality: str = ""
    patient: str = ""
    accession: str = ""
    study_uid: str = ""

    def __post_init__(self) -> None:
        asked = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}
        if not asked.keys() - {"modality"}:
            raise Refused("query", "say which studies: by date, patient, accession or UID")
        for name, value in asked.items():
            option = "--" + name.replace("_", "-")
            if _WILD.search(value) or value != value.strip():
                raise Refused("query", f"{option} is matched exactly: no *, no ?, no \\")
            if len(value) > _KEYS[name][2]:
                raise Refused("query", f"{option} has at most {_KEYS[name][2]} characters in DICOM")
        if self.study_date and not _DAYS.fullmatch(self.study_date):
            raise Refused("query", "--study-date is YYYYMMDD or YYYYMMDD-YYYYMMDD")
        if self.study_uid and not is_uid(self.study_uid):
            raise Refused("query", "--study-uid is no UID")

    @property
    def filters(self) -> dict[str, str]:
        """As a QIDO-RS search for studies takes it."""
        return {_KEYS[f.name][0]: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}

    def wants_study(self, answer: Mapping[str, Any]) -> bool:
        """Whether an answer is what was asked for: some servers leave out filters that they do not know."""
        for name in ("patient", "accession", "study_uid"):
            wanted = getattr(self, name)
            if wanted and value_of(answer, _KEYS[name][1]) != wanted:
                return False
        return not self.study_date or self._in_range(value_of(answer, _KEYS["study_date"][1]))

    def wants_series(self, answer: Mapping[str, Any]) -> bool:
        """Whether a series of a wanted study is wanted."""
        return not self.modality or value_of(answer, "00080060") == self.modality

    def _in_range(self, day: str) -> bool:
        first, dash, last = self.study_date.partition("-")
        return bool(day) and (first <= day <= (last or "9") if dash else day == first)

    def __str__(self) -> str:
        return "&".join(f"{keyword}={value}" for keyword, value in self.filters.items())


def is_uid(text: str) -> bool:
    """Whether a text can stand as a UID in an address. Leading zeros in its parts are wrong but seen."""
    return bool(_UID.fullmatch(text))


def value_of(answer: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON as text, or empty."""
    attribute = answer.get(tag)
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    first = values[0] if isinstance(values, list) and values else None
    return str(first).strip() if isinstance(first, str | int | float) else ""


def count_of(answer: Mapping[str, Any], tag: str) -> int | None:
    """The value of a counting attribute, or None where it is not told."""
    text = value_of(answer, tag)
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None
