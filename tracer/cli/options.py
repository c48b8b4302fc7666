"""Options that commands share, and what they become: ``model.Options``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from tracer.cli import values
from tracer.cli.names import PROGRAM
from tracer.model.hooks import Backend
from tracer.model.options import By, Filters, Options
from tracer.text import duration, parse_duration

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A duration such as ``250us``, ``10ms`` or ``2m``; its value is in ns.

    A bare number is taken as seconds where ``seconds`` allows it: where nobody means anything shorter.
    """

    name = "duration"

    def __init__(self, *, least_ns: int = 0, seconds: bool = False) -> None:
        self.least_ns = least_ns
        self.seconds = seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds; fails as bad usage on text that is no duration, or a shorter one than allowed."""
        if isinstance(value, int):
            return value
        bare = self.seconds and value.replace(".", "", 1).isdecimal()
        try:
            ns = parse_duration(f"{value}s" if bare else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if ns < self.least_ns:
            self.fail(f"{value} is too short; the least is {duration(self.least_ns)}", param, ctx)
        return ns


class _Scaled(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A whole number and a unit; its value is in the smallest one."""

    def __init__(self, name: str, units: Mapping[str, int]) -> None:
        self.name = name
        self.units = units

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; fails as bad usage on text that is none, or 0."""
        if isinstance(value, int):
            return value
        number, unit = value[:-1], value[-1:]
        if unit not in self.units or not (number.isdecimal() and number.isascii() and 0 < int(number) < 1_000_000):
            self.fail(f"{value!r} is no {self.name}; write a number and one of {', '.join(self.units)}", param, ctx)
        return int(number) * self.units[unit]


#: For --record-size, in bytes, and --record-age, in seconds.
SIZE = _Scaled("size", {"M": 10**6, "G": 10**9, "T": 10**12})
AGE = _Scaled("age", {"h": 3600, "d": 86_400})

#: For --interval: reading the maps of a busy host takes milliseconds.
INTERVAL = Duration(least_ns=100_000_000, seconds=True)
#: For --duration.
PERIOD = Duration(least_ns=1_000_000, seconds=True)


def tracing_options(function: _Function) -> _Function:
    """Add the filters and ``--backend``; the command passes them to ``session_options``."""
    for option in reversed(_TRACING):
        function = option(function)
    return function


def host_options(function: _Function) -> _Function:
    """Add the filters of what is mapped, which needs no tracing; the command passes them to ``host_filters``."""
    for option in reversed(_TRACING[:5]):
        function = option(function)
    return function


def call_options(function: _Function) -> _Function:
    """Add the filters alone; the command passes them to ``call_filters``."""
    for option in reversed(_TRACING[:6]):
        function = option(function)
    return function


def filter_options(function: _Function) -> _Function:
    """Add the filters and ``--backend`` alone; the command passes them to ``filters_of``."""
    for option in reversed(_TRACING[:-1]):
        function = option(function)
    return function


_TRACING: tuple[Callable[[_Function], _Function], ...] = (
    click.option(
        "--fs",
        multiple=True,
        metavar="TYPE",
        shell_complete=values.filesystem_types,
        help="Only this filesystem type, such as ext4.",
    ),
    click.option(
        "--mount",
        multiple=True,
        metavar="DIR",
        shell_complete=values.mount_points,
        help="Only the filesystem mounted at DIR.",
    ),
    click.option("--pid", multiple=True, type=click.IntRange(min=1), metavar="PID", help="Only this process."),
    click.option("--comm", multiple=True, metavar="NAME", help="Only tasks of this name (comm)."),
    click.option("--cgroup", multiple=True, metavar="PATH", help="Only this cgroup and those below it, to 31 levels."),
    click.option(
        "--handler",
        multiple=True,
        metavar="NAME",
        shell_complete=values.handlers,
        help="Only this handler's calls.",
    ),
    click.option(
        "--backend",
        type=click.Choice(["auto", *(backend.value for backend in Backend)]),
        default="auto",
        show_default=True,
        help="How hooks attach.",
    ),
    click.option(
        "--max-series",
        type=click.IntRange(min=1, max=1 << 20),
        default=Options.max_series,
        show_default=True,
        help="Room for so many kinds of calls, 1 KiB each.",
    ),
)

by_option = click.option("--by", type=click.Choice([by.value for by in By]), help="Tell calls apart by this, too.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
all_writes_option = click.option(
    "--all-writes", is_flag=True, help="Tell files that lost writes and that nobody has mapped, too."
)
duration_option = click.option("-d", "--duration", type=PERIOD, help="End after this time (default: on Ctrl-C).")


all_option = click.option(
    "--all", "whole_host", is_flag=True, help="With COMMAND: the whole host, not COMMAND and its children alone."
)


number_option = click.option("-n", "--number", type=click.IntRange(min=1), help="End after showing so many.")
once_option = click.option("--once", is_flag=True, help="The same as -n 1.")


def shown(number: int | None, once: bool) -> int | None:
    """After how many of what it shows (intervals, lines, looks, reports) a command ends; None for no such end."""
    if once and number is not None:
        raise click.UsageError("--once is the same as -n 1: leave one of them out.")
    return 1 if once else number


class Renaming(click.Command):
    """A command some of whose options had other names, which work for one release more, with a note.

    ``former`` has the new name by the old one.
    """

    def __init__(self, *arguments: Any, former: Mapping[str, str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.former = former

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, old names taken for the new ones."""
        renamed = []
        for argument in args:
            name, equals, value = argument.partition("=")
            if new := self.former.get(name):
                if not ctx.resilient_parsing:
                    click.echo(f"{PROGRAM}: {name} is {new} now; the old name goes with the next release.", err=True)
                argument = f"{new}{equals}{value}"
            renamed.append(argument)
        return super().parse_args(ctx, renamed)


