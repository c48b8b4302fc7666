"""Removes a tracer's return probes from tracefs when the tracer is gone, however it went.

A return probe with a pool large enough for calls that sleep can only be made as a tracefs event, and such an event
outlives the process that made it. This program waits for a byte on its standard input, or for the tracer to die, then
deletes the tracer's events. It does not wait for the end of its input: a child that the tracer forked holds that, too.
Arguments: tracefs's kprobe_events file, the events' group, the tracer's pid.
It imports nothing of mkwrite, so that it stays small.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time


def command(events: str, text: str) -> None:
    """Write one line to kprobe_events. Never with O_TRUNC, which deletes everybody's events, nor Python's append
    mode, whose seek the file refuses. Raises OSError as the kernel refuses.
    """
    descriptor = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode() + b"\n")
    finally:
        os.close(descriptor)


def sweep(events: str, group: str) -> bool:
    """Delete the events of ``group``; False if one is still in use."""
    with open(events) as stream:  # noqa: PTH123  # pathlib would double this program
        ours = [line.split()[0].split(":", 1)[1] for line in stream if f":{group}/" in line]
    clean = True
    for event in ours:
        try:
            command(events, f"-:{event}")
        except OSError:
            clean = False
    return clean


def wait_for(tracer: int) -> None:
    """Wait until the tracer is done, or gone."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    try:
        poll.register(os.pidfd_open(tracer), select.POLLIN)
    except ProcessLookupError:
        return
    if os.getppid() == tracer:  # else the pid was another's
        poll.poll()


def main() -> None:
    """Wait for the tracer, then sweep until nothing is left (10 s at most)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    events, group, tracer = sys.argv[1:4]
    wait_for(int(tracer))
    # The dying tracer's descriptors, which hold the events, are closed in no order that we know.
    for _ in range(200):
        if sweep(events, group):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main()
