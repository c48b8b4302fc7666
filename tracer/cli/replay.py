"""What commands print of a record: the same words, and the same JSON, as live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from tracer.record.minutes import Minute, minute_of
from tracer.record.reading import Account
from tracer.record.reports import report_of
from tracer.ui.sigbus import notified, repeated, report


def reports(asked: LookBack, filters: Mapping[str, Any], as_json: bool, most: int | None) -> int:
    """Print the reports of a span, up to ``most``; the exit code is 1 if there were fewer."""
    out, notices, account = Output(), Output(stderr=True), Account()
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
    if not shown:
        notices.print_line(_plain("no failure of that kind is in the record of that time"))
    for line in tell(asked, account):
        notices.print_line(_plain(line))
    return 1 if most and shown < most else 0


def counted(asked: LookBack, filters: Mapping[str, Any]) -> Snapshot:
    """Return what was counted in the minutes that a span touches, and say on standard error what the record lacks.

    Raises MkwriteError where there are none, click.UsageError for filters that they know nothing of.
    """
    for option in ("pid", "comm", "cgroup", "by"):
        if filters.get(option):
            raise click.UsageError(f"The record does not count by process or cgroup: leave --{option} out.")
    total: Minute | None = None
    account = Account()
    with reading(asked, account) as frames:
        for frame in frames:
            if frame["kind"] == "minute":
                minute = _only(minute_of(frame), filters)
                total = minute if total is None else total + minute
    notices = Output(stderr=True)
    for line in tell(asked, account):
        notices.print_line(_plain(line))
    if total is None:
        raise MkwriteError(
            f"The record in {asked.record} has no minute of that time.",
            "Look at another time: --since, --until.",
        )
    return total.counts


def _plain(line: str) -> Any:
    from rich.text import Text

    from tracer.text import printable

    return Text(printable(line))


def _chosen(frames: Iterator[dict[str, Any]], filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield reports that the filters let through, and what is told of those later."""
    chosen: set[tuple[int, int | None]] = set()
    everything = not any(filters.values())
    for frame in frames:
        match frame["kind"]:
            case "failure" if everything or _matches(frame, filters):
                chosen.add((frame["time_ns"], frame["pid"]))
                yield frame
            case "repeated" | "told" if everything or (frame["first_time_ns"], frame.get("pid")) in chosen:
                yield frame


def _matches(frame: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    cgroup = exact(frame["host"]["cgroup"])
    within = [f"{name.rstrip('/')}/" for name in filters["cgroup"]]
    return (
        all(
            not filters[option] or exact(str(frame.get(member))) in map(str, filters[option])
            for option, member in (
                ("fs", "fstype"), ("mount", "mountpoint"), ("pid", "pid"), ("comm", "comm"), ("handler", "handler"),
            )
        )
        and (not within or any(f"{cgroup}/".startswith(name) for name in within))
    )  # fmt: skip


def _only(minute: Minute, filters: Mapping[str, Any]) -> Minute:
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
