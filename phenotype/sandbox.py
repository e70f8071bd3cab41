"""Disposable processes for bytes from outside, limited in memory, time and file size.

A worker is a process of its own with two pipes of its own, so that whatever becomes of it (a codec that crashes, hangs
or allocates without end; a kill from outside at any moment) costs the task it was at, and no other worker or task.
Clocks and limits are the kernel's: they end a worker inside C code, where Python's own signal handlers would wait.
"""

import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from enum import Enum
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

START_SECONDS = 120.0  # for Python to start, on a machine under load
_READY = b"ready"
_SECRET = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|API_?KEY|ACCESS_KEY|_URL$|_DB$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use.

    memory_bytes  of address space, so that much less than that is ever resident
    cpu_seconds   of one task, or of one part of it; whole seconds
    wall_seconds  of the same; longer, since a slow disk is no fault of the file
    file_bytes    of any file that is written
    """

    memory_bytes: int = 4 << 30
    cpu_seconds: int = 25
    wall_seconds: float = 180.0
    file_bytes: int = 8 << 30


class Ended(Exception):
    """A task whose worker was ended. `code` says by what: "time_limit", "memory_limit", or "worker_died"."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Sandbox:
    """Up to `workers` processes, each started when it is needed and replaced when it has ended.

    Functions are given by reference: they, their arguments and their results are pickled, and what a script defines
    in `__main__` is not found. Without `limits` only the parting of processes remains.
    """

    def __init__(self, workers: int, limits: Limits | None = None) -> None:
        self.limits, self.closed = limits, False
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: set[_Worker] = set()
        self._guard = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, "sandbox")  # one for each worker: it waits, and keeps the clock

    def submit(self, function: Callable[..., Result], /, *args: Any, parts: int = 1) -> Future[Result]:
        """`function(*args)` in a worker. `parts` is how many times the limits of time it may take in all, by
        calling `next_part`.

        The future raises what the function raises, `Ended` where the worker was ended, and RuntimeError where no
        worker can be started.
        """
        task = pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)
        return self._threads.submit(self._run, task, parts)

    def call(self, function: Callable[..., Result], /, *args: Any) -> Result:
        """`function(*args)` in a worker, waited for."""
        try:
            return self.submit(function, *args).result()
        except KeyboardInterrupt:
            self.close()
            raise

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._guard:
            self.closed = True
            for worker in self._all:
                worker.kill()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, task: bytes, parts: int) -> Any:
        worker = self._take()
        try:
            kind, value = worker.ask(task, parts)
        except Ended:
            self._dismiss(worker)
            raise
        if kind == "memory":
            self._dismiss(worker)  # its heap is full of holes
            raise Ended("memory_limit", "it needs more memory than it may use")
        self._idle.put(worker)
        if kind == "raised":
            raise value
        return value

    def _take(self) -> "_Worker":
        while True:
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                break
            if worker.process.poll() is None:
                return worker
            self._dismiss(worker)
        try:
            worker = _Worker(self.limits)
        except RuntimeError:
            worker = _Worker(self.limits)  # something ended it before it began; not twice
        with self._guard:
            self._all.add(worker)
            if self.closed:
                worker.kill()
        return worker

    def _dismiss(self, worker: "_Worker") -> None:
        worker.kill()
        worker.to.close()
        worker.back.close()
        with self._guard:
            self._all.discard(worker)


_shared: dict[tuple[int, int, Limits], Sandbox] = {}


def shared(workers: int, limits: Limits) -> Sandbox:
    """The sandbox of this process with these limits: workers live on from one use to the next."""
    key = os.getpid(), workers, limits
    if key not in _shared or _shared[key].closed:
        _shared[key] = Sandbox(workers, limits)
    return _shared[key]


