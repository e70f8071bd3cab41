"""Pixels of DICOM and pictures as one array."""

import hashlib
import io
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from phenotype.imaging import encoding
from phenotype.imaging.dicom import picture_size, read_pixels
from phenotype.imaging.files import FileRef, Unreadable, open_bytes


def write(path: Path, pixels: np.ndarray, **attributes) -> FileRef:
    """A DICOM file of unsigned 16-bit pixels."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid(entropy_srcs=[str(path)])
    d.Rows, d.Columns = pixels.shape[-2:]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.PixelData = pixels.astype("<u2").tobytes()
    for name, value in attributes.items():
        setattr(d, name, value)
    d.save_as(path, enforce_file_format=True)
    return FileRef(str(path))


def failure(*refs: FileRef) -> str:
    with pytest.raises(Unreadable) as refused:
        read_pixels(refs)
    return refused.value.code


def test_monochrome1_is_turned_and_the_rescale_applied(tmp_path):
    pixels = np.arange(12).reshape(3, 4) * 100
    plain = read_pixels([write(tmp_path / "a", pixels, PixelSpacing=[0.2, 0.3])])
    assert plain.pixels.dtype == np.float32 and plain.spacing_mm == (0.2, 0.3)
    assert (plain.pixels == pixels).all()
    turned = read_pixels([write(tmp_path / "b", pixels, PhotometricInterpretation="MONOCHROME1")]).pixels
    assert (turned == 4095 - pixels).all()
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    assert (read_pixels([write(tmp_path / "c", pixels, **rescale)]).pixels == pixels * 2 - 1000).all()
    both = write(tmp_path / "d", pixels, PhotometricInterpretation="MONOCHROME1", **rescale)
    assert (read_pixels([both]).pixels == (4095 - pixels) * 2 - 1000).all()


def test_a_volume_has_its_spacing_and_refuses_a_slice_of_another_size(tmp_path):
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.7, 0.8]}
    refs = [
        write(tmp_path / str(i), np.full((4, 5), i), ImagePositionPatient=[0, 0, 2.5 * i], **place) for i in range(3)
    ]
    volume = read_pixels(refs)
    assert volume.pixels.shape == (3, 4, 5) and volume.spacing_mm == (2.5, 0.7, 0.8)
    assert volume.pixels[:, 0, 0].tolist() == [0, 1, 2]
    assert failure(*refs, write(tmp_path / "odd", np.zeros((5, 4)))) == "mixed_size"
    assert failure() == "no_slices"


def test_several_frames_are_read_together(tmp_path):
    frames = np.arange(24).reshape(2, 3, 4)
    assert (read_pixels([write(tmp_path / "m", frames, NumberOfFrames=2)]).pixels == frames).all()


def test_pictures(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "rgb.png")
    Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=95)
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")

    def read(name: str) -> np.ndarray:
        return read_pixels([FileRef(str(tmp_path / name))]).pixels

    assert (read("8.png") == grey).all() and read("8.png").dtype == np.float32
    assert (read("16.png") == grey.astype(np.float32) * 257).all()
    assert np.abs(read("rgb.png") - grey).max() < 1e-3 and np.abs(read("palette.png") - grey).max() < 1e-3
    assert np.abs(read("grey.jpg") - grey).max() < 8
    data = (tmp_path / "8.png").read_bytes()
    assert picture_size(data) == (16, 16)
    with pytest.raises(Unreadable, match="truncated"):
        picture_size(data[:-20])
    (tmp_path / "cut.png").write_bytes(data[:-40])
    assert failure(FileRef(str(tmp_path / "cut.png"))) == "decode"


def test_a_zip_member_is_found_by_its_index_and_never_extracted(tmp_path, monkeypatch):
    ref = write(tmp_path / "a", np.ones((3, 4)))
    archive = tmp_path / "z.zip"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(archive, "w") as z:
            z.writestr("../../same", b"first")
            z.writestr("../../same", open_bytes(ref))
    member = FileRef(str(archive), "000001/../../same")
    assert open_bytes(FileRef(str(archive), "000000/../../same")) == b"first"
    assert (read_pixels([member]).pixels == 1).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "z.zip"]
    for wrong in ("000001/other", "000009/../../same", "x/../../same"):
        assert failure(FileRef(str(archive), wrong)) == "missing"
    assert failure(FileRef(str(ref.path), "000000/a")) == "bad_archive"
    assert failure(FileRef(str(tmp_path / "gone"))) == "missing"
    with pytest.raises(Unreadable, match="too_large"):
        open_bytes(ref, limit=10)
    broken = bytearray(archive.read_bytes())
    broken[broken.index(b"DICM") + 40] ^= 255
    (tmp_path / "broken.zip").write_bytes(broken)
    assert failure(FileRef(str(tmp_path / "broken.zip"), "000001/../../same")) == "bad_archive_member"


def test_one_real_slice_in_many_syntaxes_is_the_same_slice(shared_data):
    folder = shared_data / "dicom" / "cornerstone_wado"
    lossless = ["LittleEndianImplicit", "DeflatedExplicit", "JPEG2000Lossless", "JPEGLSLossless", "RLELossless"]
    files = [folder / "CTImage.dcm", *(next(folder.glob(f"CTImage.dcm_{name}*")) for name in lossless)]
    hashes = {hashlib.sha256(read_pixels([FileRef(str(f))]).pixels.tobytes()).hexdigest() for f in files}
    assert len(files) == 6 and len(hashes) == 1


def test_a_real_ct_series_is_in_hounsfield_units(shared_data):
    files = sorted((shared_data / "ct_series" / "dicom").iterdir())[:3]
    volume = read_pixels([FileRef(str(f)) for f in files])
    assert volume.pixels.shape == (3, 512, 512) and volume.spacing_mm == (2.0, 0.9765625, 0.9765625)
    air, body = volume.pixels[:, :20, :20], volume.pixels[:, 200:320, 200:320]
    assert air.mean() < -900 and -200 < body.mean() < 200


def test_a_real_radiograph_of_monochrome1_shows_bone_bright(shared_data):
    path = next((shared_data / "dicom").rglob("RG3_J2KR.dcm"))
    data = path.read_bytes()
    stored = encoding.dataset(encoding.layout(data)).pixel_array
    assert (read_pixels([FileRef(str(path))]).pixels == 1023 - stored.astype(np.float32)).all()


def test_no_real_file_escapes_with_another_error_or_a_warning(shared_data, caplog):
    outcomes = {"read": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(p for p in (shared_data / "dicom").rglob("*") if p.is_file()):
            try:
                picture = read_pixels([FileRef(str(path))])
                outcomes["read"] += 1
                assert picture.pixels.dtype == np.float32 and picture.pixels.ndim in (2, 3)
            except Unreadable as refused:
                outcomes["refused"] += 1
                assert path.name not in str(refused)
    assert outcomes["read"] >= 95 and sum(outcomes.values()) == 173
    assert not caplog.records


def test_a_bomb_does_not_inflate(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_INFLATED", 1 << 20)
    head = next(iter(encoding.DEFLATED)).encode()
    meta = b"\x02\0\x10\0UI" + len(head).to_bytes(2, "little") + head
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeeze.compress(bytes(64 << 20)) + squeeze.flush()
    with pytest.raises(Unreadable, match="inflation"):
        encoding.layout(bytes(128) + b"DICM" + meta + bomb)


def test_codestreams_tell_their_size():
    for name in ("JPEG", "JPEG2000"):
        stream = io.BytesIO()
        Image.new("L", (37, 21)).save(stream, name, **({"no_jp2": True} if name == "JPEG2000" else {}))
        assert encoding.codestream_size(stream.getvalue()) == (21, 37)
    assert encoding.codestream_size(b"") is None
    assert encoding.codestream_size(b"\xff\xd8" + bytes(30)) is None
    assert encoding.codestream_size(b"\xff\x4f\xff\x51") is None
