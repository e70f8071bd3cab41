"""German reports as they are dictated: sections, sentences, and what is read in them."""

from functools import cache

from nlp.pipeline import load_pipeline, read
from nlp.values import Mention, Reading

REPORT = """Klinische Angaben: Z. n. Pneumonie. Husten, V. a. Pneumothorax.
Fragestellung: Infiltrat?
Technik: Thorax in 2 Ebenen.
Vergleich: Voraufnahme vom 12.03.2019.

Befund:
Herz normal groß. Kein Pleuraerguss li. Bekannter Rundherd im re. Oberlappen, unverändert ca. 8 mm groß.
Infiltrat im linken Unterlappen, z. B. im Rahmen einer Pneumonie. Fraktur der 9. Rippe rechts.

Beurteilung:
1. Unterlappeninfiltrat links.
2. Kein Pneumothorax.
"""
pipeline = cache(load_pipeline)


def reading(text: str) -> Reading:
    (found,) = read(pipeline("de"), [text])
    return found


def sentences(text: str) -> list[str]:
    return [text[s.start : s.end] for s in reading(text).sentences]


def mentions(concept: str) -> list[Mention]:
    return [m for m in reading(REPORT).mentions if m.concept == concept]


def test_sections() -> None:
    assert [s.name for s in reading(REPORT).sections] == [
        "indication", "indication", "technique", "comparison", "findings", "impression",
    ]  # fmt: skip


def test_what_was_known_before_or_asked_for_is_no_finding_of_today() -> None:
    pneumonia, *_ = mentions("pneumonia")
    assert (pneumonia.section, pneumonia.temporality) == ("indication", "historical")
    asked, answered = mentions("pneumothorax")
    assert (asked.section, asked.assertion) == ("indication", "uncertain")
    assert (answered.section, answered.assertion, answered.temporality) == ("impression", "absent", "current")


def test_findings_and_impression() -> None:
    (effusion,) = mentions("pleural_effusion")
    assert (effusion.assertion, effusion.side) == ("absent", "left")
    (nodule,) = mentions("nodule")
    assert (nodule.side, nodule.site, nodule.size_mm, nodule.change) == ("right", "upper_lobe", 8.0, "stable")
    below = [m for m in mentions("infiltrate") if m.section in ("findings", "impression")]
    assert [(m.side, m.site, m.assertion) for m in below] == [("left", "lower_lobe", "present")] * 2
    assert REPORT[below[1].start : below[1].end] == "infiltrat"


def test_dots_of_abbreviations_end_no_sentence() -> None:
    for text in (
        "V. a. Infiltrat re. Unterlappen.",
        "Rundherd, z. B. Metastase, ca. 8 mm groß.",
        "Z. n. Fraktur der 9. Rippe li. lateral.",
        "Fraktur der 3. und 4. Rippe links.",
        "Infiltrat i. S. einer Pneumonie, DD Atelektase.",
        "Keine Änderung zur Voraufnahme vom 12.03.2019.",
        "Keine Änderung seit dem 12. März.",
    ):
        assert sentences(text) == [text]


def test_dots_after_a_side_end_a_sentence_unless_its_noun_follows() -> None:
    assert sentences("Kein Erguss li. Herz normal groß.") == ["Kein Erguss li.", "Herz normal groß."]
    assert sentences("Ergüsse bds. Infiltrat im li. Unterlappen.") == ["Ergüsse bds.", "Infiltrat im li. Unterlappen."]
    # a place may stand between noun and side, and of a compound only the first part has a capital
    assert sentences("Infiltrat apikal bds. Aorta elongiert.") == ["Infiltrat apikal bds.", "Aorta elongiert."]
    assert sentences("Pleurakuppenschwielen bds. V. a. Stauung.") == ["Pleurakuppenschwielen bds.", "V. a. Stauung."]
    for text in ("Verdichtung der apikalen li. Lunge.", "Infiltrat apikal li. Oberlappen."):
        assert sentences(text) == [text]


def test_findings_without_a_heading_begin_after_the_question() -> None:
    found = reading("Fragestellung: TBC?\nHerz normal groß. Infiltrat links.")
    assert [s.name for s in found.sections] == ["indication", "findings"]
    said = {m.concept: (m.assertion, m.temporality, m.section) for m in found.mentions}
    assert said["infiltrate"] == ("present", "current", "findings")
    assert said["cardiomegaly"] == ("absent", "current", "findings")
    asked = reading("Klinik: Husten. Z. n.\nPneumonie.")  # the dot is that of an abbreviation
    assert [s.name for s in asked.sections] == ["indication"]


def test_phrases_of_the_tables_are_cut_as_the_text_is() -> None:
    text = "Abgekapselter Randwinkelerguss links."
    (effusion,) = reading(text).mentions
    assert text[effusion.start : effusion.end] == "Abgekapselter Randwinkelerguss"
    assert effusion.concept == "loculated_effusion"


def test_numbered_entries_open_sentences() -> None:
    assert sentences("1. Infiltrat links. 2. Kein Erguss.") == ["1. Infiltrat links.", "2. Kein Erguss."]


def test_normal_statements_deny() -> None:
    found = reading("Herz, Mediastinum und Lungen unauffällig. Randwinkel beidseits frei.").mentions
    denied = {m.concept for m in found if m.implied and m.assertion == "absent"}
    assert {"cardiomegaly", "mediastinal_widening", "infiltrate", "pleural_effusion"} <= denied
    assert "infiltrate" in {m.concept for m in reading("Lunge: frei.").mentions if m.implied}
    assert {m.concept for m in reading("Leber nicht einsehbar, Herz normal groß.").mentions} == {"cardiomegaly"}
    small = reading("Mediastinum nicht wesentlich vergrößert.").mentions  # "nicht wesentlich" is no grade
    assert "mediastinal_widening" in {m.concept for m in small if m.implied}
    assert [m.concept for m in reading("Unauffälliger Herz-Lungen-Befund.").mentions] == ["normal_study"]


def test_the_same_codes_as_in_english() -> None:
    (english,) = read(pipeline("en"), ["Left pleural effusion. No pneumothorax. Lower lobe infiltrate on the right."])
    german = reading("Pleuraerguss links. Kein Pneumothorax. Unterlappeninfiltrat rechts.")
    said = [[(m.concept, m.assertion, m.side, m.site) for m in r.mentions] for r in (english, german)]
    assert said[0] == said[1]
