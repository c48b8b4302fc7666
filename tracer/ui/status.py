"""What every view says of the tracer itself: losses, hooks, notes."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from tracer.model.hooks import Loss
from tracer.model.losses import MEANINGS
from tracer.model.snapshot import Snapshot
from tracer.text import printable


def losses(snapshot: Snapshot) -> Text:
    """``lost: 0``, or in red how many of what; shown even when nothing is lost.

    What was counted, and only not told one by one, is no lost count: it has words of its own.
    """
    untold = snapshot.lost.get(Loss.EVENTS_FULL, 0)
    kinds = ", ".join(f"{kind.value} {n}" for kind, n in snapshot.lost.items() if n and kind is not Loss.EVENTS_FULL)
    line = Text("lost: 0") if not kinds else Text(f"lost: {snapshot.total_lost - untold} ({kinds})", style="bold red")
    if untold:
        line.append(f", counted but not told one by one: {untold} ({Loss.EVENTS_FULL.value})", "yellow")
    return line


def advice(snapshot: Snapshot) -> Iterator[Text]:
    """For each kind that was lost, what that is and what to do."""
    for kind, number in snapshot.lost.items():
        if number:
            meaning = MEANINGS[kind]
            yield Text(f"{kind.value}: {meaning.missed}. {meaning.remedy}", style="red")


def hooks(snapshot: Snapshot) -> Text:
    """Return the backend and how many hooks attached; those that did not, by name and with the reason."""
    attached = [hook for hook in snapshot.hooks if hook.attached]
    backends = "+".join(sorted({hook.backend.value for hook in attached})) or "none"
    line = Text(f"backend: {backends}, hooks: {len(attached)} of {len(snapshot.hooks)}")
    for hook in snapshot.hooks:
        if not hook.attached:
            reason = f" ({printable(hook.detail)})" if hook.detail else ""
            line.append(f"; not attached: {printable(hook.name)}{reason}", "yellow")
    return line


def status(snapshot: Snapshot) -> Iterator[Text]:
    """Losses and hooks, then a line for each kind of loss, and each note."""
    yield Text("  ").join([losses(snapshot), hooks(snapshot)])
    yield from advice(snapshot)
    for note in snapshot.notes:
        yield Text(f"note: {printable(note)}", style="yellow")
