"""`python -m tests.abuse NAME... [--count N] [--seed S]`, or `--all-small`, `--all-large`: a Markdown table of what
was tried, on stdout; what went wrong on stderr. The exit code is 1 where anything did."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest does

from abuse.outcome import ABUSES


def main() -> int:
    """Run the fault tests that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ABUSES))
    parser.add_argument("--count", type=int, help="how many faults; the large count where nothing is said")
    parser.add_argument("--seed", type=int, help="of all that is drawn; printed, so that a failure can be repeated")
    parser.add_argument("--all-small", action="store_true", help="every test in the count of CI")
    parser.add_argument("--all-large", action="store_true", help="every test in its large count")
    asked = parser.parse_args()
    names = list(ABUSES) if asked.all_small or asked.all_large else asked.names
    if not names or set(names) - set(ABUSES):
        parser.error(f"name some of {', '.join(ABUSES)}")
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print("| fault | tried | passed | negative control | seconds | seed | notes |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    sound = True
    for name in names:
        abuse, began = ABUSES[name], time.monotonic()
        try:
            function = abuse.function()
        except ModuleNotFoundError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        count = asked.count or (abuse.small if asked.all_small else abuse.large)
        found = function(count, seed)
        problems = [note for note in found.notes if note.startswith("PROBLEM")]
        notes = "; ".join(note for note in found.notes if note not in problems)
        took = time.monotonic() - began
        cells = (abuse.what, found.tried, found.passed, found.control_failed, f"{took:.0f}", seed, notes)
        print("|", " | ".join(map(str, cells)), "|", flush=True)
        for problem in problems[:20]:
            print(f"{name}: {problem}", file=sys.stderr)
        sound = sound and found.sound
    return 0 if sound else 1


if __name__ == "__main__":
    raise SystemExit(main())
