"""Peers that mean harm: to the memory, the disk, the service, the terminal. Where cheap, with the guard taken away."""

import gzip
import socket
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pacs_world as world
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom import AE, dsutils
from pynetdicom.sop_class import Verification
from typer.testing import CliRunner

from phenotype.cli import app
from phenotype.imaging import encoding
from phenotype.imaging.files import Unreadable
from phenotype.ingest.pacs import dicomweb, pulling, received
from phenotype.ingest.pacs import receiver as room
from phenotype.ingest.pacs.commitment import commit_later, report_of
from phenotype.ingest.pacs.dicomweb import Access, Pacs, PacsError, SeriesFound
from phenotype.ingest.pacs.query import Query, is_uid
from phenotype.ingest.pacs.received import Arriving, NotStored, identity, open_inbox
from phenotype.ingest.pacs.receiver import Receiver, Service, receiving

MB = 1 << 20
BAD_UID = "1.2.Planted^Name"


def _free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


@contextmanager
def _serving(tmp: Path, **more: Any) -> Iterator[tuple[int, Receiver]]:
    database, home = world.fresh(tmp)
    port = _free_port()
    with (
        open_inbox(database, home, "receiver", "PHENOTYPE", "") as inbox,
        receiving(database, inbox, Service(port, **more)) as receiver,
    ):
        yield port, receiver


def _associate(port: int) -> Any:
    entity = AE("SENDER")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    entity.add_requested_context(Verification)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    return entity.associate("127.0.0.1", port)


def _pour(line: socket.socket, data: bytes, most: int) -> int:
    """Send the same again and again: how much the other side took before it hung up, or `most`."""
    sent = 0
    line.settimeout(5)
    with suppress(OSError):
        while sent < most:
            sent += line.send(data)
    return sent


def _nothing(*_: Any) -> None:
    pass


def _pdv(context: int, control: int, data: bytes) -> bytes:
    return struct.pack(">BBLLBB", 4, 0, len(data) + 6, len(data) + 2, context, control) + data


def _echo(data_set: bool) -> bytes:
    command = Dataset()
    command.AffectedSOPClassUID, command.CommandField, command.MessageID = Verification, 0x0030, 1
    command.CommandDataSetType = 1 if data_set else 0x0101
    encoded = dsutils.encode(command, True, True)
    assert encoded
    return encoded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_pdu_of_four_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    if not guarded:
        monkeypatch.setattr(Receiver, "on_open", _nothing)
    with _serving(tmp_path) as (port, _), socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MB)
        line.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFF0))
        taken = _pour(line, bytes(MB), 32 * MB)
        assert (taken < 16 * MB) is guarded, taken


@pytest.mark.parametrize("guarded", [True, False])
def test_half_a_request_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    if not guarded:
        monkeypatch.setattr(Receiver, "on_open", _nothing)
    with _serving(tmp_path, associations=3, timeout=60) as (port, _):
        before = _associate(port)
        silent = []
        for _ in range(9):
            silent.append(socket.create_connection(("127.0.0.1", port)))
            silent[-1].sendall(struct.pack(">BBL", 1, 0, 500) + bytes(100))
        honest = _associate(port)
        assert honest.is_established is guarded
        assert before.send_c_echo().Status == 0  # who was there is not sent away
        for line in silent:
            line.close()
        for one in (honest, before):
            if one.is_established:
                one.release()


def test_who_hangs_up_or_talks_nonsense_takes_no_place(tmp_path: Path) -> None:
    with _serving(tmp_path, associations=2, timeout=60) as (port, receiver):
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\1\0\0\0\0\4abcd") * 4:
            with socket.create_connection(("127.0.0.1", port)) as line:
                line.sendall(said)

        def served() -> bool:
            association = _associate(port)
            found = bool(association.is_established)
            if found:
                association.release()
            return found

        assert any(served() for _ in range(20)) and not receiver.stored


