"""`phenotype receive`: pushed to by a real Orthanc and by pynetdicom, with full disks, bad objects, and killed."""

from pathlib import Path
from typing import Any

import orthanc
import pytest

pytestmark = pytest.mark.skipif(bool(orthanc.missing()), reason=orthanc.missing() or "it is there")
SEED = 5
OK, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return orthanc.isolated("scenarios_receive:pushed", tmp_path_factory.mktemp("pushed"))


@pytest.fixture(scope="module")
def troubles(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return orthanc.isolated("scenarios_receive:troubles", tmp_path_factory.mktemp("troubles"))


def test_what_orthanc_pushes_is_taken_in_when_it_pauses(pushed: Any) -> None:
    assert pushed["echo"] == {} and pushed["first"] == [24, 0] and pushed["ingested"]
    assert pushed["kind"] == ["receiver"]


def test_what_comes_twice_is_one_file(pushed: Any) -> None:
    assert pushed["second"] == [24, 0] and pushed["states"] == {"ingested": 24}


def test_strangers_are_refused(pushed: Any) -> None:
    assert pushed["stranger"] == [False, True]


def test_objects_are_kept_as_they_came(pushed: Any) -> None:
    assert pushed["private"] == [OK, ""] and pushed["rle"] == [OK, ""]
    assert pushed["as_they_came"] == [3, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"], True]


def test_the_same_uid_with_other_content_is_kept_beside(pushed: Any) -> None:
    assert pushed["other_content"] == [OK, ""]
    assert pushed["end"]["conflict"] >= 1 and sum(pushed["end"].values()) == 27


def test_what_is_no_object_is_refused_with_a_reason(pushed: Any) -> None:
    assert pushed["garbage"] == [CANNOT_UNDERSTAND, "not_dicom"]
    assert pushed["wrong_uid"] == [CANNOT_UNDERSTAND, "other_instance"]


def test_storage_commitment_is_asked_for_and_reported(pushed: Any) -> None:
    assert pushed["commitment"] == ["Success", 1, 0]
    assert pushed["no_commitment"] == ["Failure", 1, 1]


def test_sigterm_takes_in_what_came_and_ends(pushed: Any) -> None:
    assert pushed["exit"] == 3  # there is a conflict
    assert "found" not in pushed["end"]
    assert "51 objects received, 2 refused" in pushed["said"] and "Traceback" not in pushed["said"]
    assert "Planted" not in pushed["said"] and "1.2.826" not in pushed["said"]


def test_success_is_said_last(troubles: Any) -> None:
    assert troubles["order"] == ["folder", "file", "rename", "folder", "commit", "answer 0x0000"]


def test_a_full_disk_is_told_and_the_next_object_is_taken(troubles: Any) -> None:
    assert troubles["disk_full"] == [OUT_OF_RESOURCES, "disk_full", 1]
    assert troubles["after_disk_full"] == [OK, "", 2]
    assert troubles["ledger_full"][:2] == [OUT_OF_RESOURCES, "disk_full"]
    assert troubles["after_ledger_full"] == [OK, "", 3]


def test_limits(troubles: Any) -> None:
    assert troubles["too_large"] == [CANNOT_UNDERSTAND, "too_large", 3]
    assert troubles["stopping"][:2] == [OUT_OF_RESOURCES, "stopping"]
    assert troubles["port"] == "Refusedport"


def test_a_connection_that_breaks_leaves_nothing(troubles: Any) -> None:
    came, gone, files = troubles["cut_off"]
    assert came and gone and files == 0 and troubles["clean"] == 0


def test_eight_senders_of_the_same_objects(troubles: Any) -> None:
    assert troubles["at_once"] == [64, [OK], 8, 8]


def test_killed_again_and_again_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    found = orthanc.isolated("scenarios_receive:kills", tmp_path, rounds=20, seed=SEED)
    print(found)
    assert found["killed"] == 20 and found["acknowledged"] >= 20
    assert found["lost"] == 0 and found["not_ingested"] == 0


def test_control_a_receiver_that_answers_too_early_loses_some(tmp_path: Path) -> None:
    found = orthanc.isolated("scenarios_receive:kills", tmp_path, rounds=4, seed=SEED, hasty=True)
    print(found)
    assert 0 < found["lost"] < found["acknowledged"], "not a control: it loses all, or nothing"
