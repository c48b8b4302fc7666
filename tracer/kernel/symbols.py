"""The kernel's symbols, from /proc/kallsyms: the page_mkwrite handlers, and what an address is called.

The file has a quarter of a million lines; it is read in one pass by searching bytes, and only what was asked
for is kept. It stays open, since the kernel decides at open time whether addresses are shown: a process that
has dropped its capabilities since can still resolve the functions of modules loaded later. So does /proc/modules,
whose addresses tell a module that went and came back.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_READ = 1 << 16
_BLOCK = 1 << 18

# Handlers whose names do not say so; some serve other callbacks of vm_operations_struct too.
_ODD_HANDLERS = (
    b"fb_deferred_io_mkwrite",
    b"perf_mmap_fault",
    b"sel_mmap_policy_fault",
    b"vmw_bo_vm_mkwrite",
)

# Called by handlers or by the core, never the function in vm_ops.
_HELPERS = frozenset({
    b"block_page_mkwrite",
    b"do_page_mkwrite",
    b"ext4_block_page_mkwrite",
    b"fb_deferred_io_page_mkwrite",
    b"iomap_page_mkwrite",
    b"netfs_page_mkwrite",
    b"vmf_insert_page_mkwrite",
})  # fmt: skip

# What the kernel generates around functions (call thunks, tracepoints, loaded BPF programs).
_GENERATED = (b"__", b"bpf_", b"event_", b"perf_trace_", b"trace_")

# One line: "ffffffffc0a51230 t ext4_page_mkwrite\t[ext4]"; the module is there for modules only.
_LINE = rb"^([0-9a-f]+) (\S) (%s)(?:\t\[([^\]\n]*)\])?$"
#: Who else refuses a fault, which is to be named without another pass: the host is asked for its state after that.
_FAULT = re.compile(_LINE % rb"\w+_fault")
_HANDLER = re.compile(_LINE % (rb"\w*page_mkwrite|" + rb"|".join(_ODD_HANDLERS)))
_FUNCTION = re.compile(rb"([0-9a-f]+) [tTwW] ([^\t]+)")
_TEXT_LINE = re.compile(rb"^([0-9a-f]+) [tT] ", re.MULTILINE)
_MARKS = (b"page_mkwrite", *_ODD_HANDLERS)


@dataclass(frozen=True, slots=True)
class Symbol:
    """One line of kallsyms; ``address`` is 0 when hidden, ``module`` empty for the kernel proper."""

    name: str
    address: int
    type: str
    module: str = ""

    @property
    def is_function(self) -> bool:
        """Whether it is code: global, static or weak."""
        return self.type in "tTwW"


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that serves as ``vm_ops->page_mkwrite``."""

    name: str
    address: int
    module: str = ""


