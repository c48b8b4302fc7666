"""Who may read the metrics, and over what: the file of ``--web.config.file``.

Its format is that of the exporters written with Prometheus' exporter-toolkit (docs/web-configuration.md there), of
which two parts are taken: ``tls_server_config`` and ``basic_auth_users``. A part that is not understood is refused:
who wrote it relies on it. One process may read these files, another one serves as they say: see ``WebFiles``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import ssl
import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tracer.errors import MkwriteError, UsageError
from tracer.export.admission import Turns
from tracer.text import printable

_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
#: Those of Go's names that verify what the client shows; the others are no protection.
_CLIENT_AUTH: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_TLS_KEYS: Final = frozenset({
    "cert_file", "key_file", "client_auth_type", "client_ca_file", "client_allowed_sans", "min_version", "max_version",
})  # fmt: skip
_FILES: Final = ("cert_file", "key_file", "client_ca_file")
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
#: The hash of no password, without its cost.
_NOBODY: Final = "abcdefghijklmnopqrstuuxcN2HeKCxN5tqWmxqQ8vGwE0YNmKPHK"
#: Passwords that were right, and that were wrong, are remembered, hashed by a fast function, so many of each at most.
_REMEMBERED: Final = 256


class Users:
    """Names and bcrypt hashes; without any, everyone may come in."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = {name.encode(): value.encode() for name, value in hashes.items()}
        self._cost = max(map(_cost, self._hashes.values()), default=0)
        self._known: dict[bool, dict[bytes, None]] = {True: {}, False: {}}
        # One at a time: bcrypt is made to be slow, and guessing is not to take every CPU.
        self._turns = Turns()
        self._lock = threading.Lock()

    def allows(self, authorization: str, client: str = "") -> bool:
        """Whether the value of an Authorization header is that of a user.

        ``client`` is the network that asks: one that guesses waits for itself. A password that was right or wrong
        before costs no check. Raises Busy where no check can be made now.
        """
        if not self._hashes:
            return True
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        if not colon:
            return False
        proof = hashlib.sha256(name + b":" + password).digest()
        for right, proofs in self._known.items():
            if proof in proofs:
                return right
        with self._turns.turn(client):
            right = self._check(name, password)
        with self._lock:
            proofs = self._known[right]
            if len(proofs) >= _REMEMBERED:
                del proofs[next(iter(proofs))]
            proofs[proof] = None
        return right

    def _check(self, name: bytes, password: bytes) -> bool:
        """Compare with the user's hash, or with that of nobody: all of it takes what the dearest user's hash takes.

        A hash of cost n takes 2^n; so where it is less, others make up for it: 2^n + 2^n + 2^(n+1) + ... = 2^dearest.
        """
        import bcrypt

        compared = self._hashes.get(name) or _nobody(self._cost)
        try:
            right = bcrypt.checkpw(password, compared)
            for cost in range(_cost(compared), self._cost):
                bcrypt.checkpw(password, _nobody(cost))
        except ValueError:  # a password of more than 72 bytes, or with a NUL
            return False
        return right and name in self._hashes


