"""A FUSE filesystem whose daemon answers, but for while it is told to hang."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, get_errno
from pathlib import Path
from typing import Final

SIZE: Final = 1 << 20
_LOOKUP, _GETATTR, _OPEN, _READ, _WRITE, _INIT = 1, 3, 14, 15, 16, 26
#: Nobody waits for an answer to these.
_FORGET: Final = (2, 42)
_ENOSYS: Final = -38
#: include/uapi/linux/fuse.h: struct fuse_in_header, fuse_out_header, fuse_attr.
_IN: Final = struct.Struct("=IIQQ16x")
_OUT: Final = struct.Struct("=IiQ")
_ATTR: Final = struct.Struct("=6Q10I")
#: struct fuse_read_in, fuse_write_in: how much of them names the size, 16 bytes in.
_BYTES: Final = struct.Struct("=16xI")
_LIMIT: Final = 1 << 18


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == 1 else 0o100644
    return _ATTR.pack(node, SIZE, SIZE // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int, arguments: bytes) -> bytes | None:
    """The body of an answer; None where the answer is that it cannot be done. Nothing may be cached.

    Files are zeros, and what is written to them is forgotten.
    """
    if opcode == _INIT:
        return struct.pack("=4I2HII2H8I", 7, 31, 0, 0, 0, 0, 4096, 1, 1, 0, *[0] * 8)
    if opcode == _LOOKUP:
        return struct.pack("=4Q2I", 2, 0, 0, 0, 0, 0) + _attributes(2)
    if opcode == _GETATTR:
        return struct.pack("=Q2I", 0, 0, 0) + _attributes(node)
    if opcode == _READ:
        return bytes(*_BYTES.unpack_from(arguments))
    if opcode == _WRITE:
        return struct.pack("=2I", *_BYTES.unpack_from(arguments), 0)
    return struct.pack("=Q2I", 1, 0, 0) if opcode == _OPEN else None


@contextmanager
def fuse(place: Path) -> Iterator[threading.Event]:
    """Mount it, with one file in it. While the event is set, whoever asks about it waits; until this ends at most."""
    hang, over = threading.Event(), threading.Event()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = CDLL(None, use_errno=True)
    if libc.mount(b"hung", os.fsencode(place), b"fuse", 0, options):
        raise OSError(get_errno(), "mount")

    def serve() -> None:
        while True:
            try:
                request = os.read(device, _LIMIT)
            except OSError:  # the connection was given up
                return
            _, opcode, unique, node = _IN.unpack_from(request)
            if opcode in _FORGET:
                continue
            while hang.is_set() and not over.is_set():
                time.sleep(0.01)
            if over.is_set():
                return
            body = _answer(opcode, node, request[_IN.size :])
            error = 0 if body is not None else _ENOSYS
            os.write(device, _OUT.pack(_OUT.size + len(body or b""), error, unique) + (body or b""))

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield hang
    finally:
        over.set()
        # The kernel gives up on the daemon, and its reader is told so.
        connection = os.minor(_device_of(place))
        Path(f"/sys/fs/fuse/connections/{connection}/abort").write_text("1")
        libc.umount2(os.fsencode(place), 2)
        server.join()
        os.close(device)


def _device_of(place: Path) -> int:
    """The device number of the filesystem that is mounted there, by the mount table: it cannot be asked."""
    from tracer.host.mounts import Mounts

    mount = Mounts.read().at(str(place))
    assert mount is not None
    return os.makedev(mount.dev >> 20, mount.dev & 0xFFFFF)
