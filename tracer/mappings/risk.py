"""Who would be refused next: what mapped files may still ask of their filesystems, beside what is left. No I/O.

A write through a mapping asks for space where the file has none (``Demand.new``), and on copy-on-write filesystems
where it has, too (``Demand.rewrites``): the old copy is given back later, unless something else still refers to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tracer.model.filesystems import Fallocate, Refusal, rules
from tracer.text import printable, shell_word, size_text, some


class LimitKind(StrEnum):
    """What runs out."""

    SPACE = "free space"
    ROOT_SPACE = "free space, reserve included"
    USER = "user quota"
    GROUP = "group quota"
    PROJECT = "project quota"
    SUBVOLUME = "subvolume quota"
    HUGE_PAGES = "huge pages"
    HUGE_CGROUP = "huge pages of a cgroup"
    THIN_POOL = "thin pool"
    IMAGE = "image file"


_MIB: Final = 1 << 20
#: What lies below a filesystem, which knows nothing of it.
_BELOW: Final = (LimitKind.THIN_POOL, LimitKind.IMAGE)
_SPACES: Final = (LimitKind.SPACE, LimitKind.ROOT_SPACE)


@dataclass(frozen=True, slots=True, order=True)
class LimitedFilesystem:
    """A filesystem; ``dev`` is its device number in the kernel's encoding."""

    fstype: str
    mountpoint: str
    dev: int
    handler: str = ""


