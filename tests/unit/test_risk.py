"""`risk`: demands against limits, verdicts, what to do, forecasts, the table and the exit code."""

from __future__ import annotations

import json
import math
import mmap
import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from shown import ESCAPED, render

from tracer.cli.main import cli
from tracer.errors import Exit
from tracer.export.json.host import risk_dict
from tracer.mappings.cut import Cut
from tracer.mappings.risk import (
    Assessment,
    Demand,
    Limit,
    LimitedFilesystem,
    LimitKind,
    RiskState,
    assess,
    command,
    consequence,
    forecasts,
    remedy,
)
from tracer.mappings.survey import Survey
from tracer.ui.risk import RiskView

GIB = 1 << 30
SRV = LimitedFilesystem("ext4", "/srv", 8 << 20 | 1, "ext4_page_mkwrite")
TREE = LimitedFilesystem("btrfs", "/tree", 44, "btrfs_page_mkwrite")
HOSTILE = "/srv/a\x1b[31m\nb[red]\u202ec" + b"\xff".decode(errors="surrogateescape")


def limit(free: int, kind: LimitKind = LimitKind.SPACE, place: LimitedFilesystem = SRV, who: str = "") -> Limit:
    return Limit(place, kind, who, free)


def demand(new: int, *limits: Limit, path: str = "/srv/ledger.dat", rewrites: int = 0, inode: int = 7) -> Demand:
    who = ("postgres[812]",)
    return Demand(path, False, inode, 10 * GIB, who, limits[0].place, new, rewrites, limits, here=path)


def survey(*demands: Demand) -> Survey:
    return Survey(0, demands, assess(demands), ("a\x1bnote",))


@pytest.mark.parametrize(
    ("new", "rewrites", "free", "state", "used"),
    [
        (0, 0, 0, RiskState.OK, 0.0),
        (5, 0, 10, RiskState.OK, 0.5),
        (10, 0, 10, RiskState.OK, 1.0),
        (11, 0, 10, RiskState.SHORT, 1.1),
        (5, 6, 10, RiskState.TIGHT, 0.5),
        (0, 1, 0, RiskState.SHORT, math.inf),
        (1, 0, 0, RiskState.SHORT, math.inf),
        (1, 0, -5, RiskState.SHORT, math.inf),
    ],
)
def test_a_limit_is_short_when_what_is_new_does_not_fit(
    new: int, rewrites: int, free: int, state: RiskState, used: float
) -> None:
    (verdict,) = assess([demand(new, limit(free), rewrites=rewrites)])
    assert (verdict.state, verdict.used) == (state, used)


def test_demands_on_one_limit_add_up_and_the_most_dangerous_comes_first() -> None:
    quota = limit(50, LimitKind.USER, who="26")
    verdicts = assess([demand(30, limit(1000), quota), demand(25, limit(1000), quota, inode=8, path="/srv/b")])
    assert [(v.limit.kind, v.state, v.new, [d.path for d in v.demands]) for v in verdicts] == [
        (LimitKind.USER, RiskState.SHORT, 55, ["/srv/ledger.dat", "/srv/b"]),
        (LimitKind.SPACE, RiskState.OK, 55, ["/srv/ledger.dat", "/srv/b"]),
    ]


def test_root_takes_the_space_of_others_though_its_limit_is_another() -> None:
    verdicts = assess([demand(60, limit(70)), demand(60, limit(200, LimitKind.ROOT_SPACE), inode=8)])
    assert {v.limit.kind: (v.state, v.new, len(v.demands)) for v in verdicts} == {
        LimitKind.SPACE: (RiskState.SHORT, 120, 1),
        LimitKind.ROOT_SPACE: (RiskState.OK, 120, 1),
    }


@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(0, 3)), max_size=20))
def test_nothing_is_lost_in_the_sum(parts: list[tuple[int, int, int]]) -> None:
    demands = [
        demand(n, limit(5, place=replace(SRV, dev=dev)), rewrites=r, inode=i) for i, (n, r, dev) in enumerate(parts)
    ]
    verdicts = assess(demands)
    assert sum(v.new for v in verdicts) == sum(n for n, _, _ in parts)
    assert sum(v.rewrites for v in verdicts) == sum(r for _, r, _ in parts)
    assert [v.state for v in verdicts] == sorted(
        (v.state for v in verdicts), key=[RiskState.SHORT, RiskState.TIGHT, RiskState.OK].index
    )


