"""The invented patients: who they are, which phenotype each belongs to, and what is planted into each study.

A patient keeps body and disease from study to study; only size, positioning and exposure change.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

import numpy as np

from phenotype.demo.lesions import ZONES, Lesion, Side
from phenotype.demo.thorax import Build, View, draw_build, draw_view

GROUPS = {"healthy": 24, "heart failure": 7, "pneumonia": 7, "hyperinflation": 6, "fibrosis": 6}  # of 50 patients
AGES = {"healthy": 46, "heart failure": 74, "pneumonia": 55, "hyperinflation": 66, "fibrosis": 69}
SECOND_STUDY = 0.15  # of patients

FIRST = {
    "F": ("Ada", "Berta", "Cäcilia", "Dora", "Esme", "Fiametta", "Gundula", "Hedwig", "Isolde", "Josefa", "Klara"),
    "M": ("Anton", "Balduin", "Cornelius", "Dagobert", "Emil", "Florin", "Gustav", "Hubert", "Ignaz", "Jörg", "Kilian"),
}
LAST = (
    *("Attrappe", "Beispielmann", "Chimärowitz", "Dummyfield", "Erfundner", "Fictitious", "Gibtsnicht"),
    *("Hirngespinst", "Invented", "Jokerson", "Kunstfigur", "Luftschloss", "Mustermann", "Nobodysson"),
    *("Ohnegleichen", "Phantomas", "Quasimann", "Rollenspieler", "Scheinbar", "Testperson", "Undefined"),
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist."""

    number: int
    patient_id: str
    name: str  # as in DICOM, Last^First
    sex: Literal["F", "M"]
    birth: date
    group: str
    build: Build
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """One radiograph to be taken (or, where `view` is None, one CT volume) and its report to be written."""

    accession: str
    person: Person
    day: date
    modality: Literal["CR", "CT"]
    lesions: tuple[Lesion, ...]
    view: View | None
    previous: date | None
    seed: int

    @property
    def age(self) -> int:
        """Full years on the day of the study."""
        born = self.person.birth
        return self.day.year - born.year - ((self.day.month, self.day.day) < (born.month, born.day))


def draw_studies(studies: int, volumes: int, seed: int) -> tuple[Study, ...]:
    """`studies` radiographs of as many patients as that takes, then `volumes` CT volumes of the first of them."""
    numbers = np.random.default_rng([seed, 0]).permutation(9_000_000)[: studies + volumes] + 1_000_000
    accessions = (f"DEMO{n}" for n in numbers)
    found: list[Study] = []
    people: list[Person] = []
    for person in _people(seed):
        people.append(person)
        rng = np.random.default_rng([seed, 2, person.number])
        day = date(2018, 1, 1) + timedelta(days=int(rng.integers(1500)))
        previous = None
        for n in range(2 if rng.random() < SECOND_STUDY else 1):
            if len(found) == studies:
                break
            lesions = person.lesions if n == 0 else tuple(_later(lesion, rng) for lesion in person.lesions)
            view, own = draw_view(rng), int(rng.integers(2**31))
            found.append(Study(next(accessions), person, day, "CR", lesions, view, previous, own))
            previous, day = day, day + timedelta(days=int(rng.integers(20, 400)))
        if len(found) == studies:
            break
    for n in range(volumes):
        person = people[n % len(people)]
        rng = np.random.default_rng([seed, 3, n])
        day = date(2022, 6, 1) + timedelta(days=int(rng.integers(500)))
        own = int(rng.integers(2**31))
        found.append(Study(next(accessions), person, day, "CT", _volume_lesions(person, rng), None, None, own))
    return tuple(found)


