"""The mount table: parsing mountinfo, choosing the mount of a device, following changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.host.mounts import Mounts, MountTable
from tracer.model.calls import Filesystem

MOUNTINFO = rb"""27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
30 27 0:27 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=64k
41 27 0:44 /@home /home rw shared:7 master:3 - btrfs /dev/vdb rw,subvol=/@home
42 27 0:44 / /mnt/btrfs/all rw - btrfs /dev/vdb rw,subvolid=5
43 27 0:44 /@home/ann /a rw - btrfs /dev/vdb rw
50 27 8:17 / /mnt/with\040space\134and\011tab rw - xfs /dev/sdb1 rw
51 27 0:51 / /mnt/sshfs rw - fuse.sshfs ann@host: rw
52 27 0:52 / /mnt/nameless rw - tmpfs  rw
"""


def line(dev: str = "8:1", root: str = "/", mountpoint: str = "/mnt", fstype: str = "ext4") -> bytes:
    """One line of mountinfo."""
    return f"36 35 {dev} {root} {mountpoint} rw - {fstype} /dev/sda1 rw\n".encode()


def test_every_field_of_a_line_is_read() -> None:
    mount = Mounts.parse(MOUNTINFO).entries[2]
    assert (mount.mount_id, mount.dev, mount.root, mount.mountpoint) == (41, 44, "/@home", "/home")
    assert (mount.options, mount.fstype, mount.source) == (("rw",), "btrfs", "/dev/vdb")
    assert mount.super_options == ("rw", "subvol=/@home")


def test_all_lines_of_a_good_file_are_understood() -> None:
    mounts = Mounts.parse(MOUNTINFO)
    assert (len(mounts.entries), mounts.skipped) == (8, 0)


def test_device_numbers_are_in_the_kernels_encoding() -> None:
    assert Mounts.parse(line("254:0")).entries[0].dev == 254 << 20
    assert Mounts.parse(line("4095:1048575")).entries[0].dev == (1 << 32) - 1


def test_octal_escapes_are_undone() -> None:
    assert Mounts.parse(MOUNTINFO).entries[5].mountpoint == "/mnt/with space\\and\ttab"


def test_an_empty_source_is_no_garbage() -> None:
    assert Mounts.parse(MOUNTINFO).entries[7].source == ""


def test_optional_fields_may_look_like_anything() -> None:
    text = b"36 35 8:1 / /mnt rw shared:1 - - ext4 /dev/sda1 rw\n"
    assert Mounts.parse(text).entries[0].fstype == "-"  # the first "-" ends them
    assert Mounts.parse(b"36 35 8:1 / - rw - ext4 /dev/sda1 rw\n").entries[0].mountpoint == "-"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\n\n",
        b"36 35 8:1 / /mnt rw",
        b"36 35 8:1 / /mnt rw shared:1 ext4 /dev/sda1 rw",
        b"36 35 8:1 / /mnt rw - ext4",
        b"36 35 81 / /mnt rw - ext4 /dev/sda1 rw",
        b"36 35 -8:1 / /mnt rw - ext4 /dev/sda1 rw",
        b"36 35 8:1_0 / /mnt rw - ext4 /dev/sda1 rw",
        b"36 35 4096:0 / /mnt rw - ext4 /dev/sda1 rw",
        b"36 35 8:1048576 / /mnt rw - ext4 /dev/sda1 rw",
        b"x 35 8:1 / /mnt rw - ext4 /dev/sda1 rw",
    ],
)
def test_a_line_that_is_none_is_skipped_and_counted(bad: bytes) -> None:
    mounts = Mounts.parse(bad + b"\n" + line())
    assert [mount.mountpoint for mount in mounts] == ["/mnt"]
    assert mounts.skipped == (1 if bad.strip() else 0)


@given(st.binary())
def test_no_bytes_make_the_parser_raise(text: bytes) -> None:
    mounts = Mounts.parse(text)
    assert len(mounts.entries) + mounts.skipped == len([part for part in text.split(b"\n") if part])


@given(st.lists(st.sampled_from([*MOUNTINFO.split(b"\n"), b" ", b"\\", b"-", b"\xff", b"99999999999999"]), max_size=9))
def test_pieces_of_good_lines_never_make_it_raise(pieces: list[bytes]) -> None:
    Mounts.parse(b" ".join(pieces))
    Mounts.parse(b"".join(pieces))


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_a_mount_point_is_read_as_it_was_made(name: bytes) -> None:
    """For every name that a directory can have, the kernel's escapes applied."""
    shown = b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in name)
    text = b"36 35 8:1 / /" + shown + b" rw - ext4 /dev/sda1 rw\n"
    (mount,) = Mounts.parse(text)
    assert os.fsencode(mount.mountpoint) == b"/" + name


