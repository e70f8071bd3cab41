"""What coded pixels say of themselves before they are decoded: a decoder believes them and not the DICOM header."""

from __future__ import annotations

import struct


def codestream_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream declares of itself; None for anything else."""
    shape = codestream_shape(data)
    return None if shape is None else shape[:2]


def codestream_shape(data: bytes | memoryview) -> tuple[int, int, int, int] | None:
    """(rows, columns, components, bits of the first one) that a JPEG, JPEG-LS or JPEG 2000 codestream declares of
    itself; None for anything else."""
    if data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n":  # the boxes of a JP2 file about it: not allowed, but seen
        data = data[max(bytes(data[:4096]).find(b"\xff\x4f\xff\x51"), 0) :]
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SIZ follows SOC
        if len(data) < 43:
            return None
        right, bottom, left, top = struct.unpack(">4I", data[8:24])
        return bottom - top, right - left, int.from_bytes(data[40:42], "big"), (data[42] & 0x7F) + 1
    position = 2
    while data[:2] == b"\xff\xd8" and position + 10 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            bits, rows, columns, components = struct.unpack(">BHHB", data[position + 4 : position + 10])
            return rows, columns, components, bits
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
