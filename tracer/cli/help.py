"""``mkwrite help``: the same as ``--help``."""

from __future__ import annotations

import click

from tracer.cli.names import PROGRAM

EXAMPLES = """\b
Examples:
  mkwrite help          all commands
  mkwrite help sigbus   one of them
"""


@click.command(epilog=EXAMPLES)
@click.argument("command", required=False)
@click.pass_context
def help(context: click.Context, command: str | None) -> None:
    """Show the options and examples of COMMAND, or all commands."""
    parent = context.find_root()
    if command is None:
        click.echo(parent.get_help())
        return
    assert isinstance(parent.command, click.Group)
    name, found, _ = parent.command.resolve_command(parent, [command])
    assert found is not None
    with click.Context(found, info_name=name or PROGRAM, parent=parent) as of:
        click.echo(found.get_help(of))
