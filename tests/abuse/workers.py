"""A worker killed in a pool: the work goes on in a new one, and the rows are the same."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from support import differences

from abuse.kills import descendants
from abuse.outcome import Outcome
from abuse.world import (
    answer,
    copy_database,
    folder,
    forked,
    forking_sandbox,
    in_fork,
    nasty,
    new_database,
    put,
    rows,
    take_in,
    wait_for,
)


def _plain_pool(number: int) -> bool:
    """The negative control: whether a plain pool gives up all of its work when one of its workers is killed."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        results = [pool.submit(time.sleep, 0.05) for _ in range(20)]
        wait_for(results[0].done)
        os.kill(sorted(pool._processes)[number % 2], signal.SIGKILL)
        return any(isinstance(result.exception(), BrokenProcessPool) for result in results)


def run(count: int, seed: int) -> Outcome:
    """`count` runs of ingestion in two processes, of which one worker is killed some time after it started."""
    draw, hits, good, problems = random.Random(seed), 0, 0, []
    with folder() as where:
        source = put(where / "export", nasty())
        template = new_database(where / "template.db")
        in_fork(lambda: take_in(copy_database(template, where / "whole.db"), source))
        expected = rows(where / "whole.db")
        for number in range(10 * count):
            path = copy_database(template, where / str(number) / "x.db")
            real = number % 5 == 0  # started as in earnest: it may be killed while Python starts

            def work(path=path, real=real) -> None:
                if not real:
                    forking_sandbox()
                take_in(path, source, executor="processes:2")

            pid, pipe = forked(work, group=True)
            wait_for(lambda pid=pid: bool(descendants(pid)), pause=0.001)
            time.sleep(draw.uniform(0, 0.8 if real else 0.08))
            if not (workers := descendants(pid)):
                answer(pid, pipe)  # it was faster
                continue
            os.kill(draw.choice(workers), signal.SIGKILL)
            hits += 1
            try:
                answer(pid, pipe)
                other = differences(expected, rows(path))
                good += not other
                if other:
                    problems.append(f"PROBLEM run {number} of seed {seed} differs in {other}")
            except AssertionError as error:
                problems.append(f"PROBLEM run {number} of seed {seed}: {error}")
            if hits == count:
                break
        broken = sum(in_fork(lambda n=n: _plain_pool(n)) for n in range(3))
    return Outcome(hits, good, f"{broken} of 3 plain pools broke", tuple(problems))
