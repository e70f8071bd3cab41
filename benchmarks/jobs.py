"""Jobs of a benchmark that takes hours: one by one or side by side; what is found is on disk before the next begins."""

import json
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context


def run(jobs, function, more, rows, *, processes, told, brief):
    """Do `function(*job, *more)` for each job and keep the rows that it returns; a failure leaves the others alone.

    `processes` at a time, 0 for this one alone; `told(job)` names a job, `brief(row)` a row, for people.
    """
    started, failed = time.monotonic(), 0
    for number, (job, future) in enumerate(_finished(jobs, function, more, processes), 1):
        said = f"[{number}/{len(jobs)}, {(time.monotonic() - started) / 60:.1f} min] {told(job)}"
        try:
            found = future.result()
        except Exception as error:
            failed += 1
            print(f"{said} FAILED: {type(error).__name__}: {error}", flush=True)
            continue
        rows.add(found)
        print(f"{said}: " + ", ".join(map(brief, found)), flush=True)
    if failed:
        print(f"{failed} of {len(jobs)} failed; repeat the command to try them again")


def _finished(jobs, function, more, processes):
    """Each job with its future, as they end."""
    if processes < 1:
        for job in jobs:
            future = Future()
            try:
                future.set_result(function(*job, *more))
            except Exception as error:
                future.set_exception(error)
            yield job, future
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(function, *job, *more): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future


class Rows:
    """Results, a JSON object a line, appended as they come; a line cut short by a crash is not counted.

    `unwanted(row)` says which of those kept before are thrown away.
    """

    def __init__(self, path, unwanted=lambda row: False):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                continue
        kept = [row for row in self.rows if not unwanted(row)]
        if len(kept) < len(self.rows):
            self.rows = kept
            beside = path.with_suffix(".part")
            beside.write_text("".join(json.dumps(row) + "\n" for row in kept))
            beside.replace(path)

    def add(self, found):
        """Keep rows, on disk before anything else happens."""
        self.rows += found
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in found))
            file.flush()
            os.fsync(file.fileno())

    def last(self, *keys, **values):
        """The rows with these values; of several with the same `keys`, which two commands at once found, the last."""
        own = [row for row in self.rows if all(row[key] == value for key, value in values.items())]
        return list({tuple(row[key] for key in keys): row for row in own}.values())
