"""The process that answers HTTP: it holds its socket and a way to ask the tracer, and no right at all."""

from __future__ import annotations

import mmap
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final

from tracer.errors import Exit, MkwriteError, UsageError
from tracer.export.http.application import Application
from tracer.export.http.questions import Question, answer_all, ask, obey, order
from tracer.export.http.server import Address, Server, bound, cannot_listen
from tracer.export.http.webconfig import WebConfig, WebFiles
from tracer.host.confined import Confined
from tracer.host.privileges import User

#: How long it may take to obey. Then it hangs, or is somebody else's by now.
_LIMIT_S: Final = 15.0
#: And to end; the tracer may not be allowed to kill it.
_END_S: Final = 2.0


class HttpProcess:
    """The tracer's side of it. Make it before the tracer has anything that is not to be in the other's memory."""

    def __init__(self, address: Address, files: WebFiles, user: User) -> None:
        """Has ``address``, and does not listen yet. Raises MkwriteError, as for files that cannot be served with."""
        self._orders, orders = socket.socketpair()
        self._questions, questions = socket.socketpair()
        #: One byte that both have in memory: whether the tracer traces.
        self._ready = mmap.mmap(-1, 1)
        with orders, questions, bound(address) as listener:
            self._address = Address(address.host, listener.getsockname()[1])
            served = _Served(listener, orders, questions, self._ready)
            # Imported now: it may not be able to later, and then knows what a configuration asks for.
            if files.path:
                import bcrypt  # noqa: F401

            self._process = Confined(served.run, [one.fileno() for one in (listener, orders, questions)], user)
        self._thread = threading.Thread(target=self._answer, name="mkwrite-answers", daemon=True)
        self._tls = False
        try:
            self.configure(files)
        except MkwriteError:
            self.close()
            raise

    def __enter__(self) -> HttpProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it is found."""
        return f"{'https' if self._tls else 'http'}://{self._address}"

    def configure(self, files: WebFiles) -> None:
        """Serve as they say from the next connection on. Raises UsageError, having changed nothing, if it cannot."""
        if problem := self._order("configure", **asdict(files)):
            raise UsageError(problem, "docs/commands/export.md shows one that can.")
        self._tls = bool(files.tls)

    def serve(self, make: Callable[[Question], bytes]) -> None:
        """Listen; what is asked is answered with what ``make`` makes, in a thread. Raises MkwriteError if it cannot."""
        self._make = make
        self._thread.start()
        self.tell(True)
        if problem := self._order("listen"):
            raise cannot_listen(self._address, problem)

    def tell(self, ready: bool) -> None:
        """Set the answer to whoever asks whether the tracer is ready."""
        self._ready[0] = ready

    def check(self) -> None:
        """Raise MkwriteError if it has ended, or asks what there is not."""
        if not self._thread.is_alive():
            raise self._ended()

    def close(self) -> None:
        """End it: it goes when these are closed."""
        if self._orders.fileno() < 0:
            return
        for channel in (self._orders, self._questions):
            with suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()
        self._process.wait(_END_S)

    def _answer(self) -> None:
        with suppress(OSError):
            answer_all(self._questions, self._make)

    def _order(self, do: str, **told: Any) -> str:
        try:
            return order(self._orders, _LIMIT_S, do=do, **told)
        except OSError:
            raise self._ended() from None

    def _ended(self) -> MkwriteError:
        self.close()
        return MkwriteError(
            f"The process that answers HTTP is no more of use ({self._process.ended() or 'it does not obey'}).",
            "Start mkwrite again; if it was not killed by hand or for memory, please report it.",
            Exit.FAILED,
        )


class _Served:
    """The other side, in that process."""

    def __init__(
        self, listener: socket.socket, orders: socket.socket, questions: socket.socket, ready: mmap.mmap
    ) -> None:
        self._listener = listener
        self._orders = orders
        self._config = WebConfig()
        self._application = Application(
            lambda question: ask(questions, question), lambda: bool(ready[0]), self._config.users
        )
        self._server: Server | None = None

    def run(self) -> None:
        """Obey until the tracer is gone."""
        with suppress(OSError):
            obey(self._orders, self._obey)

    def _obey(self, do: str, **told: Any) -> str:
        try:
            if do == "listen":
                self._server = Server(self._listener, self._application, self._config)
            else:
                self._configure(WebConfig.of(WebFiles(**told)))
        except MkwriteError as error:
            return error.problem
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _configure(self, config: WebConfig) -> None:
        self._config = config
        self._application.users = config.users
        if self._server:
            self._server.configure(config)
