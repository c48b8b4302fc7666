"""Looking back: the options that say at what, and the record that they lead to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from tracer.cli.names import PROGRAM
from tracer.cli.options import given
from tracer.cli.when import When
from tracer.errors import MkwriteError
from tracer.text import printable

if TYPE_CHECKING:
    from tracer.record.reading import Account, Span
    from tracer.record.segments import Segments

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SECOND_NS: Final = 1_000_000_000
#: Holes and gaps that are told one by one.
_TOLD: Final = 5

_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--since", type=When(first=True), metavar="WHEN", help='Look back in the record: "03:12", "-2h", ...'),
    click.option("--until", type=When(first=False), metavar="WHEN", help="Look back no further on than this."),
    click.option(
        "--from",
        "record",
        type=click.Path(path_type=Path),
        metavar="DIR|FILE",
        help="The record to look back in, or a snapshot of one.  [default: /var/lib/mkwrite]",
    ),
)


def look_back_options(function: _Function) -> _Function:
    """Add ``--since``, ``--until`` and ``--from``; the command passes them to ``look_back``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class LookBack(NamedTuple):
    """Which record, and which span of it."""

    record: Path
    span: Span


def look_back(
    context: click.Context, since: int | None, until: int | None, record: Path | None, live: Sequence[str]
) -> LookBack | None:
    """Return what to look back at; None where nothing was given that asks for that.

    ``live`` are the parameters that a recorded time has no use for. Raises click.UsageError.
    """
    if since is None and until is None and record is None:
        return None
    for parameter in context.command.params:
        if parameter.name in live and given(context, parameter.name):
            name = parameter.opts[0] if isinstance(parameter, click.Option) else "COMMAND"
            raise click.UsageError(f"{name} is for what happens now: leave it out, or --since, --until and --from.")
    return asked_for(since, until, record)


def asked_for(since: int | None, until: int | None, record: Path | None) -> LookBack:
    """Return what to look back at, by default all of the host's own record. Raises click.UsageError."""
    from tracer.record.reading import Span
    from tracer.record.segments import DEFAULT

    span = Span(since or 0, time.time_ns() if until is None else until)
    if span.since_ns > span.until_ns:
        raise click.UsageError(f"--since is {moment(span.since_ns)}, which is after {moment(span.until_ns)}.")
    return LookBack(record or DEFAULT, span)


@contextmanager
def opened_record(asked: LookBack) -> Iterator[Segments]:
    """Provide a record to read. Raises MkwriteError where there is none."""
    from tracer.record.segments import segments_at

    record = segments_at(asked.record)
    try:
        if not record.segments():
            raise MkwriteError(
                f"There is no record in {asked.record}.",
                f"Keep one: {PROGRAM} export --record {asked.record}; or say where it is: --from.",
            )
        yield record
    finally:
        record.close()


def nothing_of(asked: LookBack) -> MkwriteError:
    """Return the error for a span that a record has nothing of."""
    return MkwriteError(
        f"The record in {printable(str(asked.record))} has nothing of that time.",
        "Look at another time: --since, --until.",
    )


@contextmanager
def reading(asked: LookBack, account: Account) -> Iterator[Iterator[dict[str, Any]]]:
    """Provide the frames of the span. Raises MkwriteError where there is no record."""
    from tracer.record.reading import read

    with opened_record(asked) as record:
        yield read(record, asked.span, account)


def tell(asked: LookBack, account: Account) -> list[str]:
    """Return what is to be said of the record beside what it shows: whose it is, and what it lacks."""
    lines = [
        f"record of {one.get('host')}: Linux {one.get('kernel')}, mkwrite {one.get('mkwrite')}, {one.get('backend')}"
        for one in account.writers
    ]
    if account.minutes:
        lines.append(f"minutes from {moment(account.from_ns)} to {moment(account.until_ns)}")
    for step in account.steps[:_TOLD]:
        lines.append(f"the clock was set from {moment(step['before_ns'])} to {moment(step['time_ns'])}")
    lines += [f"... and {len(account.steps) - _TOLD} more times"] if len(account.steps) > _TOLD else []
    # Who asks for all of it does not ask for what was before it.
    holes = [hole for hole in account.holes if hole.from_ns]
    lines += [f"nothing is recorded from {moment(hole.from_ns)} to {moment(hole.until_ns)}" for hole in holes[:_TOLD]]
    lines += [f"... and {len(holes) - _TOLD} more such times"] if len(holes) > _TOLD else []
    for gap in account.gaps[:_TOLD]:
        why = f" ({gap['errno']})" if gap.get("errno") else ""
        dropped = ", ".join(f"{number} {kind}" for kind, number in gap["dropped"].items())
        lost = f"lost: {dropped}" if dropped else "what came meanwhile was written later"
        lines.append(
            f"the record could not be written from {moment(gap['from_ns'])} to {moment(gap['time_ns'])}{why}: {lost}"
        )
    lines += [f"... and {len(account.gaps) - _TOLD} more gaps"] if len(account.gaps) > _TOLD else []
    if account.damaged:
        lines.append(f"{account.damaged} damaged lines were left out")
    for version, number in account.newer.items():
        lines.append(f"{number} files have format {version}, which a newer mkwrite wrote: they were left out")
    lines += [f"could not be read: {name}" for name in account.unreadable]
    return lines


def moment(ns: int) -> str:
    """Return a moment by the clock of this host."""
    return f"{datetime.fromtimestamp(ns // _SECOND_NS).astimezone():%Y-%m-%d %H:%M:%S}"
