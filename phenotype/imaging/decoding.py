"""Stored pixels: what stands in a DICOM object, decoded, before anything of the header gives it a meaning."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID

from phenotype.imaging import encoding
from phenotype.imaging.files import Unreadable
from phenotype.imaging.header import Header

BASELINE, EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
# The fastest plugin first, by measuring; the next one where it refuses. Left to itself, pydicom begins with GDCM.
_JPEG = {BASELINE: ("gdcm", "pillow"), EXTENDED: ("gdcm", "pillow")}
_JPEG_LOSSLESS = {f"1.2.840.10008.1.2.4.{n}": ("gdcm",) for n in (57, 70)}
_JPEG_LS = {f"1.2.840.10008.1.2.4.{n}": ("pyjpegls", "gdcm") for n in (80, 81)}
_JPEG_2000 = {f"1.2.840.10008.1.2.4.{n}": ("pylibjpeg", "gdcm", "pillow") for n in (90, 91)}
_HTJ2K = {f"1.2.840.10008.1.2.4.{n}": ("pylibjpeg",) for n in (201, 202, 203)}
_RLE = {"1.2.840.10008.1.2.5": ("pylibjpeg", "pydicom")}
# pydicom has no decoder for these; GDCM has. Progressive JPEG was retired in 2006, but archives are older than that.
_TWELVE = dict.fromkeys((EXTENDED, "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"), ("gdcm_jpeg",))
_PLUGINS = _TWELVE | _JPEG | _JPEG_LOSSLESS | _JPEG_LS | _JPEG_2000 | _HTJ2K | _RLE
_MEANING, _PALETTE = "PhotometricInterpretation", "PALETTE COLOR"
_EXTENDED_OFFSETS = (0x7FE00001, 0x7FE00002)  # tables of the places and lengths of frames


def decodable(transfer_syntax: str, bits_stored: int) -> bool:
    """Whether pixels in this transfer syntax can be decoded here."""
    return transfer_syntax in encoding.NATIVE or bool(_plugins(transfer_syntax, bits_stored))


def stored_pixels(head: Header) -> NDArray[Any]:
    """The pixels as they were stored: (rows, columns), with frames before and three samples behind where there are
    several. Colours are RGB, of a palette too. Unused bits are cleared, signs extended. May not be writable.

    Raises `Unreadable("decode")` whatever the decoder fails of.
    """
    try:
        plain = _native(head)
        return _decoded(head) if plain is None else plain
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # a codec fails in its own way, and its message may quote the header
        raise Unreadable("decode", f"the pixels cannot be decoded ({type(error).__name__})") from None


@functools.cache
def _plugins(transfer_syntax: str, bits_stored: int) -> tuple[str, ...]:
    """The plugins that are installed and take this syntax, in the order in which they are tried."""
    names = _PLUGINS.get(transfer_syntax, ())
    if transfer_syntax == EXTENDED and bits_stored > 8:
        names = _TWELVE[EXTENDED]
    have = _decoder(transfer_syntax).available_plugins if names else ()
    return tuple(name for name in names if name in have)


@functools.cache
def _decoder(transfer_syntax: str) -> Decoder:
    if transfer_syntax not in _TWELVE:
        return get_decoder(UID(transfer_syntax))
    decoder = Decoder(UID(transfer_syntax))  # of our own: those of pydicom are shared by everything in the process
    if transfer_syntax == EXTENDED:
        decoder.add_plugins([(name, (f"pydicom.pixels.decoders.{name}", "_decode_frame")) for name in _JPEG[EXTENDED]])
    decoder.add_plugin("gdcm_jpeg", ("phenotype.imaging.gdcm_jpeg", "decode_frame"))
    return decoder


def _native(head: Header) -> NDArray[Any] | None:
    """Grey pixels that stand in the file as they are; None where they are anything else."""
    where = head.where
    if where.transfer_syntax not in encoding.NATIVE or head.text(_MEANING) == _PALETTE:
        return None
    span = head.found.spans.get(encoding.PIXEL_DATA)
    bits, used, high = (whole(head, name) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    if span is None or bits not in (8, 16, 32) or whole(head, "SamplesPerPixel", 1) != 1:
        return None
    if encoding.PIXEL_DATA in head.found.fragments or (bits == 8 and not where.little):  # bytes in swapped pairs
        return None
    used = used or bits
    high = used - 1 if high is None else high
    if not 1 <= used <= bits or not used - 1 <= high < bits:
        raise Unreadable("decode", "more bits are used than there are")
    frames, rows, columns = whole(head, "NumberOfFrames", 1) or 1, whole(head, "Rows"), whole(head, "Columns")
    if not rows or not columns or span[1] + frames * rows * columns * bits // 8 > span[2]:
        raise Unreadable("decode", "fewer pixels than the header promises")
    signed = bool(whole(head, "PixelRepresentation", 0))
    order = "<" if where.little else ">"
    kind = np.dtype(f"{order}{'i' if signed else 'u'}{bits // 8}")
    pixels = np.frombuffer(where.body, kind, frames * rows * columns, span[1])
    if used < bits:
        # an overlay may stand in the bits above and below; the shift back to the right extends the sign
        pixels = pixels.astype(kind.newbyteorder("="))
        pixels <<= bits - 1 - high
        pixels >>= bits - used
    return pixels.reshape((frames, rows, columns) if frames > 1 else (rows, columns))


def _decoded(head: Header) -> NDArray[Any]:
    coded, palette = head.where.transfer_syntax not in encoding.NATIVE, head.text(_MEANING) == _PALETTE
    if coded and not palette:
        return _from_codestreams(head)
    read = encoding.dataset(head.where)
    if not coded:
        stored: NDArray[Any] = get_decoder(read.file_meta.TransferSyntaxUID).as_array(read)[0]
    else:
        stored = _from_codestreams(head)
    return _coloured(stored, read, head.where.little) if palette else stored


def _from_codestreams(head: Header) -> NDArray[Any]:
    _, start, end = head.found.spans[encoding.PIXEL_DATA]
    source = head.where.body[start:end]
    options: dict[str, Any] = {
        "photometric_interpretation": head.text(_MEANING),
        "rows": whole(head, "Rows"),
        "columns": whole(head, "Columns"),
        "number_of_frames": whole(head, "NumberOfFrames", 1) or 1,
        "samples_per_pixel": whole(head, "SamplesPerPixel", 1),
        "planar_configuration": whole(head, "PlanarConfiguration", 0),
        "bits_allocated": whole(head, "BitsAllocated"),
        "bits_stored": whole(head, "BitsStored") or whole(head, "BitsAllocated"),
        "pixel_representation": whole(head, "PixelRepresentation", 0),
    }
    tables = [head.found.spans.get(tag) for tag in _EXTENDED_OFFSETS]
    if all(tables):
        options["extended_offsets"] = tuple(head.where.body[span[1] : span[2]] for span in tables if span)
    syntax = head.where.transfer_syntax
    failed: Exception = RuntimeError("no plugin")
    for plugin in _plugins(syntax, options["bits_stored"] or 8):
        try:
            pixels: NDArray[Any] = _decoder(syntax).as_array(source, decoding_plugin=plugin, **options)[0]
        except Exception as error:  # the next one may take what this one does not
            failed = error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # what fails in Rust is no Exception
                raise
            failed = RuntimeError("PanicException")
        else:
            return pixels
    raise failed


def _coloured(stored: NDArray[Any], read: Any, little: bool) -> NDArray[Any]:
    from pydicom.pixels import apply_color_lut

    for colour in ("Red", "Green", "Blue"):
        table = f"{colour}PaletteColorLookupTableData"
        if not little and table in read:  # pydicom takes the words of these tables for little endian
            read[table].value = np.frombuffer(read[table].value, ">u2").astype("<u2").tobytes()
    return np.asarray(apply_color_lut(stored, read))


def whole(head: Header, keyword: str, default: int | None = None) -> int | None:
    """A whole number of the header, or what is to stand for it."""
    text = head.text(keyword)
    return int(text) if text else default
