"""`phenotype pull` and `phenotype receive`: images from a live PACS, without a disk in between."""

import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer

from db.session import Database, open_database
from phenotype import show
from phenotype.commands.steps import FINISHED_WITH_FAILURES, finish, run_steps, sentence
from phenotype.pipeline import Step, make_stage, run_step
from phenotype.settings import Settings
from phenotype.show import Json
from phenotype.stage import Refused

SEEN = "a file keeps it out of the process list"
TOKEN, PASSWORD = "PHENOTYPE_PACS_TOKEN", "PHENOTYPE_PACS_PASSWORD"


def pull(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="the DICOMweb address, as in https://pacs.example.org/dicom-web")],
    study_date: Annotated[str, typer.Option(help="YYYYMMDD, or a range: YYYYMMDD-YYYYMMDD")] = "",
    modality: Annotated[str, typer.Option(help="as in CT: only series of this modality")] = "",
    patient: Annotated[str, typer.Option(help=f"a record number; {SEEN}: --patients")] = "",
    patients: Annotated[Path | None, typer.Option(help="a file with a record number a line", exists=True)] = None,
    accession: Annotated[str, typer.Option(help=f"an accession number; {SEEN}: --accessions")] = "",
    accessions: Annotated[Path | None, typer.Option(help="a file with an accession number a line", exists=True)] = None,
    study_uid: Annotated[str, typer.Option(help="a Study Instance UID")] = "",
    retry: Annotated[bool, typer.Option("--retry", help="fetch what is not received yet, without a search")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only search, and count what would be fetched")] = False,
    token_file: Annotated[Path | None, typer.Option(help=f"holds a bearer token; or set {TOKEN}", exists=True)] = None,
    user: Annotated[str, typer.Option(help=f"with the password in {PASSWORD}, or asked for")] = "",
    ca_file: Annotated[Path | None, typer.Option(help="certificates to trust, PEM", exists=True)] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="trust any certificate; secrets over plain HTTP")
    ] = False,
    downloads: Annotated[int, typer.Option(help="series fetched at once", min=1, max=16)] = 2,
    timeout: Annotated[float, typer.Option(help="seconds of silence until the PACS counts as gone", min=1)] = 60.0,
    as_json: Json = False,
) -> None:
    """Fetch studies from a PACS over DICOMweb and take them in; run again, it continues and fetches what is new."""
    from phenotype.ingest.pacs.dicomweb import Access
    from phenotype.ingest.pacs.pulling import pull as fetch
    from phenotype.ingest.pacs.pulling import search
    from phenotype.ingest.pacs.query import Query

    settings: Settings = context.obj
    token, password = _secrets(token_file, user)
    access = Access(url, token, user, password, ca_file, insecure, timeout)
    queries = []
    if not retry:
        fixed = {"study_date": study_date, "modality": modality, "study_uid": study_uid}
        queries = [
            Query(patient=person, accession=number, **fixed)
            for person in _numbers(patients, patient)
            for number in _numbers(accessions, accession)
        ]
    elif study_date or modality or patient or patients or accession or accessions or study_uid:
        raise Refused("query", "--retry fetches what was asked for before; leave the query away")
    if dry_run:
        _tell_search(search(access, queries), as_json)
        return
    database = open_database(settings.database)
    home = settings.home_of(database)
    with show.progress("pull", quiet=settings.quiet) as progress:
        pulled = fetch(database, home, access, queries, workers=downloads, progress=progress)
    rows = [["received", "", pulled.before + pulled.received], ["wanted", "", pulled.waiting]]
    rows += [["failed", reason, count] for reason, count in sorted(pulled.failed.items())]
    show.answer(["state", "reason", "series"], [row for row in rows if row[2]], as_json=as_json, as_csv=False)
    show.messages.print(
        f"pull: {pulled.received} series received ({pulled.instances} instances, {pulled.size / 1e6:.1f} MB), "
        f"{pulled.before} were before, {pulled.failed.total()} failed, {pulled.waiting} not asked for",
        markup=False,
    )
    run_steps(settings, [Step(make_stage("ingest", {}), (str(pulled.folder),)), Step(make_stage("assemble", {}))])
    if pulled.failed or pulled.waiting:
        show.messages.print("the same command, or --retry, asks again for what is missing", markup=False)
        raise typer.Exit(FINISHED_WITH_FAILURES)


def _secrets(token_file: Path | None, user: str) -> tuple[str, str]:
    """Token and password: from a file, the environment or the terminal, never from the command line."""
    if user:
        return "", os.environ.get(PASSWORD) or typer.prompt("password", hide_input=True, err=True)
    if token_file is None:
        return os.environ.get(TOKEN, ""), ""
    if token_file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        show.messages.print("others can read the token file; `chmod 600` keeps it to you", markup=False)
    return token_file.read_text("utf-8").strip(), ""


