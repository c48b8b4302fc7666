"""From the files in ``bpf/`` to a compiled object: the text for this kernel, and the child that compiles it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.errors import Exit, MkwriteError
from tracer.kernel.features import read
from tracer.kernel.needs import bcc
from tracer.kernel.refusals import explain_refusal
from tracer.model.hooks import Backend
from tracer.probes import abi, object_cache
from tracer.probes import compile as compiler
from tracer.probes.program import BpfObject

_PACKAGE: Final = Path(__file__).resolve().parents[1]
#: In an installed package the C files lie inside it, in a checkout beside it.
SOURCES: Final = _PACKAGE / "bpf" if (_PACKAGE / "bpf").is_dir() else _PACKAGE.parent / "bpf"
FILES: Final = (
    "config.h", "kfunc.h", "read.h", "context.h", "histogram.h", "sleep.h", "maps.h", "filesystem.h", "wait.h",
    "filter.h", "begun.h", "path.h", "event.h", "series.h", "kind.h", "page_mkwrite.c", "wp_fault.c", "filesystem.c",
)  # fmt: skip
#: The headers that BCC's own include, in the place of the kernel's.
KERNEL: Final = SOURCES / "kernel"
_COMPILER: Final = Path(compiler.__file__).resolve()
_TIMEOUT_S: Final = 300
_NO_MEMORY: Final = ("out of memory", "bad_alloc", "failed to map segment", os.strerror(errno.ENOMEM), "MemoryError")
#: The distribution's Python, for which it packages BCC.
_DISTRIBUTION: Final = "/usr/bin/python3"


def text(layout: str, backend: Backend, files: Sequence[str] = FILES) -> str:
    """Return the C text to compile: ``layout`` (see ``kernel.btf.header``), then ``files`` of ours in order."""
    parts = ["#include <linux/types.h>\n", f"#define {backend.name}\n", abi.header(), layout]
    for name in files:
        parts += [f'#line 1 "{name}"\n', (SOURCES / name).read_text()]
    return "".join(parts)


def build(source: str) -> BpfObject:
    """Compile, or take what the same input compiled to before. Raises MkwriteError."""
    key = _key(source.encode())
    if found := object_cache.find(key):
        return found
    output = _compile(source)
    with suppress(OSError):
        object_cache.keep(key, output)
    return BpfObject.from_json(json.loads(output))


def _key(source: bytes) -> str:
    """Name all that an object depends on but for the compiler's own files, which the object itself lists.

    BCC looks into ``/proc/kallsyms``, too: where addresses are hidden from it, it calls bpf_probe_read in place of
    bpf_probe_read_kernel. On x86_64 both read a kernel address alike (bpf_probe_read_compat, kernel/trace/bpf_trace.c).
    """
    files = {"": source, "compile.py": _COMPILER.read_bytes()}
    files |= {str(path.relative_to(KERNEL)): path.read_bytes() for path in sorted(KERNEL.rglob("*.h"))}
    return object_cache.digest(repr(files).encode())


def _compile(source: str) -> bytes:
    """Run the compiler under the first Python that has BCC: this one, or the distribution's.

    BCC includes headers from the working directory before all others (``-I``, ClangLoader::parse in its loader.cc), and
    many variables change what it compiles. So the child gets a directory of ours, and no environment.
    """
    for python in dict.fromkeys((sys.executable, _DISTRIBUTION)):
        try:
            done = subprocess.run(
                [python, "-I", str(_COMPILER), str(KERNEL)],
                input=source.encode(),
                cwd=KERNEL,
                env={},
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            continue
        except subprocess.TimeoutExpired as error:
            raise MkwriteError(
                f"Compiling the BPF programs took longer than {_TIMEOUT_S} s.",
                "Try again when the machine is less busy.",
                Exit.COMPILE,
            ) from error
        if done.returncode == 0:
            return done.stdout
        if done.returncode != compiler.NO_BCC:
            raise _not_compiled(done.returncode, done.stderr.decode(errors="replace"))
    if known := _known():
        raise known
    raise MkwriteError(
        f"BCC's Python module (bcc) is not installed for this Python nor for {_DISTRIBUTION}.",
        "Install it from your distribution (Debian and Ubuntu: apt-get install python3-bpfcc; Fedora: python3-bcc).",
        Exit.NO_BCC,
    )


def _known() -> MkwriteError | None:
    """Return what is known to be wrong with BCC here, in doctor's words."""
    return next((obstacle.error() for obstacle in bcc(read())), None)


def _not_compiled(code: int, log: str) -> MkwriteError:
    # BCC makes the maps while it compiles, so a kernel that refuses us is met here first.
    for number in (errno.EPERM, errno.EMFILE):
        if os.strerror(number) in log:
            return explain_refusal(OSError(number, os.strerror(number)), "create BPF maps")
    # The allocator's words, the loader's where LLVM's libraries do not fit, the kernel's; or its last resort.
    if any(words in log for words in _NO_MEMORY) or code == -signal.SIGKILL:
        return MkwriteError(
            "The compiler ran out of memory.",
            "Give it some 150 MB for a moment: raise the memory limit of this service or container.",
            Exit.COMPILER_MEMORY,
        )
    if known := _known():
        return known
    lines = [line for line in log.splitlines() if "error:" in line] or log.splitlines()[-1:] or [f"exit code {code}"]
    return MkwriteError(
        f"BCC could not compile the BPF programs: {lines[0].strip()}.",
        "This version of mkwrite and of BCC do not fit: report it with the output of mkwrite doctor.",
        Exit.COMPILE,
    )
