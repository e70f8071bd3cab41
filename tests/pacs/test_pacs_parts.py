"""The parts of talking to a PACS that need none: queries, addresses and secrets, multipart bodies, files."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenotype.imaging.files import Unreadable
from phenotype.ingest.pacs.dicomweb import Access, Pacs, PacsError
from phenotype.ingest.pacs.multipart import BadBody, boundary_of, parts
from phenotype.ingest.pacs.query import Query
from phenotype.ingest.pacs.received import Arriving, NotStored, identity
from phenotype.stage import Refused


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"modality": "CT"},  # the whole archive
        {"accession": "A*"},
        {"accession": "A?1"},
        {"accession": "A1\\A2"},
        {"accession": "A" * 17},
        {"accession": " A1"},
        {"patient": "*"},
        {"patient": "P\n1"},
        {"study_date": "2020"},
        {"study_date": "20200101-20200201-20200301"},
        {"study_uid": "1.2.3/../4"},
    ],
)
def test_queries_that_match_too_much_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"^query: "):
        Query(**wrong)


def test_answers_are_checked_against_the_query() -> None:
    answer = {"00080050": {"vr": "SH", "Value": ["A1"]}, "00080020": {"vr": "DA", "Value": ["20200115"]}}
    assert Query(accession="A1").wants_study(answer) and not Query(accession="A12").wants_study(answer)
    for days, wanted in {"20200115": 1, "20200116": 0, "20200101-20200131": 1, "20200116-": 0, "-20200115": 1}.items():
        assert Query(study_date=days).wants_study(answer) is bool(wanted), days
    assert not Query(study_date="20200115").wants_study({})  # what has no date is not of that day
    assert not Query(patient="P1").wants_study({"00100020": {"Value": [None]}})


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("pacs.example.org/dicom-web", "url"),
        ("ftp://pacs.example.org", "url"),
        ("https://me:secret@pacs.example.org", "url"),
        ("https://pacs.example.org/?token=secret", "url"),
        ("http://pacs.example.org/dicom-web", "plain_http"),
    ],
)
def test_secrets_are_neither_in_the_address_nor_sent_in_the_open(url: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        Access(url, token="secret")
    assert refused.value.code == code and "secret" not in str(refused.value).replace("secrets", "").replace(
        "a secret", ""
    )


def test_secrets_are_not_shown() -> None:
    access = Access("https://PACS.example.org/dicom-web/", token="hush", user="me", password="hush")
    assert "hush" not in repr(access) and access.name == "https://pacs.example.org/dicom-web"
    assert Access("http://127.0.0.1:8042/dicom-web", token="hush").token  # to oneself it may go in the open


def _body(contents: list[bytes], preamble: bytes = b"") -> bytes:
    whole = preamble
    for content in contents:
        whole += b"\r\n--mark\r\nContent-Type: application/dicom\r\n\r\n" + content
    return whole + b"\r\n--mark--\r\n"


def _split(body: bytes, size: int) -> list[bytes]:
    found, current = [], b""
    for piece in parts((body[i : i + size] for i in range(0, len(body), size)), b"mark"):
        if piece is None:
            found.append(current)
            current = b""
        else:
            current += piece
    return found


_CONTENT = st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"\r\n--mar", b"\r\n\r\n", b"--mark", b"\r\n"])))


@settings(max_examples=300, deadline=None)
@given(
    _CONTENT.map(lambda many: [c for c in many if b"\r\n--mark" not in b"\r\n" + c]), st.integers(1, 70), st.booleans()
)
def test_bodies_are_split_wherever_their_pieces_end(contents: list[bytes], size: int, early: bool) -> None:
    body = _body(contents)
    assert _split(body[2:] if early else body, size) == contents


@given(st.lists(st.binary(max_size=40).filter(lambda c: b"--mark" not in c), min_size=1, max_size=3), st.data())
def test_a_body_that_is_cut_anywhere_says_so(contents: list[bytes], data: st.DataObject) -> None:
    body = _body(contents)
    end = data.draw(st.integers(0, len(body) - 5))  # the line end behind the closing boundary may be missing
    with pytest.raises(BadBody) as bad:
        _split(body[:end], 16)
    assert bad.value.reason == "truncated"


def test_boundaries() -> None:
    assert boundary_of('multipart/related; type="application/dicom"; boundary=a-b') == b"a-b"
    assert boundary_of('Multipart/Related; boundary="a b"; type=x') == b"a b"
    for wrong in ("", "text/html", "multipart/related", "application/json; boundary=x"):
        with pytest.raises(BadBody, match="not_multipart"):
            boundary_of(wrong)


def test_memory_does_not_grow_with_a_part() -> None:
    import tracemalloc

    def endless() -> object:
        yield b"--mark\r\n\r\n"
        for _ in range(1000):
            yield bytes(1 << 16)  # 64 MB in all
        yield b"\r\n--mark--"

    tracemalloc.start()
    assert sum(len(piece) for piece in parts(endless(), b"mark") if piece) == 1000 << 16
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_a_file_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    arriving = Arriving(tmp_path / "a")
    arriving.write(b"one")
    arriving.write(b"two")
    assert not (tmp_path / "final").exists() and arriving.keep(tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == b"onetwo"
    assert arriving.digest == hashlib.sha256(b"onetwo").hexdigest()
    again = Arriving(tmp_path / "b")
    again.write(b"onetwo")
    assert not again.keep(tmp_path / "final")  # the same bytes
    assert sorted(os.listdir(tmp_path)) == ["final"]  # noqa: PTH208


def test_what_the_disk_holds_is_compared_with_what_came(tmp_path: Path) -> None:
    arriving = Arriving(tmp_path / "a")
    arriving.write(b"what came")
    with (tmp_path / "a").open("r+b") as file:
        file.write(b"W")
    with pytest.raises(NotStored) as stored:
        arriving.keep(tmp_path / "final")
    assert stored.value.reason == "read_back" and not any(tmp_path.iterdir())


def test_too_much_is_not_written(tmp_path: Path) -> None:
    arriving = Arriving(tmp_path / "a", limit=10)
    arriving.write(b"x" * 10)
    assert arriving.reason == ""
    arriving.write(b"x" * 1000)
    assert arriving.reason == "too_large" and (tmp_path / "a").stat().st_size == 10
    with pytest.raises(NotStored, match="too_large"):
        arriving.keep(tmp_path / "final")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 300])
def test_what_is_no_object_has_no_identity(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(Unreadable, match="not_dicom"):
        identity(tmp_path / "x")


@contextmanager
def _server(answer: int, headers: dict[str, str]) -> Iterator[tuple[int, list[str | None]]]:
    """A server that notes what Authorization it is sent."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(answer)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        server.server_close()


def test_a_token_goes_to_the_pacs_and_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        _server(200, {}) as (elsewhere, strangers),
        _server(302, {"Location": f"http://127.0.0.1:{elsewhere}/studies"}) as (port, seen),
    ):
        pacs = Pacs(Access(f"http://127.0.0.1:{port}", token="hush", timeout=5))
        with pytest.raises(PacsError, match="redirect"):
            list(pacs.search(Query(accession="A1")))
        assert seen == ["Bearer hush"] and strangers == []
        pacs.close()
    with _server(401, {}) as (port, seen):
        pacs = Pacs(Access(f"http://127.0.0.1:{port}", timeout=5))
        with pytest.raises(PacsError, match="http_401"):
            list(pacs.search(Query(accession="A1")))
        assert seen == [None]  # nor what lies about in the home folder
        pacs.close()
    pacs = Pacs(Access("http://127.0.0.1:9", timeout=5))
    with pytest.raises(PacsError, match="unreachable"):
        list(pacs.search(Query(accession="A1")))
