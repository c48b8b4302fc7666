"""The pod of the DaemonSet as a container of the Open Container Initiative, which crun and runc run.

What Kubernetes would hand to its runtime: command, user, capabilities, seccomp, mounts, namespaces, all read from the
manifest. Its network is the guest's, since nobody sets up another one there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

PACKAGING: Final = Path(__file__).resolve().parents[2] / "packaging"
#: The default profile of containers-common, which Podman and CRI-O take.
_SECCOMP: Final = Path("/usr/share/containers/seccomp.json")
#: As in newer releases of it than Debian 12's, and in containerd.
_SECCOMP_BY_CAPABILITY: Final = {"CAP_BPF": "bpf", "CAP_PERFMON": "perf_event_open"}
#: What runtimes hide (the masked and read-only paths of Kubernetes' default ProcMount).
_MASKED: Final = ("asound", "acpi", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list",
                  "timer_stats")  # fmt: skip
_READ_ONLY: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")


def manifest() -> dict[str, Any]:
    """The DaemonSet."""
    documents = yaml.safe_load_all((PACKAGING / "mkwrite-daemonset.yaml").read_text())
    found: dict[str, Any] = next(one for one in documents if one["kind"] == "DaemonSet")
    return found


def configuration(rootfs: Path, image: dict[str, Any], empty: Path, more_mounts: Iterable[dict[str, Any]] = ()) -> Any:
    """The config.json of a bundle; ``image`` is the image's configuration, below ``empty`` the empty volumes are."""
    spec = manifest()["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["seccompProfile"]["type"] == "RuntimeDefault"
    capabilities = [f"CAP_{name}" for name in security["capabilities"]["add"]]
    namespaces = [{"type": name} for name in ("mount", "ipc", "uts", "cgroup")]
    if not spec.get("hostPID"):
        namespaces.append({"type": "pid"})
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": security["runAsUser"], "gid": security["runAsGroup"]},
            "args": [*(container.get("command") or image["Entrypoint"]), *container["args"]],
            "env": image["Env"],
            "cwd": "/",
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": not security["allowPrivilegeEscalation"],
        },
        "root": {"path": str(rootfs), "readonly": security["readOnlyRootFilesystem"]},
        "hostname": "pod",
        "mounts": [*_SYSTEM_MOUNTS, *_volumes(spec, container, empty), *more_mounts],
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": [f"/proc/{name}" for name in _MASKED] + ["/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
            "seccomp": _seccomp(set(capabilities)),
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


_SYSTEM_MOUNTS: Final = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
)


def _volumes(spec: dict[str, Any], container: dict[str, Any], empty: Path) -> Iterable[dict[str, Any]]:
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "hostPath" in volume:
            source = Path(volume["hostPath"]["path"])
        else:
            source = empty / mount["name"]
            source.mkdir(mode=0o777, parents=True)
            source.chmod(0o777)  # as the kubelet has it
        yield {
            "destination": mount["mountPath"],
            "type": "bind",
            "source": str(source),
            "options": ["rbind", "rprivate", "ro" if mount.get("readOnly") else "rw"],
        }


def _seccomp(capabilities: set[str]) -> dict[str, Any]:
    profile = json.loads(_SECCOMP.read_text())
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if "amd64" not in includes.get("arches", ["amd64"]) or not capabilities.issuperset(includes.get("caps", ())):
            continue
        if capabilities & set(excludes.get("caps", ())):
            continue
        rules.append({key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)})
    granted = [call for capability, call in _SECCOMP_BY_CAPABILITY.items() if capability in capabilities]
    for rule in rules:
        if rule["action"] != "SCMP_ACT_ALLOW":
            rule["names"] = [name for name in rule["names"] if name not in granted]
    rules.append({"names": granted, "action": "SCMP_ACT_ALLOW"})
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [rule for rule in rules if rule["names"]],
    }
