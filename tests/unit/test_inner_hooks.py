"""Hooking the functions that have the errno, with all rights, with fewer, and with too few."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import cast

import pytest

from tracer.errors import MkwriteError
from tracer.kernel.btf import Btf
from tracer.kernel.symbols import Symbol, Symbols
from tracer.model.hooks import Backend
from tracer.model.options import Filters, Options
from tracer.probes.failures import InnerHooks
from tracer.probes.tracer import HookPoint, Tracer

RESERVE = "ext4_da_reserve_space"
BLOCK = "ext4_get_block"


@dataclass
class FakeSymbols:
    """Two functions of ext4, or others."""

    address: int = 0xFFFFFFFFC0000010
    names: tuple[str, ...] = (RESERVE, BLOCK)

    def find(self, name: str) -> list[Symbol]:
        return [Symbol(name, self.address, "t", "ext4")] if name in self.names else []


@dataclass
class FakeTracer:
    """Refuses return probes, or kprobe.multi links, or both."""

    probes: int = 0
    links: int = 0
    tried: list[tuple[str, bool]] = field(default_factory=list)
    attached: list[HookPoint] = field(default_factory=list)
    missing: list[tuple[str, int | None]] = field(default_factory=list)

    def attach(self, place: HookPoint, types: Btf | None = None) -> None:
        self.tried.append((place.function, bool(place.address)))
        if refusal := self.links if place.address else self.probes:
            raise OSError(refusal, "refused")
        self.attached.append(place)

    def miss(self, place: HookPoint, error: OSError | MkwriteError) -> None:
        assert isinstance(error, OSError)
        self.missing.append((place.function, error.errno))


def hooked(tracer: FakeTracer, symbols: FakeSymbols | None = None, filters: Filters = Filters()) -> FakeTracer:  # noqa: B008
    """After all that can be is hooked."""
    found = cast(Symbols, symbols or FakeSymbols())
    options = Options(Backend.KPROBE, filters)
    InnerHooks(cast(Tracer, tracer), found, Backend.KPROBE, options).follow_modules(cast(Btf, None))
    return tracer


def test_return_probes_are_taken_where_they_may_be() -> None:
    tracer = hooked(FakeTracer())
    assert [(place.function, place.address) for place in tracer.attached] == [(RESERVE, 0), (BLOCK, 0)]


def test_where_they_are_denied_once_links_are_taken() -> None:
    tracer = hooked(FakeTracer(probes=errno.EACCES))
    assert tracer.tried == [(RESERVE, False), (RESERVE, True), (BLOCK, True)]
    assert [(place.function, place.address) for place in tracer.attached] == [
        (RESERVE, FakeSymbols.address),
        (BLOCK, FakeSymbols.address),
    ]
    assert tracer.missing == []


@pytest.mark.parametrize(
    ("tracer", "symbols"),
    [
        (FakeTracer(probes=errno.EACCES, links=errno.EINVAL), FakeSymbols()),  # before 5.18
        (FakeTracer(probes=errno.EACCES), FakeSymbols(address=0)),
    ],
    ids=["no links", "hidden addresses"],
)
def test_where_neither_can_be_had_the_first_refusal_is_told(tracer: FakeTracer, symbols: FakeSymbols) -> None:
    hooked(tracer, symbols)
    assert tracer.attached == []
    assert tracer.missing == [(RESERVE, errno.EACCES), (BLOCK, errno.EACCES)]


def test_what_the_kernel_refuses_for_another_reason_is_not_tried_again() -> None:
    tracer = hooked(FakeTracer(probes=errno.EINVAL))
    assert tracer.tried == [(RESERVE, False), (BLOCK, False)]
    assert tracer.missing == [(RESERVE, errno.EINVAL), (BLOCK, errno.EINVAL)]


def test_what_close_runs_is_hooked_at_its_return_first_unless_no_loss_can_be_told() -> None:
    flush = FakeSymbols(names=("fuse_flush",))
    pair = [("closed", "fuse_flush", True), ("closing", "fuse_flush", False)]
    found = hooked(FakeTracer(), flush).attached
    assert [(place.program, place.function, place.at_return) for place in found] == pair
    assert hooked(FakeTracer(), flush, Filters(pids=(1,))).attached == []
