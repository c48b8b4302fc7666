"""In a guest: the pod traces, with exactly the rights of the manifest, and names the host's mounts."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.deployment.pod import configuration
from tests.live.answering import answering, holds_nothing

#: An odd prime.
WRITES = 67
PLACE = Path("/srv/data")
CGROUP = Path("/sys/fs/cgroup/kubepods/pod0a1b2c3d-0000-4000-8000-00000000000f") / ("c" * 64)
URL = "http://127.0.0.1:9788"
#: CAP_BPF alone, see linux/capability.h.
BPF_ONLY = f"{1 << 39:016x}"


def get(path: str) -> str:
    """A page that must be there."""
    with urllib.request.urlopen(URL + path, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def wait_until_ready(container: subprocess.Popen[bytes]) -> float:
    """Seconds that it took."""
    started = time.monotonic()
    while container.poll() is None:
        try:
            get("/-/ready")
            return time.monotonic() - started
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the container ended with {container.returncode}")


def counted(mountpoint: Path, label: str = "") -> int:
    """Calls on a mount."""
    lines = re.findall(
        rf'^mkwrite_calls_total{{(.*mountpoint="{mountpoint}".*)}} (\S+)$', get("/metrics"), re.MULTILINE
    )
    return sum(int(float(number)) for labels, number in lines if label in labels)


def write_in_cgroup(name: str) -> int:
    """Calls of a process in what looks like a pod; its exit status."""
    script = f'echo $$ > {CGROUP}/cgroup.procs && exec "$0" first-write {PLACE / name} {WRITES}'
    return subprocess.run(["sh", "-c", script, os.environ["WORKLOAD"]], check=False).returncode


def fill() -> None:
    """Leave no block free."""
    with (PLACE / "filler").open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    stream.write(bytes(size))


def main() -> int:
    """Run it."""
    rootfs, image = Path(sys.argv[1]), json.loads(sys.argv[2])
    bundle = Path("/tmp/bundle")
    bundle.mkdir()
    config = configuration(rootfs, image, Path("/tmp/volumes"))
    (bundle / "config.json").write_text(json.dumps(config))
    if cache := os.environ.get("CACHE_DIRECTORY"):
        shutil.copytree(cache, "/tmp/volumes/cache/mkwrite")
        Path("/tmp/volumes/cache/mkwrite").chmod(0o700)
    # As on a node, the modules are there before the pod is.
    subprocess.run("mount -t tmpfs none /srv && mkdir /srv/data && truncate -s 96M /srv/img && "
                   "modprobe -a loop ext4 && mkfs.ext4 -q /srv/img", shell=True, check=True)  # fmt: skip
    if not Path("/sys/fs/cgroup/cgroup.procs").exists():
        subprocess.run("mount -t cgroup2 none /sys/fs/cgroup", shell=True, check=True)
    CGROUP.mkdir(parents=True)
    container = subprocess.Popen(["crun", "--cgroup-manager=disabled", "run", "-b", str(bundle), "mkwrite"])
    print(f"ready after {wait_until_ready(container):.0f} s")
    # It is mounted when the pod has its own mounts already.
    subprocess.run(f"mount -o loop /srv/img {PLACE}", shell=True, check=True)
    assert write_in_cgroup("one") == 0
    assert counted(PLACE) == WRITES, get("/metrics")
    labels = f'container_id="{CGROUP.name}"', 'pod_uid="0a1b2c3d-0000-4000-8000-00000000000f"'
    assert all(counted(PLACE, label) == WRITES for label in labels), get("/metrics")
    fill()
    assert write_in_cgroup("two") == -signal.SIGBUS
    (refused,) = re.findall(r'^mkwrite_failures_total{.*errno="ENOSPC".*} 1.0$', get("/metrics"), re.MULTILINE)
    assert all(label in refused for label in (*labels, f'mountpoint="{PLACE}"')), refused
    hooks = re.findall(r'^mkwrite_hook_attached{.*reason="(.*)"} (.*)$', get("/metrics"), re.MULTILINE)
    assert set(hooks) <= {("rights", "0.0")}, hooks
    attached = sum(float(number) for number in re.findall(r"^mkwrite_hooks_attached{.*} (.*)$", get("/metrics"), re.M))
    print(f"hooks: {attached:.0f} of {attached + len(hooks):.0f}")
    assert attached > 0
    pid = json.loads(subprocess.check_output(["crun", "state", "mkwrite"]))["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    print(*re.findall(r"^(?:Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|VmRSS|VmHWM):.*$", status, re.MULTILINE), sep="\n")
    assert re.findall(r"^Cap(?:Prm|Eff):\s+(\w+)$", status, re.MULTILINE) == [BPF_ONLY] * 2
    (entry,) = re.findall(r"^mkwrite:x:(\d+):(\d+):", (rootfs / "etc/passwd").read_text(), re.MULTILINE)
    holds_nothing(answering(pid), pwd.struct_passwd(("mkwrite", "x", *map(int, entry), "", "/", "")))
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE) and re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    subprocess.run(["crun", "kill", "mkwrite", "TERM"], check=True)
    assert container.wait(60) == 0
    print(f"{WRITES} calls made, {WRITES} counted, a write refused with ENOSPC, as {labels[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
