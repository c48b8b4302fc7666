"""The command lines that pages and ``--help`` print are ones that mkwrite understands: none is skipped unsaid."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import click
import pytest

from tests.command_lines import CHECKOUT, invocations, on_page, parse, printed, synopses
from tracer.cli.main import COMMANDS, cli

LINES = list(dict.fromkeys(printed()))
#: Lines that name mkwrite and run something else, or that are no command line.
OTHERS = {
    "zcat incident.mkw | jq -c .": "a file",
    "podman build -f packaging/Containerfile -t mkwrite .": "an image",
    "kubectl -n mkwrite rollout status daemonset/mkwrite": "a namespace",
    "bench/run 6.12 --part faults --only mkwrite": "one of the tracers that are compared",
    'bench/profile "mkwrite fentry, raced told"': "a row of the benchmark",
    'bench/profile "mkwrite fentry, raced told" COW --code': "a row of the benchmark",
    "- job_name: mkwrite": "YAML of Prometheus",
    "metadata: {name: mkwrite, namespace: mkwrite}": "YAML of Kubernetes",
    "selector: {matchLabels: {app.kubernetes.io/name: mkwrite}}": "YAML of Kubernetes",
    "- {name: mkwrite, type: file, allowUiUpdates: true, options: {path: /var/lib/grafana/dashboards/mkwrite}}": (
        "YAML of Grafana"
    ),
    'mkwrite_up == 0 or up{job="mkwrite"} == 0': "PromQL",
    "`mkwrite sigbus` explains each.": "what a command prints",
    'rate(process_cpu_seconds_total{job="mkwrite"}[5m])': "PromQL",
}
#: Begins a line that runs the image, which has mkwrite for its entry point.
IMAGE = "podman run "
#: Lines that stand for many.
PATTERNS = {"mkwrite help COMMAND": "COMMAND is any of them", "mkwrite COMMAND --help": "the same"}


@pytest.mark.parametrize(
    "line", dict.fromkeys(line.text for line in LINES if invocations(line.text) and line.text not in PATTERNS)
)
def test_every_printed_command_line_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in invocations(line):
        with suppress(click.exceptions.Exit):  # --help and --version
            parse(arguments)


def test_what_is_no_command_line_of_mkwrite_is_known() -> None:
    found = {line.text for line in LINES if not invocations(line.text)}
    assert {text for text in found if not text.startswith(IMAGE)} == OTHERS.keys()
    assert PATTERNS.keys() <= {line.text for line in LINES}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("completion", "help")])
def test_every_command_has_examples_on_its_page_and_in_its_help(name: str) -> None:
    for where in (f"docs/commands/{name}.md", f"mkwrite {name} --help"):
        lines = [line.text for line in LINES if line.where == where and line.code]
        assert [text for text in lines if [name] in [found[:1] for found in invocations(text)]], where


@pytest.mark.parametrize("page", sorted((CHECKOUT / "docs" / "commands").glob("*.md")), ids=lambda page: page.stem)
def test_a_synopsis_names_options_that_there_are(page: Path) -> None:
    command = cli.get_command(click.Context(cli), page.stem)
    assert command is not None
    there = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    found = list(synopses(page))
    assert found
    assert {text.split()[1] for text in found} == {page.stem}
    assert {name for text in found for name in re.findall(r"(?<![\w-])--?[a-z][\w.-]*", text)} <= there


@pytest.mark.parametrize(
    "text",
    ["mkwrite tpo", "mkwrite top --slower 10ms", "mkwrite trace --slower fast", "mkwrite top --by thread",
     "mkwrite risk --above much", "mkwrite top extra", "mkwrite completion tcsh"],
)  # fmt: skip
def test_a_line_that_has_drifted_is_refused(text: str) -> None:
    (arguments,) = invocations(text)
    with pytest.raises(click.UsageError):
        parse(arguments)


def test_lines_are_taken_apart_as_a_shell_would() -> None:
    assert invocations("sudo mkwrite maps --fs xfs | jq '.a | .b' >out") == [["maps", "--fs", "xfs"]]
    assert invocations("cd /srv && mkwrite top & mkwrite hist > 'a b' -d 1s") == [["top"], ["hist", "-d", "1s"]]
    assert invocations("setpriv --reuid=mkwrite -- mkwrite top") == [["top"]]
    assert invocations("make mkwrite; systemctl start mkwrite-exporter") == []


def test_a_page_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.command_lines.CHECKOUT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# mkwrite top\n\n## Synopsis\n\n    mkwrite top [-d DURATION]\n\n## Examples\n\nSee `mkwrite\nhist`.\n\n"
        "    $ mkwrite top   as it is\n    sudo mkwrite maps |\n        jq .a\n\n"
        "```\nmkwrite waits \\\n  --stacks # why\n```\n"
    )
    assert [(line.text, line.code) for line in on_page(page)] == [
        ("mkwrite top", True), ("sudo mkwrite maps | jq .a", True), ("mkwrite waits --stacks", True),
        ("mkwrite hist", False),
    ]  # fmt: skip
    assert list(synopses(page)) == ["mkwrite top [-d DURATION]"]
