"""What a DICOM data set says of people, and the search for it in what is left of the data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any, Final, TypeVar

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from phenotype.export.scrub_names import Known

Value = TypeVar("Value")

PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_TEXT_VR: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI",
                             "UR", "UT"})  # fmt: skip
_BINARY_VR: Final = frozenset({"OB", "OW", "UN"})
_UNTOUCHED: Final = frozenset({tag_for_keyword("PhotometricInterpretation"), tag_for_keyword("SOPClassUID")})
_DAY: Final = re.compile(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})", re.ASCII)
_NUMBERED: Final = frozenset(
    tag_for_keyword(k)
    for k in (
        "PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "MedicalRecordLocator",
        "PatientTelephoneNumbers", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
        "InsurancePlanIdentification", "ServiceEpisodeID", "MilitaryRank",
    )
)  # fmt: skip
_PHRASED: Final = frozenset(
    tag_for_keyword(k)
    for k in ("PatientAddress", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
              "PatientInstitutionResidence", "CurrentPatientLocation", "RegionOfResidence", "Occupation")
)  # fmt: skip


def known_of(data: Dataset) -> Known:
    """What a data set itself says of people: names, numbers, addresses, days of birth, at every depth."""
    names: list[str] = []
    others: list[str] = []
    numbers: list[str] = []
    phrases: list[str] = []
    births: list[date] = []
    for element in _readable(data):
        tag, found = int(element.tag), values(element.value)
        if element.VR == "PN":
            (names if element.tag.group == 0x0010 else others).extend(found)
        elif tag in _NUMBERED:
            numbers.extend(found)
        elif tag in _PHRASED:
            phrases.extend(found)
        elif tag == 0x00100030:
            births.extend(born for value in found if (born := day(value)))
    return Known(_once(names), _once(others), _once(numbers), _once(births), _once(phrases))


def _once(found: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(found))


def _readable(data: Dataset) -> Iterable[Any]:
    """Every element of a data set and of its sequences that can be read."""
    for tag in list(data.keys()):
        if int(tag) in PIXELS:
            continue
        try:
            element = data[tag]
        except Exception:  # noqa: S112  (pydicom fails in many ways; what cannot be read is removed later)
            continue
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _readable(item)


def sweep(data: Dataset, pattern: re.Pattern[str], counts: Counter[str]) -> None:
    """Remove every element in whose value `pattern` is found, at every depth, but for pixels and UIDs."""
    for tag in list(data.keys()):
        if int(tag) in PIXELS or int(tag) in _UNTOUCHED:
            continue
        element = data[tag]
        if element.VR == "SQ":
            for item in element.value:
                sweep(item, pattern, counts)
        elif element.VR in _TEXT_VR and element.VR != "UI" and any(pattern.search(v) for v in values(element.value)):
            del data[tag]
            counts["swept"] += 1
        elif element.VR in _BINARY_VR and isinstance(element.value, bytes):
            texts = (element.value.decode(charset, "replace") for charset in ("latin-1", "utf-8", "utf-16-le"))
            if any(pattern.search(text) for text in texts):
                del data[tag]
                counts["swept"] += 1


def values(value: Any) -> list[str]:
    """The values of an element as text."""
    if value is None:
        return []
    if isinstance(value, MultiValue | list | tuple):
        return [str(v) for v in value]
    return [str(value)]


def day(text: str) -> date | None:
    """A date of DICOM, old or new; None for anything else."""
    match = _DAY.fullmatch(text.strip())
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None
