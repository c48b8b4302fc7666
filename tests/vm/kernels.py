"""Stock Debian kernels for test guests: found in signed package indexes, kept in a cache.

A *series* is what one asks for: ``"6.12"`` (any ``X.Y`` that the indexes still offer) or
``"newest"``, with ``-cloud`` or ``-rt`` for these flavours. A *release* is what one gets:
``"6.12.117+deb13-amd64"`` or ``"6.12.117+deb13-rt-amd64"``, as ``uname -r`` says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .archive import ARCH, Apt, KernelError, run, say, version_key
from .kernel import Kernel
from .unpack import tidy

NEWEST = "newest"
#: The series that the project is tested on, oldest first.
SERIES = ("5.10", "6.1", "6.12", "6.18", NEWEST)

#: A kernel checked against the index within this time is used without the network.
FRESH_SECONDS = 7 * 86400
#: What Debian builds beside its default: for virtual machines of clouds, and with PREEMPT_RT.
FLAVOURS = ("cloud", "rt")
_SERIES = re.compile(rf"(\d+\.\d+|{NEWEST})(?:-({'|'.join(FLAVOURS)}))?")


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mkwrite" / "kernels"


def flavour(release: str) -> str | None:
    """What a release was built for: one of ``FLAVOURS``, or None for the default.

    >>> flavour("6.12.117+deb13-rt-amd64")
    'rt'
    """
    return next((name for name in FLAVOURS if release.endswith(f"-{name}-{ARCH}")), None)


def matches(series: str, release: str) -> bool:
    """Whether a release belongs to a series, which must be well-formed."""
    found = _SERIES.fullmatch(series)
    assert found is not None
    version, wanted = found.groups()
    return flavour(release) == wanted and (
        version == NEWEST or re.match(rf"{re.escape(version)}(?!\d)", release) is not None
    )


def pick(series: str, releases: Sequence[str]) -> str | None:
    """The newest of the releases that belong to the series."""
    found = [release for release in releases if matches(series, release)]
    return max(found, key=version_key, default=None)


def cached(series: str) -> Kernel | None:
    """The newest complete kernel of the series in the cache."""
    try:
        found = [entry.parent.name for entry in (cache_dir() / series).glob("*/checked")]
    except OSError:
        return None
    newest = pick(series, found)
    return Kernel(series, newest, cache_dir() / series / newest) if newest else None


def get_kernel(series: str, *, refresh: bool = False) -> Kernel:
    """The kernel of a series, from the cache or, if that is old or empty, from the archive."""
    if not _SERIES.fullmatch(series):
        raise KernelError(
            f"{series!r} is not a series: say X.Y, such as 6.12, or {NEWEST}, with -cloud or -rt or neither"
        )
    kernel = cached(series)
    if kernel and not refresh and kernel.age < FRESH_SECONDS:
        return kernel
    with _lock():
        kernel = cached(series)  # another process may have been faster
        if kernel and not refresh and kernel.age < FRESH_SECONDS:
            return kernel
        try:
            return _fetch(series, refresh=refresh)
        except KernelError as error:
            if kernel is None:
                raise
            say(f"warning: {error}; using the cached {kernel.release}")
            return kernel


def offered(*, refresh: bool = False) -> list[str]:
    """All releases that the archive's indexes offer, oldest first."""
    with _lock():
        apt = Apt(cache_dir() / "apt")
        apt.update(refresh=refresh)
        return apt.releases()


def _fetch(series: str, *, refresh: bool) -> Kernel:
    apt = Apt(cache_dir() / "apt")
    current = apt.update(refresh=refresh)
    releases = apt.releases()
    release = pick(series, releases)
    if release is None:
        offer = sorted({".".join(r.split(".")[:2]) for r in releases}, key=version_key)
        raise KernelError(f"the archive has no kernel of series {series}; it has {', '.join(offer) or 'none'}")
    home = cache_dir() / series
    kernel = Kernel(series, release, home / release)
    if kernel.stamp.exists():
        if current:
            kernel.stamp.touch()
        return kernel
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=home) as temporary:
        new = Kernel(series, release, Path(temporary) / release)
        new.path.mkdir()
        say(f"downloading Linux {release} ...")
        for package in apt.download(release, Path(temporary)):
            run(["dpkg-deb", "-x", str(package), str(new.path)])
            package.unlink()
        say("unpacking its modules ...")
        tidy(new)
        new.stamp.touch()
        new.path.rename(kernel.path)
    _remove_old(kernel)
    say(f"Linux {release} is in {kernel.path}")
    return kernel


def _remove_old(kernel: Kernel) -> None:
    """Remove older releases of the series that no guest runs on."""
    for stamp in kernel.path.parent.glob("*/checked"):
        if stamp.parent == kernel.path:
            continue
        with stamp.open("rb") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stamp.parent, ignore_errors=True)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One process at a time changes the cache."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that fetches a kernel ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
