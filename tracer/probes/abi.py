"""The numbers that the front end shares with the programs of ``bpf/``: they stand here, and programs get ``header``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum, IntEnum, IntFlag, auto
from typing import Final, NamedTuple

from tracer.model.calls import FaultPath, Initiator, Outcome, WpOutcome
from tracer.model.failures import AGAIN_NS, Fact, FailureSource
from tracer.model.histogram import BUCKETS
from tracer.model.hooks import Loss
from tracer.model.options import By
from tracer.model.waits import Wait

#: In the upper half of a 64-bit immediate, in whose place the front end writes a setting; or a map's reference.
CONFIG_MARK: Final = 0x6D6B7772  # "mkwr"
GLOBAL_MARK: Final = 0x6D6B7767  # "mkwg"
#: Added to the number of a helper, to make a kernel function of it.
KFUNC_MARK: Final = 0x40000000
#: Slots for calls in flight, as a power of two; what finds its slot taken costs a hash map's look-up more.
SLOT_BITS: Final = 13
#: A slot left waiting for this long, in ns, is a raced call of a task that has not come back.
RACED_AFTER_NS: Final = 100_000_000
#: Of a call that seems to last for so long, the return may have been missed, in ns.
OLD_NS: Final = 1_000_000_000


class Setting(IntEnum):
    """What the front end writes into the loaded instructions."""

    #: 1: fault_dirty_shared_page is hooked
    TELL_RACED = 0
    #: possible CPUs
    CPUS = auto()
    #: front cells a CPU, a power of two, less one
    FRONT_MASK = auto()
    #: calls at least that slow are sent as events, in ns; 0: none
    SLOWER_NS = auto()
    #: bits of 1 << Want: filters on the task
    WANT_TASK = auto()
    #: 1: one of the following is not 0
    EXTRAS = auto()
    #: bits of 1 << Want: filters on the call
    WANT_CALL = auto()
    #: 0, or the place in By, from 1 on
    BY = auto()
    #: 1: an event with the name is sent behind each new series
    NAME_SERIES = auto()
    #: 1: the handlers are hooked, not do_page_mkwrite
    HANDLER_HOOKS = auto()
    #: of a hook on waits: its place in Wait
    REASON = auto()
    #: address of fault_dirty_shared_page
    DIRTY_CODE = auto()
    #: address of handle_mm_fault, which every call is below
    FAULT_CODE = auto()
    #: address of what user space enters the kernel by
    ENTRY_CODE = auto()
    #: its size; 0: one of these addresses is not known
    ENTRY_BYTES = auto()
    #: how many arguments the tracepoint balance_dirty_pages has: they differ, and the last four are the same
    ARGUMENTS = auto()
    #: number of the function that returns an errno
    INNER = auto()
    #: how many parameters the hooked function has
    ARITY = auto()
    #: which of notify_change's parameters is the dentry; the change follows
    DENTRY_ARG = auto()
    #: 1: bpf_task_pt_regs() exists (5.15)
    TASK_REGS = auto()
    #: 1: a signal that no refusal caused is wanted, too: it has no file to be asked for
    SIGNALS = auto()
    #: which parameter of the hooked function is the flags
    FLAGS_ARG = auto()
    #: 1: dax_finish_sync_fault is hooked
    DAX_SYNC = auto()
    #: 1: writes that were lost and of which none came through a mapping are told of, too
    UNMAPPED_TOO = auto()
    #: where a struct nfs_page has wb_index, wb_offset and wb_bytes: it is a module's
    REQUEST_INDEX = auto()
    REQUEST_OFFSET = auto()
    REQUEST_BYTES = auto()


class Want(IntEnum):
    """What a filter is on."""

    PID = 0
    COMM = auto()
    CGROUP = auto()
    FS = auto()
    DEV = auto()
    HANDLER = auto()


class Count(IntEnum):
    """What tracepoints count, in a line of eight for each CPU."""

    SIGBUS = 0
    FAULTS_USER = auto()
    FAULTS_KERNEL = auto()
    THROTTLED_FULL = auto()


class Sent(IntFlag):
    """Why an event was sent: one of them, or both."""

    SLOW = 0x1
    NAMED = 0x2


class Changes(NamedTuple):
    """How often what hash maps hold was changed, by the programs' own count."""

    others_counted: int
    crowded_entered: int
    crowded_left: int
    filesystems_changed: int
    causes_counted: int
    waits_counted: int
    file_losses_counted: int


#: Maps of one value that programs reach without a look-up.
GLOBALS: Final = ("slots", "front", "wp_counts", "lost", "blank", "changes")
#: What the programs count as lost; the front end knows of more.
LOSSES: Final = tuple(loss for loss in Loss if loss is not Loss.MISSED_PROBE)
SOURCES: Final = tuple(FailureSource)
WAITS: Final = tuple(Wait)
#: Beside the wait that a call in flight is in: it has one.
WAITS_NOW: Final = 0x100

