"""What ends a worker costs the task it was at and no other; who is guilty fails with a reason, after a second try.

The negative controls are what was there before: a Python signal handler, and a pool of the standard library.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pytest
from sandbox_work import (
    answer_too_much,
    busy,
    compute,
    crash,
    eat,
    leave,
    loaded_modules,
    naps,
    refuse,
    refuse_awkwardly,
    spin,
    spin_with_an_alarm,
    write,
)
from sqlalchemy import select
from support import Shout

from db.session import open_database
from db.tables import Concept, Patient, Study, Task
from db.write import insert_rows
from phenotype.executors import Refused, run_batches
from phenotype.sandbox import Ended, Limits, Sandbox
from phenotype.stage import run_stage

LIMITS = Limits(memory_bytes=512 << 20, cpu_seconds=1, wall_seconds=3.0, file_bytes=1 << 20)
ROOMY = Limits(memory_bytes=512 << 20, cpu_seconds=30, wall_seconds=90.0, file_bytes=1 << 20)  # where time is not meant
SHORT = Limits(memory_bytes=512 << 20, cpu_seconds=1, wall_seconds=1.5, file_bytes=1 << 20)


def ended(future):
    with pytest.raises(Ended) as caught:
        future.result()
    return caught.value.code


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (spin, "time_limit"),
        (spin_with_an_alarm, "time_limit"),  # the negative control: a handler of Python's own does not get its turn
        (time.sleep, "time_limit"),
        (eat, "memory_limit"),
        (answer_too_much, "memory_limit"),
        (crash, "worker_died"),
        (leave, "worker_died"),
    ],
)
def test_a_task_beyond_its_limits_ends_with_its_reason_and_the_next_one_is_done(function, code):
    with Sandbox(1, LIMITS if code == "time_limit" else ROOMY) as sandbox:
        before = sandbox.call(os.getpid)
        started = time.monotonic()
        assert ended(sandbox.submit(function, *([60] if function is time.sleep else []))) == code
        assert time.monotonic() - started < 60
        assert sandbox.call(os.getpid) != before, "the worker is a new one"


def test_without_limits_the_same_memory_is_given():
    """The negative control."""
    with Sandbox(1) as sandbox:
        assert sandbox.call(eat) == 1 << 30


def test_files_are_bounded_and_errors_come_back(tmp_path):
    with Sandbox(1, LIMITS) as sandbox:
        first = sandbox.call(os.getpid)
        with pytest.raises(OSError, match="File too large"):
            sandbox.call(write, tmp_path / "large")
        with pytest.raises(Refused, match="bad: by the test"):
            sandbox.call(refuse)
        with pytest.raises(RuntimeError, match=r"^Awkward$"):
            sandbox.call(refuse_awkwardly)
        assert sandbox.call(os.getpid) == first, "none of these is the end of a worker"


def test_a_worker_starts_light_and_is_deaf_to_ctrl_c():
    with Sandbox(1, LIMITS) as sandbox:
        assert {"torch", "numpy", "sqlalchemy", "pydicom"} & sandbox.call(loaded_modules) == set()
        future = sandbox.submit(time.sleep, 0.5)
        time.sleep(0.2)
        (worker,) = sandbox._all
        os.kill(worker.process.pid, signal.SIGINT)
        assert future.result() is None


def test_close_does_not_wait_for_what_hangs():
    sandbox = Sandbox(2)
    futures = [sandbox.submit(time.sleep, 60) for _ in range(3)]
    while not any(future.running() for future in futures):
        time.sleep(0.01)
    time.sleep(0.3)
    started = time.monotonic()
    sandbox.close()
    assert time.monotonic() - started < 5
    assert all(future.cancelled() or isinstance(future.exception(), Ended) for future in futures)


def test_workers_die_with_their_parent():
    code = "import subprocess, time; from phenotype.sandbox import Sandbox; s = Sandbox(1)\n"
    code += "s.call(time.time); f = s.submit(time.sleep, 60); free = subprocess.Popen(['sleep', '60'])\n"
    code += "time.sleep(0.3); (w,) = s._all; print(w.process.pid, free.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker, free = (int(pid) for pid in parent.stdout.readline().split())
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _runs(worker)
    assert _runs(free), "the negative control: an ordinary child outlives its parent"
    os.kill(free, signal.SIGKILL)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_workers_killed_at_random_cost_their_own_tasks_only():
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    kills, stop = [], threading.Event()
    with Sandbox(2) as sandbox:
        futures = [sandbox.submit(busy, 200_000) for _ in range(500)]

        def kill():
            while not stop.wait(rng.uniform(0.05, 0.4)):
                for worker in rng.sample(sorted(sandbox._all, key=id), min(1, len(sandbox._all))):
                    worker.process.kill()
                    kills.append(worker)

        killer = threading.Thread(target=kill)
        killer.start()
        done, waiting = wait(futures, 60)
        stop.set()
        killer.join()
    assert not waiting
    failed = [future.exception() for future in done if future.exception()]
    assert all(isinstance(error, Ended) and error.code == "worker_died" for error in failed)
    assert 1 <= len(failed) <= len(kills), f"seed {seed}"


def test_a_pool_of_the_standard_library_loses_everything_to_one_kill():
    """The negative control of the test above."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        futures = [pool.submit(busy, 1000) for _ in range(400)]
        futures[0].result()
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        wait(futures, 60)
    lost = [future for future in futures if isinstance(future.exception(), BrokenProcessPool)]
    assert len(lost) > 10