def _people(seed: int) -> Iterator[Person]:
    deck: list[str] = []
    number = 0
    while True:
        if not deck:  # every 50 patients hold each group in its proportion
            cards = [group for group, count in GROUPS.items() for _ in range(count)]
            deck = [str(g) for g in np.random.default_rng([seed, 1, number]).permutation(cards)]
        group = deck.pop()
        rng = np.random.default_rng([seed, 1, number, 1])
        build = draw_build(rng)
        age = float(np.clip(rng.normal(AGES[group], 11), 19, 94))
        birth = date(2019, 1, 1) - timedelta(days=int(365.25 * age))
        name = f"{LAST[int(rng.integers(len(LAST)))]}^{FIRST[build.sex][int(rng.integers(11))]}"
        identity = f"PHT{number:04d}{int(rng.integers(1000)):03d}"
        yield Person(number, identity, name, build.sex, birth, group, build, _lesions(group, build, rng))
        number += 1


def _lesions(group: str, build: Build, rng: np.random.Generator) -> tuple[Lesion, ...]:
    lesions: list[Lesion] = []

    def add(
        finding: str, side: Side = "", low: float = 0, high: float = 0, strength: tuple[float, float] = (1, 1)
    ) -> None:
        zone = ZONES[int(rng.integers(3))]
        size, power = round(float(rng.uniform(low, high))), float(rng.uniform(*strength))
        lesions.append(Lesion(finding, side, zone if side else "", size, power, int(rng.integers(2**31))))

    def either(left: float = 0.5) -> Side:
        return "left" if rng.random() < left else "right"

    if group == "heart failure":
        width = 2 * build.half_width
        add("cardiomegaly", "", 0.54 * width, 0.62 * width)
        if rng.random() < 0.8:
            sides: tuple[Side, ...] = ("right", "left") if rng.random() < 0.5 else (either(0.4),)
            for side in sides:
                add("pleural_effusion", side, 72, 122)
        if rng.random() < 0.6:
            add("edema_congestion", strength=(0.8, 1.4))
    elif group == "pneumonia":
        for _ in range(1 + (rng.random() < 0.2)):
            add("consolidation", either(), 70, 110, (0.85, 1.2))
        if rng.random() < 0.15:
            add("pleural_effusion", lesions[0].side, 70, 90)
    elif group == "hyperinflation":
        add("hyperinflation", strength=(0.7, 1.1))
        if rng.random() < 0.5:
            add("pneumothorax", either(), 12, 34, (0.9, 1.3))
    elif group == "fibrosis":
        power = float(rng.uniform(0.75, 1.2))
        for side in ("right", "left"):
            add("fibrosis_ild", side, strength=(power, power))
    nodules = {"heart failure": 0.08, "pneumonia": 0.1, "hyperinflation": 0.45, "fibrosis": 0.25}.get(group, 0.0)
    if rng.random() < nodules:
        for _ in range(1 + (rng.random() < 0.25)):
            add("nodule", either(), 10, 30, (0.8, 1.4))
    devices = {"heart failure": (0.3, 0.1), "pneumonia": (0.02, 0.15)}.get(group, (0.02, 0.02))
    if rng.random() < devices[0]:
        add("pacemaker", either(0.85))
    if rng.random() < devices[1]:
        add("central_line", either(0.2))
    return tuple(lesions)


def _volume_lesions(person: Person, rng: np.random.Generator) -> tuple[Lesion, ...]:
    """The disease of a patient as CT shows it: fluid in heart failure and half of pneumonias, otherwise nodules."""
    if person.group == "healthy":
        return ()
    side: Side = "left" if rng.random() < 0.5 else "right"
    if person.group == "heart failure" or (person.group == "pneumonia" and rng.random() < 0.5):
        sides: tuple[Side, ...] = ("right", "left") if rng.random() < 0.4 else (side,)
        return tuple(Lesion("pleural_effusion", s, "lower", round(float(rng.uniform(20, 60)))) for s in sides)
    return tuple(
        Lesion(
            "nodule", s, ZONES[int(rng.integers(3))], round(float(rng.uniform(10, 30))), 1.0, int(rng.integers(2**31))
        )
        for s in (("right", "left") if rng.random() < 0.4 else (side,))
    )


def _later(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    """The same lesion some months on: a little larger or smaller."""
    low, high = {"cardiomegaly": (0.98, 1.03), "pleural_effusion": (0.9, 1.1)}.get(lesion.finding, (0.85, 1.2))
    return replace(lesion, size=float(round(lesion.size * rng.uniform(low, high))))
