"""What a fault test found, and the table of all of them."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fault test.

    tried, passed    how many faults were made, and how many of them did what RELIABILITY.md promises
    control_failed   how many of the faults a worse program did not survive ("13 of 13"); "" where there is none
    notes            figures to print beside; problems begin with "PROBLEM"
    """

    tried: int
    passed: int
    control_failed: str = ""
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether everything that was tried passed."""
        return self.tried > 0 and self.tried == self.passed


@dataclass(frozen=True, slots=True)
class Abuse:
    """A fault test: `run` is "module:function" of a function(count, seed) -> Outcome."""

    what: str
    run: str
    small: int  # count in CI
    large: int

    def function(self) -> Callable[[int, int], Outcome]:
        """The function. Raises ModuleNotFoundError where nobody has written it."""
        module, _, name = self.run.partition(":")
        function: Callable[[int, int], Outcome] = getattr(importlib.import_module(module), name)
        return function


ABUSES: dict[str, Abuse] = {
    "kills": Abuse("SIGKILL at random points of ingestion", "abuse.kills:run", 100, 1000),
    "orphans": Abuse("only the parent killed: its workers must end", "abuse.kills:orphans", 3, 30),
    "power": Abuse("power cuts", "abuse.power:run", 200, 2000),
    "disk": Abuse("disk full", "abuse.disk:run", 20, 100),
    "workers": Abuse("a worker killed in a pool of two", "abuse.workers:run", 10, 50),
    "writers": Abuse("transactions of 8 writers at once", "abuse.writers:run", 400, 4000),
    "ingests": Abuse("8 ingestions at once", "abuse.writers:ingests", 2, 20),
    "identity": Abuse("identity traps, each in two orders", "abuse.identity_traps:run", 60, 60),
    "linkage": Abuse("linkage traps", "abuse.linkage:run", 25, 25),
    "planted": Abuse("patients whose data is searched for outside the vault", "abuse.planted:run", 100, 500),
    "migrations": Abuse("migrations failing at each statement", "abuse.migrations:run", 40, 10_000),
    "mutants": Abuse("mutants of real DICOM", "abuse.mutants:mutants", 5000, 100_000),
    "truncations": Abuse("truncations of every object, each", "abuse.mutants:truncations", 5, 100),
    "bombs": Abuse("bombs", "abuse.bombs:run", 40, 200),
}


def check(name: str) -> Outcome:
    """Run a fault test in the count of CI, under a seed that is drawn anew each time and told where it fails."""
    abuse, seed = ABUSES[name], secrets.randbelow(10**6)
    found = abuse.function()(abuse.small, seed)
    again = f"python -m tests.abuse {name} --count {abuse.small} --seed {seed}"
    print(f"{again}: {found}")
    assert found.sound, f"{again}\n" + "\n".join(found.notes)
    if found.control_failed:
        assert int(found.control_failed.split()[0]) > 0, f"the negative control finds nothing: {again}"
    return found
