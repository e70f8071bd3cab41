"""Mutants and truncations in CI counts; `python -m tests.abuse mutants` makes the large ones."""

import re
import secrets

from abuse import mutants


def test_every_mutant_ends_in_one_state():
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    if not mutants.real_objects():
        print("no ../shared beside the checkout: generated objects only")
    found = mutants.mutants(5000, seed)
    print(*found.notes, found.control_failed, sep="\n")
    assert found.sound, f"seed {seed}: {[note for note in found.notes if note.startswith('PROBLEM')][:5]}"
    kinds, raised = map(int, re.match(r"(\d+) kinds of exception in (\d+) of", found.control_failed).groups())
    assert kinds >= 3, "the negative control: plain pydicom fails in many ways"
    assert raised >= 20


def test_objects_that_are_cut_off_are_noticed():
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    found = mutants.truncations(5, seed)
    print(*found.notes, found.control_failed, sep="\n")
    assert found.sound, f"seed {seed}: {found.notes}"
    taken, tried = map(int, re.match(r"pydicom takes (\d+) of (\d+)", found.control_failed).groups())
    assert taken > tried * 0.7, "the negative control: plain pydicom takes most of them without a word"


def test_mutants_are_functions_of_their_seed_and_differ():
    whole = mutants.objects()[0]
    made = [mutants.mutant(whole, seed) for seed in range(50)]
    assert made == [mutants.mutant(whole, seed) for seed in range(50)]
    assert len(set(made)) > 40
