"""What the reports of the example programs must say, as printed by a guest and as shown in docs/commands/sigbus.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from textwrap import dedent, indent
from typing import Final

_RMI: Final = {
    "victim": r".+, process {pid}, thread \d+, user 0, cgroup /",
    "command": r"rmiregistry 12345",
    "file": r"/tmp/hsperfdata_root/{pid}, offset .+",
    "signal": r"BUS_ADRERR; caught: .+",
    "exit": "134",  # the JVM's own handler ends it (SIGABRT)
}
#: By mkwrite's arguments, and by label: all of the text, as a regular expression, with the victim's pid in it.
EXPECTED: Final[Mapping[str, Mapping[str, str]]] = {
    "sigbus -- python3 load.py /srv/db/users 100000": {
        "victim": "python3, process {pid}, user 0, cgroup /",
        "command": "python3 load.py /srv/db/users 100000",
        "signal": "BUS_ADRERR; fatal: .+",
        "file": r"/srv/db/users/data\.mdb, offset .+, 48\.0 MiB, .+ allocated, sparse, the page: hole",
        "refused": r"by ext4_page_mkwrite after .+; ext4 on /srv/db \(/dev/loop\d+\)",
        "errno": "ENOSPC, returned by ext4_da_reserve_space",
        "space": r"0 B free of .+",
        "class": r"refused \(ENOSPC\)",
        "exit": "135",
    },
    "sigbus -- java -cp . Mapped /srv/db/java/stats.bin": {
        "victim": r"java, process {pid}, thread \d+, user 0, cgroup /",
        "command": r"java -cp \. Mapped /srv/db/java/stats\.bin",
        "signal": "BUS_ADRERR; caught: .+",
        "file": r"/srv/db/java/stats\.bin, offset 0x0 \(page 0\); .+, 1\.0 MiB, 0 B allocated, sparse, the page: hole",
        "refused": r"by ext4_page_mkwrite after .+; ext4 on /srv/db \(/dev/loop\d+\)",
        "errno": "ENOSPC, returned by ext4_da_reserve_space",
        "space": r"0 B free of .+",
        "class": r"refused \(ENOSPC\)",
        "exit": "0",
    },
    "sigbus -- sh full.sh": {
        **_RMI,
        "access": "write by the program, to a page mapped read-only; .+",
        "refused": r"by btrfs_page_mkwrite after .+; btrfs on /tmp \(/dev/loop\d+\)",
        "errno": "ENOSPC, returned by btrfs_check_data_free_space",
        "class": r"refused \(ENOSPC\)",
    },
    "sigbus -- sh truncated.sh": {
        **_RMI,
        "refused": r"by shmem_fault; tmpfs on /tmp \(tmpfs\)",
        "class": "beyond_end",
        "cause": r"The page at 0 B is beyond the end of the file: truncate\[\d+\] had cut it from .+ to 0 B .+ ago\.",
    },
    "sigbus -- python3 wal.py /srv/app.db": {
        "victim": "python3, process {pid}, user 0, cgroup /",
        "command": r"python3 wal\.py /srv/app\.db",
        "signal": "BUS_ADRERR; fatal: .+",
        "access": "read by the program; .+",
        "file": r"/srv/app\.db-shm, offset 0x0 \(page 0\); .+",
        "class": "beyond_end",
        "cause": r"The page at 0 B is beyond the end of the file: truncate\[\d+\] had cut it from .+ to 0 B .+ ago\.",
        "exit": "135",
    },
    "sigbus -- sh container.sh": {
        "victim": r"python3, process {pid}, user 0, container 5d9a1c7e0b3f, cgroup /docker-5d9a1c7e0b3f.+\.scope",
        "command": r"python3 worker\.py",
        "signal": "BUS_ADRERR; fatal: .+",
        "file": r"/dev/shm/psm_\w+, offset 0x4000000 \(page 16384\); .+, 100 MiB, 64\.0 MiB allocated, sparse.*",
        "refused": r"by shmem_fault; tmpfs on /dev/shm \(shm\)",
        "errno": "ENOSPC, returned by shmem_alloc_and_add_folio",
        "space": r"0 B free of 64\.0 MiB, .+, size=65536k, .+",
        "class": r"tmpfs_full \(ENOSPC\)",
        "exit": "135",
    },
    "sigbus -- sh httpd.sh": {
        "victim": r"apache2, process {pid}, user \d+, cgroup /",
        "command": r"apache2 -X -f /srv/httpd\.conf",
        "signal": "none: writev returns EFAULT, or less than it was asked for",
        "access": "read by the kernel for the program; .+",
        "file": r"/srv/www/release\.tar, offset .+; .+, 1\.0 MiB, 1\.0 MiB allocated",
        "class": "beyond_end",
        "cause": r"The page at .+ is beyond the end of the file: truncate\[\d+\] had cut it to 1\.0 MiB .+ ago\.",
        "exit": "0",
    },
    "sigbus -- sh initdb.sh": {
        "victim": r"postgres, process {pid}, user \d+, cgroup /database",
        "command": "/usr/lib/postgresql/.+/bin/postgres --boot .+",
        "signal": "BUS_ADRERR; fatal: .+",
        "refused": "by hugetlb; hugetlbfs on .+",
        "errno": "ENOSPC, returned by alloc_hugetlb_folio",
        "pool": r"\d+ of 100 huge pages of 2\.0 MiB free, \d+ reserved; cgroup /database: .+ left(, .+ later)?",
        "class": r"hugetlb_exhausted \(ENOSPC\)",
        "cause": "The (limit of )?cgroup /database .+",
        "remedy": r"Raise hugetlb\.\*\.max of that cgroup\. .+",
        "exit": "1",
    },
}
_BLOCK: Final = re.compile(r"^    \$ mkwrite (.+)\n((?:    .*\n)*)", re.MULTILINE)


def printed(output: str) -> dict[str, tuple[str, str]]:
    """What a guest printed after each ``$ mkwrite ...``, and the exit code that it ended with."""
    found = re.findall(r"^\$ mkwrite (.+)\n((?:.*\n)*?)exit code (\d+)$", output, re.MULTILINE)
    return {command: (text, code) for command, text, code in found}


def shown(page: str) -> dict[str, str]:
    """What the page shows after each ``$ mkwrite ...``."""
    return {command: dedent(text) for command, text in _BLOCK.findall(page)}


def renewed(page: str, output: Mapping[str, tuple[str, str]]) -> str:
    """The page with what was printed now."""

    def block(match: re.Match[str]) -> str:
        text = output[match[1]][0] if match[1] in output else dedent(match[2])
        return indent(f"$ mkwrite {match[1]}\n{text}", "    ")

    return _BLOCK.sub(block, page)


def labels(text: str) -> dict[str, str]:
    """The first report in a text, what was wrapped in one line again."""
    found: dict[str, str] = {}
    label = ""
    for line in re.split("^(?:SIGBUS|EFAULT) ", text, maxsplit=1, flags=re.MULTILINE)[-1].splitlines():
        if match := re.match(r"  (\w+) +(.+)", line):
            if (label := match[1]) in found:
                break
            found[label] = match[2]
        elif label and line.startswith(" " * 10):
            found[label] += f" {line.strip()}"
    return found


def differences(command: str, text: str, code: str = "") -> Iterator[str]:
    """Where a report is not what it must be; without a ``code``, that is not looked at."""
    found = labels(text)
    pid = re.search(r"process (\d+)", found.get("victim", ""))
    if code:
        found["exit"] = code
    for label, pattern in EXPECTED[command].items():
        if label == "exit" and not code:
            continue
        wanted = pattern.format(pid=pid[1]) if pid else pattern
        if not re.fullmatch(wanted, found.get(label, "")):
            yield f"mkwrite {command}: {label}: {found.get(label)!r}, not {wanted!r}"
