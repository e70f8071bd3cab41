"""Scenarios of `phenotype pull`, each run in a network of its own by orthanc.isolated. They return what happened; what
should have happened is said in test_pacs_pull.py."""

import gc
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orthanc
import pacs_world as world
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.session import Database, open_database
from db.tables import Export, ExportFile, Image, Instance, Patient, Series, Study, Transfer, VaultExport
from phenotype.ingest.pacs import pulling
from phenotype.ingest.pacs.dicomweb import Access
from phenotype.ingest.pacs.pulling import Pulled, pull
from phenotype.ingest.pacs.query import Query
from phenotype.ingest.pacs.received import open_inbox
from phenotype.ingest.pacs.receiver import Service, receiving
from phenotype.stage import Refused

ALL = Query(study_date="20200101-20201231")


def _pull(database: Database, home: Path, port: int, query: Query | None = ALL, **more: Any) -> Pulled:
    access = Access(f"http://127.0.0.1:{port}/dicom-web", timeout=0.7)
    return pull(database, home, access, [query] if query else [], **more)


def _result(database: Database, home: Path) -> dict[str, list[str]]:
    """What was received: transfers without the count of attempts, and the bytes of every file."""
    files = (home / "received").rglob("*.dcm")
    return {
        "transfer": sorted(str(row[:4]) for row in world.transfers(database)),
        "files": sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files),
    }


def _rows(database: Database, home: Path) -> dict[str, list[str]]:
    """The same, and all rows after it was taken in."""
    with database.reading() as session:
        folders = [Path(path) for path in session.scalars(select(VaultExport.path))]
    world.ingest(database, home, *folders)
    return world.rows(database, Patient, Study, Series, Instance, Image) | _result(database, home)


def queries(tmp: Path) -> dict[str, Any]:
    """By date, accession, patient, UID; paged; a dry run; again; grown; files gone; another modality."""
    uids = world.write_studies(tmp / "ct", patients=5)
    found: dict[str, Any] = {}
    with orthanc.running(tmp / "orthanc") as server:
        server.load(tmp / "ct")
        for name, query in {
            "accession": Query(accession="A21"),
            "patient": Query(patient="P3"),
            "study": Query(study_uid=f"{world.ROOT}.4.1"),
            "day": Query(study_date="20200101"),
            "other_day": Query(study_date="20200102-"),
            "modality": Query(study_date="20200101", modality="CT"),
            "other_modality": Query(study_date="20200101", modality="MR"),
        }.items():
            database, home = world.fresh(tmp / name)
            pulled = _pull(database, home, server.http, query)
            found[name] = [pulled.received, len(list(pulled.folder.rglob("*.dcm")))]
        with world.proxy([], server.http) as asked:
            database, home = world.fresh(tmp / "again")
            import phenotype.ingest.pacs.dicomweb as dicomweb

            before, dicomweb.PAGE = dicomweb.PAGE, 2  # many pages
            first = _pull(database, home, world.PROXY)
            dicomweb.PAGE = before
            found["first"] = [first.found, first.received, first.instances]
            searches = [path for path in asked if "limit=2&offset=4" in path]
            found["pages"] = len(searches)
            asked.clear()
            second = _pull(database, home, world.PROXY)
            found["second"] = [second.before, second.received, sum("/instances" in path for path in asked)]
            for number in (5, 6):  # two series grow
                world.write_ct(tmp / "more" / f"{number}.dcm", 1, 1, number - 4, 5)
            server.load(tmp / "more")
            asked.clear()
            third = _pull(database, home, world.PROXY)
            alone = [path for path in asked if "/instances/" in path]
            whole = [path for path in asked if path.rpartition("/series/")[2].count("/") == 0 and "?" not in path]
            found["grown"] = [third.before, third.received, len(alone), len(whole)]
            folder = next(path for path in third.folder.iterdir() if path.is_dir())
            gone = next(folder.iterdir())
            gone.unlink()
            asked.clear()
            fourth = _pull(database, home, world.PROXY)
            alone = [path for path in asked if "/instances/" in path]
            found["gone"] = [fourth.before, fourth.received, len(alone), gone.exists()]
        world.ingest(database, home, fourth.folder)
        with database.reading() as session:
            found["kind"] = session.scalars(select(Export.kind)).all()
            found["origin"] = session.scalars(select(VaultExport.origin)).one().splitlines()
            states = [list(row) for row in session.execute(select(ExportFile.state, ExportFile.reason).distinct())]
            found["states"] = states
        found["names"] = [
            str(path.relative_to(tmp / "again"))
            for path in (tmp / "again").rglob("*")
            if any(uid in path.name for uid in uids) or "Planted" in path.name or path.name in ("P1", "A11")
        ]
        command = [sys.executable, "-m", "phenotype", "--db", f"sqlite:///{tmp / 'cli.db'}", "pull", server.dicomweb]
        only = ["--modality", "CT", "--accession", "A11", "--dry-run", "--json"]
        dry = subprocess.run([*command, *only], check=False, capture_output=True, text=True)
        found["dry"] = [dry.returncode, dry.stdout, (tmp / "cli.db").exists()]
        (tmp / "numbers").write_text("A11\n\nA51\n")
        command += ["--accessions", str(tmp / "numbers")]
        real = subprocess.run(command, check=False, capture_output=True, text=True)
        found["command"] = [real.returncode, real.stdout + real.stderr]
    return found