@pytest.mark.parametrize(
    ("met", "words", "run"),
    [
        (limit(GIB), "Make room on /srv: 8.0 GiB are lacking; then", "fallocate -l 10737418240 /srv/ledger.dat"),
        (limit(20 * GIB), "Give the file its space now.", "fallocate -l 10737418240 /srv/ledger.dat"),
        (limit(GIB, place=TREE), "fallocate does not protect here: Copy on write", ""),
        (limit(GIB, LimitKind.USER, who="26"), "hard limit of user 26 on /srv by 8.0 GiB.", "edquota -f /srv -u 26"),
        (limit(GIB, LimitKind.PROJECT, who="42"), "hard limit of project 42", "edquota -f /srv -P 42"),
        (limit(GIB, LimitKind.SUBVOLUME, TREE, "0/257"), "0/257 by 8.0", "btrfs qgroup limit 19327352832 0/257 /tree"),
        (limit(GIB, place=LimitedFilesystem("tmpfs", "/dev/shm", 27)), "/dev/shm larger",
         "mount -o remount,size=18432m /dev/shm"),
        (limit(GIB, LimitKind.HUGE_PAGES), "Add huge pages for 8.0 GiB",
         "echo 4718592 > /sys/kernel/mm/hugepages/hugepages-4kB/nr_hugepages"),
        (limit(GIB, LimitKind.HUGE_CGROUP, who="/a"), "cgroup /a", ""),
        (limit(GIB, LimitKind.IMAGE, who="/img/a b"), "on the filesystem that has /img/a b; then give the image",
         "fallocate -l 10737418240 '/img/a b'"),
        (limit(GIB, place=LimitedFilesystem("tmpfs", "", 27)), "Make the filesystem larger by 8.0 GiB.", ""),
    ],
)  # fmt: skip
def test_each_limit_has_its_remedy_and_the_whole_command(met: Limit, words: str, run: str) -> None:
    asking = demand(9 * GIB, replace(met, total=10 * GIB))
    assert words in remedy(asking, asking.limits[0])
    assert command(asking, asking.limits[0]) == run


def test_a_limit_of_unknown_size_gets_no_command() -> None:
    met = limit(GIB, place=LimitedFilesystem("tmpfs", "/dev/shm", 27))
    assert command(demand(9 * GIB, met), met) == ""


def test_a_remedy_is_run_where_the_mount_is() -> None:
    full = replace(limit(GIB, place=LimitedFilesystem("tmpfs", "/dev/shm", 27)), total=GIB)
    asking = replace(demand(9 * GIB, full), enter="nsenter -t 77 -m ")
    assert command(asking, full) == "nsenter -t 77 -m mount -o remount,size=9216m /dev/shm"


def test_what_a_filesystem_takes_and_loses_later_is_said_so() -> None:
    assert "lost at writeback" in consequence(limit(0, place=LimitedFilesystem("vfat", "/boot", 1)))
    assert "SIGBUS" in consequence(limit(0))
    assert "lost at writeback" in consequence(limit(0, LimitKind.IMAGE))


def verdict(new: int, free: int, rewrites: int = 0) -> Assessment:
    return assess([demand(new, limit(free), rewrites=rewrites)])[0]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((100, 50), (90, 40), (5.0, 8.0)),  # 5/s of both: 40 more, then 50 are lacking
        ((50, 60), (40, 50), (5.0, math.inf)),  # all is written before the space is gone
        ((100, 50), (100, 40), (0.0, 8.0)),  # somebody else takes it
        ((100, 50), (90, 50), (5.0, math.inf)),
        ((100, 40), (100, 50), (0.0, math.inf)),
        ((100, 10), (100, 0), (0.0, 0.0)),
    ],
)
def test_a_forecast_goes_by_what_changed(
    before: tuple[int, int], now: tuple[int, int], expected: tuple[float, float]
) -> None:
    coming = forecasts([verdict(*before)], [verdict(*now)], 2 * 10**9)
    assert list(coming.values()) == [expected]


