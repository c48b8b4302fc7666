"""The table of docs/commands/waits.md, from what the live tests print of each wait.

tests/run 5.10 6.1 6.12 newest -k waits | python -m tests.live.waited
"""

from __future__ import annotations

import json
import re
import sys

_LINE = re.compile(r"WAITED (\{.*\})$")


def main() -> int:
    """Read standard input, print Markdown: a row for each wait, as each kernel and backend had it last."""
    print("| test | filesystem | kernel | hooks | store took | told | `other` | on the CPU | busy | ready |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = {}
    for line in sys.stdin:
        if not (match := _LINE.search(line.rstrip())):
            continue
        row = json.loads(match[1])
        parts = row["parts"]
        what = row["test"].removeprefix("test_").replace("_", " ")
        named = [row["reason"], *(part for part in parts if part not in (row["reason"], "other", "cpu"))]
        told = ", ".join(f"`{part}` {parts[part] / 1e6:.1f} ms" for part in named if parts.get(part, 0) >= 50_000)
        kernel = ".".join(row["kernel"].split(".")[:2])
        times = (parts.get("other", 0), parts["cpu"], row["busy"], row["ready"])
        cells = (what, row["fstype"], kernel, row["backend"], f"{row['took'] / 1e6:.1f} ms", told,
                 *(f"{ns / 1e6:.1f} ms" for ns in times))  # fmt: skip
        rows[cells[:4]] = cells
    for cells in sorted(rows.values(), key=lambda cells: (cells[:2], [*map(int, cells[2].split("."))], cells[3])):
        print("|", " | ".join(cells), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
