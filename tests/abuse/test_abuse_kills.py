"""SIGKILL in the middle of ingestion."""

from abuse.outcome import check


def test_killed_anywhere_it_ends_the_same():
    assert "reading" in " ".join(check("kills").notes)  # kills did hit it in the middle


def test_workers_end_when_only_their_parent_is_killed():
    check("orphans")
