"""The busiest few of many, and the labels made of them."""

from __future__ import annotations

from tracer.export.prometheus.label import Busiest, Who
from tracer.model.options import By

MINUTE = 60 * 10**9
POD = "6f4f2a10-9d5f-4c0b-a7a5-0f3f0f9f6b1e"
ID = "0123456789abcdef" * 4


def test_the_busiest_are_in() -> None:
    busiest = Busiest(2)
    busiest.note({"a": 5, "b": 1, "c": 9}, MINUTE)
    assert ("a" in busiest, "b" in busiest, "c" in busiest) == (True, False, True)


def test_a_newcomer_must_be_clearly_busier() -> None:
    busiest = Busiest(1)
    busiest.note({"a": 10}, MINUTE)
    busiest.note({"b": 15}, MINUTE)
    assert "a" in busiest and "b" not in busiest
    busiest.note({"b": 6}, MINUTE)
    assert "b" in busiest and "a" not in busiest


def test_who_was_busy_long_ago_is_not() -> None:
    busiest = Busiest(1)
    busiest.note({"a": 1000}, 0)
    busiest.note({"b": 3}, 60 * MINUTE)
    assert "b" in busiest and "a" not in busiest


def test_what_is_remembered_of_the_idle_is_nothing() -> None:
    busiest = Busiest(3)
    busiest.note({f"p{n}": 1 for n in range(1000)}, 0)
    busiest.note({}, 10 * MINUTE)
    assert not busiest._scores and "p1" not in busiest


def test_labels_are_those_asked_for() -> None:
    assert Who().labels == ()
    assert Who(By.FILE).labels == ("file",)
    assert Who(containers=True).labels == ("container_id", "pod_uid")
    assert Who(By.CGROUP, containers=True).labels == ("cgroup", "container_id", "pod_uid")


def test_values_are_as_many_as_labels_and_escaped() -> None:
    path = f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope"
    who = Who(By.CGROUP, containers=True)
    assert who.values(path) == ("other", "other", "other")
    who.note({path: 1}, 1)
    assert who.values(path) == (path, ID, POD)
    assert Who(containers=True).values("/system.slice") == ("", "")
    files = Who(By.FILE)
    files.note({"/a\n": 1}, 1)
    assert files.values("/a\n") == ("/a\\x0a",)
    assert Who().values("") == ()


def test_before_anyone_called_nobody_is_named() -> None:
    assert Who().nobody == ()
    assert Who(By.FILE).nobody == ("other",)
    assert Who(containers=True).nobody == ("", "")
    assert Who(By.CGROUP, containers=True).nobody == ("other", "other", "other")
