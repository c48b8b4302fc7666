"""Failures as the landing page has them: an incident each, with its report, how many there were, and last victims."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from tracer.diagnosis.explainer import Explained, Notified, Repeated, cause_of
from tracer.model.failures import Failure

#: Groups that are kept.
_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Group:
    """Failures of one incident; ``more`` counts those after the first, ``news`` tells who was told of a late loss."""

    first: Explained
    more: Repeated | None = None
    news: Notified | None = None

    @property
    def total(self) -> int:
        """How many there were."""
        return self.more.total if self.more else 1

    @property
    def last(self) -> Failure:
        """The last one that is known."""
        return self.more.last[-1] if self.more and self.more.last else self.first.failure

    @property
    def name(self) -> str:
        """What it is called in a link: the same as long as it is kept."""
        failure = self.first.failure
        seed = f"{failure.time_ns} {failure.pid} {failure.dev} {failure.inode} {failure.verdict[:2]}"
        return f"f{hashlib.sha256(seed.encode()).hexdigest()[:12]}"


class Groups:
    """Keeps the last groups; safe to use from several threads.

    When there are too many, the kind that has most gives up its oldest: a user and a cgroup that fail in one way, on
    one filesystem, push out nobody else's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[Hashable, Group] = {}

    def note(self, news: Iterable[Explained | Repeated | Notified]) -> None:
        """Take in what an ``Explainer`` says."""
        for one in news:
            first = one if isinstance(one, Explained) else one.first
            key = _key(first, isinstance(one, Repeated) and one.other)
            with self._lock:
                known = self._groups.pop(key, None) or Group(first)
                if isinstance(one, Explained):
                    known = Group(one)
                elif isinstance(one, Repeated):
                    known = replace(known, more=one)
                else:
                    known = replace(known, news=one)
                self._groups[key] = known
                if len(self._groups) > _MOST:
                    self._drop()

    def all(self) -> tuple[Group, ...]:
        """Return the groups, that of the last failure first."""
        with self._lock:
            groups = tuple(self._groups.values())
        return tuple(sorted(groups, key=lambda group: -group.last.time_ns))

    def _drop(self) -> None:
        kinds = {key: _kind(group.first.failure) for key, group in self._groups.items()}
        ((largest, _),) = Counter(kinds.values()).most_common(1)
        del self._groups[next(key for key, kind in kinds.items() if kind == largest)]


def _key(first: Explained, other: bool) -> Hashable:
    if first.again:
        return "again", first.again.first.failure.time_ns, first.again.of_child
    if other:
        failure = first.failure
        return "other", failure.dev, failure.generation, failure.verdict[:2]
    return cause_of(first.failure)


def _kind(failure: Failure) -> Hashable:
    return failure.uid, failure.cgroup_id, failure.dev, failure.verdict[:2]
