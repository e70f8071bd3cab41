"""De-identification of a DICOM data set by the Basic Profile of PS3.15 Annex E and its options.

The table of attributes is the newest that the dicom-anonymizer package carries. What the table is silent on is judged
by its value representation, and stricter than the standard asks: names of people, free text, network titles, unknown
and private attributes go, and of short texts all that are not listed as technical; dates are shifted, UIDs are
replaced. At the end everything that is left is searched for
what is known of the person.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import importlib
import pkgutil
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import metadata, resources
from typing import Any, Final, TypeVar

from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

from phenotype.export.deidentify_known import PIXELS, known_of, sweep, values
from phenotype.export.deidentify_known import day as day_of
from phenotype.export.scrub_names import Known, sweep_pattern

Value = TypeVar("Value")

PROFILE: Final = ("113100", "Basic Application Confidentiality Profile")
_CLEAN_PIXELS: Final = ("113101", "Clean Pixel Data Option")
_OPTION_CODES: Final = {  # CID 7050
    "descriptors": ("113105", "Clean Descriptors Option"),
    "characteristics": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "safe_private": ("113111", "Retain Safe Private Option"),
}
_MODIFIED_DATES: Final = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")

_TIMES: Final = frozenset({"DA", "DT", "TM"})
_BORN: Final = frozenset({0x00100030, 0x00100032})  # no option keeps when somebody was born
_GONE_VR: Final = frozenset({"PN", "ST", "LT", "UT", "UC", "UR", "AE", "UN", "OB"})  # where the table is silent
_KEPT_OB: Final = frozenset({tag_for_keyword("ICCProfile")})
_CODE: Final = re.compile(r"[A-Z0-9 _.\-+/]{0,64}", re.ASCII)
_DECIMAL: Final = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_CLOCK: Final = re.compile(r"[\d:.]{2,16}", re.ASCII)
_MOMENT: Final = re.compile(r"(\d{8})(\d{0,6}(?:\.\d{1,6})?(?:[+-]\d{4})?)", re.ASCII)
_DUMMIES: Final = {
    "DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y", "DS": "0", "IS": "0", "UR": "urn:removed",
    "OB": b"\0\0", "OW": b"\0\0", "UN": b"\0\0",
}  # fmt: skip
_SHORT: Final = re.compile(r"\d{1,3}(?:mm|cm|kv|mas|s|ms|x\d{1,3})?|[a-z]\d?")
_NUMBERS: Final = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})


@dataclass(frozen=True, slots=True)
class Options:
    """Which options of the profile are used beside the basic one. Without `modified_dates` all dates and times go."""

    modified_dates: bool = True
    characteristics: bool = False  # sex, age (over 89 becomes 90), size, weight ... stay
    device: bool = False
    descriptors: bool = False  # descriptions stay where they are made of listed words alone
    safe_private: bool = False
    uids: bool = False

    def codes(self, *, clean_pixels: bool = False) -> list[tuple[str, str]]:
        """Codes and meanings of CID 7050: the profile, then each option that was used."""
        used = [code for name, code in _OPTION_CODES.items() if getattr(self, name)]
        dates = [_MODIFIED_DATES] if self.modified_dates else []
        return [PROFILE, *([_CLEAN_PIXELS] if clean_pixels else []), *sorted([*used, *dates])]


@dataclass(frozen=True, slots=True)
class Person:
    """Whose object it is: the pseudonym, by how many days dates move back, and what is known of the person."""

    pseudonym: str
    days: int = field(repr=False)
    known: Known = field(default=Known(), repr=False)


def uid_key(key: bytes) -> bytes:
    """The secret from which UIDs are made, itself made from the secret of the database."""
    return hmac.new(key, b"uids of exported objects", hashlib.sha256).digest()


def mapped_uid(key: bytes, uid: str) -> str:
    """A UID below 2.25: the same for the same UID, and no way back without the key. What the standard defines stays."""
    if not uid or uid in UID_dictionary:
        return uid
    return f"2.25.{int.from_bytes(hmac.new(key, uid.encode('utf-8', 'surrogatepass'), hashlib.sha256).digest()[:16])}"


@functools.cache
def edition() -> str:
    """Which edition of the standard the table is from, as "2026c"."""
    tables = importlib.import_module("dicomanonymizer.dicom_anonymization_databases")
    return max(name.removeprefix("dicomfields_") for _, name, _ in pkgutil.iter_modules(tables.__path__))


@functools.cache
def table() -> dict[int, str]:
    """Tag -> action code of Table E.1-1 ("X", "Z", "D", "U" and their combinations). Curves and overlays are apart."""
    found = importlib.import_module(f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{edition()}")
    codes = {"D": "D", "Z": "Z", "X": "X", "U": "U", "Z_D": "Z/D", "X_Z": "X/Z", "X_D": "X/D", "X_Z_D": "X/Z/D",
             "X_Z_U_STAR": "X/Z/U*"}  # fmt: skip
    return {
        tag[0] << 16 | tag[1]: code
        for name, code in codes.items()
        for tag in getattr(found, f"{name}_TAGS")
        if len(tag) == 2  # repeating groups have four numbers
    }


class Deidentifier:
    """Applies the profile. UIDs come from `key`, so that references hold across files and runs."""

    def __init__(self, key: bytes, options: Options) -> None:
        self.key, self.options = key, options
        self.kept = _option_tags("device") if options.device else frozenset()
        if options.characteristics:
            self.kept |= _option_tags("characteristics")
        self.described = _option_tags("descriptors") if options.descriptors else frozenset()

    def apply(self, data: Dataset, person: Person, *, clean_pixels: bool = False) -> Counter[str]:
        """De-identify `data` in place and write into it what was done; returns how many attributes were treated how.

        Text is decoded by the character sets that the data set declares, and will be written as UTF-8.
        """
        counts: Counter[str] = Counter()
        known = person.known | known_of(data)
        self._clean(data, person.days, counts)
        pattern = sweep_pattern(known)
        if pattern is not None:
            sweep(data, pattern, counts)
        data.PatientID = data.PatientName = person.pseudonym
        data.SpecificCharacterSet = "ISO_IR 192"
        self._declare(data, clean_pixels)
        return counts

    def _declare(self, data: Dataset, clean_pixels: bool) -> None:
        codes = self.options.codes(clean_pixels=clean_pixels)
        data.PatientIdentityRemoved = "YES"
        data.DeidentificationMethod = [f"phenotype {metadata.version('phenotype')}", f"PS3.15 {edition()} Annex E"]
        items = []
        for value, meaning in codes:
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
            items.append(item)
        data.DeidentificationMethodCodeSequence = Sequence(items)
        data.LongitudinalTemporalInformationModified = "MODIFIED" if self.options.modified_dates else "REMOVED"

    def _clean(self, data: Dataset, days: int, counts: Counter[str]) -> None:
        safe = _safe_private(data) if self.options.safe_private else frozenset()
        for tag in list(data.keys()):
            number = int(tag)
            if tag.is_private:
                if number not in safe:
                    del data[tag]
                    counts["private"] += 1
                continue
            known = dictionary_has_tag(number)
            if number & 0xFFFF == 0 or tag.group < 8 or tag.group & 0xFF00 in (0x5000, 0x6000) or not known:
                del data[tag]  # group lengths, commands, curves, overlays, what nobody can judge
                counts["removed"] += 1
                continue
            try:
                self._element(data, number, days, counts)
            except Exception:  # a value that cannot be read cannot be judged; pydicom fails in many ways
                del data[tag]
                counts["unreadable"] += 1
        data.pop(0x00080005, None)  # the whole is written as UTF-8

    def _element(self, data: Dataset, tag: int, days: int, counts: Counter[str]) -> None:
        if tag in PIXELS or tag == 0x00080005:
            return
        element = data[tag]
        code, vr = table().get(tag, ""), element.VR
        if tag in self.kept and vr != "SQ":
            if tag == 0x00101010:
                element.value = _age(element.value)
            return
        if vr in _TIMES and self.options.modified_dates and tag not in _BORN:
            moved = _shift(element.value, vr, days)
            if moved is not None:
                element.value = moved
                counts["dates"] += 1
                return
        if tag in self.described and vr != "SQ" and _listed_words(element.value):
            return
        if vr == "UI" and "X" not in code:
            if not self.options.uids:  # those of classes are defined by the standard, and stay
                before = element.value
                element.value = _each(before, lambda uid: mapped_uid(self.key, str(uid)))
                counts["uids"] += before != element.value
            return
        if vr == "SQ" and (code in ("", "X/Z/U*") or tag in self.kept):
            for item in element.value:
                for small in (tag for tag in PIXELS if tag in item):  # a picture in a picture, at which nobody looks
                    del item[small]
                    counts["removed"] += 1
                self._clean(item, days, counts)
            return
        self._act(data, tag, vr, code or _silent(tag, vr, element.value), counts)

    def _act(self, data: Dataset, tag: int, vr: str, code: str, counts: Counter[str]) -> None:
        """Of the combined codes the one that keeps an image valid; a sequence goes where that is among them."""
        if code == "K":
            return
        if code == "X" or (vr == "SQ" and code in ("X/D", "X/Z/D")):
            del data[tag]
            counts["removed"] += 1
        elif code in ("Z", "X/Z") or (vr == "SQ" and code == "Z/D"):
            data[tag].value = Sequence() if vr == "SQ" else None
            counts["emptied"] += 1
        elif vr == "SQ":
            data[tag].value = Sequence([Dataset()])
            counts["replaced"] += 1
        else:
            data[tag].value = _DUMMIES.get(vr, 0 if vr in _NUMBERS else "REMOVED")
            counts["replaced"] += 1


def _silent(tag: int, vr: str, value: Any) -> str:
    """What to do with an attribute that the table does not name: K to keep, X to remove, Z to empty."""
    if vr in _TIMES or (vr in _GONE_VR and tag not in _KEPT_OB):
        return "X"
    if vr in ("LO", "SH"):  # order numbers, days of birth in other calendars, labels: many were retired, or forgotten
        return "K" if tag in _technical() else "X"
    if vr == "CS":
        return "K" if all(_CODE.fullmatch(v) for v in values(value)) else "Z"
    if vr in ("DS", "IS"):
        return "K" if all(not v or _DECIMAL.fullmatch(v) for v in values(value)) else "Z"
    return "K"


def _each(value: Any, change: Any) -> Any:
    return [change(v) for v in value] if isinstance(value, MultiValue | list) else change(value) if value else value


def _shift(value: Any, vr: str, days: int) -> Any:
    """Dates moved back by whole days, times as they are; None where a value is none."""
    moved = []
    for text in (v.strip() for v in values(value)):
        if vr == "TM":
            if text and not _CLOCK.fullmatch(text):
                return None
            moved.append(text)
            continue
        whole = (text[:8], text[8:]) if vr == "DT" and _MOMENT.fullmatch(text) else (text, "") if vr == "DA" else None
        if not text:
            moved.append(text)
            continue
        day = day_of(whole[0]) if whole else None
        if day is None or whole is None:
            return None
        moved.append(f"{day - timedelta(days=min(days, day.toordinal() - 1)):%Y%m%d}".rjust(8, "0") + whole[1])
    return moved if len(moved) != 1 else moved[0]


def _age(value: Any) -> str:
    """Ages over 89 become 90: there are so few people as old that the age alone may tell who it is."""
    match = re.fullmatch(r"(\d{3})([DWMY])", str(value or "").strip())
    if not match:
        return ""
    return "090Y" if match[2] == "Y" and int(match[1]) > 89 else match[0]


def _safe_private(data: Dataset) -> frozenset[int]:
    """Private elements whose creator and place are listed and whose values are numbers, and their creators."""
    found: set[int] = set()
    for tag in list(data.keys()):
        if not tag.is_private or tag.element < 0x1000:
            continue
        creator = tag.group << 16 | tag.element >> 8
        try:
            named = str(data[creator].value).strip() if creator in data else ""
            numeric = all(re.fullmatch(r"[\d\s.:eE+\-]*", v) for v in values(data[tag].value))
        except Exception:  # noqa: S112  (not readable, so not safe)
            continue
        if numeric and (tag.group, tag.element & 0xFF, named) in _listed_private():
            found |= {int(tag), creator}
    return frozenset(found)


def _rows(name: str) -> list[list[str]]:
    text = resources.files("phenotype.export").joinpath(name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:] if line.strip()]


@functools.cache
def _option_tags(option: str) -> frozenset[int]:
    return frozenset(
        tag_for_keyword(keyword) or 0 for keyword, used in _rows("deidentify_options.tsv") if used == option
    )


@functools.cache
def _technical() -> frozenset[int]:
    return frozenset(tag_for_keyword(keyword) or 0 for (keyword,) in _rows("deidentify_technical.tsv"))


@functools.cache
def _listed_private() -> frozenset[tuple[int, int, str]]:
    return frozenset((int(g, 16), int(e, 16), creator) for g, e, creator, _ in _rows("deidentify_private.tsv"))


@functools.cache
def _words() -> frozenset[str]:
    return frozenset(word for row in _rows("deidentify_words.tsv") for word in row[0].casefold().split())


def _listed_words(value: Any) -> bool:
    """Whether a description is made of listed words and short numbers alone."""
    words = re.findall(r"[^\W_]+", " ".join(values(value)).casefold())
    return all(
        word in _words() or re.fullmatch(r"\d{1,3}(?:mm|cm|kv|mas|s|ms|x\d{1,3})?|[a-z]\d?", word) for word in words
    )
