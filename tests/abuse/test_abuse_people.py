"""Who is who, which report is about what, and nobody's data outside the vault."""

import pytest

from abuse import identity_traps, linkage
from abuse.needles import WAYS
from abuse.outcome import check


@pytest.mark.parametrize("name", ["identity", "linkage"])
def test_traps(name):
    check(name)


def test_there_are_as_many_traps_as_promised():
    assert len(identity_traps.traps()) >= 30 and len(linkage.cases()) >= 25 and len(WAYS) >= 14


def test_planted_personal_data_is_in_the_vault_and_nowhere_else():
    everybody = f"100 of 100 found in the vault; {len(WAYS)} of {len(WAYS)} ways found"
    assert check("planted").control_failed == everybody
