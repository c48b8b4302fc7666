"""The table of docs/commands/sigbus.md, from what the live tests print of each report.

tests/run 5.10 6.1 6.12 6.18 newest -k "test_sigbus or test_causes or test_stale or test_readonly" |
    python -m tests.live.reported
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.live.refusals import Met
    from tracer.model.hooks import Backend

_LINE = re.compile(r"^\[\S+ (\S+)\] .*?reported: (\w+) \| (.+?) \| (\S+) \| (\S+) \| (\S+) \| (\S+)$")


def tell(request: pytest.FixtureRequest, backend: Backend, met: Mapping[str, Met]) -> None:
    """Print what was reported of each, past pytest's capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print()
        for name, each in met.items():
            print(f"reported: {backend} | {name} | {_reported(each)}", flush=True)


def _reported(met: Met) -> str:
    """Class, effect and errno of a report."""
    failure, diagnosis = met.explained.failure, met.explained.diagnosis
    effect = failure.signal.disposition.value if failure.signal else "none"
    errno_from = "inferred" if diagnosis.inferred_from else failure.errno_from or "-"
    return f"{diagnosis.kind} | {effect} | {diagnosis.errno or '-'} | {errno_from}"


def main() -> int:
    """Read standard input, print Markdown: a row for each case, a column for each kernel."""
    kernels: list[str] = []
    rows: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for line in sys.stdin:
        if not (match := _LINE.match(line.rstrip())):
            continue
        kernel, _backend, case, kind, effect, errno, function = match.groups()
        if kernel not in kernels:
            kernels.append(kernel)
        name = "-" if errno == "-" else f"{errno} {'inferred' if function == 'inferred' else f'`{function}`'}"
        rows.setdefault((case, kind, effect), {}).setdefault(kernel, set()).add(name)
    print("| case | class | signal |", " | ".join(kernels), "|")
    print("|" + "---|" * (3 + len(kernels)))
    for (case, kind, effect), cells in rows.items():
        # Where the backends do not agree, both are shown.
        found = [" / ".join(sorted(cells.get(kernel, {"not run"}))) for kernel in kernels]
        print(f"| {case} | {kind} | {effect} |", " | ".join(found), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
