"""What an option becomes in the programs: settings in their code, and the keys of what to trace."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tracer.errors import UsageError
from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts
from tracer.host.processes import host_pids
from tracer.kernel.features import read
from tracer.kernel.functions import hidden
from tracer.kernel.symbols import Symbols
from tracer.model.options import By, Filters, Options
from tracer.probes.abi import Setting, Want


@dataclass(frozen=True, slots=True)
class Wanted:
    """A value to filter by."""

    kind: Want
    low: int
    high: int = 0

    @property
    def key(self) -> bytes:
        """Struct want."""
        return struct.pack("<3Q", self.kind, self.low, self.high)


_ON_TASK: Final = (Want.PID, Want.COMM, Want.CGROUP)


def settings(
    options: Options, selection: Sequence[Wanted], *, cpus: int, cells: int, raced: bool, handlers: bool
) -> dict[int, int]:
    """What one session sets for all its programs, by ``Setting``.

    ``cpus`` are the possible ones, ``cells`` the front cells of each; ``raced``: fault_dirty_shared_page is hooked;
    ``handlers``: the handlers are, not the core.
    """
    kinds = {one.kind for one in selection}
    want_task = sum(1 << kind for kind in kinds if kind in _ON_TASK)
    want_call = sum(1 << kind for kind in kinds if kind not in _ON_TASK)
    by = 0 if options.by is None else list(By).index(options.by) + 1
    return {
        Setting.TELL_RACED: int(raced),
        Setting.CPUS: cpus,
        Setting.FRONT_MASK: cells - 1,
        # 0 stands for none, and no call takes less than 1 ns
        Setting.SLOWER_NS: 0 if options.slower_ns is None else max(options.slower_ns, 1),
        Setting.WANT_TASK: want_task,
        Setting.EXTRAS: int(bool(want_call or by or handlers)),
        Setting.WANT_CALL: want_call,
        Setting.BY: by,
        Setting.NAME_SERIES: int(options.by in (By.PROCESS, By.FILE)),
        Setting.HANDLER_HOOKS: int(handlers),
    }


def wanted(filters: Filters, symbols: Symbols, mounts: Mounts, by_address: bool) -> Iterator[Wanted]:
    """The keys of the map of filters (bpf/filter.h); ``by_address``: handlers are told by their address.

    Raises MkwriteError where that is hidden, UsageError for pids that would be another process's.
    """
    if filters.pids and not host_pids():
        raise UsageError(
            "--pid means the host's pids, and this process is in a pid namespace of its own.",
            "Choose by --cgroup or --comm, or share the host's pid namespace (--pid=host, hostPID: true).",
        )
    for pid in filters.pids:
        yield Wanted(Want.PID, pid)
    for comm in filters.comms:
        yield Wanted(Want.COMM, *_as_numbers(comm))
    cgroups = Cgroups(mounts)
    for path in filters.cgroups:
        yield Wanted(Want.CGROUP, cgroups.id_of(path))
    for name in filters.fs:
        # mountinfo shows a subtype behind a dot, which is not part of the type: "fuse.sshfs".
        yield Wanted(Want.FS, *_as_numbers(name.partition(".")[0]))
    for point in filters.mounts:
        if mount := mounts.at(point):
            yield Wanted(Want.DEV, mount.dev)
    if by_address:
        known = symbols.handlers()
        for name in filters.handlers:
            # Where addresses are hidden they are 0, of which no call ever is.
            if not known[name].address:
                raise hidden(read()).error()
            yield Wanted(Want.HANDLER, known[name].address)


def _as_numbers(text: str) -> tuple[int, int]:
    """The 16 bytes of a comm or type name, as the programs compare them."""
    padded = text.encode("utf-8", "surrogateescape")[:15].ljust(16, b"\0")
    return int.from_bytes(padded[:8], "little"), int.from_bytes(padded[8:], "little")
