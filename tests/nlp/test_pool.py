"""Reading many reports: in order, as they come, in several processes, in any language, in bounded memory."""

import os
import pickle
import random
import string
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import nlp.reader
from nlp.pipeline import load_pipeline, read
from nlp.reader import Reader
from nlp.values import Reading, as_dict

FINDINGS = ("pleural effusion", "nodule", "pneumothorax", "rib fracture", "cardiomegaly")


def reports(count: int) -> list[str]:
    rng = random.Random(5)
    return [
        f"FINDINGS: {rng.choice(('No', 'Mild', 'Possible new'))} {rng.choice(FINDINGS)} in the left base, {nr} mm. "
        f"There is {rng.choice(FINDINGS)} of the right upper lobe.\nIMPRESSION: {rng.choice(FINDINGS)}."
        for nr in range(count)
    ]


def test_one_process_and_two_read_alike_and_in_order() -> None:
    texts = reports(730)
    alone = list(Reader("en").read(texts))
    assert alone == list(read(load_pipeline(), texts))
    assert list(Reader("en").read(texts, processes=2)) == alone


def test_texts_are_taken_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for text in reports(40) * 1000:
            taken += 1
            yield text

    next(Reader("en").read(endless()))
    assert taken <= 200
    taken = 0
    readings = Reader("en").read(endless(), processes=2)
    next(readings)
    assert taken <= 1000
    readings.close()  # type: ignore[attr-defined]


def test_each_report_in_its_language() -> None:
    texts = [
        "FINDINGS: There is a small left pleural effusion. The heart is normal in size.",
        "Befund: Kleiner Pleuraerguss links. Das Herz ist normal groß, kein Pneumothorax.",
        "Aucun épanchement pleural, pas de pneumothorax. Le coeur est de taille normale chez ce patient.",
        "",
        "There is no pneumothorax and the lungs are clear.",
    ]
    readings = list(Reader().read(texts))
    assert [r.language for r in readings] == ["en", "de", "", "", "en"]
    assert {m.concept for m in readings[1].mentions} >= {"pleural_effusion", "pneumothorax"}
    assert readings[2] == Reading("", (), (), ())


def test_a_lexicon_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own.tsv"
    own.write_text("id\tname\tphrases\nblob\tBlob\tblob(s)\n", encoding="utf-8")
    for processes in (1, 2):
        (reading,) = Reader("en", own).read(["There are blobs."], processes)
        assert [m.concept for m in reading.mentions] == ["blob"]


def test_readings_cross_as_plain_values() -> None:
    (reading,) = Reader("en").read(["Two 4 mm nodules in the left upper lobe, larger than before. No effusion."])
    assert len(reading.mentions) > 1 and any(m.evidence for m in reading.mentions)
    assert pickle.loads(pickle.dumps(reading)) == reading
    assert as_dict(reading)["mentions"][0]["evidence"][0].keys() == {"kind", "value", "start", "end"}


def kill_once(language: str, lexicon: Path | None, texts: list[str]) -> list[object]:
    """In place of a worker's own work: dies the first time it sees a text that says so."""
    for text in texts:
        if text.startswith("kill "):
            mark = Path(text.split()[1])
            if not mark.exists() or "always" in text:
                mark.touch()
                os._exit(1)
    return nlp.reader._reader(language, lexicon).read_chunk(texts)


def test_a_worker_that_dies_once_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlp.reader, "_work", kill_once)
    texts = [*reports(150), f"kill {tmp_path / 'mark'} No effusion.", *reports(150)]
    assert list(Reader("en").read(texts, processes=2)) == list(Reader("en").read(texts))


def test_a_worker_that_dies_again_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlp.reader, "_work", kill_once)
    texts = [*reports(150), f"kill {tmp_path / 'mark'} always", *reports(150)]
    with pytest.raises(BrokenProcessPool):
        list(Reader("en").read(texts, processes=2))


def test_words_that_come_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pipeline keeps of its reports is bounded, and what it knows by heart stays."""
    monkeypatch.setattr(nlp.reader, "_KNOWN", 3000)
    rng = random.Random(11)

    def texts(count: int) -> Iterator[str]:
        for _ in range(count):
            new = " ".join("".join(rng.choices(string.ascii_lowercase, k=9)) for _ in range(20))
            yield f"No pneumothorax, said {new}, but {rng.random()} mm nodule of the left base."

    reader = Reader("en")
    list(reader.read(texts(400)))
    strings = len(reader._pipelines["en"].vocab.strings)
    readings = list(reader.read(texts(2000)))
    assert len(reader._pipelines["en"].vocab.strings) == strings
    expected = {("pneumothorax", "absent"), ("nodule", "present")}
    assert all({(m.concept, m.assertion) for m in r.mentions} == expected for r in readings)