def test_the_first_look_forecasts_nothing() -> None:
    assert list(forecasts((), [verdict(100, 5)], 10**9).values()) == [(0.0, math.inf)]


def test_the_table_says_what_is_short_and_what_to_do() -> None:
    found = survey(demand(int(9.4 * GIB), limit(int(1.2 * GIB))), demand(5, limit(GIB, place=TREE), path="/tree/x"))
    lines = render(RiskView(found), 250)
    assert lines[0].split() == ["STATE", "MOUNT", "FSTYPE", "LIMIT", "MAY", "ASK", "FREE", "USED", "FILES"]
    assert " ".join(lines[1].split()) == "short /srv ext4 free space 9.4 GiB 1.2 GiB 783% 1"
    assert lines[2].split()[:2] == ["ok", "/tree"]
    assert "/srv/ledger.dat, mapped by postgres[812], can ask for 9.4 GiB; 1.2 GiB is free to it." in lines
    assert any(line.startswith("-> Make room on /srv") for line in lines)


def test_a_command_stands_on_a_line_of_its_own_however_narrow() -> None:
    path = "/srv/" + "directory/" * 9 + "a file"
    met = replace(limit(int(1.2 * GIB)), total=GIB)
    console = Console(width=40, _environ={})
    with console.capture() as capture:
        console.print(RiskView(survey(demand(int(9.4 * GIB), met, path=path))), crop=False)
    assert f"   fallocate -l 10737418240 '{path}'" in capture.get().splitlines()


@pytest.mark.parametrize("kind", [LimitKind.SPACE, LimitKind.HUGE_PAGES, LimitKind.USER])
def test_at_80_columns_no_path_is_cut_while_a_column_is_empty(kind: LimitKind) -> None:
    place = LimitedFilesystem("hugetlbfs", "/mnt/inner/of/24/columns", 1)
    found = survey(*(demand(5, limit(GIB, kind, place), path=f"/f{n}", inode=n) for n in range(5)))
    header, line, *_ = render(RiskView(found), 80)
    assert place.mountpoint in line and kind.value in line and "…" not in line
    assert "REWRITE" not in header
    short = survey(*(demand(GIB, limit(5, kind, place), path=f"/f{n}", inode=n) for n in range(4)))
    assert "... and 1 more file" in render(RiskView(short), 80)


def test_what_is_not_in_danger_is_not_told_of() -> None:
    found = survey(demand(int(9.4 * GIB), limit(int(1.2 * GIB))), demand(5, limit(GIB, place=TREE), path="/tree/x"))
    lines = render(RiskView(found), 250)
    assert not any("/tree/x" in line for line in lines)
    assert lines[-1] == r"note: a\x1bnote"
    assert render(RiskView(found), 80)[1].startswith("short  /srv ")


def test_hostile_names_are_escaped() -> None:
    text = "".join(render(RiskView(survey(demand(5, limit(1), path=HOSTILE))), 250))
    assert "/srv/" + ESCAPED in text


