"""What is said when the kernel refuses: the obstacle behind it, else the errno."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hosts import GOOD, UNPRIVILEGED, function, without

from tracer.errors import Exit
from tracer.kernel.parsing import Lockdown
from tracer.kernel.refusals import ENOTSUPP, explain_refusal
from tracer.model.hooks import Backend


@pytest.mark.parametrize("number", [errno.EBUSY, errno.E2BIG])
def test_another_tracer_that_holds_the_function_has_an_exit_code(number: int) -> None:
    error = explain_refusal(OSError(number, "x"), "attach do_page_mkwrite", Backend.FENTRY, GOOD)
    assert error.code is Exit.BUSY
    assert "--backend" in error.cure


def test_a_refusal_is_explained_by_the_obstacle_behind_it() -> None:
    error = explain_refusal(PermissionError(errno.EPERM, "x"), "load a program", features=UNPRIVILEGED)
    assert error.problem.startswith("The kernel refused to load a program (EPERM): this process lacks CAP_")
    assert (error.cure, error.code) == ("Run mkwrite as root, e.g. with sudo.", Exit.NO_PERMISSION)


def test_a_refusal_for_memlock_is_not_taken_for_a_policy() -> None:
    old = replace(without("CAP_SYS_RESOURCE"), memlock=0, memlock_charged=True)
    for number in (errno.EPERM, errno.ENOMEM):
        error = explain_refusal(OSError(number, "x"), "create a map", features=old)
        assert error.code is Exit.NO_MEMORY
        assert error.cure.startswith("Raise the limit")


def test_a_refusal_under_lockdown() -> None:
    features = replace(GOOD, lockdown=Lockdown.CONFIDENTIALITY)
    assert explain_refusal(OSError(errno.EPERM, "x"), "attach", features=features).code is Exit.LOCKDOWN


def test_an_obstacle_of_the_other_backend_explains_nothing() -> None:
    features = replace(GOOD, trampolines=False)
    fentry = explain_refusal(OSError(errno.EINVAL, "x"), "attach to do_wp_page", Backend.FENTRY, features)
    kprobe = explain_refusal(OSError(errno.EINVAL, "x"), "attach to do_wp_page", Backend.KPROBE, features)
    assert "no BPF trampolines" in fentry.problem
    assert "trampolines" not in kprobe.problem


def test_an_obstacle_of_another_function_explains_nothing() -> None:
    features = function("do_wp_page", copies=2)
    error = OSError(errno.EADDRNOTAVAIL, "x")
    assert "has 2 functions do_wp_page" in explain_refusal(error, "attach to do_wp_page", features=features).problem
    assert "has 2" not in explain_refusal(error, "attach to do_page_mkwrite", features=features).problem


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (errno.EPERM, Exit.NO_PERMISSION, "seccomp"),
        (errno.EACCES, Exit.NO_PERMISSION, "verifier"),
        (errno.ENOSYS, Exit.NO_HOOKS, "system call"),
        (errno.EINVAL, Exit.NO_HOOKS, "lacks"),
        (errno.EOPNOTSUPP, Exit.NO_HOOKS, "support"),
        (ENOTSUPP, Exit.NO_HOOKS, "ENOTSUPP"),
        (errno.ENOENT, Exit.NO_HOOKS, "no such function"),
        (errno.EADDRNOTAVAIL, Exit.NO_HOOKS, "not unique"),
        (errno.EBUSY, Exit.BUSY, "nother tracer"),
        (errno.EEXIST, Exit.NO_HOOKS, "already"),
        (errno.E2BIG, Exit.BUSY, "too many BPF programs"),
        (errno.ENOMEM, Exit.NO_MEMORY, "memory"),
        (errno.EMFILE, Exit.FAILED, "ulimit -n"),
        (errno.ENFILE, Exit.FAILED, "fs.file-max"),
        (errno.EXDEV, Exit.FAILED, "strange"),
    ],
)
def test_each_errno_has_its_own_words(number: int, code: Exit, word: str) -> None:
    error = explain_refusal(OSError(number, "strange"), "attach", features=GOOD)
    assert error.code is code
    assert word in str(error)


def test_an_error_without_a_number_is_explained_too() -> None:
    assert explain_refusal(OSError("odd"), "attach", features=GOOD).code is Exit.FAILED
