"""A btrfs that has space for data, and none for metadata."""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.live.guest import run
from tests.live.refusals import Refusal, Stage, fill, prepare
from tests.live.reported import tell
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.session import Session

#: Pages of a file of which some can be written before metadata ends.
MANY = 3001
PAGE = 4096


@pytest.fixture(scope="session")
def no_metadata() -> Path:
    """A sparse file in a subvolume of a btrfs whose chunks of data have space, and those of metadata none."""
    place = prepare(Refusal("btrfs-metadata", "btrfs", "ENOSPC", ("-m", "single"), size=160, late=True)).parent
    run("btrfs", "subvolume", "create", str(place / "volume"))
    file, other = (place / "volume" / name for name in ("file", "other"))
    with file.open("wb") as stream:
        stream.truncate(MANY * PAGE)
    small = [place / f"small-{number}" for number in range(1500)]
    for each in (*small, other):
        each.touch()
    # All that is in no chunk becomes data. Then some of it is free again, everywhere: an empty chunk is given back.
    pieces = []
    with suppress(OSError):
        for number in itertools.count():
            pieces.append(place / f"piece-{number}")
            with pieces[-1].open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, 1 << 20)
    fill(place)
    for piece in pieces[::4]:
        piece.unlink(missing_ok=True)  # the last was not made
    run("sync", "-f", str(place))
    # Attributes ask for more than a page of a mapping does, what is written to small files for as much, and lies among
    # the metadata, too. What a commit makes free again is taken: until three writes are refused, each right after one.
    attributes, smalls, refused = itertools.count(), iter(small), 0
    while refused < 3:
        with suppress(OSError):
            for number in attributes:
                os.setxattr(other, f"user.{number}", bytes(3000))
        run("sync", "-f", str(place))
        try:
            with next(smalls).open("r+b", buffering=0) as stream:
                stream.write(bytes(2000))
            refused = 0
        except OSError:
            refused += 1
    return file


@pytest.mark.nightly
def test_btrfs_without_space_for_metadata_alone(
    request: pytest.FixtureRequest, backend: Backend, no_metadata: Path
) -> None:
    with Session(Options(backend, every_errno=True)) as session:
        met = Stage(session).victim("stores", no_metadata, MANY * PAGE, 2 * PAGE)
    tell(request, backend, {"btrfs-metadata": met})
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert failure.errno_name == "ENOSPC"
    # Either the page's own, or that of the file's new time stamp.
    assert failure.errno_from in ("btrfs_delalloc_reserve_metadata", "btrfs_start_transaction")
    # In a subvolume, whose device and inode numbers are others than the filesystem's.
    assert (failure.file, failure.inode) == (str(no_metadata), no_metadata.stat().st_ino)
    assert failure.mountpoint == str(no_metadata.parents[1])
    # The last page that it said it would write.
    assert failure.address == int(met.lines[-1].split()[1], 16)
    assert failure.offset == failure.address - met.address
    free = {part.kind: part.free for part in met.explained.state.chunks}
    assert free["data"] > 8 << 20
    assert free["metadata"] < 8 << 20
    assert free["unallocated"] < 8 << 20
    assert "no space left for metadata" in met.explained.diagnosis.cause
