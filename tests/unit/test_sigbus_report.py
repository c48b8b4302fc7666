"""Reports: complete, escaped, and within the width."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import pytest
from failure_samples import FULL, REFUSED, refused
from rich.cells import cell_len

from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained, Repeated
from tracer.export.json.failures import explained_dict, repeated_dict
from tracer.export.json.records import json_line
from tracer.model.calls import Initiator
from tracer.model.failures import Disposition, Failure, FailureSource
from tracer.model.host_state import ChunkState, FileState, HostState, HugeState, QuotaState, SpaceState
from tracer.ui.sigbus import repeated, report


def explained(failure: Failure, state: HostState = HostState(space=FULL)) -> Explained:  # noqa: B008  # frozen
    return Explained(failure, state, diagnose(failure, state))


def test_a_report_says_who_what_why_and_what_to_do() -> None:
    text = report(explained(refused(errno.ENOSPC, latency_ns=12_345)), 200).plain
    for part in ("postgres[4242]", "thread 4243", "user 7", "/srv/data, offset 0x3000 (page 3)", "ext4_page_mkwrite",
                 "after 12.3us", "ENOSPC, returned by ext4_da_reserve_space", "fatal", "cause", "remedy",
                 "0 B free of 1.0 GiB"):  # fmt: skip
        assert part in text


def test_the_state_of_the_filesystem_is_in_the_report() -> None:
    state = HostState(
        after_ns=2_100_000,
        module="postgres+0x1234",
        limit="64m",
        read_only=True,
        shut_down=True,
        space=SpaceState(1 << 30, 0, 1 << 20, 1000, 10),
        chunks=(ChunkState("data", 1 << 30, 1 << 29), ChunkState("unallocated", 1 << 20, 1 << 20)),
        quotas=(QuotaState("project", 42, 0, 1 << 20),),
        huge=HugeState(2 << 20, 8, 3, 1, "/pg", 0),
        file=FileState(1 << 20, 4096, "hole"),
    )
    text = report(explained(refused(errno.ENOSPC), state), 300).plain
    for part in ("0 B free of 1.0 GiB, 1.0 MiB for root, 10 of 1000 inodes free, size=64m, read-only, shut down, "
                 "2.1ms later",
                 "data: 512 MiB free of 1.0 GiB, 1.0 MiB in none yet", "project 42: 0 B left of 1.0 MiB",
                 "3 of 8 huge pages of 2.0 MiB free, 1 reserved; cgroup /pg: 0 B left, 2.1ms later",
                 "1.0 MiB, 4.0 KiB allocated, sparse, the page: hole", "instruction at postgres+0x1234"):  # fmt: skip
        assert part in text
    host = json.loads(json_line(explained_dict(explained(refused(errno.ENOSPC), state))))["host"]
    assert host["quotas"] == [{"kind": "project", "number": 42, "free": 0, "limit": 1 << 20}]
    assert (host["chunks"][0]["kind"], host["shut_down"], host["after_ns"]) == ("data", True, 2_100_000)


def test_a_refused_huge_page_is_a_hole_of_a_filesystem_without_a_size() -> None:
    state = HostState(
        after_ns=2_100_000,
        space=SpaceState(0, 0, 0, 0, 0),
        huge=HugeState(2 << 20, 8, 0, 0),
        file=FileState(4 << 20, 2 << 20, "written"),
    )
    failure = replace(refused(errno.ENOSPC, fstype="hugetlbfs", size=4 << 20), source=FailureSource.HUGETLB)
    text = report(explained(failure, state), 300).plain
    assert "4.0 MiB, 2.0 MiB allocated, sparse\n" in text
    assert "  pool    0 of 8 huge pages of 2.0 MiB free, 0 reserved, 2.1ms later\n" in text
    assert "  space " not in text


def test_a_thread_stands_beside_its_process_and_does_not_lend_it_its_name() -> None:
    thread = refused(errno.ENOSPC, comm="cache-worker", process_comm="squid", pid=480, tid=482)
    lines = report(explained(thread), 200).plain.split("\n")
    assert lines[0].endswith("  squid[480], thread cache-worker[482]")
    assert lines[1].startswith("  victim  squid, process 480, thread 482 (cache-worker), user 7")
    assert repeated(Repeated(explained(thread), 1, 2, 3)).plain.split(": ")[2].startswith("squid[480], thread cache-")
    alone = report(explained(replace(thread, process_comm="cache-worker")), 200).plain.split("\n")
    assert alone[0].endswith("  cache-worker[480]")
    record = explained_dict(explained(thread))
    assert (record["process"], record["comm"]) == ("squid", "cache-worker")


@pytest.mark.parametrize("what", [Disposition.IGNORED, Disposition.BLOCKED])
def test_a_signal_that_is_ignored_or_blocked_is_not_said_to_have_no_handler(what: Disposition) -> None:
    text = report(explained(refused(errno.ENOSPC, overridden=what)), 200).plain
    assert f"fatal: the process has it {what.value}, which does not hold for a fault of its own" in text
    unseen = report(explained(refused(errno.ENOSPC, source=FailureSource.FAULT, fstype="tmpfs")), 200).plain
    assert "fatal: no handler gets it: the process has none, or has it ignored or blocked" in unseen
    assert explained_dict(explained(refused(errno.ENOSPC, overridden=what)))["overridden"] == what.value


def test_what_was_not_written_back_is_not_told_as_not_there() -> None:
    gone = refused(errno.ENOSPC, size=8 << 20, allocated=0)
    assert (
        "; inode 131, 8.0 MiB, 0 B allocated without what was not written back yet"
        in report(explained(gone), 200).plain
    )
    asked = HostState(space=FULL, file=FileState(8 << 20, 976 << 10, "promised"))
    assert "976 KiB allocated, sparse, the page: promised" in report(explained(gone, asked), 200).plain
    memory = replace(gone, fstype="tmpfs")
    assert "8.0 MiB, 0 B allocated, sparse" in report(explained(memory), 200).plain


def test_an_inferred_errno_is_called_so() -> None:
    assert "ENOSPC, inferred from statfs" in report(explained(REFUSED), 200).plain


def test_a_system_call_gets_no_signal() -> None:
    failure = refused(errno.ENOSPC, signal=None, initiator=Initiator.KERNEL, syscall=0)
    text = report(explained(failure), 200).plain
    assert text.startswith("EFAULT")
    assert "none: read returns EFAULT, or less than it was asked for" in text


@pytest.mark.parametrize("width", [40, 80, 250])
def test_lines_fit_where_words_do(width: int) -> None:
    text = report(explained(refused(errno.ENOSPC)), width).plain
    for line in text.split("\n")[1:]:
        assert cell_len(line) <= width or " " not in line[10:] or line.startswith("  check   df -h ")


def test_commands_stand_on_lines_of_their_own_however_narrow() -> None:
    full = refused(errno.ENOSPC, source=FailureSource.FAULT, fstype="tmpfs", handler="")
    lines = report(explained(full, HostState(mountpoint="/srv/" + "a" * 60, space=FULL)), 40).plain.split("\n")
    where = "/srv/" + "a" * 60
    assert lines[-3:] == [
        f"  run     mount -o remount,size=1025m {where}",
        f"  check   df -h {where}",
        f"          du -ah {where} | sort -h | tail",
    ]
    record = explained_dict(explained(full))
    assert (record["run"], record["check"]) == (
        "mount -o remount,size=1025m /srv",
        "df -h /srv; du -ah /srv | sort -h | tail",
    )


def test_odd_names_are_escaped() -> None:
    odd = "a\x1b[31m\n\udcff"
    failure = refused(errno.ENOSPC, comm=odd, file=f"/srv/{odd}", command=(odd,), mountpoint=f"/{odd}")
    text = report(explained(failure), 80).plain
    assert "".join(text.split("\n")).isprintable()
    assert "\\x1b[31m\\x0a\\xff" in text


def test_json_is_one_line_with_everything() -> None:
    failure = refused(errno.ENOSPC, file="/srv/\udcff")
    record = json.loads(json_line(explained_dict(explained(failure))))
    assert (record["class"], record["errno"], record["errno_from"]) == ("refused", "ENOSPC", "ext4_da_reserve_space")
    assert record["file"] == "/srv/\\xff"
    assert record["signal"] == {"code": "BUS_ADRERR", "disposition": "fatal", "module": None, "sender": None}
    assert record["host"]["space"]["free"] == 0


def test_what_repeats_is_counted() -> None:
    more = Repeated(explained(refused(errno.ENOSPC)), 209, 211, 1_500_000_000)
    assert "209 more like it in 1.50s, 211 so far: postgres[4242] refused ENOSPC on /srv/data" in repeated(more).plain
    assert repeated_dict(replace(more, count=1))["count"] == 1
