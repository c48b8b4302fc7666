"""A process made to be hard to show: odd comm, odd path, its own mount namespace, very many mappings.

Arguments: a directory on a filesystem that is asked for writable pages, how many of the mappings to store to. It says
"." when it has mapped, stores when told by a line, says "." again, and waits for another line. Standard library only.
"""

from __future__ import annotations

import ctypes as ct
import mmap
import os
import sys
from pathlib import Path

#: 15 bytes, as many as there is room for: an escape sequence, a newline, a quote, what is no UTF-8, a bidi override.
COMM = b"\x1b[31m\n\"\xff%s\xe2\x80\xae'!"
#: A directory and a file: 255 bytes, most of which no terminal should see.
NAMES = (b"\x1b]0;owned\x07\r\n", (b"\xff\xfe\n\x9b2J '\"\\$(id)" * 16)[:255])
_PR_SET_NAME = 15
_CLONE_NEWNS = 0x00020000
#: Of its file: as many as a process may have of all, where nobody raised vm.max_map_count.
MAPPINGS = 65_530
#: What the interpreter itself maps, and may still map.
OWN = 200


def place(directory: Path) -> bytes:
    """The file."""
    return b"/".join((os.fsencode(directory), *NAMES))


def main() -> None:
    """Do it."""
    directory, stores = Path(sys.argv[1]), int(sys.argv[2])
    libc = ct.CDLL(None, use_errno=True)
    assert libc.unshare(_CLONE_NEWNS) == 0
    assert libc.prctl(_PR_SET_NAME, COMM, 0, 0, 0) == 0
    path = place(directory)
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120  # bytes
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, mmap.PAGESIZE)
    libc.mmap.restype = ct.c_void_p
    libc.mmap.argtypes = (ct.c_void_p, ct.c_size_t, *[ct.c_int] * 3, ct.c_long)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    # One page again and again: neighbours that are no continuation of each other stay apart.
    addresses = [libc.mmap(None, mmap.PAGESIZE, protection, mmap.MAP_SHARED, descriptor, 0) for _ in range(MAPPINGS)]
    assert len(Path("/proc/self/maps").read_bytes().splitlines()) > MAPPINGS
    _step()
    for address in addresses[:stores]:
        ct.c_char.from_address(address).value = b"x"
    _step()


def _step() -> None:
    os.write(1, b".")
    sys.stdin.readline()


if __name__ == "__main__":
    main()
