"""Filesystems that refuse a write, one for each reason, and the victims that meet it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.live.guest import ROOT, give_back, load_modules, run
from tracer.diagnosis.explainer import Explained, Explainer
from tracer.model.failures import Failure
from tracer.session import Session

VICTIM = shutil.copy(os.environ["VICTIM"], "/tmp/victim")
#: The user that has a quota.
NOBODY = 65534
PROJECT = 4242
#: An odd place in a file of an odd size: page 37, byte 11 of it.
SIZE, OFFSET = 67 * 4096 + 5, 37 * 4096 + 11


@dataclass(frozen=True)
class Refusal:
    """A filesystem of ``size`` MiB, made with ``mkfs``, mounted with ``mount``; ``refuse(place)`` makes it refuse."""

    name: str
    fstype: str
    #: Several where it depends on the kernel.
    errno: str
    mkfs: Sequence[str] = ()
    mount: str = "loop"
    refuse: Callable[[Path], None] = lambda place: fill(place)
    size: int = 96
    uid: int = 0
    #: Whether it is made to refuse only when the victim has mapped its file.
    late: bool = False
    #: "store", or "rewrite" for a page that was read before.
    victim: str = "store"
    #: The functions that may have returned the errno; () where none is seen.
    inner: tuple[str, ...] = ()


def fill(place: Path) -> None:
    """Leave no block free: allocate what can be had in large pieces, write the rest."""
    libc = ctypes.CDLL(None)
    with (place / "filler").open("wb", buffering=0) as stream:
        end = 0
        while libc.fallocate(stream.fileno(), 0, ctypes.c_long(end), ctypes.c_long(4 << 20)) == 0:
            end += 4 << 20
        stream.seek(end)
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    stream.write(bytes(size))


def _user_quota(place: Path, kind: str = "-u") -> None:
    """A user's quota is used up, or a group's."""
    run("setquota", kind, str(NOBODY), "0", "1024", "0", "0", str(place))
    filler = place / "his"
    filler.touch()
    os.chown(filler, NOBODY, NOBODY)
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], stderr=subprocess.DEVNULL, user=NOBODY, check=False)


def _group_quota(place: Path) -> None:
    _user_quota(place, "-g")


def _project_quota(place: Path) -> None:
    run("chattr", "+P", "-p", str(PROJECT), str(place))
    run("chattr", "-p", str(PROJECT), str(place / "file"))
    run("setquota", "-P", str(PROJECT), "0", "1024", "0", "0", str(place))
    subprocess.run(["dd", "if=/dev/zero", f"of={place}/ours", "bs=4k"], stderr=subprocess.DEVNULL, check=False)


def _xfs_project_quota(place: Path) -> None:
    run("xfs_quota", "-x", "-c", f"project -s -p {place} {PROJECT}", str(place))
    run("xfs_quota", "-x", "-c", f"limit -p bhard=1m {PROJECT}", str(place))
    subprocess.run(["dd", "if=/dev/zero", f"of={place}/ours", "bs=4k"], stderr=subprocess.DEVNULL, check=False)


def _qgroup(place: Path) -> None:
    run("btrfs", "quota", "enable", str(place))
    run("btrfs", "qgroup", "limit", "1M", str(place))
    subprocess.run(["dd", "if=/dev/zero", f"of={place}/ours", "bs=4k"], stderr=subprocess.DEVNULL, check=False)


def _shut_down(place: Path) -> None:
    run("xfs_io", "-x", "-c", "shutdown", str(place))


def _abort(place: Path) -> None:
    """An error that makes ext4 read-only, as errors=remount-ro has it."""
    device = place.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")


_QUOTA = ("-O", "quota,project", "-E", "quotatype=usrquota:prjquota")
_GET_BLOCK = ("ext4_get_block", "ext4_get_block_unwritten")
REFUSALS = (
    Refusal("ext4", "ext4", "ENOSPC", inner=("ext4_da_reserve_space",)),
    Refusal("ext4-nodelalloc", "ext4", "ENOSPC", mount="loop,nodelalloc", size=64, inner=_GET_BLOCK),
    Refusal("ext3", "ext3", "ENOSPC", size=64, inner=_GET_BLOCK),
    Refusal("ext2", "ext2", "ENOSPC", size=32, inner=_GET_BLOCK),
    Refusal(
        "ext4-user", "ext4", "EDQUOT", _QUOTA, "loop,usrquota,prjquota", _user_quota, uid=NOBODY,
        inner=("ext4_da_reserve_space",),
    ),
    Refusal(
        "ext4-project", "ext4", "EDQUOT", _QUOTA, "loop,usrquota,prjquota", _project_quota, uid=NOBODY,
        inner=("ext4_da_reserve_space",),
    ),
    Refusal(
        "ext4-group", "ext4", "EDQUOT", ("-O", "quota", "-E", "quotatype=grpquota"), "loop,grpquota", _group_quota,
        size=32, uid=NOBODY, inner=("ext4_da_reserve_space",),
    ),
    Refusal(
        "ext3-aborted", "ext3", "EROFS EIO", mount="loop,errors=remount-ro", refuse=_abort, size=64, late=True,
        inner=("ext4_journal_check_start",),
    ),
    Refusal("xfs", "xfs", "ENOSPC", size=320, inner=("xfs_bmapi_reserve_delalloc",)),
    Refusal(
        "xfs-user", "xfs", "EDQUOT", (), "loop,uquota", _user_quota, 320, NOBODY,
        inner=("xfs_bmapi_reserve_delalloc",),
    ),
    Refusal(
        "xfs-group", "xfs", "EDQUOT", (), "loop,gquota", _group_quota, 320, NOBODY,
        inner=("xfs_bmapi_reserve_delalloc",),
    ),
    Refusal(
        "xfs-project", "xfs", "ENOSPC", (), "loop,pquota", _xfs_project_quota, 320,
        inner=("xfs_bmapi_reserve_delalloc",),
    ),
    Refusal(
        "xfs-down", "xfs", "EIO", refuse=_shut_down, size=320, late=True, victim="rewrite",
        inner=("xfs_buffered_write_iomap_begin",),
    ),
    Refusal("btrfs", "btrfs", "ENOSPC", size=160, inner=("btrfs_check_data_free_space",)),
    Refusal(
        "btrfs-qgroup", "btrfs", "EDQUOT", refuse=_qgroup, size=160,
        inner=("btrfs_check_data_free_space", "btrfs_delalloc_reserve_metadata"),
    ),
    Refusal("f2fs", "f2fs", "ENOSPC", size=64, inner=("f2fs_reserve_new_blocks",)),
)  # fmt: skip


def prepare(refusal: Refusal, which: str = "") -> Path:
    """Mount it, with a sparse file in it, and make it refuse unless that is for later. The file's path."""
    place = ROOT / "sigbus" / f"{refusal.name}{which}"
    place.mkdir(parents=True)
    image = place.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(refusal.size << 20)
    load_modules("loop", refusal.fstype.replace("ext2", "ext4").replace("ext3", "ext4"))
    run(f"mkfs.{refusal.fstype}", "-q", *refusal.mkfs, str(image))
    give_back(image)
    run("mount", "-t", refusal.fstype, "-o", refusal.mount, str(image), str(place))
    file = place / "file"
    with file.open("wb") as stream:
        stream.truncate(SIZE)
    os.chown(file, refusal.uid, refusal.uid)
    place.chmod(0o777)
    if not refusal.late:
        refusal.refuse(place)
    return file


