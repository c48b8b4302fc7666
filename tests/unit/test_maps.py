"""`maps`: the rows, the table and the JSON."""

from __future__ import annotations

import json
import mmap
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner
from shown import ESCAPED, render

from tracer.cli.main import cli
from tracer.host.mapped import MappedFile, Scan
from tracer.host.mappings import Mapping
from tracer.host.processes import Process
from tracer.mappings.rows import rows
from tracer.model.filesystems import KNOWN, Fallocate, rules
from tracer.ui.maps import MapsView

HOSTILE = "/srv/a\x1b[31m\nb[red]\u202ec" + b"\xff".decode(errors="surrogateescape")


def mapping(pid: int, length: int, offset: int = 0, writable: bool = True) -> Mapping:
    return Mapping(pid, 0x1000, 0x1000 + length, offset, writable, 1, 7, "/srv/f")


def file(*mappings: Mapping, path: str = "/srv/f", fstype: str = "ext4", size: int | None = 1 << 30) -> MappedFile:
    return MappedFile(path, False, 1, 7, fstype, "/srv", "/dev/sda", size, size and 4096, mappings)


def process(pid: int, comm: str = "postgres", container: str = "") -> Process:
    return Process(pid, comm, 26, False, "/", container)


def scan(*files: MappedFile, **containers: str) -> Scan:
    pids = {pid for file in files for pid in file.pids}
    known = {pid: process(pid, container=containers.get(f"p{pid}", "")) for pid in pids}
    return Scan(files, known, {8: "a", 9: "b"}, 3)


def test_a_row_for_each_process_or_for_each_file() -> None:
    found = scan(file(mapping(1, 4096), mapping(2, 8192), mapping(2, 8192, 4096, writable=False)))
    assert [(row.who, row.mapped, row.writable) for row in rows(found)] == [
        ("postgres[2]", 12288, True),
        ("postgres[1]", 4096, True),
    ]
    assert [(row.who, row.mapped, row.pids) for row in rows(found, by_file=True)] == [("2 processes", 12288, (1, 2))]


def test_the_table_keeps_the_file_at_80_columns_and_has_all_at_200() -> None:
    view = MapsView(rows(scan(file(mapping(1, 4096)), p1="0123456789ab")), ("look\x1b out",))
    narrow, wide = render(view, 80), render(view, 200)
    assert narrow[0].split()[0] == "PROCESS" and narrow[0].endswith("FILE")
    assert narrow[1].endswith("/srv/f")
    assert "ext4_page_mkwrite" in wide[1] and "0123456789ab" in wide[1] and "1.0 GiB" in wide[1]
    assert wide[2:] == ["1 file, mapped by 1 process", r"note: look\x1b out"]


def test_what_could_not_be_asked_is_a_dash_and_hostile_names_are_escaped() -> None:
    found = scan(file(mapping(1, 4096, writable=False), path=HOSTILE, fstype="nfs4", size=None))
    line = render(MapsView(rows(found), ()))[1]
    assert line.split()[2:] == ["nfs_vm_page_mkwrite", "could", "4.0", "KiB", "-", "-", "/srv/" + ESCAPED]


def test_json_of_a_real_mapping(tmp_path: Path) -> None:
    path = tmp_path / "ledger\n"
    with path.open("wb+") as stream:
        stream.truncate(3 * mmap.PAGESIZE)
        with closing(mmap.mmap(stream.fileno(), 0)):
            done = CliRunner().invoke(cli, ["maps", "--json", "--pid", str(os.getpid()), "--resident"])
            table = CliRunner().invoke(cli, ["maps", "--pid", str(os.getpid()), "--by", "file"])
    assert done.exit_code == 0, done.output
    found = [m for m in json.loads(done.stdout)["mappings"] if m["file"] == str(path)]
    assert [(m["mapped_bytes"], m["writable"], m["processes"][0]["pid"]) for m in found] == [
        (3 * mmap.PAGESIZE, True, os.getpid())
    ]
    assert found[0]["resident_bytes"] == 0
    assert table.exit_code == 0 and "ledger\\x0a" in table.stdout


def test_bad_usage() -> None:
    for arguments in (["--by", "user"], ["--pid", "0"], ["--fs", "ext5"], ["--pid", str(1 << 30)]):
        assert CliRunner().invoke(cli, ["maps", *arguments]).exit_code != 0


def test_every_filesystem_has_rules_that_hold_together() -> None:
    for fstype in KNOWN:
        found = rules(fstype)
        assert found.fallocate_why.endswith(".")
        # A preallocated block helps nothing where it is not written to.
        assert not (found.rewrites and found.fallocate is Fallocate.PROTECTS)
    assert rules("fuse.sshfs") == rules("fuse")
    assert not rules("lustre").local
    assert not rules("").local


def test_what_is_mapped_beyond_its_end_is_shown_though_nobody_may_write_it() -> None:
    one = replace(mapping(1, 3 * 4096, writable=False), fixed=True)
    cut = replace(file(one, size=4096), beyond=8192)
    found = replace(scan(), processes={1: process(1)}, cut=(cut,))
    (row,) = rows(found)
    assert (row.beyond, row.fixed) == (8192, True)
    header, line, *_ = render(MapsView([row], ()), 200)
    assert "BEYOND" in header and " read " in line and " 8.0 KiB " in line
