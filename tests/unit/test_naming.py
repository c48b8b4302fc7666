"""From the programs' numbers and bytes to names: paths, outcomes, and labels that stay as they were."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import process_of

from tracer.decode.names import Naming, path_of
from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts, MountTable
from tracer.kernel.symbols import Symbols
from tracer.model.calls import FaultPath, Filesystem, Initiator, Outcome
from tracer.model.failures import Cause, Class, FailureSource
from tracer.model.options import By
from tracer.model.waits import Wait
from tracer.probes.abi import VALID, WRITE_PROTECT
from tracer.probes.records import RawSeries

# path_of: what write_path of bpf/event.h leaves.

#: Names of directory entries: 1 to 255 bytes without a slash or NUL.
NAMES = st.binary(min_size=1, max_size=255).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_"))


def left(*names: bytes) -> bytes:
    """The bytes for a path of these components: the last one first, each ended by a NUL."""
    return b"".join(name + b"\0" for name in reversed(names))


def test_components_come_in_reverse() -> None:
    assert path_of(b"wal\0data\0srv\0", deleted=False, cut=False) == "/srv/data/wal"


def test_a_path_that_is_not_known_is_empty() -> None:
    assert path_of(b"", deleted=False, cut=False) == ""
    assert path_of(b"", deleted=True, cut=True) == ""


def test_a_deleted_file_is_marked_as_the_kernel_does() -> None:
    assert path_of(left(b"srv", b"gone"), deleted=True, cut=False) == "/srv/gone (deleted)"


def test_a_path_that_was_cut_says_so_at_its_front() -> None:
    assert path_of(left(b"deep", b"file"), deleted=False, cut=True) == ".../deep/file"
    assert path_of(left(b"deep", b"file"), deleted=True, cut=True) == ".../deep/file (deleted)"


def test_bytes_that_are_no_utf_8_survive() -> None:
    found = path_of(left(b"srv", b"caf\xe9", "ü".encode()), deleted=False, cut=False)
    assert found == "/srv/caf\udce9/ü"
    assert os.fsencode(found) == b"/srv/caf\xe9/\xc3\xbc"


def test_control_characters_are_left_for_the_printer_to_escape() -> None:
    assert path_of(left(b"a\nb", b"\x1b[31m"), deleted=False, cut=False) == "/a\nb/\x1b[31m"


@given(st.lists(NAMES, min_size=1, max_size=20))
def test_every_path_comes_back_byte_by_byte(names: list[bytes]) -> None:
    found = path_of(left(*names), deleted=False, cut=False)
    assert found.encode("utf-8", "surrogateescape") == b"/" + b"/".join(names)


# Names of whole series and events.

DEV: Final = 8 << 20 | 1
FS: Final = Filesystem(DEV)
HANDLER: Final = 0xFFFFFFFF81000100


class Host:
    """A host's tables, from files: one mount, one handler, one cgroup."""

    def __init__(self, root: Path) -> None:
        self.hierarchy = root / "cgroup"
        (self.hierarchy / "db.service").mkdir(parents=True)
        self.mountinfo = root / "mountinfo"
        self.mountinfo.write_text(
            f"30 1 8:1 / /srv rw - fuse.sshfs /dev/sda1 rw\n31 1 0:30 / {self.hierarchy} rw - cgroup2 cgroup2 rw\n"
        )
        (root / "kallsyms").write_text(f"{HANDLER:x} t fuse_page_mkwrite\n")
        (root / "modules").write_text("")
        self._symbols = Symbols(proc=root)
        self.mounts = MountTable(self.mountinfo)

    def naming(self, by: By | None = None) -> Naming:
        return Naming(by, self._symbols, self.mounts, Cgroups(Mounts.read(self.mountinfo)))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.mounts.close()


def raw(who: int = 0, dev: int = DEV, kind: int = VALID) -> RawSeries:
    return RawSeries(HANDLER, who, dev, kind)


def event(series: RawSeries, comm: bytes = b"postgres", fstype: bytes = b"fuse") -> SimpleNamespace:
    """A struct event of bpf/event.h."""
    return SimpleNamespace(
        series=SimpleNamespace(**series._asdict()), time_ns=1000, latency_ns=77, id=4242 << 32 | 4243, cgroup=9,
        inode=12, pgoff=3, address=0x7000, uid=33, vm_fault=2, deleted=0, comm=comm, fstype=fstype,
        waits=[0, 13, *[0] * 8],
    )  # fmt: skip