FAULTS = {
    "http_500": world.Rule(world.OBJECTS, "500"),
    "http_404": world.Rule(world.OBJECTS, "404"),
    "truncated": world.Rule(world.OBJECTS, "cut"),
    "timeout": world.Rule(world.OBJECTS, "stall"),
    "fewer": world.Rule(world.OBJECTS, "fewer"),
    "counts_more": world.Rule(world.SERIES_SEARCH, "counts_more"),
    "not_dicom": world.Rule(world.OBJECTS, "garbage"),
    "foreign": world.Rule(r"/series/[^/?]+1$", "foreign"),
    "redirect": world.Rule(world.OBJECTS, "redirect"),
    "list_500": world.Rule(world.INSTANCE_SEARCH, "500"),
    # not faults: it must cope
    "uncounted": world.Rule(world.SERIES_SEARCH, "uncounted"),
    "lists_less": world.Rule(world.INSTANCE_SEARCH, "lists_less", 1),
    "once": world.Rule(world.OBJECTS, "cut", 1),
}


def faults(tmp: Path) -> dict[str, Any]:
    """Each fault: the states it leaves, whether the ledger shows it, and the rows after one more run without it."""
    world.write_studies(tmp / "ct", patients=2, series=1, slices=3)
    found: dict[str, Any] = {}
    with orthanc.running(tmp / "orthanc") as server:
        server.load(tmp / "ct")
        database, home = world.fresh(tmp / "clean")
        _pull(database, home, server.http)
        clean, clean_rows = _result(database, home), _rows(database, home)
        found["clean"] = {"states": world.transfers(database)}
        for name, rule in FAULTS.items():
            database, home = world.fresh(tmp / name)
            rules, began = [rule], time.monotonic()
            with world.proxy(rules, server.http):
                first = _pull(database, home, world.PROXY)
                states = world.transfers(database)
                complete = _result(database, home) == clean
                rules.clear()
                again = _pull(database, home, world.PROXY, None if name == "http_500" else ALL)
            found[name] = {
                "seconds": round(time.monotonic() - began, 1),
                "states": states,
                "waiting": first.waiting,
                "complete": complete,
                "failed_after": again.failed.total() + again.waiting,
                "same": _result(database, home) == clean
                and (name not in ("truncated", "fewer") or _rows(database, home) == clean_rows),
                "parts": [str(path) for path in home.rglob("*.part")],
            }
        for name, rule in {
            "search_500": world.Rule(r"/studies\?", "500"),
            "search_redirect": world.Rule(r"/studies\?", "redirect"),
        }.items():
            database, home = world.fresh(tmp / name)
            with world.proxy([rule], server.http):
                try:
                    _pull(database, home, world.PROXY)
                    found[name] = ""
                except Refused as error:
                    found[name] = [str(error), home.exists()]
        database, home = world.fresh(tmp / "full")
        found["disk_full"] = _on_a_full_disk(database, home, server.http)
        found["disk_full"]["same"] = not _pull(database, home, server.http).failed and _result(database, home) == clean
    return found


