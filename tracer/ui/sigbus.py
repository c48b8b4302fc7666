"""A failure as a report for people: what happened to whom, what was refused, the host's state, and what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from rich.text import Text

from tracer.diagnosis import syscalls
from tracer.diagnosis.explainer import Again, Explained, Notified, Repeated
from tracer.model.calls import FaultPath, Initiator, device_name
from tracer.model.failures import Disposition, Failure, FailureSource, Signal
from tracer.model.host_state import HostState
from tracer.text import ELLIPSIS, counted, duration, offset_text, printable, size_text
from tracer.ui import host_state, writeback

#: Columns of the labels.
_LABELS: Final = 10
#: Wider than any report.
_UNWRAPPED: Final = 1 << 20
#: What the kernel calls memory that is no file of a mounted filesystem (mm/memfd.c, shmem.c, hugetlb.c, ipc/shm.c).
_UNMOUNTED: Final = ("/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage")
_DISPOSITIONS: Final = {
    Disposition.FATAL: "fatal: the process has no handler for it and dies",
    Disposition.CAUGHT: "caught: a handler gets it and decides how to go on",
    Disposition.IGNORED: "ignored: it has no effect",
    Disposition.BLOCKED: "blocked: it waits until the process unblocks it",
}


def report(explained: Explained, width: int) -> Text:
    """Return the whole report, a label and its text on each line, wrapped to ``width``."""
    failure, state, diagnosis = explained.failure, explained.state, explained.diagnosis
    if explained.again:
        return _raised_again(failure, explained.again)
    text = Text()
    text.append(_title(failure), "bold red")
    if failure.signal and failure.signal.disposition is not Disposition.FATAL:
        text.stylize("bold yellow")
    text.append("\n")
    errno = f" ({diagnosis.errno})" if diagnosis.errno else ""
    lines = writeback.rows(explained) if failure.source is FailureSource.WRITEBACK else _refusal(explained)
    lines += [
        *host_state.rows(state),
        ("class", f"{diagnosis.kind.value}{errno}{', inferred' if failure.inferred else ''}"),
        ("cause", printable(diagnosis.cause)),
        ("remedy", printable(diagnosis.remedy)),
    ]
    for label, content in lines:
        if content:
            style = "bold" if label in ("cause", "remedy") else ""
            text.append_text(_wrapped(label, content, width, style))
    for label, commands in (("run", diagnosis.run), ("check", diagnosis.check)):
        text.append_text(_pasted(label, commands))
    text.end = "\n"
    text.rstrip()
    return text


def words(news: Explained | Notified) -> str:
    """Return a report, or who was told of a loss, as text that a browser wraps."""
    return (notified(news) if isinstance(news, Notified) else report(news, _UNWRAPPED)).plain


def _refusal(explained: Explained) -> list[tuple[str, str]]:
    """Return what a refused access or a signal has besides the state of the host."""
    failure, state = explained.failure, explained.state
    return [
        ("victim", _victim(failure, state)),
        ("command", _command(failure)),
        ("signal", _signal(failure)),
        ("access", _access(failure, state)),
        ("file", _file(failure, state)),
        ("refused", _refused(failure, state)),
        ("errno", _errno(explained)),
    ]


def repeated(more: Repeated) -> Text:
    """One line for what was only counted."""
    failure, diagnosis = more.first.failure, more.first.diagnosis
    victims = more.last or (failure,)
    errno = f" {diagnosis.errno}" if diagnosis.errno else ""
    where = f" on {_name(failure)}" if failure.inode else ""
    if more.other:
        where = f" on {counted(more.files, 'other file')} of {_place(failure)}" if failure.inode else ""
    often = f"{more.count} more {'raised again' if more.first.again else 'like it'} in {duration(more.elapsed_ns)}"
    who = "" if failure.source is FailureSource.WRITEBACK else f"{_who(victims[-1])} "
    if more.processes > 1:
        who = f"{more.processes} processes, the last {', '.join(map(_who, victims))}: "
    what = f"{diagnosis.kind.value}{errno}{where}{_end(failure, victims[-1])}"
    return Text(f"{_time(victims[-1])}: {often}, {more.total} so far: {who}{what}")


def _end(first: Failure, last: Failure) -> str:
    """Return what became of a victim that had a handler at first: the last signal found none any more."""
    caught = first.signal is not None and first.signal.disposition is Disposition.CAUGHT
    if not caught or last.signal is None or last.signal.disposition is not Disposition.FATAL:
        return ""
    later = f", {duration(max(0, last.time_ns - first.time_ns))} after it was caught" if last.pid == first.pid else ""
    return f"; {_who(last)} dies of the last one{later}"


def _raised_again(failure: Failure, again: Again) -> Text:
    """One line: what a process sends to itself after a fault is no incident of its own."""
    first = again.first.failure
    after = duration(max(0, failure.time_ns - first.time_ns))
    on = f" on {_name(first)}" if first.inode else ""
    by = "which its child died of" if again.of_child else "which it had met"
    dies = failure.signal is not None and failure.signal.disposition is Disposition.FATAL
    what = f"the SIGBUS of {_time(first)}{on}, {by}, {after} later{'; it dies of this one' if dies else ''}"
    return Text(f"SIGBUS {_time(failure)}  {_who(failure)} raised again, to itself: {what}", "yellow", end="\n")


def notified(news: Notified) -> Text:
    """One line for a loss at writeback that a program was told of, or that nobody will be told of."""
    when, loss = news.told.last_ns if news.told else news.loss.forgotten_ns, news.loss
    failure = replace(news.first.failure, time_ns=when)
    what = writeback.told_text(news.told, loss) if news.told else writeback.FORGOTTEN
    return Text(f"{_time(failure)}: {what}: writeback on {_name(failure)}")


def _wrapped(label: str, content: str, width: int, style: str) -> Text:
    """Return a label and what belongs to it; further lines are indented as far."""
    result = Text()
    line, used = f"  {label:<{_LABELS - 2}}", _LABELS
    lines: list[str] = []
    for word in content.split(" "):
        if used > _LABELS and used + 1 + len(word) > width:
            lines.append(line)
            line, used = " " * _LABELS, _LABELS
        line += f" {word}" if used > _LABELS else word
        used = len(line)
    for each in (*lines, line):
        result.append(each[:_LABELS], "dim")
        result.append(each[_LABELS:] + "\n", style)
    return result


def _pasted(label: str, commands: str) -> Text:
    """Commands, a line each: to be pasted, so never broken, whatever the width."""
    result = Text()
    for line in filter(None, commands.split("\n")):
        result.append(f"  {label:<{_LABELS - 2}}", "dim").append(printable(line) + "\n")
        label = ""
    return result


def _title(failure: Failure) -> str:
    if failure.signal:
        return f"SIGBUS {_time(failure)}  {_who(failure)}"
    if failure.source is FailureSource.WRITEBACK:
        return f"LOST AT WRITEBACK {_time(failure)}  {_name(failure)}"
    how = "EFAULT" if failure.initiator is not Initiator.USER else "refused, no signal seen"
    return f"{how} {_time(failure)}  {_who(failure)}"


def _time(failure: Failure) -> str:
    moment = datetime.fromtimestamp(failure.time_ns // 1_000_000_000).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}.{failure.time_ns // 1_000_000 % 1000:03d}"


def _who(failure: Failure) -> str:
    """Return the process, and beside it the thread where that has a name of its own."""
    process = failure.process_comm or failure.comm
    thread = "" if process == failure.comm else f", thread {printable(failure.comm)}[{failure.tid}]"
    return f"{printable(process)}[{failure.pid}]{thread}"


def _victim(failure: Failure, state: HostState) -> str:
    parts = [f"{printable(failure.process_comm or failure.comm)}, process {failure.pid}"]
    if failure.namespace_pid not in (0, failure.pid):
        parts.append(f"{failure.namespace_pid} in its pid namespace")
    if failure.tid != failure.pid:
        name = f" ({printable(failure.comm)})" if failure.comm != (failure.process_comm or failure.comm) else ""
        parts.append(f"thread {failure.tid}{name}")
    parts.append(f"user {failure.uid}")
    if state.container:
        parts.append(f"container {printable(state.container)}")
    parts.append(f"cgroup {printable(state.cgroup)}")
    return ", ".join(parts)


def _command(failure: Failure) -> str:
    """Return the command line, its cut end marked."""
    return " ".join(map(printable, failure.command)) + (ELLIPSIS if failure.command_cut else "")


def _signal(failure: Failure) -> str:
    if failure.signal is None:
        if failure.initiator is Initiator.USER:
            return "none was seen: the task was killed, or the kernel gave it the fault again"
        call = syscalls.name(failure.syscall) if failure.syscall >= 0 else "the system call"
        return f"none: {call} returns EFAULT, or less than it was asked for"
    signal: Signal = failure.signal
    sender = ""
    if signal.sender:
        sender = f", sent by {printable(signal.sender.comm)}[{signal.sender.pid}], user {signal.sender_uid}"
    what = _DISPOSITIONS[signal.disposition]
    if failure.overridden and signal.disposition is Disposition.FATAL:
        what = f"fatal: the process has it {failure.overridden.value}, which does not hold for a fault of its own"
    elif signal.disposition is Disposition.FATAL and (
        failure.inferred or failure.source is not FailureSource.PAGE_MKWRITE
    ):
        what = "fatal: no handler gets it: the process has none, or has it ignored or blocked"
    return f"{signal.code.value}{sender}; {what}"


def _access(failure: Failure, state: HostState) -> str:
    at = f"at {printable(state.module)}" if state.module else f"at {failure.ip:#x}" if failure.ip else ""
    parts = [f"address {failure.address:#x}" if failure.address else "", f"instruction {at}" if at else ""]
    where = ", ".join(filter(None, parts))
    if failure.source is FailureSource.SIGNAL:
        return where
    verb = "write" if failure.write else "read"
    by = {
        Initiator.USER: "by the program",
        Initiator.KERNEL: "by the kernel for the program",
        Initiator.REMOTE: "by the kernel to the memory of a process that it was pointed to",
        Initiator.UNKNOWN: "",
    }[failure.initiator]
    how = ""
    if failure.source is FailureSource.PAGE_MKWRITE:
        how = ", the first to the page" if failure.path is FaultPath.FIRST_WRITE else ", to a page mapped read-only"
    return f"{verb} {by}{how}; {where}" if where else f"{verb} {by}{how}"


def _name(failure: Failure) -> str:
    name = printable(failure.file) if failure.file else f"inode {failure.inode}"
    return f"{name} (deleted)" if failure.deleted else name


def _file(failure: Failure, state: HostState) -> str:
    if not failure.inode:
        return ""
    page = f"offset {offset_text(failure.offset)} (page {failure.offset // 4096})"
    sizes = f"{size_text(failure.size)}, {_allocated(failure, state)}"
    inode = f"inode {failure.inode}, " if failure.file else ""
    return f"{_name(failure)}{_whose(failure, state)}, {page}; {inode}{sizes}"


def _allocated(failure: Failure, state: HostState) -> str:
    """Return the blocks that the file has: with those that are reserved for what is dirty, where it could be asked."""
    if state.file is None and failure.fstype not in ("tmpfs", "devtmpfs", "hugetlbfs"):
        # inode.i_blocks alone: delayed allocation is in no field that all filesystems have.
        return f"{size_text(failure.allocated)} allocated without what was not written back yet"
    allocated = failure.allocated if state.file is None else state.file.allocated
    sparse = ", sparse" if allocated < failure.size else ""
    # What an extent says is of blocks, and a huge page that was refused has none.
    known = state.file and state.file.backing and failure.source is not FailureSource.HUGETLB
    backing = f", the page: {state.file.backing}" if state.file and known else ""
    return f"{size_text(allocated)} allocated{sparse}{backing}"


def _whose(failure: Failure, state: HostState) -> str:
    """Where the file is for who reads this, if its path is one of another mount namespace or root."""
    if state.file_here == failure.file or failure.file.startswith(_UNMOUNTED) or not failure.file.startswith("/"):
        return ""
    if state.file_here:
        return f" (here {printable(state.file_here)})"
    return " (as the victim sees it)" if state.enter or state.enter is None else ""


def _refused(failure: Failure, state: HostState) -> str:
    if failure.source is FailureSource.SIGNAL:
        return ""
    by = printable(failure.handler) if failure.handler else f"{failure.source.value}"
    took = f" after {duration(failure.latency_ns)}" if failure.latency_ns else ""
    inferred = " (inferred)" if failure.inferred else ""
    place = f"{printable(failure.fstype)} on {_place(failure, state)}"
    source = f" ({printable(state.mount_source)})" if state.mount_source else ""
    whose = " in another mount namespace" if state.enter else ""
    return f"by {by}{inferred}{took}; {place}{source}{whose}"


def _place(failure: Failure, state: HostState | None = None) -> str:
    """Return the mount point, or the device's number."""
    where = failure.mountpoint or (state.mountpoint if state else "")
    if not where and failure.file.startswith(_UNMOUNTED):
        return "the kernel's own mount"
    return printable(where) or device_name(failure.dev)


def _errno(explained: Explained) -> str:
    failure, diagnosis = explained.failure, explained.diagnosis
    if not diagnosis.errno:
        return ""
    if diagnosis.inferred_from:
        return f"{diagnosis.errno}, inferred from {diagnosis.inferred_from}"
    return f"{diagnosis.errno}, returned by {failure.errno_from}"
