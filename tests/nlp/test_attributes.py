"""Measurements to the millimetre, and the words that said it."""

from functools import cache

import pytest

from nlp.pipeline import load_pipeline, read
from nlp.values import Mention

pipeline = cache(load_pipeline)

# text | sizes of today | sizes of before, in millimetres as they are told; "" if none may be told
MEASURED = """
Nodule of 8 mm. | 8.0 |
Nodule of 8mm. | 8.0 |
8-mm nodule. | 8.0 |
A 0.8 cm nodule. | 8.0 |
A .8 cm nodule. | 8.0 |
A 1.25 cm nodule. | 12.5 |
Nodule measuring 4.5cm. | 45.0 |
The nodule measures 12 millimeters. | 12.0 |
The nodule measures 1 centimeter. | 10.0 |
Nodule (6 mm). | 6.0 |
Nodule, 6 mm, in the lingula. | 6.0 |
Nodule: 6 mm. | 6.0 |
Nodule up to 8 mm. | 8.0 |
Nodules measuring up to 8 mm in diameter. | 8.0 |
Approximately 7 mm nodule. | 7.0 |
Nodule measures about 7 mm. | 7.0 |
A less than 5 mm nodule. | 5.0 |
Mass measures 2.3 x 1.5 cm. | 23.0x15.0 |
Mass measures 2.3x1.5cm. | 23.0x15.0 |
Mass measures 2.3 cm x 1.5 cm. | 23.0x15.0 |
Mass measures 2.3 cm by 1.5 cm. | 23.0x15.0 |
Mass measures 2.3 × 1.5 × 4 cm. | 23.0x15.0x40.0 |
Mass measures 2.3 x 1.5 x 4 cm. | 23.0x15.0x40.0 |
Mass measures 2.3 cm x 1.5 cm x 4 cm. | 23.0x15.0x40.0 |
Mass measures 23 x 15 mm. | 23.0x15.0 |
A 10 x 8 x 7 mm nodule in the left lower lobe. | 10.0x8.0x7.0 |
Cyst of 3.0 x 2.0 x 1.0 cm in the liver. | 30.0x20.0x10.0 |
A 3-4 mm nodule. | 3.0-4.0 |
A 3 - 4 mm nodule. | 3.0-4.0 |
A 3 to 4 mm nodule. | 3.0-4.0 |
Nodules ranging from 3 to 5 mm. | 3.0-5.0 |
Nodules measuring 2 mm to 6 mm. | 2.0-6.0 |
5 and 8 mm nodules. | 5.0 8.0 |
5, 6 and 8 mm nodules. | 5.0 6.0 8.0 |
Nodules of 5 mm and 8 mm. | 5.0 8.0 |
Subcentimeter nodule. | subcentimeter |
Sub-centimeter nodule. | subcentimeter |
There is a nodule. It measures 8 mm. | 8.0 |
There is a nodule. This measures 1.1 x 0.9 cm. | 11.0x9.0 |
Pneumothorax measuring 2.5 cm at the apex. | 25.0 |
Stable 6 mm nodule. | 6.0 |
The nodule was 8 mm. | 8.0 |
Nodule measures 12 mm, previously 8 mm. | 12.0 | 8.0
Nodule measures 12 mm (previously 8 mm). | 12.0 | 8.0
Nodule now 12 mm, was 8 mm. | 12.0 | 8.0
Nodule measures 12 x 10 mm (previously 8 x 6 mm). | 12.0x10.0 | 8.0x6.0
Nodule measures 12 mm, previously measuring 8 mm. | 12.0 | 8.0
Nodule measures 12 mm compared to 8 mm on the prior. | 12.0 | 8.0
Nodule measures 12 mm versus 8 mm on the prior study. | 12.0 | 8.0
Nodule measures 12 mm, 8 mm previously. | 12.0 | 8.0
Nodule measures 12 mm, formerly 8 mm. | 12.0 | 8.0
Nodule previously measured 8 mm and now measures 12 mm. | 12.0 | 8.0
Nodule has increased from 8 to 12 mm. | 12.0 | 8.0
Nodule has increased from 8 mm to 12 mm. | 12.0 | 8.0
Mass has grown from 0.8 cm to 1.2 cm. | 12.0 | 8.0
Nodule has decreased from 1.2 cm to 8 mm. | 8.0 | 12.0
The previously seen 8 mm nodule has resolved. | | 8.0
Endotracheal tube terminates 3 cm above the carina. | |
Catheter tip 2.5 cm below the cavoatrial junction. | |
The tube should be retracted by 2 cm. | |
Nodule 2 cm from the hilum. | |
Nodule within 2 cm of the carina. | |
Nodule seen on 1.25 mm slices. | |
Nodule on 5 mm axial images. | |
Slice thickness of 5 mm; nodule. | |
Nodule 4 mm, slice thickness 1 mm. | 4.0 |
Nodule 4 mm, compared to the prior increased. | 4.0 |
Nodule (series 3, image 45). | |
8 mm nodule (series 3, image 45). | 8.0 |
Nodule in segment 6, 8 mm. | 8.0 |
No nodule larger than 6 mm. | |
No nodules over 4 mm. | |
Compression fracture of T12 with 5 mm retropulsion. | 5.0 |
Nodule on image 45, 8 mm. | 8.0 |
"""


