"""Commands of reports, pasted where they are printed: they reach the file or mount that they are about, and no other.

The victim lives in a mount namespace or below a root of its own, where the same paths lead elsewhere.
"""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.live.guest import run
from tests.live.refusals import SIZE, VICTIM
from tests.unit.failure_samples import refused
from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained, Explainer
from tracer.host.state import StateReader
from tracer.mappings.risk import Demand, LimitKind, command, sentence
from tracer.mappings.survey import Survey, survey
from tracer.model.failures import Class, Fact, FailureSource
from tracer.model.hooks import Backend
from tracer.model.host_state import PARTLY
from tracer.model.options import Filters, Options
from tracer.session import Session
from tracer.ui.sigbus import report

pytestmark = pytest.mark.native
MIB = 1 << 20
IMAGE = LimitKind.IMAGE
MAP = (
    "import mmap, sys; file = open(sys.argv[1], 'r+b'); kept = mmap.mmap(file.fileno(), 0);"
    "print(flush=True); sys.stdin.readline()"
)


@contextmanager
def inner(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A shell in a mount namespace of its own, once it has said a line; at the end it is killed."""
    words = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh", *map(str, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        try:
            assert shell.stdout.readline() == "\n"
            yield shell
        finally:
            shell.kill()


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ext4 with a directory for a tenant in it, beside one for a jail."""
    place = tmp_path_factory.mktemp("remedies") / "ext4"
    place.mkdir()
    (image := place.with_suffix(".img")).touch()
    os.truncate(image, 64 * MIB)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(place))
    (place / "tenant").mkdir()
    yield place
    run("umount", str(place))


def sparse(path: Path) -> Path:
    """A file of 8 MiB without blocks."""
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
    return path


def kinds(pid: int) -> set[LimitKind]:
    """The limits of the one file that a process maps."""
    return {limit.kind for limit in asked(survey(Filters(pids=(pid,))), pid).limits}


def asked(found: Survey, pid: int) -> Demand:
    """The demand of a process's one file."""
    (demand,) = (demand for demand in found.demands if any(f"[{pid}]" in who for who in demand.who))
    return demand


def paste(line: str) -> str:
    """Run a line as it was printed; what it prints."""
    return run("bash", "-ec", line)


