"""Telling the service manager how a daemon is, see sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*states: str) -> None:
    """Send such states as "READY=1"; without a service manager that listens, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        channel.send("\n".join(states).encode())
