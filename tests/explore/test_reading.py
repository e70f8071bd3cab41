"""The picture of a report: what is marked, what the tags say, and that no text is lost or run."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp.lexicon import concepts, sites
from nlp.pipeline import load_pipeline, read
from nlp.values import Reading
from phenotype.explore.reading import Marked, Piece, blocks, row, state_of, write_reading
from phenotype.stage import Refused

NAMES = {s.id: s.name for s in sites()} | {c.id: c.name for c in concepts()}
NLP = load_pipeline()
REPORT = """INDICATION: Rule out pneumonia.
FINDINGS: Small left pleural effusion. No pneumothorax. Possible 12 mm nodule in the right upper lobe.
<script>alert(1)</script> Heart is not enlarged."""


def one(text: str) -> Reading:
    (reading,) = read(NLP, [text])
    return reading


def marks(text: str) -> list[Marked]:
    return [part for block in blocks(text, one(text), NAMES) for part in block.parts if isinstance(part, Marked)]


def shown(text: str) -> str:
    """All words of the page, in order."""
    words = ""
    for block in blocks(text, one(text), NAMES):
        words += block.heading
        for part in block.parts:
            words += part.text if isinstance(part, Piece) else "".join(p.text for p in part.pieces)
    return words


def test_findings_are_marked_by_what_is_said_of_them() -> None:
    said = {"".join(p.text for p in mark.pieces): mark.state for mark in marks(REPORT)}
    assert said == {
        "pneumonia": "hypothetical",
        "pleural effusion": "present",
        "pneumothorax": "absent",
        "nodule": "uncertain",
        "Heart is not enlarged": "absent",
    }


def test_tags_say_where_and_how_big() -> None:
    tags = [tag.text for mark in marks(REPORT) for tag in mark.tags]
    assert "Pleural effusion · mild · left" in tags
    assert "Nodule · right upper lobe · 12 mm" in tags


def test_words_that_decided_are_told_inside_and_outside_of_marks() -> None:
    pieces = [p for b in blocks(REPORT, one(REPORT), NAMES) for p in b.parts if isinstance(p, Piece)]
    assert [p.text for p in pieces if p.role == "cue"] == ["Rule out", "No", "Possible"]
    assert {"Small", "left", "12 mm"} <= {p.text for p in pieces if p.role == "told"}
    inside = [p for mark in marks(REPORT) for p in mark.pieces if p.role]
    assert [(p.text, p.role) for p in inside] == [("is not", "cue")]


WORDS = (
    "no effusion nodule heart is not enlarged , . : \n possible left right lower lobe 3 mm FINDINGS: <b> calcified & '"
)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS.split(" ")), max_size=60).map(" ".join)))
def test_no_word_is_lost_or_told_twice(text: str) -> None:
    assert shown(text).split() == text.split() or "".join(shown(text).split()) == "".join(text.split())


def test_a_row_says_it_in_words() -> None:
    text = "Enlarging 12 x 8 mm nodule in the left lower lobe."
    (mention,) = one(text).mentions
    told = row(text, mention, NAMES)
    assert (told["finding"], told["state"], told["words"]) == ("Nodule", "present", "nodule")
    assert told["place"] == "left, Lower lobe"
    assert told["size"] == "12 × 8 mm"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("No mass.", "absent"),
        ("A mass.", "present"),
        ("Possible mass.", "uncertain"),
        ("History of mass.", "not of today"),
    ],
)
def test_state(text: str, state: str) -> None:
    assert [state_of(m) for m in one(text).mentions] == [state]


def test_the_page_runs_nothing_and_shows_all(tmp_path: Path) -> None:
    out = write_reading(
        [("Report 1", REPORT, one(REPORT)), ("Report 2", "Rien.", Reading("", (), (), ()))], NAMES, tmp_path / "x.html"
    )
    page = out.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src &#39;none&#39;" in page
    assert "http://" not in page and "https://" not in page
    assert "language not recognised" in page
    with pytest.raises(Refused, match="cannot be written"):
        write_reading([], NAMES, tmp_path / "x.html" / "y.html")
