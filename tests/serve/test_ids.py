"""Ids: well-formed, sorted by time, and never the same."""

import os
import uuid

from everlearn.serve.ids import LONGEST_ID, new_id

from . import lives


def test_an_id_is_a_uuid_of_version_7_that_carries_its_time():
    made = uuid.UUID(new_id(1790000000.1234))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1790000000123
    assert abs((made.int >> 64 & 0xFFF) / 4096 - 0.4) < 0.001  # the fraction of the millisecond
    assert len(str(made)) == 36 <= LONGEST_ID


def test_ids_sort_by_time_down_to_a_microsecond():
    times = [1790000000.0 + step * 1e-6 for step in range(2000)]
    made = [new_id(at) for at in times]
    assert sorted(made) == made


def test_ids_of_one_instant_differ():
    assert len({new_id(1.0) for _ in range(10_000)}) == 10_000


def test_forked_processes_make_different_ids():
    made = set()
    for _ in range(3):
        reader, writer = os.pipe()
        child = lives.forked(lambda writer=writer: os.write(writer, new_id(1.0).encode()))
        os.waitpid(child, 0)
        os.close(writer)
        made.add(os.read(reader, 100).decode())
        os.close(reader)
    assert len(made) == 3
