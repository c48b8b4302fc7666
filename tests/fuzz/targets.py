"""What is fuzzed: each target takes bytes, and raises nothing but a refusal in words.

What must hold of the answers is asserted. ``SEEDS`` are what the kernel writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tracer.errors import MkwriteError
from tracer.export.http.webconfig import WebConfig, WebFiles
from tracer.host import processes, smaps, thin
from tracer.host.mappings import parse as parse_maps
from tracer.host.mounts import Mounts
from tracer.kernel import libraries, parsing
from tracer.kernel.btf import KFUNCS, Btf, header
from tracer.kernel.symbols import Symbols
from tracer.text import parse_duration, printable

DATA: Final = Path(__file__).resolve().parents[1] / "unit" / "data"
#: On tmpfs: a target is called a thousand times a second.
_SCRATCH: Final = "/dev/shm"


@contextmanager
def file(data: bytes) -> Iterator[Path]:
    """A file that holds ``data``."""
    with TemporaryDirectory(dir=_SCRATCH) as directory:
        path = Path(directory) / "file"
        path.write_bytes(data)
        yield path


def mountinfo(data: bytes) -> None:
    mounts = Mounts.parse(data)
    assert len(mounts.entries) + mounts.skipped == sum(map(bool, data.split(b"\n")))
    text = data.decode("utf-8", "surrogateescape")
    for mount in mounts:
        assert 0 <= mount.dev < 1 << 32
        assert printable(mount.mountpoint).isprintable()
    parsing.is_foreign(text, Path("/sys/kernel/btf/vmlinux"))


def kallsyms(data: bytes) -> None:
    names, _, modules = data.partition(b"\0")
    with TemporaryDirectory(dir=_SCRATCH) as directory:
        proc = Path(directory)
        (proc / "kallsyms").write_bytes(names)
        (proc / "modules").write_bytes(modules)
        symbols = Symbols(["do_page_mkwrite"], proc=proc)
        for handler in symbols.handlers().values():
            assert handler.name
            assert handler.address >= 0
        assert all(symbol.name == "do_page_mkwrite" for symbol in symbols.find("do_page_mkwrite"))
        assert symbols.name_of(0xFFFFFFFF81000000)
        symbols.refresh()


def maps(data: bytes) -> None:
    for mapping in parse_maps(data, os.getpid()):
        assert mapping.inode > 0
    smaps.parse(data, [0x7F0000000000])


def process(data: bytes) -> None:
    list(processes._fields(data))
    processes.container(processes._cgroup(data))


def kernel(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    names = ("do_page_mkwrite", "do_wp_page")
    parsing.parse_lockdown(text)
    parsing.parse_capabilities(text)
    parsing.parse_cpus(text)
    parsing.parse_memlock(text)
    parsing.parse_seccomp(text)
    parsing.parse_distribution(text)
    assert parsing.parse_traceable(text, names) <= set(names)
    assert parsing.parse_patched(text, names) <= set(names)
    parsing.parse_blacklist(text)
    libraries.parse_os_release(text)
    thin.pool_of(text)
    thin.free_of(text, text)


def btf(data: bytes) -> None:
    with file(data) as path, suppress(MkwriteError), Btf(path) as types:
        for name in (*KFUNCS, "do_page_mkwrite"):
            types.function(name)
        with suppress(MkwriteError):
            types.arity("do_page_mkwrite")
        header(types)


def webconfig(data: bytes) -> None:
    with file(data) as path, suppress(MkwriteError):
        WebConfig.of(WebFiles.read(path))


def duration(data: bytes) -> None:
    with suppress(ValueError):
        assert parse_duration(data.decode("utf-8", "surrogateescape")) >= 0


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (mountinfo, kallsyms, maps, process, kernel, btf, webconfig, duration)
}

_WEB: Final = b"tls_server_config:\n  cert_file: c\n  key_file: k\nbasic_auth_users:\n  a: $2b$04$abcdefghijklmno\n"


def seeds(name: str) -> list[bytes]:
    """What to begin with: this machine's own files, and what is recorded of other kernels."""
    own = {
        "mountinfo": ["/proc/self/mountinfo"],
        "maps": ["/proc/self/maps", "/proc/self/smaps"],
        "process": ["/proc/self/status", "/proc/self/cgroup"],
        "kernel": ["/proc/self/status", "/proc/self/limits", "/etc/os-release", "/sys/devices/system/cpu/possible"],
        "btf": sorted(map(str, DATA.glob("*.btf"))),
    }.get(name, [])
    found = [Path(path).read_bytes() for path in own if Path(path).exists()]
    match name:
        case "kallsyms":
            found.append(
                b"ffffffff81000000 T _text\nffffffff81000010 t do_page_mkwrite\n"
                b"ffffffffc0000000 t ext4_page_mkwrite\t[ext4]\n\0ext4 1 2 - Live 0xffffffffc0000000\n"
            )
        case "kernel":
            found += [b"none [integrity] confidentiality\n", b"do_wp_page (1) R I     \tcalls: x\n",
                      b"0xffffffff81000000-0xffffffff81000010\tdo_page_mkwrite\n", b"0 262144 thin 254:2 0\n",
                      b"0 9 thin-pool 1 2/3 4/5 - rw no_discard_passdown queue_if_no_space - 1024"]  # fmt: skip
        case "webconfig":
            found.append(_WEB)
        case "duration":
            found += [b"1h30m", b"10ms", b"0.5s"]
    return found
