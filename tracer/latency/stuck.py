"""Calls that have not returned for long: those that the hooks see, and those that began before there were hooks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tracer.host.mounts import Mounts, preferred
from tracer.host.peers import fuse_daemons, peer_of
from tracer.host.processes import concealed
from tracer.host.stacks import Sleeper, host_stack, readable, sleepers
from tracer.kernel.obstacles import lowered
from tracer.latency.breakdown import CPU
from tracer.model.freezes import Freeze, by_device
from tracer.model.waits import InFlight, Wait
from tracer.probes.wait_functions import reason_of
from tracer.text import counted

if TYPE_CHECKING:
    from tracer.session import Session

_CORE = "do_page_mkwrite"


@dataclass(frozen=True, slots=True)
class StuckCall:
    """A call that lasts, and the kernel stack of its task now, the innermost function first.

    ``at_least``: it began before we looked, so it is older than ``call.age_ns``, and what its stack does not tell is
    not known. ``reason`` is a wait or ``cpu``. ``peer``: the server or the daemon that answers for the filesystem,
    empty where there is none or it is not known. ``freeze``: who froze the filesystem, if it waits for that and
    somebody was seen to.
    """

    call: InFlight
    at_least: bool
    reason: str
    stack: tuple[str, ...]
    peer: str = ""
    freeze: Freeze | None = None


class StuckCalls:
    """Looks again and again; ages of calls without hooks count from the first look."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], int] = {}
        self._refused = 0

    def look(self, session: Session | None, threshold_ns: int) -> list[StuckCall]:
        """Return the calls that have lasted at least ``threshold_ns``, the oldest first; ``session`` one with waits."""
        hooked = session.in_flight() if session else []
        now = time.monotonic_ns()
        known = {(call.pid, call.tid) for call in hooked}
        # Who is throttled has come out of its call: with hooks it is no call in flight, and it may sleep each time.
        asleep, self._refused = sleepers()
        others = [
            task for task in asleep if (task.pid, task.tid) not in known and (session is None or _CORE in task.stack)
        ]
        self._seen = {(task.pid, task.tid): self._seen.get((task.pid, task.tid), now) for task in others}
        found = [_hooked(call) for call in hooked if call.age_ns >= threshold_ns]
        for task in others:
            age_ns = now - self._seen[task.pid, task.tid]
            if age_ns >= threshold_ns:
                found.append(_unhooked(task, age_ns))
        return _completed(sorted(found, key=lambda one: -one.call.age_ns), session)

    def unseen(self, *, hooked: bool) -> tuple[str, ...]:
        """Return what the last look could not see, in sentences; ``hooked``: hooks see calls that begin."""
        began = " that began before the hooks were there" if hooked else ""
        found = []
        if not readable():
            found.append(f"Calls{began}: kernel stacks take root (CAP_SYS_ADMIN) and CONFIG_STACKTRACE to read.")
        elif self._refused:
            found.append(f"Calls{began}, of {counted(self._refused, 'task')} whose kernel stacks may not be read.")
        if hidden := concealed():
            found.append(f"Calls{began}: {lowered(hidden)}")
        return tuple(found)


def hooked_calls(session: Session, threshold_ns: int) -> list[StuckCall]:
    """Those that the hooks of ``session`` see, one with waits; the oldest first."""
    found = [_hooked(call) for call in session.in_flight() if call.age_ns >= threshold_ns]
    return _completed(found, session)


def reason_at(call: InFlight, stack: tuple[str, ...]) -> str:
    """Return what a call in flight waits for, or ``cpu``; ``stack`` is where its task is now."""
    return str(call.reason or reason_of(stack) or (Wait.OTHER if stack else CPU))


def _completed(calls: Sequence[StuckCall], session: Session | None) -> list[StuckCall]:
    return _with_freezes(_with_peers(calls), session)


def _with_freezes(calls: list[StuckCall], session: Session | None) -> list[StuckCall]:
    """Return the calls with who froze their filesystem."""
    if session is None or not any(one.reason == Wait.FREEZE for one in calls):
        return calls
    last = {dev: freeze for dev, freeze in by_device(session.freezes()).items() if freeze.lasts}
    return [replace(one, freeze=last.get(one.call.dev)) if one.reason == Wait.FREEZE else one for one in calls]


def _with_peers(calls: Iterable[StuckCall]) -> list[StuckCall]:
    """Return the calls with their peers, which the mount table names: nobody is asked who may not answer."""
    found = list(calls)
    devices = {one.call.dev for one in found if one.call.dev}
    if not devices:
        return found
    mounts = [mount for mount in Mounts.read() if mount.dev in devices]
    daemons = fuse_daemons() if any(mount.fstype.startswith("fuse") for mount in mounts) else ()
    peers = {}
    for device in devices:
        mount = preferred(mount for mount in mounts if mount.dev == device)
        peer = peer_of(mount, daemons) if mount else None
        peers[device] = peer.label if peer else ""
    return [replace(one, peer=peers.get(one.call.dev, "")) for one in found]


def _hooked(call: InFlight) -> StuckCall:
    stack = host_stack(call.pid, call.tid)
    return StuckCall(call, at_least=False, reason=reason_at(call, stack), stack=stack)


def _unhooked(task: Sleeper, age_ns: int) -> StuckCall:
    at = task.stack.index(_CORE) if _CORE in task.stack else 0
    call = InFlight(
        age_ns, task.pid, task.tid, task.comm, fstype="", mountpoint="", dev=0, inode=0, file="",
        handler=task.stack[at - 1] if at else "", offset=0, reason=None,
    )  # fmt: skip
    return StuckCall(call, at_least=True, reason=str(reason_of(task.stack) or Wait.OTHER), stack=task.stack)
