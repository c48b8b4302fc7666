"""Containers by the paths that runtimes give their cgroups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.host.containers import Container, container_of

ID = "0f3b" * 16
OTHER = "a" * 64
UID = "6f4f2a10-9d5f-4c0b-a7a5-0f3f0f9f6b1e"
SLICE = f"pod{UID.replace('-', '_')}.slice"


@pytest.mark.parametrize(
    ("path", "container_id", "pod_uid"),
    [
        # Docker: systemd's driver, cgroupfs
        (f"/system.slice/docker-{ID}.scope", ID, ""),
        (f"/docker/{ID}", ID, ""),
        # Podman: with systemd, rootless, in a pod, without
        (f"/machine.slice/libpod-{ID}.scope", ID, ""),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container", ID, ""),
        (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope", ID, ""),
        (f"/libpod_parent/libpod-{ID}", ID, ""),
        # its monitor is not in the container
        (f"/machine.slice/libpod-conmon-{ID}.scope", "", ""),
        # Kubernetes: three classes of service, both drivers, three runtimes
        (f"/kubepods.slice/kubepods-{SLICE}/cri-containerd-{ID}.scope", ID, UID),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{SLICE}/crio-{ID}.scope", ID, UID),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{SLICE}/docker-{ID}.scope", ID, UID),
        (f"/kubepods/burstable/pod{UID}/{ID}", ID, UID),
        (f"/kubepods/pod{UID}/{ID}", ID, UID),
        (f"/kubepods.slice/kubepods-{SLICE}/crio-conmon-{ID}.scope", "", UID),
        # containerd's own naming with systemd's driver
        (f"/system.slice/kubepods-burstable-{SLICE}:cri-containerd:{ID}", ID, UID),
        # a static pod, and a pod without its container
        (f"/kubepods/burstable/pod{'0a' * 16}/{ID}", ID, "0a" * 16),
        (f"/kubepods.slice/kubepods-{SLICE}", "", UID),
        # nested: kind, with a kubelet in a container; a service in a container
        (f"/docker/{OTHER}/kubelet/kubepods/pod{UID}/{ID}", ID, UID),
        (f"/system.slice/docker-{ID}.scope/init.scope", ID, ""),
        # nobody's
        ("/", "", ""),
        ("/system.slice/ssh.service", "", ""),
        ("/user.slice/user-0.slice/session-1.scope", "", ""),
        ("cgroup:12345", "", ""),
        (f"/docker/{ID[:-1]}", "", ""),
        (f"/docker/{ID.upper()}", "", ""),
        (f"/docker/{ID}x", "", ""),
        ("/kubepods/podsecurity", "", ""),
    ],
)
def test_a_path_tells_container_and_pod(path: str, container_id: str, pod_uid: str) -> None:
    assert container_of(path) == Container(container_id, pod_uid)


@given(st.text())
def test_any_path_is_answered(path: str) -> None:
    found = container_of(path)
    assert len(found.container_id) in (0, 64)
    assert len(found.pod_uid) in (0, 32, 36)