@dataclass
class Met:
    """What a victim said and what was seen of it."""

    pid: int
    returncode: int
    address: int
    lines: list[str]
    failures: list[Failure]
    #: The report of the first one.
    explained: Explained


class Stage:
    """Runs victims under one watch and keeps what each met."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: list[Failure] = []
        self._explainer = Explainer(session.has_ended, every=True)

    def victim(
        self,
        *arguments: object,
        uid: int = 0,
        count: int = 1,
        meanwhile: Callable[[int], object] | None = None,
        kill: bool = False,
        wrapper: Sequence[str] = (),
    ) -> Met:
        """Run a victim to its end; waits for ``count`` failures.

        ``meanwhile`` is called with its pid when it is ready; ``kill``: one that takes no SIGBUS is ended after that.
        ``wrapper`` is a command that becomes the victim (exec).
        """
        process = self.begin(*arguments, uid=uid, wrapper=wrapper)
        assert process.stdout is not None
        lines = []
        if meanwhile:
            lines.append(process.stdout.readline())
            meanwhile(process.pid)
            if kill and _takes_no_sigbus(process.pid):
                process.kill()
        return self.end(process, lines, count)

    def begin(self, *arguments: object, uid: int = 0, wrapper: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a victim, which says where its mapping is, and may wait for a line."""
        command = [*wrapper, VICTIM, *(a if isinstance(a, bytes) else str(a) for a in arguments)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=uid)

    def end(self, process: subprocess.Popen[str], lines: Sequence[str] = (), count: int = 1) -> Met:
        """Let a victim go on to its end; ``lines`` are those that it was heard to say."""
        lines = [*lines, *process.communicate("\n", timeout=300)[0].splitlines()]
        said = next((line.split() for line in lines if " 0x" in line), ["", "0"])
        found = self.of(process.pid, count)
        assert found, f"{process.args!r}: exit code {process.returncode}, and nothing was seen of it"
        explained = next(iter(self._explainer.explain(found)))
        return Met(process.pid, process.returncode, int(said[1], 16), lines, found, explained)

    def end_of(self, pid: int) -> Met:
        """What was seen of a process that somebody else has started."""
        found = self.of(pid)
        assert found, f"nothing was seen of {pid}"
        return Met(pid, 0, 0, [], found, next(iter(self._explainer.explain(found))))

    def of(self, pid: int, count: int = 1) -> list[Failure]:
        """The failures of a process, once there are ``count``; fewer if they do not come in time."""
        end = time.monotonic() + 60
        while True:
            found = [failure for failure in self._known if failure.pid == pid]
            if len(found) >= count or time.monotonic() > end:
                return found
            self._known += self._session.failures(0.2)

    def seen(self) -> set[int]:
        """The processes of which there were failures, once the session has ended."""
        self._known += self._session.failures()
        return {failure.pid for failure in self._known}


