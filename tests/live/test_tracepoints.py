"""The tracepoint backend: run on this machine too, which may be a kernel that has nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.guest import ROOT, WORKLOAD, FaultPath, Loss, command, dirty_limits, eventually, run
from tests.live.refusals import OFFSET, SIZE, VICTIM, Refusal, Stage, prepare
from tracer.diagnosis.diagnose import diagnose
from tracer.export.prometheus.failure_ledger import FailureLedger
from tracer.export.prometheus.label import Who
from tracer.model.calls import Initiator
from tracer.model.failures import Class, Code, FailureSource
from tracer.model.hooks import Backend
from tracer.model.host_state import HostState
from tracer.model.options import By, Filters, Options
from tracer.session import Session

pytestmark = pytest.mark.native
OURS = {*(f"ext4-tp{which}" for which in ("", "-rewrite", "-faults", "-dirty")), "tp-tmpfs", "tp-short", "tp-many"}
#: An odd prime.
AGAIN = 53


def sweep() -> None:
    """What the tests below made is in the way of the next run on the same machine."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = Path(line.split(" ")[4])
        if point.is_relative_to(ROOT) and point.name in OURS:
            run("umount", str(point))
    # os.walk() passes over what cannot be read: a filesystem on a disk that has failed, for one.
    found = (Path(top, name) for top, dirs, files in os.walk(ROOT) for name in (*dirs, *files))
    for made in [path for path in found if path.name.removesuffix(".img") in OURS]:
        shutil.rmtree(made) if made.is_dir() else made.unlink()


@pytest.fixture(scope="module", autouse=True)
def _swept() -> Iterator[None]:
    sweep()
    yield
    sweep()


