"""Made-up series, snapshots and events."""

from __future__ import annotations

from tracer.model.calls import CallEvent, FaultPath, Initiator, Outcome, Series, WpOutcome
from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend, Hook, Loss
from tracer.model.snapshot import Snapshot

HOOKS = (
    Hook("do_page_mkwrite", "do_page_mkwrite", Backend.FENTRY, attached=True),
    Hook("do_wp_page", "do_wp_page", Backend.FENTRY, attached=True),
)


def series(
    mountpoint: str = "/srv", outcome: Outcome = Outcome.WRITABLE, path: FaultPath = FaultPath.FIRST_WRITE
) -> Series:
    """A series of ext4 on device 8:1."""
    return Series("ext4", mountpoint, 8 << 20 | 1, "ext4_page_mkwrite", path, outcome, Initiator.USER)


def snapshot(calls: dict[Series, Histogram], elapsed_ns: int = 10**9, lost: int = 0) -> Snapshot:
    """A snapshot with these calls, wp faults 1, 2, 3..., and ``lost`` events."""
    return Snapshot(
        monotonic_ns=elapsed_ns,
        elapsed_ns=elapsed_ns,
        calls=calls,
        wp_faults={outcome: number for number, outcome in enumerate(WpOutcome, 1)},
        lost={kind: lost if kind is Loss.EVENTS_FULL else 0 for kind in Loss},
        in_flight=0,
        hooks=HOOKS,
    )


def event(file: str = "/srv/data/file", comm: str = "writer", outcome: Outcome = Outcome.SIGBUS) -> CallEvent:
    """A call of 12.3 ms by process 4242."""
    return CallEvent(
        time_ns=1_700_000_000_123_000_000,
        pid=4242,
        tid=4243,
        uid=1000,
        comm=comm,
        cgroup_id=1,
        fstype="ext4",
        mountpoint="/srv",
        dev=8 << 20 | 1,
        inode=77,
        file=file,
        deleted=False,
        handler="ext4_page_mkwrite",
        path=FaultPath.FIRST_WRITE,
        initiator=Initiator.USER,
        outcome=outcome,
        offset=0x3000,
        address=0x7F0000003000,
        latency_ns=12_300_000,
        vm_fault=2,
    )
