"""Bombs in the CI count; `python -m tests.abuse bombs` makes the large one."""

import secrets

from abuse import bombs


def test_every_bomb_ends_with_its_reason_within_the_bounds():
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    found = bombs.run(40, seed)
    print(*found.notes, found.control_failed, sep="\n")
    assert found.tried == 40
    assert found.sound, f"seed {seed}: {[note for note in found.notes if note.startswith('PROBLEM')]}"
    beyond = int(found.control_failed.partition(" ")[0])
    assert beyond >= bombs.CONTROLS // 4, "the negative control: read plainly, many go beyond the bounds"
