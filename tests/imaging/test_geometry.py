"""Slices in order, or refused with the reason."""

import random
from dataclasses import replace

import numpy as np
import pytest

from phenotype.imaging.files import Unreadable
from phenotype.imaging.geometry import Slice, arrange, plane_of
from phenotype.imaging.stacks import divide

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def stack(n: int = 8, gap: float = 2.5, orientation=AXIAL, axis: int = 2) -> list[Slice]:
    """`n` slices along an axis of the patient, from low to high."""
    made = []
    for i in range(n):
        position = [-100.0, -120.0, -50.0]
        position[axis] += i * gap
        made.append(Slice(64, 64, tuple(position), orientation, (0.7, 0.8), 3.0))
    return made


def reason(slices: list[Slice]) -> str:
    with pytest.raises(Unreadable) as refused:
        divide(slices)
    return refused.value.code


@pytest.mark.parametrize(("orientation", "axis"), [(AXIAL, 2), (CORONAL, 1), (SAGITTAL, 0)])
def test_any_order_of_files_gives_the_same_stack(orientation, axis):
    slices = stack(orientation=orientation, axis=axis)
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(len(slices))
        arranged = arrange([slices[i] for i in shuffled])
        assert [shuffled[i] for i in arranged.order] == list(range(len(slices)))
        assert arranged.spacing_mm == (2.5, 0.7, 0.8)
        assert arranged.origin == slices[0].position
    assert plane_of(orientation) == {2: "axial", 1: "coronal", 0: "sagittal"}[axis]


def test_a_stack_is_read_upwards_even_if_its_columns_run_the_other_way():
    flipped = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    assert arrange(stack(orientation=flipped)).order == tuple(range(8))


def test_oblique_slices_have_their_true_distance():
    tilt = np.deg2rad(20)
    down = (0.0, float(np.cos(tilt)), float(np.sin(tilt)))
    normal = np.cross((1.0, 0.0, 0.0), down)
    slices = [
        Slice(8, 8, tuple(float(v) for v in normal * 3.0 * i), (1.0, 0.0, 0.0, *down), (1.0, 1.0)) for i in range(6)
    ]
    assert arrange(slices[::-1]).order == (5, 4, 3, 2, 1, 0)
    assert arrange(slices).spacing_mm[0] == pytest.approx(3.0)


def test_rounded_positions_are_tolerated():
    slices = [replace(s, position=(*s.position[:2], round(s.position[2] * 1.003, 1))) for s in stack(gap=1.25)]
    assert arrange(slices).order == tuple(range(8))


def test_localisers_and_odd_slices_are_left_out_with_their_reason():
    slices = stack()
    slices.insert(3, replace(stack(1, orientation=CORONAL, axis=1)[0], localiser=True))
    slices.insert(0, replace(slices[0], rows=512, columns=512, position=(0.0, 0.0, 999.0)))
    slices.append(replace(slices[1], orientation=SAGITTAL))
    (divided,) = divide(slices)
    assert divided.left_out == ((0, "other_size"), (4, "localiser"), (10, "other_orientation"))
    assert divided.order == (1, 2, 3, 5, 6, 7, 8, 9)


def test_what_is_no_sound_stack_is_refused():
    slices = stack()
    assert reason([*slices[:3], *slices[4:]]) == "missing_slices"
    assert reason([*slices, slices[2]]) == "doubled_slices"
    assert reason(slices + slices) == "doubled_slices"
    uneven = [*slices[:4], replace(slices[4], position=(-100.0, -120.0, -50.0 + 4.4 * 2.5)), *slices[5:]]
    assert reason(uneven) == "uneven_spacing"
    assert reason(stack(2) + stack(2, orientation=CORONAL, axis=1)) == "mixed_orientation"
    assert reason(slices[:2] + [replace(s, rows=32) for s in slices[4:6]]) == "mixed_size"
    assert reason([replace(s, position=None) for s in slices]) == "no_position"
    assert reason([replace(s, orientation=None) for s in slices]) == "no_position"
    assert reason([replace(s, orientation=(1.0, 0.0, 0.0, 1.0, 0.0, 0.0)) for s in slices]) == "no_position"
    assert reason([replace(s, pixel_spacing=None) for s in slices]) == "no_spacing"
    assert reason([replace(s, localiser=True) for s in slices]) == "no_slices"
    assert reason([replace(slices[0], thickness=None)]) == "no_spacing"
    assert reason([]) == "no_slices"
    bent = [
        replace(s, position=(s.position[0], s.position[1] + 0.1 * i * i, s.position[2])) for i, s in enumerate(slices)
    ]
    assert reason(bent) == "gantry_tilt"


