"""Small DICOM objects for tests."""

from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CR, CT = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.2"


def uid(*parts: object) -> str:
    """A UID that is always the same for these parts."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def dicom(name: str = "a", shade: int = 1, **attributes: Any) -> bytes:
    """A radiograph of 8 x 6 pixels, of patient P1 and study A1 unless told otherwise; None takes an attribute away."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
    values: dict[str, Any] = {
        "SOPClassUID": CR,
        "SOPInstanceUID": uid(name),
        "StudyInstanceUID": uid("study", attributes.get("AccessionNumber", "A1")),
        "SeriesInstanceUID": uid("series", attributes.get("AccessionNumber", "A1")),
        "AccessionNumber": "A1",
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "PatientSex": "F",
        "PatientBirthDate": "19600101",
        "StudyDate": "20200101",
        "Modality": "CR",
        "Rows": 8,
        "Columns": 6,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": np.full((8, 6), shade, dtype=np.uint8).tobytes(),
    } | attributes
    for keyword, value in values.items():
        if value is not None:
            setattr(d, keyword, value)
    stream = BytesIO()
    d.file_meta.MediaStorageSOPClassUID = values["SOPClassUID"] or CR
    d.file_meta.MediaStorageSOPInstanceUID = uid("meta", name)
    d.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def ct_slice(i: int, series: str = "ct", **attributes: Any) -> bytes:
    """The i-th of slices 2.5 mm apart."""
    place = {
        "SOPClassUID": CT,
        "Modality": "CT",
        "SeriesInstanceUID": uid("series", series),
        "InstanceNumber": i + 1,
        "ImagePositionPatient": [0, 0, 2.5 * i],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.8],
        "SliceThickness": 3,
    }
    return dicom(f"{series}/{i}", shade=i + 1, **(place | attributes))
