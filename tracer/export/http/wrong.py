"""What is wrong on the host, the worst first: failures, calls that are stuck, and writes that would be refused next."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from tracer.diagnosis.explainer import Explained, Notified
from tracer.export.http.groups import Group
from tracer.export.http.markup import card, escaped, moment, preformatted
from tracer.export.http.view import View
from tracer.latency.stuck import StuckCall
from tracer.mappings.cut import Cut
from tracer.mappings.risk import Assessment, RiskState, command, consequence, remedy, sentence
from tracer.model.calls import device_name
from tracer.model.failures import Failure
from tracer.text import counted, duration, size_text

#: Files of a limit, and calls that are stuck, that are told.
_FILES: Final = 5
_CALLS: Final = 50
#: A limit that will refuse within a day is told of, however much room there is.
_SOON_S: Final = 86_400.0

Words = Callable[[Explained | Notified], str]


def failures(view: View, words: Words) -> str:
    """Return a card for each incident, with its whole report."""
    found = "".join(_failure(group, words, view.look_back) for group in view.groups)
    if view.untold:
        found += f'<p class="dim">{counted(view.untold, "failure")} more only counted.</p>'
    return found or f'<p class="good">None was seen in {duration(view.past.total.elapsed_ns)}.</p>'


def stuck(view: View) -> str:
    """Return a card for each call that lasts, with its kernel stack."""
    found = "".join(map(_stuck, view.stuck[:_CALLS]))
    if len(view.stuck) > _CALLS:
        found += f'<p class="dim">and {len(view.stuck) - _CALLS} more.</p>'
    none = "" if view.past.total.tracepoints else '<p class="good">No call that was seen to begin.</p>'
    return (found or none) + unseen(view.stuck_unseen)


def risk(view: View) -> str:
    """Return a card for each limit that may refuse, and for each file that is mapped beyond its end."""
    if view.risk is None:
        return unseen(view.risk_unseen)
    survey, coming = view.risk
    near = near_limits(view)
    found = "".join(_limit(verdict, coming.get(verdict.limit.key, (0.0, math.inf))) for verdict in near)
    found += "".join(map(_cut, survey.cut))
    others = len(survey.verdicts) - len(near)
    room = f'<p class="good">{counted(others, "limit")} with room for all that mapped files may ask.</p>'
    return found + (room if others else "") + unseen(survey.unseen)


def near_limits(view: View) -> list[Assessment]:
    """Return the limits that have no room for all, or will have none in a day."""
    if view.risk is None:
        return []
    survey, coming = view.risk
    return [
        verdict
        for verdict in survey.verdicts
        if verdict.state is not RiskState.OK or coming.get(verdict.limit.key, (0.0, math.inf))[1] < _SOON_S
    ]


def _failure(group: Group, words: Words, look_back: str) -> str:
    failure, diagnosis, more = group.first.failure, group.first.diagnosis, group.more
    others = more.processes - 1 if more else 0
    where = f"{more.files} other files" if more and more.other else _file(failure)
    who = f"{_who(failure)} and {others} more" if others and failure.pid else _who(failure)
    title = (
        ("what", f"{diagnosis.kind.value} {diagnosis.errno}".rstrip()),
        ("times", f"{group.total} times" if group.total > 1 else ""),
        ("where", where),
        ("who", who),
        ("when", moment(group.last.time_ns)),
    )
    text = words(group.first) + (f"\n\n{words(group.news)}" if group.news else "")
    victims = ", ".join(dict.fromkeys(map(_who, reversed(more.last)))) if more else ""
    body = preformatted(text)
    if more and victims:
        body += f"<p>{counted(more.total, 'failure')} in all; the last met by {escaped(victims)}.</p>"
    if look_back:
        body += f"<p>To look back: <code>{escaped(look_back)} --since '{moment(failure.time_ns)}'</code></p>"
    body += f'<p class="dim"><a href="/?still#{group.name}">Stop reloading, and link here</a></p>'
    return card(group.name, "bad", title, diagnosis.cause, body)


def _stuck(one: StuckCall) -> str:
    call = one.call
    title = (
        ("what", f"{'more than ' if one.at_least else ''}{duration(call.age_ns)}"),
        ("times", one.reason),
        ("where", call.file or call.mountpoint or device_name(call.dev)),
        ("who", f"{call.comm}[{call.pid}]"),
        ("when", call.handler),
    )
    freeze = one.freeze and one.freeze.by
    said = f"frozen by {freeze.comm}[{freeze.pid}]" if freeze else ""
    peer = f"answered by {one.peer}" if one.peer else ""
    told = "\n".join(one.stack) or "(the kernel stack may not be read with the rights of the exporter)"
    return card(f"s{call.tid}", "bad", title, ", ".join(filter(None, (said, peer))), preformatted(told))


def _limit(verdict: Assessment, coming: tuple[float, float]) -> str:
    limit, (taken, seconds) = verdict.limit, coming
    title = (
        ("what", verdict.state.value),
        ("times", f"refused in {duration(seconds * 1e9)}" if seconds < _SOON_S else ""),
        ("where", limit.place.mountpoint or device_name(limit.place.dev)),
        ("who", f"{limit.kind.value} {limit.who}".rstrip()),
        ("when", f"{size_text(max(0, limit.free))} free"),
    )
    asking = [demand for demand in verdict.demands if demand.asks(limit.kind) or demand.rewrites]
    lines = [sentence(demand, limit) for demand in asking[:_FILES]]
    if len(asking) > _FILES:
        lines.append(f"... and {counted(len(asking) - _FILES, 'more file')}")
    lines.append(consequence(limit))
    if asking:
        lines += [f"-> {remedy(asking[0], limit)}", command(asking[0], limit)]
    if taken >= 1:
        lines.append(f"{size_text(round(taken))} a second are taken now.")
    asks = f"Mapped files may ask for {size_text(verdict.new)}"
    asks += f", and {size_text(verdict.rewrites)} to rewrite." if verdict.rewrites else "."
    name = f"r{device_name(limit.place.dev).replace(':', '-')}-{limit.kind.name.lower()}"
    return card(name, "near", title, asks, f"{preformatted(chr(10).join(filter(None, lines)))}")


def _cut(cut: Cut) -> str:
    title = (("what", "beyond its end"), ("where", cut.path), ("who", ", ".join(cut.who[:3])))
    touched = "Any touch of such a page ends with SIGBUS, or EFAULT from a system call."
    name = f"c{device_name(cut.place.dev).replace(':', '-')}-{cut.inode}"
    return card(name, "near", title, cut.sentence, f"<p>{touched}</p>")


def unseen(sentences: tuple[str, ...]) -> str:
    """Return what was not looked at."""
    return "".join(f'<p class="dim">not seen: {escaped(one)}</p>' for one in sentences)


def _who(failure: Failure) -> str:
    return f"{failure.process_comm or failure.comm}[{failure.pid}]" if failure.pid else ""


def _file(failure: Failure) -> str:
    name = failure.file or (f"inode {failure.inode}" if failure.inode else failure.mountpoint)
    return f"{name} (deleted)" if failure.deleted else name
