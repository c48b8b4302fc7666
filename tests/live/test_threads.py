"""Many threads at once: every call is counted, with what became of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.guest import NO_LOSS, Backend, FaultPath, Filters, Options, Outcome, calls, lost, truth, workload
from tracer.session import Session

pytestmark = [pytest.mark.newest, pytest.mark.usefixtures("clean_kernel")]


def test_raced_calls_are_those_whose_entry_had_changed(exact: Backend | None, mounts: dict[str, Path]) -> None:
    with (
        Session(Options(backend=exact, filters=Filters(comms=("workload",)), failures=False)) as session,
        truth("do_page_mkwrite") as entered,
        truth("fault_dirty_shared_page") as agreed,
    ):
        workload("race", mounts["ext4"] / "race", 499)
        made, writable = entered.hits(), agreed.hits()
        final = session.finish()
    # How many stores race is up to the emulator's scheduling, none at worst: the kernel's own counts are the truth.
    assert made >= writable > 0
    assert calls(final, fstype="ext4", outcome=Outcome.WRITABLE) == writable
    assert calls(final, fstype="ext4", outcome=Outcome.RACED) == made - writable
    assert lost(final) == NO_LOSS


def test_a_storm_of_threads_is_counted_to_the_last_call(exact: Backend | None, mounts: dict[str, Path]) -> None:
    with Session(Options(backend=exact, filters=Filters(fs=("ext4",)), failures=False)) as session:
        made = int(workload("storm", mounts["ext4"] / "storm", 3, 7))
        final = session.finish()
    assert made > 1000
    assert calls(final, path=FaultPath.FIRST_WRITE) == made
    # do_wp_page is hooked by fentry even where that may miss a few of its runs.
    hooks = [hook for hook in final.hooks if hook.function != "do_wp_page" and not hook.function.startswith("dax_")]
    assert {hook.function: hook.missed for hook in hooks} == {
        "do_page_mkwrite": 0,
        "fault_dirty_shared_page": 0,
        "generic_shutdown_super": 0,
    }


def test_the_backend_that_is_chosen_misses_nothing(mounts: dict[str, Path]) -> None:
    with Session(Options(filters=Filters(fs=("ext4",)), failures=False)) as session:
        made = int(workload("storm", mounts["ext4"] / "chosen", 1, 7))
        final = session.finish()
    assert calls(final, path=FaultPath.FIRST_WRITE) == made
