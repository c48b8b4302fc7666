"""Filters that name what does not exist are refused, with a list of what does."""

from __future__ import annotations

import os
import threading

import pytest

from tracer.errors import Exit, UsageError
from tracer.host.cgroups import Cgroups
from tracer.host.filters import check
from tracer.host.mounts import Mounts
from tracer.model.options import Filters

MOUNTS = Mounts.parse(
    b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
    b"2 1 8:2 / /srv/data rw - weirdfs /dev/sda2 rw\n"
    b"3 1 8:3 / /srv/\x1b[31mred rw - ext4 /dev/sda3 rw\n"
)
HANDLERS = ("ext4_page_mkwrite", "filemap_page_mkwrite", "xfs_filemap_page_mkwrite")


def refused(filters: Filters) -> UsageError:
    """The error of ``check``."""
    with pytest.raises(UsageError) as caught:
        check(filters, MOUNTS, Cgroups(MOUNTS), HANDLERS)
    assert caught.value.code == Exit.USAGE
    return caught.value


def test_what_exists_is_accepted() -> None:
    check(Filters(), MOUNTS, Cgroups(MOUNTS), ())
    check(
        Filters(
            fs=("proc", "weirdfs"),
            mounts=("/", "/srv/data/"),
            pids=(os.getpid(), 1),
            comms=("a", "x" * 15, "é" * 7),
            handlers=HANDLERS,
        ),
        MOUNTS,
        Cgroups(MOUNTS),
        HANDLERS,
    )


def test_an_unknown_filesystem_lists_those_of_the_kernel_and_of_the_mounts() -> None:
    error = refused(Filters(fs=("weirdfsx",)))
    assert error.problem == "Unknown filesystem 'weirdfsx'."
    assert error.cure.startswith("Did you mean 'weirdfs'? Filesystems known to this kernel: weirdfs, ")
    assert "ext4" in error.cure and "proc" in error.cure


def test_one_wrong_value_among_good_ones_is_enough() -> None:
    assert "'nope'" in refused(Filters(fs=("weirdfs", "nope"))).problem


def test_an_unknown_mount_lists_the_mount_points_escaped() -> None:
    error = refused(Filters(mounts=("/srv/dat\n",)))
    assert error.problem == "Nothing is mounted at '/srv/dat\\x0a'."
    assert error.cure == "Did you mean '/srv/data'? Mount points: /srv/data, /, /srv/\\x1b[31mred."


def test_a_directory_below_a_mount_point_is_none() -> None:
    refused(Filters(mounts=("/srv",)))


def test_a_process_that_does_not_exist_lists_the_nearest() -> None:
    error = refused(Filters(pids=(1 << 30,)))
    assert error.problem == f"There is no process {1 << 30}."
    assert " processes, the nearest are " in error.cure and "]." in error.cure


def test_a_thread_is_no_process() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        error = refused(Filters(pids=(thread.native_id,)))
    finally:
        stop.set()
        thread.join()
    assert error.cure == f"Its process is {os.getpid()}."


@pytest.mark.parametrize("comm", ["", "x" * 16, "é" * 8])
def test_a_name_that_no_task_can_have_is_refused(comm: str) -> None:
    refused(Filters(comms=(comm,)))


def test_an_unknown_cgroup_is_refused() -> None:
    assert "no cgroup v2 hierarchy" in refused(Filters(cgroups=("/a",))).problem


def test_an_unknown_handler_names_the_closest_first() -> None:
    error = refused(Filters(handlers=("xfs_page_mkwrite",)))
    assert error.problem == "Unknown handler 'xfs_page_mkwrite'."
    assert error.cure.startswith("Did you mean '")
    assert all(handler in error.cure for handler in HANDLERS)


def test_a_kernel_without_handlers_says_so() -> None:
    with pytest.raises(UsageError, match="Handlers of this kernel: none"):
        check(Filters(handlers=("x",)), MOUNTS, Cgroups(MOUNTS), ())


def test_a_long_list_is_cut() -> None:
    mounts = Mounts.parse(b"".join(b"1 0 8:1 / /m%d rw - ext4 a rw\n" % i for i in range(1000)))
    with pytest.raises(UsageError) as caught:
        check(Filters(mounts=("/nowhere",)), mounts, Cgroups(mounts), ())
    assert caught.value.cure.endswith("and 960 more.")
