"""What a report says of the host: space, quotas and the pool of huge pages, as they were when it was read."""

from __future__ import annotations

from tracer.model.host_state import HostState
from tracer.text import duration, printable, size_text


def rows(state: HostState) -> list[tuple[str, str]]:
    """Return label and text; a text is empty where there is nothing to say."""
    return [("space", _space(state)), ("chunks", _chunks(state)), ("quota", _quota(state)), ("pool", _pool(state))]


def _space(state: HostState) -> str:
    space, parts = state.space, []
    if space is not None and (space.total or space.inodes):  # a hugetlbfs without size= says nothing of either
        parts.append(f"{size_text(min(space.free, space.total or space.free))} free of {size_text(space.total)}")
        if space.free_to_root > space.free:
            parts.append(f"{size_text(space.free_to_root)} for root")
        if space.inodes:
            parts.append(f"{space.inodes_free} of {space.inodes} inodes free")
    if state.limit:
        parts.append(f"size={printable(state.limit)}")
    if state.read_only:
        parts.append("read-only")
    if state.subvolume_read_only:
        parts.append("the subvolume read-only")
    if state.shut_down:
        parts.append("shut down")
    return ", ".join([*parts, f"{duration(state.after_ns)} later"] if parts else [])


def _chunks(state: HostState) -> str:
    return ", ".join(
        f"{part.kind}: {size_text(part.free)} free of {size_text(part.total)}"
        if part.kind != "unallocated"
        else f"{size_text(part.total)} in none yet"
        for part in state.chunks
    )


def _quota(state: HostState) -> str:
    return ", ".join(
        f"{quota.kind} {quota.number}: {size_text(quota.free)} left of {size_text(quota.limit)}"
        for quota in state.quotas
    )


def _pool(state: HostState) -> str:
    huge = state.huge
    if huge is None:
        return ""
    text = f"{huge.free} of {huge.total} huge pages of {size_text(huge.page)} free, {huge.reserved} reserved"
    if huge.cgroup:
        text += f"; cgroup {printable(huge.cgroup)}: {size_text(huge.cgroup_free)} left"
    return f"{text}, {duration(state.after_ns)} later"
