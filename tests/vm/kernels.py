"""Stock Debian kernels for test guests: found in signed package indexes, kept in a cache.

A *series* is what one asks for: ``"6.12"`` (any ``X.Y`` that the indexes still offer) or
``"newest"``, with ``-cloud`` or ``-rt`` for these flavours. A *release* is what one gets:
``"6.12.117+deb13-amd64"`` or ``"6.12.117+deb13-rt-amd64"``, as ``uname -r`` says.

The indexes are read through a private apt root inside the cache directory, so that apt checks the
signatures and the host's own apt state stays as it is. The mirrors are those of the host's apt
sources.
"""

from __future__ import annotations

import contextlib
import fcntl
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ARCH = "amd64"
NEWEST = "newest"
#: The series that the project is tested on, oldest first.
SERIES = ("5.10", "6.1", "6.12", "6.18", NEWEST)

SUITES = (
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "testing",
    "unstable",
)
SECURITY_SUITES = ("bullseye-security", "bookworm-security", "trixie-security")
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
MIRROR_VARIABLE = "MKWRITE_DEBIAN_MIRROR"
SECURITY_MIRROR_VARIABLE = "MKWRITE_DEBIAN_SECURITY_MIRROR"

#: A kernel checked against the index within this time is used without the network.
FRESH_SECONDS = 7 * 86400
#: An index fetched within this time is not fetched again, for another series for example.
INDEX_FRESH_SECONDS = 3600

_HOST_SUITE = re.compile(
    r"^(stable|oldstable|oldoldstable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke)"
    r"(-security|-updates|-backports|/updates)?$"
)
_IMAGE = re.compile(rf"^linux-image-(\d+\.\d+[^ ]*?-{ARCH}) ")
#: What Debian builds beside its default: for virtual machines of clouds, and with PREEMPT_RT.
FLAVOURS = ("cloud", "rt")
_SERIES = re.compile(rf"(\d+\.\d+|{NEWEST})(?:-({'|'.join(FLAVOURS)}))?")
#: Modules that a guest loads; uncompressed, since unpacking is slow under emulation.
_UNPACKED = (
    *("arch", "block", "crypto", "fs", "lib", "mm", "net"),
    *("drivers/block", "drivers/char", "drivers/dax", "drivers/input", "drivers/md"),
    *("drivers/nvdimm", "drivers/scsi", "drivers/virtio"),
)


class KernelError(Exception):
    """No kernel can be had; the message says why."""


