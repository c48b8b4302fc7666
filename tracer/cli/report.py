"""``mkwrite report``: a recorded time as a page of HTML."""

from __future__ import annotations

from pathlib import Path

import click

from tracer.cli.look_back import asked_for, look_back_options, nothing_of, reading, tell
from tracer.cli.whole_file import whole_file, whole_file_options

EXAMPLES = """\b
Examples:
  mkwrite report --since 03:00 --until 03:30 -o incident.html
  mkwrite report --since yesterday --redact -o ticket.html
  mkwrite report --from incident.mkw -o incident.html    of a snapshot
"""


@click.command(epilog=EXAMPLES)
@whole_file_options("mkwrite-report.html")
@look_back_options
def report(output: Path, force: bool, redact: bool, since: int | None, until: int | None, record: Path | None) -> None:
    """Make a page of what `mkwrite export --record DIR` kept: failures with their reports, time lines, slow calls.

    FILE is one file of HTML, to read in any browser and to print: it fetches nothing and runs nothing. Without
    --since and --until it is of all of the record.
    """
    from tracer.cli.names import version
    from tracer.cli.output import Output
    from tracer.record.collected import Collected
    from tracer.record.page import page
    from tracer.record.reading import Account
    from tracer.record.redact import redacted
    from tracer.text import printable

    asked, account = asked_for(since, until, record), Account()
    with reading(asked, account) as frames:
        found = Collected(map(redacted, frames) if redact else frames, asked.span, account)
    if found.is_empty:
        raise nothing_of(asked)
    said = tell(asked, account)
    with whole_file(output, force) as stream:
        stream.write(page(found, said, version()).encode())
    notices = Output(stderr=True)
    for line in said:
        notices.print(printable(line), soft_wrap=True)
