"""The exporter as a process, over a session of made-up counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .panels import ROOT

UNIT = ROOT / "tests" / "unit"


@contextmanager
def exporter(*arguments: str) -> Iterator[str]:
    """Its host:port."""
    command = [sys.executable, str(UNIT / "fake_session.py"), "export", "--listen", "127.0.0.1:0", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{UNIT}"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            match = re.search(r"http://(\S+)/metrics", process.stderr.readline())
            assert match
            yield match[1]
        finally:
            process.terminate()
