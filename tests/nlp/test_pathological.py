"""Reports as no radiologist writes them, generated from seeds: each read within seconds, in time linear in its length.

The environment variable PHENOTYPE_PATHOLOGICAL says how many are read (1,000 are the full plan; a hundred by default).
"""

import os
import random
import time
from collections.abc import Callable
from functools import cache

import pytest
from spacy.language import Language

from nlp.lexicon import load
from nlp.pipeline import load_pipeline, read
from nlp.values import Reading

COUNT = int(os.environ.get("PHENOTYPE_PATHOLOGICAL", "100"))
SECONDS = 5.0
MEGABYTE = 1_000_000
pipeline = cache(load_pipeline)

SAID = {
    "en": {
        "heading": ("FINDINGS:", "IMPRESSION:", "Indication:", "COMPARISON:"),
        "cue": ("no", "without", "may represent", "no evidence of", "has resolved", "is not seen", "unlikely"),
        "finding": ("effusion", "nodule", "calcified granuloma", "pneumothorax", "opacity", "rib fracture"),
        "place": ("left", "right lower lobe", "in both bases", "bilateral", "mild", "severe", "stable", "3 x 4 mm"),
        "small": (",", "and", "or", "with", "is", "in", "there is", ";", "but", "which", "this"),
    },
    "de": {
        "heading": ("Befund:", "BEURTEILUNG:", "Fragestellung:"),
        "cue": ("kein", "ohne", "V. a.", "nicht nachweisbar", "Z. n.", "ausgeschlossen", "DD"),
        "finding": ("Erguss", "Pleuraerguss", "Rundherd", "Pneumothorax", "Infiltrat", "Oberlappeninfiltrat"),
        "place": ("links", "im rechten Unterlappen", "beidseits", "gering", "1,5 cm", "Ober- und Unterlappen"),
        "small": (",", "und", "oder", "mit", "ist", "im", ";", "aber", "welche", "dies", "Unter-"),
    },
}
ODD = {
    "spaces": " \t\u00a0\u2003\u3000",
    "lines": "\n\r\v\f\x1c\x85\u2028\u2029",
    "control": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "brackets": "()[]{}<>",
    "signs": ".,;:!?-_/\\|*#+=~^'\"`@$%&",
    "emoji": "😀🫁👩‍⚕️🏳️‍🌈",
    "marks": "\u0301\u0308\u0323\u20dd\u0e33",
    "unseen": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u202d\u2066",
    "scripts": "жقא漢あ한กπßİıǆﬁ",
    "halves": "\ud800\udbff\udc00\udfff",
    "digits": "0123456789٣५Ⅷ½²",
    "letters": "aeimnorst",
}


def one_alphabet(rng: random.Random, language: str, length: int) -> str:
    """Signs of one kind, without a space."""
    return "".join(rng.choices(ODD[rng.choice(list(ODD))], k=length))


def mixed_alphabets(rng: random.Random, language: str, length: int) -> str:
    kinds = [ODD[kind] for kind in rng.sample(list(ODD), k=4)]
    return "".join(rng.choices("".join(kinds), k=length))


def one_sign(rng: random.Random, language: str, length: int) -> str:
    return rng.choice("".join(ODD.values())) * length


