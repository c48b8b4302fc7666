"""Calls that wait for somebody else: a FUSE daemon, an NFS server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.filesystems.remote import nfsd
from tests.filesystems.stage import Stage
from tests.live.guest import run
from tests.live.hung_fuse import SIZE, fuse
from tests.live.slow_disk import Disk, Waiter, hold, wait_out, write_out
from tests.live.watched import Watched
from tracer.wait import Wait

PAGES = 61
OTHER_USER = "1000"


@pytest.mark.long  # now and then the page is written back again, and the second call is not settled yet
def test_a_fuse_daemon_that_answers_late(watched: Watched, tmp_path: Path) -> None:
    run("modprobe", "fuse")
    run("sh", "-c", "mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections")
    path = tmp_path / "file"
    with fuse(tmp_path) as hang, path.open("r+b") as stream:
        # The kernel learns that the daemon knows no flush: a child that closes what it inherits waits for none.
        os.close(os.dup(stream.fileno()))
        waiter = Waiter(path, SIZE // 4096)

        def answer_late() -> None:
            hang.set()
            # What was stored is on its way to the daemon when it changes again.
            write_out(stream.fileno(), 5)
            waiter.store(5)
            hold()
            hang.clear()

        waiter.store(5)
        waiter.took()
        watched.waits_for(Wait.WRITEBACK, waiter, "fuse", tmp_path, answer_late, most=2)
        waiter.end()


@dataclass
class Server:
    """An NFS server on this host, with the disk that its files are on; ``place`` is where they are mounted from it."""

    disk: Disk
    place: Path

    def mount(self, stage: Stage, more: str = "") -> Path:
        """Mount them once more."""
        options = f"vers=3,nolock,proto=tcp,mountproto=tcp{more}"
        return stage.mount("nfs", f"127.0.0.1:{self.disk.place}", options)

    def waiters(self, name: str) -> tuple[Waiter, Waiter]:
        """Two processes that store to a file there, of two users: their requests are not merged, one goes first.

        Both have it open, and not this process: whoever closes what it inherits from us would wait, too.
        """
        path = self.place / name
        path.touch()
        path.chmod(0o666)
        return Waiter(path, PAGES), Waiter(path, PAGES, lambda *line: ("setpriv", "--reuid", OTHER_USER, *line))

    def write_out(self, name: str, page: int, *, wait: bool = False) -> None:
        """Begin to write a page to the server, or ``wait`` until it has it, though maybe not on its disk."""
        # Not by open(): it asks for the size, for which NFS writes the page itself.
        descriptor = os.open(self.place / name, os.O_RDONLY)
        write_out(descriptor, page)
        # To begin and to wait in one would have the server sync it.
        if wait:
            wait_out(descriptor, page)
        os.close(descriptor)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a disk that takes its time: 100 ms for each write."""
    make = ("-E", "lazy_itable_init=0,lazy_journal_init=0")
    server = Server(Disk("ext4", 64, delay_ms=100, name="exported", make=make), Path())
    with Stage("waits-nfs") as stage:
        nfsd(stage, server.disk.place)
        server.place = server.mount(stage)
        yield server
    run("umount", str(server.disk.place))


def test_an_nfs_server_that_commits_late(watched: Watched, server: Server) -> None:
    waiter, other = server.waiters("uncommitted")

    def commit() -> None:
        _changed(other, 5)
        with server.disk.stopped():
            # The server takes it, and then is asked to have it on its disk.
            server.write_out("uncommitted", 5, wait=True)
            waiter.store(5)
            hold()

    watched.waits_for(Wait.SERVER, waiter, "nfs", server.place, commit)
    waiter.end()
    other.end()


def _changed(waiter: Waiter, page: int) -> None:
    waiter.store(page)
    waiter.took()
