"""The entry point: every command by name, each imported when it is wanted."""

from __future__ import annotations

import importlib
import os
import sys
from difflib import get_close_matches
from typing import Final, NoReturn

import click

from tracer.cli.guard import guarded
from tracer.cli.names import COMPLETE_VAR, PROGRAM
from tracer.text import printable

COMMANDS: Final = (
    "top", "hist", "trace", "waits", "stuck", "sigbus", "count", "export", "maps", "risk", "snapshot", "report",
    "doctor", "completion", "help",
)  # fmt: skip

EXAMPLES = """\b
Examples:
  mkwrite doctor                 can this machine be traced, and how?
  mkwrite top                    what goes on, live
  mkwrite trace --slower 10ms    failures and slow calls, one by one
  mkwrite waits                  what do slow ones wait for?
  mkwrite stuck                  what waits right now?
  mkwrite sigbus                 why was a write refused? who died of SIGBUS?
  mkwrite count -- make -j8      exact counts while a command runs
  mkwrite report --since 03:00 -o night.html
                                 what the exporter recorded, as a page
  mkwrite help COMMAND           options and examples of a command
"""


class LazyGroup(click.Group):
    """A group whose command ``name`` is the object ``name`` of the module ``tracer.cli.name``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of use rather than of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"tracer.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that ``args`` begin with. Raises UsageError, with those alike, where there is none."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            close = get_close_matches(name, COMMANDS)
            meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            ctx.fail(f"There is no command {printable(name)!r}.{meant}")
        return super().resolve_command(ctx, args)


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("mkwrite")
    except PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"{PROGRAM} {number}")
    context.exit()


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Trace the kernel's page_mkwrite: writes to shared file mappings, how long they take, why they fail."""


def run(arguments: list[str]) -> int:
    """Run the command line ``arguments`` and return its exit code; no exception leaves."""
    return guarded(lambda: _invoke(arguments))


def _invoke(arguments: list[str]) -> int:
    try:
        # Not cli.main(): it ends the process itself on an interrupt or a closed pipe.
        with cli.make_context(PROGRAM, arguments) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return 0


def main() -> NoReturn:
    """Run the command line; the console script ``mkwrite`` calls this."""
    if COMPLETE_VAR in os.environ:
        cli.main(prog_name=PROGRAM)
    sys.exit(run(sys.argv[1:]))
