"""The calls in flight that filters let through, of those that are known without a hook as well."""

from __future__ import annotations

from collections.abc import Iterable

from tracer.host.cgroups import Cgroups
from tracer.host.filters import check, check_host_pids
from tracer.host.mounts import Mounts
from tracer.host.processes import host_pids, in_cgroup
from tracer.kernel.symbols import Symbols
from tracer.latency.stuck import StuckCall
from tracer.model.options import Filters
from tracer.text import counted


class Chosen:
    """What ``filters`` let through. Raises UsageError for what does not exist."""

    def __init__(self, filters: Filters) -> None:
        mounts = Mounts.read()
        cgroups = Cgroups(mounts)
        check(filters, mounts, cgroups, Symbols().handlers() if filters.handlers else ())
        check_host_pids(filters)
        self._filters = filters
        self._types = {fstype.partition(".")[0] for fstype in filters.fs}
        self._devices = {mount.dev for place in filters.mounts if (mount := mounts.at(place))}
        self._cgroups = [cgroups.named(path) for path in filters.cgroups]
        self._unknown = 0

    def of(self, calls: Iterable[StuckCall]) -> list[StuckCall]:
        """Those that they let through."""
        judged = [(one, self._lets(one)) for one in calls]
        self._unknown = sum(lets is None for _, lets in judged)
        return [one for one, lets in judged if lets]

    def unseen(self) -> tuple[str, ...]:
        """Return what could not be judged of those that were looked at last, in sentences."""
        if not self._unknown:
            return ()
        calls = counted(self._unknown, "call")
        return (f"{calls} of which is not known whether the filters let them through: without these they are shown.",)

    def _lets(self, one: StuckCall) -> bool | None:
        """None where it is not known: a call that met no hook has no file."""
        call, filters = one.call, self._filters
        if (filters.pids and call.pid not in filters.pids) or (filters.comms and call.comm not in filters.comms):
            return False
        known = [
            (filters.fs, call.fstype, call.fstype.partition(".")[0] in self._types),
            (filters.mounts, call.dev, call.dev in self._devices),
            (filters.handlers, call.handler, call.handler in filters.handlers),
            (filters.cgroups, host_pids(), in_cgroup(call.pid, self._cgroups)),
        ]
        if any(asked and told and not right for asked, told, right in known):
            return False
        return None if any(asked and not told for asked, told, _ in known) else True
