"""Debian's archive: signed package indexes, and the packages of a kernel.

The indexes are read through a private apt root, so that apt checks the signatures and the host's own apt state stays as
it is. The mirrors are those of the host's apt sources.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCH = "amd64"
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

#: An index fetched within this time is not fetched again, for another series for example.
INDEX_FRESH_SECONDS = 3600

_HOST_SUITE = re.compile(
    r"^(stable|oldstable|oldoldstable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke)"
    r"(-security|-updates|-backports|/updates)?$"
)
_IMAGE = re.compile(rf"^linux-image-(\d+\.\d+[^ ]*?-{ARCH}) ")


class KernelError(Exception):
    """No kernel can be had; the message says why."""


def say(message: str) -> None:
    print(f"vm: {message}", file=sys.stderr, flush=True)


def version_key(release: str) -> tuple[int, ...]:
    """The numbers of a release, which order the releases of one archive.

    >>> version_key("6.12.117+deb13-amd64")
    (6, 12, 117, 13)
    """
    return tuple(int(number) for number in re.findall(r"\d+", release.removesuffix(f"-{ARCH}")))


def run(argv: Sequence[str], *, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
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
        listing = run(["apt-get", "indextargets", "--no-release-info", "--format", "$(SITE) $(RELEASE)"])
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


class Apt:
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
        return run([program, "-c", str(self.config), *arguments], cwd=cwd, check=check)

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
