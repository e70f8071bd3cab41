"""Rich text as a reader sees it. No library is an oracle here: these are examples of the specification's words."""

import pytest

from phenotype.ingest.reports.rtf import of_rtf
from phenotype.stage import Refused

REPORT = (
    rb"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Arial;}}{\*\generator Secret;}{\info{\author Dr. Secret}}"
    rb"\viewkind4\uc1\pard"
    rb"\f0\fs20 Gr\'f6\'dfe normal,\tab kein {\b Ergu\'df}.\par"
    + b"\r\n"
    + rb"\u916?T \{x\}\~5\_6 \\ \u55357?\u56832?\line "
    rb"{\header Seite 1}{\pict\wmetafile8 0100090000}Ende\cell Zelle\row}" + b"\0"
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (REPORT, "Größe normal,\tkein Erguß.\nΔT {x} 5-6 \\ 😀\nEnde\tZelle"),
        (rb"{\rtf1\ansicpg932 \'95\'90x\'8e}", "武x\ufffd"),
        (rb"{\rtf1\ansicpg1251 \'cb\'b8\'e3\'ea\'e8\'e5}", "Лёгкие"),
        (rb"{\rtf1\ansicpg99999 Gr\'f6\'dfe}", "Größe"),
        (rb"{\rtf1\uc2\u228 ab c{\uc0\u246 d}\u252 efg}", "ä cödüg"),
        (rb"{\rtf1\uc2\u228 ?? x}", "ä x"),
        (rb"{\rtf1 a\par\par b\line c\row}", "a\n\nb\nc"),
        (rb"{\rtf1 a{\*\unknown{\b deep} hidden} b}", "a b"),
        (rb"{\rtf1 a}}}} b{{{", "a b"),
        (rb"{\rtf1 \ldblquote a\rdblquote\endash b}", "“a”–b"),
        (rb"{\rtf1{\fonttbl x}}", ""),
    ],
)
def test_rich_text(data, text):
    assert of_rtf(data) == text


@pytest.mark.parametrize("data", [b"", b"plain", b"{\\rtf1" + b"{" * 2000])
def test_what_is_no_rich_text(data):
    with pytest.raises(Refused, match="bad_rtf"):
        of_rtf(data)