def nested(rng: random.Random, language: str, length: int) -> str:
    opening, closing = rng.choice(("()", "[]", "{}", '""', "<>"))
    inside = f" {rng.choice(SAID[language]['finding'])} " if rng.random() < 0.5 else ""
    return opening * (length // 2) + inside + closing * (length // 2)


def numbers(rng: random.Random, language: str, length: int) -> str:
    """Huge numbers, lists of sizes, numbered lists."""
    glue = rng.choice(("", ".", ",", " x ", " mm ", ". ", "\n", "-", "/", " x "))
    return repeated(glue.join(str(rng.getrandbits(rng.choice((3, 8, 200)))) for _ in range(50)), length)


def words(rng: random.Random, language: str, length: int) -> str:
    """Words of the reader's own kinds in any order, so that one sentence has thousands of them."""
    kinds = rng.sample(list(SAID[language]), k=rng.randint(1, 5))
    some = [rng.choice(SAID[language][rng.choice(kinds)]) for _ in range(200)]
    return repeated(rng.choice((" ", " ", " ", "\n", ". ", ", ", "-", "/", "")).join(some) + " ", length)


def one_phrase(rng: random.Random, language: str, length: int) -> str:
    """Any phrase of the lexicon again and again, gapped ones with their gaps filled or not."""
    lexicon = load(language)
    table = rng.choice((lexicon.names, lexicon.cues, lexicon.places, lexicon.headings, lexicon.normals, lexicon.states))
    phrase = rng.choice(table)[0] if table else "x"
    text = phrase if isinstance(phrase, str) else rng.choice((" ", " x ", " is ")).join(phrase.parts)
    return repeated(text + rng.choice((" ", " ", ", ", ": ", "\n", ". ", " / ", "")), length)


def two_phrases(rng: random.Random, language: str, length: int) -> str:
    return repeated(one_phrase(rng, language, 40) + " " + one_phrase(rng, language, 40) + " ", length)


def damaged(rng: random.Random, language: str, length: int) -> str:
    """Words with odd signs thrown in."""
    text = list(words(rng, language, length))
    odd = "".join(ODD.values())
    for _ in range(len(text) // 10):
        text[rng.randrange(len(text))] = rng.choice(odd)
    return "".join(text)


def repeated(text: str, length: int) -> str:
    return (text * (length // len(text) + 1))[:length]


KINDS: tuple[Callable[[random.Random, str, int], str], ...] = (
    one_alphabet, mixed_alphabets, one_sign, nested, numbers, words, words, one_phrase, two_phrases, damaged,
)  # fmt: skip


def report(seed: int) -> tuple[str, str]:
    """A language and a text: every kind and both languages in turn, lengths from 1 to a million characters."""
    rng = random.Random(seed)
    language = ("en", "de")[seed // len(KINDS) % 2]
    # in the small plan most are short, so that it fits a test run; the full one has them evenly up to a megabyte
    length = MEGABYTE if seed % 37 == 0 else int(10 ** rng.uniform(0, 4.6 if COUNT < 1000 else 6))
    return language, KINDS[seed % len(KINDS)](rng, language, max(1, length))


def timed(nlp: Language, text: str) -> tuple[Reading, float]:
    started = time.process_time()
    (reading,) = read(nlp, [text])
    return reading, time.process_time() - started


def check_offsets(text: str, reading: Reading) -> None:
    """Whatever the text, offsets stay inside it and in order."""
    for spans in (reading.sections, reading.sentences, reading.mentions):
        assert all(0 <= s.start <= s.end <= len(text) for s in spans)
        assert [s.start for s in spans] == sorted(s.start for s in spans)


def test_pathological_reports() -> None:
    slow = []
    for seed in range(COUNT):
        language, text = report(seed)
        try:
            reading, seconds = timed(pipeline(language), text)
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
        check_offsets(text, reading)
        if seconds > SECONDS:
            slow.append(f"seed {seed} ({language}, {KINDS[seed % len(KINDS)].__name__}): {seconds:.1f} s")
    assert not slow, slow


UNITS = {
    "one sentence of findings": "effusion nodule opacity ",
    "a list": "effusion, nodule, opacity and ",
    "findings with places": "nodule in the left base, mild right lower lobe opacity ",
    "cues": "no effusion may represent nodule without opacity ",
    "cues alone": "no without may ",
    "sizes": "3 x 4 mm nodule ",
    "gapped phrases": "heart is size enlarged ",
    "normal statements": "heart and lungs are normal ",
    "headings": "FINDINGS: no effusion. IMPRESSION: nodule. ",
    "lines": "\n",
    "short lines": "No effusion\n",
    "stops": ". ",
    "brackets": "( [",
    "one word": "effusion",
    "semicolons": "effusion; ",
    "pointing back": "This nodule is seen. ",
    "hyphens": "Ober- und ",
    "compounds": "Oberlappeninfiltrat und Unterlappeninfiltrat ",
    "German verbs": "Erguss ist nicht nachweisbar, Rundherd im linken Oberlappen ",
}


@pytest.mark.parametrize("name", UNITS)
def test_time_is_linear_in_the_length(name: str) -> None:
    """Four times the text takes about four times the time; quadratic work would take sixteen times."""
    unit = UNITS[name]
    language = "de" if any(word in unit for word in ("Ober", "Erguss")) else "en"
    nlp = pipeline(language)
    timed(nlp, repeated(unit, 2_000))  # new words are learned
    length = 10_000
    short = min(timed(nlp, repeated(unit, length))[1] for _ in range(3))
    long = min(timed(nlp, repeated(unit, 4 * length))[1] for _ in range(3))
    assert long < 8 * short + 0.05, (short, long)


def test_a_control_that_is_quadratic_fails() -> None:
    """The bound above tells quadratic from linear work."""

    def work(n: int) -> float:
        started = time.process_time()
        sum(1 for i in range(n) for _ in range(i))
        return time.process_time() - started

    assert work(8_000) > 8 * work(2_000) + 0.05