def filters_of(
    *,
    fs: tuple[str, ...],
    mount: tuple[str, ...],
    pid: tuple[int, ...],
    comm: tuple[str, ...],
    cgroup: tuple[str, ...],
    handler: tuple[str, ...],
    backend: str,
) -> tuple[Filters, Backend | None]:
    """Return what ``filter_options`` ask for."""
    filters = Filters(fs=fs, mounts=mount, pids=pid, comms=comm, cgroups=cgroup, handlers=handler)
    return filters, None if backend == "auto" else Backend(backend)


def host_filters(
    *,
    fs: tuple[str, ...],
    mount: tuple[str, ...],
    pid: tuple[int, ...],
    comm: tuple[str, ...],
    cgroup: tuple[str, ...],
) -> Filters:
    """Return what ``host_options`` ask for. Raises UsageError for what does not exist."""
    from tracer.host.cgroups import Cgroups
    from tracer.host.filters import check
    from tracer.host.mounts import Mounts

    filters = Filters(fs=fs, mounts=mount, pids=pid, comms=comm, cgroups=cgroup)
    mounts = Mounts.read()
    check(filters, mounts, Cgroups(mounts), ())
    return filters


def call_filters(**filtering: Any) -> Filters:
    """Return what ``call_options`` ask for."""
    return filters_of(**filtering, backend="auto")[0]


def session_options(
    *,
    max_series: int,
    by: str | None = None,
    slower_ns: int | None = None,
    waits: bool = False,
    all_writes: bool = False,
    **filtering: Any,
) -> Options:
    """Return what the command line asks of a session; ``filtering`` as ``filters_of`` takes it.

    ``slower_ns`` and ``waits`` are of calls: left out with the backend that sees none.
    """
    filters, backend = filters_of(**filtering)
    calls = backend is not Backend.TRACEPOINT
    return Options(
        backend=backend,
        filters=filters,
        by=None if by is None else By(by),
        slower_ns=slower_ns if calls else None,
        max_series=max_series,
        waits=waits and calls,
        all_writes=all_writes,
    )


def given(context: click.Context, name: str) -> bool:
    """Whether the user gave this option, rather than its default."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
