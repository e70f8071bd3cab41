"""The shape of a stage, and `run_stage`.

A stage asks the database what it has not done yet, computes plain values from plain values, and stores them with the
recipe that made them. Everything that stages have in common (resuming, failing alone, workers, provenance, progress) is
here and nowhere else.
"""

import hashlib
import json
import sqlite3
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

from filelock import FileLock, Timeout
from sqlalchemy import Select, and_, exists, func, literal, select
from sqlalchemy.orm import Session

from db.session import Database
from db.tables import Base, Cohort, Run, Task
from db.write import delete_rows, insert_rows
from phenotype.executors import Compute, Failure, Outcome, Refused, run_batches
from phenotype.sandbox import Limits

__all__ = [
    "Failure",
    "Fit",
    "Progress",
    "Refused",
    "Stage",
    "Subjects",
    "Summary",
    "done_by",
    "knob",
    "model_folder",
    "newest_run",
    "run_of",
    "run_stage",
    "tell",
]

Progress = Callable[[int, int, str], None]  # done, of how many, what
_listener: ContextVar[Progress] = ContextVar("_listener", default=lambda *_: None)
Subjects: TypeAlias = Select[*tuple[Any, ...]]  # id, version and perhaps what to order by
SOFTWARE = ("phenotype", "numpy", "pydicom", "scikit-learn", "spacy", "sqlalchemy", "torch")


def knob(default: Any, help: str, *, recipe: bool = True, hidden: bool = False) -> Any:
    """A field of a stage: a command-line option, a key in pipeline.toml and, unless `recipe` is false, part of the
    run's fingerprint. Only what cannot change a result (a device, a path whose content is hashed) is left out of it."""
    return field(default=default, metadata={"help": help, "recipe": recipe, "hidden": hidden})


def run_of(stage: str, help: str, default: str = "") -> Any:
    """A field that names the run of another stage to build upon: its id or the beginning of it, its label, or nothing
    for the current one. It is resolved before the stage starts, so that the recipe names one run for good."""
    return field(default=default, metadata={"help": help, "recipe": True, "hidden": False, "run_of": stage})


def tell(done: int, total: int, what: str) -> None:
    """Report progress from within `compute`; heard where that runs in the process that shows it, as a Fit does."""
    _listener.get()(done, total, what)


@dataclass(frozen=True)
class Stage(ABC):
    """One step from rows to rows. Fields are its recipe; the four methods below are all that differs between stages.

    name      the command
    results   the tables it fills, each with a run_id
    subject   their column with the subject's id; empty where a run has but one
    batch     how many subjects are computed and committed together
    limits    what one subject may cost, where it is made of bytes from outside: it is then computed in another process
    revision  raised when the same recipe gives other results, so that old runs are not mistaken for new ones
    """

    home: str = knob("", "the folder beside the database", recipe=False, hidden=True)

    name: ClassVar[str]
    subject: ClassVar[str]
    results: ClassVar[tuple[type[Base], ...]] = ()
    batch: ClassVar[int] = 16
    revision: ClassVar[int] = 1
    limits: ClassVar[Limits | None] = None

    @abstractmethod
    def subjects(self) -> Subjects:
        """What there is: a SELECT of id, version and, if the order matters, a third column to order by.

        The version is a string; a subject whose version has changed is done again.
        """

    @abstractmethod
    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The inputs of these subjects as plain values. A subject left out is not computed and not written down."""

    @abstractmethod
    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs from inputs. Pure: it runs on any worker, touches no database, and one subject's output does not
        depend on its neighbours in the batch."""

    def work(self) -> Compute:
        """What is sent to the workers: `compute`, or something that does the same and imports less there."""
        return self.compute

    @abstractmethod
    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """Write the outputs of a batch, in the transaction that also writes its Tasks."""

    def remarks(self, session: Session) -> list[str]:
        """What a person should know of the results of a finished run, if anything."""
        return []

    def refuse(self, session: Session, failures: dict[str, Failure]) -> None:  # noqa: B027  (most have nothing to do)
        """Write down elsewhere than in Task that these subjects failed; called in the same transaction."""

    def resolve(self, session: Session, home: Path) -> Self:
        """The stage with all its fields known: names of runs replaced by their ids. `home` is the folder beside the
        database."""
        known = {
            f.name: find_run(session, f.metadata["run_of"], getattr(self, f.name))
            for f in fields(self)
            if "run_of" in f.metadata
        }
        return replace(self, home=str(home), **known)

    @property
    def label(self) -> str:
        """What tells two runs of this stage apart for people: the model's name, the cohort's."""
        return ""

    @property
    def recipe(self) -> dict[str, Any]:
        """The fields that decide the results, as JSON knows them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("recipe", True)}
        recipe: dict[str, Any] = json.loads(json.dumps(values))
        return recipe

    @property
    def run_id(self) -> str:
        """A digest of the stage and its recipe: the same recipe is the same run, in any database."""
        text = json.dumps([self.name, self.revision, self.recipe], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Fit(Stage):
    """A stage that learns one thing from a Cohort, which is its only subject.

    Its recipe holds what the runs it builds upon had done when it started, so that new studies make a new run instead
    of silently changing what was learned.
    """

    cohort: str = run_of("cohort", "the cohort to learn from, by name; nothing for the newest")
    upstream: str = knob("", "a digest of what the runs built upon had done", hidden=True)

    subject: ClassVar[str] = ""  # all that the run has stored

    def subjects(self) -> Subjects:
        """The cohort."""
        return select(Cohort.id, literal("")).where(Cohort.id == self.cohort)

    def resolve(self, session: Session, home: Path) -> Self:
        """With the names of runs, and what they have done, known."""
        stage = super().resolve(session, home)
        runs = [getattr(stage, f.name) for f in fields(stage) if "run_of" in f.metadata]
        return replace(stage, upstream=done_by(session, runs))

    @property
    def folder(self) -> Path:
        """Where this run keeps what it has learned."""
        return model_folder(Path(self.home), self.run_id)


def done_by(session: Session, runs: Iterable[str]) -> str:
    """A digest of what these runs have done so far."""
    tasks = select(Task.run_id, Task.subject_id, Task.version)
    tasks = tasks.where(Task.run_id.in_(sorted(runs)), Task.state == "done").order_by(Task.run_id, Task.subject_id)
    digest = hashlib.sha256()
    for row in session.execute(tasks.execution_options(yield_per=10_000)):
        digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()[:16]


def model_folder(home: Path, run_id: str) -> Path:
    """The folder of what a run has learned."""
    return home / "models" / run_id


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of a stage did: subjects done and failed now, those that were done already, and what to know."""

    run_id: str
    stage: str
    done: int
    failed: int
    before: int
    seconds: float
    remarks: tuple[str, ...] = ()