@contextmanager
def tenant(ext4: Path, name: str, how: str = "") -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that maps a file of the tenant's by a name that leads to nothing here, and the file's path here."""
    path = sparse(ext4 / "tenant" / name)
    jail = ext4.with_name("jail")
    (jail / "data").mkdir(parents=True, exist_ok=True)
    into = f"mount --bind {ext4}/tenant {jail}/data; "
    if how == "hidden":
        into += f"mount -t tmpfs none {ext4}; "
    inside = f'exec {sys.executable} -c "$1" {jail}/data/{name}'
    if how == "chroot":
        into += "".join(f"mkdir -p {jail}/{at}; mount --rbind /{at} {jail}/{at}; " for at in ("usr", "lib", "lib64"))
        inside = f'exec chroot {jail} /usr/bin/python3 -c "$1" /data/{name}'
    with inner(into + inside, MAP) as process:
        yield process, path
    assert list((jail / "data").iterdir()) == []
    path.unlink()


@pytest.mark.parametrize("how", ["bound", "hidden", "chroot"])
def test_fallocate_allocates_the_file_that_is_mapped_and_makes_none_here(ext4: Path, how: str) -> None:
    with tenant(ext4, f"{how}.db", how) as (process, path):
        demand = asked(survey(Filters(pids=(process.pid,))), process.pid)
        (limit,) = demand.limits
        words, line = sentence(demand, limit), command(demand, limit)
        assert demand.new == 8 * MIB
        paste(line)
        assert path.stat().st_blocks * 512 == 8 * MIB
        assert asked(survey(Filters(pids=(process.pid,))), process.pid).new == 0
        if how == "chroot":  # no name here leads there: what it maps does
            assert " (in the mount namespace of python3[" in words
        else:
            assert (line, f" (here {path})" in words) == (f"fallocate -l {8 * MIB} {path}", True)


def test_a_report_names_the_file_as_it_is_here(ext4: Path) -> None:
    with tenant(ext4, "cut.db") as (process, path):
        file = path.stat()
        dev = os.major(file.st_dev) << 20 | os.minor(file.st_dev)
        changes = {
            "pid": process.pid,
            "dev": dev,
            "inode": file.st_ino,
            "file": f"{ext4.parent}/jail/data/cut.db",
            "signal": None,
        }
        cut = refused(0, source=FailureSource.FAULT, facts=Fact.BEYOND_END, **changes)
        state = StateReader(lambda failure: False).read(cut)
        found = diagnose(cut, state)
        assert (state.file_here, found.check) == (str(path), f"stat {path}")
        assert f"Inode: {file.st_ino} " in paste(found.check)
        text = report(Explained(cut, state, found), 200).plain
        assert f"file    {ext4.parent}/jail/data/cut.db (here {path}), offset" in text
        full = refused(errno.ENOSPC, **changes)
        line = diagnose(full, StateReader(lambda failure: False).read(full)).check
        assert line == f"df -h {ext4}" and str(ext4) in paste(line)


def test_a_page_that_has_some_of_its_blocks_is_a_hole_in_part(tmp_path: Path) -> None:
    """With blocks of 1 KiB; and a file that is removed has gone."""
    (image := tmp_path / "image").touch()
    os.truncate(image, 16 * MIB)
    run("mkfs.ext4", "-q", "-b", "1024", str(image))
    (place := tmp_path / "small").mkdir()
    run("mount", "-o", "loop", str(image), str(place))
    try:
        path = sparse(place / "file")
        with path.open("rb+") as stream:
            stream.write(b"x" * 1024)
            os.fsync(stream.fileno())
        file = path.stat()
        dev = os.major(file.st_dev) << 20 | os.minor(file.st_dev)
        changes = {"dev": dev, "inode": file.st_ino, "file": str(path), "mountpoint": "", "pid": os.getpid()}
        reader = StateReader(lambda failure: False)
        first, second = (reader.read(refused(errno.ENOSPC, offset=at, **changes)) for at in (0, 4096))
        assert first.file is not None and second.file is not None
        assert (first.file.backing, second.file.backing) == (PARTLY, "hole")
        path.unlink()
        gone = reader.read(refused(errno.ENOSPC, **changes))
        assert (first.file_gone, gone.file_gone, gone.file) == (False, True, None)
    finally:
        run("umount", str(place))


def test_a_sparse_image_that_its_filesystem_cannot_fill_is_a_limit(tmp_path: Path) -> None:
    """What the loop device's filesystem has free is of no use: msync(2) can fail. Then the printed command helps."""
    (outer := tmp_path / "outer").mkdir()
    (place := tmp_path / "in").mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=96m", "none", str(outer))
    (image := outer / "image").touch()
    os.truncate(image, 64 * MIB)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(place))
    try:
        path = sparse(place / "file")
        with path.open("rb+") as stream, closing(mmap.mmap(stream.fileno(), 0)) as mapped:
            assert IMAGE not in kinds(os.getpid())
            (filler := outer / "filler").write_bytes(bytes(os.statvfs(outer).f_bavail * 4096))
            demand = asked(survey(Filters(pids=(os.getpid(),))), os.getpid())
            (limit,) = (limit for limit in demand.limits if limit.kind is IMAGE)
            assert (limit.who, limit.free, limit.total) == (str(image), 0, 64 * MIB)
            assert demand.asks(IMAGE) == 8 * MIB
            filler.unlink()
            paste(command(demand, limit))
            assert image.stat().st_blocks * 512 == 64 * MIB
            assert IMAGE not in kinds(os.getpid())
            mapped[: 8 * MIB] = bytes(8 * MIB)
            mapped.flush()
    finally:
        run("umount", str(place))
        run("umount", str(outer))


def test_a_tmpfs_of_another_namespace_is_made_larger_and_not_the_one_that_is_here() -> None:
    there = "mount -t tmpfs -o size=2m none /dev/shm; truncate -s 8M /dev/shm/x; "
    before = os.statvfs("/dev/shm").f_blocks
    with inner(there + f'exec {sys.executable} -c "$1" /dev/shm/x', MAP) as process:
        demand = asked(survey(Filters(pids=(process.pid,))), process.pid)
        (limit,) = demand.limits
        line = command(demand, limit)
        assert line == f"nsenter -t {process.pid} -m mount -o remount,size=8m /dev/shm"
        paste(line)
        (limit,) = asked(survey(Filters(pids=(process.pid,))), process.pid).limits
        assert (limit.total, limit.free) == (8 * MIB, 8 * MIB)
    assert os.statvfs("/dev/shm").f_blocks == before


def test_a_victim_that_is_dead_has_commands_that_reach_its_full_tmpfs_through_a_sibling() -> None:
    there = "mount -t tmpfs -o size=64k none /dev/shm; head -c 65536 /dev/zero >/dev/shm/full; "
    there += f"{VICTIM} store /dev/shm/file {SIZE} 8192 </dev/null >/dev/null || :; echo; read -r _"
    before = os.statvfs("/dev/shm").f_blocks
    with Session(Options(Backend.TRACEPOINT)) as session, inner(there) as shell:
        explainer = Explainer(session.has_ended)
        (met,) = (one for one in explainer.explain(session.failures(20)) if one.failure.file == "/dev/shm/file")
        assert met.diagnosis.kind is Class.TMPFS_FULL
        assert met.diagnosis.run == f"nsenter -t {shell.pid} -m mount -o remount,size=2m /dev/shm"
        assert "/dev/shm" in paste(met.diagnosis.check.split("\n")[0])
        paste(met.diagnosis.run)
        there_now = run("nsenter", "-t", str(shell.pid), "-m", "stat", "-f", "-c", "%b", "/dev/shm")
        assert int(there_now) == 2 * MIB // 4096
        assert " in another mount namespace" in report(met, 200).plain
    assert os.statvfs("/dev/shm").f_blocks == before