def rows() -> list[tuple[str, list[str], list[str]]]:
    cells = [[cell.strip() for cell in f"{line} | |".split("|")] for line in MEASURED.splitlines() if line.strip()]
    return [(text, today.split(), before.split()) for text, today, before, *_ in cells]


def told(mentions: tuple[Mention, ...], kind: str) -> list[str]:
    return [value for _, value in sorted({(e.start, e.value) for m in mentions for e in m.evidence if e.kind == kind})]


def test_there_are_enough_measurements() -> None:
    assert len(rows()) >= 60


@pytest.mark.parametrize(("text", "today", "before"), rows())
def test_measurement(text: str, today: list[str], before: list[str]) -> None:
    (reading,) = read(pipeline(), [text])
    assert told(reading.mentions, "size") == today
    assert told(reading.mentions, "prior_size") == before
    lengths = [float(n) for value in today if value[0].isdecimal() for n in value.replace("-", "x").split("x")]
    assert max((m.size_mm for m in reading.mentions if m.size_mm), default=0) == max(lengths, default=0)


@pytest.mark.parametrize(
    ("text", "kind", "value", "words"),
    [
        ("Small right effusion.", "side", "right", "right"),
        ("Nodule in the RUL.", "side", "right", "RUL"),
        ("Nodule in the RUL.", "site", "upper_lobe", "RUL"),
        ("Moderate to large effusion.", "severity", "severe", "Moderate to large"),
        ("A 2 x 3 cm mass.", "size", "20.0x30.0", "2 x 3 cm"),
        ("Mass of 2 cm, previously 1.5 cm.", "prior_size", "15.0", "1.5 cm"),
        ("Several nodules.", "count", "several", "Several"),
        ("There are 3 nodules.", "count", "3", "3"),
        ("The effusion has increased.", "change", "increased", "has increased"),
        ("The effusion is larger since the prior CT.", "prior", "prior", "since the prior CT"),
        ("The mass is smaller than before compared to 03/12/2019.", "prior", "prior", "compared to 03/12/2019"),
        ("Stable nodule since 2015.", "prior", "prior", "since 2015"),
        ("Stable nodule since March 3, 2019.", "prior", "prior", "since March 3, 2019"),
        (
            "Unchanged scar from the previous examination of XXXX.",
            "prior",
            "prior",
            "from the previous examination of XXXX",
        ),
    ],
)
def test_the_words_that_said_it(text: str, kind: str, value: str, words: str) -> None:
    (reading,) = read(pipeline(), [text])
    found = {(e.value, text[e.start : e.end]) for m in reading.mentions for e in m.evidence if e.kind == kind}
    assert (value, words) in found


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Fracture of the right 5th rib.", ""),
        ("Fracture of rib 5.", ""),
        ("T12 compression fracture.", ""),
        ("L4 and 5 degenerative changes.", ""),
        ("Right 3rd rib fracture.", ""),
        ("1. Nodule.", ""),
        ("Series 3 image 12 nodule.", ""),
        ("In 3 months nodule follow up.", ""),
        ("Two views of the chest show a nodule.", ""),
        ("12/03/2019 nodule.", ""),
        ("There are 2 nodules.", "2"),
        ("Three small left upper lobe nodules.", "3"),
        ("Solitary nodule.", "1"),
        ("Multiple bilateral nodules.", "several"),
        ("At least 3 pulmonary nodules.", "3"),
    ],
)
def test_number(text: str, count: str) -> None:
    (reading,) = read(pipeline(), [text])
    assert {m.count for m in reading.mentions} == {count}


def test_a_change_needs_something_that_is_there() -> None:
    (reading,) = read(pipeline(), ["No new nodule. No change in the mass. The effusion is no longer seen."])
    assert [(m.concept, m.assertion, m.change) for m in reading.mentions] == [
        ("nodule", "absent", ""),
        ("mass", "present", "stable"),
        ("pleural_effusion", "absent", "resolved"),
    ]
