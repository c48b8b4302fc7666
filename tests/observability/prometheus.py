"""A Prometheus server of our own on loopback, that scrapes fast."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

_HANGS_S = 600
#: host:port, and labels that its series have besides.
Target = tuple[str, Mapping[str, str]]


class Prometheus:
    """Runs while it is entered; scrapes ``targets`` every ``seconds`` and evaluates ``rules``.

    Each job has a host:port, or several with labels.
    """

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, str | Sequence[Target]],
        rules: Sequence[Path] = (),
        seconds: int = 1,
    ) -> None:
        self._directory = directory
        self._config = {
            "global": {"scrape_interval": f"{seconds}s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {"targets": [address], "labels": dict(labels)}
                        for address, labels in ([(found, {})] if isinstance(found, str) else found)
                    ],
                }
                for job, found in targets.items()
            ],
        }
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    def __enter__(self) -> Prometheus:
        config = self._directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config))
        self._log = (self._directory / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        eventually(self._ready, "Prometheus does not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(300)
        self._log.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: a list of {"metric", "value": [time, text]}."""
        result: list[dict[str, Any]] = self._get(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The one value of an expression; None if there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def alerts(self) -> set[str]:
        """Names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"}

    def fired(self, seconds: float = 3600) -> set[str]:
        """Names of the alerts that fire, or did within the last so many seconds, if only between two looks."""
        since = f"{max(round(seconds * 1000), 1)}ms"
        return {
            one["metric"]["alertname"] for one in self.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{since}])')
        }

    def _ready(self) -> bool:
        assert self._process.poll() is None, (self._directory / "prometheus.log").read_text()
        try:
            return self._fetch("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, what: str) -> dict[str, Any]:
        status, body = self._fetch(f"/api/v1/{what}")
        answer = json.loads(body)
        assert status == 200, f"{what}: {answer}"
        data: dict[str, Any] = answer["data"]
        return data

    def _fetch(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def eventually(test: Callable[[], object], otherwise: str) -> None:
    """Wait until ``test`` comes true; what would hang fails with ``otherwise``."""
    end = time.monotonic() + _HANGS_S
    while not test():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)
