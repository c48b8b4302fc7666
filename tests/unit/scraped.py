"""A collector over made-up snapshots, and its metrics as Prometheus' own parser reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families as parse
from samples import series, snapshot

from tracer.export.http.answers import exposition
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.export.prometheus.label import Who
from tracer.host.mounts import Mounts
from tracer.model.calls import Series, WpOutcome
from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend, Hook
from tracer.model.snapshot import Snapshot

Labels = Mapping[str, str]

EXT4 = series()
HOOKS = (
    Hook("call", "do_page_mkwrite", Backend.FENTRY, True),
    Hook("wp", "do_wp_page", Backend.FENTRY, False, "notrace"),
)


class Source:
    """A session that hands out what it was given."""

    def __init__(self, *snapshots: Snapshot | Exception) -> None:
        self._snapshots = list(snapshots)

    def snapshot(self) -> Snapshot:
        """The next of the snapshots; the last one again and again."""
        snapshot = self._snapshots[0]
        if len(self._snapshots) > 1:
            del self._snapshots[0]
        if isinstance(snapshot, Exception):
            raise snapshot
        return snapshot


def shot(calls: Mapping[Series, Histogram] | None = None, wp: int = 0, lost: int = 0) -> Snapshot:
    """A snapshot with these counts."""
    return replace(
        snapshot(dict(calls or {}), elapsed_ns=1, lost=lost),
        wp_faults={**dict.fromkeys(WpOutcome, 0), WpOutcome.COPIED: wp},
        in_flight=3,
        hooks=HOOKS,
    )


def mounted(*mountpoints: str, fstype: str = "ext4", options: str = "rw") -> Mounts:
    """A mount table of one filesystem a mount point."""
    lines = [f"1 1 8:{dev} / {place} rw - {fstype} /dev/sda {options}" for dev, place in enumerate(mountpoints)]
    return Mounts.parse("\n".join(lines).encode())


def collector(
    *snapshots: Snapshot | Exception, max_series: int = 1000, who: Who | None = None, mounts: Mounts | None = None
) -> MkwriteCollector:
    """A collector over a session that hands these out, where these filesystems are mounted."""
    table = mounts or mounted("/srv", "/m0", "/m1")
    return MkwriteCollector(Source(*snapshots), "1.2.3", max_series, who, lambda: table)


def scrape(source: MkwriteCollector) -> dict[str, list[tuple[Labels, float]]]:
    """Samples by name, as Prometheus would read them; each label set at most once."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for family in parse(exposition(source).decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    for name, found in samples.items():
        assert len({frozenset(labels.items()) for labels, _ in found}) == len(found), name
    return samples


def value(samples: dict[str, list[tuple[Labels, float]]], name: str, **labels: str) -> float:
    """The one sample of this name that has (at least) these labels."""
    (found,) = [v for have, v in samples[name] if labels.items() <= have.items()]
    return found
