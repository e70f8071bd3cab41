"""Surrogates: what stands for people, examinations and files outside the vault.

All come from a keyed function. A plain hash would not do: all record numbers of eight digits are tried in minutes.
"""

from __future__ import annotations

import hmac
from datetime import date, timedelta

MAX_SHIFT = 3650  # days


def surrogate(key: bytes, kind: str, *parts: str) -> str:
    """16 hexadecimal digits of HMAC-SHA256 over `kind` and `parts`; no two different lists of parts read the same."""
    return _digest(key, kind, *parts).hex()[:16]


def content_hash(key: bytes, digest: str) -> str:
    """32 hexadecimal digits from the SHA-256 of a file: equal for equal bytes, useless without the key."""
    return _digest(key, "content", digest).hex()[:32]


def shifted(key: bytes, patient_id: str, day: date | None) -> date | None:
    """`day` moved back by 1 to 3650 whole days, the same number for all days of a patient."""
    if day is None:
        return None
    days = 1 + int.from_bytes(_digest(key, "shift", patient_id)[:8], "big") % MAX_SHIFT
    return day - timedelta(days=min(days, (day - date.min).days))


def fold(key: bytes, patient_id: str) -> int:
    """The tenth (0 to 9) that a patient belongs to, fixed before anything is learned."""
    return int.from_bytes(_digest(key, "fold", patient_id)[:8], "big") % 10


def _digest(key: bytes, *parts: str) -> bytes:
    # lengths before the parts: ("ab", "c") and ("a", "bc") must differ
    texts = [part.encode("utf-8", "surrogatepass") for part in parts]
    message = b"".join([piece for text in texts for piece in (len(text).to_bytes(4, "big"), text)])
    return hmac.digest(key, message, "sha256")  # in one call: a file of a delivery costs little more than this
