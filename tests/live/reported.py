"""The table of docs/commands/sigbus.md, from what the live tests print of each report.

tests/live/run 5.10 6.1 6.12 newest -k test_sigbus | python -m tests.live.reported
"""

from __future__ import annotations

import re
import sys

_LINE = re.compile(r"^\[\S+ (\S+)\] .*?reported: (\w+) \| (.+?) \| (\S+) \| (\S+) \| (\S+) \| (\S+)$")


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
