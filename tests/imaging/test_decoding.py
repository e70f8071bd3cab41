"""Stored pixels of every transfer syntax and type, and what they mean."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from phenotype.imaging import decoding, encoding
from phenotype.imaging.decoding import decodable
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef, Unreadable
from phenotype.imaging.header import Header

SEED = 20260704
JPEG = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
# (12, 16) of `ramp`, 12 bits, reversible: High-Throughput JPEG 2000 as OpenJPH 0.26 writes it
HTJ2K = (
    "/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJ"
    "CQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAATMAAf+TwAAmS/cFB3QAAMAAEsAAE0AAEoBcAgd0AHL9Awd0APwAR3QA"
    "wAAVMAAE0AAEoIKaSXr8AMG0APHvACI0AGH+MjMAwAAWrAABaMAAFcB13sAnT8A7SYhvKBcP8gbZiEACtwDSSG2UQLeLV/EACED3Ojc4AMAYZ9"
    "wYDkUAEnmSC5cAwAAvQYAAXZwAAukAlyxygQBu6xcosP8IcEPG7jsQoYUYIps5AQTsnwHvwoOPf6i8VxICzJUPMMD9/fNOPubcAAnaiXDs4hgG"
    "QQRangAoGWNkg8QIAiUjW0AHMUdu4giOLHQmoCZ8HKgchCKwBJIAAAAQQAABjxdi8SRbTJIasgEyp8g5t0iZ08g5t2RK+nlKpjnNafgZKcAtz+"
    "yzk6KRP6khvwD/2Q=="
)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def ramp() -> np.ndarray:
    y, x = np.mgrid[:12, :16]
    return ((200 * y + 17 * x * x % 997 + x * y * 31 % 40) % 4096).astype(np.uint16)


def made(folder: Path, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **attributes: Any) -> FileRef:
    """A DICOM file with these stored pixels; None takes an attribute away."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = UID(syntax)
    bits = 8 * pixels.itemsize
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    samples = attributes.get("SamplesPerPixel", 1)
    shape = pixels.shape[:-1] if samples == 3 else pixels.shape
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "SOPInstanceUID": "1.2.3",
        "Modality": "OT",
        "Rows": shape[-2],
        "Columns": shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": (attributes.get("BitsStored") or bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.astype(pixels.dtype.newbyteorder(order)).tobytes(),
    } | attributes
    for keyword, value in values.items():
        if value is not None:
            setattr(d, keyword, value)
    if "PixelData" in d and len(d.PixelData) % 2:
        d.PixelData += b"\0"
    d.save_as(folder / "made.dcm", enforce_file_format=True)
    return FileRef(str(folder / "made.dcm"))


def read(ref: FileRef) -> np.ndarray:
    pixels = read_pixels([ref]).pixels
    assert pixels.dtype == np.float32
    return pixels


def failure(ref: FileRef) -> str:
    with pytest.raises(Unreadable) as refused:
        read_pixels([ref])
    return refused.value.code


