"""Failures in groups: each incident once, however often it comes, and none pushed out by another's noise."""

from __future__ import annotations

import errno
from dataclasses import replace

from failure_samples import refused
from look_back import explained

from tracer.diagnosis.explainer import Explained, Notified, Repeated
from tracer.export.http.groups import Groups
from tracer.model.failures import Actor
from tracer.model.writeback import FileLoss, Told

DATABASE = explained(refused(errno.ENOSPC, file="/srv/base/1", inode=1))


def noise(number: int, **changes: object) -> Explained:
    """One of many files of a user who is not the database."""
    seen = replace(refused(errno.EIO, uid=1000), inode=1000 + number, time_ns=DATABASE.failure.time_ns + number + 1)
    return explained(replace(seen, **changes))  # type: ignore[arg-type]


def test_one_noisy_user_pushes_out_nobody() -> None:
    groups = Groups()
    groups.note([DATABASE])
    groups.note(noise(number) for number in range(5000))
    found = groups.all()
    assert len(found) == 100
    assert found[-1].first is DATABASE
    assert [group.first.failure.inode for group in found[:3]] == [5999, 5998, 5997]


def test_what_comes_again_is_counted_and_comes_first() -> None:
    groups = Groups()
    groups.note([DATABASE, noise(1)])
    victim = replace(DATABASE.failure, pid=9, time_ns=DATABASE.failure.time_ns + 10**9)
    groups.note([Repeated(DATABASE, 4, 5, 10**9, (victim,), processes=2)])
    first, second = groups.all()
    assert (first.first, first.total, first.last.pid) == (DATABASE, 5, 9)
    assert second.total == 1
    names = {group.name for group in (first, second)}
    groups.note([Repeated(DATABASE, 1, 6, 10**9, (victim,), processes=2)])
    assert {group.name for group in groups.all()} == names and groups.all()[0].total == 6


def test_files_that_were_too_many_to_report_are_one_group() -> None:
    groups = Groups()
    many = noise(1)
    groups.note([noise(2), Repeated(many, 40, 40, 10**9, (many.failure,), 1, 40, other=True)])
    groups.note([Repeated(many, 2, 42, 10**9, (many.failure,), 1, 42, other=True)])
    assert sorted(group.total for group in groups.all()) == [1, 42]


def test_who_was_told_of_a_loss_is_kept_with_it() -> None:
    groups = Groups()
    told = Told(1, Actor(1, 1, "db"), errno.EIO, 74, 1, 1)
    news = Notified(DATABASE, FileLoss(1, 1, 1, told, 1, 0, 0, 0), told)
    groups.note([DATABASE, news])
    assert groups.all()[0].news is news