def room(which: str) -> Path:
    """A fresh ext4 with space in it."""
    return prepare(Refusal("ext4", "ext4", "ENOSPC", size=64, late=True), which).parent


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One watch for all victims."""
    with Session(Options(Backend.TRACEPOINT)) as session:
        yield Stage(session)


@contextmanager
def counting(**filters: tuple[str, ...]) -> Iterator[Session]:
    with Session(Options(Backend.TRACEPOINT, filters=Filters(**filters))) as session:  # type: ignore[arg-type]
        assert all(hook.attached for hook in session.hooks), session.hooks
        yield session


@pytest.mark.usefixtures("clean_kernel")
def test_a_command_dies_on_a_full_ext4() -> None:
    """Nobody can ask /proc: the file is found in the kernel."""
    file = prepare(Refusal("ext4", "ext4", "ENOSPC", size=32), "-tp")
    done = subprocess.run(
        command(
            *("sigbus", "--backend", "tracepoint", "--json", "--fs", "ext4"),
            *("--", VICTIM, "store", str(file), str(SIZE), str(OFFSET)),
        ),
        capture_output=True,
        text=True,
        input="\n",
        check=False,
    )
    assert done.returncode == 128 + 7
    assert "note: tracepoint backend: no calls" in done.stderr
    (found,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert (found["file"], found["offset"]) == (str(file), OFFSET // 4096 * 4096)
    assert (found["fstype"], found["handler"]) == ("ext4", "ext4_page_mkwrite")
    assert (found["source"], found["path"], found["write"]) == ("page_mkwrite", "first_write", True)
    assert (found["class"], found["errno"], found["inferred"]) == ("refused", "ENOSPC", True)
    assert "statfs" in found["inferred_from"]
    assert found["signal"]["code"] == "BUS_ADRERR"


def test_a_page_that_was_mapped_read_only(stage: Stage) -> None:
    file = prepare(Refusal("ext4", "ext4", "ENOSPC", size=32), "-tp-rewrite")
    (failure,) = stage.victim("rewrite", file, SIZE, OFFSET).failures
    assert (failure.file, failure.source, failure.path) == (
        str(file),
        FailureSource.PAGE_MKWRITE,
        FaultPath.WRITE_PROTECT,
    )


def test_a_full_tmpfs(stage: Stage) -> None:
    place = ROOT / "tp-tmpfs"
    place.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place))
    file = place / "file"
    file.touch()
    os.truncate(file, SIZE)
    with (place / "filler").open("wb", buffering=0) as stream:
        stream.write(bytes(64 << 10))
    met = stage.victim("store", file, SIZE, OFFSET)
    assert (met.failures[0].file, met.failures[0].source) == (str(file), FailureSource.FAULT)
    assert (met.explained.diagnosis.kind, met.explained.diagnosis.errno) == (Class.TMPFS_FULL, "ENOSPC")


def test_beyond_the_end(stage: Stage) -> None:
    ROOT.mkdir(exist_ok=True)
    file = ROOT / "tp-short"
    met = stage.victim("shrunk", file, SIZE, 4096, OFFSET)
    assert met.explained.diagnosis.kind is Class.BEYOND_END
    assert (met.failures[0].file, met.failures[0].size, met.failures[0].write) == (str(file), 4096, False)
    assert "not seen with the tracepoint backend" in met.explained.diagnosis.cause


def test_a_signal_that_was_sent_is_no_fault(stage: Stage) -> None:
    sender = "import os, signal; os.kill(os.getpid(), signal.SIGBUS)"
    python = subprocess.Popen(["/usr/bin/python3", "-c", sender])
    assert python.wait() == -7
    (failure,) = stage.of(python.pid)
    assert (failure.source, failure.inode, failure.inferred) == (FailureSource.SIGNAL, 0, False)


def test_an_access_that_is_not_aligned(stage: Stage) -> None:
    """An emulated processor does not look at EFLAGS.AC: there the program goes on, and nothing is told."""
    victim = subprocess.Popen([VICTIM, "misaligned"], stdout=subprocess.DEVNULL)
    if victim.wait() == 0:
        assert stage.of(victim.pid) == []
        return
    assert victim.returncode == -7
    (failure,) = stage.of(victim.pid)
    assert failure.signal is not None
    # The processor gives no address.
    assert (failure.source, failure.signal.code, failure.address) == (FailureSource.SIGNAL, Code.ADRALN, 0)
    assert failure.signal.module.startswith("victim+0x")
    assert diagnose(failure, HostState()).kind is Class.OTHER


def test_many_mappings() -> None:
    """The mapping is found where the tree of mappings has several levels."""
    file = ROOT / "tp-many"
    file.write_bytes(bytes(4096))
    many = """
