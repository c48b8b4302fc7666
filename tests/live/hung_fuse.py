"""A FUSE filesystem whose daemon answers until it is told to hang."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, get_errno
from pathlib import Path
from typing import Final

SIZE: Final = 1 << 20
_LOOKUP, _GETATTR, _OPEN, _INIT = 1, 3, 14, 26
_ENOSYS: Final = -38
#: include/uapi/linux/fuse.h: struct fuse_in_header, fuse_out_header, fuse_attr.
_IN: Final = struct.Struct("=IIQQ16x")
_OUT: Final = struct.Struct("=IiQ")
_ATTR: Final = struct.Struct("=6Q10I")
_LIMIT: Final = 1 << 18


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == 1 else 0o100644
    return _ATTR.pack(node, SIZE, SIZE // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int) -> bytes | None:
    """The body of an answer; None where the answer is that it cannot be done. Nothing may be cached."""
    if opcode == _INIT:
        return struct.pack("=4I2HII2H8I", 7, 31, 0, 0, 0, 0, 4096, 1, 1, 0, *[0] * 8)
    if opcode == _LOOKUP:
        return struct.pack("=4Q2I", 2, 0, 0, 0, 0, 0) + _attributes(2)
    if opcode == _GETATTR:
        return struct.pack("=Q2I", 0, 0, 0) + _attributes(node)
    return struct.pack("=Q2I", 1, 0, 0) if opcode == _OPEN else None


@contextmanager
def fuse(place: Path) -> Iterator[threading.Event]:
    """Mount it, with one file in it. Once the event is set, whoever asks about it waits until this ends."""
    hang = threading.Event()
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
            if hang.is_set():
                return
            _, opcode, unique, node = _IN.unpack_from(request)
            body = _answer(opcode, node)
            error = 0 if body is not None else _ENOSYS
            os.write(device, _OUT.pack(_OUT.size + len(body or b""), error, unique) + (body or b""))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield hang
    finally:
        # The kernel gives up on the daemon, and its reader is told so.
        connection = os.minor(_device_of(place))
        Path(f"/sys/fs/fuse/connections/{connection}/abort").write_text("1")
        libc.umount2(os.fsencode(place), 2)
        os.close(device)


def _device_of(place: Path) -> int:
    """The device number of the filesystem that is mounted there, by the mount table: it cannot be asked."""
    from tracer.host.mounts import Mounts

    mount = Mounts.read().at(str(place))
    assert mount is not None
    return os.makedev(mount.dev >> 20, mount.dev & 0xFFFFF)
