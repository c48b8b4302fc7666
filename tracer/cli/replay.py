"""What commands print of a record: the same words, and the same JSON, as live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from tracer.cli.look_back import LookBack, reading, tell
from tracer.cli.output import Output, print_json
from tracer.diagnosis.explainer import Notified
from tracer.errors import MkwriteError
from tracer.export.json.records import exact
from tracer.model.asked import asked as is_asked
from tracer.model.snapshot import Snapshot
from tracer.record.incidents import Incidents
from tracer.record.minutes import Minute
from tracer.record.reading import Account
from tracer.record.reports import report_of
from tracer.record.sums import Sums
from tracer.ui.sigbus import notified, repeated, report

#: What chooses reports and events.
FILTERS = ("fs", "mount", "pid", "comm", "handler", "cgroup")
See = Callable[[dict[str, Any]], object]


def reports(asked: LookBack, filters: Mapping[str, Any], as_json: bool, most: int | None) -> int:
    """Print the reports of a span, up to ``most``; the exit code is 1 if there were fewer."""
    out, account = Output(), Account()
    shown, incidents = 0, Incidents()
    with reading(asked, account) as frames:
        for frame in _chosen(frames, filters):
            if shown == most:
                continue  # to the end, where what the record lacks is known
            if as_json:
                print_json(report_of(frame))
                shown += frame["kind"] == "failure"
                continue
            for one in incidents.explain([frame]):
                out.print_line(notified(one) if isinstance(one, Notified) else report(one, out.width))
                shown += not isinstance(one, Notified)
    if not as_json and most != 1:
        for more in incidents.repeats():
            out.print_line(repeated(more))
    say(asked, account, *(() if shown else ("no failure of that kind is in the record of that time",)))
    return 1 if most and shown < most else 0


def counted(asked: LookBack, filters: Mapping[str, Any], *, see: See = lambda frame: None) -> Snapshot:
    """Return what was counted in the minutes that a span touches, and say on standard error what the record lacks.

    ``see`` is given every other frame.

    Raises MkwriteError where there are none, click.UsageError for filters that they know nothing of.
    """
    not_by_process(filters)
    total, account = Sums(), Account()
    with reading(asked, account) as frames:
        for frame in frames:
            if frame["kind"] == "minute":
                total.add(frame)
            else:
                see(frame)
    say(asked, account)
    found = total.minute()
    if found is None:
        raise MkwriteError(
            f"The record in {asked.record} has no minute of that time.",
            "Look at another time: --since, --until.",
        )
    return only(found, filters).counts


def not_by_process(filters: Mapping[str, Any]) -> None:
    """Refuse filters that minutes know nothing of. Raises click.UsageError."""
    for option in ("pid", "comm", "cgroup", "by"):
        if filters.get(option):
            raise click.UsageError(f"The record does not count by process or cgroup: leave --{option} out.")


def say(asked: LookBack, account: Account, *first: str) -> None:
    """Print on standard error what is to be said of a record beside what it shows."""
    from rich.text import Text

    from tracer.text import printable

    notices = Output(stderr=True)
    for line in (*first, *tell(asked, account)):
        notices.print_line(Text(printable(line)))


def _chosen(frames: Iterator[dict[str, Any]], filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield reports that the filters let through, and what is told of those later."""
    chosen: set[tuple[int, int | None]] = set()
    everything = not any(filters.values())
    for frame in frames:
        match frame["kind"]:
            case "failure" if everything or matches(frame, filters):
                chosen.add((frame["time_ns"], frame["pid"]))
                yield frame
            case "repeated" | "told" | "forgotten" if (
                everything or (frame["first_time_ns"], frame.get("pid")) in chosen
            ):
                yield frame


def matches(frame: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Whether the filters let a report, a slow call or a stuck one through."""
    within = [f"{name.rstrip('/')}/" for name in filters.get("cgroup", ())]
    return all(
        not filters.get(option) or exact(str(frame.get(member))) in map(str, filters[option])
        for option, member in (
            ("fs", "fstype"), ("mount", "mountpoint"), ("pid", "pid"), ("comm", "comm"), ("handler", "handler"),
        )
    ) and (not within or any(f"{exact(frame['host']['cgroup'])}/".startswith(name) for name in within))  # fmt: skip


def only(minute: Minute, filters: Mapping[str, Any]) -> Minute:
    """Return a minute with what the filters let through."""
    counts = minute.counts

    def chosen(series: Any) -> bool:
        return (
            (not filters["fs"] or series.fstype in filters["fs"])
            and (not filters["mount"] or series.mountpoint in filters["mount"])
            and (not filters["handler"] or getattr(series, "handler", "") in filters["handler"])
        )

    def those(found: Any) -> Any:
        return {series: number for series, number in found.items() if chosen(series)} if is_asked(found) else found

    chosen_counts = replace(
        counts, calls=those(counts.calls), failures=those(counts.failures), waits=those(counts.waits)
    )
    return replace(minute, counts=chosen_counts)
