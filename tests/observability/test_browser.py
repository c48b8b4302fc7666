"""The landing page in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from look_back import NASTY, hour, nothing

from tracer.export.http.landing import page
from tracer.export.http.style import CONTENT_SECURITY_POLICY

from .browser import browse, picture
from .exporter import exporter


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    """The page as it is served, and what was asked for."""
    asked: list[str] = []
    pages = {"/": page(hour(), "0.1.0").encode(), "/down": page(nothing(), "0.1.0").encode()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path in pages else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_shows_what_there_is_without_any_script(site: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = site
    text, complaints = browse(tmp_path / "profile", "--dump-dom", address)
    assert "owned" not in re.findall("<title>(.*?)</title>", text)[0]
    assert not re.search(r"<(script|img)\b", text)
    # Once as a mount point for each path, then as a file and as the reason of a hook, and as a note.
    assert unescape(text).count(NASTY) == 5
    assert len(re.findall(r'<rect class="h[1-6]"', text)) > 300
    # No script may run, by the policy; the style sheet is the one that the policy allows, and nothing else was fetched.
    assert complaints == ""
    assert set(asked) <= {"/", "/favicon.ico"}


def test_it_can_be_looked_at(site: tuple[str, list[str]], tmp_path: Path) -> None:
    taken = tmp_path / "landing.png"
    picture(site[0], taken)
    # An empty page takes 10 kB.
    assert taken.read_bytes().startswith(b"\x89PNG") and taken.stat().st_size > 50_000


def test_down_is_seen(site: tuple[str, list[str]], tmp_path: Path) -> None:
    assert "cannot be read" in browse(tmp_path / "profile", "--dump-dom", f"{site[0]}/down")[0]


def test_the_exporter_serves_it(tmp_path: Path) -> None:
    with exporter() as address:
        text, complaints = browse(tmp_path / "profile", "--dump-dom", f"http://{address}/")
    assert '<table id="calls">' in text and "ext4_page_mkwrite" in text
    assert complaints == ""
