"""Ids of predictions: UUIDs of version 7, which sort by the time at which they were made (RFC 9562).

    48 bits of milliseconds since 1970 | version 7 | 12 bits of the fraction of that millisecond | variant | 62 random bits

They keep no state, so threads and forked processes never make the same one.
"""

import os
import time
import uuid

LONGEST_ID = 200  # characters of an id that a client chooses


def new_id(now: float | None = None) -> str:
    """A new id as text of 36 characters. now: seconds since 1970, the clock's by default.

    >>> new_id(1.0) < new_id(1.001) < new_id()
    True
    >>> new_id(1790000000.0)[:15]
    '01a0c450-6c00-7'
    """
    moment = time.time_ns() if now is None else round(now * 1e9)
    milliseconds, rest = divmod(moment, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    chance = int.from_bytes(os.urandom(8)) >> 2
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | chance))
