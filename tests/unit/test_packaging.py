"""The unit, the image and the pod say the same, and Kubernetes understands it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((PACKAGING / "mkwrite-daemonset.yaml").read_text()))
POD: dict[str, Any] = DOCUMENTS[-1]["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]


def unit(setting: str) -> str:
    """The value of a setting of the systemd unit."""
    found = re.search(rf"^{setting}=(.*)$", (PACKAGING / "mkwrite-exporter.service").read_text(), re.MULTILINE)
    assert found
    return found[1]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_the_manifest_is_valid(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_pod_has_the_rights_of_the_unit_and_that_to_see_the_hosts_mounts() -> None:
    added = {f"CAP_{name}" for name in CONTAINER["securityContext"]["capabilities"]["add"]}
    assert added == {*unit("CapabilityBoundingSet").split(), "CAP_SYS_PTRACE"}
    assert CONTAINER["resources"]["limits"]["memory"] == unit("MemoryMax") + "i"


def test_every_volume_is_mounted_and_what_is_the_hosts_is_read_only() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    assert all(mounts[name].get("readOnly") for name, volume in volumes.items() if "hostPath" in volume)


def test_only_root_may_write_to_the_pods_cache_and_the_entrypoint_is_the_images(tmp_path: Path) -> None:
    """As what is compiled is kept nowhere else; the kubelet makes an emptyDir with mode 0777."""
    (entrypoint,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', (PACKAGING / "Containerfile").read_text(), re.MULTILINE)
    (place,) = (mount["mountPath"] for mount in CONTAINER["volumeMounts"] if mount["name"] == "cache")
    tmp_path.chmod(0o777)
    command = [part.replace(place, str(tmp_path)).replace(entrypoint, "echo") for part in CONTAINER["command"]]
    done = subprocess.run([*command, *CONTAINER["args"]], capture_output=True, text=True, check=True)
    assert done.stdout.split() == CONTAINER["args"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_the_image_installs_what_make_install_does() -> None:
    wanted = re.search(r"^RUN_PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    containerfile = (PACKAGING / "Containerfile").read_text()
    installed = re.findall(r"install -y --no-install-recommends ([\w -]+?)(?: &&|$)", containerfile, re.MULTILINE)
    assert wanted and {*wanted[1].split()} <= {package for line in installed for package in line.split()}
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    copied = {
        name.rstrip("/") for line in re.findall(r"^COPY ([^-].*) /src.*$", containerfile, re.M) for name in line.split()
    }
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
