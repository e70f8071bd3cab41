"""Trainings killed 20 times at random, some of them asked to stop, end in the weights of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from model_trainings import SIZE, Forks, plan, same_result, source, watched

from phenotype.models import build
from phenotype.models.files import read_training
from phenotype.models.train import train

KILLS = int(os.environ.get("PHENOTYPE_KILLS", "20"))
STEPS = 120


@pytest.mark.parametrize(("name", "watch"), [("cae", (4, 8)), ("f-anogan", None)])
def test_killed_at_random_it_ends_in_the_same_weights(name, watch, tmp_path):
    seed = int(os.environ.get("PHENOTYPE_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"PHENOTYPE_TEST_SEED={seed}")
    rng = random.Random(f"{seed}{name}")
    changed = {"steps": STEPS, "checkpoint_every": 2, "learning_rate": 5e-3}
    undisturbed = tmp_path / "undisturbed"
    looks = watched(name, *watch) if watch else None
    train(build(name, SIZE, seed=2), source(name), folder=undisturbed, watch=looks, **plan(name, **changed))
    forks, kills, stops, folder = Forks(), 0, 0, tmp_path / "killed"
    while True:
        disturb = kills + stops < KILLS
        with forks.training(name, folder, watch, **changed) as training:
            if disturb:
                for _ in range(rng.randrange(7)):
                    training.step()
                time.sleep(rng.uniform(0, 0.02))
                number = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
                if training.code is None:
                    os.kill(training.pid, number)
        if training.code == 0:
            if disturb:  # it came to its end too early: once more, from the beginning
                for path in sorted(folder.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                continue
            break
        assert training.code in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)
        kills, stops = kills + (training.code == -signal.SIGKILL), stops + (training.code != -signal.SIGKILL)
    forks.close()
    print(f"{name}: killed {kills} times, asked to stop {stops} times")
    assert same_result(folder, undisturbed)
    kept, as_before = (read_training(one).get("kept") for one in (folder, undisturbed))
    assert kept == as_before and (kept is not None) == (watch is not None)