def test_two_sound_stacks_are_two():
    for other in (stack(4, orientation=CORONAL, axis=1), [replace(s, rows=32) for s in stack(4)]):
        first, second = divide(stack(4) + other)
        assert {first.order, second.order} == {(0, 1, 2, 3), (4, 5, 6, 7)}
        assert not first.left_out and not second.left_out


def test_an_even_drift_is_a_tilted_gantry():
    slices = [
        replace(s, position=(s.position[0] - 0.25 * i, s.position[1] + 0.5 * i, s.position[2]))
        for i, s in enumerate(stack())
    ]
    for arranged in (arrange(slices), arrange(slices[::-1])):
        assert arranged.shear == pytest.approx((0.2, -0.1)) and arranged.spacing_mm == (2.5, 0.7, 0.8)
        # the first slice, moved back to where the middle of the stack lies
        assert arranged.origin == pytest.approx((-100.0 - 0.25 * 3.5, -120.0 + 0.5 * 3.5, -50.0))
    assert arrange(stack()).shear == (0.0, 0.0)


def test_slices_alike_stay_together_wherever_rounding_falls():
    slices = [
        replace(s, orientation=(1.0, 0.0004 + 0.0001 * i, 0.0, 0.0, 1.0, 0.0), pixel_spacing=(0.7, 0.8 + 1e-5 * i))
        for i, s in enumerate(stack())
    ]
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(8)
        (divided,) = divide([slices[i] for i in shuffled])
        assert [shuffled[i] for i in divided.order] == list(range(8))
        assert divided.spacing_mm == (2.5, 0.7, 0.8) and divided.orientation == slices[0].orientation


def test_one_slice_is_as_deep_as_it_is_thick():
    assert arrange(stack(1)).spacing_mm == (3.0, 0.7, 0.8)


@pytest.mark.parametrize("seed", range(200))
def test_any_series_is_divided_alike_whatever_the_order_of_its_files(seed):
    """Stacks by chance, with losses, doubles, strays and lies: each slice in one place, or one reason for all."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    slices: list[Slice] = []
    for group in range(chance.randint(1, 4)):
        orientation, axis = chance.choice([(AXIAL, 2), (AXIAL, 2), (CORONAL, 1), (SAGITTAL, 0)])
        made = stack(chance.choice([1, 2, 5, 9]), chance.choice([1.0, 2.5, 2.5, 0.0]), orientation, axis)
        acquisition = chance.choice(["", "1", "2", "1/0"])
        for i, s in enumerate(made):
            hidden = {"position": None} if chance.random() < 0.02 else {"rows": 32} if chance.random() < 0.02 else {}
            known = chance.choice([None, f"{group}/{i}", str(i)])
            if chance.random() > 0.03:
                slices.append(replace(s, acquisition=acquisition, number=10 * group + i, pixel_hash=known, **hidden))
    outcomes = set()
    for _ in range(3):
        order = chance.sample(range(len(slices)), len(slices))
        try:
            divided = divide([slices[i] for i in order])
        except Unreadable as refused:
            outcomes.add(refused.code)
            continue
        left = [(i, why) for s in divided for i, why in s.left_out]
        assert sorted([*(i for s in divided for i in s.order), *(i for i, _ in left)]) == list(range(len(slices)))
        stacks = sorted(
            str([(slices[order[i]].position, slices[order[i]].acquisition) for i in s.order]) for s in divided
        )
        outcomes.add(str((stacks, sorted(why for _, why in left))))
    assert len(outcomes) == 1