def test_the_forecast_has_its_columns_and_json_members() -> None:
    found = survey(demand(100, limit(40)))
    coming = forecasts(assess([demand(110, limit(50))]), found.verdicts, 2 * 10**9)
    assert render(RiskView(found, coming), 200)[1].split()[-3:] == ["5", "B", "8.00s"]
    (record,) = risk_dict(found, coming)["limits"]  # type: ignore[misc]
    assert (record["taken_bytes_per_second"], record["refused_in_ns"]) == (5, 8 * 10**9)
    assert json.dumps(risk_dict(found, forecasts((), found.verdicts, 0)))


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["risk", "--pid", str(os.getpid()), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_exit_code_tells_whether_files_may_ask_for_more_than_wanted(tmp_path: Path) -> None:
    if rules_unknown(tmp_path):
        pytest.skip("the temporary directory is on a filesystem that is not asked")
    path = tmp_path / "ledger"
    with path.open("wb+") as stream:
        stream.truncate(7 * mmap.PAGESIZE)
        with closing(mmap.mmap(stream.fileno(), 0)):
            assert invoke().exit_code == Exit.OK
            assert invoke("--above", "0").exit_code == Exit.AT_RISK
            found = json.loads(invoke("--json", "--watch", "-d", "0.2", "-i", "0.1").stdout.splitlines()[-1])
            assert abs(found["monotonic_ns"] - time.monotonic_ns()) < 3600 * 10**9
            files = [file for one in found["limits"] for file in one["files"] if file["file"] == str(path)]
    assert files and all(file["new_bytes"] == 7 * mmap.PAGESIZE for file in files)


def rules_unknown(directory: Path) -> bool:
    """Whether nothing is known of the filesystem of a directory."""
    from tracer.host.mounts import Mounts
    from tracer.model.filesystems import rules

    best = max((m for m in Mounts.read() if directory.is_relative_to(m.mountpoint)), key=lambda m: len(m.mountpoint))
    return not rules(best.fstype).local


@pytest.mark.parametrize("arguments", ["--above -1", "--above x", "-d 1s", "-i 1ms --watch"])
def test_bad_usage(arguments: str) -> None:
    assert invoke(*arguments.split()).exit_code == Exit.USAGE


def test_filesystems_on_one_thin_pool_ask_for_it_together() -> None:
    pool, other = (limit(10, LimitKind.THIN_POOL, place, "vg-pool") for place in (SRV, TREE))
    alone = limit(10, LimitKind.THIN_POOL, replace(SRV, mountpoint="/alone"), "vg-other")
    verdicts = assess([demand(6, pool), demand(6, other, inode=8), demand(6, alone, inode=9)])
    assert [(v.limit.place.mountpoint, v.state, v.new) for v in verdicts] == [
        ("/tree", RiskState.SHORT, 12),
        ("/srv", RiskState.SHORT, 12),
        ("/alone", RiskState.OK, 6),
    ]


def test_a_file_that_is_mapped_beyond_its_end_has_a_state_of_its_own(tmp_path: Path) -> None:
    cut = Cut("/srv/a\n", False, 7, 1 << 20, 7 << 20, ("a[1]", "b[2]", "c[3]", "d[4]"), SRV)
    found = replace(survey(demand(5, limit(GIB))), cut=(cut,))
    text = " ".join(render(RiskView(found), 200))
    assert (
        r"/srv/a\x0a, mapped by 4 processes (a[1], b[2], c[3], ...), is mapped beyond its end (1.0 MiB): 1792" in text
    )
    assert "there is room for all" not in text and "1 file mapped beyond the end." in text
    (record,) = risk_dict(found)["beyond_end"]  # type: ignore[misc]
    assert (record["size_bytes"], record["beyond_bytes"], record["device"]) == (1 << 20, 7 << 20, "8:1")
    path = tmp_path / "ledger"
    path.write_bytes(bytes(7 * mmap.PAGESIZE))
    with path.open("rb") as stream, closing(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)):
        assert invoke().exit_code == Exit.OK
        os.truncate(path, mmap.PAGESIZE)
        assert invoke().exit_code == Exit.BEYOND_END
        shown = CliRunner().invoke(cli, ["maps", "--json", "--pid", str(os.getpid())]).stdout
        (row,) = (row for row in json.loads(shown)["mappings"] if row["file"] == str(path))
    assert (row["beyond_bytes"], row["writable"]) == (6 * mmap.PAGESIZE, False)


def test_what_would_lose_writes_silently_is_named_though_there_is_room() -> None:
    fat = LimitedFilesystem("vfat", "/fat", 9)
    pool = limit(10 * GIB, LimitKind.THIN_POOL, SRV, "vg/pool")
    found = survey(
        demand(1, limit(10 * GIB, place=fat), path="/fat/a"),
        demand(1, limit(10 * GIB), pool),
        demand(1, limit(9 * GIB, place=TREE)),
    )
    shown = " ".join(render(RiskView(found), 400))
    assert "2 mapped files on /fat, /srv would lose writes silently where no space is left" in shown
    late = {(one["mountpoint"], one["limit"]): one["lost_late"] for one in risk_dict(found)["limits"]}  # type: ignore[attr-defined]
    assert late == {
        ("/fat", "free space"): True, ("/srv", "thin pool"): True, ("/srv", "free space"): False,
        ("/tree", "free space"): False,
    }  # fmt: skip
    assert "silently" not in " ".join(render(RiskView(survey(demand(1, limit(10 * GIB)))), 400))