def _takes_no_sigbus(pid: int) -> bool:
    """Whether a process blocks or ignores it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        return False
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk:", "SigIgn:"))]
    return any(mask >> (signal.SIGBUS - 1) & 1 for mask in masks)


def overlay(which: str) -> tuple[Path, Path]:
    """A file of an overlay whose upper filesystem is full, and that filesystem's mount point."""
    refusal = Refusal(f"upper{which}", "ext4", "ENOSPC", size=32, late=True)
    upper = prepare(refusal).parent
    for name in ("lower", "upper", "work"):
        (upper / name).mkdir()
    place = ROOT / f"overlay{which}"
    place.mkdir()
    run("modprobe", "overlay")
    layers = f"lowerdir={upper}/lower,upperdir={upper}/upper,workdir={upper}/work"
    run("mount", "-t", "overlay", "-o", layers, "overlay", str(place))
    with (place / "file").open("wb") as stream:
        stream.truncate(SIZE)
    fill(upper)
    return place / "file", upper


def odd_path(place: Path, which: str) -> bytes:
    """A path of 4,000 bytes, with bytes that are no UTF-8, and some that a terminal or a log would act on."""
    name = b"\xff\n\x1b[31m\\ " + which.encode()
    path = os.fsencode(place)
    while len(path) < 3700:
        path += b"/" + name.ljust(251, b"d")
    Path(os.fsdecode(path)).mkdir(parents=True)
    path += b"/" + b"f" * (3999 - len(path))
    assert len(path) == 4000
    return path
