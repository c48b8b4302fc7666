"""Freezes: from the kernel's bytes to what is said of who froze and who thawed."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

from tracer.decode.freezes import decode
from tracer.export.json.records import freeze_dict
from tracer.model.calls import Filesystem
from tracer.model.failures import Actor
from tracer.model.freezes import Freeze, by_device
from tracer.ui.labels import time_of_day
from tracer.ui.stuck import freeze_text

CLOCK: Any = SimpleNamespace(at=lambda ns: ns + 1_000)
BEGAN = Freeze(8_000_001_000, Actor(77, 78, "fsfreeze"))
THAWED = Freeze(8_000_001_000, Actor(77, 78, "fsfreeze"), 9_500_001_000, Actor(79, 79, "dm\x1bsetup"))
UNSEEN = Freeze(0, None, 9_500_001_000, Actor(79, 79, "dm\x1bsetup"))


def entry(since: int, by: int, thawed: int, thawed_by: int) -> bytes:
    return struct.pack("<4Q16s16s", since, by, thawed, thawed_by, b"fsfreeze\0garbage", b"dm\x1bsetup\0")


def test_who_froze_and_who_thawed_come_from_the_map() -> None:
    begun = (8_000_000_000, 77 << 32 | 78)
    entries = [
        (struct.pack("<II", 7, 0), entry(*begun, 0, 0)),
        (struct.pack("<II", 7, 1), entry(*begun, 9_500_000_000, 79 << 32 | 79)),
        (struct.pack("<II", 8, 0), entry(0, 0, 9_500_000_000, 79 << 32 | 79)),
    ]
    found = decode(entries, CLOCK)
    assert found == {Filesystem(7, 0): BEGAN, Filesystem(7, 1): THAWED, Filesystem(8, 0): UNSEEN}
    assert by_device(found) == {7: THAWED, 8: UNSEEN}
    assert [one.lasts for one in found.values()] == [True, False, False]


def test_what_nobody_saw_is_said_to_be_so() -> None:
    at = time_of_day(BEGAN.began_ns)
    assert freeze_text(BEGAN) == f"frozen by fsfreeze[77] at {at}"
    assert freeze_text(THAWED) == f"frozen by fsfreeze[77] at {at}, thawed by dm\\x1bsetup[79] 1.50s later"
    assert freeze_text(UNSEEN) == freeze_text(None) == "frozen before there were hooks to see by whom"
    assert freeze_dict(None) is None
    assert freeze_dict(UNSEEN) == {
        "began_ns": None,
        "by": None,
        "thawed_ns": 9_500_001_000,
        "thawed_by": {"pid": 79, "tid": 79, "comm": "dm\x1bsetup"},
    }