import mmap, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
fd = os.open(sys.argv[1], os.O_RDWR)
os.ftruncate(fd, 4096 * 7001)
kept = [mmap.mmap(fd, 4096, offset=4096 * page) for page in (*range(0, 7000, 2), 6999)]
os.ftruncate(fd, 4096)
kept[-int(sys.argv[2])][5] = 1
"""
    for number in (1, 1733, 3499):
        with counting(comms=("python3",)) as session:
            python = os.path.realpath("/usr/bin/python3")
            code = f"import ctypes; ctypes.CDLL(None).prctl(15, b'python3', 0, 0, 0); {chr(10)}{many}"
            victim = subprocess.run([python, "-c", code, str(file), str(number)], check=False)
            assert victim.returncode == -7
            (event,) = session.failures(5.0)
            assert (event.file, event.offset % 4096) == (str(file), 0)
            assert event.offset >= 4096


def test_faults_are_counted_exactly() -> None:
    place = room("-tp-faults")
    with counting(comms=("workload",)) as session:

        def faults(what: str, pages: int) -> int:
            before = session.snapshot()
            run(WORKLOAD, what, str(place / f"tp-{what}-{pages}"), str(pages))
            found = session.snapshot().since(before).tracepoints
            assert found is not None
            return found.wp_faults[Initiator.USER]

        # A program that starts has some of its own.
        base = faults("write-after-read", 1)
        again = faults("write-after-read", 1 + AGAIN)
        assert again - base == AGAIN
        final = session.finish()
    assert not final.calls
    assert sum(final.lost.values()) == 0
    assert any("no calls" in note for note in final.notes)


def test_throttling_is_seen_by_device() -> None:
    place = room("-tp-dirty")
    device = place.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    bdi = Path("/sys/class/bdi", name)
    everywhere = {}
    if (bdi / "strict_limit").exists():  # 6.2
        (bdi / "strict_limit").write_text("1")
        (bdi / "max_bytes").write_text(str(1 << 20))
    else:
        everywhere["dirty_bytes"] = 1 << 20
    with dirty_limits(**everywhere), counting(comms=("dd",)) as session:

        def throttled_once() -> bool:
            # Whether a writer outruns writeback is up to the machine.
            run("dd", "if=/dev/zero", f"of={place}/tp-dirty", "bs=4k", "count=5003")
            counted = session.snapshot().tracepoints
            return counted is not None and name in counted.throttled

        assert eventually(throttled_once)
        found = session.finish().tracepoints
    assert found is not None
    throttled = found.throttled[name]
    assert throttled.pauses > 0
    assert throttled.pause_ns >= throttled.pauses * 1_000_000
    assert throttled.dirtied >= 4096


def test_what_cannot_be_seen_ends_with_a_clear_error() -> None:
    done = subprocess.run(command("hist", "--backend", "tracepoint"), capture_output=True, text=True, check=False)
    assert done.returncode == 12
    assert "Calls and their latencies cannot be seen here: tracepoint backend" in done.stderr


# Last: the session of all victims is not read meanwhile, and its ring fills up.

#: Sends itself SIGBUS with codes that nobody has, as often below 0 as above (rt_sigqueueinfo(2), struct siginfo).
FORGER = """
import ctypes, os, signal, struct
signal.signal(signal.SIGBUS, signal.SIG_IGN)
for number in range(int(os.environ["MADE"])):
    for code in (-1000 - number, 1000 + number):
        info = struct.pack("iii", signal.SIGBUS, 0, code).ljust(128, bytes(1))
        assert ctypes.CDLL(None).syscall(129, os.getpid(), int(signal.SIGBUS), info) == 0
"""


def test_codes_that_a_process_makes_up_fill_no_map() -> None:
    made = 5003
    with counting(comms=("python3",)) as session:
        subprocess.run(["/usr/bin/python3", "-c", FORGER], env={"MADE": str(made)}, check=True)
        told = session.failures()
        final = session.finish()
    assert {series.kind: number for series, number in final.failures.items()} == {Class.SENT: made, Class.OTHER: made}
    assert {failure.signal.code for failure in told if failure.signal} == {Code.SENT, Code.OTHER}
    assert len(told) < made // 10
    assert sum(final.lost.values()) == 0


#: Processes that send themselves SIGBUS, one after the other.
CROWD = "import os\nfor _ in range({}):\n    if not os.fork(): os.kill(os.getpid(), 7)\n    os.wait()"


def test_failures_of_processes_that_are_gone_make_room() -> None:
    """More of them than there is room for at once; each is booked once."""
    each, times = 1151, 5
    ledger = FailureLedger(Who(By.PROCESS, 20), 1000)
    options = Options(Backend.TRACEPOINT, by=By.PROCESS, make_room=True, filters=Filters(comms=("python3",)))
    with Session(options) as session:
        for _ in range(times):
            subprocess.run(["/usr/bin/python3", "-c", CROWD.format(each)], check=True)
            for _ in range(2):
                snapshot = session.snapshot()
                session.failures()
                ledger.book(snapshot.failures, set(), snapshot.gone_failures)
        final = session.finish()
    assert each * times > 4096
    assert sum(number for _, number in ledger.counts(())) == each * times
    assert final.lost[Loss.SERIES_FULL] == 0