# A series' kind packs path, initiator, outcome and generation, and is never 0.
WRITE_PROTECT: Final = 0x1
_INITIATOR_SHIFT: Final = 1
_OUTCOME_SHIFT: Final = 3
_DAX_SHIFT: Final = 8
_GENERATION_SHIFT: Final = 10
#: Which of the filesystems that have had the number; left out in slots and front cells.
GENERATIONS: Final = 0xFFFFF
#: A front cell whose filesystem has ended: nothing is counted in it any more.
ENDED: Final = 0x40000000
VALID: Final = 0x80000000
_INITIATORS: Final = tuple(Initiator)
_OUTCOMES: Final = tuple(Outcome)
#: In place of the path: which of vm_ops' functions a DAX fault came by; the first is none.
_DAX_PATHS: Final = (FaultPath.DAX_FAULT, FaultPath.DAX_HUGE_FAULT, FaultPath.PFN_MKWRITE)
RACED: Final = _OUTCOMES.index(Outcome.RACED) << _OUTCOME_SHIFT


def outcome_of(kind: int) -> Outcome:
    """Return the outcome in a series' kind."""
    return _OUTCOMES[kind >> _OUTCOME_SHIFT & 0xF]


def initiator_of(kind: int) -> Initiator:
    """Return the initiator in a series' kind."""
    return _INITIATORS[kind >> _INITIATOR_SHIFT & 0x3]


def path_in(kind: int) -> FaultPath:
    """Return the path in a series' kind."""
    if dax := kind >> _DAX_SHIFT & 0x3:
        return _DAX_PATHS[dax - 1]
    return FaultPath.WRITE_PROTECT if kind & WRITE_PROTECT else FaultPath.FIRST_WRITE


def generation_in(kind: int) -> int:
    """Return the generation in a series' kind."""
    return kind >> _GENERATION_SHIFT & GENERATIONS


def with_generation(kind: int, generation: int) -> int:
    """Return the kind that one without a generation becomes by it, ended or not."""
    return kind & ~ENDED | generation << _GENERATION_SHIFT


def header() -> str:
    """C definitions of all that stands here, by the names that it has here."""
    return "".join(f"{line}\n" for line in (*_enums(), *_numbers()))


def _enums() -> Iterator[str]:
    for enum, prefix, members in (
        ("setting", "", _names(Setting)),
        ("want_kind", "WANT_", _names(Want)),
        ("by", "BY_", ["NOTHING", *_names(By)]),
        ("count", "COUNT_", _names(Count)),
        ("global", "", [f"{name.upper()}_MAP" for name in GLOBALS]),
        ("initiator", "", _names(_INITIATORS)),
        ("outcome", "", _names(_OUTCOMES)),
        ("wp_outcome", "WP_", [*_names(WpOutcome), "OUTCOMES"]),
        ("loss", "", [*_names(LOSSES), "LOSSES"]),
        ("change", "", [*map(str.upper, Changes._fields), "CHANGES"]),
        ("source", "", _names(SOURCES)),
        ("wait_reason", "WAIT_", [*_names(WAITS), "REASONS"]),
    ):
        yield f"enum {enum} {{ {', '.join(prefix + member for member in members)} }};"


def _names(members: Iterable[Enum]) -> list[str]:
    return [member.name for member in members]


def _numbers() -> Iterator[str]:
    for name, number in {
        **{f"FACT_{fact.name}": fact.value for fact in Fact},
        **{f"{sent.name}": sent.value for sent in Sent},
        "BUCKETS": BUCKETS,
        "SLOT_BITS": SLOT_BITS,
        "KFUNC_MARK": KFUNC_MARK,
        "WAITS_NOW": WAITS_NOW,
        "KIND_WRITE_PROTECT": WRITE_PROTECT,
        **{f"KIND_{path.name}": number << _DAX_SHIFT for number, path in enumerate(_DAX_PATHS, 1)},
        "GENERATIONS": GENERATIONS,
        "KIND_ENDED": ENDED,
        "KIND_VALID": VALID,
    }.items():
        yield f"#define {name} {number:#x}"
    for name, shift in (
        ("INITIATOR", _INITIATOR_SHIFT),
        ("OUTCOME", _OUTCOME_SHIFT),
        ("GENERATION", _GENERATION_SHIFT),
    ):
        yield f"#define KIND_{name}(n) ((n) << {shift})"
    for name, mark in (("CONFIG", CONFIG_MARK), ("GLOBAL", GLOBAL_MARK)):
        yield f"#define {name}_MARK {mark << 32:#x}ULL"
    yield f"#define RACED_AFTER_NS {RACED_AFTER_NS}L"
    yield f"#define OLD_NS {OLD_NS}ULL"
    yield f"#define AGAIN_NS {AGAIN_NS}ULL"