def stage_fields(kind: type[Stage]) -> list[Field[Any]]:
    """The fields that a person may set, in their order."""
    return [f for f in fields(kind) if not f.metadata.get("hidden") and f.default is not MISSING]


def find_run(session: Session, stage: str, name: str) -> str:
    """The id of the run of `stage` that is called `name`, or of the newest where the name is empty; one that has done
    something.

    Raises Refused where there is none, or where the beginning of an id fits several.
    """
    fruitful = exists().where(Task.run_id == Run.id, Task.state == "done")  # nothing can be built on one that failed
    runs = select(Run.id).where(Run.stage == stage, fruitful)
    newest = runs.order_by(Run.opened_at.desc(), Run.id).limit(1)
    matches = list(session.scalars(newest.where(Run.label == name) if name else newest))
    if name and not matches:
        matches = list(session.scalars(runs.where(Run.id.startswith(name))))
    if len(matches) > 1:
        raise Refused("run", f"'{name}' is the beginning of {len(matches)} runs of '{stage}'; write more of it")
    if not matches:
        what = f"is called '{name}'" if name else "exists"
        hint = f"`phenotype {stage}` makes one, `phenotype status` lists them"
        raise Refused("run", f"no run of '{stage}' that has done something {what}: {hint}")
    return matches[0]


def newest_run(session: Session, stage: str, **recipe: str) -> str:
    """The newest run of a stage that has done something and has these things in its recipe; empty where none has."""
    fruitful = exists().where(Task.run_id == Run.id, Task.state == "done")
    runs = select(Run).where(Run.stage == stage, fruitful).order_by(Run.opened_at.desc(), Run.id)
    fitting = (r.id for r in session.scalars(runs) if all(r.recipe.get(key) == own for key, own in recipe.items()))
    return next(fitting, "")


@cache
def _software() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for package in SOFTWARE:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


