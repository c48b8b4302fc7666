"""Shared writable mappings: parsing, asking the kernel, and joining them with processes and mounts."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.host import files, mapped, processes, smaps
from tracer.host.mappings import Mapping, MappingReader, beyond_end, covered, link, parse
from tracer.host.mounts import Mounts
from tracer.host.processes import container
from tracer.mappings.rows import rows
from tracer.model.calls import device_name
from tracer.model.options import Filters

MAPS = rb"""559e0f400000-559e0f401000 rw-p 00001000 fe:00 5271 /usr/bin/cat
7f0000000000-7f0000003000 rw-s 00002000 08:11 4711                       /srv/led ger.dat (deleted)
7f0000003000-7f0000004000 r--s 00000000 08:11 4712                       /srv/locked
7f0000005000-7f0000006000 -w-s 00000000 fff:fffff 18446744073709551615   /srv/a\012b
7f0000007000-7f0000008000 rw-s 00000000 00:00 0
7f0000009000-7f000000a000 rw-s 00000000 00:01 1029                       /dev/zero (deleted)
"""
#: No process has it: nothing can be asked about it.
NOBODY = 1 << 30
HELD, OTHER = 5 * mmap.PAGESIZE, 3 * mmap.PAGESIZE


def test_shared_lines_are_taken_and_no_others() -> None:
    found = [mapping for mapping in parse(MAPS, NOBODY) if not mapping.fixed]
    assert [m.name for m in found] == ["/srv/led ger.dat (deleted)", "/srv/a\nb", "/dev/zero (deleted)"]
    first, second, _ = found
    assert (first.start, first.end, first.offset, first.length) == (0x7F0000000000, 0x7F0000003000, 0x2000, 0x3000)
    assert (device_name(first.dev), first.inode, first.writable) == ("8:17", 4711, True)
    assert (device_name(second.dev), second.inode) == ("4095:1048575", (1 << 64) - 1)


@given(st.binary())
def test_no_text_makes_the_parser_raise(text: bytes) -> None:
    parse(text, NOBODY)


def test_covered_ranges_do_not_overlap() -> None:
    def at(offset: int, length: int) -> Mapping:
        return Mapping(1, 0x1000, 0x1000 + length, offset, True, 1, 1, "/f")

    assert covered([at(9, 3), at(0, 4), at(2, 5), at(7, 1)]) == [(0, 8), (9, 12)]
    assert covered([]) == []


@contextmanager
def mapping_of(path: Path, size: int, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> Iterator[mmap.mmap]:
    """A shared mapping of a sparse file that is open for writing."""
    with path.open("wb+") as stream:
        stream.truncate(size)
        with closing(mmap.mmap(stream.fileno(), size, mmap.MAP_SHARED, prot)) as memory:
            yield memory


@pytest.mark.parametrize("query", [True, False])
def test_our_own_mappings_are_found_both_ways(query: bool, tmp_path: Path) -> None:
    written, locked, private = tmp_path / "written\n", tmp_path / "locked", tmp_path / "read"
    private.write_bytes(bytes(HELD))
    with (
        mapping_of(written, HELD),
        mapping_of(locked, OTHER, mmap.PROT_READ),
        private.open("rb") as stream,
        closing(mmap.mmap(stream.fileno(), HELD, mmap.MAP_SHARED, mmap.PROT_READ)),
    ):
        found = {m.name: m for m in MappingReader(query=query).read(os.getpid()) if m.name.startswith(str(tmp_path))}
    assert {Path(name): (m.length, m.writable, m.fixed) for name, m in found.items()} == {
        written: (HELD, True, False),
        locked: (OTHER, False, False),  # mprotect could
        private: (HELD, False, True),
    }
    assert found[str(written)].inode == written.stat().st_ino


def test_both_ways_say_the_same(tmp_path: Path) -> None:
    with mapping_of(tmp_path / "file", HELD):
        asked, searched = (MappingReader(query=query).read(os.getpid()) for query in (True, False))
    assert asked == searched


def test_a_process_that_is_gone_has_no_mappings() -> None:
    assert MappingReader().read(NOBODY) == []
    assert processes.read(NOBODY) is None


def test_a_scan_counts_a_file_once_under_all_its_names(tmp_path: Path) -> None:
    path = tmp_path / "name"
    with mapping_of(path, HELD) as memory:
        memory[0] = 1
        (tmp_path / "b").hardlink_to(path)
        with (tmp_path / "b").open("rb+") as stream, closing(mmap.mmap(stream.fileno(), OTHER)):
            found = mapped.scan(Filters(pids=(os.getpid(),)))
            pages = smaps.of_all([(m.pid, m.start) for file in found.files for m in file.mappings])
    (file,) = (file for file in found.files if file.path.startswith(str(tmp_path)))
    assert (file.path, file.deleted, file.size, file.pids) == (str(tmp_path / "b"), False, HELD, (os.getpid(),))
    assert len(file.mappings) == 2
    assert file.allocated is not None and file.allocated < HELD
    (row,) = (row for row in rows(found, by_file=True, resident=pages) if row.file is file)
    assert (row.mapped, row.writable, row.who) == (HELD, True, found.processes[os.getpid()].label)
    assert row.resident is not None and row.resident >= mmap.PAGESIZE
    assert row.dirty is not None and row.dirty >= mmap.PAGESIZE


def test_a_deleted_file_is_told_from_one_that_is_called_so(tmp_path: Path) -> None:
    called, gone = tmp_path / "x (deleted)", tmp_path / "gone"
    with mapping_of(called, HELD), mapping_of(gone, HELD):
        gone.unlink()
        files_found = mapped.scan(Filters(pids=(os.getpid(),))).files
    assert {(Path(f.path), f.deleted) for f in files_found if f.path.startswith(str(tmp_path))} == {
        (called, False),
        (gone, True),
    }


def test_devices_are_no_files_and_memory_is_counted() -> None:
    with closing(mmap.mmap(-1, HELD)):
        found = mapped.scan(Filters(pids=(os.getpid(),)))
    assert found.memory >= 1
    assert not any(file.path == "/dev/zero" for file in found.files)
    assert any("shared anonymous memory" in note for note in found.notes)


def test_a_mapped_file_can_be_reached_after_it_was_unlinked(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("the kernel's links are for root")
    path = tmp_path / "gone"
    with mapping_of(path, HELD):
        inode = path.stat().st_ino
        path.unlink()
        mappings = [m for m in MappingReader().read(os.getpid()) if m.inode == inode]
        status = files.status(mappings)
        assert status is not None and status.st_ino == inode
        descriptor = files.open_quietly(mappings)
        assert descriptor is not None
        assert os.fstat(descriptor).st_ino == inode
        os.close(descriptor)
    assert not Path(link(mappings[0])).exists()
    with pytest.raises(FileNotFoundError):
        files.status(mappings)
    with pytest.raises(FileNotFoundError):
        files.open_quietly(mappings)


ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("/", ""),
        ("/system.slice/ssh.service", ""),
        (f"/system.slice/docker-{ID}.scope", ID[:12]),
        (f"/docker/{ID}", ID[:12]),
        (f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", ID[:12]),
        (f"/machine.slice/libpod-{ID}.scope/container", ID[:12]),
        (f"/machine.slice/libpod-conmon-{ID}.scope", ""),  # the monitor beside the container
        (f"/kubepods.slice/kubepods-pod1.slice/crio-conmon-{ID}.scope", ""),
        (f"/docker/{ID}/docker/{'f' * 64}", "f" * 12),
        ("/lxc.payload.web/init.scope", "web"),
        ("/machine.slice/machine-db1.scope", "db1"),
        (f"/x{ID}", ""),
    ],
)
def test_a_container_is_known_by_its_cgroup(cgroup: str, expected: str) -> None:
    assert container(cgroup) == expected


SMAPS = b"""7f0000000000-7f0000003000 rw-s 00002000 08:11 4711                       /srv/ledger
Size:                 12 kB
Rss:                   8 kB
Shared_Dirty:          3 kB
Private_Dirty:         4 kB
Shared_Hugetlb:        0 kB
VmFlags: rd wr sh mr mw me ms
7f0000005000-7f0000006000 rw-s 00000000 08:11 4711                       /srv/other
Rss:                   4 kB
VmFlags: rd wr
7f0000200000-7f0000400000 rw-s 00000000 00:0f 77                         /anon_hugepage (deleted)
Rss:                   0 kB
Shared_Hugetlb:     2048 kB
VmFlags: rd wr sh mr mw me ms de ht nr
"""


def test_residency_is_read_for_the_mappings_that_are_wanted() -> None:
    found = smaps.parse(SMAPS, [0x7F0000000000, 0x7F0000200000, 0x1000])
    assert found == {
        0x7F0000000000: smaps.Residency(8 << 10, 7 << 10, False),
        0x7F0000200000: smaps.Residency(2 << 20, 0, True),
    }


@pytest.mark.parametrize(("mode", "size"), [("rb+", 11 * mmap.PAGESIZE), ("rb", 13 * mmap.PAGESIZE)])
def test_pages_beyond_the_end_of_a_file_that_was_cut_are_counted(tmp_path: Path, mode: str, size: int) -> None:
    """Sizes that no other test maps: the kernel remembers the mode of a link in map_files by its addresses."""
    path = tmp_path / "cut"
    path.write_bytes(bytes(size))
    prot = mmap.PROT_READ if mode == "rb" else mmap.PROT_READ | mmap.PROT_WRITE
    with path.open(mode) as stream, closing(mmap.mmap(stream.fileno(), size, mmap.MAP_SHARED, prot)):
        assert mapped.scan(Filters(pids=(os.getpid(),))).cut == ()
        os.truncate(path, 2 * mmap.PAGESIZE + 1)
        found = mapped.scan(Filters(pids=(os.getpid(),)))
    (file,) = (file for file in found.cut if file.path == str(path))
    assert (file.beyond, file.pids) == (size - 3 * mmap.PAGESIZE, (os.getpid(),))
    assert (str(path) in {file.path for file in found.files}) == (mode == "rb+")
    assert beyond_end([*file.mappings, *file.mappings], 0) == size
    assert beyond_end(file.mappings, size - 1) == 0


def test_every_filter_on_who_and_where_narrows_a_look_down(tmp_path: Path) -> None:
    """Those of tracing, but for handlers: a mapping has none."""
    path = tmp_path / "one"
    own = Filters(pids=(os.getpid(),))
    comm = Path("/proc/self/comm").read_text().rstrip("\n")
    cgroup = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].splitlines()[0]
    here = max((m for m in Mounts.read() if tmp_path.is_relative_to(m.mountpoint)), key=lambda m: len(m.mountpoint))

    def found(filters: Filters) -> bool:
        return any(file.path == str(path) for file in mapped.scan(filters).files)

    with mapping_of(path, HELD):
        assert found(own)
        for right in ({"comms": (comm,)}, {"cgroups": (cgroup,)}, {"mounts": (here.mountpoint,)}):
            assert found(replace(own, **right)), right
        for wrong in ({"comms": ("x",)}, {"cgroups": ("/none",)}, {"mounts": ("/proc",)}):
            assert not found(replace(own, **wrong)), wrong
