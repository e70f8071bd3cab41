"""Where the work of a stage is computed: `here`, or in `processes:N`.

`run_batches` keeps few batches in flight, hands results back in the order the batches came in (so that a stage writes
the same rows however many workers it has), and survives a worker that dies: the batches under way are then computed
one subject at a time in a new pool, and only the subject that kills its worker twice is given up.
"""

import multiprocessing
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Compute = Callable[[dict[str, Any]], dict[str, Any]]


class Refused(Exception):
    """Input that cannot be used. `code` is a short word to count by; `message` says what is wrong and what to do.

    Both are stored and shown: they carry no personal data.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a subject has no result."""

    reason: str
    traceback: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of the subjects of one batch."""

    outputs: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)


def describe(error: BaseException) -> Failure:
    """What may be written down of an error: its kind and where it arose, but no message, since messages carry values.

    An error says that its message is fit to be read by having a `code`, as Refused has.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = "\n".join(f"{'/'.join(Path(f.filename).parts[-3:])}:{f.lineno} {f.name}" for f in frames)
    reason = str(error) if isinstance(getattr(error, "code", None), str) else type(error).__name__
    return Failure(reason, where)


def attempt(compute: Compute, inputs: dict[str, Any]) -> Outcome:
    """Compute a batch; if that fails, compute it one by one, so that only the guilty fail.

    An output that is a Failure says that its subject has none.
    """
    try:
        outputs = compute(inputs)
        failures = {subject: output for subject, output in outputs.items() if isinstance(output, Failure)}
        return Outcome({s: output for s, output in outputs.items() if s not in failures}, failures)
    except Exception as error:
        if len(inputs) == 1:
            return Outcome(failures={next(iter(inputs)): describe(error)})
    outcome = Outcome()
    for subject, value in inputs.items():
        single = attempt(compute, {subject: value})
        outcome.outputs |= single.outputs
        outcome.failures |= single.failures
    return outcome


def workers(spec: str) -> int:
    """How many processes `spec` asks for; 0 is here, in this process."""
    if spec == "here":
        return 0
    kind, _, count = spec.partition(":")
    if kind == "processes" and count.isdigit() and int(count) > 0:
        return int(count)
    raise Refused("executor", f"'{spec}' is no executor; use 'here' or 'processes:N', as in 'processes:4'")


def run_batches(spec: str, compute: Compute, batches: Iterable[dict[str, Any]]) -> Iterator[Outcome]:
    """The outcome of each batch, in order."""
    count = workers(spec)
    if count == 0:
        for batch in batches:
            yield attempt(compute, batch)
        return
    yield from _Pool(count, compute).run(batches)


class _Pool:
    """A pool of processes that is built anew when a worker dies."""

    def __init__(self, count: int, compute: Compute) -> None:
        self.count, self.compute = count, compute
        self.pool: Executor = self._new()

    def _new(self) -> Executor:
        # spawn: a forked child would inherit threads and open databases in an unknown state
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, mp_context=context, initializer=_start_worker)

    def run(self, batches: Iterable[dict[str, Any]]) -> Iterator[Outcome]:
        """Keep twice as many batches in flight as there are workers."""
        flight: deque[tuple[dict[str, Any], Future[Outcome] | None]] = deque()
        pending = iter(batches)
        try:
            while True:
                while len(flight) < 2 * self.count and (batch := next(pending, None)) is not None:
                    flight.append((batch, self._submit(batch)))
                if not flight:
                    return
                batch, future = flight.popleft()
                outcome = _result(future)
                if outcome is not None:
                    yield outcome
                    continue
                suspects = [batch, *(b for b, _ in flight)]
                flight.clear()
                self._renew()
                for suspect in suspects:
                    yield self._one_by_one(suspect)
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, batch: dict[str, Any]) -> Future[Outcome] | None:
        try:
            return self.pool.submit(attempt, self.compute, batch)
        except BrokenProcessPool:
            return None  # the batch stays in flight and is computed with the other suspects

    def _one_by_one(self, batch: dict[str, Any]) -> Outcome:
        outcome = Outcome()
        for subject, value in batch.items():
            for _ in range(2):
                single = _result(self._submit({subject: value}))
                if single is not None:
                    outcome.outputs |= single.outputs
                    outcome.failures |= single.failures
                    break
                self._renew()
            else:
                outcome.failures[subject] = Failure("worker_died: the worker process died on this subject, twice")
        return outcome

    def _renew(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = self._new()


def _result(future: Future[Outcome] | None) -> Outcome | None:
    """The outcome, or None where a worker died before it was there."""
    if future is None:
        return None
    try:
        return future.result()
    except BrokenProcessPool:
        return None


def _start_worker() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides when to stop
