"""Which container a cgroup belongs to, from its path alone: no runtime is asked, none need be running."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Container(NamedTuple):
    """Empty strings for a cgroup that is no container's. A cgroup of a pod itself has a pod and no container."""

    container_id: str = ""
    pod_uid: str = ""


#: Ids are 64 hexadecimal digits in Docker, containerd, CRI-O and Podman alike. What stands before one names the
#: runtime ("docker-", "cri-containerd-", "crio-", "libpod-"), or what the process is to it ("crio-conmon-", which
#: is the monitor beside the container and not in it).
_CONTAINER: Final = re.compile(r"(?:(?!.*conmon)[A-Za-z][\w.-]*-)?([0-9a-f]{64})(?:\.scope)?", re.ASCII)
#: "podUID" in the cgroupfs driver, "kubepods[-besteffort|-burstable]-podUID.slice" in systemd's, which writes the
#: UID's dashes as underscores. A static pod's UID is 32 digits without dashes, the hash of its manifest.
_POD: Final = re.compile(
    r"(?:kubepods(?:-\w+)?-)?pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})"
    r"(?:\.slice)?",
    re.ASCII,
)


def container_of(path: str) -> Container:
    """Return the container of the cgroup at ``path``, with the pod that it is in; the innermost of nested ones."""
    container_id = pod_uid = ""
    # containerd's own name for a cgroup, where runc is not told to use systemd, is "SLICE:cri-containerd:ID".
    for name in re.split("[/:]", path):
        if pod := _POD.fullmatch(name):
            container_id, pod_uid = "", pod[1].replace("_", "-")
        elif container := _CONTAINER.fullmatch(name):
            container_id = container[1]
    return Container(container_id, pod_uid)