class Symbols:
    """Looks symbols up. ``wanted`` names are found in the first pass; others cost a pass of their own.

    A kernel without kallsyms is one without symbols: nothing is raised.
    """

    def __init__(self, wanted: Iterable[str] = (), *, proc: Path = Path("/proc")) -> None:
        self._wanted = {name.encode() for name in wanted}
        self._modules_fd = self._opened(proc / "modules")
        self._modules = self._read_modules()
        self._fd = self._opened(proc / "kallsyms")
        self._scanned = False
        self._shown = False
        self._handlers: dict[str, Handler] = {}
        self._found: dict[bytes, list[Symbol]] = {}
        self._names: dict[int, str] = {}
        #: Names of functions that went with their modules: what was counted under them is still shown.
        self._former: dict[int, str] = {}

    @property
    def hidden(self) -> bool:
        """Whether the kernel shows no addresses (kptr_restrict, no CAP_SYSLOG) or has no kallsyms at all."""
        self._scan_once()
        return not self._shown

    def handlers(self) -> dict[str, Handler]:
        """Every page_mkwrite handler by name; of two of one name, the first."""
        self._scan_once()
        return dict(self._handlers)

    def find(self, name: str) -> list[Symbol]:
        """Every symbol of exactly this name; more than one means that it cannot be attached to by name."""
        wanted = name.encode(errors="surrogateescape")
        if wanted not in self._wanted:
            self._wanted.add(wanted)
            self._scanned = False
        self._scan_once()
        return list(self._found.get(wanted, ()))

    def name_of(self, address: int) -> str:
        """Return the function that starts at ``address``, or did when its module was there; "0x..." if there is none.

        An address not seen before costs a pass, 0.1 s and more, unless it is a handler's or called ``*_fault``: it may
        belong to a module loaded since.
        """
        self._scan_once()
        name = self._names.get(address)
        if name is None:
            name = self._former.get(address, hex(address))
            if self._shown:
                self._scan(address)
                self._names.setdefault(address, name)
                name = self._names[address]
        return name

    def refresh(self) -> bool:
        """Forget what was found if modules came or went since the last look; says whether they did."""
        modules = self._read_modules()
        if modules == self._modules:
            return False
        self._modules = modules
        self._former |= {address: name for address, name in self._names.items() if name != hex(address)}
        self._names.clear()
        self._scanned = False
        return True

    def _opened(self, path: Path) -> int | None:
        """For as long as this object lives; None if it cannot be."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _read_modules(self) -> frozenset[tuple[bytes, ...]]:
        """Name, state and address of every module; not the use count, which changes all the time."""
        lines = b"".join(_chunks(self._modules_fd)).splitlines()
        return frozenset((f[0], *f[4:6]) for f in map(bytes.split, lines) if f)

    def _scan_once(self) -> None:
        if not self._scanned:
            self._scan()

    def _scan(self, address: int | None = None) -> None:
        """Read the whole file; with ``address``, also learn its name."""
        handlers: dict[str, Handler] = {}
        found: dict[bytes, list[Symbol]] = {}
        first_text = 0
        for block in self._blocks():
            if not first_text and (text := _TEXT_LINE.search(block)):
                first_text = int(text[1], 16)
            for symbol in _handlers_in(block):
                handlers.setdefault(symbol.name, Handler(symbol.name, symbol.address, symbol.module))
                if symbol.address:
                    self._names.setdefault(symbol.address, symbol.name)
            for symbol in _faults_in(block):
                self._names.setdefault(symbol.address, symbol.name)
            # One pass over the words costs as much as looking for some ten names.
            wanted = self._wanted if len(self._wanted) < 10 else self._wanted & set(block.split())
            for name in wanted:
                found.setdefault(name, []).extend(_named_in(block, name))
            if address is not None and address not in self._names:
                function = _function_at(block, address)
                if function:
                    self._names[address] = function
        self._handlers, self._found = handlers, found
        self._shown = first_text != 0
        self._scanned = True

    def _blocks(self) -> Iterator[bytes]:
        """Yield the file in blocks of whole lines."""
        pending, size = [], 0
        for chunk in _chunks(self._fd):
            pending.append(chunk)
            size += len(chunk)
            if size >= _BLOCK:
                head, newline, rest = b"".join(pending).rpartition(b"\n")
                yield head + newline
                pending, size = [rest], len(rest)
        if size:
            yield b"".join(pending)


def _chunks(descriptor: int | None) -> Iterator[bytes]:
    """Yield a file from its beginning. Positioned reads, so that threads do not disturb each other."""
    offset = 0
    while descriptor is not None and (chunk := os.pread(descriptor, _READ, offset)):
        offset += len(chunk)
        yield chunk


def _lines_with(block: bytes, text: bytes) -> Iterator[bytes]:
    """Yield the lines in which ``text`` occurs."""
    at = block.find(text)
    while at >= 0:
        start = block.rfind(b"\n", 0, at) + 1
        end = block.find(b"\n", at)
        if end < 0:
            end = len(block)
        yield block[start:end]
        at = block.find(text, end)


def _symbol(match: re.Match[bytes]) -> Symbol:
    address, kind, name, module = match.groups()
    return Symbol(
        name.decode(errors="surrogateescape"),
        int(address, 16),
        kind.decode(errors="surrogateescape"),
        (module or b"").decode(errors="surrogateescape"),
    )


def _handlers_in(block: bytes) -> Iterator[Symbol]:
    """Yield the handlers among the lines of ``block``: no clones (``.cold``, ``.isra.0``), no generated code."""
    for mark in _MARKS:
        for line in _lines_with(block, mark):
            match = _HANDLER.match(line)
            if not match or match[2] not in b"tT":
                continue
            if match[3] not in _HELPERS and not match[3].startswith(_GENERATED):
                yield _symbol(match)


def _faults_in(block: bytes) -> Iterator[Symbol]:
    """Yield what may serve as ``vm_ops->fault``, by its name, where addresses are shown."""
    for line in _lines_with(block, b"_fault"):
        if (match := _FAULT.match(line)) and match[2] in b"tT" and int(match[1], 16):
            yield _symbol(match)


def _named_in(block: bytes, name: bytes) -> Iterator[Symbol]:
    """Yield the symbols of ``block`` that are called exactly ``name``."""
    line_of = re.compile(_LINE % re.escape(name))
    for line in _lines_with(block, b" " + name):
        if match := line_of.match(line):
            yield _symbol(match)


def _function_at(block: bytes, address: int) -> str | None:
    """Return the first function that starts at ``address``, as the kernel's own look-up has it."""
    for line in _lines_with(block, b"%016x " % address):
        match = _FUNCTION.match(line)
        if match and int(match[1], 16) == address:
            return match[2].decode(errors="surrogateescape")
    return None
