"""The tables of words: what is in them, and what is said when something is wrong with one."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

import nlp.lexicon
from nlp.lexicon import concepts, version
from nlp.pipeline import load_pipeline, read
from nlp.tables import LexiconError, read_table

LEXICONS = Path(nlp.lexicon.__file__).parent / "lexicons"
HEADER = "id\tname\tcategory\tparent\tradlex\tmesh\tsnomed\tphrases\n"


def test_there_are_enough_concepts_and_each_is_complete() -> None:
    known = {c.id: c for c in concepts()}
    assert len(known) >= 80
    assert {c.category for c in known.values()} == {"finding", "device", "normal"}
    assert all(c.name for c in known.values())
    assert all(c.parent in known for c in known.values() if c.parent)


def test_concepts_of_the_gold_set_are_there(shared: Path) -> None:
    source = (shared / "tools" / "radeval" / "concepts.py").read_text(encoding="utf-8")
    namespace: dict[str, dict[str, object]] = {}
    exec(source, namespace)
    assert set(namespace["RULES"]) <= {c.id for c in concepts()}


def test_snomed_codes_are_those_of_dicom() -> None:
    free = {getattr(codes.SCT, name).value for name in codes.SCT.dir()}
    used = [row for table in ("findings", "anatomy") for row in rows(table) if row["snomed"]]
    assert len(used) > 30
    assert [row["id"] for row in used if row["snomed"] not in free] == []


def test_radlex_codes_are_verified_ones() -> None:
    verified = {row["id"]: row["name"] for row in read_table(LEXICONS / "radlex.tsv", ("id", "name"))}
    used = {c.radlex for c in concepts() if c.radlex}
    assert used == set(verified)


def rows(table: str) -> list[dict[str, str]]:
    text = (LEXICONS / "en" / f"{table}.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[1:]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "line 1: the first line must name the columns id, phrases"),
        ("id\tname\n", "line 1, column phrases: the column is missing"),
        ("id\tphrases\tcolour\n", "line 1, column 3: unknown column 'colour'"),
        ("id\tphrases\tid\n", "line 1, column 3: 'id' is named twice"),
        (HEADER + "Big Nose\tx\t\t\t\t\t\tbig nose\n", "line 2, column id: 'Big Nose' is not lower-case"),
        (HEADER + "nose\t\t\t\t\t\t\tnose\n", "line 2, column name: the new concept 'nose' needs a name"),
        (HEADER + "nose\tNose\tbeauty\t\t\t\t\tnose\n", "line 2, column category: 'beauty' is none of device, finding"),
        (HEADER + "nose\tNose\t\tface\t\t\t\tnose\n", "line 2, column parent: 'face' is not another concept"),
        (HEADER + "nose\tNose\t\t\tRID\t\t\tnose\n", "line 2, column radlex: 'RID' does not look like a radlex code"),
        (HEADER + "nose\tNose\t\t\t\t7\t\tnose\n", "line 2, column mesh: '7' does not look like a mesh code"),
        (HEADER + "\n# no\nnose\tNose\t\t\t\t\tx\tnose\n", "line 4, column snomed: 'x' does not look like"),
        (HEADER + "nose\tNose\t\t\t\t\t\tnose||big nose\n", "line 2, column phrases: an empty phrase"),
        (HEADER + "nose\tNose\t\t\t\t\t\tnose(s\n", "line 2, column phrases: 'nose(s': brackets do not match"),
        (
            HEADER + "nose\tNose\t\t\t\t\t\tnose ...\n",
            "line 2, column phrases: 'nose ...': words are missing around ...",
        ),
        (
            HEADER + "nose\tNose\t\t\t\t\t\tnose\tmore\n",
            "line 2, column 9: 9 cells, but the first line names 8 columns",
        ),
        (HEADER + "nose\tNose\t\t\t\t\t\ta\nnose\tNose\t\t\t\t\t\tb\n", "line 3, column id: 'nose' is there twice"),
    ],
)
def test_a_slip_is_told_with_its_place(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text(table, encoding="utf-8")
    with pytest.raises(LexiconError) as caught:
        concepts(lexicon=path)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="there is no such file"):
        load_pipeline(lexicon=tmp_path / "none.tsv")
    with pytest.raises(LexiconError, match="no lexicon for language 'xx'"):
        concepts("xx")


def test_a_user_s_table_adds_concepts_and_phrases(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text(
        "id\tname\tparent\tphrases\n"
        "scimitar\tScimitar sign\topacity\tscimitar (sign/vein)|curved vein ... diaphragm\n"
        "cardiomegaly\t\t\tox heart\n",
        encoding="utf-8",
    )
    pipeline = load_pipeline(lexicon=path)
    text = "No scimitar sign. Ox heart. A curved vein runs to the diaphragm. No effusion."
    (reading,) = read(pipeline, [text])
    assert [(m.concept, m.assertion) for m in reading.mentions] == [
        ("scimitar", "absent"),
        ("cardiomegaly", "present"),
        ("scimitar", "present"),
        ("pleural_effusion", "absent"),
    ]
    (mine,) = (c for c in concepts(lexicon=path) if c.id == "scimitar")
    assert (mine.name, mine.parent, mine.category) == ("Scimitar sign", "opacity", "finding")
    assert not any(c.id == "scimitar" for c in concepts())
    assert version(lexicon=path) != version()


def test_version_is_the_same_everywhere_and_follows_the_words(tmp_path: Path) -> None:
    code = "import sys; from nlp.lexicon import version; print(version(), 'spacy' in sys.modules)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert other == [version(), "False"]
    path = tmp_path / "mine.tsv"
    path.write_bytes(b"id\tphrases\nnodule\tknot\n")
    one = version(lexicon=path)
    path.write_bytes(b"id\tphrases\r\nnodule\tknot\r\n")
    assert version(lexicon=path) == one
    path.write_bytes(b"id\tphrases\nnodule\tknots\n")
    assert version(lexicon=path) != one
