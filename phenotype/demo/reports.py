"""Reports in varied English about planted lesions, together with what each report says of each concept.

The truth of a text and the truth of a picture are kept apart: a radiologist misses some lesions, doubts some, and now
and then sees one that is not there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from phenotype.demo import phrases
from phenotype.demo.lesions import ZONES, Lesion, Side

Assertion = Literal["present", "absent", "uncertain"]

MISSED, DOUBTED, INVENTED = 0.05, 0.08, 0.02  # of lesions, of lesions, of studies
GRADES = {"CR": (90.0, 108.0), "CT": (28.0, 45.0)}  # effusions: height of the fluid, or its depth (mm)
MARKS: dict[str, Assertion] = {"?": "uncertain", "-": "absent"}
LOBES = {
    ("right", "upper"): ("right upper lobe", "right upper zone", "upper zone of the right lung"),
    ("right", "middle"): ("right middle lobe", "right mid zone", "middle zone of the right lung"),
    ("right", "lower"): ("right lower lobe", "right lung base", "right lower zone"),
    ("left", "upper"): ("left upper lobe", "left upper zone", "upper zone of the left lung"),
    ("left", "middle"): ("left mid zone", "left mid lung", "middle zone of the left lung"),
    ("left", "lower"): ("left lower lobe", "left lung base", "left lower zone"),
}


@dataclass(frozen=True, slots=True)
class Mention:
    """What a report says of a concept; side is left, right, bilateral or empty, zone upper, middle, lower or empty."""

    concept: str
    assertion: Assertion
    side: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What the radiologist knows beside the picture."""

    modality: Literal["CR", "CT"]
    previous: date | None
    letterhead: str = ""  # name and date of birth, as some reports carry them


@dataclass(frozen=True, slots=True)
class Written:
    """A report, what it says, which of the lesions it mentions, and the lesion that it invented, if it did."""

    text: str
    mentions: tuple[Mention, ...]
    reported: tuple[bool, ...]
    invented: Lesion | None