def sample(name: str) -> FileRef:
    """A file that comes with pydicom."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom came without its test file {name}")
    return FileRef(str(path))


# -- transfer syntaxes


@pytest.mark.parametrize(
    "syntax", [*(f"{JPEG}{n}" for n in (50, 51, 53, 55, 57, 70, 80, 81, 90, 91, 201, 202, 203)), RLE]
)
def test_every_coded_syntax_has_a_decoder(syntax):
    assert decodable(syntax, 12) and decodable(syntax, 8)


def test_what_has_no_decoder_is_told():
    for syntax in (
        f"{JPEG}94",
        f"{JPEG}100",
        f"{JPEG}102",
        f"{JPEG}110",
        f"{JPEG}112",
        "1.2.840.10008.1.2.6.1",
        "1.2.3",
        "",
    ):
        assert not decodable(syntax, 8)
    assert all(decodable(syntax, 16) for syntax in encoding.NATIVE)


def test_the_plugins_are_tried_in_the_order_that_was_measured():
    assert decoding._plugins(f"{JPEG}80", 12) == ("pyjpegls", "gdcm")
    assert decoding._plugins(f"{JPEG}90", 12)[:2] == ("pylibjpeg", "gdcm")
    assert decoding._plugins(RLE, 12) == ("pylibjpeg", "pydicom")
    assert decoding._plugins(f"{JPEG}51", 12) == ("gdcm_jpeg",) and decoding._plugins(f"{JPEG}51", 8) == (
        "gdcm",
        "pillow",
    )
    assert decoding._plugins(f"{JPEG}70", 16) == ("gdcm",)


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"])
def test_the_next_plugin_is_asked_when_one_refuses(name, monkeypatch):
    ref, asked = sample(name), []
    expected = read(sample("MR_small.dcm"))
    first, *others = decoding._plugins(str(pydicom.dcmread(ref.path).file_meta.TransferSyntaxUID), 16)
    decoder = type(decoding._decoder(RLE))
    whole = decoder.as_array

    def as_array(self, src, **options):
        asked.append(options["decoding_plugin"])
        if options["decoding_plugin"] == first:
            raise RuntimeError("not today")
        return whole(self, src, **options)

    monkeypatch.setattr(decoder, "as_array", as_array)
    assert (read(ref) == expected).all() and asked == [first, others[0]]
    monkeypatch.setattr(decoding, "_plugins", lambda *_: (first,))
    assert failure(ref) == "decode"


@pytest.mark.parametrize("number", [201, 202, 203])
def test_high_throughput_jpeg_2000(number, tmp_path):
    ref = made(tmp_path, ramp(), BitsStored=12)
    coded = pydicom.dcmread(ref.path)
    coded.PixelData = encapsulate([base64.b64decode("".join(HTJ2K))])
    coded["PixelData"].is_undefined_length = True
    coded.file_meta.TransferSyntaxUID = UID(f"{JPEG}{number}")
    coded.save_as(ref.path)
    assert (read(ref) == ramp()).all()


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("MR_small.dcm", "MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_expb.dcm MR_small_implicit.dcm "
         "MR_small_jp2klossless.dcm MR_small_jpeg_ls_lossless.dcm MR_small_padded.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_gdcm_KY.dcm SC_rgb_jpeg_gdcm.dcm"),
        ("SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm"),
        ("rtdose.dcm", "rtdose_expb.dcm rtdose_rle.dcm"),
        ("liver_1frame.dcm", "liver_expb_1frame.dcm"),  # one bit each
        ("SC_rgb_jpeg.dcm", "SC_rgb_jpeg_dcmd.dcm SC_jpeg_no_color_transform.dcm"),
        ("SC_jpeg_no_color_transform_2.dcm", "SC_rgb_jpeg_app14_dcmd.dcm"),
        ("JPGExtended.dcm", "JPEG-lossy.dcm"),  # 12 bits
    ],
)  # fmt: skip
def test_the_same_image_in_several_syntaxes(name, same):
    expected = read(sample(name))
    assert np.ptp(expected) > 0
    for other in same.split():
        assert (read(sample(other)) == expected).all(), other


def test_near_lossless_jpeg_ls():
    truth = np.zeros((45, 10), np.uint8)  # bars of ten shades, each within the error that the encoder was allowed
    pixels = read(sample("JPEGLSNearLossless_08.dcm"))
    assert pixels.shape == truth.shape and pixels.min() == 0 and pixels.max() == 255
    assert (np.abs(pixels - pixels[:, :1]) <= 2).all()


# -- types of pixels


@pytest.mark.parametrize("seed", range(40))
def test_any_integers_are_read_as_they_were_meant(seed, tmp_path):
    """Bits, sign, place in the word, garbage around, order of bytes, rescale and turn: all by chance."""
    print(f"seed {SEED}, {seed}")
    rng = np.random.default_rng((SEED, seed))
    bits = int(rng.choice([8, 16, 32]))
    used = int(rng.integers(1, bits + 1))
    high = int(rng.integers(used - 1, bits))
    signed, turned = bool(rng.integers(2)), bool(rng.integers(2))
    syntax = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian][rng.integers(3 if bits > 8 else 2)]
    low, top = (-(1 << used - 1), (1 << used - 1) - 1) if signed else (0, (1 << used) - 1)
    meant = rng.integers(low, top, (2, 5, 3), endpoint=True)[: int(rng.integers(1, 3))]
    garbage = rng.integers(0, 1 << bits, meant.shape)
    inside = ((1 << used) - 1) << (high + 1 - used)
    words = ((meant << (high + 1 - used)) & inside) | (garbage & ~inside & ((1 << bits) - 1))
    slope, intercept = [(1, 0), (2, -1024), (0.37, 12.5), (-1, 100)][rng.integers(4)]
    ref = made(
        tmp_path,
        words.astype(f"u{bits // 8}"),
        syntax,
        BitsStored=used,
        HighBit=high,
        NumberOfFrames=len(meant),
        PixelRepresentation=int(signed),
        PhotometricInterpretation=f"MONOCHROME{1 if turned else 2}",
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    if turned:
        meant = low + top - meant
    expected = (meant * float(slope) + intercept).astype(np.float32)
    if turned:  # about the ends after the rescale: the same, but for the last bit
        np.testing.assert_allclose(read(ref), expected.squeeze(), rtol=1e-6)
    else:
        assert (read(ref) == (expected if len(meant) > 1 else expected[0])).all()


def test_floats_and_doubles(tmp_path):
    pixels = np.linspace(-3, 7, 20).reshape(4, 5)
    for keyword, kind, bits in (("FloatPixelData", "<f4", 32), ("DoubleFloatPixelData", "<f8", 64)):
        stored = {keyword: pixels.astype(kind).tobytes(), "BitsAllocated": bits, "BitsStored": None, "HighBit": None}
        ref = made(tmp_path, pixels, PixelData=None, PixelRepresentation=None, **stored)
        assert (read(ref) == pixels.astype(np.float32)).all()
        holes = pixels.copy()
        holes[0] = np.nan
        stored[keyword] = holes.astype(kind).tobytes()
        ref = made(tmp_path, pixels, PixelData=None, PixelRepresentation=None, **stored)
        assert (read(ref)[0] == pixels[1:].astype(np.float32).min()).all()


def test_padding_is_as_dark_as_the_darkest_pixel(tmp_path):
    pixels = ramp().astype(np.int16) - 500
    darkest = pixels[2:].min()
    pixels[:2] = -2000
    expected = np.where(pixels == -2000, darkest, pixels)
    assert (read(made(tmp_path, pixels, PixelPaddingValue=-2000)) == expected).all()
    assert (read(made(tmp_path, pixels, PixelPaddingValue=-2000, syntax=ImplicitVRLittleEndian)) == expected).all()
    assert (read(made(tmp_path, pixels, PixelPaddingValue=-2000, syntax=ExplicitVRBigEndian)) == expected).all()
    pixels[0] = -1990
    ranged = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}
    assert (read(made(tmp_path, pixels, **ranged)) == expected).all()
    # a negative is darkest where the most is stored; what lies beyond the bits is no value of a pixel
    negative = ramp()
    negative[0] = 0
    top = int(negative[1:].max())
    turned = made(tmp_path, negative, BitsStored=12, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert (read(turned) == 4095 - np.where(negative == 0, top, negative).astype(np.float32)).all()
    assert (read(made(tmp_path, ramp(), BitsStored=12, PixelPaddingValue=63536)) == ramp()).all()
    same = np.full((3, 4), -2000, np.int16)
    assert (read(made(tmp_path, same, PixelPaddingValue=-2000)) == -2000).all()


def test_colours_become_luminance(tmp_path):
    rng = np.random.default_rng(SEED)
    rgb = rng.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    expected = rgb.astype(np.float32) @ LUMA
    assert (read(made(tmp_path, rgb, **colours)) == expected).all()
    assert (read(made(tmp_path, rgb, ICCProfile=b"\0" * 64, **colours)) == expected).all()
    planes = np.moveaxis(rgb, 2, 0).tobytes()
    assert (read(made(tmp_path, rgb, **colours | {"PlanarConfiguration": 1, "PixelData": planes})) == expected).all()
    # of YBR_FULL the first sample is the luminance (PS3.3 C.7.6.3.1.2); the two roundings of the way over RGB remain
    ybr = np.stack([rgb[..., 0] // 2 + 64, np.full((6, 4), 128), np.full((6, 4), 128)], 2).astype(np.uint8)
    full = made(tmp_path, ybr, **colours | {"PhotometricInterpretation": "YBR_FULL"})
    assert np.abs(read(full) - ybr[..., 0]).max() < 1e-4
    halved = np.concatenate([np.stack([ybr[:, 0::2, 0], ybr[:, 1::2, 0]], 2), ybr[:, ::2, 1:]], 2).tobytes()
    part = made(tmp_path, ybr, **colours | {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": halved})
    assert np.abs(read(part) - ybr[..., 0]).max() < 1e-4


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_palettes(syntax, tmp_path):
    rng = np.random.default_rng(SEED)
    tables = rng.integers(0, 65536, (3, 40), dtype=np.uint16)
    indices = rng.integers(0, 60, (6, 4)).astype(np.uint16)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    named = {}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        named[f"{colour}PaletteColorLookupTableDescriptor"] = [40, 10, 16]
        named[f"{colour}PaletteColorLookupTableData"] = table.astype(f"{order}u2").tobytes()
    seen = tables[:, np.clip(indices.astype(int) - 10, 0, 39)].transpose(1, 2, 0)
    ref = made(tmp_path, indices, syntax, PhotometricInterpretation="PALETTE COLOR", **named)
    assert (read(ref) == seen.astype(np.float32) @ LUMA).all()
    # a supplemental palette colours what is shown; the values remain those of the image
    ref = made(tmp_path, indices, syntax, PixelPresentation="COLOR", **named)
    assert (read(ref) == indices).all()


def test_what_makes_no_sense_is_refused(tmp_path):
    assert failure(made(tmp_path, ramp(), RescaleSlope=0, RescaleIntercept=0)) == "bad_rescale"
    assert failure(made(tmp_path, ramp(), RescaleSlope=2)) == "bad_rescale"
    assert failure(made(tmp_path, ramp(), BitsStored=12, HighBit=10)) == "decode"
    assert failure(made(tmp_path, ramp(), BitsStored=17, HighBit=16)) == "decode"
    assert failure(made(tmp_path, ramp(), NumberOfFrames=2)) == "decode"
    assert failure(made(tmp_path, ramp(), PixelData=None)) == "no_pixel_data"
    assert failure(made(tmp_path, ramp(), Rows=None)) in ("bad_header", "decode")


def test_a_plain_slice_costs_no_parsing(tmp_path, monkeypatch):
    """The header is read by where its values lie: pydicom's parser stays out of the way of native pixels."""
    ref = made(tmp_path, ramp(), Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
    monkeypatch.setattr(encoding, "dataset", None)
    assert (read(ref) == ramp() - np.float32(1024)).all()


def test_stored_pixels_of_a_slice_are_not_copied(tmp_path):
    data = Path(made(tmp_path, ramp()).path).read_bytes()
    where = encoding.layout(data)
    assert np.shares_memory(decoding.stored_pixels(Header(where, encoding.index(where))), np.frombuffer(data, np.uint8))
    assert io.BytesIO(data).read(132).endswith(b"DICM")
