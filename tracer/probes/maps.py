"""Reading what the BPF programs keep. Layouts come from the compiled object: they stand in ``bpf/`` only."""

from __future__ import annotations

import ctypes as ct
import mmap
import struct
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

from tracer.kernel.libbpf import SAMPLE, checked, libbpf
from tracer.kernel.preemption import unpreempted
from tracer.model.calls import Filesystem
from tracer.model.failures import Burst, Cause
from tracer.model.histogram import Histogram
from tracer.probes.abi import GENERATIONS, WAITS, Changes
from tracer.probes.entries import entries
from tracer.probes.program import MapSpec, c_type
from tracer.probes.records import SERIES, Cells, Number, RawSeries, RawWait, Slot

_PAGE: Final = mmap.PAGESIZE
_MAPPED: Final = dict.fromkeys(("slots", "wp_counts", "changes"), mmap.PROT_READ) | dict.fromkeys(
    ("front", "lost"), mmap.PROT_READ | mmap.PROT_WRITE
)


_CAUSE: Final = struct.Struct("<QIIIHH")
_INODE_AND_PROCESS: Final = struct.Struct("<QQ")
_BURST: Final = struct.Struct("<QQQ")
_WAIT: Final = struct.Struct("<QIIQ")
_FILESYSTEM: Final = struct.Struct("<II")
_NUMBER: Final = struct.Struct("<QQQ")
_WAITED: Final = struct.Struct("<3Q")


