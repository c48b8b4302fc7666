"""The unit under a real systemd: least rights, and it still counts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.guest import Backend, eventually, run, workload
from tests.live.test_export import calls, fill_and_die, get, small, value

HERE = Path(__file__).resolve().parents[2]
UNITS = Path("/etc/systemd/system")
ADDRESS = "127.0.0.1:9788"
WRITES = 67


class Systemd:
    """A systemd that is the first process of a PID namespace, as in a container; mounts reach it as they come."""

    def __init__(self) -> None:
        (UNITS / "only.target").write_text("[Unit]\nDescription=Nothing but what is started\nDefaultDependencies=no\n")
        self._process = subprocess.Popen(
            ["unshare", "--fork", "--pid", "--mount-proc", "--propagation", "slave", "/lib/systemd/systemd", "--system",
             "--unit=only.target", "--log-target=null"],
            env={"PATH": os.environ["PATH"], "container": "other"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert eventually(lambda: self("is-system-running").stdout.strip() in ("running", "degraded"))

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run systemctl."""
        return self.inside("systemctl", "--no-pager", *arguments)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in its namespaces."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        entered = ["nsenter", "-m", "-p", "-t", children[0] if children else "1"]
        return subprocess.run([*entered, *command], capture_output=True, text=True, check=False)

    def close(self) -> None:
        """End it, with everything in it."""
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def systemctl() -> Iterator[Systemd]:
    """A systemd that knows the unit; only what is run and where its output goes differ from what is installed."""
    cache = Path("/var/cache/mkwrite")
    shutil.copytree(os.environ["CACHE_DIRECTORY"], cache, dirs_exist_ok=True)
    cache.chmod(0o700)
    # Nothing of this host is to be pulled in.
    unit = (HERE / "packaging" / "mkwrite-exporter.service").read_text()
    (UNITS / "mkwrite-exporter.service").write_text(re.sub("After=.*", "DefaultDependencies=no", unit))
    override = UNITS / "mkwrite-exporter.service.d" / "here.conf"
    override.parent.mkdir()
    override.write_text(
        f"[Service]\nExecStart=\nExecStart={sys.executable} -m tracer export $ARGS\nWorkingDirectory={HERE}\n"
        f"Environment=PYTHONPATH={HERE} PYTHONDONTWRITEBYTECODE=1\nStandardError=append:/var/log/exporter.log\n"
    )
    run("mount", "--make-rshared", "/")  # as systemd does it on a host
    systemd = Systemd()
    yield systemd
    systemd.close()


@pytest.mark.nightly
@pytest.mark.parametrize("backend", [Backend.FENTRY, Backend.KPROBE], ids=str)
@pytest.mark.usefixtures("clean_kernel")
def test_the_service_traces_with_the_least_rights(systemctl: Systemd, backend: Backend) -> None:
    if backend is Backend.KPROBE:  # as docs/deployment/systemd.md has it
        (UNITS / "mkwrite-exporter.service.d" / "kprobe.conf").write_text(
            "[Service]\nCapabilityBoundingSet=CAP_SYS_ADMIN\n"
        )
        systemctl("daemon-reload")
    Path("/etc/default/mkwrite-exporter").write_text(f'ARGS="--backend {backend}"\n')
    log = Path("/var/log/exporter.log")
    place = small(f"service-{backend}")  # before it starts: ext4 is a module, as on every host of Debian's
    started = systemctl("start", "mkwrite-exporter")
    assert started.returncode == 0, log.read_text()
    workload("first-write", place / "file", WRITES)
    fill_and_die(place)
    assert calls(get(ADDRESS), place, path="first_write", outcome="writable") == WRITES
    assert 'hook="do_page_mkwrite:entry"' not in get(ADDRESS)
    assert re.search(r"^mkwrite_hooks_attached{.*} [1-9]", get(ADDRESS), re.MULTILINE)
    # What the rights of the unit do not suffice for is nothing to be alerted of.
    missing = re.findall(r'^mkwrite_hook_attached{.*hook="(.*)",reason="(.*)"} 0.0$', get(ADDRESS), re.MULTILINE)
    print(f"{len(missing)} hooks are missing: {missing}")
    assert {reason for _, reason in missing} <= {"rights"}
    assert get(ADDRESS, "/-/ready") == "OK\n"
    pid = systemctl("show", "-P", "MainPID", "mkwrite-exporter").stdout.strip()
    status = systemctl.inside("cat", f"/proc/{pid}/status").stdout
    assert re.search(rf"^CapEff:\s+{1 << 39:016x}$", status, re.MULTILINE), status  # CAP_BPF
    # Learned by kprobe.multi links, which 6.1 is not built with.
    full = {"class": "refused", "errno": "ENOSPC", "fstype": "ext4", "mountpoint": str(place)}
    assert value(get(ADDRESS), "mkwrite_failures_total", **full) == 1
    (answering,) = systemctl.inside("pgrep", "-P", pid, "-u", "mkwrite").stdout.split()
    status = systemctl.inside("cat", f"/proc/{answering}/status").stdout
    assert re.search(rf"^CapPrm:\s+{'0' * 16}$", status, re.MULTILINE), status
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), status
    assert systemctl("reload", "mkwrite-exporter").returncode == 0
    assert eventually(lambda: log.read_text().endswith("Reloaded.\n"))
    assert systemctl("stop", "mkwrite-exporter").returncode == 0
    assert systemctl("show", "-P", "Result", "mkwrite-exporter").stdout == "success\n"
    log.unlink()
    run("umount", str(place))
