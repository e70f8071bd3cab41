"""Where the work of a stage is computed: `here`, or in `processes:N`.

`run_batches` keeps few batches in flight, hands results back in the order the batches came in (so that a stage writes
the same rows however many workers it has), and survives a worker that dies: the subjects of its batch are then computed
alone, and only the one that is the end of its worker again is given up. What has limits is never computed here, but in
at least one process that can be spared.
"""

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from phenotype.sandbox import Ended, Limits, Sandbox, next_part, shared

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

    def add(self, other: "Outcome") -> None:
        """Take in the subjects of another outcome."""
        self.outputs |= other.outputs
        self.failures |= other.failures


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
        return _sorted(compute(inputs))
    except Exception as error:
        if len(inputs) == 1:
            return Outcome(failures={next(iter(inputs)): describe(error)})
    outcome = Outcome()
    for subject, value in inputs.items():
        outcome.add(attempt(compute, {subject: value}))
    return outcome


def _sorted(outputs: dict[str, Any]) -> Outcome:
    failures = {subject: output for subject, output in outputs.items() if isinstance(output, Failure)}
    return Outcome({s: output for s, output in outputs.items() if s not in failures}, failures)


def workers(spec: str) -> int:
    """How many processes `spec` asks for; 0 is here, in this process."""
    if spec == "here":
        return 0
    kind, _, count = spec.partition(":")
    if kind == "processes" and count.isdigit() and int(count) > 0:
        return int(count)
    raise Refused("executor", f"'{spec}' is no executor; use 'here' or 'processes:N', as in 'processes:4'")


def run_batches(
    spec: str, compute: Compute, batches: Iterable[dict[str, Any]], limits: Limits | None = None
) -> Iterator[Outcome]:
    """The outcome of each batch, in order.

    With `limits`, which hold for each subject, it is computed in at least one process, subject by subject. One that is
    the end of its process, in its batch and once more alone, fails with the reason "time_limit", "memory_limit" or
    "worker_died".
    """
    count = workers(spec)
    if limits is not None:
        yield from _Apart(shared(max(count, 1), limits), compute).run(batches, 2 * max(count, 1))
    elif count == 0:
        for batch in batches:
            yield attempt(compute, batch)
    else:
        pending = iter(batches)
        first = list(islice(pending, count))  # more processes than batches would only be started
        if not first:
            return
        with Sandbox(len(first)) as sandbox:
            yield from _Apart(sandbox, compute).run(chain(first, pending), 2 * count)


class _Apart:
    """Batches computed in other processes."""

    def __init__(self, sandbox: Sandbox, compute: Compute) -> None:
        self.sandbox, self.compute = sandbox, compute

    def run(self, batches: Iterable[dict[str, Any]], most: int) -> Iterator[Outcome]:
        """Outcomes in order, with at most so many batches under way."""
        flight: deque[tuple[dict[str, Any], Future[Outcome]]] = deque()
        pending = iter(batches)
        try:
            while True:
                while len(flight) < most and (batch := next(pending, None)) is not None:
                    flight.append((batch, self._submit(batch)))
                if not flight:
                    return
                yield self._settle(*flight.popleft())
        except BaseException:  # stopped half way: nobody waits for what is under way
            self.sandbox.close()
            raise

    def _submit(self, batch: dict[str, Any]) -> Future[Outcome]:
        if self.sandbox.limits is None:
            return self.sandbox.submit(attempt, self.compute, batch)
        return self.sandbox.submit(_attempt_each, self.compute, batch, parts=max(1, len(batch)))

    def _settle(self, batch: dict[str, Any], future: Future[Outcome]) -> Outcome:
        try:
            return future.result()
        except Ended:
            alone = {subject: self._submit({subject: value}) for subject, value in batch.items()}
        outcome, tried = Outcome(), True
        for subject, again in alone.items():
            try:
                outcome.add(again.result())
            except Ended as error:
                # the first one to fail was the end of the batch, so this was its second try; the batch never came to
                # those behind it
                failed = Outcome(failures={subject: Failure(str(error))})
                outcome.add(failed if tried else self._once_more(subject, batch))
                tried = False
        return outcome

    def _once_more(self, subject: str, batch: dict[str, Any]) -> Outcome:
        try:
            return self._submit({subject: batch[subject]}).result()
        except Ended as error:
            return Outcome(failures={subject: Failure(str(error))})


def _attempt_each(compute: Compute, inputs: dict[str, Any]) -> Outcome:
    """As `attempt`, but each subject has the clocks to itself, and one that takes all memory is the end of this."""
    outcome = Outcome()
    for subject, value in inputs.items():
        next_part()
        try:
            outcome.add(_sorted(compute({subject: value})))
        except MemoryError:
            raise
        except Exception as error:
            outcome.failures[subject] = describe(error)
    return outcome
