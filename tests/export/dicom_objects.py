"""DICOM objects for tests of the export: with every attribute of the table, and with personal data planted."""

from io import BytesIO
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CR = "1.2.840.10008.5.1.4.1.1.1"
US = "1.2.840.10008.5.1.4.1.1.6.1"
PLANTED = "PLANTED"
_VALUES: dict[str, Any] = {
    "DA": "20200115", "TM": "101516", "DT": "20200115101516", "AS": "045Y", "DS": "77.5", "IS": "77",
    "OB": b"PLANTED1", "OW": b"PLANTED1", "UN": b"PLANTED1", "PN": "PLANTED^Person", "UR": "http://planted.example/1",
    "CS": "PLANTED", "AE": "PLANTED", "US": 77, "FD": 77.5, "FL": 77.5, "UL": 77, "SL": 77, "SS": 77,
}  # fmt: skip


def uid(*parts: object) -> str:
    """A UID that is always the same for these parts."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def with_every(tags: list[int], depth: int = 0) -> Dataset:
    """A data set with a planted value in each of these tags; sequences hold planted values too."""
    data = Dataset()
    for tag in tags:
        if tag >> 16 < 8:
            continue  # of commands, meta headers and directories: not in a data set of a file
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
        if vr == "SQ":
            item = Dataset()
            item.PatientComments = PLANTED
            item.PatientName = "PLANTED^Nested"
            data[tag] = DataElement(tag, vr, Sequence([item, item]))
        elif vr == "UI":
            data[tag] = DataElement(tag, vr, uid(tag))
        else:
            data[tag] = DataElement(tag, vr, _VALUES.get(vr, PLANTED))
    return data


def radiograph(name: str = "a", text: str = "", **attributes: Any) -> Dataset:
    """A radiograph of 64 x 48 pixels of patient P1; None takes an attribute away."""
    data = Dataset()
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CR,
        "SOPInstanceUID": uid("instance", name),
        "StudyInstanceUID": uid("study", attributes.get("AccessionNumber", "A1")),
        "SeriesInstanceUID": uid("series", attributes.get("AccessionNumber", "A1")),
        "AccessionNumber": "A1",
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "PatientSex": "F",
        "PatientAge": "059Y",
        "PatientBirthDate": "19600101",
        "StudyDate": "20200110",
        "StudyTime": "101112",
        "ContentDate": "20200110",
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "Manufacturer": "Maker",
        "Rows": 64,
        "Columns": 48,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    } | attributes
    for keyword, value in values.items():
        if value is not None:
            setattr(data, keyword, value)
    return data


def encoded(data: Dataset, syntax: str = ExplicitVRLittleEndian, preamble: bytes = b"\0" * 128) -> bytes:
    """The bytes of a file."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.preamble = preamble
    stream = BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
