"""The command ``sigbus``: what it asks for, what it prints and counts, and how it ends."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result
from failure_samples import refused

import tracer.failures
from tracer.cli.main import cli
from tracer.failure import Failure, Source
from tracer.model import Backend, Filters, Hook
from tracer.probes.failures import Burst

#: A process that does not exist, so that nothing is learned from /proc.
FAILURE = replace(refused(errno.ENOSPC, kernel_error=errno.ENOSPC), pid=4194305, dev=0)


class FakeFailures:
    """Brings the given batches of failures, one a call, then nothing."""

    batches: ClassVar[list[list[Failure]]] = []
    seen_of_each: ClassVar[int] = 1
    asked: ClassVar[list[tuple[Filters, Backend | None]]] = []
    hooks = (
        Hook("do_page_mkwrite:return", "do_page_mkwrite", Backend.FENTRY, attached=True),
        Hook("hugetlb_fault:return", "hugetlb_fault", Backend.FENTRY, attached=False, detail="not in this kernel"),
    )

    def __init__(self, filters: Filters, backend: Backend | None) -> None:
        FakeFailures.asked.append((filters, backend))
        self._batches = iter(FakeFailures.batches)

    def __enter__(self) -> FakeFailures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def wait(self, timeout_s: float) -> list[Failure]:
        return next(self._batches, [])

    def finish(self) -> list[Failure]:
        return [failure for batch in self._batches for failure in batch]

    def seen(self) -> dict[Burst, int]:
        every = [failure for batch in FakeFailures.batches for failure in batch]
        return {
            Burst(f.pid, f.dev, f.inode, list(Source).index(f.source), f.kernel_error): FakeFailures.seen_of_each
            for f in every
        }

    def lost(self) -> dict[str, int]:
        return {"failures_full": 0}


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeFailures]]:
    monkeypatch.setattr(tracer.failures, "Failures", FakeFailures)
    FakeFailures.batches, FakeFailures.seen_of_each, FakeFailures.asked = [[FAILURE]], 1, []
    yield FakeFailures


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sigbus", *arguments], env={"COLUMNS": "80"})


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_once_prints_a_report_and_ends() -> None:
    result = invoke("--once")
    assert result.exit_code == 0
    assert "ENOSPC, returned by ext4_da_reserve_space" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "hooks: 1 of 2; not attached: hugetlb_fault:return (not in this kernel)" in " ".join(result.stderr.split())


def test_once_fails_when_none_came_in_time(fake: type[FakeFailures]) -> None:
    fake.batches = []
    result = invoke("--once", "-d", "20ms")
    assert (result.exit_code, result.stdout) == (1, "")


def test_what_repeats_is_told_once_and_counted(fake: type[FakeFailures]) -> None:
    fake.batches = [[FAILURE, replace(FAILURE, ordinal=2)], [replace(FAILURE, ordinal=211)]]
    fake.seen_of_each = 211
    told, more = records(invoke("--json", "-d", "20ms"))
    assert (told["kind"], told["errno"], told["pid"]) == ("failure", "ENOSPC", FAILURE.pid)
    assert (more["kind"], more["count"], more["inode"]) == ("repeated", 210, FAILURE.inode)


def test_another_errno_of_the_same_file_is_another_failure(fake: type[FakeFailures]) -> None:
    other = replace(FAILURE, errno=errno.EIO, kernel_error=errno.EIO)
    fake.batches = [[FAILURE, other]]
    assert [record["errno"] for record in records(invoke("--json", "-d", "20ms"))] == ["ENOSPC", "EIO"]


def test_failures_that_come_at_the_end_are_told(fake: type[FakeFailures]) -> None:
    fake.batches = [[], [FAILURE]]
    assert len(records(invoke("--json", "-d", "1ms"))) == 1


def test_a_command_sets_the_time_and_the_exit_code() -> None:
    result = invoke("--json", "--", "sh", "-c", "exit 7")
    assert result.exit_code == 7
    assert len(records(result)) == 1


@pytest.mark.parametrize("option", [["--once"], ["-d", "1s"]])
def test_a_command_and_another_end_exclude_each_other(option: list[str]) -> None:
    assert invoke(*option, "--", "true").exit_code == 2


def test_filters_are_passed_on(fake: type[FakeFailures]) -> None:
    invoke("--once", "--fs", "xfs", "--pid", "1", "--backend", "kprobe")
    assert fake.asked == [(Filters(fs=("xfs",), pids=(1,)), Backend.KPROBE)]


def test_help_has_examples() -> None:
    lines = invoke("--help").stdout.splitlines()
    examples = lines[lines.index("  Examples:") + 1 :]
    assert all(line.startswith("    mkwrite sigbus") for line in examples)
    assert max(map(len, lines)) <= 80