@pytest.mark.parametrize("guarded", [True, False])
def test_only_objects_to_store_may_be_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    monkeypatch.setattr(room, "MOST_HELD", MB)
    if not guarded:
        monkeypatch.setattr(Receiver, "on_data", _nothing)
    with _serving(tmp_path) as (port, receiver):
        association = _associate(port)
        context = next(c.context_id for c in association.accepted_contexts if c.abstract_syntax == Verification)
        line = association.dul.socket.socket
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MB)
        line.sendall(_pdv(context, 3, _echo(data_set=True)))
        taken = _pour(line, _pdv(context, 0, bytes(100_000)), 24 * MB)
        assert (taken < 16 * MB) is guarded, taken
        association.abort()
        world.write_ct(tmp_path / "large.dcm", 1, 1, 1, 1, size=1500)  # 4.5 MB
        association = _associate(port)
        assert association.send_c_store(tmp_path / "large.dcm").Status == 0 and receiver.stored == 1
        association.release()


@pytest.mark.parametrize("guarded", [True, False])
def test_requests_are_not_queued_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    if not guarded:
        monkeypatch.setattr(Receiver, "on_data", _nothing)
    with _serving(tmp_path) as (port, _):
        association = _associate(port)
        answered: list[int] = []
        receive = association.dimse.receive_primitive
        association.dimse.receive_primitive = lambda primitive: answered.append(1) or receive(primitive)
        context = next(c.context_id for c in association.accepted_contexts if c.abstract_syntax == Verification)
        with suppress(OSError):
            association.dul.socket.socket.sendall(300 * _pdv(context, 3, _echo(data_set=False)))
        association.dul.join(3)
        assert (len(answered) < 300) is guarded, len(answered)
        association.abort()


def test_a_disk_that_is_nearly_full_is_left_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write_ct(tmp_path / "one.dcm", 1, 1, 1, 1)
    left = [received.KEPT_FREE + 1]
    monkeypatch.setattr(received.shutil, "disk_usage", lambda _: SimpleNamespace(free=left[0]))
    with _serving(tmp_path) as (port, receiver):
        association = _associate(port)
        assert association.send_c_store(tmp_path / "one.dcm").Status == 0
        left[0] = received.KEPT_FREE - 1
        answer = association.send_c_store(tmp_path / "one.dcm")
        assert (answer.Status, answer.ErrorComment) == (room.OUT_OF_RESOURCES, "disk_full")
        association.release()
        assert not any(receiver.inbox.beside.iterdir())
    left[0] = received.KEPT_FREE + 1
    arriving = Arriving(tmp_path / "a")
    arriving.write(bytes(100))
    left[0] = 0
    for _ in range(8):  # seen in the middle of an object too
        arriving.write(bytes(MB))
    assert arriving.reason == "disk_full" and (tmp_path / "a").stat().st_size <= received.LOOK + MB
    with pytest.raises(NotStored, match="disk_full"):
        arriving.keep(tmp_path / "b")


@contextmanager
def _answers(first: int, headers: dict[str, str], body: bytes) -> Iterator[Pacs]:
    """A PACS that answers once so, and then that it found nothing."""
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(1)
            status, more, sent = (first, headers, body) if len(asked) == 1 else (200, {}, b"[]")
            self.send_response(status)
            for name, value in {"Content-Type": "application/dicom+json", **more}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    pacs = Pacs(Access(f"http://127.0.0.1:{server.server_port}", timeout=2))
    try:
        yield pacs
    finally:
        pacs.close()
        server.shutdown()
        server.server_close()


def test_an_answer_that_inflates_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    body = gzip.compress(b"[" + b" " * (48 * MB) + b"]", 1)
    for most, peak in ((MB, 24 * MB), (64 * MB, None)):
        monkeypatch.setattr(dicomweb, "MOST", most)
        with _answers(200, {"Content-Encoding": "gzip"}, body) as pacs:
            if peak is None:  # the control: as much as that is read where it may be
                assert list(pacs.search(Query(accession="A1"))) == []
                continue
            tracemalloc.start()
            with pytest.raises(PacsError, match="too_large"):
                list(pacs.search(Query(accession="A1")))
            assert tracemalloc.get_traced_memory()[1] < peak
            tracemalloc.stop()


def test_what_comes_with_a_redirect_is_not_read() -> None:
    with _answers(302, {"Location": "/elsewhere"}, bytes(32 * MB)) as pacs:
        tracemalloc.start()
        assert list(pacs.search(Query(accession="A1"))) == []
        assert tracemalloc.get_traced_memory()[1] < 8 * MB
        tracemalloc.stop()