def test_a_series_has_the_names_of_its_numbers(host: Host) -> None:
    series = host.naming().series(raw(kind=VALID | WRITE_PROTECT | 2 << 1 | 4 << 3), {FS: "fuse"})
    assert (series.fstype, series.mountpoint, series.dev, series.handler) == ("fuse", "/srv", DEV, "fuse_page_mkwrite")
    assert (series.path, series.initiator, series.outcome) == (
        FaultPath.WRITE_PROTECT,
        Initiator.REMOTE,
        Outcome.SIGBUS,
    )
    assert series.who == ""
    first = host.naming().series(raw(), {})
    assert (first.path, first.initiator, first.outcome) == (FaultPath.FIRST_WRITE, Initiator.USER, Outcome.WRITABLE)
    assert first.fstype == "fuse.sshfs"  # mountinfo's, for want of the kernel's own


def test_a_device_mounted_nowhere_keeps_the_kernels_name_of_its_type(host: Host) -> None:
    series = host.naming().series(raw(dev=DEV + 1), {Filesystem(DEV + 1): "ext4"})
    assert (series.fstype, series.mountpoint) == ("ext4", "")


def test_what_has_the_device_number_next_has_none_of_the_names(host: Host) -> None:
    generations: dict[int, int] = {}
    host.mounts.follow(lambda: generations, exact=True)
    naming = host.naming(By.FILE)
    naming.name_series(FS, 12, b"", "/srv/wal")
    before = naming.series(raw(12), {FS: "fuse"})
    # Unmounted here; mounted in another mount namespace, which says nothing to this one.
    host.mountinfo.write_text("".join(host.mountinfo.read_text().splitlines(keepends=True)[1:]))
    generations[DEV] = 1
    after = naming.series(raw(12).of(1), {FS: "fuse", Filesystem(DEV, 1): "tmpfs"})
    assert naming.series(raw(12), {FS: "fuse"}) == before
    assert (before.fstype, before.mountpoint, before.who, before.generation) == ("fuse", "/srv", "/srv/wal", 0)
    assert (after.fstype, after.mountpoint, after.source, after.who) == ("tmpfs", "", "", "inode 12")
    assert (after.dev, after.generation, after.nameless == before.nameless) == (DEV, 1, False)


def test_a_mount_of_another_type_is_not_the_filesystems(host: Host) -> None:
    series = host.naming().series(raw(), {FS: "tmpfs"})
    assert (series.fstype, series.mountpoint, series.source) == ("tmpfs", "", "")


def test_a_path_within_a_filesystem_is_below_its_mount_point_if_that_is_known(host: Host) -> None:
    naming = host.naming()
    assert [naming.file_at(FS, "fuse", path) for path in ("/a/b", "")] == ["/srv/a/b", ""]
    assert naming.file_at(FS, "tmpfs", "/a") == naming.file_at(Filesystem(77), "fuse", "/a") == ".../a"


def test_a_failure_of_the_last_filesystem_is_not_judged_by_the_type_of_the_next(host: Host) -> None:
    full = Cause(0, DEV, 0, errno.ENOSPC, tuple(FailureSource).index(FailureSource.FAULT), 0)
    fstypes = {FS: "tmpfs", Filesystem(DEV, 1): "btrfs"}
    naming = host.naming()
    assert naming.failure_series(full, fstypes).kind is Class.TMPFS_FULL
    assert naming.failure_series(full._replace(error=errno.EIO, generation=1), fstypes).kind is Class.MEDIA
    series = [naming.failure_series(full._replace(generation=number), fstypes) for number in (0, 1)]
    assert series[0].nameless != series[1].nameless


def test_names_of_what_has_ended_are_dropped(host: Host) -> None:
    naming = host.naming(By.FILE)
    naming.name_series(FS, 12, b"", "/srv/wal")
    naming.end(lambda filesystem: filesystem == FS)
    assert naming.series(raw(12).of(1), {}).who == "inode 12"
    assert naming._who.keys() == {(Filesystem(DEV, 1), 12)}


def test_a_process_is_called_as_it_was_first_called(host: Host) -> None:
    naming = host.naming(By.PROCESS)
    pid = os.getpid()
    process = process_of(pid)
    comm = Path("/proc/self/comm").read_text().strip()
    assert naming.series(raw(process), {}).who == f"{comm}[{pid}]"
    naming.name_series(FS, process, b"renamed", "")
    assert naming.series(raw(process), {}).who == f"{comm}[{pid}]"


