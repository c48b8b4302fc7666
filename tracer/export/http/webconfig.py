"""Who may read the metrics, and over what: the file of ``--web.config.file``.

Its format is that of the exporters written with Prometheus' exporter-toolkit (docs/web-configuration.md there), of
which two parts are taken: ``tls_server_config`` and ``basic_auth_users``. A part that is not understood is refused:
who wrote it relies on it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl
import threading
from collections.abc import Mapping, Set
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
class WebConfig:
    """How to serve: over TLS if there is a context, to ``users``, to clients with one of the names ``sans``."""

    tls: ssl.SSLContext | None = None
    sans: frozenset[str] = frozenset()
    users: Users = field(default_factory=lambda: Users({}))

    @classmethod
    def load(cls, path: Path) -> WebConfig:
        """What the file says. Raises UsageError for one that cannot be read or is not understood."""
        import yaml

        try:
            config = yaml.safe_load(path.read_bytes())
        except OSError as error:
            raise UsageError(
                f"The web configuration {printable(str(path))} cannot be read: {error.strerror}.",
                "Name a readable file with --web.config.file.",
            ) from error
        except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:  # of its scalars, too
            raise _wrong(path, "it is not YAML") from error
        config = _mapping(path, "the file", config, {"tls_server_config", "basic_auth_users"})
        tls = _mapping(path, "tls_server_config", config.get("tls_server_config"), _TLS_KEYS)
        users = _mapping(path, "basic_auth_users", config.get("basic_auth_users"))
        for name, value in users.items():
            if ":" in name or not isinstance(value, str) or not _HASH.fullmatch(value):
                raise _wrong(
                    path, f"the password of {name!r} is not a bcrypt hash, as 'htpasswd -nBC 10 NAME' makes it"
                )
        sans = tls.get("client_allowed_sans") or []
        if not isinstance(sans, list) or not all(isinstance(san, str) for san in sans):
            raise _wrong(path, "client_allowed_sans is not a list of names")
        if sans and tls.get("client_auth_type") != "RequireAndVerifyClientCert":
            raise _wrong(path, "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
        return cls(_context(path, tls) if tls else None, frozenset(sans), Users(users))

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


def _context(path: Path, tls: Mapping[str, Any]) -> ssl.SSLContext:
    for name in _TLS_KEYS - {"client_allowed_sans"}:
        if not isinstance(tls.get(name, ""), str):
            raise _wrong(path, f"{name} is not a string")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _choice(path, tls, "min_version", "TLS12", _VERSIONS)
    context.maximum_version = _choice(path, tls, "max_version", "TLS13", _VERSIONS)
    if context.minimum_version > context.maximum_version:
        raise _wrong(path, "min_version is above max_version")
    certificate, key = (_file(path, tls, name) for name in ("cert_file", "key_file"))
    if certificate is None or key is None:
        raise _wrong(path, "tls_server_config needs cert_file and key_file")
    try:
        # Without an answer for the password, OpenSSL would ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise _wrong(path, f"{certificate} and {key} cannot be used: {_reason(error)}") from error
    authority = _file(path, tls, "client_ca_file")
    needed = _choice(path, tls, "client_auth_type", "NoClientCert", _CLIENT_AUTH)
    if (authority is None) != (needed == ssl.CERT_NONE):
        raise _wrong(path, "client_auth_type and client_ca_file need each other")
    if authority is not None:
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as error:
            raise _wrong(path, f"{authority} cannot be used: {_reason(error)}") from error
    context.verify_mode = needed
    return context


def _file(path: Path, tls: Mapping[str, Any], key: str) -> Path | None:
    """A file that is named in the configuration: relative to that, as in other exporters."""
    name = tls.get(key)
    return path.parent / name if name else None


def _choice(path: Path, tls: Mapping[str, Any], key: str, default: str, known: Mapping[str, Any]) -> Any:
    value = tls.get(key, default)
    if value not in known:
        raise _wrong(path, f"{key} is {value!r}, not one of {', '.join(known)}")
    return known[value]


def _mapping(path: Path, what: str, value: object, known: Set[str] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong(path, f"{what} is not a mapping of names")
    for key in value:
        if known is not None and key not in known:
            raise _wrong(path, f"{key!r} in {what} is not supported")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)


def _wrong(path: Path, what: str) -> MkwriteError:
    return UsageError(
        f"The web configuration {printable(str(path))} cannot be used: {printable(what)}.",
        "docs/commands/export.md shows one that can.",
    )
