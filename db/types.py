"""Column types: arrays, and times that are always UTC."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import DateTime, Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator


class Array(TypeDecorator[NDArray[Any]]):
    """A numpy array of any shape, stored as the bytes of an .npy file (which never needs pickle to be read)."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: NDArray[Any] | None, dialect: Dialect) -> bytes | None:
        """Array to bytes, the same for equal arrays however they lie in memory. Objects are a ValueError."""
        if value is None:
            return None
        stream = io.BytesIO()
        np.save(stream, np.asarray(value, order="C"), allow_pickle=False)
        return stream.getvalue()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> NDArray[Any] | None:
        """Bytes to array."""
        if value is None:
            return None
        array: NDArray[Any] = np.load(io.BytesIO(value), allow_pickle=False)
        return array


class UtcTime(TypeDecorator[datetime]):
    """A moment. Naive times are refused when written and never come back: SQLite would drop the zone silently."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Any aware time to UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored; use datetime.now(UTC)")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC, with its zone."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