@dataclass(frozen=True)
class WebFiles:
    """What the file at ``path`` says, and what is in those that it names, by key; all of it can be sent as JSON."""

    path: str = ""
    tls: Mapping[str, Any] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> WebFiles:
        """Read them. Raises UsageError for what cannot be read or is not understood."""
        import yaml

        try:
            config = yaml.safe_load(path.read_bytes())
        except OSError as error:
            raise UsageError(
                f"The web configuration {printable(str(path))} cannot be read: {error.strerror}.",
                "Name a readable file with --web.config.file.",
            ) from error
        except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:  # of its scalars, too
            raise _wrong(str(path), "it is not YAML") from error
        config = _mapping(path, "the file", config, {"tls_server_config", "basic_auth_users"})
        tls = _mapping(path, "tls_server_config", config.get("tls_server_config"), _TLS_KEYS)
        users = _mapping(path, "basic_auth_users", config.get("basic_auth_users"))
        for name, value in users.items():
            if ":" in name or not isinstance(value, str) or not _HASH.fullmatch(value):
                raise _wrong(
                    str(path), f"the password of {name!r} is not a bcrypt hash, as 'htpasswd -nBC 10 NAME' makes it"
                )
        sans = tls.get("client_allowed_sans") or []
        if not isinstance(sans, list) or not all(isinstance(san, str) for san in sans):
            raise _wrong(str(path), "client_allowed_sans is not a list of names")
        if sans and tls.get("client_auth_type") != "RequireAndVerifyClientCert":
            raise _wrong(str(path), "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
        for name in _TLS_KEYS - {"client_allowed_sans"}:
            if not isinstance(tls.get(name, ""), str):
                raise _wrong(str(path), f"{name} is not a string")
        contents = {key: _content(path, tls[key]) for key in _FILES if tls.get(key)}
        return cls(str(path), tls, contents, users)


@dataclass(frozen=True)
class WebConfig:
    """How to serve: over TLS if there is a context, to ``users``, to clients with one of the names ``sans``."""

    tls: ssl.SSLContext | None = None
    sans: frozenset[str] = frozenset()
    users: Users = field(default_factory=lambda: Users({}))

    @classmethod
    def of(cls, files: WebFiles) -> WebConfig:
        """Return what they say. Raises UsageError for keys and certificates that cannot be used."""
        sans = frozenset(files.tls.get("client_allowed_sans") or ())
        return cls(_context(files) if files.tls else None, sans, Users(files.users))

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client with this certificate, as ``SSLSocket.getpeercert`` gives it, may go on."""
        if not self.sans:
            return True
        names = (certificate or {}).get("subjectAltName", ())
        return any(value in self.sans for _, value in names)


def _cost(hashed: bytes) -> int:
    return int(hashed[4:6])


def _nobody(cost: int) -> bytes:
    return f"$2b${cost:02}${_NOBODY}".encode()


def _context(files: WebFiles) -> ssl.SSLContext:
    path, tls, contents = files.path, files.tls, files.contents
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _choice(path, tls, "min_version", "TLS12", _VERSIONS)
    context.maximum_version = _choice(path, tls, "max_version", "TLS13", _VERSIONS)
    if context.minimum_version > context.maximum_version:
        raise _wrong(path, "min_version is above max_version")
    if "cert_file" not in contents or "key_file" not in contents:
        raise _wrong(path, "tls_server_config needs cert_file and key_file")
    try:
        with _file(contents["cert_file"]) as certificate, _file(contents["key_file"]) as key:
            # Without an answer for the password, OpenSSL would ask on the terminal.
            context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        named = f"{tls['cert_file']} and {tls['key_file']}"
        raise _wrong(path, f"{named} cannot be used: {_reason(error)}") from error
    needed = _choice(path, tls, "client_auth_type", "NoClientCert", _CLIENT_AUTH)
    if ("client_ca_file" not in contents) != (needed == ssl.CERT_NONE):
        raise _wrong(path, "client_auth_type and client_ca_file need each other")
    if "client_ca_file" in contents:
        try:
            with _file(contents["client_ca_file"]) as authority:
                context.load_verify_locations(authority)
        except (OSError, ValueError) as error:
            raise _wrong(path, f"{tls['client_ca_file']} cannot be used: {_reason(error)}") from error
    context.verify_mode = needed
    return context


def _content(path: Path, name: str) -> str:
    """Of a file that is named in the configuration: relative to that, as in other exporters."""
    try:
        return (path.parent / name).read_bytes().decode("latin-1")
    except (OSError, ValueError) as error:
        raise _wrong(str(path), f"{name} cannot be read: {_reason(error)}") from error


@contextmanager
def _file(content: str) -> Iterator[str]:
    """Provide a file in memory, for OpenSSL, which takes keys from files only."""
    descriptor = os.memfd_create("mkwrite-web")
    try:
        os.write(descriptor, content.encode("latin-1"))
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _choice(path: str, tls: Mapping[str, Any], key: str, default: str, known: Mapping[str, Any]) -> Any:
    value = tls.get(key, default)
    if value not in known:
        raise _wrong(path, f"{key} is {value!r}, not one of {', '.join(known)}")
    return known[value]


def _mapping(path: Path, what: str, value: object, known: Set[str] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong(str(path), f"{what} is not a mapping of names")
    for key in value:
        if known is not None and key not in known:
            raise _wrong(str(path), f"{key!r} in {what} is not supported")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)


def _wrong(path: str, what: str) -> MkwriteError:
    return UsageError(
        f"The web configuration {printable(path)} cannot be used: {printable(what)}.",
        "docs/commands/export.md shows one that can.",
    )
