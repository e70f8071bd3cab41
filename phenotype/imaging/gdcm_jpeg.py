"""A decoding plugin for pydicom: JPEG of 12 bits, and progressive JPEG, which GDCM decodes but is never asked for."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

DECODER_DEPENDENCIES = {f"1.2.840.10008.1.2.4.{n}": ("gdcm>=3.0.10",) for n in (51, 53, 55)}


def is_available(transfer_syntax: str) -> bool:
    """Whether GDCM is installed and takes this syntax."""
    return transfer_syntax in DECODER_DEPENDENCIES and importlib.util.find_spec("gdcm") is not None


def decode_frame(source: bytes, runner: Any) -> bytes:
    """The pixels of one coded frame, as pydicom's `DecodeRunner` wants them from a plugin."""
    gdcm: Any = importlib.import_module("gdcm")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    if runner.samples_per_pixel > 1:
        image.SetPlanarConfiguration(runner.planar_configuration)
    syntax = gdcm.TransferSyntax.GetTSType(str(runner.transfer_syntax))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    used = runner.bits_stored
    image.SetPixelFormat(
        gdcm.PixelFormat(runner.samples_per_pixel, runner.bits_allocated, used, used - 1, runner.pixel_representation)
    )
    frame: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")  # SWIG gives char* as text
    return frame