def _numbers(file: Path | None, number: str) -> list[str]:
    """Those in a file, one a line, or the one that was given."""
    if file is None:
        return [number]
    if number:
        raise Refused("query", "give a number or a file of them, not both")
    numbers = list(filter(None, map(str.strip, file.read_text("utf-8").splitlines())))
    if not numbers:
        raise Refused("query", "there is no number in the file")
    return numbers


def _tell_search(found: Any, as_json: bool) -> None:
    series: dict[str, int] = {}
    instances: dict[str, int] = {}
    studies = set()
    for one in found:
        # printed to a terminal, and a PACS may say anything
        modality = one.modality if re.fullmatch(r"[A-Z0-9 _]{1,16}", one.modality) else ""
        series[modality] = series.get(modality, 0) + 1
        instances[modality] = instances.get(modality, 0) + (one.count or 0)
        studies.add(one.study_uid)
    rows = [[modality, series[modality], instances[modality]] for modality in sorted(series)]
    show.answer(["modality", "series", "instances"], rows, as_json=as_json, as_csv=False)
    show.messages.print(f"{len(studies)} studies; nothing was fetched", markup=False)


def receive(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="to listen on", min=1, max=65535)] = 11112,
    aet: Annotated[str, typer.Option(help="the AE title that the PACS sends to")] = "PHENOTYPE",
    bind: Annotated[str, typer.Option(help="the address to listen on; 0.0.0.0 is every one")] = "127.0.0.1",
    allow: Annotated[list[str] | None, typer.Option(help="a calling AE title that may send; several times")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="AET=HOST:PORT, where to report storage commitments to; several times")
    ] = None,
    idle_ingest: Annotated[float, typer.Option(help="seconds without objects until they are taken in", min=0)] = 30.0,
    timeout: Annotated[float, typer.Option(help="seconds of silence until a sender counts as gone", min=1)] = 60.0,
) -> None:
    """Wait for a PACS that pushes objects by C-STORE, and take them in whenever it pauses. Stopped by Ctrl-C."""
    from phenotype.ingest.pacs.received import open_inbox
    from phenotype.ingest.pacs.receiver import Service, receiving

    settings: Settings = context.obj
    service = Service(port, aet, bind, tuple(allow or ()), timeout=timeout, peers=_peers(peer or []))
    database = open_database(settings.database)
    home = settings.home_of(database)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if bind not in ("127.0.0.1", "::1", "localhost") and not allow:
        show.messages.print("receive: whoever reaches this port can send; --allow names who may", markup=False)
    with open_inbox(database, home, "receiver", aet, "") as inbox:
        with receiving(database, inbox, service) as receiver:
            show.messages.print(f"receive: {aet} listens on {bind}:{port}; Ctrl-C stops it", markup=False)
            while not stop.wait(min(0.5, max(idle_ingest, 0.05))):
                if receiver.idle_seconds() >= idle_ingest and receiver.waiting():
                    _take_in(settings, database, home, inbox.export_id)
        show.messages.print(f"receive: {receiver.stored} objects received, {receiver.refused} refused", markup=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        _take_in(settings, database, home, inbox.export_id, last=True)
        finish(database, failed=0, took_in=True)


def _take_in(settings: Settings, database: Database, home: Path, export_id: str, *, last: bool = False) -> None:
    """Read what was received. That another process is at work, or has written down files that it did not read yet, is
    no error while objects still come: the next pause does it."""
    for name, exports in (("ingest", (export_id,)), ("assemble", ())):
        try:
            with show.progress(name, quiet=settings.quiet) as progress:
                step = Step(make_stage(name, {}), exports=exports)
                summary = run_step(step, database, home, executor=settings.executor, progress=progress)
        except Refused as error:
            if last or error.code not in ("busy", "ledger"):
                raise
            continue
        if summary.done or summary.failed:
            show.messages.print(sentence(name, summary), markup=False)


def _peers(told: list[str]) -> dict[str, tuple[str, int]]:
    peers = {}
    for one in told:
        match = re.fullmatch(r"([^=]{1,16})=(.+):(\d{1,5})", one)
        if match is None:
            raise Refused("peer", "write --peer as in ARCHIVE=pacs.example.org:104")
        peers[match[1].strip()] = (match[2], int(match[3]))
    return peers


COMMANDS: dict[str, Callable[..., None]] = {"pull": pull, "receive": receive}