def test_a_process_that_is_gone_has_the_name_that_its_event_brought(host: Host) -> None:
    gone = 1 << 30  # above any pid_max
    naming = host.naming(By.PROCESS)
    naming.name_series(FS, gone, b"dd \xff", "")
    assert naming.series(raw(gone), {}).who == f"dd \udcff[{gone}]"
    assert host.naming(By.PROCESS).series(raw(gone), {}).who == f"?[{gone}]"


def test_a_pid_that_is_used_again_is_another_process(host: Host) -> None:
    pid, naming = os.getpid(), host.naming(By.PROCESS)
    first, second, unnamed = (began << 32 | pid for began in (7, 8, 9))
    naming.name_series(FS, first, b"first", "")
    naming.name_series(FS, second, b"second", "")
    assert naming.series(raw(first), {}).who == f"first[{pid}]"
    assert naming.series(raw(second), {}).who == f"second[{pid}]"
    # Not that of the process that has the pid now.
    assert naming.series(raw(unnamed), {}).who == f"?[{pid}]"


def test_a_file_keeps_the_name_that_it_is_first_counted_under(host: Host) -> None:
    naming = host.naming(By.FILE)
    naming.name_series(FS, 12, b"", "")  # an event without a path names nothing
    naming.event(event(raw(12)), "")
    naming.name_series(FS, 12, b"", "/srv/wal")
    naming.name_series(FS, 12, b"", "/srv/renamed")
    assert naming.series(raw(12), {}).who == "/srv/wal"
    # Counts under another name would be counted twice.
    assert naming.series(raw(13), {}).who == "inode 13"
    naming.name_series(FS, 13, b"", "/srv/late")
    assert naming.series(raw(13), {}).who == "inode 13"


def test_the_same_inode_number_on_another_device_is_another_file(host: Host) -> None:
    naming = host.naming(By.FILE)
    naming.name_series(FS, 12, b"", "/srv/wal")
    assert naming.series(raw(12, dev=DEV + 1), {}).who == "inode 12"


def test_a_process_has_one_name_on_all_devices(host: Host) -> None:
    gone = 1 << 30
    naming = host.naming(By.PROCESS)
    naming.name_series(FS, gone, b"postgres", "")
    assert naming.series(raw(gone, dev=DEV + 1), {}).who == f"postgres[{gone}]"


def test_a_cgroup_keeps_its_path_when_it_is_gone(host: Host) -> None:
    naming = host.naming(By.CGROUP)
    group = host.hierarchy / "db.service"
    number = group.stat().st_ino
    assert naming.series(raw(number), {}).who == "/db.service"
    group.rmdir()
    assert naming.series(raw(number), {}).who == "/db.service"


def test_an_event_says_what_the_program_saw(host: Host) -> None:
    call = host.naming().event(event(raw(kind=VALID | 4 << 3), comm=b"a\xffb"), "/srv/wal")
    assert (call.pid, call.tid, call.uid, call.comm) == (4242, 4243, 33, "a\udcffb")
    assert (call.fstype, call.mountpoint, call.dev, call.inode) == ("fuse", "/srv", DEV, 12)
    assert (call.file, call.deleted, call.offset, call.address) == ("/srv/wal", False, 3 * 4096, 0x7000)
    assert (call.outcome, call.latency_ns, call.vm_fault) == (Outcome.SIGBUS, 77, 2)
    assert call.waits == {Wait.JOURNAL: 13}
    # An event that comes without a type (see report_raced) has mountinfo's.
    assert host.naming().event(event(raw(), fstype=b""), "").fstype == "fuse.sshfs"


@pytest.mark.parametrize(("by", "name"), [(By.FILE, "/srv/7"), (By.PROCESS, "dd[7]")])
def test_names_that_nothing_is_counted_under_are_dropped_once_there_are_too_many(host: Host, by: By, name: str) -> None:
    naming = host.naming(by)
    for number in range(100):
        naming.name_series(Filesystem(1), number, b"dd", f"/srv/{number}")
        naming.keep([(Filesystem(1), 7)], 50)
    assert len(naming._who) <= 51
    assert naming.series(raw(7, dev=1), {}).who == name
