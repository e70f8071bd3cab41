"""`phenotype pull` against a real Orthanc, with a proxy between that fails on demand, and killed."""

from pathlib import Path
from typing import Any

import orthanc
import pytest

pytestmark = pytest.mark.skipif(bool(orthanc.missing()), reason=orthanc.missing() or "it is there")
SEED = 7


@pytest.fixture(scope="module")
def queried(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return orthanc.isolated("scenarios_pull:queries", tmp_path_factory.mktemp("queries"))


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return orthanc.isolated("scenarios_pull:faults", tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    ("query", "series"),
    [
        ("accession", 2),
        ("patient", 2),
        ("study", 2),
        ("day", 10),
        ("other_day", 0),
        ("modality", 10),
        ("other_modality", 0),
    ],
)
def test_what_is_asked_for_is_fetched_and_nothing_else(queried: Any, query: str, series: int) -> None:
    assert queried[query] == [series, 4 * series]


def test_answers_come_in_pages(queried: Any) -> None:
    assert queried["first"] == [10, 10, 40] and queried["pages"] == 1


def test_what_was_received_is_not_asked_for_again(queried: Any) -> None:
    assert queried["second"] == [10, 0, 0]  # not even for the list of its instances


def test_of_a_series_that_has_grown_only_the_new_instances_are_fetched(queried: Any) -> None:
    assert queried["grown"] == [8, 2, 2, 0]


def test_a_file_that_is_gone_is_fetched_again(queried: Any) -> None:
    assert queried["gone"] == [9, 1, 1, True]


def test_the_ledger_says_what_came_from_where(queried: Any) -> None:
    assert queried["kind"] == ["dicomweb"]
    assert queried["origin"] == ["http://127.0.0.1:18043/dicom-web", "StudyDate=20200101-20201231"]
    assert ["ingested", ""] in queried["states"] and ["quarantined", ""] not in queried["states"]
    assert queried["names"] == []  # no UID, name or number in a file name


def test_the_command(queried: Any) -> None:
    status, said, made = queried["dry"]
    assert status == 0 and '"series": 2' in said and '"instances": 10' in said and not made
    status, said = queried["command"]
    assert status == 0 and "4 series received (18 instances" in said
    assert "Planted" not in said and "1.2.826" not in said


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("http_500", ["failed", "http_500", 3, 0, 1]),
        ("http_404", ["failed", "http_404", 3, 0, 1]),
        ("truncated", ["failed", "truncated", 3, 0, 1]),
        ("timeout", ["failed", "timeout", 3, 0, 1]),
        ("fewer", ["failed", "fewer_instances", 3, 2, 1]),
        ("counts_more", ["failed", "fewer_instances", 9, 3, 1]),
        ("not_dicom", ["failed", "not_dicom", 3, 0, 1]),
        ("redirect", ["failed", "redirect", 3, 0, 1]),
        ("list_500", ["failed", "http_500", 3, 0, 1]),
    ],
)
def test_a_fault_is_a_state_that_can_be_seen_and_retried(faults: Any, fault: str, state: list[Any]) -> None:
    found = faults[fault]
    assert found["states"] == [state, state] and not found["complete"]
    assert found["failed_after"] == 0 and found["same"], "not the same after one more run"
    assert found["parts"] == []


@pytest.mark.parametrize("oddity", ["uncounted", "lists_less", "once", "foreign"])
def test_oddities_are_coped_with_at_once(faults: Any, oddity: str) -> None:
    """No counts; a list cut short; one answer cut short; an object of another series among those asked for."""
    received = ["received", "", 3, 3, 1]
    assert faults[oddity]["states"] == [received, received] == faults["clean"]["states"]
    assert faults[oddity]["complete"] and faults[oddity]["same"]


def test_a_search_that_fails_is_refused_before_anything_is_made(faults: Any) -> None:
    for name, code in {"search_500": "http_500", "search_redirect": "redirect"}.items():
        message, made = faults[name]
        assert message.startswith(f"{code}: ") and not made


def test_a_full_disk_stops_the_pull_and_loses_nothing(faults: Any) -> None:
    found = faults["disk_full"]
    assert sorted(row[:2] for row in found["states"]) == [["failed", "disk_full"], ["wanted", ""]]
    assert found["waiting"] == 1 and found["same"]


def test_killed_at_any_moment_it_ends_with_the_same_rows(tmp_path: Path) -> None:
    found = orthanc.isolated("scenarios_pull:kills", tmp_path, rounds=10, seed=SEED)
    print(found)
    assert found["killed"] >= 5 and found["exit"] == 0
    assert any(0 < files < 48 for files in found["files"]), "never killed in the middle: the test says nothing"
    assert found["differ"] == [] and found["parts"] == 0


def test_control_a_pull_that_is_sure_too_early_differs(tmp_path: Path) -> None:
    found = orthanc.isolated("scenarios_pull:kills", tmp_path, rounds=2, seed=SEED, careless=True)
    print(found)
    assert found["killed"] >= 1 and "files" in found["differ"] and "instance" in found["differ"]


def test_memory_does_not_grow_with_an_object(tmp_path: Path) -> None:
    found = orthanc.isolated("scenarios_pull:large", tmp_path)
    print(found)
    assert found["pull"][0] is True and found["pull"][1] < 10
    assert found["push"][0] == 1 and found["push"][1] < 10
