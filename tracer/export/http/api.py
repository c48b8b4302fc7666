"""What the page shows, as JSON; its objects are those of the commands' ``--json``."""

from __future__ import annotations

import time

from tracer.export.http.groups import Group
from tracer.export.http.questions import Question
from tracer.export.http.view import View
from tracer.export.json.failures import explained_dict, notified_dict, repeated_dict
from tracer.export.json.host import risk_dict
from tracer.export.json.records import breakdown_dict, json_line, snapshot_dict, stuck_dict, text
from tracer.latency.breakdown import breakdowns
from tracer.model.asked import asked


def answer(question: Question, view: View) -> str:
    """Return the answer to a question that is answered in JSON."""
    make = {Question.FAILURES: _failures, Question.STUCK: _stuck, Question.RISK: _risk, Question.CALLS: _calls}
    return json_line({"time_ns": time.time_ns(), **make[question](view)}) + "\n"


def _failures(view: View) -> dict[str, object]:
    return {"untold": view.untold, "failures": [_group(group) for group in view.groups]}


def _group(group: Group) -> dict[str, object]:
    return {
        "total": group.total,
        "last_time_ns": group.last.time_ns,
        "first": explained_dict(group.first),
        "repeated": group.more and repeated_dict(group.more),
        "told": group.news and notified_dict(group.news),
    }


def _stuck(view: View) -> dict[str, object]:
    return {
        "stuck": [stuck_dict(one) for one in view.stuck],
        "unseen": [text(sentence) for sentence in view.stuck_unseen],
    }


def _risk(view: View) -> dict[str, object]:
    unseen = [text(sentence) for sentence in view.risk_unseen]
    if view.risk:
        return risk_dict(*view.risk)
    return {"limits": [], "beyond_end": [], "unseen": unseen, "notes": []}


def _calls(view: View) -> dict[str, object]:
    past = view.past
    return {
        "up": past.up,
        "total": snapshot_dict(past.total),
        "recent": snapshot_dict(past.recent),
        "waits": [breakdown_dict(one) for one in breakdowns(past.total)] if asked(past.total.waits) else [],
    }
