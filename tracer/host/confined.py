"""A process without rights: forked, and left with nothing but the descriptors that it is given."""

from __future__ import annotations

import gc
import os
import select
import signal
from collections.abc import Callable, Collection
from typing import Final, NoReturn

from tracer.errors import MkwriteError
from tracer.host.privileges import User, renounce

#: The parent decides when it ends, by closing what they share.
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FIRST: Final = 3  # after the standard streams


class Confined:
    """Runs ``work`` in a child process that has no capability, can get none, is not root, and cannot be traced.

    It has a session of its own, no environment, standard streams that are /dev/null, and no other descriptors than
    ``descriptors``. It ignores SIGINT, SIGTERM and SIGHUP: ``work`` returns when its side of these is closed. Make it
    while this process has one thread and nothing that the child must not have in its memory.
    """

    def __init__(self, work: Callable[[], object], descriptors: Collection[int], user: User) -> None:
        """Where this process is root, the child becomes ``user``. Raises MkwriteError if it keeps a right."""
        refusals, refuse = os.pipe()
        gc.freeze()  # looking for garbage would write to what is shared
        every = signal.valid_signals()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, every)
        try:
            self.pid = os.fork()
            if not self.pid:
                _child(work, {*descriptors, refuse}, user, refuse)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(refuse)
        self._end = ""
        with os.fdopen(refusals, errors="replace") as stream:
            refused = stream.read()
        if refused:
            os.waitpid(self.pid, 0)
            raise MkwriteError(
                f"A process without rights cannot be made: {refused}.",
                "Start mkwrite with CAP_SETUID and CAP_SETGID, or as another user than root.",
            )

    def wait(self, seconds: float) -> None:
        """Let it end, for so long."""
        if not self.ended():
            handle = os.pidfd_open(self.pid)
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(round(seconds * 1000))
            os.close(handle)
            self.ended()

    def ended(self) -> str:
        """How it has ended; "" while it runs."""
        if not self._end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._end = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._end


def _child(work: Callable[[], object], descriptors: Collection[int], user: User, refuse: int) -> NoReturn:
    code = 1
    try:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            os.setsid()
            os.chdir("/")
            os.environ.clear()
            _close_all_but(descriptors)
            renounce(user)
        except OSError as error:
            os.write(refuse, (error.strerror or str(error)).encode())
        else:
            os.close(refuse)
            work()
            code = 0
    finally:
        os._exit(code)


def _close_all_but(descriptors: Collection[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(_FIRST):
        os.dup2(nothing, stream)
    first = _FIRST
    for descriptor in sorted(descriptors):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, (1 << 31) - 1)
