"""`phenotype similar`: what is found is what was planted, by image, by place, by term and by both."""

import json

import pytest
from expert_world import RUNS, boxes, fill, image_id, kind, lesion
from typer.testing import CliRunner

from db.session import open_database
from phenotype.cli import app


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("similar")
    url = f"sqlite:///{folder / 'x.db'}"
    database = open_database(url)
    fill(database)
    database.close()
    return url


def ask(url, *words, code=0):
    ended = CliRunner().invoke(app, ["--db", url, "similar", *words, "--json"])
    assert ended.exit_code == code, ended.output
    return json.loads(ended.stdout) if code == 0 else ended.stderr


def number_of(row):
    return int(row["image"], 16)


def at_lesion(number):
    top, left, bottom, right = boxes()[lesion(number)].tolist()
    return "--row", str((top + bottom) / 2), "--column", str((left + right) / 2)


def test_a_place_finds_lesions_that_look_alike_and_weight_those_that_mean_alike(place):
    looks = ask(place, image_id(0), *at_lesion(0), "--weight", "0", "--top", "8")
    both = ask(place, image_id(0), *at_lesion(0), "--weight", "0.6", "--top", "8")
    for rows in (looks, both):
        assert all(row["region"] == lesion(number_of(row)) for row in rows)
        assert image_id(0) not in [row["image"] for row in rows]
    assert all(kind(number_of(row)) == 0 for row in both)
    assert any(kind(number_of(row)) == 1 for row in looks)
    assert both[0]["terms"].startswith("Nodule")
    assert both[0]["reported"] == "Nodule"
    assert [row["measure"] for row in both] == sorted(row["measure"] for row in both)


def test_a_term_finds_where_it_is_seen(place):
    rows = ask(place, "--term", "pleural effusion", "--top", "10")
    assert len(rows) == 10
    assert all(kind(number_of(row)) == 1 and row["region"] == lesion(number_of(row)) for row in rows)


def test_a_term_and_a_place_find_both(place):
    rows = ask(place, image_id(0), *at_lesion(0), "--term", "pleural_effusion", "--weight", "0.3", "--top", "6")
    assert all(kind(number_of(row)) == 1 and row["region"] == lesion(number_of(row)) for row in rows)


def test_an_image_finds_cases_by_their_meaning(place):
    rows = ask(place, image_id(2), "--weight", "1", "--top", "8")
    assert all(kind(number_of(row)) == 1 and lesion(number_of(row)) is not None for row in rows)
    assert rows[0]["region"] is None


def test_the_index_finds_the_same(place):
    pytest.importorskip("faiss", reason="the extra search is not installed")
    exact = ask(place, image_id(4), *at_lesion(4), "--top", "3")
    for _ in range(2):  # made, then read
        near = ask(place, image_id(4), *at_lesion(4), "--top", "3", "--approximate")
        assert [row["image"] for row in near] == [row["image"] for row in exact]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "name an image"),
        (["nowhere"], "no such image"),
        (["--term", "gout"], "mapped are: Cardiomegaly, Nodule"),
        ([image_id(0), "--row", "0.2"], "both --row and --column"),
        ([image_id(0), "--row", "3", "--column", "3"], "from 0 to 1"),
    ],
)
def test_what_cannot_be_asked_says_why(place, words, why):
    assert why in ask(place, *words, code=1)


def test_terms_without_evidence_are_said_to_have_none(place):
    ended = CliRunner().invoke(app, ["--db", place, "similar", "--term", "cardiomegaly", "--csv"])
    assert ended.exit_code == 0
    assert "no evidence" in ended.stderr


def test_maps_that_are_not_whole_are_refused(tmp_path):
    from sqlalchemy import text

    url = f"sqlite:///{tmp_path / 'x.db'}"
    database = open_database(url)
    fill(database, 6)
    with database.writing() as session:
        session.execute(
            text("DELETE FROM term_map WHERE image_id = :i AND concept_id = 'nodule' AND run_id = :r"),
            {"i": image_id(3), "r": RUNS["map"]},
        )
    database.close()
    ended = CliRunner().invoke(app, ["--db", url, "similar", "--term", "nodule"])
    assert ended.exit_code == 1
