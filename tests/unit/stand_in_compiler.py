"""A script in the place of the Python that compiles: it says what a compiler said, and counts its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

_MAP: Final = {"type": 2, "key_size": 4, "value_size": 8, "max_entries": 1, "flags": 0,
               "key": "unsigned int", "value": "unsigned long long"}  # fmt: skip


def output(*files: Path) -> str:
    """What ``compile.py`` prints of a small object that these files compiled."""
    compiler = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return json.dumps({
        "bcc": "0.31.0", "compiler": compiler, "maps": {"m": _MAP}, "programs": {"p": "95" + "00" * 7},
        "references": {"p": [[0, "m"]]},
    })  # fmt: skip


class Compiler:
    """A stand-in for a Python: keeps its input, prints ``output``, ends with ``code``."""

    def __init__(self, directory: Path, printed: str | None = None, code: int = 0, log: str = "") -> None:
        directory.mkdir()
        self.path = directory / "python"
        self._input = directory / "input"
        self._runs = directory / "runs"
        (directory / "output").write_text(output() if printed is None else printed)
        (directory / "log").write_text(log)
        self.path.write_text(
            "#!/bin/sh\n"
            f'cat > "{directory}/input"; echo >> "{self._runs}"; cat "{directory}/output"; cat "{directory}/log" >&2\n'
            f"exit {code}\n"
        )
        self.path.chmod(0o700)

    @property
    def runs(self) -> int:
        return len(self._runs.read_text()) if self._runs.exists() else 0

    @property
    def input(self) -> str:
        return self._input.read_text()
