"""Run as a program: a file that is written to through a mapping or by write(2), one step a line of standard input.

Pages lie 256 KiB apart, or as far as the third argument says, and none is read ahead, so that each is a folio of its
own. Answers "ok", or the errno's name.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys

STRIDE = 256 << 10


def main(path: str, pages: int, stride: int = STRIDE) -> None:
    """Take steps until there are no more: map, store N, write N, msync, fsync, unmap, close."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, pages * stride)
    mapped: mmap.mmap | None = None
    for line in sys.stdin:
        what, *number = line.split()
        try:
            if what == "map":
                mapped = mmap.mmap(fd, pages * stride)
                mapped.madvise(mmap.MADV_RANDOM)
            elif what == "store" and mapped:
                for page in range(int(number[0])):
                    mapped[page * stride] = 1
            elif what == "write":
                for page in range(int(number[0])):
                    os.pwrite(fd, bytes(4096), page * stride)
            elif what == "msync" and mapped:
                mapped.flush()
            elif what == "fsync":
                os.fsync(fd)
            elif what == "close":
                os.close(fd)
            elif what == "unmap" and mapped:
                mapped.close()
            print("ok", flush=True)
        except OSError as error:
            print(errno.errorcode[error.errno or 0], flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
