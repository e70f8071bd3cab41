"""The page as a browser and a stranger would see it: whole, self-contained, and without a word about anybody."""

import base64
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_world import PERSONAL, World, fill
from jinja2 import Environment
from PIL import Image as Pillow
from sqlalchemy import select

from db.session import Database, open_database
from db.tables import VAULT, Base, Run
from db.write import delete_rows
from phenotype.explore import page as page_module
from phenotype.explore.page import write_page
from phenotype.stage import Refused

VOID = {"meta", "img", "br", "rect", "line", "path", "circle"}  # those of SVG are closed by themselves


class Reader(HTMLParser):
    """Reads a page strictly: every element must be closed where it belongs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def dangers(html: str) -> list[str]:
    """What a page that needs nothing and runs nothing must not hold."""
    found = [tag for tag, _ in Reader(html).elements if tag in {"script", "link", "iframe", "object", "form", "base"}]
    for tag, attributes in Reader(html).elements:
        found += [f"{tag} {name}" for name in attributes if name.startswith("on")]
        found += [
            f"{tag} {name}={value[:40]}"
            for name, value in attributes.items()
            if name in {"src", "href", "srcset", "data", "action", "xlink:href"}
            and not value.startswith(("data:", "#"))
        ]
    return found + re.findall(r"https?:|url\(|@import|javascript:", html)


def planted(html: str, folder: Path) -> list[str]:
    """The personal data that a page holds, in its text or in the bytes of its pictures."""
    pictures = b"".join(base64.b64decode(found) for found in re.findall(r"base64,([A-Za-z0-9+/=]+)", html))
    parts = [*PERSONAL.values(), "Zweistein", "Albertine", "Reizhusten", str(folder), "private"]
    return [part for part in parts if part in html or part.encode() in pictures]


def picture(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.int16)


@pytest.fixture(scope="module")
def html(world: World) -> str:
    rows = [("AUROC of anomalies", "0.91", "planted lesions against none")]
    return write_page(world.database, world.folder / "page.html", images=4, scores=rows).read_text()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'empty.db'}")
    yield database
    database.close()


def test_the_page_is_sound_and_accessible(html: str) -> None:
    page = Reader(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(headings))
    assert all(image["alt"].strip() for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) >= 6
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.all("svg") if "viewBox" in a)
    for image in page.all("img"):
        assert picture(image["src"]).size


def test_a_reader_that_is_not_strict_would_be_worth_nothing() -> None:
    for broken in ("<p><b></p>", "<section>", "</p>"):
        with pytest.raises(AssertionError):
            Reader(broken)


def test_nothing_runs_and_nothing_is_fetched(html: str) -> None:
    assert dangers(html) == []


@pytest.mark.parametrize(
    "bad",
    [
        "<script>1</script>",
        '<img src="https://example.org/x.png">',
        '<img src="x" onerror="1">',
        "<style>a{background:url(x)}</style>",
        '<a href="javascript:1"></a>',
    ],
)
def test_what_would_run_or_be_fetched_is_seen(html: str, bad: str) -> None:
    assert dangers(html.replace("</main>", bad + "</main>")) != []


def test_no_personal_data(html: str, world: World) -> None:
    assert planted(html, world.folder) == []


def test_planted_data_would_be_found(html: str, world: World) -> None:
    vault = []
    with world.database.engine.connect() as connection:
        for name in sorted(VAULT):
            vault += [repr(tuple(row)) for row in connection.execute(select(Base.metadata.tables[name]))]
    assert len(planted("".join(vault), world.folder)) >= 10
    hidden = base64.b64encode(b"\x89PNG tEXt " + PERSONAL["name"].encode()).decode()
    assert planted(html + f'<img src="data:image/png;base64,{hidden}">', world.folder) != []


def test_the_page_says_what_was_found(html: str) -> None:
    text = Reader(html).text
    for words in (
        *("AUROC of anomalies", "planted lesions against none", "train f-anogan-image", "model f-anogan, steps 1500"),
        *("Reported normal, kept aside", "AUROC 0.83 (95 % interval 0.73 to 0.93)", "reported: effusion"),
        *("reported without findings", "nodule no evidence 0.52", "tube too few", "decode: damaged", "not stable"),
        *("Phenotype 1: effusion 12 studies. stable Found again", "Phenotype 2: effusion 12 studies. not stable"),
        *(
            "effusion 9 4.5 2.0 0.001 yes",
            "nodule 9 4.5 2.0 0.6 too few to tell",
            "patient's left",
            "Slice 4",
            "Pixels are shown as they were",
        ),
    ):
        assert words in text, words
    assert "cannot be shown" in text
    assert "missing" in text  # the file of study 21, which scored among the highest
    assert "upstream" not in text
    group = text[text.index("Phenotype 1: effusion") : text.index("Phenotype 2: effusion")]
    assert re.findall(r"membership ([\d.]+)", group) == ["0.73", "0.70", "0.68", "0.66", "0.64"]
    assert "Mean of 11 radiographs of phenotype 1" in html  # the twelfth is a volume


def test_the_highest_scores_come_first_and_their_maps_show_the_place(html: str) -> None:
    section = html[html.index('id="anomalies"') : html.index('id="terms"')]
    assert re.findall(r"score (\d+)", section) == ["23", "22", "21", "20"]
    pairs = re.findall(r'<img src="([^"]+)"[^>]*alt="[^"]*study22">\s*<img src="([^"]+)"', section)
    assert len(pairs) == 1
    plain, mapped = (picture(uri) for uri in pairs[0])
    assert np.ptp(plain, axis=2).max() == 0  # grey
    changed = np.abs(mapped - plain).sum(axis=2) > 12
    rows, columns = np.nonzero(changed)
    # the image of 80 x 64 pixels fills 256 x 205 pixels in the middle of the view
    assert abs(rows.mean() - 0.28 * 256) < 8
    assert abs(columns.mean() - (26 + 0.77 * 205)) < 8
    assert changed.mean() < 0.05


def test_a_volume_shows_the_slice_of_its_peak_through_the_lung_window(html: str) -> None:
    uri = next(i["src"] for i in Reader(html).all("img") if i["alt"] == "Slice 4 of study study23")
    assert np.abs(picture(uri) - 0.6 * 255).max() <= 1  # -450 HU between -1350 and 150


def test_terms_without_evidence_get_no_map_and_terms_only_images_reported_to_have_them(html: str) -> None:
    section = html[html.index('id="terms"') : html.index('id="phenotypes"')]
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["effusion", "Terms without a map here"]
    assert re.findall(r"study <code>(.*?)</code>", section) == ["study23", "study20", "study18"]
    assert "map of nodule" not in section


def test_the_same_database_gives_the_same_bytes(world: World, tmp_path: Path, html: str) -> None:
    again = open_database(world.url)
    rows = [("AUROC of anomalies", "0.91", "planted lesions against none")]
    assert write_page(again, tmp_path / "page.html", images=4, scores=rows).read_text() == html
    assert write_page(again, tmp_path / "page.html", images=3).read_text() != html
    again.close()


HOSTILE = (
    '<script>alert("1")</script>',
    '"><img src=x onerror=alert(1)>',
    "'-->{{ 7 * 7 }}</style><svg onload=1>",
    "&lt;b&gt;",
)


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_words_are_only_words(empty: Database, tmp_path: Path, attack: str) -> None:
    everywhere = ("effusion", "nodule", "group1", "group2", "reason", "score", "cohort", "train", "recipe")
    fill(empty, tmp_path / "files", dict.fromkeys(everywhere, attack))
    written = write_page(empty, tmp_path / "page.html", images=1, title=attack, scores=[(attack, attack, attack)])
    html = written.read_text()
    assert dangers(html) == []
    text = Reader(html).text
    assert text.count(re.sub(r"\s+", " ", attack)) >= 20  # title, scores, concepts, phenotypes, labels, recipes, reason


def test_hostile_words_that_are_not_escaped_are_seen(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raw(Environment):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"autoescape": False})

    monkeypatch.setattr(page_module, "Environment", Raw)
    html = write_page(empty, tmp_path / "page.html", title='<img src="x" onerror="1">').read_text()
    assert dangers(html) != []


def test_an_empty_database_says_which_commands_to_run(empty: Database, tmp_path: Path) -> None:
    page = Reader(write_page(empty, tmp_path / "new" / "page.html").read_text())
    for command in ("ingest", "extract", "label", "train", "score", "link", "map", "cluster", "run pipeline.toml"):
        assert f"phenotype {command}" in page.text
    assert page.all("img") == []
    assert "How well it did" not in page.text


def test_sections_whose_results_are_gone_say_so(empty: Database, tmp_path: Path) -> None:
    fill(empty, tmp_path / "files", {})
    with empty.writing() as session:
        delete_rows(session, Run, id=["map", "score"])
    text = Reader(write_page(empty, tmp_path / "page.html", images=1).read_text()).text
    assert "phenotype map" in text
    assert "phenotype link" not in text
    assert "phenotype score" in text
    assert "effusion evidence 0.83" in text


def test_a_page_that_cannot_be_written_leaves_no_trace(world: World, tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(Refused, match="cannot be written"):
        write_page(world.database, tmp_path / "page.html", images=1)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(Refused, match="at least 1"):
        write_page(world.database, tmp_path / "other.html", images=0)


def test_a_page_that_is_not_finished_leaves_the_old_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    old = write_page(world.database, tmp_path / "page.html", images=1).read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    monkeypatch.setattr(page_module.os, "fsync", full)
    with pytest.raises(Refused, match="No space"):
        write_page(world.database, tmp_path / "page.html", images=2)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == old
