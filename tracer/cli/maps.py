"""``mkwrite maps``: who maps which files, shared and writable."""

from __future__ import annotations

from typing import Any

import click

from tracer.cli.options import host_filters, host_options, json_option

EXAMPLES = """\b
Examples:
  sudo mkwrite maps                  every process and file, largest first
  mkwrite maps                       your own processes
  mkwrite maps --by file --fs xfs    files, on xfs
  mkwrite maps --pid 812 --resident  what of them is in memory
  mkwrite maps --json | jq .         for programs
"""


@click.command(epilog=EXAMPLES)
@click.option("--by", type=click.Choice(["process", "file"]), default="process", show_default=True, help="A row each.")
@host_options
@click.option("--resident", is_flag=True, help="Show what is in memory, and dirty (reads page tables: slow).")
@json_option
@click.pass_context
def maps(context: click.Context, /, by: str, resident: bool, as_json: bool, **filters: Any) -> None:
    """List the files that are mapped shared and writable: writes to them ask the filesystem.

    Mappings of tmpfs and huge pages too, which refuse without page_mkwrite. Nothing is traced; root sees all
    processes, others their own; the exit code is 28 where processes could not be looked at.
    """
    from tracer.cli.output import Output, print_json
    from tracer.errors import Exit
    from tracer.export.json.host import maps_dict
    from tracer.host.mapped import scan
    from tracer.host.smaps import of_all
    from tracer.mappings.rows import rows
    from tracer.ui.maps import MapsView

    found = scan(host_filters(**filters))
    pages = of_all([(m.pid, m.start) for file in found.files for m in file.mappings]) if resident else None
    shown = rows(found, by_file=by == "file", resident=pages)
    if as_json:
        print_json(maps_dict(found, shown))
    else:
        Output().print(MapsView(shown, found.notes, found.unseen, with_residency=resident))
    if found.unseen:
        context.exit(Exit.NOT_ALL_SEEN)
