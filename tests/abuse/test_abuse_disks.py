"""Power cuts and full disks."""

import pytest

from abuse import power
from abuse.outcome import check


def test_after_a_power_cut_nothing_acknowledged_is_lost():
    if why := power.able():
        pytest.skip(f"{why}: nothing can be recorded")
    check("power")


def test_a_full_disk_is_told_and_harms_nothing():
    check("disk")