def test_the_whole_filesystem_stands_for_its_parts() -> None:
    assert Mounts.parse(MOUNTINFO).best_mountpoint(44) == "/mnt/btrfs/all"


def test_among_equals_the_shortest_path_stands() -> None:
    text = line(mountpoint="/long/er") + line(mountpoint="/b") + line(mountpoint="/a")
    assert Mounts.parse(text).best_mountpoint(8 << 20 | 1) == "/a"


@given(st.permutations([line(root=root, mountpoint=at) for root in ("/", "/x") for at in ("/a", "/b", "/cc")]))
def test_the_choice_does_not_depend_on_the_order(lines: list[bytes]) -> None:
    assert Mounts.parse(b"".join(lines)).best_mountpoint(8 << 20 | 1) == "/a"


def test_an_unknown_device_is_mounted_nowhere() -> None:
    assert Mounts.parse(MOUNTINFO).best_mountpoint(12345) == ""


def test_at_finds_what_is_visible_there() -> None:
    mounts = Mounts.parse(MOUNTINFO + line(fstype="xfs", mountpoint="/home"))
    visible = mounts.at("/home/")
    assert visible is not None and visible.fstype == "xfs"
    assert mounts.at("/hom") is None


def test_this_hosts_own_table_is_understood() -> None:
    mounts = Mounts.read()
    assert mounts.skipped == 0
    assert mounts.at("/proc") is not None


def test_the_table_answers_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_bytes(MOUNTINFO)
    with MountTable(file) as table:
        assert place(table, 44) == ("btrfs", "/mnt/btrfs/all")
        assert place(table, 51) == ("fuse.sshfs", "/mnt/sshfs")
        assert place(table, 12345) is None
    assert place(table, 44) == ("btrfs", "/mnt/btrfs/all")


def place(table: MountTable, dev: int, generation: int = 0) -> tuple[str, str] | None:
    """Type and mount point."""
    mount = table.find(Filesystem(dev, generation))
    return mount and (mount.fstype, mount.mountpoint)


class Numbers:
    """A mountinfo file, and what has ended so far by device number."""

    def __init__(self, directory: Path, exact: bool) -> None:
        self._file = directory / "mountinfo"
        self.mount()
        self.ended: dict[int, int] = {}
        self.table = MountTable(self._file)
        self.table.follow(lambda: dict(self.ended), exact)

    def mount(self, *places: tuple[str, str]) -> None:
        """Write the file with these types and mount points, all of device 0:45."""
        self._file.write_text(
            "".join(f"{30 + n} 1 0:45 / {at} rw - {kind} none rw\n" for n, (kind, at) in enumerate(places))
        )


def test_a_mount_belongs_to_the_generation_of_its_time(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path, exact=True)
    with numbers.table as table:
        numbers.mount(("tmpfs", "/b"))
        assert place(table, 45) == ("tmpfs", "/b")
        numbers.mount()
        numbers.ended[45] = 1
        assert (place(table, 45), place(table, 45, 1)) == (("tmpfs", "/b"), None)
        numbers.mount(("overlay", "/c"))
        numbers.ended[45] = 2
        assert place(table, 45, 2) == ("overlay", "/c")
        assert (place(table, 45), place(table, 45, 1)) == (("tmpfs", "/b"), None)
        table.forget(lambda filesystem: filesystem.generation < 2)
        numbers.mount()
        assert (place(table, 45), place(table, 45, 2)) == (None, ("overlay", "/c"))