class _Pen:
    """Fills sentences in and keeps what they say."""

    def __init__(self, rng: np.random.Generator, modality: str) -> None:
        self.rng = rng
        self.grades = GRADES[modality]
        self.said: list[Mention] = []

    def choose(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def write(self, options: Sequence[str], lesion: Lesion | None = None, side: str = "") -> str:
        """One of the sentences, about a lesion; `side` overrides the lesion's (bilateral)."""
        head, _, sentence = self.choose(options).partition("|")
        about = lesion or Lesion("", self._side(), ZONES[int(self.rng.integers(3))])
        side = side or about.side
        if side == "bilateral":  # "there is a large pleural effusion on the bilateral" is not English
            sentence = "{grade} bilateral pleural effusions."
        place = self.choose(LOBES[about.side, about.zone]) if about.side and about.zone else "lungs"
        grade = ("small", "moderate", "large")[int(np.searchsorted(self.grades, about.size))]
        for mark in filter(None, head.split("+")):
            concept = mark.rstrip("?-")
            both = any(word in sentence for word in ("bilateral", "both", "bibasilar"))
            at = "bilateral" if both else side if "{side}" in sentence or "{place}" in sentence else ""
            zone = about.zone if "{place}" in sentence else ""
            self.said.append(Mention(concept, MARKS.get(mark[-1], "present"), at, zone))
        return sentence.format(side=side, place=place, grade=grade, size=self._length(about.size))

    def _side(self) -> Side:
        return "left" if self.rng.random() < 0.5 else "right"

    def _length(self, size: float) -> str:
        return f"{size:.0f} mm" if self.rng.random() < 0.6 else f"{size / 10:.1f} cm"


def write_report(rng: np.random.Generator, lesions: Sequence[Lesion], occasion: Occasion) -> Written:
    """A report about a picture with these lesions (sides and zones as they came to lie)."""
    pen = _Pen(rng, occasion.modality)
    reported = tuple(bool(rng.random() >= MISSED) for _ in lesions)
    seen = [lesion for lesion, r in zip(lesions, reported, strict=True) if r]
    invented = _invent(rng) if rng.random() < INVENTED else None
    if invented and all(lesion.finding != invented.finding for lesion in lesions):
        seen.append(invented)
    else:
        invented = None

    concluded = rng.random() < 0.85
    findings, impression = [], []
    for group in _grouped(seen):
        lesion = group[0]
        side = "bilateral" if len({g.side for g in group}) == 2 and lesion.finding == "pleural_effusion" else ""
        doubted = lesion.finding in phrases.UNCERTAIN and not side and rng.random() < DOUBTED
        bank = phrases.UNCERTAIN if doubted else phrases.PRESENT
        findings.append(pen.write(bank[lesion.finding], lesion, side))
        if concluded and not doubted and lesion.finding in phrases.IMPRESSION and rng.random() < 0.7:
            impression.append(pen.write(phrases.IMPRESSION[lesion.finding], lesion, side))
    rng.shuffle(findings)
    findings += _normal(pen, lesions, seen, occasion)
    if concluded and not seen:
        impression.append(pen.write(phrases.NORMAL_IMPRESSION))
    text = _layout(pen, findings, impression, occasion)
    return Written(text, tuple(dict.fromkeys(pen.said)), reported, invented)


def _grouped(seen: Sequence[Lesion]) -> list[list[Lesion]]:
    """Effusions of both sides are one sentence, and so is fibrosis; every other lesion has its own."""
    groups: dict[str, list[Lesion]] = {}
    for n, lesion in enumerate(seen):
        shared = lesion.finding in ("pleural_effusion", "fibrosis_ild")
        groups.setdefault(lesion.finding if shared else f"{lesion.finding} {n}", []).append(lesion)
    return list(groups.values())


def _invent(rng: np.random.Generator) -> Lesion:
    side: Side = "left" if rng.random() < 0.5 else "right"
    zone = ZONES[int(rng.integers(3))]
    if rng.random() < 0.5:
        return Lesion("nodule", side, zone, float(rng.integers(6, 15)))
    return Lesion("pleural_effusion", side, "lower", 60.0)


def _normal(pen: _Pen, lesions: Sequence[Lesion], seen: Sequence[Lesion], occasion: Occasion) -> list[str]:
    """Denials, normal statements and remarks; nothing that a lesion or a sentence about one contradicts."""
    there = {lesion.finding for lesion in (*lesions, *seen)} | {m.concept for m in pen.said}
    airspace = {"consolidation", "pneumonia", "opacity", "airspace_disease", "infiltrate"}
    congestion = {"edema_congestion", "vascular_congestion", "pulmonary_edema"}
    for alike in (airspace, congestion):
        there |= alike if there & alike else set()

    def free(options: Sequence[str]) -> list[str]:
        return [o for o in options if not {c.rstrip("?-") for c in o.partition("|")[0].split("+")} & there]

    banks: list[Sequence[str]] = []
    if pen.rng.random() < 0.8:
        banks += [free(phrases.DENIALS)] * int(pen.rng.integers(1, 3))
    if "cardiomegaly" not in there and pen.rng.random() < 0.75:
        banks.append(phrases.NORMAL_HEART)
    if not there and pen.rng.random() < 0.6:
        banks.append(phrases.CLEAR)
    if pen.rng.random() < 0.3:
        banks.append(phrases.ASIDES)
    if occasion.previous and pen.rng.random() < 0.25:
        banks.append(free(phrases.RESOLVED))
    sentences = [pen.write(bank) for bank in banks if bank]
    sentences = list(dict.fromkeys(sentences))
    if not there:
        pen.rng.shuffle(sentences)
    return sentences or [pen.write(phrases.CLEAR if not there else phrases.ASIDES[-1:])]


def _layout(pen: _Pen, findings: Sequence[str], impression: Sequence[str], occasion: Occasion) -> str:
    """Sections, some of them missing; headings, numbering and letters as different people write them."""
    rng = pen.rng
    body = " ".join(_sentence(s) for s in findings)
    parts: list[tuple[str, str]] = []
    if rng.random() < 0.75:
        parts.append(("Indication", _sentence(pen.choose(phrases.INDICATIONS)) + "."))
    if occasion.previous:
        parts.append(("Comparison", f"{occasion.previous:%d %B %Y}."))
    elif rng.random() < 0.3:
        parts.append(("Comparison", "None."))
    if rng.random() < 0.4:
        parts.append(("Technique", _sentence(pen.choose(phrases.TECHNIQUE[occasion.modality])) + "."))
    parts.append(("Findings", body))
    if impression:
        lines = [_sentence(s) for s in dict.fromkeys(impression)]
        if len(lines) > 1 and rng.random() < 0.7:
            lines = [f"{n}. {line}" for n, line in enumerate(lines, 1)]
        parts.append((pen.choose(("Impression", "Impression", "Conclusion", "Opinion")), "\n".join(lines)))
    if len(parts) == 1 or rng.random() < 0.06:  # bare text, without headings
        text = "\n".join(part for name, part in parts if name not in ("Indication", "Comparison", "Technique"))
    else:
        caps = rng.random() < 0.6
        breaks = " " if rng.random() < 0.5 else "\n"
        text = "\n".join(f"{name.upper() if caps else name}:{breaks}{part}" for name, part in parts)
    if occasion.letterhead:
        text = f"{occasion.letterhead}\n{text}"
    style = rng.random()
    return text.upper() if style < 0.06 else text.lower() if style < 0.1 else text


def _sentence(text: str) -> str:
    return re.sub(r"^([a-z])", lambda m: m[1].upper(), text)
