"""``mkwrite snapshot``: a piece of the record, to send."""

from __future__ import annotations

import gzip
import os
from itertools import chain
from pathlib import Path

import click

from tracer.cli.look_back import asked_for, look_back_options, nothing_of, opened_record, reading, tell
from tracer.cli.whole_file import whole_file, whole_file_options

EXAMPLES = """\b
Examples:
  mkwrite snapshot --since 03:00 --until 03:30 -o incident.mkw
  mkwrite snapshot --since -1h --redact -o -   to a pipe, for strangers
  mkwrite sigbus --from incident.mkw           read it, on any host
  zcat incident.mkw | jq -c .                  or without mkwrite
"""


@click.command(epilog=EXAMPLES)
@whole_file_options("mkwrite-snapshot.mkw")
@look_back_options
def snapshot(
    output: Path, force: bool, redact: bool, since: int | None, until: int | None, record: Path | None
) -> None:
    """Cut a piece out of the record that `mkwrite export --record DIR` keeps, to send it.

    FILE is one segment of the record: every command that looks back reads it with --from FILE, on other hosts, too.
    Without --since and --until it is all of the record.
    """
    from tracer.cli.output import Output
    from tracer.record.reading import Account
    from tracer.record.snapshot import cut
    from tracer.text import printable, size_text

    if str(output) == "-" and os.isatty(1):
        raise click.UsageError("A snapshot is no text for a terminal: name a file, or write it to a pipe.")
    asked, account = asked_for(since, until, record), Account()
    with opened_record(asked) as found:
        lines = cut(found, asked.span, account, redact)
        first = next(lines, None)
        if first is None:
            raise nothing_of(asked)
        with (
            whole_file(output, force) as stream,
            gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed,
        ):
            for line in chain((first,), lines):
                packed.write(line)
    if str(output) == "-":
        return
    notices, whole = Output(stderr=True), Account()
    with reading(asked._replace(record=output), whole) as frames:
        number = sum(1 for _ in frames)
    whole.damaged, whole.newer, whole.unreadable = account.damaged, account.newer, account.unreadable
    notices.print(printable(f"{output}: {number} frames, {size_text(output.stat().st_size)}"), soft_wrap=True)
    for said in tell(asked, whole):
        notices.print(printable(said), soft_wrap=True)
