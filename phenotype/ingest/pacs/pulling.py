"""Fetch what a PACS holds: every series is written down before it is asked for, and received only when all of its
instances were read back from the disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.session import Database
from db.tables import Transfer, VaultTransfer
from db.write import insert_rows
from phenotype.imaging.files import Unreadable
from phenotype.ingest.ledger import chunks
from phenotype.ingest.pacs.dicomweb import Access, Pacs, PacsError, SeriesFound
from phenotype.ingest.pacs.query import Query
from phenotype.ingest.pacs.received import Arriving, Inbox, NotStored, identity, open_inbox, settle
from phenotype.stage import Progress, Refused

# reasons that will meet every other series too: the rest stays wanted
HOPELESS = frozenset({"disk_full", "disk_error", "http_401", "http_403", "tls", "redirect"})
PATIENCE = 5  # series in a row that found nobody at the other end
ABSENT = frozenset({"unreachable", "timeout"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A series to fetch."""

    id: str  # of its Transfer
    series: SeriesFound
    attempts: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an attempt came to: received where `reason` is empty."""

    reason: str
    expected: int | None
    received: int
    size: int  # bytes that came


@dataclass(slots=True)
class Pulled:
    """What a pull did, in series; `folder` is the delivery to take in."""

    folder: Path
    found: int = 0
    before: int = 0  # were received already
    received: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # by reason
    waiting: int = 0  # not asked for, since something stood in the way of all
    instances: int = 0
    size: int = 0  # bytes that came


class _Stopped(Exception):
    """Another thread asked to stop."""


def search(access: Access, queries: Sequence[Query]) -> Iterator[SeriesFound]:
    """The series that a PACS has for any of these queries, each once. Raises Refused where it does not answer."""
    seen: set[str] = set()
    pacs = Pacs(access)
    try:
        for query in queries:
            for series in pacs.search(query):
                if series.series_uid not in seen:
                    seen.add(series.series_uid)
                    yield series
    except PacsError as error:
        raise Refused(error.reason, "the PACS did not answer the search; nothing was fetched") from None
    finally:
        pacs.close()


def pull(
    database: Database,
    home: Path,
    access: Access,
    queries: Sequence[Query],
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch the series that `queries` ask for; without queries, those that were wanted before and are not received.

    Stopped at any moment and run again, it ends as if it had never been stopped: what lies in the folder is not asked
    for again. Raises Refused where the PACS does not answer the search.
    """
    asked = "\n".join(str(query) for query in queries)
    pages = chunks(search(access, queries))
    page = next(pages, [])  # before anything is written down for a PACS that is not there
    with open_inbox(database, home, "dicomweb", access.name, asked) as inbox:
        result = Pulled(inbox.folder)
        while page:
            with database.writing() as session:
                result.before += _write_down(session, inbox, page)
            result.found += len(page)
            page = next(pages, [])
        with database.reading() as session:
            wanted = _wanted(session, inbox.export_id)
        if not queries:
            result.found = len(wanted)
        report = progress or (lambda *_: None)
        report(0, len(wanted), "")
        for one, fetched in _fetch_all(access, inbox, wanted, workers):
            with database.writing() as session:
                _write_result(session, one, fetched)
            result.instances += fetched.received
            result.size += fetched.size
            if fetched.reason:
                result.failed[fetched.reason] += 1
            else:
                result.received += 1
            failed = result.failed.total()
            report(result.received + failed, len(wanted), f"{failed} failed" if failed else "")
        result.waiting = len(wanted) - result.received - result.failed.total()
        return result