@dataclass(frozen=True)
class Kernel:
    """One unpacked kernel: ``boot/vmlinuz-*``, ``boot/config-*`` and ``lib/modules``."""

    series: str
    release: str
    path: Path

    @property
    def image(self) -> Path:
        return self.path / "boot" / f"vmlinuz-{self.release}"

    @property
    def unpacked_image(self) -> Path:
        """The image without its own decompressor, if there is one: see ``_unpack_image``."""
        return self.path / "boot" / f"vmlinux-{self.release}"

    @property
    def config(self) -> Path:
        return self.path / "boot" / f"config-{self.release}"

    @property
    def modules(self) -> Path:
        return self.path / "lib" / "modules" / self.release

    @property
    def stamp(self) -> Path:
        """Its mtime is when the index last confirmed this release; guests hold a lock on it."""
        return self.path / "checked"

    @property
    def age(self) -> float:
        return time.time() - self.stamp.stat().st_mtime

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the kernel from being removed by an update while a guest runs on it."""
        with self.stamp.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield


def say(message: str) -> None:
    print(f"vm: {message}", file=sys.stderr, flush=True)


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mkwrite" / "kernels"


def version_key(release: str) -> tuple[int, ...]:
    """The numbers of a release, which order the releases of one archive.

    >>> version_key("6.12.117+deb13-amd64")
    (6, 12, 117, 13)
    """
    return tuple(int(number) for number in re.findall(r"\d+", release.removesuffix(f"-{ARCH}")))


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
        apt = _Apt(cache_dir() / "apt")
        apt.update(refresh=refresh)
        return apt.releases()


def _fetch(series: str, *, refresh: bool) -> Kernel:
    apt = _Apt(cache_dir() / "apt")
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
            _run(["dpkg-deb", "-x", str(package), str(new.path)])
            package.unlink()
        say("unpacking its modules ...")
        _tidy(new)
        new.stamp.touch()
        new.path.rename(kernel.path)
    _remove_old(kernel)
    say(f"Linux {release} is in {kernel.path}")
    return kernel


def _tidy(kernel: Kernel) -> None:
    """Bring an unpacked package into the one layout of the cache and index its modules."""
    usr = kernel.path / "usr"
    for name in ("lib/modules", "boot"):
        if (usr / name).is_dir():
            (kernel.path / name).parent.mkdir(parents=True, exist_ok=True)
            (usr / name).rename(kernel.path / name)
    shutil.rmtree(usr, ignore_errors=True)
    if not kernel.image.exists():
        for image in kernel.modules.glob("vmlinuz*"):
            kernel.image.parent.mkdir(exist_ok=True)
            image.rename(kernel.image)
    if not kernel.image.exists() or not kernel.modules.is_dir():
        raise KernelError(f"the packages of {kernel.release} hold no kernel image or no modules")
    if (config := kernel.modules / "config").exists():  # here since 7.0, in /boot before
        shutil.copy(config, kernel.config)
    _unpack_image(kernel)
    for directory in _UNPACKED:
        for suffix, unpack in (("xz", ["xz", "-d"]), ("zst", ["zstd", "-q", "-d", "--rm"])):
            files = (kernel.modules / "kernel" / directory).rglob(f"*.ko.{suffix}")
            if names := [str(file) for file in files]:
                _run([*unpack, *names])
    _run(["depmod", "-b", str(kernel.path), kernel.release])


def _unpack_image(kernel: Kernel) -> None:
    """Decompress the kernel here, which takes a second, and not in each guest, which takes ten.

    The layout is in Documentation/arch/x86/boot.rst. QEMU boots the ELF file through its PVH note;
    without that, or with a compression unknown here, guests boot the original image.
    """
    image = kernel.image.read_bytes()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if not kernel.config.exists() or "CONFIG_PVH=y" not in kernel.config.read_text():
        return
    if payload.startswith(b"\xfd7zXZ"):
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd") and shutil.which("zstd"):
        argv = ["zstd", "-q", "-d"]
        # The payload ends with its decompressed size, which is not zstd's.
        elf = subprocess.run(argv, input=payload[:-4], stdout=subprocess.PIPE, check=False).stdout
    else:
        return
    if elf.startswith(b"\x7fELF"):
        kernel.unpacked_image.write_bytes(elf)


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


def _run(argv: Sequence[str], *, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program quietly; a failure raises with what it said."""
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        raise KernelError(f"{argv[0]} is not installed") from error
    if check and done.returncode != 0:
        raise KernelError(f"{argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done


def _summary(messages: str) -> str:
    """The first of a program's error messages, and how many more there are."""
    first, *more = messages.strip().splitlines() or ["no reason given"]
    return f"{first} (and {len(more)} more messages)" if more else first


def mirrors(environ: Mapping[str, str] = os.environ) -> tuple[str, str | None]:
    """The Debian mirror and the security mirror, from the environment or the host's apt sources."""
    main = environ.get(MIRROR_VARIABLE)
    security = environ.get(SECURITY_MIRROR_VARIABLE)
    if main is None:
        # The index files themselves may be absent: only the sources are of interest.
        listing = _run(["apt-get", "indextargets", "--no-release-info", "--format", "$(SITE) $(RELEASE)"])
        for line in listing.stdout.splitlines():
            site, _, suite = line.partition(" ")
            if not _HOST_SUITE.match(suite):
                continue
            if site.rstrip("/").endswith("debian-security"):
                security = security or site
            elif main is None:
                main = site
    if main is None:
        raise KernelError(f"apt has no Debian source; set {MIRROR_VARIABLE} to a mirror's URI")
    return main, security


class _Apt:
    """apt with sources, lists and a cache of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "apt.conf"

    def update(self, *, refresh: bool) -> bool:
        """Fetch the indexes, if they are old; false if old ones have to do."""
        stamp = self.root / "updated"
        with contextlib.suppress(FileNotFoundError):
            if not refresh and time.time() - stamp.stat().st_mtime < INDEX_FRESH_SECONDS:
                return True
        self._configure()
        say("reading the package indexes ...")
        # A suite that is gone from the mirror is an error, but the others serve all the same. With
        # the network down, apt keeps what it has and calls that a warning.
        said = self._apt("apt-get", "update", "-q", check=False).stderr
        if not self.releases():
            raise KernelError(f"no signed package index could be had: {_summary(said)}")
        if "Failed to fetch" in said:
            say(f"warning: the package indexes are old: {_summary(said)}")
            return False
        stamp.touch()
        return True

    def releases(self) -> list[str]:
        names = self._apt("apt-cache", "search", "--names-only", f"^linux-image-[0-9].*-{ARCH}$")
        found = {
            match[1]
            for line in names.stdout.splitlines()
            if (match := _IMAGE.match(line)) and "-unsigned" not in match[0]
        }
        # linux-image-6.12-amd64 is a metapackage; a release has a third number.
        return sorted((r for r in found if len(version_key(r)) > 2), key=version_key)

    def download(self, release: str, directory: Path) -> list[Path]:
        """Fetch the image and, where Debian splits it, the packages of its parts."""
        image = f"linux-image-{release}"
        depends = self._apt("apt-cache", "depends", "--important", image)
        part = rf"Depends: (linux-[a-z]+-{re.escape(release)})$"
        parts = re.findall(part, depends.stdout, re.MULTILINE)
        self._apt("apt-get", "download", "-q", image, *parts, cwd=directory)
        return sorted(directory.glob("*.deb"))

    def _apt(
        self, program: str, *arguments: str, cwd: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return _run([program, "-c", str(self.config), *arguments], cwd=cwd, check=check)

    def _configure(self) -> None:
        keyring = next((path for path in KEYRINGS if path.exists()), None)
        if keyring is None:
            raise KernelError("the package debian-archive-keyring is not installed")
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        main, security = mirrors()
        options = f"[arch={ARCH} signed-by={keyring}]"
        lines = [f"deb {options} {main} {suite} main" for suite in SUITES]
        if security is not None:
            lines += [f"deb {options} {security} {suite} main" for suite in SECURITY_SUITES]
        (self.root / "sources.list").write_text("\n".join(lines) + "\n")
        self.config.write_text(
            f"""\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets;
Acquire::IndexTargets::deb::Packages {{
    MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
    flatMetaKey "Packages";
    ShortDescription "Packages";
    Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
}};
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "";
Dir::Etc::sourcelist "{self.root}/sources.list";
Dir::Etc::sourceparts "{self.root}/parts";
Dir::Etc::preferences "{self.root}/preferences";
Dir::Etc::preferencesparts "{self.root}/parts";
Dir::State "{self.root}";
Dir::State::lists "{self.root}/lists";
Dir::State::status "{self.root}/status";
Dir::Cache "{self.root}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Log "{self.root}/cache";
"""
        )
