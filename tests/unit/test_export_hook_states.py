"""Why a hook is missing: it decides whether anybody is told to see to it."""

from __future__ import annotations

import errno

import pytest

from tracer.errors import Exit, MkwriteError
from tracer.export.prometheus.hook_states import HookStates
from tracer.kernel.refusals import denied
from tracer.model.hooks import Backend, Hook

CALL = Hook("call", "do_page_mkwrite", Backend.FENTRY, attached=True)
DENIED = Hook("space", "ext4_da_reserve_space", Backend.KPROBE, attached=False, detail="Permission denied", denied=True)
REFUSED = Hook("wp", "do_wp_page", Backend.FENTRY, attached=False, detail="notrace")


def reasons(states: HookStates, *hooks: Hook) -> dict[str, str]:
    """Of those that are missing, by hook, after a reading."""
    states.note(hooks)
    return {labels[0]: labels[3] for labels in states.missing(hooks)}


def test_what_was_not_allowed_at_the_start_never_will_be() -> None:
    states = HookStates()
    expected = {"space": "rights", "wp": "kernel"}
    assert reasons(states, CALL, DENIED, REFUSED) == expected
    later = Hook("other", "btrfs_start_transaction", Backend.KPROBE, attached=False, denied=True)
    assert reasons(states, CALL, DENIED, REFUSED, later) == {**expected, "other": "rights"}


def test_what_comes_when_the_rights_are_gone_wants_a_restart() -> None:
    states = HookStates()
    assert reasons(states, CALL, REFUSED) == {"wp": "kernel"}
    assert reasons(states, CALL, REFUSED, DENIED)["space"] == "late"


def test_a_hook_that_is_attached_once_is_attached() -> None:
    again = Hook(CALL.name, CALL.function, CALL.backend, attached=False, denied=True)
    assert reasons(HookStates(), again, CALL) == {}
    assert HookStates().attached([again, CALL, CALL, REFUSED]) == {"fentry": 1}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EACCES, ""), True),
        (OSError(errno.EPERM, ""), True),
        (MkwriteError("Not mounted.", "Mount it.", Exit.NO_TRACEFS), True),
        (OSError(errno.EINVAL, ""), False),
        (MkwriteError("Held.", "End it.", Exit.BUSY), False),
    ],
)
def test_some_refusals_are_for_want_of_rights(error: OSError | MkwriteError, expected: bool) -> None:
    assert denied(error) is expected
