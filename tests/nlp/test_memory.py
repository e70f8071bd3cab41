"""Sentences that are remembered are told as if they were read again."""

import random

import pytest

from nlp.memory import Memory
from nlp.pipeline import load_pipeline, read
from nlp.reader import Reader
from nlp.scan import notes_of

SENTENCES = {
    "en": [
        "Small left pleural effusion, 3 cm, increased since 03/12/2019.",
        "No pneumothorax.",
        "The heart is normal in size.",
        "There is an opacity in the right lower lobe.",
        "This may represent pneumonia.",
        "It measures 12 mm.",
        "No evidence of:",
        "- pneumonia",
        "1. Calcified granuloma",
        "of the lung",
        "HISTORY: Pneumonia.",
        "IMPRESSION: No pneumothorax.",
        "XXXX pneumothorax.",
        "Mild cardiomegaly and",
    ],
    "de": [
        "Kein Pneumothorax.",
        "Kleiner Pleuraerguss links.",
        "Pleura- und",
        "Perikarderguss.",
        "Dies könnte einer Pneumonie entsprechen.",
        "Infiltrat li.",
        "Unterlappen frei.",
        "Kein Nachweis von:",
        "- Pneumonie",
        "Herz normal groß.",
    ],
}


@pytest.mark.parametrize("language", SENTENCES)
def test_what_is_remembered_is_what_is_read(language: str) -> None:
    draw = random.Random(3)
    texts = [
        "".join(draw.choice(SENTENCES[language]) + draw.choice(" \n") for _ in range(draw.randint(1, 6)))
        for _ in range(600)
    ]
    assert list(Reader(language).read(texts)) == list(read(load_pipeline(language), texts))


def test_a_known_sentence_is_not_read_again() -> None:
    nlp = load_pipeline(memory=True)
    text = "No pneumothorax. Small left pleural effusion."
    first, second = read(nlp, [text, "FINDINGS:\n" + text])
    doc = nlp(text)
    assert set(notes_of(doc).recalled) == {0, 1}
    assert [m.concept for m in first.mentions] == [m.concept for m in second.mentions] != []
    assert {m.start - n.start for m, n in zip(second.mentions, first.mentions, strict=True)} == {10}
    nlp.get_pipe("report_phrases").forget()
    assert not notes_of(nlp(text)).recalled


def test_a_memory_has_an_end() -> None:
    memory = Memory(most=2)
    for i in range(10):
        memory.keep((str(i), "current"), [])
        memory.get(("0", "current"))  # in use all the time
    known = [i for i in range(10) if memory.get((str(i), "current")) is not None]
    assert 0 in known and 9 in known and len(known) <= 4
