"""Documents inside documents: a PDF, a page, a text that a message, a resource or a DICOM object carries, as text."""

from __future__ import annotations

import logging
from io import BytesIO

from phenotype.executors import Refused
from phenotype.ingest.reports.rtf import of_rtf
from phenotype.ingest.reports.text import decode, of_html, tidy

MAX_PAGES = 500
_PLAIN = frozenset({"", "text", "text/plain", "text/markdown", "plain"})


def text_of(data: bytes, media_type: str, charset: str = "") -> str:
    """The text of a document by its media type, and by its first bytes where that says something else.

    Raises Refused: "no_text_layer" (a scan), "encrypted", "bad_pdf", "bad_rtf", "media_type", "not_text".
    """
    kind = media_type.partition(";")[0].strip().lower()
    if data[:1024].lstrip().startswith(b"%PDF-"):
        return of_pdf(data)
    if data.lstrip()[:5] == b"{\\rtf":
        return of_rtf(data.lstrip())
    if kind in ("application/pdf", "pdf"):
        raise Refused("bad_pdf", "not a PDF")
    if kind not in _PLAIN and "html" not in kind:
        raise Refused("media_type", "a document in a format that is not read")
    if b"\0" in data and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        data = data.rstrip(b"\0")
    try:
        text = data.decode(charset) if charset else decode(data)[0]
    except (UnicodeDecodeError, LookupError):
        text = decode(data)[0]
    return of_html(text) if "html" in kind or text.lstrip()[:5].lower() in ("<html", "<!doc") else tidy(text)


def of_pdf(data: bytes) -> str:
    """The text layer of a PDF, page after page.

    Raises Refused: "no_text_layer" where there are pictures of text only, "encrypted", "too_large", "bad_pdf".
    """
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)  # its messages quote the document
    locked = pages = 0
    text = ""
    try:
        reader = pypdf.PdfReader(BytesIO(data), strict=False)
        locked = reader.is_encrypted and not reader.decrypt("")
        pages = 0 if locked else len(reader.pages)
        if 0 < pages <= MAX_PAGES:
            text = "\n".join(page.extract_text() for page in reader.pages)
    except MemoryError:
        raise
    except Exception as error:  # pypdf fails in many ways on damaged documents
        raise Refused("bad_pdf", f"the document cannot be read ({type(error).__name__})") from None
    if locked:
        raise Refused("encrypted", "a document that only opens with its password")
    if pages > MAX_PAGES:
        raise Refused("too_large", "a document of more than five hundred pages")
    text = tidy(text)
    if not any(character.isalpha() for character in text):
        raise Refused("no_text_layer", "a scan: pictures of text, without the text")
    return text
