"""What each mounted filesystem does with a write to a mapping, told from the mount table."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tracer.host.mounts import Mounts
from tracer.host.peers import FuseDaemon, Peer, fuse_daemons, peer_of
from tracer.mappings.mounted import MountedFilesystem, filesystems
from tracer.model.filesystems import KNOWN, Refusal, rules
from tracer.ui.mounted import MountedView

TABLE = b"""\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:5 / /proc rw - proc proc rw
3 1 0:30 / /dev/shm rw - tmpfs tmpfs rw
4 1 8:2 / /data rw - xfs /dev/sda2 rw,dax=always
5 1 0:40 / /srv/nfs rw - nfs4 10.0.0.7:/export rw,vers=4.2
6 1 0:41 / /home/a/remote rw - fuse.sshfs a@host:/ rw
7 1 0:42 / /mnt/other rw - fuse.other other rw
8 1 0:43 / /nine rw - 9p share rw,cache=f
9 1 0:44 / /none rw - 9p share rw,access=any
10 1 0:45 / /merged rw - overlay overlay rw,lowerdir=/l,upperdir=/data/u,workdir=/data/w
11 1 8:3 / /disc rw - udf /dev/sr0 rw
12 1 31:0 / /flash rw - jffs2 /dev/mtdblock0 rw
13 1 8:4 / /odd rw - oddfs /dev/sdd rw
14 1 8:2 /sub /bind rw - xfs /dev/sda2 rw,dax=always
"""
SSHFS = FuseDaemon(812, "sshfs", ("sshfs", "a@host:/", "/home/a/remote"))
OTHER = FuseDaemon(813, "other", ("other",), 42)
XFS_DAX = ("xfs_filemap_fault", "xfs_filemap_huge_fault", "xfs_filemap_pfn_mkwrite")


def rows(has: object = True) -> dict[str, MountedFilesystem]:
    found = filesystems(Mounts.parse(TABLE), [SSHFS, OTHER], lambda name: bool(has))
    return {row.mount.mountpoint: row for row in found}


def test_each_device_is_told_once_and_the_kernels_own_files_are_not() -> None:
    assert list(rows()) == [
        "/", "/data", "/dev/shm", "/disc", "/flash", "/home/a/remote", "/merged", "/mnt/other", "/nine", "/none",
        "/odd", "/srv/nfs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mountpoint", "handlers", "refusal", "errno"),
    [
        ("/", ("ext4_page_mkwrite",), Refusal.FAULT, True),
        ("/data", XFS_DAX, Refusal.FAULT, True),
        ("/merged", XFS_DAX, Refusal.FAULT, True),
        ("/dev/shm", (), Refusal.FAULT, True),
        ("/disc", ("udf_page_mkwrite",), Refusal.FAULT, True),
        ("/flash", (), Refusal.MAPPING, False),
        ("/nine", ("v9fs_vm_page_mkwrite",), Refusal.WRITEBACK, False),
        ("/none", (), Refusal.MAPPING, False),
        ("/srv/nfs", ("nfs_vm_page_mkwrite",), Refusal.WRITEBACK, False),
        ("/odd", (), Refusal.UNKNOWN, False),
    ],
)
def test_what_is_asked_and_when_it_refuses(
    mountpoint: str, handlers: tuple[str, ...], refusal: Refusal, errno: bool
) -> None:
    row = rows()[mountpoint]
    assert (row.handlers, row.refusal, row.errno) == (handlers, refusal, errno)


def test_dax_mounts_have_other_functions_that_are_asked() -> None:
    row = rows()["/data"]
    assert row.handlers == XFS_DAX
    table = b"4 1 8:2 / /data rw - ext4 /dev/pmem0 rw,dax=always\n"
    (row,) = filesystems(Mounts.parse(table), [], lambda name: True)
    assert (row.handlers, row.errno) == (("ext4_dax_fault", "ext4_dax_huge_fault"), True)


def test_a_kernel_without_the_handler_has_the_older_rules() -> None:
    row = rows(has=False)["/disc"]
    assert (row.handlers, row.refusal) == (("filemap_page_mkwrite",), Refusal.WRITEBACK)


def test_in_a_container_the_upper_directory_is_not_seen() -> None:
    table = b"1 0 0:45 / / rw - overlay overlay rw,upperdir=/var/lib/u\n"
    (row,) = filesystems(Mounts.parse(table), [], lambda name: True)
    assert (row.handlers, row.refusal, row.known) == ((), Refusal.UNKNOWN, False)


def test_peers_are_named() -> None:
    peers = {mountpoint: row.peer for mountpoint, row in rows().items() if row.peer}
    assert peers == {
        "/home/a/remote": Peer("sshfs", 812),
        "/mnt/other": Peer("other", 813),
        "/nine": Peer("share"),
        "/none": Peer("share"),
        "/srv/nfs": Peer("10.0.0.7:/export"),
    }
    assert peers["/mnt/other"].label == "other[813]"


def test_one_of_several_daemons_is_not_guessed() -> None:
    mount = Mounts.parse(TABLE).at("/mnt/other")
    assert mount is not None
    assert peer_of(mount, [FuseDaemon(1, "a", ()), FuseDaemon(2, "b", ())]) is None
    assert peer_of(mount, [FuseDaemon(1, "a", ())]) == Peer("a", 1)


def test_daemons_are_found_by_the_device_that_they_hold(tmp_path: Path) -> None:
    for pid, target, info in (
        (7, "/dev/null", b""),
        (9, "/dev/fuse", b"pos:\t0\nfuse_connection:\t42\n"),
        (30, "/dev/fuse", b""),
    ):
        process = tmp_path / str(pid)
        (process / "fd").mkdir(parents=True)
        (process / "fdinfo").mkdir()
        (process / "fd" / "3").symlink_to(target)
        (process / "fdinfo" / "3").write_bytes(info)
        (process / "comm").write_bytes(b"d\x1b\n")
        (process / "cmdline").write_bytes(b"d\0/mnt\0")
    (tmp_path / "31").mkdir()  # may not be looked into
    several = tmp_path / "9"
    for number, connection in ((4, 42), (5, 43)):
        (several / "fd" / str(number)).symlink_to("/dev/fuse")
        (several / "fdinfo" / str(number)).write_bytes(b"fuse_connection:\t%d\n" % connection)
    (several / "fd" / "6").write_text("no link: closed between two looks")
    (several / "fd" / "7").symlink_to("/dev/fuse")  # and its fdinfo is gone
    assert fuse_daemons(tmp_path) == [
        FuseDaemon(9, "d\x1b", ("d", "/mnt", ""), 42),
        FuseDaemon(9, "d\x1b", ("d", "/mnt", ""), 43),
        FuseDaemon(30, "d\x1b", ("d", "/mnt", ""), None),
    ]


def test_every_handler_that_is_known_says_where_the_kernel_has_it() -> None:
    for fstype in KNOWN:
        known = rules(fstype)
        assert not known.handler or known.source.endswith(".c"), fstype


def test_the_table_fits_and_escapes() -> None:
    table = TABLE + b"20 1 0:99 / /\\033[31mred/" + b"d" * 200 + b" rw - nfs evil\\033:/ rw\n"
    shown = filesystems(Mounts.parse(table), [SSHFS, OTHER], lambda name: True)
    for width in (40, 80, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(MountedView(shown))
        text = console.export_text()
        assert "\x1b" not in text and all(len(line) <= width for line in text.splitlines())


def test_json_has_every_field() -> None:
    assert rows()["/home/a/remote"].to_dict() == {
        "mountpoint": "/home/a/remote",
        "fstype": "fuse.sshfs",
        "device": "0:41",
        "source": "a@host:/",
        "peer": "sshfs",
        "peer_pid": 812,
        "handlers": ["fuse_page_mkwrite"],
        "notifies": True,
        "refusal": "writeback",
        "errno_exact": False,
        "kernel_source": "fs/fuse/file.c",
    }