def test_a_mount_that_is_read_while_its_number_changes_hands_is_nobodys(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path, exact=True)
    with numbers.table as table:
        numbers.mount(("tmpfs", "/b"))
        readings = iter((0, 1))
        table._generations = lambda: {45: next(readings, 1)}
        assert place(table, 45, 1) is None
        table._absent.clear()
        assert place(table, 45, 1) == ("tmpfs", "/b")
        assert place(table, 45) is None


def test_without_ends_that_are_seen_a_filesystem_that_was_met_keeps_its_mount(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path, exact=False)
    with numbers.table as table:
        numbers.mount(("tmpfs", "/b"))
        numbers.ended[45] = 0  # met
        assert place(table, 45) == ("tmpfs", "/b")
        numbers.mount(("tmpfs", "/c"))
        table._refresh()
        assert place(table, 45) == ("tmpfs", "/b")
        numbers.ended[45] = 1  # the next one was met
        assert (place(table, 45), place(table, 45, 1)) == (("tmpfs", "/b"), ("tmpfs", "/c"))


def test_without_ends_that_are_seen_a_mount_that_is_gone_and_was_never_met_is_forgotten(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path, exact=False)
    with numbers.table as table:
        numbers.mount(("tmpfs", "/b"))
        assert place(table, 45) == ("tmpfs", "/b")
        numbers.mount()
        table._refresh()
        numbers.ended[45] = 0  # met for the first time, in another mount namespace
        assert place(table, 45) is None


_FOLLOW = """
import os, subprocess, sys
from pathlib import Path
from tracer.host import mounts
from tracer.model.calls import Filesystem

def run(*command): subprocess.run(command, check=True)
def dev(path):
    number = os.stat(path).st_dev
    return os.major(number) << 20 | os.minor(number)

readings = []
plain = mounts.MountChanges.read
mounts.MountChanges.read = lambda changes: readings.append(1) or plain(changes)
long, short = sys.argv[1] + "/longer", sys.argv[1] + "/s"
for place in (long, short): os.mkdir(place)
table = mounts.MountTable()
assert len(readings) == 1
def lookup(number): return table.find(Filesystem(number)).mountpoint
run("mount", "-t", "tmpfs", "none", long)
number = dev(long)
assert lookup(number) == long
for _ in range(5): lookup(number)
assert len(readings) == 2, "read again without a change"
run("mount", "--bind", long, short)
assert lookup(number) == long, "the label changed while it held"
run("umount", long)
assert lookup(number) == short, "the label outlived its mount although there is another"
run("umount", short)
assert lookup(number) == short, "forgotten after umount"
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a mount namespace of its own",
)
def test_the_table_follows_mounts_and_remembers_them(tmp_path: Path) -> None:
    command = ["unshare", "-m", sys.executable, "-c", _FOLLOW, str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_a_fuse_filesystem_is_of_its_type_with_the_subtype_or_without() -> None:
    (mount,) = Mounts.parse(b"30 1 0:40 / /srv rw - fuse.sshfs host:/ rw\n").entries
    assert mount.kernel_type == "fuse"
    assert [mount.is_of(types) for types in ((), ("fuse",), ("fuse.sshfs", "xfs"), ("sshfs", "xfs"))] == [
        True, True, True, False,
    ]  # fmt: skip


def test_a_backing_device_is_named_by_a_mount_of_its_filesystem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.host.mounts._disk", lambda dev: "8:16" if dev == 8 << 20 | 17 else "")
    mounts = Mounts.parse(MOUNTINFO)
    names = ("0:51-fuse", "0:44", "8:16", "8:17", "8:0", "mtd")
    assert [mounts.of_bdi(name) for name in names] == [
        "/mnt/sshfs", "/mnt/btrfs/all", "/mnt/with space\\and\ttab", "/mnt/with space\\and\ttab", "", "",
    ]  # fmt: skip
