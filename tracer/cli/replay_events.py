"""``trace`` and ``stuck`` of a record, and the longest calls and the freezes that ``waits`` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import nlargest
from typing import Any, Final

import click

from tracer.cli.look_back import LookBack, moment, reading
from tracer.cli.output import Output, print_json
from tracer.cli.replay import FILTERS, matches, say
from tracer.errors import Exit
from tracer.export.json.failures import record
from tracer.export.json.records import stuck_dict, text
from tracer.latency.stacks import Slow
from tracer.model.asked import asked as is_asked
from tracer.model.calls import CallEvent, device_number
from tracer.model.failures import Event
from tracer.model.freezes import Freeze
from tracer.model.hooks import Backend
from tracer.record.events import call_of, freeze_of, stuck_of
from tracer.record.minutes import minute_of
from tracer.record.reading import Account
from tracer.record.reports import failure_of
from tracer.ui.stuck import StuckView
from tracer.ui.trace import TraceLines

#: What the record has of slow calls.
SLOW: Final = "of slow calls, the record has those that export --record-slower asks for, the 20 longest of each minute"
_STUCK: Final = "of stuck calls, the record has those that had lasted for 10s when a minute ended"


class Longest:
    """The longest calls and the last freezes of a time, as the record has them; given each frame."""

    def __init__(self, most: int, slower_ns: int, filters: Mapping[str, Any]) -> None:
        self._most = most
        self._slower_ns = slower_ns
        self._filters = filters
        self.calls: list[Slow] = []
        self.freezes: dict[int, Freeze] = {}

    def see(self, frame: dict[str, Any]) -> None:
        """Take in a frame."""
        match frame["kind"]:
            case "slow" if matches(frame, self._filters):
                call = call_of(frame)
                if call.took_ns >= self._slower_ns:
                    self.calls = nlargest(self._most, [*self.calls, Slow(call)], key=lambda one: one.event.took_ns)
            case "freeze":
                self.freezes[device_number(frame["device"])] = freeze_of(
                    {"began_ns": frame["time_ns"] if frame["by"] else 0, "by": frame["by"], **_THAWED}
                )
            case "thaw":
                dev = device_number(frame["device"])
                before = self.freezes.get(dev, Freeze(0, None))
                thawed = freeze_of({"began_ns": 0, "by": None, "thawed_ns": frame["time_ns"], "thawed_by": frame["by"]})
                self.freezes[dev] = Freeze(before.began_ns, before.by, thawed.thawed_ns, thawed.thawed_by)


_THAWED: Final = {"thawed_ns": None, "thawed_by": None}


def trace_of_record(
    asked: LookBack, filters: Mapping[str, Any], slower_ns: int | None, as_json: bool, most: int | None
) -> None:
    """Print a line for each failure, and with ``slower_ns`` for each slow call, up to ``most``."""
    if slower_ns is not None and filters["cgroup"]:
        raise click.UsageError("The record has no cgroup of slow calls: leave --cgroup or --slower out.")
    out, account = Output(), Account()
    lines = TraceLines(out.width if out.is_terminal else None, slower_ns is not None)
    printed = told = 0
    counts: Counter[str] = Counter()
    if not as_json:
        out.print_line(lines.header())
    with reading(asked, account) as frames:
        for event in _events(frames, filters, slower_ns, counts):
            told += not isinstance(event, CallEvent)
            if printed == most:
                continue  # to the end, where what the record lacks is known
            if as_json:
                print_json(record(event))
            else:
                out.print_line(lines.line(event))
            printed += 1
    counted = 0 if any(filters[name] for name in FILTERS) else counts["failures"] - told
    more = [f"{counted} more failures were counted only: of what fails again and again, some are told."]
    say(
        asked,
        account,
        *(more if counted > 0 else []),
        *([SLOW] if slower_ns is not None else []),
    )


def _events(
    frames: Iterator[dict[str, Any]], filters: Mapping[str, Any], slower_ns: int | None, counts: Counter[str]
) -> Iterator[Event]:
    """Yield failures and slow calls as they were written: slow calls at the end of their minute."""
    for frame in frames:
        match frame["kind"]:
            case "failure" if matches(frame, filters):
                yield failure_of(frame)
            case "slow" if slower_ns is not None and matches(frame, filters):
                call = call_of(frame)
                if call.took_ns >= slower_ns:
                    yield call
            case "minute":
                failures = minute_of(frame).counts.failures
                counts["failures"] += sum(failures.values()) if is_asked(failures) else 0


def stuck_of_record(
    asked: LookBack, filters: Mapping[str, Any], threshold_ns: int, as_json: bool, most: int | None
) -> int:
    """Print the calls that were stuck at the end of each minute; the exit code is 28 where calls were not seen."""
    if filters["cgroup"]:
        raise click.UsageError("The record has no cgroup of stuck calls: leave --cgroup out.")
    out, account = Output(), Account()
    shown = 0
    with reading(asked, account) as frames:
        for frame in frames:
            if frame["kind"] != "stuck" or shown == most:
                continue
            calls = [stuck_of(one) for one in frame["stuck"] if matches(one, filters)]
            if not (calls := [one for one in calls if one.call.age_ns >= threshold_ns]):
                continue
            shown += 1
            if as_json:
                print_json({"time_ns": frame["time_ns"], "stuck": [stuck_dict(one) for one in calls], "unseen": []})
            else:
                out.print(moment(frame["time_ns"]))
                out.print(StuckView(calls))
    blind = [one for one in account.writers if one.get("backend") == Backend.TRACEPOINT]
    unseen = [f"not seen: calls on {text(str(one['host']))}: its backend was {one['backend']}" for one in blind]
    say(asked, account, *([] if shown else ["nothing that was recorded was stuck"]), _STUCK, *unseen)
    return Exit.NOT_ALL_SEEN if blind else 0