def _on_a_full_disk(database: Database, home: Path, port: int) -> dict[str, Any]:
    """Writes fail as on a full disk, after some bytes."""
    import phenotype.ingest.pacs.received as received

    class Full:
        left = 4000

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, descriptor: int, data: Any) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return os.write(descriptor, data)

    received.os = Full()  # type: ignore[assignment]
    try:
        pulled = _pull(database, home, port, workers=1)
    finally:
        received.os = os
    return {"states": world.transfers(database), "waiting": pulled.waiting}


def _child(url: str, home: str, port: int, careless: bool) -> None:
    if careless:
        honest = pulling._wanted

        def wanted(session: Session, export_id: str) -> list[pulling.Wanted]:
            found = honest(session, export_id)
            with open_database(url).writing() as other:
                other.execute(update(Transfer).values(state="received"))
            return found

        pulling._wanted = wanted
    _pull(open_database(url), Path(home), port, workers=2)


def kills(tmp: Path, rounds: int, seed: int, careless: bool = False) -> dict[str, Any]:
    """Killed at random moments until it comes through; the rows, compared with those of a run that was left alone.
    `careless` marks series as received before they are asked for: the negative control."""
    print("seed", seed)
    chance = random.Random(seed)
    world.write_studies(tmp / "ct", patients=8, series=3, slices=2)
    with orthanc.running(tmp / "orthanc") as server:
        server.load(tmp / "ct")
        database, home = world.fresh(tmp / "clean")
        _pull(database, home, server.http)
        clean = _rows(database, home)
        database, home = world.fresh(tmp / "killed")
        killed, files = 0, []
        with world.proxy([world.Rule(".", "slow")], server.http) as asked:
            for round_number in range(rounds + 1):
                child = world.in_child(_child, str(database.url), str(home), world.PROXY, careless)
                if round_number < rounds:
                    goal, end = len(asked) + chance.randint(8, 30), time.monotonic() + 20
                    while len(asked) < goal and child.is_alive() and time.monotonic() < end:
                        time.sleep(0.002)
                    time.sleep(chance.uniform(0, 0.06))
                    child.kill()
                child.join(60)
                killed += child.exitcode == -signal.SIGKILL
                files.append(len(list((home / "received").rglob("*.dcm"))))
        return {
            "seed": seed,
            "killed": killed,
            "files": files,
            "exit": child.exitcode,
            "differ": [name for name, found in _rows(database, home).items() if found != clean[name]],
            "parts": len(list(home.rglob("*.part"))),
        }


def large(tmp: Path) -> dict[str, Any]:
    """An object of 50 MB, pulled and pushed: by how many MB the memory of this process grew at most."""

    def peak() -> int:
        return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) // 1024

    def begin() -> int:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        return peak()

    world.write_ct(tmp / "ct" / "1.dcm", 1, 1, 1, 1, size=5000)
    with orthanc.running(tmp / "orthanc") as server:
        server.load(tmp / "ct")
        database, home = world.fresh(tmp)
        before = begin()
        pulled = pull(database, home, Access(server.dicomweb), [ALL])
        grown = peak() - before
        before = begin()
        with (
            open_inbox(database, home, "receiver", "PHENOTYPE", "") as inbox,
            receiving(database, inbox, Service()) as receiver,
        ):
            server.push()
        return {"pull": [pulled.size > 5e7, grown], "push": [receiver.stored, peak() - before]}
