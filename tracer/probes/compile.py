"""Compiles BPF C with BCC and prints the result as JSON. Run as a program of its own, under any Python that has BCC.

BCC maps LLVM into the process that imports it, some 100 MB. So this runs in a short-lived child, and imports nothing
of mkwrite. Input: the C text. Output: ``{"bcc": version, "compiler": [[file, size, mtime in ns], ...], "maps": {name:
{type, key_size, value_size, max_entries, flags, key, value}}, "programs": {name: hex}, "references": {program:
[[instruction, map name], ...]}}``, where ``key`` and ``value`` are BCC's descriptions of the C types. Exit code 3:
there is no BCC here; 4: the compiler refused.
"""

from __future__ import annotations

import ctypes as ct
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

NO_BCC = 3
REFUSED = 4


def compiler() -> list[list[Any]]:
    """List the files that compile, each with its size and mtime: BCC's modules, and the libraries of BCC and LLVM."""
    mapped = Path("/proc/self/maps").read_text()
    files = set(re.findall(r" (/.*/lib(?:bcc|LLVM|clang)[^/\n]*)$", mapped, re.MULTILINE))
    files.update(str(module.__file__) for name, module in sys.modules.items() if name.partition(".")[0] == "bcc")
    return [[name, status.st_size, status.st_mtime_ns] for name in sorted(files) for status in [Path(name).stat()]]


def main() -> int:
    """Compile standard input against the kernel tree named by the first argument."""
    # BCC and clang write to file descriptor 1 as they like: keep it for the result alone.
    result = os.dup(1)
    os.dup2(2, 1)
    os.environ["BCC_KERNEL_SOURCE"] = sys.argv[1]
    try:
        import bcc
        from bcc.libbcc import lib
    except ImportError as error:
        print(error, file=sys.stderr)
        return NO_BCC

    # bcc/libbcc.py declares only what BCC's own Python uses.
    lib.bpf_num_tables.restype = ct.c_size_t
    lib.bpf_num_tables.argtypes = (ct.c_void_p,)
    for name, kind in (("name", ct.c_char_p), ("fd_id", ct.c_int), ("key_size_id", ct.c_size_t),
                       ("leaf_size_id", ct.c_size_t)):  # fmt: skip
        function = getattr(lib, f"bpf_table_{name}")
        function.restype = kind
        function.argtypes = (ct.c_void_p, ct.c_size_t)

    class Module(bcc.BPF):  # type: ignore[misc]
        """A compiled text; BCC would attach functions by their names."""

        def _trace_autoload(self) -> None:
            pass

    try:
        module = Module(text=sys.stdin.buffer.read())
    except Exception as error:  # BCC raises bare Exceptions
        print(error, file=sys.stderr)
        return REFUSED
    raw = module.module
    maps: dict[str, Any] = {}
    names: dict[int, str] = {}
    for number in range(lib.bpf_num_tables(raw)):
        name = lib.bpf_table_name(raw, number).decode()
        names[lib.bpf_table_fd_id(raw, number)] = name
        maps[name] = {
            "type": lib.bpf_table_type_id(raw, number),
            "key_size": lib.bpf_table_key_size_id(raw, number),
            "value_size": lib.bpf_table_leaf_size_id(raw, number),
            "max_entries": lib.bpf_table_max_entries_id(raw, number),
            "flags": lib.bpf_table_flags_id(raw, number),
            "key": json.loads(lib.bpf_table_key_desc(raw, name.encode()) or b"null"),
            "value": json.loads(lib.bpf_table_leaf_desc(raw, name.encode()) or b"null"),
        }
    programs: dict[str, str] = {}
    references: dict[str, list[list[Any]]] = {}
    for number in range(lib.bpf_num_functions(raw)):
        function = lib.bpf_function_name(raw, number)
        code = module.dump_func(function)
        programs[function.decode()] = code.hex()
        references[function.decode()] = [
            # A 64-bit immediate load (0x18) from the pseudo source 1 is a reference to a map's descriptor.
            [offset // 8, names[int.from_bytes(code[offset + 4 : offset + 8], "little")]]
            for offset in range(0, len(code), 8)
            if code[offset] == 0x18 and code[offset + 1] >> 4 == 1
        ]
    output = {
        "bcc": bcc.__version__,
        "compiler": compiler(),
        "maps": maps,
        "programs": programs,
        "references": references,
    }
    with os.fdopen(result, "w") as stream:
        json.dump(output, stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
