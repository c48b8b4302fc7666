"""The process that answers HTTP for an exporter, as the kernel shows it."""

from __future__ import annotations

import pwd
import re
from pathlib import Path

#: Who answers where nobody else is asked to: packaging/mkwrite-exporter.service makes the first.
USER = next(entry for name in ("mkwrite", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)


def answering(tracer: int) -> Path:
    """It in /proc: of the tracer's children, the one that no program was run in."""
    children = [pid for path in Path(f"/proc/{tracer}/task").glob("*/children") for pid in path.read_text().split()]
    command = Path(f"/proc/{tracer}/cmdline").read_bytes()
    (found,) = (Path("/proc") / pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes() == command)
    return found


def holds_nothing(process: Path, user: pwd.struct_passwd = USER) -> None:
    """Fail unless it has no right, in any thread, and nothing open but sockets: to be listened at, to ask, to obey."""
    threads = [path.read_text() for path in process.glob("task/*/status")]
    assert len(threads) >= 2
    for text in threads:
        assert re.findall(r"^Cap(?:Inh|Prm|Eff|Bnd|Amb):\s+(\w+)$", text, re.MULTILINE) == ["0" * 16] * 5
        assert re.search(r"^NoNewPrivs:\s+1$", text, re.MULTILINE)
        assert re.search(rf"^Uid:(?:\s+{user.pw_uid}){{4}}$", text, re.MULTILINE), text
        assert re.search(rf"^Gid:(?:\s+{user.pw_gid}){{4}}$", text, re.MULTILINE), text
        assert re.search(r"^Groups:\s*$", text, re.MULTILINE), text
    opened = sorted(str(path.readlink()).partition(":")[0] for path in (process / "fd").iterdir())
    # Python's selector waits for connections.
    assert [what for what in opened if what != "anon_inode"] == ["/dev/null"] * 3 + ["socket"] * 3, opened
    assert "bpf" not in (process / "maps").read_text()
    assert (process / "mem").stat().st_uid == 0  # not dumpable: nobody of its user may look into it
