"""docs/support-matrix.md from the results of the runs, one file of JSON a kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results")
DOCUMENT = ROOT / "docs" / "support-matrix.md"

_HEAD = """\
# Support matrix

What `mkwrite` tells of each filesystem, as the tests saw it: they set it up in a guest with Debian's kernel, write
{first} pages for the first time and {again} pages that were mapped read-only, compare with what each backend counted,
then fill it up and write into a hole. `make test-filesystems` repeats that; this page is made from its results.

{runs}

A cell names the backends that told the exact number of calls on both paths, with the right handler, filesystem, device
and mount point. Anything else has its cause below; of what is *not run*, the handler was hooked by its name all the
same.
"""
_FULL = """\
## When no space is left

What a write into a hole of a file does then, and which errno `mkwrite sigbus` tells of it. Where the data are lost only
at writeback, the application learns it from msync(2) or fsync(2), or not at all: no handler was asked for space.
"""
_CAUSES = """\
## Causes

Functions are those of the kernel's source, where what is said can be read.
"""
_OUTSIDE = """\
## Handlers outside filesystems

Drivers and the kernel itself have handlers, too. The core calls them through the same function, so their calls are
counted like any other, under the name of the handler. Filesystem and device are those of the file that is mapped: a
node in /dev has a mount point, a file of the kernel's own has none, and `mountpoint` is empty.

| mapping | handler | filesystem | how it is tested |
|---|---|---|---|
| perf's buffer, before 6.18 | `perf_mmap_fault` | `anon_inodefs`, mounted nowhere | live |
| perf's buffer, from 6.18 on | none: it is mapped by PFN (`perf_mmap_pfn_mkwrite`) | - | live: nothing is told |
| the ring of asynchronous I/O | `filemap_page_mkwrite` | `aio`, mounted nowhere | live |
| frame buffers with deferred I/O | `fb_deferred_io_mkwrite` | that of the node in /dev | by name |
| graphics memory of vmwgfx | `vmw_bo_vm_mkwrite` | that of the node in /dev | by name |
| files of kernfs that a driver lets map | `kernfs_vma_page_mkwrite` | `sysfs` | by name |
| SELinux's policy | `sel_mmap_policy_fault` | `selinuxfs` | by name |

*Live*: `tests/live/test_outside.py` writes to such mappings in the guests, and compares the numbers that `count`,
`trace`, `hist` and `export` tell. *By name*: no test makes such a call. Unit tests see to it that the function is found
in the kernel's symbols as recorded from Debian's kernels, for `--handler`; the filesystem is what the source leads to
expect. What a driver maps by PFN asks pfn_mkwrite instead, and is not told. Nothing is known of when these refuse, and
`doctor --filesystems` does not list them.
"""

Rows = dict[str, dict[str, Any]]


def load() -> dict[str, Rows]:
    """Rows by name, by kernel in the order of their numbers."""
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: tuple(map(int, item[0].split(".")))))


def render(results: dict[str, Rows], first: int, again: int) -> str:
    """The document."""
    names = list(dict.fromkeys(name for rows in results.values() for name in rows))
    lines = [
        _HEAD.format(first=first, again=again, runs="\n".join(_runs(results))),
        f"| filesystem | handler | {' | '.join(results)} |",
        f"|---|---|{'---|' * len(results)}",
    ]
    for name in names:
        per = {kernel: rows[name] for kernel, rows in results.items() if name in rows}
        handlers = _by_kernel({k: f"`{row['handler']}`" if row["handler"] else "none" for k, row in per.items()})
        cells = [_cell(per[kernel]) if kernel in per else "not run" for kernel in results]
        lines.append(f"| {name} | {handlers} | {' | '.join(cells)} |")
    lines += ["", _FULL, "| filesystem | a write into a hole | errno |", "|---|---|---|"]
    for name in names:
        told = {kernel: row for kernel, rows in results.items() if (row := rows.get(name)) and row["full"]}
        if told:
            full = _by_kernel({kernel: _full(row) for kernel, row in told.items()})
            lines.append(f"| {name} | {full} | {_by_kernel({k: _errno(row) for k, row in told.items()})} |")
    lines += ["", _CAUSES, *_causes(results, names), "", _OUTSIDE.rstrip()]
    return "\n".join(lines) + "\n"


def _runs(results: dict[str, Rows]) -> Iterator[str]:
    """Which kernels they were, and when."""
    for kernel, rows in results.items():
        runs = sorted({(row["date"], row["release"]) for row in rows.values()})
        yield f"- {kernel}: {'; '.join(f'{release} on {date}' for date, release in runs)}"


def _cell(row: dict[str, Any]) -> str:
    if row["state"] != "seen":
        return str(row["state"])
    exact = [backend for backend, right in row["exact"].items() if right]
    return ", ".join(exact) or "differs"


def _full(row: dict[str, Any]) -> str:
    return f"{row['full']} ({row['late']})" if row["late"] else str(row["full"])


def _errno(row: dict[str, Any]) -> str:
    inferred = "" if row["errno_from"] else ", inferred"
    return f"{row['errno']}{inferred}" if row["errno"] else "-"


def _by_kernel(values: dict[str, str]) -> str:
    """One value, or each with its kernels."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    groups: dict[str, list[str]] = {}
    for kernel, value in values.items():
        groups.setdefault(value, []).append(kernel)
    return "; ".join(f"{value} ({', '.join(kernels)})" for value, kernels in groups.items())


def _causes(results: dict[str, Rows], names: list[str]) -> Iterator[str]:
    for name in names:
        told = {kernel: rows[name]["why"] for kernel, rows in results.items() if name in rows and rows[name]["why"]}
        for why in dict.fromkeys(told.values()):
            kernels = ", ".join(kernel for kernel in told if told[kernel] == why)
            yield f"- **{name}** ({kernels}): {why}"


def write() -> None:
    """Make the document from the results."""
    from tests.filesystems.counts import AGAIN, FIRST

    DOCUMENT.write_text(render(load(), FIRST, AGAIN))


if __name__ == "__main__":
    write()
