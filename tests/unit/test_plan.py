"""Which backends are tried, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.kernel.preemption import preemptible
from tracer.model.hooks import Backend
from tracer.probes.plan import _plans

FENTRY, KPROBE = Backend.FENTRY, Backend.KPROBE


@pytest.mark.parametrize(
    ("asked", "handlers", "preempts", "expected"),
    [
        (None, False, False, [(FENTRY, FENTRY), (KPROBE, FENTRY), (KPROBE, KPROBE)]),
        (None, False, True, [(KPROBE, FENTRY), (KPROBE, KPROBE), (FENTRY, FENTRY)]),
        # Handlers share one program, which kprobes allow.
        (None, True, False, [(KPROBE, FENTRY), (KPROBE, KPROBE)]),
        (None, True, True, [(KPROBE, FENTRY), (KPROBE, KPROBE)]),
        (FENTRY, False, True, [(FENTRY, FENTRY)]),
        (KPROBE, False, False, [(KPROBE, KPROBE)]),
        (KPROBE, True, False, [(KPROBE, KPROBE)]),
    ],
)
def test_plans_are_tried_in_this_order(
    asked: Backend | None, handlers: bool, preempts: bool, expected: list[tuple[Backend, Backend]]
) -> None:
    assert [(plan.calls, plan.wp) for plan in _plans(asked, handlers, preempts)] == expected


def test_a_plan_is_named_by_its_backends() -> None:
    assert [str(plan) for plan in _plans(None, False, True)] == ["kprobe+fentry", "kprobe", "fentry"]


@pytest.mark.parametrize(
    ("mode", "version", "expected"),
    [
        ("none (voluntary) full \n", "#1 SMP PREEMPT_DYNAMIC Debian", False),
        ("(none) voluntary full lazy", "#1 SMP PREEMPT_DYNAMIC", False),
        ("none voluntary (full)", "#1 SMP", True),
        ("full (lazy) \n", "#1 SMP PREEMPT_DYNAMIC", True),
        (None, "#1 SMP Debian 5.10.1 (2026-01-01)", False),
        (None, "#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1~bpo13+1 (2026-11-15)", True),
        (None, "#1 SMP PREEMPT_RT Debian", True),
        ("", "#1 SMP Debian", False),
    ],
)
def test_a_kernel_that_preempts_itself_is_known(tmp_path: Path, mode: str | None, version: str, expected: bool) -> None:
    path = tmp_path / "preempt"
    if mode is not None:
        path.write_text(mode)
    assert preemptible(path, version) is expected
