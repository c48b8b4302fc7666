"""What is compiled for root is ours alone, whatever lies in the working directory and whatever the environment says.

strace(1) tells what was opened. BCC makes maps while it compiles, so these tests need root.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tracer.kernel.btf import Btf
from tracer.model.hooks import Backend
from tracer.probes.build import KERNEL
from tracer.probes.source import source

ROOT: Final = Path(__file__).parents[2]
NOBODY: Final = 65534
#: The tracer's own start in the working directory, with the process of this test in the place of ``mkwrite``.
BUILD: Final = """
import json, os, sys
from pathlib import Path
from tracer.probes.build import build
os.environ.update(json.loads(sys.argv[2]))
print(build(Path(sys.argv[1]).read_text()))
"""
#: Names that BCC, clang or Python could look for.
HEADERS: Final = (
    "linux/types.h", "linux/version.h", "linux/kconfig.h", "linux/log2.h", "linux/bpf_common.h", "uapi/linux/bpf.h",
    "uapi/linux/if_packet.h", "uapi/linux/ptrace.h", "asm/page.h", "bcc/proto.h", "bcc/helpers.h", "stdarg.h",
    "include/linux/types.h", "include/linux/kconfig.h", "include/linux/kconfig.h.pch", "arch/x86/include/asm/page.h",
    "lib/clang/14.0.6/include/stdarg.h", "clang.cfg", "bcc-clang-driver.cfg",
)  # fmt: skip
MODULES: Final = ("bcc", "ctypes", "json", "re", "sitecustomize", "usercustomize", "tracer")
#: What a compile may open besides Python's own path: programs and libraries, among which clang looks for others of its
#: kind, settings of the system, and the kernel's files.
SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/proc", "/sys", "/dev")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text of an object."""
    path = tmp_path_factory.mktemp("text") / "text.c"
    with Btf() as btf:  # this kernel's own: the tests' have no members for failures
        path.write_text(source(btf, Backend.KPROBE, failures=True, waits=True))
    return path


def start(program: Path, cache: Path, cwd: Path, *wrapper: str, late: Mapping[str, str] | None = None) -> str:
    """The object that a process builds which starts in ``cwd``, with an empty cache, and has ``late`` variables."""
    command = [*wrapper, sys.executable, "-P", "-c", BUILD, str(program), json.dumps(late or {})]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "CACHE_DIRECTORY": str(cache), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(cache.iterdir())) == 1
    return done.stdout


@pytest.fixture(scope="module")
def honest(program: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The object as it is compiled in an empty directory."""
    return start(program, tmp_path_factory.mktemp("honest"), tmp_path_factory.mktemp("empty"))


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A directory with files in the place of ours, each of which would break what uses it."""
    for name in HEADERS:
        path = tmp_path / "evil" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#error another's header\n")
    for name in MODULES:
        (tmp_path / "evil" / f"{name}.py").write_text("raise SystemExit(99)\n")
    return tmp_path / "evil"


def opened(trace: Path) -> set[Path]:
    """The files that strace -y saw opened or run, by their full names."""
    text = trace.read_text()
    found = re.findall(r"\b(?:open|openat|openat2|creat)\(.*= \d+<(.*)>$", text, re.MULTILINE)
    found += re.findall(r"\bexecve\(\"(.*?)\".* = 0$", text, re.MULTILINE)
    return {Path(name) for name in found}


def test_a_hostile_directory_is_not_looked_into(program: Path, honest: str, evil: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    cache = tmp_path / "cache"
    found = start(program, cache, evil, "strace", "-f", "-y", "-e", "trace=%file", "-o", str(trace))
    assert found == honest
    files = opened(trace)
    # clang's driver reads the version of an installed CUDA, and includes nothing of it.
    assert {file for file in files if file.suffix == ".h" and file.name != "cuda.h"} == set(KERNEL.rglob("*.h"))
    allowed = (*SYSTEM, sys.prefix, sys.base_prefix, *sys.path, cache, program)
    assert [file for file in sorted(files) if not any(file.is_relative_to(place) for place in allowed)] == []
    assert f'"{evil}' not in re.sub(r"\bgetcwd\(.*", "", trace.read_text())


def test_no_variable_leads_the_compiler_elsewhere(program: Path, honest: str, evil: Path, tmp_path: Path) -> None:
    """All at once, as they would be in the tracer's environment."""
    (evil / "libbcc.so.0").write_text("no library")
    places = (
        "BCC_KERNEL_SOURCE", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "COMPILER_PATH", "HOME",
        "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "XDG_CONFIG_HOME",
    )  # fmt: skip
    values = {**dict.fromkeys(places, str(evil)), "ARCH": "arm64", "BCC_LINUX_VERSION_CODE": "1"}
    assert start(program, tmp_path / "cache", tmp_path, late=values) == honest


@pytest.mark.parametrize("state", ["deleted", "another's"])
def test_a_working_directory_that_cannot_be_read_is_no_obstacle(
    program: Path, honest: str, tmp_path: Path, state: str
) -> None:
    """Root without the right to look into others' directories, as in a service, was told to report it as a fault."""
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    if state == "deleted":
        wrapper = ["sh", "-c", f'rmdir {place}; exec "$@"', "sh"]
    else:
        os.chown(place, NOBODY, NOBODY)
        wrapper = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    assert start(program, tmp_path / "cache", place, *wrapper) == honest
