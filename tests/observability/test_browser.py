"""The landing page in a real browser: what stands where, at two widths, by day and by night."""

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
from tracer.ui.sigbus import words

from .browser import Tab, browse, browser
from .exporter import exporter

DATA = Path(__file__).parent / "data"
#: What a reader sees, in order and by structure: headings, cards, tables and pictures, with what lies beside what.
OUTLINE = """(() => {
  const boxes = element => element.getBoundingClientRect();
  const beside = elements => elements.length > 1 && boxes(elements[0]).top == boxes(elements[1]).top;
  const lines = [];
  for (const one of document.querySelectorAll("h1, h2, .verdict, details, pre, table, svg[role=img], .minutes, nav")) {
    const name = one.tagName.toLowerCase();
    if (!one.checkVisibility()) continue;
    if (name == "h1") lines.push("h1");
    else if (name == "h2") lines.push("h2 " + one.textContent);
    else if (name == "details") {
      const parts = [...one.querySelectorAll("summary > span")];
      const rows = new Map();
      for (const part of parts) {
        const top = Math.round(boxes(part).top);
        rows.set(top, [...(rows.get(top) || []), part.className]);
      }
      lines.push("  card " + (one.open ? "open" : "shut") + ": " +
                 [...rows].sort((a, b) => a[0] - b[0]).map(row => row[1].join(" ")).join(" / "));
    } else if (name == "table") {
      const shown = one.querySelector("thead").checkVisibility();
      const cells = [...one.querySelectorAll("tbody tr:first-child td")];
      lines.push("  table " + one.id + ": " + one.querySelectorAll("tbody tr").length + " rows, " +
                 (shown ? "titles above" : "titles beside") + ", cells " + (beside(cells) ? "beside" : "below") +
                 " each other");
    } else lines.push("  " + (one.id || one.className || name));
  }
  return lines.join("\\n") + "\\n";
})()"""
#: The widest that anything reaches, the smallest letters, and the least contrast of text with what is behind it.
SIGHT = """(() => {
  const rgb = text => text.match(/[0-9.]+/g).map(Number);
  const light = text => rgb(text).slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055)
    ** 2.4).reduce((sum, v, index) => sum + v * [.2126, .7152, .0722][index], 0);
  let least = 99, small = 99, right = 0, which = "";
  for (const one of document.querySelectorAll("body *")) {
    if (!one.checkVisibility()) continue;
    right = Math.max(right, one.getBoundingClientRect().right);
    if (![...one.childNodes].some(node => node.nodeType == 3 && node.data.trim())) continue;
    if (one.closest("#heat-map")) continue;
    const style = getComputedStyle(one);
    let behind = one;
    while (behind && rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const ours = light(one.closest("svg") ? style.fill : style.color);
    const theirs = light(getComputedStyle(behind).backgroundColor);
    const contrast = (Math.max(ours, theirs) + .05) / (Math.min(ours, theirs) + .05);
    if (contrast < least) { least = contrast; which = one.outerHTML.slice(0, 80); }
    small = Math.min(small, parseFloat(style.fontSize));
  }
  const body = getComputedStyle(document.body).backgroundColor;
  return {right, small, least, which, wide: document.documentElement.scrollWidth, light: light(body)};
})()"""


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    """The page as it is served, and what was asked for."""
    asked: list[str] = []
    pages = {"/": page(hour(), "0.1.0", words).encode(), "/down": page(nothing(), "0.1.0", words).encode()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            self.send_response(200 if path in pages else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            self.end_headers()
            self.wfile.write(pages.get(path, b""))

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
    # As a mount point, a file (in a report, too), the reason of a hook, and a note.
    assert unescape(text).count(NASTY) >= 8
    assert len(re.findall(r'<rect class="h[1-6]"', text)) > 300
    # No script may run, by the policy; the style sheet is the one that the policy allows, and nothing else was fetched.
    assert complaints == ""
    assert set(asked) <= {"/", "/favicon.ico"}


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    """A browser."""
    with browser() as one:
        yield one


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_laid_out_as_it_was_meant(site: tuple[str, list[str]], tab: Tab, width: int, dark: bool) -> None:
    tab.open(site[0], width, dark=dark)
    assert tab.value("document.querySelectorAll('details[open]').length") == 0
    tab.value("document.querySelector('details').open = true; 0")
    assert tab.value(OUTLINE) == (DATA / f"landing-{width}.txt").read_text()
    seen = tab.value(SIGHT)
    # Nothing is cut off or scrolled to sideways, whatever things are called; all can be read (WCAG 2.2, 1.4.3).
    assert seen["wide"] <= width and seen["right"] <= width, seen
    assert seen["small"] >= 12 and seen["least"] >= 4.5, seen
    assert (seen["light"] < 0.1) == dark, seen


def test_a_link_to_a_report_opens_it(site: tuple[str, list[str]], tab: Tab) -> None:
    tab.open(site[0], 1280)
    name = tab.value("document.querySelector('details > div').id")
    tab.open(f"{site[0]}/?still#{name}", 1280)
    assert tab.value("document.querySelector('details').open") is True


def test_down_is_seen(site: tuple[str, list[str]], tmp_path: Path) -> None:
    assert "cannot be read" in browse(tmp_path / "profile", "--dump-dom", f"{site[0]}/down")[0]


def test_the_exporter_serves_it(tmp_path: Path) -> None:
    with exporter() as address:
        text, complaints = browse(tmp_path / "profile", "--dump-dom", f"http://{address}/")
    assert '<table id="calls">' in text and "ext4_page_mkwrite" in text
    assert complaints == ""
