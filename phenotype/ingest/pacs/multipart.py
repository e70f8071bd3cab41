"""Split a multipart body (RFC 2046) that comes in pieces of any size, without holding more than a few of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MAX_HEADER = 1 << 16  # bytes of the header lines of one part


class BadBody(ValueError):
    """A body that is not as declared. `reason` is a code: not_multipart, truncated."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type declares. Raises `BadBody`."""
    match = re.search(r';\s*boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))', content_type, re.IGNORECASE)
    if not content_type.strip().lower().startswith("multipart/") or match is None:
        raise BadBody("not_multipart")
    return (match[1] or match[2]).encode("latin-1")


def parts(pieces: Iterable[bytes], boundary: bytes) -> Iterator[bytes | None]:
    """The content of the parts, piece by piece; None ends a part.

    Raises `BadBody("truncated")` where the body ends without its closing boundary: a part is whole only when its None
    came.
    """
    mark = b"\r\n--" + boundary
    source = iter(pieces)
    data = bytearray(b"\r\n")  # the first boundary may stand at the very beginning

    def more() -> None:
        piece = next(source, None)
        if piece is None:
            raise BadBody("truncated")
        data.extend(piece)

    while (at := data.find(mark)) < 0:  # the preamble, which means nothing
        del data[: -len(mark)]
        more()
    del data[: at + len(mark)]
    while True:
        while len(data) < 2:
            more()
        if data.startswith(b"--"):
            return
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > MAX_HEADER:
                raise BadBody("not_multipart")
            more()
        del data[: end + 2]  # of the empty line one end is left: a boundary may follow an empty part at once
        start = 2
        while (at := data.find(mark)) < 0:
            whole = len(data) - len(mark)  # what follows may be the beginning of a boundary
            if whole > start:
                yield bytes(data[start:whole])
                del data[:whole]
                start = 0
            more()
        if at > start:
            yield bytes(data[start:at])
        yield None
        del data[: at + len(mark)]
