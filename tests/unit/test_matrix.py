"""The support matrix is made of the results that lie beside the tests."""

from __future__ import annotations

from typing import Any

from tests.filesystems.counts import AGAIN, FIRST
from tests.filesystems.matrix import DOCUMENT, load, render


def row(**changes: Any) -> dict[str, Any]:
    seen = {"handler": "h", "state": "seen", "why": "", "exact": {"fentry": True, "kprobe": True}, "full": None}
    run = {"release": "6.1.0-56-amd64", "date": "2026-11-27"}
    return {**run, **seen, "late": "", "errno": "", "errno_from": "", "calls": {}, **changes}


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == render(load(), FIRST, AGAIN)


def test_cells_causes_and_kernels() -> None:
    text = render(
        {
            "6.1": {
                "a": row(full="SIGBUS at the fault", errno="ENOSPC", errno_from="f"),
                "b": row(state="absent", why="not built"),
            },
            "6.12": {
                "a": row(handler="h2", exact={"fentry": False, "kprobe": True}, full="accepted", late="EIO"),
                "d": row(full="SIGBUS at the fault", errno="ENOSPC"),
                "c": row(state="mmap refused", handler="", why="read-only", release="6.12.9", date="2026-11-28"),
            },
        },
        3,
        5,
    )
    assert "- 6.1: 6.1.0-56-amd64 on 2026-11-27\n" in text
    assert "- 6.12: 6.1.0-56-amd64 on 2026-11-27; 6.12.9 on 2026-11-28\n" in text
    assert "| filesystem | handler | 6.1 | 6.12 |" in text
    assert "| a | `h` (6.1); `h2` (6.12) | fentry, kprobe | kprobe |" in text
    assert "| b | `h` | absent | not run |" in text
    assert "| c | none | not run | mmap refused |" in text
    assert "| a | SIGBUS at the fault (6.1); accepted (EIO) (6.12) | ENOSPC (6.1); - (6.12) |" in text
    assert "| d | SIGBUS at the fault | ENOSPC, inferred |" in text
    assert "- **b** (6.1): not built" in text and "- **c** (6.12): read-only" in text
    assert text.endswith(".\n")