def _write_down(session: Session, inbox: Inbox, found: Sequence[SeriesFound]) -> int:
    """Rows for new series; those that have grown since, or whose files are gone, are wanted again. Returns how many
    need nothing."""
    now = datetime.now(UTC)
    ids = {inbox.name("transfer", series.study_uid, series.series_uid): series for series in found}
    known = {row.id: row for row in session.scalars(select(Transfer).where(Transfer.id.in_(ids)))}
    new = [(key, series) for key, series in ids.items() if key not in known]
    common = {"export_id": inbox.export_id, "state": "wanted", "reason": "", "received": 0, "attempts": 0}
    rows = [common | {"id": key, "expected": series.count, "changed_at": now} for key, series in new]
    insert_rows(session, Transfer, rows)
    places = [{"transfer_id": k, "study_uid": s.study_uid, "series_uid": s.series_uid} for k, s in new]
    insert_rows(session, VaultTransfer, places)
    settled = 0
    for key, row in known.items():
        count = ids[key].count
        if row.state == "received":
            # a PACS that does not count must be asked for its list each time
            grown = count is None or count > (row.expected or 0)
            if not grown and len(_files(inbox.folder / key)) >= row.received:
                settled += 1
                continue
            row.state = "wanted"
        row.expected, row.changed_at = count, now
    return settled


def _wanted(session: Session, export_id: str) -> list[Wanted]:
    place = VaultTransfer
    query = select(Transfer.id, place.study_uid, place.series_uid, Transfer.expected, Transfer.attempts).join(place)
    rows = session.execute(
        query.where(Transfer.export_id == export_id, Transfer.state != "received").order_by(Transfer.id)
    )
    return [Wanted(row[0], SeriesFound(row[1], row[2], "", row[3]), row[4]) for row in rows]


def _write_result(session: Session, wanted: Wanted, fetched: Fetched) -> None:
    values = {
        "state": "failed" if fetched.reason else "received",
        "reason": fetched.reason,
        "expected": fetched.expected,
        "received": fetched.received,
        "attempts": wanted.attempts + 1,
        "changed_at": datetime.now(UTC),
    }
    session.execute(update(Transfer).where(Transfer.id == wanted.id).values(**values))


def _fetch_all(
    access: Access, inbox: Inbox, wanted: Iterable[Wanted], workers: int
) -> Iterator[tuple[Wanted, Fetched]]:
    """The outcomes as they come, until all are done or it makes no sense to go on."""
    lines: SimpleQueue[Pacs] = SimpleQueue()  # a connection each
    for _ in range(workers):
        lines.put(Pacs(access))
    stopped, pending = Event(), iter(wanted)
    running: dict[Future[Fetched], Wanted] = {}
    in_vain = 0

    def attempt(one: Wanted) -> Fetched:
        pacs = lines.get()
        try:
            return fetch(pacs, inbox, one, stopped)
        finally:
            lines.put(pacs)

    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while not stopped.is_set() and len(running) < workers and (one := next(pending, None)):
                    running[pool.submit(attempt, one)] = one
                if not running:
                    return
                for future in _first(running):
                    one = running.pop(future)
                    try:
                        fetched = future.result()
                    except _Stopped:
                        continue
                    yield one, fetched
                    in_vain = in_vain + 1 if fetched.reason in ABSENT and not fetched.size else 0
                    if fetched.reason in HOPELESS or in_vain >= PATIENCE:
                        stopped.set()
        finally:
            stopped.set()  # also where the caller was interrupted
            for _ in range(lines.qsize()):
                lines.get().close()


def _first(running: dict[Future[Fetched], Wanted]) -> list[Future[Fetched]]:
    return list(wait(running, return_when=FIRST_COMPLETED).done)


