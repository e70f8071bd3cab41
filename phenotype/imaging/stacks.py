"""One series, several stacks: phases, echoes and repetitions told apart, doubles and strays left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from phenotype.imaging.files import Unreadable
from phenotype.imaging.geometry import MINIMUM_MM, Slice, Stack, alike, arrange, depths

FEWEST = 3  # slices of a stack that is not the only one

_Faults = dict[int, Unreadable]  # by index, why a slice is in no stack
_MESSAGES = {
    "mixed_size": "slices of different sizes, none of them enough for a stack",
    "mixed_orientation": "slices of different orientations, none of them enough for a stack",
}


def divide(slices: Sequence[Slice]) -> list[Stack]:
    """The sound stacks of a series, the largest first; each slice is in one of them, or left out by the first.

    Slices belong together by size, spacing and orientation. What then lies at one position is a double (equal pixels:
    one is dropped), or of several stacks, told apart by the acquisition, or else by whole runs of InstanceNumber.
    Localisers, doubles and a minority of slices that form no stack are left out, each with its reason: "localiser",
    "same_slice", "other_size", "other_orientation", "other_acquisition", or one of `arrange`. Raises `Unreadable` with
    the reason where the sound stacks are not the greater part.
    """
    left: dict[int, str] = {i: "localiser" for i, s in enumerate(slices) if s.localiser}
    groups = _groups(slices, [i for i in range(len(slices)) if i not in left])
    if not groups:
        raise Unreadable("no_slices", "the series holds nothing but localisers")
    faults: _Faults = {}
    stacks: list[Stack] = []
    for group in groups:
        if len(group) < FEWEST and len(groups) > 1:
            usual = groups[1 if group is groups[0] else 0]
            faults |= dict.fromkeys(group, _difference(slices[group[0]], slices[usual[0]]))
            continue
        found, doubles, faulty = _stacks(slices, group)
        stacks += found
        left |= doubles
        faults |= faulty
    if len(faults) >= sum(len(stack.order) for stack in stacks):
        code = Counter(error.code for error in faults.values()).most_common(1)[0][0]
        message = next(error.message for error in faults.values() if error.code == code)
        code = {"other_size": "mixed_size", "other_orientation": "mixed_orientation"}.get(code, code)
        raise Unreadable(code, _MESSAGES.get(code, message))
    stacks.sort(key=lambda stack: (-len(stack.order), _numbered(slices, stack.order), stack.order))
    left |= {i: error.code for i, error in faults.items()}
    return [replace(stacks[0], left_out=tuple(sorted(left.items()))), *stacks[1:]]


def _groups(slices: Sequence[Slice], indices: list[int]) -> list[list[int]]:
    """Slices alike, the largest group first; the same whatever the order of the slices."""

    def key(i: int) -> tuple[object, ...]:
        s = slices[i]
        return s.rows, s.columns, s.pixel_spacing or (), s.orientation or (), s.position or ()

    groups: list[list[int]] = []
    for i in sorted(indices, key=key):  # each group is led by its first: where it begins must not depend on files
        for group in groups:
            if alike(slices[i], slices[group[0]]):
                group.append(i)
                break
        else:
            groups.append([i])
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), key(group[0])))


def _difference(one: Slice, usual: Slice) -> Unreadable:
    if one.position is None or one.orientation is None:
        return Unreadable("no_position", "slices without position or orientation")
    same = alike(replace(one, orientation=usual.orientation, position=usual.position), usual)
    return Unreadable("other_orientation" if same else "other_size")


def _stacks(slices: Sequence[Slice], group: list[int]) -> tuple[list[Stack], dict[int, str], _Faults]:
    """The sound stacks of slices alike, the doubles among them, and what is in neither."""
    doubles = _doubles(slices, group)
    single = [i for i in group if i not in doubles]
    found, faults = _separate(slices, single)
    if doubles and faults:  # empty slices of two phases are alike as well
        again = _separate(slices, group)
        if not again[1]:
            return again[0], {}, {}
    return found, doubles, faults


def _doubles(slices: Sequence[Slice], group: Sequence[int]) -> dict[int, str]:
    """All but one of slices with one place, one acquisition and the same pixels."""
    seen: set[tuple[object, ...]] = set()
    doubles: dict[int, str] = {}
    for i in sorted(group, key=lambda i: (slices[i].number is None, slices[i].number or 0, i)):
        s = slices[i]
        if s.pixel_hash and s.position:
            key = (s.pixel_hash, s.acquisition, *(round(v, 2) + 0.0 for v in s.position))
            if key in seen:
                doubles[i] = "same_slice"
            seen.add(key)
    return doubles


def _separate(slices: Sequence[Slice], group: list[int]) -> tuple[list[Stack], _Faults]:
    """The sound stacks of slices alike, and the reasons of those in none."""
    whole = _arranged(slices, group)
    for parts in _ways(slices, group, whole):
        tried = [(part, _arranged(slices, part)) for part in parts]
        sound = [stack for part, stack in tried if isinstance(stack, Stack) and len(part) >= FEWEST]
        if isinstance(whole, Stack):
            # one stack, unless the acquisitions lie between each other: then it would mix them
            if len(sound) == len(parts) and _interleaved(slices, sound):
                return sound, {}
        elif 2 * sum(len(stack.order) for stack in sound) > len(group) and (
            whole.code != "missing_slices" or _interleaved(slices, sound) or _different_spacing(sound)
        ):
            faults: _Faults = {}
            for part, stack in tried:
                if not isinstance(stack, Stack) or len(part) < FEWEST:
                    stray = Unreadable("other_acquisition", "a slice or two of another acquisition")
                    faults |= dict.fromkeys(part, stray if len(part) < FEWEST or isinstance(stack, Stack) else stack)
            return sound, faults
    return ([whole], {}) if isinstance(whole, Stack) else ([], dict.fromkeys(group, whole))


def _arranged(slices: Sequence[Slice], group: Sequence[int]) -> Stack | Unreadable:
    """The stack of these slices, by their indices; or the reason why there is none."""
    try:
        stack = arrange([slices[i] for i in group])
    except Unreadable as error:
        return error
    return replace(stack, order=tuple(group[i] for i in stack.order))


def _ways(slices: Sequence[Slice], group: list[int], whole: Stack | Unreadable) -> Iterator[list[list[int]]]:
    """The ways in which a group might fall apart, the most telling first."""
    code = "" if isinstance(whole, Stack) else whole.code
    if code in ("no_position", "no_spacing"):
        return
    labels = [slices[i].acquisition.split("/") for i in group]
    keys: list[list[object]] = [[tuple(label) for label in labels]]
    if code:
        width = max(len(label) for label in labels)
        keys += [[label[n] if n < len(label) else "" for label in labels] for n in range(width)]
        keys.append([slices[i].thickness for i in group])
    for values in keys:
        parts: dict[object, list[int]] = {}
        for i, value in zip(group, values, strict=True):
            parts.setdefault(value, []).append(i)
        if len(parts) > 1:
            yield list(parts.values())
    if code == "doubled_slices":
        runs = _runs(slices, group)
        if runs:
            yield runs


def _runs(slices: Sequence[Slice], group: list[int]) -> list[list[int]]:
    """Stacks by InstanceNumber, where each position has as many slices, numbered stack by stack or place by place."""
    numbers = {i: slices[i].number for i in group}
    if None in numbers.values() or len(set(numbers.values())) < len(group):
        return []
    depth = depths([slices[i] for i in group])
    order = np.argsort(depth, kind="stable")
    places: list[list[int]] = []
    for position, n in enumerate(order):
        if position == 0 or depth[n] - depth[order[position - 1]] > MINIMUM_MM:
            places.append([])
        places[-1].append(group[n])
    if len({len(place) for place in places}) != 1:
        return []
    ranked = [sorted(place, key=lambda i: numbers[i] or 0) for place in places]
    runs = [list(run) for run in zip(*ranked, strict=True)]
    if len({tuple(np.argsort([numbers[i] or 0 for i in run])) for run in runs}) > 1:
        return []  # each run goes through the places in the same way, or the numbers mean something else
    return runs if _apart(numbers, runs) or _apart(numbers, ranked) else []


def _apart(numbers: dict[int, int | None], groups: Sequence[Sequence[int]]) -> bool:
    """Whether the numbers of each group are all before those of the next, in some order of the groups."""
    spans = sorted((min(numbers[i] or 0 for i in group), max(numbers[i] or 0 for i in group)) for group in groups)
    return all(before[1] < after[0] for before, after in pairwise(spans))


def _interleaved(slices: Sequence[Slice], stacks: Sequence[Stack]) -> bool:
    """Whether any two of these stacks, of slices alike, reach into each other."""
    everything = [i for stack in stacks for i in stack.order]
    if not everything:
        return False
    depth = dict(zip(everything, depths([slices[i] for i in everything]), strict=True))
    spans = sorted((depth[stack.order[0]], depth[stack.order[-1]]) for stack in stacks)
    return any(before[1] > after[0] - MINIMUM_MM for before, after in pairwise(spans))


def _different_spacing(stacks: Sequence[Stack]) -> bool:
    spacings = [stack.spacing_mm[0] for stack in stacks]
    return bool(spacings) and max(spacings) > 1.1 * min(spacings)


def _numbered(slices: Sequence[Slice], indices: Sequence[int]) -> int:
    return min((n for i in indices if (n := slices[i].number) is not None), default=0)
