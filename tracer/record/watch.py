"""What the recorder looks at beside counts and failures: mounts, freezes, slow and stuck calls, free space."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final

from tracer.host.mounts import MountChanges, Mounts, preferred
from tracer.latency.stuck import hooked_calls
from tracer.model.calls import CallEvent, Filesystem
from tracer.model.filesystems import PSEUDO
from tracer.model.freezes import Freeze
from tracer.model.hooks import Backend
from tracer.model.mounts import Mount
from tracer.record.events import freeze_frames, mount_frame, mounts_frame, slow_frame, stuck_frame
from tracer.record.space import Spaces, spaces

if TYPE_CHECKING:
    from tracer.session import Session

#: A call that lasts for so long is stuck; a shorter one is slow, and told when it returns.
STUCK_NS: Final = 10_000_000_000
#: Of each minute: the longest slow calls, the oldest stuck ones, mounts and unmounts.
SLOW: Final = 20
STUCK: Final = 20
MOUNTS: Final = 100
#: Of a list of all mounts.
_LISTED: Final = 256

Frames = Iterator[dict[str, Any]]
_By_Id = Mapping[int, Mount]


class Watch:
    """Looks when it is asked to, and tells what is new as frames; what there is too much of is counted."""

    def __init__(self, session: Session, mounts: Callable[[], MountChanges] = MountChanges) -> None:
        self._session = session
        self._calls = session.backend is not Backend.TRACEPOINT and session.options.waits
        self._changes = mounts()
        self._mounts: _By_Id | None = None
        self._freezes: dict[Filesystem, Freeze] = {}
        self._slow: list[CallEvent] = []
        self._mounts_told = 0
        self._left_out: Counter[str] = Counter()

    def note(self, calls: Iterable[CallEvent]) -> None:
        """Take in slow calls: the longest of a minute are told at its end."""
        found = [*self._slow, *calls]
        self._slow = nlargest(SLOW, found, key=lambda call: call.took_ns)
        if len(found) > SLOW:
            self._left_out["slow"] += len(found) - SLOW

    def mounts(self, whole: bool = False) -> Frames:
        """Tell of mounts and unmounts since this was last asked; ``whole``: of changed options, too."""
        if self._mounts is None or whole or self._changes:
            yield from self._changed(self._read(), time.time_ns())

    def freezes(self) -> Frames:
        """Tell of freezes and thaws since this was last asked."""
        if not self._calls:
            return
        now_ns = time.time_ns()
        for filesystem, freeze in self._session.freezes().items():
            known = self._freezes.get(filesystem)
            if known == freeze:
                continue
            self._freezes[filesystem] = freeze
            mount = preferred(one for one in (self._mounts or {}).values() if one.dev == filesystem.dev)
            frames = freeze_frames(filesystem, mount, freeze, now_ns)
            thawed = known and known.began_ns == freeze.began_ns and not freeze.lasts
            yield from frames[-1:] if thawed else frames

    def minute(self) -> Frames:
        """Tell of the minute that ends: slow calls, what is stuck now, and how much was left out."""
        yield from self.mounts(whole=True)
        yield from self.freezes()
        yield from map(slow_frame, sorted(self._slow, key=lambda call: call.time_ns))
        self._slow = []
        if self._calls and (stuck := hooked_calls(self._session, STUCK_NS)):
            yield stuck_frame(stuck[:STUCK], time.time_ns())
            self._left_out["stuck"] += max(0, len(stuck) - STUCK)
        if left_out := +self._left_out:
            yield {"kind": "left_out", "time_ns": time.time_ns(), "events": dict(left_out)}
        self._left_out.clear()
        self._mounts_told = 0

    def space(self) -> Spaces:
        """Return what filesystems have left now."""
        return spaces(Mounts(tuple((self._mounts or self._read()).values())))

    def mounted(self) -> dict[str, Any]:
        """Tell of all that is mounted now."""
        self._mounts = self._mounts or self._read()
        found = sorted(self._mounts.values(), key=lambda mount: mount.mountpoint)
        return mounts_frame(found[:_LISTED], max(0, len(found) - _LISTED), time.time_ns())

    def _read(self) -> _By_Id:
        return {mount.mount_id: mount for mount in self._changes.read() if mount.fstype not in PSEUDO}

    def _changed(self, now: _By_Id, now_ns: int) -> Frames:
        before, self._mounts = self._mounts, now
        if before is None:
            return
        for kind, mount in _differences(before, now):
            self._mounts_told += 1
            if self._mounts_told > MOUNTS:
                self._left_out[kind] += 1
            else:
                yield mount_frame(kind, mount, now_ns)


def _differences(before: _By_Id, now: _By_Id) -> Iterator[tuple[str, Mount]]:
    """Yield what went, what came, and what has other options. An id is used again once its mount is gone."""
    for number, mount in before.items():
        if number not in now or _identity(now[number]) != _identity(mount):
            yield "umount", mount
    for number, mount in now.items():
        known = before.get(number)
        if known is None or _identity(known) != _identity(mount):
            yield "mount", mount
        elif (known.options, known.super_options) != (mount.options, mount.super_options):
            yield "remount", mount


def _identity(mount: Mount) -> tuple[object, ...]:
    return mount.dev, mount.root, mount.mountpoint, mount.fstype, mount.source