def fetch(pacs: Pacs, inbox: Inbox, wanted: Wanted, stopped: Event) -> Fetched:
    """One attempt at a series: what is missing is asked for, and all that the PACS lists is looked for on the disk."""
    folder, series = inbox.folder / wanted.id, wanted.series
    folder.mkdir(exist_ok=True, mode=0o700)
    attempt = _Attempt(pacs, inbox, wanted, folder, stopped)
    try:
        listed = pacs.instances(series)
        attempt.run(listed)
    except (PacsError, NotStored) as error:
        attempt.fail(error.reason)
        listed = None
    except OSError as error:
        attempt.fail(NotStored.of(error).reason)
        listed = None
    settle(folder)
    settle(inbox.folder)
    received = len(_files(folder))
    if listed is None:
        return Fetched(attempt.reason, series.count, received, attempt.size)
    expected = max(len(listed), series.count or 0)
    if not listed or received < expected or attempt.missing(listed):
        return Fetched(attempt.reason or "fewer_instances", expected, received, attempt.size)
    return Fetched("", expected, received, attempt.size)


class _Attempt:
    """An attempt at a series under way."""

    def __init__(self, pacs: Pacs, inbox: Inbox, wanted: Wanted, folder: Path, stopped: Event) -> None:
        self.pacs, self.inbox, self.wanted, self.folder, self.stopped = pacs, inbox, wanted, folder, stopped
        self.reason, self.size = "", 0
        self.verified: set[str] = set()  # of this attempt: read back already

    def fail(self, reason: str) -> None:
        """The first reason counts: others may follow from it."""
        self.reason = self.reason or reason

    def run(self, listed: Sequence[str]) -> None:
        """Ask for all at once where nothing is here, and for each that is still missing alone."""
        missing = self.missing(listed)
        if len(missing) == len(listed) and self.wanted.attempts == 0 and not self._ask("", listed):
            return
        for uid in self.missing(listed):
            if not self._ask(uid, [uid]):
                return

    def _ask(self, uid: str, asked: Sequence[str]) -> bool:
        """Fetch one instance, or all. False where it makes no sense to ask for the next."""
        try:
            self._take(self.pacs.retrieve(self.wanted.series, uid), frozenset(asked))
        except (PacsError, NotStored) as error:
            self.fail(error.reason)
            return error.reason not in HOPELESS | ABSENT and not error.reason.startswith("http_5")
        return True

    def missing(self, listed: Sequence[str]) -> list[str]:
        """Instances that are not here, or whose file holds something else."""
        return [uid for uid in listed if uid not in self.verified and not self._is_here(uid)]

    def _is_here(self, uid: str) -> bool:
        try:
            here = identity(self._path(uid)).sop_uid == uid
        except (FileNotFoundError, Unreadable):
            here = False
        if here:
            self.verified.add(uid)
        return here

    def _path(self, *parts: str) -> Path:
        return self.folder / f"{self.inbox.name(*parts)}.dcm"

    def _take(self, pieces: Iterator[bytes | None], asked: frozenset[str]) -> None:
        arriving: Arriving | None = None
        try:
            for piece in pieces:
                if self.stopped.is_set():
                    raise _Stopped
                if piece is not None:
                    arriving = arriving or Arriving(self.inbox.arriving_path())
                    arriving.write(piece)
                    self.size += len(piece)
                    if arriving.reason:
                        raise NotStored(arriving.reason)
                elif arriving is None:
                    raise PacsError("not_dicom")
                else:
                    self._keep(arriving, asked)
                    arriving = None
        finally:
            if arriving is not None:
                arriving.discard()

    def _keep(self, arriving: Arriving, asked: frozenset[str]) -> None:
        try:
            told = identity(arriving.path)
        except Unreadable as error:
            arriving.discard()
            raise PacsError(error.code) from None
        # what was not listed may have come since; what belongs elsewhere was not asked for
        if told.sop_uid not in asked and told.series_uid != self.wanted.series.series_uid:
            arriving.discard()
            raise PacsError("not_asked_for")
        path = self._path(told.sop_uid)
        if self._is_here(told.sop_uid):  # never overwritten: other bytes under the same UID are kept beside
            path = self._path(told.sop_uid, arriving.digest)
        arriving.keep(path)
        self.verified.add(told.sop_uid)


def _files(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(".dcm")]  # noqa: PTH208  (a third faster)
    except FileNotFoundError:
        return []