def run_stage(
    stage: Stage,
    database: Database,
    home: Path,
    *,
    executor: str = "here",
    progress: Progress | None = None,
) -> Summary:
    """Do what `stage` has not done yet and return what was done.

    Stopped at any moment and run again, the tables end as if it had never been stopped: a batch and its Tasks are one
    transaction. Raises Refused where the stage cannot start, or where another process is at work on this database.
    """
    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / "working.lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise Refused("busy", "another phenotype process is at work on this database; wait for it or stop it") from None
    with held:
        started = datetime.now(UTC)
        with database.writing() as session:
            stage = stage.resolve(session, home)
            _open_run(session, stage, started)
        with database.reading() as session:
            todo = _Todo(session, stage)
        report = progress or (lambda *_: None)
        if isinstance(stage, Fit):  # one subject, which says itself how far it is
            executor = "here"
            _listener.set(report)
        done = failed = 0
        report(0, todo.count, "")
        try:
            for outcome, versions in _outcomes(stage, database, todo, executor):
                with database.writing() as session:
                    _commit(session, stage, outcome, versions)
                done, failed = done + len(outcome.outputs), failed + len(outcome.failures)
                report(done + failed, todo.count, f"{failed} failed" if failed else "")
        except KeyboardInterrupt:
            _close_run(database, stage, "interrupted")
            raise
        _close_run(database, stage, "finished")
        seconds = (datetime.now(UTC) - started).total_seconds()
        with database.reading() as session:
            remarks = tuple(stage.remarks(session))
        return Summary(stage.run_id, stage.name, done, failed, todo.before, seconds, remarks)


def _open_run(session: Session, stage: Stage, now: datetime) -> None:
    run = session.get(Run, stage.run_id)
    if run is None:
        run = Run(
            id=stage.run_id,
            stage=stage.name,
            label=stage.label,
            recipe=stage.recipe,
            software=_software(),
            started_at=now,
        )
        session.add(run)
    run.state, run.opened_at, run.finished_at = "running", now, None


def _close_run(database: Database, stage: Stage, state: str) -> None:
    with database.writing() as session:
        run = session.get_one(Run, stage.run_id)
        run.state, run.finished_at = state, datetime.now(UTC)


class _Todo:
    """The subjects (id, version) that are not done, in order, and how many are.

    They may be millions, so they lie in a temporary file of SQLite's, which holds few of them in memory.
    """

    def __init__(self, session: Session, stage: Stage) -> None:
        there = stage.subjects().subquery()
        subject, version, *order = there.columns
        own = and_(Task.run_id == stage.run_id, Task.state == "done")
        is_done = and_(own, Task.subject_id == subject, Task.version == version)
        query = select(subject, version).outerjoin(Task, is_done).where(Task.run_id.is_(None)).order_by(*order, subject)
        self._file = sqlite3.connect("")
        self._file.execute("CREATE TABLE todo (place INTEGER PRIMARY KEY, subject TEXT, version TEXT)")
        found = session.execute(query.execution_options(yield_per=10_000))
        rows = ((row[0], str(row[1])) for row in found)
        self.count = self._file.executemany("INSERT INTO todo (subject, version) VALUES (?, ?)", rows).rowcount
        self.before = (session.scalar(select(func.count()).select_from(there)) or 0) - self.count

    def batches(self, size: int) -> Iterator[dict[str, str]]:
        """So many subjects at a time, with their versions."""
        for start in range(1, self.count + 1, size):
            here = "SELECT subject, version FROM todo WHERE place BETWEEN ? AND ? ORDER BY place"
            yield dict(self._file.execute(here, (start, start + size - 1)))
        self._file.close()


def _outcomes(stage: Stage, database: Database, todo: _Todo, executor: str) -> Iterator[tuple[Outcome, dict[str, str]]]:
    """The outcome of each batch with the versions of its subjects, in order."""
    under_way: deque[dict[str, str]] = deque()

    def inputs() -> Iterator[dict[str, Any]]:
        for batch in todo.batches(stage.batch):
            under_way.append(batch)
            with database.reading() as session:
                values = stage.read(session, list(batch))
            yield values

    for outcome in run_batches(executor, stage.work(), inputs(), stage.limits):
        yield outcome, under_way.popleft()


def _commit(session: Session, stage: Stage, outcome: Outcome, versions: dict[str, str]) -> None:
    ids = [*outcome.outputs, *outcome.failures]
    if not ids:
        return
    known = select(Task.subject_id).where(Task.run_id == stage.run_id, Task.subject_id.in_(ids))
    again = list(session.scalars(known))
    if again:
        delete_rows(session, Task, run_id=stage.run_id, subject_id=again)
        for table in reversed(stage.results):
            delete_rows(session, table, run_id=stage.run_id, **({stage.subject: again} if stage.subject else {}))
    if outcome.outputs:
        stage.store(session, outcome.outputs)
    if outcome.failures:
        stage.refuse(session, outcome.failures)
    common = {"run_id": stage.run_id, "finished_at": datetime.now(UTC)}
    rows: list[tuple[str, str, str | None, str | None]] = [(s, "done", None, None) for s in outcome.outputs]
    rows += [(s, "failed", f.reason, f.traceback) for s, f in outcome.failures.items()]
    names = ("subject_id", "state", "reason", "traceback")
    tasks = [common | {"version": versions[row[0]]} | dict(zip(names, row, strict=True)) for row in rows]
    insert_rows(session, Task, tasks)