def test_a_server_does_not_say_how_long_to_sleep() -> None:
    with _answers(503, {"Retry-After": "86400", "Content-Length": "0"}, b"") as pacs:
        assert list(pacs.search(Query(accession="A1"))) == []


@pytest.mark.parametrize("guarded", [True, False])
def test_what_a_peer_calls_a_uid_is_not_printed(monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    if not guarded:
        monkeypatch.setattr(encoding, "quiet", nullcontext)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        item, asked = Dataset(), Dataset()
        item.ReferencedSOPClassUID = item.ReferencedSOPInstanceUID = asked.TransactionUID = BAD_UID
        asked.ReferencedSOPSequence = [item]
        sent = dsutils.encode(asked, True, True)
    assert sent
    receiver: Any = SimpleNamespace(holds=lambda uid: False, service=SimpleNamespace(peers={}))
    assoc = SimpleNamespace(requestor=SimpleNamespace(ae_title="SENDER"))
    event: Any = SimpleNamespace(
        assoc=assoc, action_type=1, action_information=dsutils.decode(BytesIO(sent), True, True)
    )
    for work in (
        lambda: commit_later(event, AE(), receiver),
        lambda: dsutils.encode(report_of(receiver, BAD_UID, [(BAD_UID, BAD_UID)]), True, True),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            work()
        assert any("Planted" in str(one.message) for one in said) is not guarded


def test_what_is_no_uid_goes_into_no_address() -> None:
    assert not any(map(is_uid, ("", ".", "..", "...", "1.2/3", "1.2\n", "1" * 65, "\u0661.2")))
    assert is_uid("1.2.3") and is_uid("1.02") and is_uid("1" * 64)


def test_identity_takes_little_memory_whatever_a_header_announces(tmp_path: Path) -> None:
    world.write_ct(tmp_path / "ct.dcm", 1, 1, 1, 1)
    with (tmp_path / "huge").open("wb") as file:
        file.write(bytes(128) + b"DICM\2\0\0\0UL\4\0" + b"\xf0\xff\xff\x7f\2\0\1\0OB\0\0" + b"\xf0\xff\xff\x7f")
        file.truncate(2 << 30)
    whole = dcmread(tmp_path / "ct.dcm")
    whole.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = BytesIO()
    write_file_meta_info(head, whole.file_meta)
    del whole.PixelData
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = dsutils.encode(whole, False, True)
    assert content
    packed = machine.compress(content) + machine.compress(bytes(200 * MB)) + machine.flush()
    (tmp_path / "bomb").write_bytes(bytes(128) + b"DICM" + head.getvalue() + packed)
    tracemalloc.start()
    with pytest.raises(Unreadable, match="not_dicom"):
        identity(tmp_path / "huge")
    told = identity(tmp_path / "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MB
    assert told == identity(tmp_path / "ct.dcm") and told.series_uid and not told.by_meta


def test_numbers_come_from_files_and_modalities_are_printable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Query] = []

    def search(access: Access, queries: list[Query]) -> list[SeriesFound]:
        asked.extend(queries)
        return [SeriesFound("1.2", "1.3", "CT", 4), SeriesFound("1.2", "1.4", "\x1b]0;Planted", 3)]

    monkeypatch.setattr(pulling, "search", search)
    (tmp_path / "numbers").write_text("P1\n\n P2 \n")
    (tmp_path / "empty").write_text("\n")
    command = ["--db", f"sqlite:///{tmp_path}/x.db", "pull", "https://pacs.example.org", "--dry-run"]
    ran = CliRunner().invoke(app, [*command, "--patients", str(tmp_path / "numbers"), "--modality", "CT"])
    assert ran.exit_code == 0 and [query.patient for query in asked] == ["P1", "P2"]
    assert "CT" in ran.output and "\x1b" not in ran.output and "Planted" not in ran.output
    for wrong in (
        ["--patients", str(tmp_path / "empty")],
        ["--patients", str(tmp_path / "numbers"), "--patient", "P1"],
    ):
        assert CliRunner().invoke(app, command + wrong).exit_code != 0
    assert len(asked) == 2
