"""The doctor: what it concludes from a kernel's features and from trying, and how it says so."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import GOOD, UNPRIVILEGED, function, without
from rich.console import Console

from tracer.doctor.bug_report import report_text
from tracer.doctor.checkup import Checkup, Finding, FindingState, judge
from tracer.errors import Exit, MkwriteError
from tracer.kernel import checks, functions, needs
from tracer.kernel.features import FUNCTIONS, KPROBE_PROGRAM, TRACING_PROGRAM
from tracer.kernel.obstacles import Subject
from tracer.kernel.parsing import Lockdown
from tracer.model.hooks import FUNCTION_BACKENDS, Backend, Hook
from tracer.ui.doctor import DoctorView

DESCRIBED = frozenset(FUNCTIONS)
DOCS = Path(__file__).parents[2] / "docs"


def hooks(backend: Backend, attached: bool = True) -> tuple[Hook, ...]:
    return tuple(Hook(name, name, backend, attached, "" if attached else "refused") for name in FUNCTIONS)


def row(report: Checkup, name: str, section: str = "host") -> Finding:
    (found,) = (row for row in report.rows if (row.section, row.name) == (section, name))
    return found


def shown(report: Checkup, width: int = 80, colour: bool = False) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=colour, color_system="standard" if colour else None).print(
        DoctorView(report)
    )
    return file.getvalue()


def never() -> tuple[Hook, ...]:
    raise AssertionError("tried although it cannot work")


def test_a_good_host_traces_with_fentry() -> None:
    report = judge(GOOD, DESCRIBED, lambda: hooks(Backend.FENTRY))
    assert (report.backend, report.exit_code) == (Backend.FENTRY, Exit.OK)
    assert {row.state for row in report.rows} == {FindingState.OK}
    assert {row.name for row in report.rows if row.section == "host"} == {subject.value for subject in Subject}


def test_every_function_has_a_row_for_every_backend() -> None:
    report = judge(GOOD, DESCRIBED)
    labels = [row.name for row in report.rows if row.section == "hooks"]
    assert labels == [f"{name} {backend}" for name in FUNCTIONS for backend in FUNCTION_BACKENDS]


def test_without_a_trial_the_inference_decides() -> None:
    assert judge(GOOD, DESCRIBED).exit_code is Exit.OK
    report = judge(replace(GOOD, trampolines=False), DESCRIBED)
    assert (report.backend, report.exit_code) == (Backend.KPROBE, Exit.OK)
    assert "no BPF trampolines" in report.reason


def test_a_backend_that_is_ruled_out_is_so_in_every_hook() -> None:
    report = judge(replace(GOOD, kprobes=False), DESCRIBED)
    for name in FUNCTIONS:
        assert row(report, f"{name} kprobe", "hooks").state is FindingState.OBSTACLE
        assert row(report, f"{name} kprobe", "hooks").id == "no-kprobes"
        assert row(report, f"{name} fentry", "hooks").state is FindingState.OK


def test_one_function_that_cannot_be_hooked_leaves_the_others() -> None:
    report = judge(function("do_wp_page", copies=2), DESCRIBED)
    assert (report.backend, report.exit_code) == (Backend.FENTRY, Exit.OK)
    assert row(report, "do_wp_page fentry", "hooks").id == "function-ambiguous"
    assert row(report, "do_page_mkwrite fentry", "hooks").state is FindingState.OK
    assert row(report, "functions").state is FindingState.WARNING


def test_fentry_needs_the_function_in_btf() -> None:
    report = judge(GOOD, DESCRIBED - {"do_wp_page"})
    assert row(report, "do_wp_page fentry", "hooks").state is FindingState.OBSTACLE
    assert row(report, "do_wp_page kprobe", "hooks").state is FindingState.OK
    assert row(judge(GOOD, None), "do_wp_page fentry", "hooks").state is FindingState.OK


def test_where_ftraces_list_cannot_be_read_hooks_are_unknown() -> None:
    report = judge(function("do_wp_page", traceable=None), DESCRIBED)
    assert row(report, "do_wp_page fentry", "hooks").state is FindingState.UNKNOWN


def test_nothing_is_tried_where_an_obstacle_ends_all() -> None:
    report = judge(UNPRIVILEGED, DESCRIBED, never)
    assert (report.backend, report.exit_code) == (None, Exit.NO_PERMISSION)
    assert "CAP_BPF" in report.reason


def test_where_no_function_can_be_hooked_there_are_tracepoints() -> None:
    refused = {KPROBE_PROGRAM: 0, TRACING_PROGRAM: errno.EPERM}
    features = replace(GOOD, kprobes=False, load_errors=refused)
    report = judge(features, DESCRIBED, lambda: hooks(Backend.TRACEPOINT))
    assert (report.backend, report.exit_code) == (Backend.TRACEPOINT, Exit.OK)
    assert "no kprobes" in report.reason
    assert "refuses BPF tracing programs" in report.reason


def test_what_trying_shows_overrules_the_inference() -> None:
    report = judge(GOOD, DESCRIBED, lambda: hooks(Backend.KPROBE))
    assert (report.backend, report.exit_code) == (Backend.KPROBE, Exit.OK)
    assert "fentry" in report.reason
    report = judge(GOOD, DESCRIBED, lambda: hooks(Backend.FENTRY, attached=False))
    assert (report.backend, report.exit_code) == (None, Exit.NO_HOOKS)
    assert row(report, "do_wp_page fentry", "trial").text == "refused"


def test_a_trial_that_fails_becomes_a_row_and_the_exit_code() -> None:
    def fail() -> tuple[Hook, ...]:
        raise MkwriteError("It does not compile.", "Do this.", Exit.COMPILE)

    report = judge(GOOD, DESCRIBED, fail)
    assert (report.backend, report.exit_code) == (None, Exit.COMPILE)
    assert row(report, "attaching", "trial") == Finding(
        "trial", "attaching", FindingState.OBSTACLE, "It does not compile.", cure="Do this."
    )


def test_a_trial_that_the_kernel_refuses_is_explained() -> None:
    def fail() -> tuple[Hook, ...]:
        raise OSError(errno.EBUSY, "busy")

    report = judge(GOOD, DESCRIBED, fail)
    assert report.exit_code is Exit.BUSY
    assert "nother tracer" in report.reason


def test_an_unprivileged_look_does_not_claim_what_it_could_not_try() -> None:
    report = judge(replace(UNPRIVILEGED, unread=("/sys/kernel/tracing/x",)), DESCRIBED)
    assert row(report, "bpf").state is FindingState.UNKNOWN
    assert row(report, "fentry").state is FindingState.UNKNOWN
    assert "/sys/kernel/tracing/x" in row(report, "not readable").text


def test_lockdown_is_named_even_if_harmless() -> None:
    integrity = row(judge(replace(GOOD, lockdown=Lockdown.INTEGRITY), DESCRIBED), "lockdown")
    assert (integrity.state, "harmless" in integrity.text) == (FindingState.OK, True)
    assert row(judge(replace(GOOD, lockdown=None), DESCRIBED), "lockdown").state is FindingState.UNKNOWN


def test_what_bars_the_unprivileged_is_shown() -> None:
    report = judge(GOOD, DESCRIBED)
    assert "unprivileged_bpf_disabled = 2" in row(report, "bpf").text
    assert "perf_event_paranoid = 3" in row(report, "kprobes").text


def test_a_warning_does_not_change_the_exit_code() -> None:
    report = judge(replace(without("CAP_SYSLOG"), addresses_hidden=True), DESCRIBED)
    assert row(report, "handler names").state is FindingState.WARNING
    assert report.exit_code is Exit.OK


def test_json_has_every_row_and_the_verdict() -> None:
    report = judge(replace(GOOD, btf=False), DESCRIBED)
    loaded = json.loads(json.dumps(report.to_dict()))
    assert (loaded["works"], loaded["exit_code"], loaded["backend"]) == (False, 11, None)
    assert len(loaded["rows"]) == len(report.rows)
    btf = next(r for r in loaded["rows"] if r["name"] == "btf")
    assert (btf["id"], btf["state"]) == ("no-btf", "obstacle")
    assert "CONFIG_DEBUG_INFO_BTF" in btf["cure"]
    working = judge(GOOD, DESCRIBED).to_dict()
    assert (working["works"], working["backend"]) == (True, "fentry")


@pytest.mark.parametrize("width", [20, 40, 80, 250])
def test_no_line_is_wider_than_the_terminal_or_ends_in_blanks(width: int) -> None:
    text = shown(judge(UNPRIVILEGED, DESCRIBED), width)
    lines = text.splitlines()
    assert all(len(line) <= max(width, 60) for line in lines)
    if width >= 80:
        assert all(len(line) <= width for line in lines)
        assert all(line == line.rstrip() for line in lines)


def test_the_screen_says_all_that_is_known_in_words() -> None:
    report = judge(replace(GOOD, btf=False), DESCRIBED)
    text = " ".join(shown(report).split())
    for finding in report.rows:
        for part in (finding.name, finding.text, finding.cost, finding.cure):
            assert " ".join(part.split()) in text
    assert "exit code 11" in text
    assert "obstacle btf" in text


def test_colour_is_for_terminals() -> None:
    report = judge(replace(GOOD, btf=False), DESCRIBED)
    assert "\x1b" not in shown(report)
    coloured = shown(report, colour=True)
    assert "\x1b[1;31mobstacle" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == shown(report)


def test_a_bug_report_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "ledger7.bank.example", "6.12", "1", "x86_64")))
    monkeypatch.setenv("SUDO_USER", "alice")
    place = Path("/home/alice/venv/lib/python3/site-packages/bcc")
    features = replace(
        GOOD, bcc=replace(GOOD.bcc, python=None, place=place), release="6.12.1-ledger7", tracefs=Path("/mnt/secret")
    )
    text = report_text(judge(features, DESCRIBED), "1.2.3")
    for private in ("alice", "ledger7", "bank", "/home", "secret", "venv"):
        assert private not in text
    assert text.startswith("```json\n{")
    found = json.loads(text.removeprefix("```json").removesuffix("```"))
    assert (found["mkwrite"], found["works"], found["exit_code"]) == ("1.2.3", False, 23)
    assert "/usr/bin/python3" in text
    assert {"bcc-other-python"} <= {row["id"] for row in found["rows"]}


def test_hostile_strings_are_escaped() -> None:
    hostile = "/mnt/\x1b[31mx\n[red]\udcff"
    report = judge(replace(GOOD, tracefs=Path(hostile)), DESCRIBED)
    for text in (shown(report), json.dumps(report.to_dict(), ensure_ascii=False)):
        assert "\x1b" not in text
        assert "\udcff" not in text
    assert "\\x1b[31mx\\x0a[red]\\xff" in shown(report, 250)


def test_every_obstacle_is_in_the_troubleshooting_guide() -> None:
    source = "".join(Path(module.__file__).read_text() for module in (checks, functions, needs))
    ids = set(re.findall(r'^\s+"([a-z]+(?:-[a-z]+)*)",$|"(function-[a-z]+)"', source, re.MULTILINE))
    names = {first or second for first, second in ids}
    assert len(names) > 20
    guide = (DOCS / "troubleshooting.md").read_text()
    assert {name for name in names if f"`{name}`" not in guide} == set()


def test_every_exit_code_is_in_the_reference() -> None:
    guide = (DOCS / "reference.md").read_text()
    table = guide.partition("## Exit codes")[2].partition("\n## ")[0]
    told = [int(code) for codes in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in codes.split(",")]
    assert told == sorted(Exit)


@pytest.mark.parametrize(
    ("preemptible", "kprobes", "backend", "reason"),
    [
        (False, True, Backend.FENTRY, "costs least"),
        (True, True, Backend.KPROBE, "fentry misses calls meanwhile"),
        (True, False, Backend.FENTRY, "missed_probe"),
    ],
)
def test_a_kernel_that_preempts_programs_is_traced_by_kprobes_where_it_can_be(
    preemptible: bool, kprobes: bool, backend: Backend, reason: str
) -> None:
    report = judge(replace(GOOD, preemptible=preemptible, kprobes=kprobes), frozenset(FUNCTIONS))
    assert report.backend is backend
    assert reason in report.reason
