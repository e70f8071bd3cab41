"""The tables of words: what is in them, and what is said when something is wrong with one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

import nlp.lexicon
from nlp import lint
from nlp.lexicon import concepts, languages, load, sites, version
from nlp.pipeline import load_pipeline, read
from nlp.tables import LexiconError, read_table
from nlp.values import Mention, Reading

LEXICONS = Path(nlp.lexicon.__file__).parent / "lexicons"
THIRD_LANGUAGE = Path(__file__).with_name("languages")
HEADER = "id\tname\tcategory\tparent\tradlex\tmesh\tsnomed\tphrases\n"


def one_reading(text: str, language: str = "en", own: Path | None = None) -> Reading:
    (reading,) = read(load_pipeline(language, own), [text])
    return reading


def said(mentions: tuple[Mention, ...]) -> list[tuple[str, str]]:
    return [(m.concept, m.assertion) for m in mentions]


def test_there_are_enough_concepts_and_sites() -> None:
    known = {c.id: c for c in concepts()}
    assert len([c for c in known.values() if c.category in ("finding", "device")]) >= 350
    assert len(sites()) >= 250
    assert {c.category for c in known.values()} == {"finding", "device", "normal"}
    assert {c.region for c in known.values()} >= {"chest", "abdomen", "neuro", "musculoskeletal", "devices"}


def test_concepts_of_the_gold_set_are_there(shared: Path) -> None:
    source = (shared / "tools" / "radeval" / "concepts.py").read_text(encoding="utf-8")
    namespace: dict[str, dict[str, object]] = {}
    exec(source, namespace)
    assert set(namespace["RULES"]) <= {c.id for c in concepts()}


def test_snomed_codes_are_those_of_dicom() -> None:
    free = {getattr(codes.SCT, name).value for name in codes.SCT.dir()}
    used = {c.id: c.snomed for c in concepts() if c.snomed} | {s.id: s.snomed for s in sites() if s.snomed}
    assert len(used) > 30
    assert {id: code for id, code in used.items() if code not in free} == {}


def test_radlex_codes_are_verified_ones() -> None:
    verified = {row["id"]: row["name"] for row in read_table(LEXICONS / "radlex.tsv", ("id", "name"))}
    used = {c.radlex for c in concepts()} | {s.radlex for s in sites()}
    assert used - {""} == set(verified)


def test_mesh_codes_are_verified_ones() -> None:
    verified = {row["id"]: row["name"] for row in read_table(LEXICONS / "mesh.tsv", ("id", "name"))}
    used = [c.mesh for c in concepts() if c.mesh]
    assert len(used) >= 300
    assert set(used) == set(verified)
    assert [id for id, name in verified.items() if not (name and re.fullmatch(r"D\d{6,9}", id))] == []


# the same things in every language


@pytest.fixture(scope="module")
def report() -> lint.Report:
    return lint.check()


def test_no_phrase_names_two_unrelated_concepts(report: lint.Report) -> None:
    assert report.errors == []


def test_every_concept_and_site_has_words_in_english(report: lint.Report) -> None:
    assert report.missing["en"] == ([], [])


@pytest.mark.parametrize("language", [language for language in languages() if language != "en"])
def test_other_languages_have_words_for_nearly_all(report: lint.Report, language: str) -> None:
    missing_concepts, missing_sites = report.missing[language]
    assert len(missing_concepts) <= 0.05 * len(concepts()), missing_concepts
    assert len(missing_sites) <= 0.05 * len(sites()), missing_sites


# slips


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "line 1: the first line must name the columns id"),
        ("name\n", "line 1, column id: the column is missing"),
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
        load(own=path)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="there is no such file"):
        load_pipeline(lexicon=tmp_path / "none.tsv")
    with pytest.raises(LexiconError, match="no lexicon for language 'xx'"):
        load("xx")


# a user's own words


def test_a_user_s_table_adds_concepts_and_phrases(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text(
        "id\tname\tparent\tphrases\n"
        "scimitar\tScimitar sign\topacity\tscimitar (sign/vein)|curved vein ... diaphragm\n"
        "cardiomegaly\t\t\tox heart\n",
        encoding="utf-8",
    )
    text = "No scimitar sign. Ox heart. A curved vein runs to the diaphragm. No effusion."
    assert said(one_reading(text, own=path).mentions) == [
        ("scimitar", "absent"),
        ("cardiomegaly", "present"),
        ("scimitar", "present"),
        ("pleural_effusion", "absent"),
    ]
    (mine,) = (c for c in concepts(path) if c.id == "scimitar")
    assert (mine.name, mine.parent, mine.category) == ("Scimitar sign", "opacity", "finding")
    assert next(c for c in concepts(path) if c.id == "cardiomegaly").name == "Cardiomegaly"
    assert not any(c.id == "scimitar" for c in concepts())
    assert version("en", path) != version("en")


def test_a_user_s_folder_adds_concepts_sites_and_words_of_any_kind(tmp_path: Path) -> None:
    tables = {
        "concepts/mine.tsv": "id\tname\tparent\tmidline\nscimitar\tScimitar sign\topacity\nspur\tBone spur\t\tyes\n",
        "sites/mine.tsv": "id\tname\tkind\tparent\nvulpine_fissure\tVulpine fissure\tpart\tfissure\n",
        "en/findings/mine.tsv": "id\tphrases\nscimitar\tscimitar sign\nspur\tcalcar\n",
        "en/anatomy/mine.tsv": "id\tside\tphrases\nvulpine_fissure\tright\tvulpine fissure\n",
        "en/cues.tsv": "id\teffect\tdirection\tphrases\nnary\tabsent\tforward\tnary a\n",
        "en/modifiers.tsv": "kind\tvalue\tphrases\nseverity\tsevere\twhopping\n",
    }
    for name, table in tables.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(table, encoding="utf-8")
    assert languages(tmp_path) == languages()
    reading = one_reading("Nary a scimitar sign. Whopping effusion in the vulpine fissure. Calcar.", own=tmp_path)
    _, effusion, spur = reading.mentions
    assert said(reading.mentions)[0] == ("scimitar", "absent")
    assert (effusion.concept, effusion.severity, effusion.site, effusion.side) == (
        "pleural_effusion", "severe", "vulpine_fissure", "right",
    )  # fmt: skip
    assert spur.concept == "spur"
    assert {s.parent for s in sites(tmp_path) if s.id == "vulpine_fissure"} == {"fissure"}
    assert {c.region for c in concepts(tmp_path) if c.id == "scimitar"} == {"mine"}
    assert version("en", tmp_path) != version("en")


def test_a_folder_may_not_name_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "en" / "findings" / "mine.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("id\tphrases\nnose\tnose\n", encoding="utf-8")
    with pytest.raises(LexiconError) as caught:
        load("en", tmp_path)
    assert str(caught.value) == f"{path}, line 2, column id: 'nose' is no concept of the tables in concepts/"


@pytest.mark.parametrize("code", ["it", "lld"])  # spaCy knows Italian, and has nothing for Ladin
def test_adding_a_language_is_adding_a_folder(tmp_path: Path, code: str) -> None:
    shutil.copytree(THIRD_LANGUAGE / "it", tmp_path / code)
    assert languages(tmp_path) == tuple(sorted({*languages(), code}))
    reading = one_reading(
        "Quesito: pneumotorace?\n"
        "Referto: Piccolo versamento pleurico a destra. Non si osserva pneumotorace. Il cuore non è ingrandito.\n"
        "Conclusione: Probabile addensamento alla base sinistra.\n",
        code,
        tmp_path,
    )
    assert reading.language == code
    assert [s.name for s in reading.sections] == ["indication", "findings", "impression"]
    asked, effusion, pneumothorax, heart, consolidation = reading.mentions
    assert (asked.concept, asked.temporality) == ("pneumothorax", "historical")
    assert (effusion.concept, effusion.assertion, effusion.side, effusion.severity) == (
        "pleural_effusion", "present", "right", "mild",
    )  # fmt: skip
    assert (pneumothorax.concept, pneumothorax.assertion) == ("pneumothorax", "absent")
    assert (heart.concept, heart.assertion) == ("cardiomegaly", "absent")
    assert (consolidation.concept, consolidation.assertion, consolidation.certainty) == (
        "consolidation", "uncertain", 0.7,
    )  # fmt: skip
    assert (consolidation.site, consolidation.side, consolidation.section) == ("base", "left", "impression")


def test_version_is_the_same_everywhere_and_follows_the_words(tmp_path: Path) -> None:
    code = "import sys; from nlp.lexicon import version; print(version('en'), 'spacy' in sys.modules)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert other == [version("en"), "False"]
    path = tmp_path / "mine.tsv"
    path.write_bytes(b"id\tphrases\nnodule\tknot\n")
    one = version("en", path)
    path.write_bytes(b"id\tphrases\r\nnodule\tknot\r\n")
    assert version("en", path) == one
    path.write_bytes(b"id\tphrases\nnodule\tknots\n")
    assert version("en", path) != one
    assert len({version(language) for language in languages()}) == len(languages())


# what people who edit the tables are told


def test_check_tells_phrases_that_are_there_twice_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(THIRD_LANGUAGE / "it", tmp_path / "it")
    path = tmp_path / "it" / "findings" / "mine.tsv"
    path.write_text(
        "id\tphrases\n"
        "nodule\tnodul(o/i)|noduli\n"
        "fracture\tfrattura|Pneumotorace\n"  # also under pneumothorax, in any case
        "rib_fracture\tfrattura\n",  # a fracture: the narrower one is meant
        encoding="utf-8",
    )
    (tmp_path / "it" / "anatomy" / "mine.tsv").write_text("id\tside\tphrases\nbase\tleft\tbasi\n", encoding="utf-8")
    assert lint.main(["check", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == [
        f"error: {path}, line 3, column phrases: 'fracture' has 'Pneumotorace', and so has 'pneumothorax' "
        "(chest.tsv, line 3)",
        f"error: {path.parent.parent / 'anatomy' / 'mine.tsv'}, line 2, column phrases: 'base' has 'basi', "
        "and so has 'base' (chest.tsv, line 4)",
    ]
    assert f"hint: {path}, line 2, column phrases: there twice: 'noduli'" in lines
    assert any(line.startswith("it has no words for") and "atelectasis" in line for line in lines)
    assert any(line.startswith("it: 7 concepts with ") for line in lines)


def test_check_tells_the_first_slip_of_a_table_and_circles_of_parents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    circle, nameless = tmp_path / "circle" / "concepts" / "mine.tsv", tmp_path / "nameless" / "concepts" / "mine.tsv"
    for path, table in (
        (circle, "id\tname\tparent\none\tOne\tother\nother\tOther\tone\n"),
        (nameless, "id\tname\none\t\n"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(table, encoding="utf-8")
        assert lint.main(["check", str(path.parent.parent)]) == 1
    told = capsys.readouterr().out
    assert "error: concept 'one': its parents lead back to itself" in told
    assert f"error: {nameless}, line 2, column name: the new concept 'one' needs a name" in told


def test_check_is_a_command() -> None:
    command = [sys.executable, "-m", "nlp.lexicon"]
    done = subprocess.run([*command, "check"], capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith("error")] == []
    assert done.returncode == 0
    assert "\nen: " in done.stdout
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:6]) == (2, "usage:")
