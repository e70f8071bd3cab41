"""The language of a report, and what becomes of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from nlp.language import detect

KNOWN = ("en", "de")

WRITTEN = {
    "de": """
        Pleuraerguss links.
        Kein Erguss.
        Herz normal groß, Lunge frei.
        Oberlappeninfiltrat rechts.
        Thorax in 2 Ebenen: o. B.
        Unauffälliger Befund.
        Keine Fraktur.
        Randwinkelerguss bds.
        Zustand nach Sternotomie.
        ZVK in Projektion auf die VCS.
        Herz, Mediastinum und Lunge altersentsprechend unauffaellig.
        Status post CABG. Cor links betont, Aortensklerose.
        Infiltrat re. basal, V. a. Pneumonie.""",
    "en": """
        No effusion.
        Cardiomegaly.
        Heart size normal.
        Clear lungs.
        Left pleural effusion.
        XXXX no acute disease.
        Normal chest x-ray.
        Status post sternotomy.
        Pneumothorax.
        Stable.
        Bilateral opacities.""",
    "": """
        Pas d'épanchement pleural.
        Épanchement pleural gauche.
        Radiographie du thorax normale.
        Opacité basale droite.
        Silhouette cardiaque de taille normale.
        No hay derrame pleural.
        Derrame pleural izquierdo.
        Silueta cardíaca normal.
        Atelectasia laminar en base derecha.
        Versamento pleurico a sinistra.
        Non addensamenti in atto.
        Cuore nei limiti.
        Geen pleuravocht.
        Hart niet vergroot.
        Infiltraat rechter onderkwab.
        Consolidatie linker onderkwab.
        asdf qwer yxcv
        12345 67
        ...""",
}


@pytest.mark.parametrize(
    ("language", "text"),
    [(language, line.strip()) for language, texts in WRITTEN.items() for line in texts.split("\n")[1:]],
)
def test_short_reports_are_told_apart(language: str, text: str) -> None:
    assert detect(text, KNOWN) == language


def test_a_text_without_words_is_in_no_language() -> None:
    assert detect("", KNOWN) == detect(" \n\t", KNOWN) == detect("🫁" * 1000, KNOWN) == ""


def test_of_two_that_fit_alike_the_first_is_taken() -> None:
    assert [detect("Pneumothorax.", order) for order in (("en", "de"), ("de", "en"))] == ["en", "de"]


def test_only_the_languages_asked_for_are_told() -> None:
    assert detect("Kein Pleuraerguss, Herz normal groß.", ["en"]) == ""


def test_a_long_foreign_beginning_does_not_hide_the_language() -> None:
    assert (
        detect("MUSTERMANN^ERIKA 19500101 " * 20 + "Kein Pleuraerguss, das Herz ist normal groß und schlank.", KNOWN)
        == "de"
    )


def test_a_language_is_a_folder(tmp_path: Path) -> None:
    """Dutch, once it has a folder, is known by its own words."""
    findings = tmp_path / "nl" / "findings" / "chest.tsv"
    findings.parent.mkdir(parents=True)
    findings.write_text("id\tphrases\npleural_effusion\tpleuravocht\n", encoding="utf-8")
    assert detect("Pleuravocht links.", (*KNOWN, "nl"), tmp_path) == "nl"
    assert detect("Geen pleuravocht.", KNOWN) == ""


def test_a_language_is_told_without_spacy() -> None:
    code = "import sys; from nlp.language import detect; detect('No effusion.', ['en']); print('spacy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
