"""Many at once: workers that die, writers, whole ingestions; and migrations that fail."""

import pytest

from abuse.outcome import check


@pytest.mark.parametrize("name", ["workers", "writers", "ingests", "migrations"])
def test_abuse(name):
    check(name)