#: What tells one limit from another.
Key = tuple[LimitedFilesystem, LimitKind, str]
#: How fast mapped files take a limit's space (bytes/s), and the seconds until they are refused.
Forecasts = Mapping[Key, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Limit:
    """What is left of something, in bytes. ``who`` is held to it: a uid, a project, a cgroup; "" for all.

    ``total`` is the limit itself: a filesystem's size, a quota, a pool; 0 where it is not known.
    """

    place: LimitedFilesystem
    kind: LimitKind
    who: str
    free: int
    total: int = 0

    @property
    def key(self) -> Key:
        """What it is, whatever is left of it."""
        return self.place, self.kind, self.who


@dataclass(frozen=True, slots=True)
class Demand:
    """What one file may still ask for, in bytes. ``who`` maps it, as "comm[pid]"; ``limits`` are all that it meets.

    ``given`` is preallocated and unwritten: the filesystem has placed it, what lies below has not. ``enter`` makes a
    command see the mount, where it is in another mount namespace; ``here`` is a path by which a command reaches the
    file from here, "" where none is known. ``block`` is what the filesystem
    gives at a time.
    """

    path: str
    deleted: bool
    inode: int
    size: int
    who: tuple[str, ...]
    place: LimitedFilesystem
    new: int
    rewrites: int
    limits: tuple[Limit, ...]
    given: int = 0
    enter: str = ""
    here: str = ""
    block: int = 4096

    def asks(self, kind: LimitKind) -> int:
        """Return what is new to a limit of this kind."""
        return self.new + self.given if kind in _BELOW else self.new

    @property
    def free(self) -> int:
        """What is free to it: the least of its limits."""
        return min((limit.free for limit in self.limits), default=0)


class RiskState(StrEnum):
    """How a limit stands; ``TIGHT``: there is room for what is new, but not for rewriting everything at once."""

    OK = "ok"
    TIGHT = "tight"
    SHORT = "short"


@dataclass(frozen=True, slots=True)
class Assessment:
    """A limit, the demands that are held to it, the largest first, and all that may be taken of what is left.

    ``new`` and ``rewrites`` hold for all files of the filesystem where the limit is its space: root's writes are
    not held to what is left to others, but take it; and for those on all volumes of a thin pool.
    """

    limit: Limit
    demands: tuple[Demand, ...]
    new: int
    rewrites: int

    @property
    def state(self) -> RiskState:
        """Whether there is room for all."""
        if self.new > self.limit.free or (self.limit.free <= 0 and self.rewrites):
            return RiskState.SHORT
        return RiskState.TIGHT if self.new + self.rewrites > self.limit.free else RiskState.OK

    @property
    def used(self) -> float:
        """What may be asked for as a share of what is free: above 1 not everything can be given."""
        if self.limit.free <= 0:
            return math.inf if self.new or self.rewrites else 0.0
        return self.new / self.limit.free


def assess(demands: Iterable[Demand]) -> tuple[Assessment, ...]:
    """Return a verdict on each limit that a demand meets, the most dangerous first."""
    limits: dict[Key, Limit] = {}
    meeting: dict[Key, list[Demand]] = {}
    for demand in demands:
        for limit in demand.limits:
            limits[limit.key] = limit
            meeting.setdefault(limit.key, []).append(demand)
    verdicts = []
    for key, limit in limits.items():
        several = sorted(meeting[key], key=lambda d: (-d.new - d.rewrites, d.path, d.inode))
        takers = several
        if limit.kind in _SPACES:
            takers = [demand for kind in _SPACES for demand in meeting.get((limit.place, kind, ""), ())]
        elif limit.kind in _BELOW:  # one for the filesystems on all its volumes
            takers = [d for (_, kind, who), some in meeting.items() if (kind, who) == key[1:] for d in some]
        new, rewrites = sum(d.asks(limit.kind) for d in takers), sum(d.rewrites for d in takers)
        verdicts.append(Assessment(limit, tuple(several), new, rewrites))
    return tuple(sorted(verdicts, key=_danger))


def _danger(verdict: Assessment) -> tuple[object, ...]:
    order = (RiskState.SHORT, RiskState.TIGHT, RiskState.OK)
    whole = verdict.new + verdict.rewrites
    return order.index(verdict.state), -verdict.used, -whole / max(1, verdict.limit.free), verdict.limit.key


def sentence(demand: Demand, limit: Limit) -> str:
    """Return a demand in words: ``/srv/f, mapped by postgres[812], can ask for 9.4 GiB; 1.2 GiB is free to it``."""
    new = demand.asks(limit.kind)
    asks = f"can ask for {size_text(new)}"
    if demand.rewrites:
        again = f"for {size_text(demand.rewrites)} to rewrite what it has"
        asks = f"{asks}, and {again}" if new else f"can ask {again}"
    name = printable(demand.path) + (" (deleted)" if demand.deleted else "")
    if demand.here.startswith("/proc/"):
        name += f" (in the mount namespace of {printable(demand.who[0])})"
    elif demand.here not in ("", demand.path):
        name += f" (here {printable(demand.here)})"
    return f"{name}, mapped by {some(demand.who)}, {asks}; {size_text(max(0, limit.free))} is free to it."


def lost_late(limit: Limit) -> bool:
    """Tell whether a write that finds no space is accepted, and lost when it is written back."""
    return limit.kind in _BELOW or rules(limit.place.fstype).refusal is Refusal.WRITEBACK


def consequence(limit: Limit) -> str:
    """Return what becomes of the write that finds no space."""
    if lost_late(limit):
        return "The write that finds no space is accepted, and lost at writeback: only msync(2) or fsync(2) tell."
    return "The write that finds no space ends with SIGBUS, or EFAULT from a system call."


def remedy(demand: Demand, limit: Limit) -> str:
    """Return what to do about it, in one or two sentences; ``command`` has how."""
    place = printable(limit.place.mountpoint) or "the filesystem"
    lacking = size_text(_lacking(demand, limit))
    match limit.kind:
        case LimitKind.HUGE_PAGES:
            return f"Add huge pages for {lacking}, or map without MAP_NORESERVE."
        case LimitKind.HUGE_CGROUP:
            return f"Raise the limit of cgroup {printable(limit.who)} (its hugetlb.*.max) by {lacking}."
        case LimitKind.SUBVOLUME:
            return f"Raise the limit of subvolume {limit.who} by {lacking}."
        case LimitKind.USER | LimitKind.GROUP | LimitKind.PROJECT:
            return f"Raise the hard limit of {limit.kind.value.partition(' ')[0]} {limit.who} on {place} by {lacking}."
        case LimitKind.IMAGE:
            where = f"the filesystem that has {printable(limit.who)}"
            return f"Make room for {lacking} on {where}; then give the image its space, so that nobody else gets it."
        case LimitKind.THIN_POOL:
            return f"Extend the pool by {lacking} (lvextend); fallocate does not help, a thin volume writes elsewhere."
    if limit.place.fstype in ("tmpfs", "devtmpfs"):
        return f"Make {place} larger by {lacking}."
    known = rules(limit.place.fstype)
    room = f"Make room on {place}: {lacking} are lacking"
    if known.fallocate is not Fallocate.PROTECTS:
        return f"{room}. fallocate {known.fallocate.value} here: {known.fallocate_why}"
    if not demand.here:
        return f"{room}."
    if demand.new > limit.free:
        return f"{room}; then give the file its space, so that nobody else gets it."
    return "Give the file its space now."


def command(demand: Demand, limit: Limit) -> str:
    """Return the command that does it, to be pasted; "" where none can, or what it needs is not known."""
    if not limit.total or not limit.place.mountpoint or limit.kind in (LimitKind.THIN_POOL, LimitKind.HUGE_CGROUP):
        return ""
    if limit.kind is LimitKind.IMAGE:
        return f"fallocate -l {limit.total} {shell_word(limit.who)}"
    place = shell_word(limit.place.mountpoint)
    more = limit.total + _lacking(demand, limit)
    match limit.kind:
        case LimitKind.HUGE_PAGES:
            pages = -(-more // demand.block)
            return f"echo {pages} > /sys/kernel/mm/hugepages/hugepages-{demand.block >> 10}kB/nr_hugepages"
        case LimitKind.SUBVOLUME:
            return f"{demand.enter}btrfs qgroup limit {more} {limit.who} {place}"
        case LimitKind.USER | LimitKind.GROUP | LimitKind.PROJECT:
            option = {LimitKind.USER: "-u", LimitKind.GROUP: "-g"}.get(limit.kind, "-P")
            return f"{demand.enter}edquota -f {place} {option} {limit.who}"
    if limit.place.fstype in ("tmpfs", "devtmpfs"):
        return f"{demand.enter}mount -o remount,size={-(-more // _MIB)}m {place}"
    known = rules(limit.place.fstype)
    if known.fallocate is not Fallocate.PROTECTS or not demand.here:
        return ""
    return f"fallocate -l {demand.size} {shell_word(demand.here)}"


def _lacking(demand: Demand, limit: Limit) -> int:
    return max(0, demand.asks(limit.kind) + demand.rewrites - limit.free)


def forecasts(before: Sequence[Assessment], now: Sequence[Assessment], elapsed_ns: int) -> Forecasts:
    """Return a forecast for each verdict of ``now``, from what changed in ``elapsed_ns``."""
    return {verdict.limit.key: forecast(before, verdict, elapsed_ns) for verdict in now}


def forecast(before: Sequence[Assessment], now: Assessment, elapsed_ns: int) -> tuple[float, float]:
    """How fast the mapped files of ``now`` take up space (bytes/s), and how many seconds from now they are refused.

    It goes by what changed since ``before``: space goes, to whomever, and what the files still lack does. They are
    refused if something is lacking at the time when nothing is left; ``inf`` where that is not in sight.
    """
    earlier = next((verdict for verdict in before if verdict.limit.key == now.limit.key), None)
    seconds = elapsed_ns / 1e9
    if earlier is None or seconds <= 0:
        return 0.0, math.inf
    kind = now.limit.kind
    lacked = {_identity(demand): demand.asks(kind) for demand in earlier.demands}
    filled = sum(max(0, lacked.get(_identity(d), 0) - d.asks(kind)) for d in now.demands) / seconds
    going = (earlier.limit.free - now.limit.free) / seconds
    if now.limit.free <= 0 and now.new + now.rewrites:
        return filled, 0.0
    if going <= 0:
        return filled, math.inf
    left = now.limit.free / going
    return filled, left if now.new + now.rewrites > filled * left else math.inf


def _identity(demand: Demand) -> tuple[LimitedFilesystem, int, str]:
    return demand.place, demand.inode, demand.path
