"""What the tests of the sandbox have done in its workers: by a module of its own, since workers load it."""

import ctypes
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from phenotype.executors import Failure, Refused
from phenotype.sandbox import next_part


def spin():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # minutes, in C


def spin_with_an_alarm():
    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, 0.1)
    spin()


def eat():
    return len(bytearray(1 << 30))


def answer_too_much():
    return ["x" * 100_000_000] + [f"{n}" * 50 for n in range(4_000_000)]


def crash():
    ctypes.string_at(0)


def leave():
    os._exit(0)


def write(path):
    path.write_bytes(bytes(2 << 20))


def refuse():
    raise Refused("bad", "by the test")


class Awkward(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def refuse_awkwardly():
    raise Awkward("Mr Secret", "born 1950")


def busy(size):
    until = time.perf_counter() + 0.002
    while time.perf_counter() < until:
        pass
    return os.urandom(size)


def loaded_modules():
    return set(sys.modules)


def compute(inputs):
    outputs = {}
    for subject, (what, log) in inputs.items():
        with Path(log).open("a") as file:
            file.write(f"{subject}\n")
        if what == "refuse":
            raise Refused("bad", "by the test")
        if what == "none":
            outputs[subject] = Failure("none: by the test")
            continue
        act = {"spin": spin, "eat": eat, "crash": crash, "nap": lambda: time.sleep(0.5), "ok": os.getpid}[what]
        outputs[subject] = act() and subject.upper()
    return outputs


def naps(count):
    for _ in range(count):
        next_part()
        time.sleep(0.5)
