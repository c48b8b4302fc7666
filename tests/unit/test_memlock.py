"""The caller's limit on locked memory is raised only where, and for as long as, the kernel charges to it."""

from __future__ import annotations

import errno
import resource
from types import SimpleNamespace
from typing import Any, Final

import pytest

from tracer.probes import program
from tracer.probes.program import MapSpec, create_maps

INFINITE: Final = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
MAPS: Final = {"rows": MapSpec(2, 4, 64, 1, 0, "unsigned int", "unsigned long long")}


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits that have been set, the last one is that of now."""
    found = [(65536, 65536)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: found[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: found.append(limit))
    return found


def kernel(
    monkeypatch: pytest.MonkeyPatch, limits: list[tuple[int, int]], charges: bool, found: int = -errno.EPERM
) -> None:
    def create(*_: Any) -> int:
        return 1000 if not charges or limits[-1] == INFINITE else -errno.EPERM

    monkeypatch.setattr(program, "libbpf", lambda: SimpleNamespace(bpf_map_create=create))


def test_a_kernel_that_charges_nothing_finds_the_limit_as_it_was(
    monkeypatch: pytest.MonkeyPatch, limits: list[tuple[int, int]]
) -> None:
    kernel(monkeypatch, limits, charges=False)
    assert create_maps(MAPS) == {"rows": 1000}
    assert limits == [(65536, 65536)]


def test_a_kernel_that_charges_finds_it_raised_meanwhile(
    monkeypatch: pytest.MonkeyPatch, limits: list[tuple[int, int]]
) -> None:
    kernel(monkeypatch, limits, charges=True)
    assert create_maps(MAPS) == {"rows": 1000}
    assert limits == [(65536, 65536), INFINITE, (65536, 65536)]


def test_what_is_refused_all_the_same_leaves_it_as_it_was(
    monkeypatch: pytest.MonkeyPatch, limits: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(program, "libbpf", lambda: SimpleNamespace(bpf_map_create=lambda *_: -errno.EPERM))
    with pytest.raises(PermissionError):
        create_maps(MAPS)
    assert limits[-1] == (65536, 65536)


def test_what_the_library_raises_is_put_back(monkeypatch: pytest.MonkeyPatch, limits: list[tuple[int, int]]) -> None:
    def create(*_: Any) -> int:
        limits.append(INFINITE)
        return 1000

    monkeypatch.setattr(program, "libbpf", lambda: SimpleNamespace(bpf_map_create=create))
    assert create_maps(MAPS) == {"rows": 1000}
    assert limits[-1] == (65536, 65536)
