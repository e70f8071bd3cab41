"""Text in pixels: painted into real radiographs, found, painted over, and looked for again."""

import random
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_objects import US, encoded, radiograph
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from phenotype.export import burned_in
from phenotype.export.deidentify import Deidentifier, Options, Person, uid_key
from phenotype.export.dicom import Written, deidentified
from phenotype.stage import Refused

pytest.importorskip("rapidocr")
pytest.importorskip("onnxruntime")

WHO = Person("0123456789abcdef", 100)
TEXTS = ("MUELLER^ANNA", "12.03.1950", "MRN0012345", "Smith, John A.", "LKH Graz 2019-04-03", "DOB: 03/12/1950 F")
PLACES = ("top left", "top right", "bottom left", "bottom right", "middle")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The models come with the package: whoever asks the network fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    burned_in._engine.cache_clear()
    yield


def write(picture: NDArray[np.uint8], text: str, size: int, place: str, shade: int = 255) -> NDArray[np.bool_]:
    """Write into a grey picture, in place; returns which pixels are letters."""
    layer = Image.new("L", picture.shape[::-1])
    draw, font = ImageDraw.Draw(layer), ImageFont.load_default(size)
    _, _, width, height = draw.textbbox((0, 0), text, font=font)
    rows, columns = picture.shape
    left = {"left": 6, "right": columns - width - 6, "middle": (columns - width) // 2}[place.split()[-1]]
    top = {"top": 6, "bottom": rows - height - 6, "middle": (rows - height) // 2}[place.split()[0]]
    draw.text((left, top), text, fill=255, font=font)
    letters = np.asarray(layer) > 100
    picture[letters] = shade
    return letters


def radiographs(shared_data: Path, count: int, seed: int) -> list[NDArray[np.uint8]]:
    paths = sorted((shared_data / "shenzhen" / "images").glob("*.png"))
    chosen = random.Random(seed).sample(paths, count)
    return [np.array(Image.open(path).convert("L").reduce(2)) for path in chosen]


def test_text_in_real_radiographs_is_found(shared_data: Path) -> None:
    """Of letters 12 to 40 pixels high nearly all are covered; a clean radiograph is left alone."""
    seed = 7
    pictures = radiographs(shared_data, 10, seed)
    assert sum(bool(burned_in.text_boxes([picture])) for picture in pictures) <= 1, seed  # the negative control
    covered = 0
    for number, picture in enumerate(pictures):
        text, size = TEXTS[number % len(TEXTS)], (12, 16, 24, 40)[number % 4]
        letters = write(picture, text, size, PLACES[number % len(PLACES)], (255, 210)[number % 2])
        mask = np.zeros(picture.shape, bool)
        for box in burned_in.text_boxes([picture]):
            top, left, bottom, right = (max(0, edge) for edge in burned_in._grown(box))
            mask[top:bottom, left:right] = True
        covered += mask[letters].mean() > 0.98
    assert covered >= 9, (seed, covered)


def masked(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> tuple[Dataset, Written]:
    content, written = deidentified(encoded(data, syntax), WHO, Deidentifier(uid_key(b"k" * 32), Options()), "mask")
    return pydicom.dcmread(BytesIO(content)), written


def object_of(pixels: NDArray[Any], **attributes: Any) -> Dataset:
    samples = 3 if pixels.shape[-1] == 3 else 1
    frames = pixels.shape[0] if pixels.ndim - (samples == 3) == 3 else 1
    rows, columns = pixels.shape[-3:-1] if samples == 3 else pixels.shape[-2:]
    bits = 8 * pixels.itemsize
    shape = {
        "Rows": rows, "Columns": columns, "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "SamplesPerPixel": samples, "PixelData": pixels.tobytes(), "NumberOfFrames": frames if frames > 1 else None,
        "PlanarConfiguration": 0 if samples == 3 else None,
        "PhotometricInterpretation": "RGB" if samples == 3 else "MONOCHROME2",
    }  # fmt: skip
    return radiograph(**(shape | attributes))


@pytest.mark.parametrize("kind", ["12 bits", "inverted", "colour", "rle"])
def test_text_is_painted_over_in_the_stored_values(shared_data: Path, kind: str) -> None:
    (picture,) = radiographs(shared_data, 1, 3)
    clean = picture.copy()
    letters = write(picture, "MUELLER^ANNA 12.03.1950", 22, "top left")
    attributes: dict[str, Any] = {"BurnedInAnnotation": "YES"}
    pixels: NDArray[Any] = picture
    if kind == "12 bits":
        pixels = picture.astype(np.uint16) * 16
    elif kind == "inverted":
        pixels, attributes["PhotometricInterpretation"] = 255 - picture, "MONOCHROME1"
    elif kind == "colour":
        pixels = np.repeat(picture[..., None], 3, axis=2)
    data = object_of(pixels, **attributes)
    if kind == "rle":
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
    result, written = masked(data, RLELossless if kind == "rle" else ExplicitVRLittleEndian)
    after = result.pixel_array
    seen = {"12 bits": after // 16, "inverted": 255 - after, "colour": after[..., 0] if after.ndim == 3 else after}.get(
        kind, after
    )
    assert (seen[letters] == seen.min()).mean() > 0.98
    assert (seen == clean)[120:].all()  # far from the text nothing is touched
    assert written.masked >= 1 and written.burned_in == "verified"
    assert result.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert result.BurnedInAnnotation == "NO" and result.ImageType[0] == "DERIVED"
    assert "113101" in [item.CodeValue for item in result.DeidentificationMethodCodeSequence]


def test_a_clean_radiograph_keeps_every_byte(shared_data: Path) -> None:
    (picture,) = radiographs(shared_data, 1, 5)
    result, written = masked(object_of(picture))
    assert result.PixelData == picture.tobytes() and (written.masked, written.outside) == (0, False)
    assert result.BurnedInAnnotation == "NO"


def test_outside_of_ultrasound_regions_everything_goes_in_all_frames() -> None:
    frames = np.random.default_rng(0).integers(20, 60, (3, 300, 400), dtype=np.uint8)
    letters = write(frames[1], "MUELLER^ANNA", 20, "top left")
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 50, 60
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 349, 279
    data = object_of(frames, SOPClassUID=US, SequenceOfUltrasoundRegions=Sequence([region]), PatientName="Doe^Jane")
    result, written = masked(data)
    after = result.pixel_array
    assert written.outside and after.shape == frames.shape
    assert (after[:, 60:280, 50:350] == frames[:, 60:280, 50:350]).all()
    assert (after[:, :60] == frames.min()).all() and (after[1][letters] == frames.min()).all()


def test_text_that_comes_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burned_in, "find_text", lambda _: [((1, 1, 5, 9), "Doe Jane", 0.9)])
    with pytest.raises(Refused, match="text_remains"):
        masked(radiograph())


def test_without_the_extra_the_answer_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burned_in, "available", lambda: False)
    burned_in._engine.cache_clear()
    with pytest.raises(Refused, match=r"phenotype\[ocr\]"):
        burned_in.require()
