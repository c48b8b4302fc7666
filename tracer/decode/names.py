"""Names for what the programs report in numbers: handlers, filesystems, mount points, processes, files, cgroups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tracer.decode.clock import WallClock
from tracer.diagnosis.classes import verdict
from tracer.host.cgroups import Cgroups
from tracer.host.liveness import reused
from tracer.host.mounts import MountTable
from tracer.kernel.symbols import Symbols
from tracer.model.calls import CallEvent, Filesystem, Series
from tracer.model.failures import PID, Cause, FailureSeries
from tracer.model.options import By
from tracer.model.waits import InFlight, Wait, WaitSeries
from tracer.probes.abi import WAITS, initiator_of, outcome_of, path_in
from tracer.probes.records import RawSeries, RawWait

_ANY: Final = Filesystem(0)


class Naming:
    """Translates with the host's tables. What a label was called first it stays: counters must not change names."""

    def __init__(self, by: By | None, symbols: Symbols, mounts: MountTable, cgroups: Cgroups) -> None:
        self._by = by
        self._symbols = symbols
        self._mounts = mounts
        self._cgroups = cgroups
        self._who: dict[tuple[Filesystem, int], str] = {}
        # The programs stamp events with CLOCK_MONOTONIC.
        self.clock = WallClock()

    def series(self, raw: RawSeries, fstypes: Mapping[Filesystem, str]) -> Series:
        """Return a series with its names."""
        series = self.unlabelled(raw, fstypes)
        return replace(series, who=self._label(raw.filesystem, raw.who)) if self._by else series

    def unlabelled(self, raw: RawSeries, fstypes: Mapping[Filesystem, str]) -> Series:
        """Return a series with its names, but for the label that --by asks for, whose name may still come."""
        fstype, mountpoint, source = self._filesystem(raw.filesystem, fstypes)
        return Series(
            fstype=fstype,
            mountpoint=mountpoint,
            dev=raw.dev,
            handler=self._symbols.name_of(raw.handler),
            path=path_in(raw.kind),
            outcome=outcome_of(raw.kind),
            initiator=initiator_of(raw.kind),
            source=source,
            generation=raw.filesystem.generation,
        )

    def failure_series(self, cause: Cause, fstypes: Mapping[Filesystem, str]) -> FailureSeries:
        """Return what a count of failures is of."""
        filesystem = Filesystem(cause.dev, cause.generation)
        fstype, mountpoint, _ = self._filesystem(filesystem, fstypes) if cause.dev else ("", "", "")
        who = self._label(filesystem, cause.who) if self._by else ""
        kind, errno, _ = verdict(cause, fstype)
        return FailureSeries(fstype, mountpoint, cause.dev, kind, errno, who, cause.generation)

    def file_at(self, filesystem: Filesystem, fstype: str, path: str) -> str:
        """Return a filesystem's path, from its root, as it is where that is mounted.

        It has "..." before it if that is nowhere that we see, or a part of the filesystem that does not have it.
        """
        mount = self._mounts.find(filesystem)
        if not path or mount is None or not mount.kernel_type.startswith(fstype):
            return path and f"...{path}"
        root = "" if mount.root == "/" else mount.root
        if not path.startswith(f"{root}/"):
            return f"...{path}"
        return f"{mount.mountpoint.removesuffix('/')}{path.removeprefix(root)}"

    def wait_series(self, raw: RawWait, fstypes: Mapping[Filesystem, str]) -> WaitSeries:
        """Return what a sum of waits is of."""
        fstype, mountpoint, _ = self._filesystem(raw.filesystem, fstypes)
        dev, generation = raw.filesystem
        return WaitSeries(fstype, mountpoint, dev, self._symbols.name_of(raw.handler), raw.reason, generation)

    def name_series(self, filesystem: Filesystem, who: int, comm: bytes, file: str) -> None:
        """Keep the name that an event brings for its series' label."""
        key = self._key(filesystem, who)
        if self._by is By.PROCESS:
            self._who.setdefault(key, f"{_text(comm)}[{who & PID}]")
        elif self._by is By.FILE and file:
            self._who.setdefault(key, file)

    def forget(self, whos: Set[int]) -> None:
        """Drop the names of processes or cgroups that nothing is counted under any more."""
        for who in whos:
            self._who.pop((_ANY, who), None)

    def end(self, is_over: Callable[[Filesystem], bool]) -> None:
        """Drop the names of filesystems that have ended, and of their files."""
        self._mounts.forget(is_over)
        self._who = {key: name for key, name in self._who.items() if not is_over(key[0])}

    def keep(self, counted: Iterable[tuple[Filesystem, int]], room: int) -> None:
        """Drop names that nothing is counted under, if there are more than ``room``: (whose, who) of all that is."""
        if len(self._who) > room:
            keys = {self._key(*each) for each in counted}
            self._who = {key: self._who[key] for key in keys & self._who.keys()}

    def event(self, event: Any, file: str) -> CallEvent:
        """Return an event with its names. ``event`` is a struct event of bpf/event.h, ``file`` its path."""
        raw = RawSeries(event.series.handler, event.series.who, event.series.dev, event.series.kind)
        dev = event.series.dev
        known = {raw.filesystem: _text(event.fstype)} if event.fstype else {}
        series = self.unlabelled(raw, known)
        return CallEvent(
            time_ns=self.clock.at(event.time_ns),
            pid=event.id >> 32,
            tid=event.id & 0xFFFFFFFF,
            uid=event.uid,
            comm=_text(event.comm),
            cgroup_id=event.cgroup,
            fstype=series.fstype,
            mountpoint=series.mountpoint,
            dev=dev,
            inode=event.inode,
            file=file,
            deleted=bool(event.deleted),
            handler=series.handler,
            path=series.path,
            initiator=series.initiator,
            outcome=series.outcome,
            offset=event.pgoff * 4096,
            address=event.address,
            latency_ns=event.latency_ns,
            vm_fault=event.vm_fault,
            source=series.source,
            waits={reason: ns for reason, ns in zip(WAITS, event.waits, strict=True) if ns and reason != Wait.THROTTLE},
            throttled_ns=event.waits[WAITS.index(Wait.THROTTLE)],
        )

    def in_flight(self, event: Any, file: str, reason: Wait | None) -> InFlight:
        """Return a call in flight with its names. ``event`` is a struct event of bpf/event.h."""
        call = self.event(event, file)
        return InFlight(
            event.latency_ns, call.pid, call.tid, call.comm, call.fstype, call.mountpoint, call.dev, call.inode,
            file, call.handler, call.offset, reason,
        )  # fmt: skip

    def _filesystem(self, filesystem: Filesystem, fstypes: Mapping[Filesystem, str]) -> tuple[str, str, str]:
        """Return the type, the mount point and what is mounted there.

        The type is the kernel's own name, or mountinfo's where that was not kept.
        """
        mount, fstype = self._mounts.find(filesystem), fstypes.get(filesystem, "")
        if mount is None or (fstype and not mount.kernel_type.startswith(fstype)):
            return fstype, "", ""  # the programs keep 15 bytes of the name
        return fstype or mount.fstype, mount.mountpoint, mount.source

    def _key(self, filesystem: Filesystem, who: int) -> tuple[Filesystem, int]:
        # An inode number means something within its filesystem only.
        return (filesystem if self._by is By.FILE else _ANY, who)

    def _label(self, filesystem: Filesystem, who: int) -> str:
        key = self._key(filesystem, who)
        if (known := self._who.get(key)) is not None:
            return known
        if self._by is By.CGROUP:
            label = self._cgroups.path_of(who)
        elif self._by is By.PROCESS:
            label = f"{_comm(who)}[{who & PID}]"
        else:
            label = f"inode {who}"
        return self._who.setdefault(key, label)


def path_of(components: bytes, deleted: bool, cut: bool) -> str:
    """Return the path that write_path (bpf/event.h) left: components, the last one first, each ended by a NUL."""
    if not components:
        return ""
    names = [part.decode("utf-8", "surrogateescape") for part in reversed(components.split(b"\0")[:-1])]
    path = ("..." if cut else "") + "/" + "/".join(names)
    return f"{path} (deleted)" if deleted else path


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _comm(process: int) -> str:
    """Its name now, if it is there and no other has its pid."""
    try:
        comm = _text(Path("/proc", str(process & PID), "comm").read_bytes().removesuffix(b"\n"))
    except OSError:
        return "?"
    return "?" if reused(process) else comm
