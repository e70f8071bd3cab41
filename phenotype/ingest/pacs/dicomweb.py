"""Talk to a PACS over DICOMweb (PS3.18): search with QIDO-RS, retrieve with WADO-RS as a stream."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import ReadTimeoutError
from urllib3.util import Retry

from phenotype.ingest.pacs.multipart import BadBody, boundary_of, parts
from phenotype.ingest.pacs.query import Query, count_of, is_uid, value_of
from phenotype.stage import Refused

for _name in ("dicomweb_client", "urllib3"):  # their messages quote addresses, and so UIDs
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

PAGE = 500  # answers asked for at once
PIECE = 1 << 16  # bytes
MOST = 64 << 20  # bytes of an answer to a search, inflated; an instance takes about 2 kB
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'  # as it lies there, not converted


class PacsError(Exception):
    """The PACS did not do what it was asked. `reason` is a code: http_<status>, unreachable, timeout, tls, redirect,
    truncated, too_large, not_multipart, bad_answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SeriesFound:
    """A series as the PACS lists it; `count` is its own count of instances, if it tells."""

    study_uid: str
    series_uid: str
    modality: str
    count: int | None


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a PACS. `token` or `user` and `password` are sent with every request, and to nobody else.

    Raises Refused where a secret stands in the address, or would be sent where others can read it.
    """

    url: str
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    insecure: bool = False  # certificates are not checked, secrets may go over plain HTTP
    timeout: float = 60.0  # seconds of silence

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise Refused("url", "the address of a PACS begins with https:// or http://")
        if address.username or address.password or address.query or address.fragment:
            raise Refused("url", "the address holds more than host and path: secrets go into --token-file or --user")
        secret = bool(self.token or self.password)
        if secret and address.scheme == "http" and not (self.insecure or _is_local(address.hostname)):
            raise Refused("plain_http", "a secret is not sent over plain HTTP; use https://, or --insecure")

    @property
    def name(self) -> str:
        """The address in one form."""
        address = urlsplit(self.url)
        return f"{address.scheme}://{address.netloc.lower()}{address.path.rstrip('/')}"


class _Secret(AuthBase):
    """The token, or nothing: without an `auth` requests would look into ~/.netrc."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class _Session(requests.Session):
    """Follows a redirect only where it stays at the same scheme, host and port, and holds no more than `MOST`."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        whole = not options.get("stream")
        response = super().send(request, **(options | {"stream": True}))
        if whole:
            body = bytearray()
            for piece in response.iter_content(PIECE):
                body += piece
                if len(body) > MOST:
                    response.close()
                    raise PacsError("too_large")
            response._content, response._content_consumed = bytes(body), True
        return response

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None:
            here, there = urlsplit(resp.url), urlsplit(target)
            if there.netloc and (here.scheme, here.netloc.lower()) != (there.scheme, there.netloc.lower()):
                raise PacsError("redirect")
            resp._content, resp._content_consumed = b"", True  # nobody looks into it
        return target


class Pacs:
    """A connection to a PACS, for one thread. Every method raises `PacsError`, and nothing else, where it fails."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session = session = _Session()
        session.auth = HTTPBasicAuth(access.user, access.password) if access.user else _Secret(access.token)
        session.verify = False if access.insecure else str(access.ca_file) if access.ca_file else True
        session.max_redirects = 5
        busy = (429, 502, 503, 504)
        again = Retry(
            total=2,
            read=1,
            backoff_factor=0.5,
            status_forcelist=busy,
            redirect=False,
            raise_on_status=False,
            respect_retry_after_header=False,  # it may name a day
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=again))
        self._client = DICOMwebClient(access.name, session, permissive_uid=True, timeout=access.timeout)
        self._client.set_http_retry_params(retry=False)  # the session does it

    def search(self, query: Query) -> Iterator[SeriesFound]:
        """The series that are wanted, study by study: not every server can search for series across studies."""
        fields = ["NumberOfStudyRelatedSeries"]
        for study in self._pages(
            "0020000D",
            None,
            lambda **page: self._client.search_for_studies(search_filters=query.filters, fields=fields, **page),
        ):
            if query.wants_study(study):
                yield from self._series(query, value_of(study, "0020000D"), count_of(study, "00201206"))

    def _series(self, query: Query, study_uid: str, count: int | None) -> Iterator[SeriesFound]:
        fields = ["NumberOfSeriesRelatedInstances", "Modality"]
        for series in self._pages(
            "0020000E", count, lambda **page: self._client.search_for_series(study_uid, fields=fields, **page)
        ):
            if query.wants_series(series):
                found = count_of(series, "00201209")
                yield SeriesFound(study_uid, value_of(series, "0020000E"), value_of(series, "00080060"), found)

    def instances(self, series: SeriesFound) -> list[str]:
        """The SOP Instance UIDs of a series, as the PACS lists them now."""
        listed = self._pages(
            "00080018",
            series.count,
            lambda **page: self._client.search_for_instances(series.study_uid, series.series_uid, **page),
        )
        return [value_of(instance, "00080018") for instance in listed]

    def retrieve(self, series: SeriesFound, sop_uid: str = "") -> Iterator[bytes | None]:
        """The objects of a series, or one of them, piece by piece; None ends an object."""
        url = f"{self.access.name}/studies/{series.study_uid}/series/{series.series_uid}"
        url += f"/instances/{sop_uid}" if sop_uid else ""
        headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
        with (
            _reasons(),
            self._session.get(url, headers=headers, stream=True, timeout=self.access.timeout) as response,
        ):
            response.raise_for_status()
            kind = response.headers.get("Content-Type", "")
            pieces = response.iter_content(PIECE)
            if kind.strip().lower().startswith("application/dicom") and "json" not in kind:
                yield from pieces  # one object, bare: against the standard, but seen
                yield None
            else:
                yield from parts(pieces, boundary_of(kind))

    def close(self) -> None:
        """Give the connection back."""
        self._session.close()

    def _pages(
        self, tag: str, enough: int | None, ask: Callable[..., list[dict[str, Any]]]
    ) -> Iterator[dict[str, Any]]:
        """All answers, told apart by the UID at `tag`: asked for page by page until a page brings nothing new.

        A short page is not the last one: servers cap pages below what was asked for; others know no pages at all and
        give the same answers again.
        """
        seen: set[str] = set()
        offset = 0
        while True:
            with _reasons():
                page = ask(limit=PAGE, offset=offset)
            if not isinstance(page, list) or not all(isinstance(answer, dict) for answer in page):
                raise PacsError("bad_answer")
            fresh = {uid: answer for answer in page if is_uid(uid := value_of(answer, tag)) and uid not in seen}
            if len({value_of(answer, tag) for answer in page} - seen - fresh.keys()):
                raise PacsError("bad_answer")  # an answer without a UID: what it means cannot be fetched
            yield from fresh.values()
            seen |= fresh.keys()
            offset += len(page)
            if not fresh or len(seen) == enough:
                return


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever can go wrong on the way into a `PacsError`. Messages of the libraries quote addresses."""
    try:
        yield
    except requests.HTTPError as error:
        raise PacsError(f"http_{error.response.status_code}" if error.response is not None else "bad_answer") from None
    except (requests.Timeout, ReadTimeoutError):
        raise PacsError("timeout") from None
    except requests.exceptions.SSLError:
        raise PacsError("tls") from None
    except requests.TooManyRedirects:
        raise PacsError("redirect") from None
    except requests.exceptions.ChunkedEncodingError:
        raise PacsError("truncated") from None
    except requests.ConnectionError as error:
        # silence in the middle of a body, or after a repeated request, comes wrapped up as this
        cause = error.args[0] if error.args else None
        silent = isinstance(getattr(cause, "reason", cause), ReadTimeoutError)
        raise PacsError("timeout" if silent else "unreachable") from None
    except BadBody as error:
        raise PacsError(error.reason) from None
    except (requests.RequestException, TransportError, OSError, ValueError, TypeError, AttributeError, KeyError):
        raise PacsError("bad_answer") from None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