class Maps:
    """The maps of the loaded objects, by descriptor. Descriptors stay the caller's; mappings are closed here."""

    def __init__(self, specs: Mapping[str, MapSpec], descriptors: Mapping[str, int]) -> None:
        self._specs = specs
        self._descriptors = descriptors
        self._mapped = {
            name: mmap.mmap(descriptors[name], _mapped_size(specs[name]), mmap.MAP_SHARED, protection)
            for name, protection in _MAPPED.items()
        }
        #: What hash maps held, and their counts of changes then.
        self._read: dict[str, tuple[int, list[tuple[bytes, bytes]]]] = {}
        self._cell = c_type(specs["front"].value)
        self._slot = c_type(specs["crowded"].value)

    def close(self) -> None:
        """Unmap."""
        for mapped in self._mapped.values():
            mapped.close()

    def histograms(self) -> dict[RawSeries, Histogram]:
        """Every call counted so far, by series, over all CPUs."""
        cells = Cells(self._cell)
        for _, data in self._front():
            cells.add(data)
        for _, value in self._unless_unchanged("others", self._changes().others_counted):
            cells.add(value)
        return cells.histograms()

    def _front(self) -> Iterator[tuple[int, bytes]]:
        """Yield the front cells that are taken, and where they are."""
        front, kind_at, size = self._mapped["front"], self._cell.series.offset + 20, ct.sizeof(self._cell)
        for start in range(0, self._specs["front"].value_size, size):
            if front[start + kind_at : start + kind_at + 4] != b"\0\0\0\0":
                yield start, front[start : start + size]

    def empty_front(self, ended: Container[RawSeries]) -> dict[RawSeries, Histogram]:
        """Free the front cells of series of filesystems that have ended, and return what they had.

        No program writes to them any more.
        """
        front, cells, kind_at = self._mapped["front"], Cells(self._cell), self._cell.series.offset + 20
        for start, data in self._front():
            if cells.series(data) in ended:
                cells.add(data)
                # A program takes a cell without a kind for empty.
                at = start + kind_at
                front[start:at], front[at + 4 : start + len(data)] = bytes(kind_at), bytes(len(data) - kind_at - 4)
                front[at : at + 4] = bytes(4)
        return cells.histograms()

    def remove(self, series: RawSeries) -> Histogram | None:
        """Take a series that nobody can count under any more out of the shared map; what it had there, if it was there.

        Not for others: a program that had looked the cell up would go on counting in what is somebody else's by then.
        """
        key, value = SERIES.pack(*series), ct.create_string_buffer(ct.sizeof(self._cell))
        descriptor = self._descriptors["others"]
        with unpreempted():
            if libbpf().bpf_map_lookup_elem(descriptor, key, value):
                return None
            checked(libbpf().bpf_map_delete_elem(descriptor, key))
        self._read.pop("others", None)
        cells = Cells(self._cell)
        cells.add(value.raw)
        return cells.histograms().get(series)

    def remove_cause(self, cause: Cause) -> bool:
        """Return the same of failures; whether it was there."""
        return self._delete("causes", _CAUSE.pack(*cause))

    def remove_wait(self, wait: RawWait) -> bool:
        """Return the same of waits."""
        return self._delete("waited", _WAIT.pack(wait.handler, *wait.filesystem, WAITS.index(wait.reason)))

    def remove_fstype(self, filesystem: Filesystem) -> bool:
        """Return the same of a type's name."""
        return self._delete("fstypes", _FILESYSTEM.pack(*filesystem))

    def _delete(self, name: str, key: bytes) -> bool:
        with unpreempted():
            found = not libbpf().bpf_map_delete_elem(self._descriptors[name], key)
        self._read.pop(name, None)
        return found

    def slots(self) -> Iterator[Slot]:
        """Yield calls that have not returned, or still wait for their PTE."""
        mapped, size = self._mapped["slots"], ct.sizeof(self._slot)
        with memoryview(mapped) as view, view.cast("Q") as words, words[:: size // 8] as first_words:
            # A free slot starts with 0; the others are copied whole.
            used = [index for index, word in enumerate(first_words) if word]
        for index in used:
            yield from self._used(mapped[index * size : (index + 1) * size])
        changes = self._changes()
        if changes.crowded_entered != changes.crowded_left:
            for _, value in self._entries("crowded"):
                yield from self._used(value)

    def _used(self, data: bytes) -> Iterator[Slot]:
        slot = self._slot.from_buffer_copy(data)
        if slot.task:
            series = slot.series
            yield Slot(
                slot.task, slot.start_ns, slot.latency_ns,
                RawSeries(series.handler, series.who, series.dev, series.kind),
            )  # fmt: skip

    def wp_counts(self) -> list[int]:
        """Return runs of do_wp_page by outcome, over all CPUs."""
        mapped = self._mapped["wp_counts"]
        rows = struct.iter_unpack("<8Q", mapped[: self._specs["wp_counts"].value_size])
        return [sum(column) for column in zip(*rows, strict=True)]

    def lost(self) -> list[int]:
        """Losses counted by the programs, in the order of ``enum loss``."""
        number = self._specs["lost"].value_size // 8 - 1
        return list(struct.unpack(f"<{number}Q", self._mapped["lost"][: 8 * number]))

    def attached(self) -> None:
        """Note that every hook is on: whose beginning is not seen from now on is lost (bpf/begun.h)."""
        struct.pack_into("<Q", self._mapped["lost"], self._specs["lost"].value_size - 8, time.monotonic_ns())

    def fstypes(self) -> dict[Filesystem, str]:
        """File system types."""
        return {
            Filesystem(*_FILESYSTEM.unpack(key)): value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            for key, value in self._unless_unchanged("fstypes", self._changes().filesystems_changed)
        }

    def numbers(self) -> dict[int, Number]:
        """Return what device numbers stand for now, if a filesystem of theirs has ended or failed (tracepoints)."""
        found = {}
        for key, value in self._unless_unchanged("numbers", self._changes().filesystems_changed):
            ended_ns, _, generation = _NUMBER.unpack(value)
            found[int.from_bytes(key, "little")] = Number(ended_ns, generation & GENERATIONS)
        return found

    def _changes(self) -> Changes:
        return Changes(*struct.unpack_from(f"<{len(Changes._fields)}Q", self._mapped["changes"]))

    def _unless_unchanged(self, name: str, changes: int) -> list[tuple[bytes, bytes]]:
        """Return a map's entries. The programs count a change after they made it, so what was read is never too old."""
        if name not in self._read or self._read[name][0] != changes:
            self._read[name] = changes, list(self._entries(name)) if changes else []
        return self._read[name][1]

    def causes(self) -> dict[Cause, int]:
        """Failures by cause; none without the programs that count them."""
        if "causes" not in self._specs:
            return {}
        found = self._unless_unchanged("causes", self._changes().causes_counted)
        return {Cause(*_CAUSE.unpack(key)): int.from_bytes(value, "little") for key, value in found}

    @property
    def room_for_causes(self) -> int:
        """How many causes there may be."""
        return self._specs["causes"].max_entries if "causes" in self._specs else 0

    def waits(self) -> dict[RawWait, tuple[int, int, int]]:
        """Return calls that waited, their time in ns and the longest; none without the programs that tell."""
        if "waited" not in self._specs:
            return {}
        found = {}
        for key, value in self._unless_unchanged("waited", self._changes().waits_counted):
            handler, dev, generation, reason = _WAIT.unpack(key)
            count, ns, max_ns = _WAITED.unpack(value)
            found[RawWait(handler, Filesystem(dev, generation), WAITS[reason])] = (count, ns, max_ns)
        return found

    def bursts(self) -> dict[Burst, int]:
        """Failures of each process, file and cause, those included that were not told of one by one."""
        if "bursts" not in self._specs:
            return {}
        found = {}
        for key, value in self._entries("bursts"):
            cause, (inode, process) = Cause(*_CAUSE.unpack_from(key)), _INODE_AND_PROCESS.unpack_from(key, _CAUSE.size)
            seen, _, began_ns = _BURST.unpack(value)
            found[Burst(process, inode, cause, began_ns)] = seen
        return found

    def file_losses(self) -> list[tuple[bytes, bytes]]:
        """Return the entries of files that lost writes; none without the programs that tell of failures."""
        return self._unless_unchanged("file_losses", self._changes().file_losses_counted)

    def tellings(self) -> tuple[int, int]:
        """How often a program was told that a file had lost writes, and how often that was forgotten untold."""
        found = self._unless_unchanged("tellings", self._changes().file_losses_counted)
        told, forgotten = (int.from_bytes(value, "little") for _, value in found) if found else (0, 0)
        return told, forgotten

    def freezes(self) -> list[tuple[bytes, bytes]]:
        """Return the entries of filesystems that were frozen or thawed; none without the programs for waits."""
        return list(self._entries("freezes")) if "freezes" in self._specs else []

    def _entries(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        return entries(self._specs[name], self._descriptors[name])


def _mapped_size(spec: MapSpec) -> int:
    """Bytes of a mappable array of one value: whole pages (kernel/bpf/arraymap.c)."""
    return -(-spec.value_size // _PAGE) * _PAGE


class Events:
    """The ring buffer: records as the programs wrote them, oldest first."""

    def __init__(self, specs: Mapping[str, MapSpec], descriptors: Mapping[str, int], ring: str, scratch: str) -> None:
        """``ring`` and ``scratch`` are maps: the buffer, and where the programs make a record."""
        self.type: Any = c_type(specs[scratch].value)
        self._records: deque[bytes] = deque()
        self._sample = SAMPLE(self._take)
        self._ring = libbpf().ring_buffer__new(descriptors[ring], self._sample, None, None)
        if not self._ring:
            raise OSError(ct.get_errno(), "the ring buffer cannot be mapped")

    def _take(self, _context: int | None, data: int, size: int) -> int:
        self._records.append(ct.string_at(data, size))
        return 0

    def fileno(self) -> int:
        """Return what is readable when something has come."""
        return int(libbpf().ring_buffer__epoll_fd(self._ring))

    def take(self) -> list[bytes]:
        """Return what has come."""
        libbpf().ring_buffer__consume(self._ring)
        records = list(self._records)
        self._records.clear()
        return records

    def close(self) -> None:
        """Unmap."""
        if self._ring:
            libbpf().ring_buffer__free(self._ring)
            self._ring = None
