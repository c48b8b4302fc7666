"""Diagnosis of pages that could not be had: by what the filesystem keeps of them elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from failure_samples import REFUSED

from tracer.diagnosis.classes import decide
from tracer.diagnosis.diagnose import diagnose
from tracer.model.failures import Class, Fact, FailureSource
from tracer.model.host_state import HostState

HERE = HostState(file_here="/srv/a b")


@pytest.mark.parametrize(
    ("fstype", "huge_page", "run", "said"),
    [
        ("tmpfs", 0, "fallocate --punch-hole --offset 8192 --length 4096 '/srv/a b'", "stays in the file"),
        ("hugetlbfs", 2 << 20, "fallocate --punch-hole --offset 0 --length 2097152 '/srv/a b'", "stays in the file"),
        ("ext4", 0, "", "gets it from the disk"),
        ("", 0, "", "Its content is lost."),
    ],
)
def test_broken_memory_is_got_rid_of_where_it_stays(fstype: str, huge_page: int, run: str, said: str) -> None:
    failure = replace(
        REFUSED, source=FailureSource.FAULT, facts=Fact.POISONED, fstype=fstype, offset=8192, huge_page=huge_page
    )
    found = diagnose(decide(failure), HERE)
    assert (found.kind, found.errno, found.run) == (Class.MEDIA, "", run)
    assert said in found.cause


def test_on_btrfs_a_checksum_may_be_what_does_not_match() -> None:
    failure = replace(REFUSED, source=FailureSource.FAULT, fstype="btrfs", mountpoint="/srv/data")
    found = diagnose(decide(failure), HostState(mountpoint="/srv/data"))
    assert "checksum" in found.cause
    assert found.check.split("\n") == ["dmesg | grep -i btrfs | tail -50", "btrfs device stats /srv/data"]
    assert found.run == "btrfs scrub start -B /srv/data"
