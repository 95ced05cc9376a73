"""How much room is left on the file systems that careloom, its ledger and its broker write to: asked at each scrape.

A full disk stops a ledger and a broker at once, and both say so only then. Of other hosts node_exporter tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from monitoring.metrics import DISK_FREE, DISK_SIZE, Metric


class Disks(Collector):
    """The free space of some folders' file systems.

    Args:
        folders: name -> folder. Those on one file system are shown once, by their names joined: one full disk is one
            fault. One that is not there is not shown.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)

    def describe(self) -> Iterator[Family]:
        """Names and types alone."""
        return (_family(metric) for metric in (DISK_FREE, DISK_SIZE))

    def collect(self) -> Iterator[Family]:
        """Bytes as df counts them: what root alone may use is neither free nor part of the size."""
        free, size = _family(DISK_FREE), _family(DISK_SIZE)
        for name, folder in self._volumes().items():
            try:
                told = os.statvfs(folder)
            except OSError:  # unmounted between two lines
                continue
            used = told.f_blocks - told.f_bfree
            free.add_metric((name,), told.f_bavail * told.f_frsize)
            size.add_metric((name,), (used + told.f_bavail) * told.f_frsize)
        yield from (free, size)

    def _volumes(self) -> dict[str, Path]:
        """Joined names -> one of the folders."""
        found: dict[int, list[str]] = {}
        for name, folder in sorted(self._folders.items()):
            try:
                found.setdefault(folder.stat().st_dev, []).append(name)
            except OSError:
                continue
        return {"+".join(names): self._folders[names[0]] for names in found.values()}


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