class _Worker:
    """A process and the pipes to and from it."""

    def __init__(self, limits: Limits | None) -> None:
        self.limits, self.late = limits, False
        from_parent, to_child = os.pipe()
        from_child, to_parent = os.pipe()
        self.to, self.back = Connection(to_child, readable=False), Connection(from_child, writable=False)
        code = f"import sys; sys.path[:] = {sys.path!r}\nfrom phenotype.sandbox import _serve"
        code += f"\n_serve({from_parent}, {to_parent}, {os.getpid()}, {limits and _plain(limits)})"
        # more threads would only take address space; what codecs print may quote what they read; and where bytes from
        # outside are read, no secret need be known
        known = {name: value for name, value in os.environ.items() if not limits or not _SECRET.search(name)}
        few = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") if limits else {}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits it
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if limits else None,
                pass_fds=(from_parent, to_parent),
                env=known | few,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(from_parent)
            os.close(to_parent)
        try:
            began = self.back.poll(START_SECONDS) and self.back.recv_bytes() == _READY
        except (EOFError, OSError):
            began = False
        if not began:
            self.kill()
            raise RuntimeError(f"a worker process cannot be started (exit status {self.process.returncode})")

    def ask(self, task: bytes, parts: int) -> tuple[str, Any]:
        """The answer to a task: "value", "raised" or "memory", and what. Raises `Ended`."""
        # the worker's own clock runs for each part; this is for a worker that is stopped, or stuck in the kernel
        patience = None if self.limits is None else self.limits.wall_seconds * parts + 10.0
        try:
            self.to.send_bytes(task)
            self.late = not self.back.poll(patience)
            answer = b"" if self.late else self.back.recv_bytes()
        except (EOFError, OSError):
            raise self._end() from None
        if self.late:
            raise self._end()
        try:
            # a process of our own; but with limits it has read bytes from outside, and may be another's by now
            found: tuple[str, Any] = pickle.loads(answer) if self.limits is None else _Answers(BytesIO(answer)).load()  # noqa: S301
        except Exception:
            self.kill()
            raise Ended("worker_died", "the process that worked on it gave no answer that could be read") from None
        return found

    def _end(self) -> Ended:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0 if self.late else 1.0)  # its pipe closes before its exit status is there
        self.kill()
        clocks = (-signal.SIGXCPU, -signal.SIGALRM)
        if self.limits is not None and (self.late or self.process.returncode in clocks):
            seconds = f"{self.limits.cpu_seconds} s of computing or {self.limits.wall_seconds:g} s in all"
            return Ended("time_limit", f"it takes more than {seconds}")
        return Ended("worker_died", "the process that worked on it died")

    def kill(self) -> None:
        """End the process, if it has not ended, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


_PLAIN = {
    "builtins": {"set", "frozenset", "complex", "bytearray", "slice", "range", "object"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
}


class _Answers(pickle.Unpickler):
    """Reads what is plain: numbers, text, arrays, dataclasses and exceptions of modules that are loaded, or our own.
    Whatever else a pickle names is not even looked up, let alone called."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of this name. Raises UnpicklingError."""
        if name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        if module in sys.modules or module.startswith("phenotype."):
            found = super().find_class(module, name)
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, BaseException | Enum)):
                return found
        raise pickle.UnpicklingError("not plain")


def _plain(limits: Limits) -> tuple[int, int, float, int]:
    return limits.memory_bytes, limits.cpu_seconds, limits.wall_seconds, limits.file_bytes


# ------------------------------------------------------------------------------------------------ in the worker

_own: Limits | None = None


def next_part(times: int = 1) -> None:
    """Set the clocks of this worker back: what follows is a new task for them, one that may take so many times the
    limits. Without limits nothing happens."""
    if _own is None:
        return
    import resource

    # both end the process by the default action of their signal, in whatever code it is
    signal.setitimer(signal.ITIMER_REAL, _own.wall_seconds * times)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + _own.cpu_seconds * times, hard))


def _rest() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def _serve(reader: int, writer: int, parent: int, limits: tuple[int, int, float, int] | None) -> None:
    """Do what is asked until the parent is gone."""
    global _own  # noqa: PLW0603  (one worker, one process)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _die_with(parent)
    if limits is not None:
        _own = Limits(*limits)
        _limit(_own)
    tasks, answers = Connection(reader, writable=False), Connection(writer, readable=False)
    with suppress(EOFError, OSError):  # the parent is gone
        answers.send_bytes(_READY)
        while True:
            task = tasks.recv_bytes()
            next_part()
            answer = _answer(task)
            if limits is not None:
                _rest()
            answers.send_bytes(answer)
            del task, answer
    os._exit(0)


def _answer(task: bytes) -> bytes:
    try:
        function, args = pickle.loads(task)  # noqa: S301  (from our own parent)
        return pickle.dumps(("value", function(*args)), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        return pickle.dumps(("memory", None))
    except Exception as error:
        try:
            answer = pickle.dumps(("raised", error))
            pickle.loads(answer)  # noqa: S301  (some exceptions can be written but not read)
        except Exception:
            return pickle.dumps(("raised", RuntimeError(type(error).__name__)))
        return answer


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _limit(limits: Limits) -> None:
    import resource

    wanted = {"AS": limits.memory_bytes, "FSIZE": limits.file_bytes, "CORE": 0}
    for name, most in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