# ------------------------------------------------------------------------------------------------ batches and stages


@pytest.mark.parametrize("spec", ["here", "processes:2"])
def test_the_guilty_are_tried_twice_and_all_others_are_kept(tmp_path, spec):
    log = str(tmp_path / "log")
    bad = {"c": "crash", "f": "spin", "h": "eat", "k": "refuse", "m": "none"}
    subjects = {s: (bad.get(s, "ok"), log) for s in "abcdefghijklmnop"}
    names = list(subjects)
    batches = [{s: subjects[s] for s in names[i : i + 4]} for i in range(0, 16, 4)]
    outcomes = list(run_batches(spec, compute, batches, LIMITS))
    assert [{*o.outputs, *o.failures} for o in outcomes] == [set(batch) for batch in batches], "in order"
    outputs = {s: value for o in outcomes for s, value in o.outputs.items()}
    failures = {s: f.reason.split(":")[0] for o in outcomes for s, f in o.failures.items()}
    assert failures == {"c": "worker_died", "f": "time_limit", "h": "memory_limit", "k": "bad", "m": "none"}
    assert outputs == {s: s.upper() for s in names if s not in bad}
    tries = (tmp_path / "log").read_text().split()
    assert [tries.count(s) for s in "cfh"] == [2, 2, 2]
    assert os.getpid() not in {outputs[s] for s in outputs}


def test_a_batch_has_the_time_of_its_subjects_together(tmp_path):
    batch = {f"s{n}": ("nap", str(tmp_path / "log")) for n in range(5)}
    (outcome,) = run_batches("here", compute, [batch], SHORT)
    assert (len(outcome.outputs), outcome.failures) == (5, {})


def test_parts_have_a_clock_each_and_all_of_them_one_in_the_parent():
    with Sandbox(1, SHORT) as sandbox:
        assert sandbox.submit(naps, 4, parts=4).result() is None
        assert ended(sandbox.submit(time.sleep, 3)) == "time_limit"


def test_stopped_half_way_nobody_is_left_behind(tmp_path):
    batches = [{f"s{n}": ("nap", str(tmp_path / "log"))} for n in range(50)]
    outcomes = run_batches("processes:2", compute, batches)
    next(outcomes)
    started = time.monotonic()
    outcomes.close()
    assert time.monotonic() - started < 3
    assert len((tmp_path / "log").read_text().split()) < 20, "batches are taken as they are needed"


class Careful(Shout):
    """A stage whose subjects are not trusted."""

    limits = LIMITS


@pytest.mark.parametrize("limited", [True, False])
def test_a_stage_with_limits_survives_here_what_would_be_its_end(tmp_path, limited):
    def run():
        database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
        with database.writing() as session:
            insert_rows(session, Patient, [{"id": "p", "fold": 1}])
            insert_rows(session, Concept, [{"id": "noise", "name": "noise", "category": "finding"}])
            insert_rows(session, Study, [{"id": f"study{n}", "patient_id": "p"} for n in range(9)])
        stage = (Careful if limited else Shout)(deadly="study5")
        summary = run_stage(stage, database, tmp_path / "home")
        with database.reading() as session:
            reasons = list(session.scalars(select(Task.reason).where(Task.state == "failed")))
        database.close()
        return summary.done, summary.failed, reasons

    if limited:
        assert run() == (8, 1, ["worker_died: the process that worked on it died"])
    else:  # the negative control: computed here, it takes everything with it
        child = os.fork()
        if child == 0:
            run()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
