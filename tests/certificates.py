"""An authority of our own, its certificates, and somebody else's."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MUTUAL = TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"


def openssl(*arguments: str | Path) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_keys(here: Path) -> None:
    """An authority ``ca``, its certificates ``server``, ``client`` and ``guest``, and a ``thief``."""
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "thief"):
        subject = ("-subj", f"/CN={name}")
        openssl(
            "req", "-x509", *new, *subject, "-days", "2", "-keyout", here / f"{name}.key", "-out", here / f"{name}.crt"
        )
    for name, san in (("server", "IP:127.0.0.1"), ("client", "DNS:prometheus.example"), ("guest", "DNS:guest")):
        extensions = here / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san}\n")
        request = here / f"{name}.csr"
        openssl("req", *new, "-subj", f"/CN={name}", "-keyout", here / f"{name}.key", "-out", request)
        openssl(
            "x509", "-req", "-in", request, "-days", "2", "-extfile", extensions, "-CAcreateserial",
            "-CA", here / "ca.crt", "-CAkey", here / "ca.key", "-out", here / f"{name}.crt",
        )  # fmt: skip


def client(keys: Path, name: str | None = None) -> ssl.SSLContext:
    """A client that trusts the authority, with a certificate of its own if named."""
    context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    if name:
        context.load_cert_chain(keys / f"{name}.crt", keys / f"{name}.key")
    return context
