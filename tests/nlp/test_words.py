"""How texts are cut into words, and which of the lexicon's words they are."""

import unicodedata
from pathlib import Path

import pytest
import spacy

from nlp.compounds import Compounds
from nlp.spelling import Spelling, spelling
from nlp.words import ReportTokenizer, words_of

TABLES = {
    "findings/chest.tsv": "id\tphrases\n"
    "pleural_effusion\tPleuraerguss|Pleuraergüsse\n"
    "pericardial_effusion\tPerikarderguss\n"
    "infiltrate\tInfiltrat\n"
    "nodule\tRundherd\n",
    "anatomy/chest.tsv": "id\tside\tphrases\n"
    "upper_lobe\t\tOberlappen\n"
    "lower_lobe\t\tUnterlappen\n"
    "lung\t\tLunge\n"
    "base\t\tbasal\n",
    "modifiers.tsv": "kind\tvalue\tphrases\nside\tleft\tlinks\nside\tright\trechts\n",
    "words.tsv": "class\tphrases\njoint\tund|,\nspelled\tMaße|Pleuragruss\n",
    "folding.tsv": "written\tread\nä\tae\nö\toe\nü\tue\nß\tss\n",
    "compounds.tsv": "kind\tphrases\nending\te|en|er|es|em|n|s\nlink\ts|n|en\nfirst\tpleura|perikard\nhead\tfrei\n",
}


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Spelling:
    """A small language of its own: its words stand in `TABLES`."""
    folder: Path = tmp_path_factory.mktemp("own")
    for name, table in TABLES.items():
        path = folder / "xd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table, encoding="utf-8")
    return spelling("xd", folder)


def words(spelled: Spelling, text: str) -> list[tuple[str, str]]:
    """Each word as it is written, and as it is read; the offsets must be those of the text."""
    nlp = spacy.blank("xx")
    doc = ReportTokenizer(nlp.vocab, spelled)(text)
    assert doc.text == text
    ids, starts, ends = words_of(doc)
    return [(text[a:b], nlp.vocab.strings[i]) for i, a, b in zip(ids, starts, ends, strict=True)]


@pytest.mark.parametrize("written", ["Pleuraergüsse", "PLEURAERGÜSSE", "Pleuraerguesse", "Pleuraergüssen"])
def test_letters_and_endings_that_are_written_in_two_ways_are_one_word(german: Spelling, written: str) -> None:
    assert words(german, written) == [(written, german.stem("Pleuraergüsse"))]


def test_accents_as_signs_of_their_own_and_soft_hyphens_belong_to_their_word(german: Spelling) -> None:
    for written in (unicodedata.normalize("NFD", "Pleuraergüsse"), "Pleura\u00adergüsse"):
        assert words(german, f"{written} links") == [(written, "pleuraerguess"), ("links", german.stem("links"))]


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("Oberlappeninfiltrat", ["Oberlappen", "infiltrat"]),
        ("Lungenrundherde", ["Lungen", "rundherde"]),
        ("linksbasaler", ["links", "basaler"]),
        ("Lungenunterlappeninfiltrat", ["Lungen", "unterlappen", "infiltrat"]),
        ("Rundherdfrei", ["Rundherd", "frei"]),
        ("Pleuraerguss", ["Pleuraerguss"]),  # is a word of the lexicon itself
        ("Oberlappenbetonung", ["Oberlappenbetonung"]),  # the lexicon lacks its head
        ("Unrundherd", ["Unrundherd"]),  # and here what stands first
    ],
)
def test_compounds_are_cut(german: Spelling, word: str, parts: list[str]) -> None:
    assert [written for written, _ in words(german, word)] == parts


def test_a_part_left_out_at_a_hyphen_is_filled_in(german: Spelling) -> None:
    read = dict(words(german, "Ober- und Unterlappen, Pleura- und kleiner Perikarderguss"))
    assert (read["Ober"], read["Pleura"]) == (german.stem("Oberlappen"), german.stem("Pleuraerguss"))
    assert dict(words(german, "Oberlappen und -infiltrat"))["infiltrat"] == "infiltrat"


@pytest.mark.parametrize("slip", ["Pleuraergss", "Pleuraergguss", "Pleuraegruss", "Pleuraergzss", "Perikardergus"])
def test_a_slip_of_the_keyboard_is_read_as_the_word_that_is_one_letter_away(german: Spelling, slip: str) -> None:
    if slip == "Perikardergus":  # the last letter is taken to be right
        assert german.read(slip) not in german.known
    else:
        assert german.read(slip) == german.stem("Pleuraerguss")


def test_words_that_are_right_are_left_alone(german: Spelling) -> None:
    assert german.read("Pleuragruss") == "pleuragruss"
    assert german.read("Maße") == "maße"
    assert german.read("Xleuraerguss") == "xleuraerguss"


@pytest.mark.parametrize(
    ("one", "other"),
    [("infrarenal", "intrarenal"), ("macrocalcification", "microcalcification"), ("continuous", "contiguous")],
)
def test_english_words_that_are_close_to_others_are_left_alone(one: str, other: str) -> None:
    english = spelling("en")
    assert english.read(one) == one
    assert english.read(other) == other


def test_english_slips() -> None:
    english = spelling("en")
    assert english.read("mediasatinal") == "mediastinal"
    assert english.read("atlectasis") == "atelectasis"


def test_a_language_without_compounds_cuts_none() -> None:
    assert [written for written, _ in words(spelling("en"), "rightlung effusion")] == ["rightlung", "effusion"]


def test_long_words_cost_little(german: Spelling) -> None:
    parts = Compounds(german)
    assert parts["lungen" * 9 + "infiltrat"] == ()
    assert parts["lungen" * 5000] == ()


def test_what_is_remembered_is_bounded(german: Spelling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlp.compounds._REMEMBERED", 100)
    parts = Compounds(german)
    for i in range(1000):
        assert parts["".join(chr(97 + int(d)) for d in str(i)) + "infiltrat"] == ()
    assert len(parts) <= 100
