"""Writing to a mapping in a child, which may die of it."""

from __future__ import annotations

import errno
import faulthandler
import mmap
import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAP_NORESERVE: Final = 0x4000
#: Added to the errno of msync(2) and fsync(2) in the exit code, and the code of another exception.
_LATE, _BROKEN = 128, 255


@dataclass(frozen=True)
class End:
    """How a child ended: of a signal, of an errno of mmap(2), of a ``late`` one of msync(2) or fsync(2), or well."""

    pid: int
    wall_ns: int
    sigbus: bool = False
    refused: str = ""
    late: str = ""


def child(write: Callable[[], None]) -> End:
    """Run ``write`` in a child."""
    start = time.monotonic_ns()
    pid = os.fork()
    if not pid:
        code = _BROKEN
        try:
            faulthandler.disable()  # pytest's, which would catch the signal
            write()
            code = 0
        except _LateError as error:
            code = _LATE + (error.errno or 0)
        except OSError as error:
            code = error.errno or _BROKEN
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    wall_ns = time.monotonic_ns() - start
    assert code in (0, -signal.SIGBUS) or 0 < code < _BROKEN, code
    return End(
        pid,
        wall_ns,
        sigbus=code == -signal.SIGBUS,
        refused=errno.errorcode[code] if 0 < code < _LATE else "",
        late=errno.errorcode[code - _LATE] if code > _LATE else "",
    )


def first_write(file: Path, pages: int, stride: int) -> None:
    """Write to pages that are not mapped."""
    with _mapped(file, pages * stride) as memory:
        for page in range(pages):
            memory[page * stride] = 1


def write_after_read(file: Path, pages: int, stride: int) -> None:
    """Write to pages that are mapped read-only, since they were written back and read."""
    with _mapped(file, pages * stride) as memory:
        with file.open("rb+", buffering=0) as stream:
            for page in range(pages):
                stream.seek(page * stride)
                with suppress(OSError):  # hugetlbfs has no write(2)
                    stream.write(b"x")
            os.fsync(stream.fileno())
        for page in range(pages):
            memory[page * stride]
        for page in range(pages):
            memory[page * stride] = 2


def write_back(file: Path, pages: int, stride: int) -> None:
    """Write to pages that are not mapped, then have them written back."""
    with _mapped(file, pages * stride) as memory:
        for page in range(pages):
            memory[page * stride] = 1
        try:
            memory.flush()
            with file.open("rb+", buffering=0) as stream:
                os.fsync(stream.fileno())
        except OSError as error:
            raise _LateError(*error.args) from error


class _LateError(OSError):
    pass


def _mapped(file: Path, size: int) -> closing[mmap.mmap]:
    with file.open("rb+" if file.exists() else "wb+") as stream:
        if file.stat().st_size < size:
            stream.truncate(size)
        return closing(mmap.mmap(stream.fileno(), size, mmap.MAP_SHARED | _MAP_NORESERVE))
