"""Prometheus, where it is installed, with monitoring/prometheus.yml and the ports of this stack.

monitoring/prometheus.yml names its jobs; each finds its targets in `targets/<job>.json` beside it (file_sd), and the
rules in `rules/` and `alerts/`. They are put next to a copy of it, so that the one file serves every stack.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence

from pipelines.errors import StackError
from pipelines.stack.part import PROJECT
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Program

MONITORING = PROJECT / "monitoring"


def missing() -> str | None:
    """Why Prometheus cannot be run and what to do, or None when it can."""
    if shutil.which("prometheus") is None:
        return "Prometheus is not installed (Debian 12: apt-get install prometheus; promtool comes with it)"
    return None if (MONITORING / "prometheus.yml").exists() else "monitoring/prometheus.yml is not here"


class Prometheus:
    """The Prometheus server."""

    name = "prometheus"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept, *, real_model: bool, airflow: bool = False) -> None:
        self._kept = kept
        self._folder = kept.folder("prometheus")
        ports = kept.ports
        self._targets = {name: ports[name] for name in ("gateway", "dispatcher", "exporter", "prometheus")}
        # only vLLM speaks vLLM's metrics
        self._targets["vllm" if real_model else "stand-in"] = ports["model"]
        if airflow:  # by way of statsd_exporter
            self._targets["airflow"] = ports["statsd"]

    def prepare(self) -> None:
        """Lay out configuration, rules and targets."""
        if why := missing():
            raise StackError(why)
        shutil.copy(MONITORING / "prometheus.yml", self._folder)
        for rules in ("rules", "alerts"):
            shutil.copytree(MONITORING / rules, self._folder / rules, dirs_exist_ok=True)
        shutil.rmtree(self._folder / "targets", ignore_errors=True)
        targets = self._kept.folder("prometheus/targets")
        for job, port in self._targets.items():
            text = json.dumps([{"targets": [f"127.0.0.1:{port}"]}])
            (targets / f"{job}.json").write_text(text, encoding="utf-8")

    def programs(self) -> Sequence[Program]:
        """The server, on loopback."""
        url = self._kept.url("prometheus")
        return (
            Program(
                name="prometheus",
                argv=(
                    "prometheus",
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    "--storage.tsdb.retention.time=7d",
                    f"--web.listen-address=127.0.0.1:{self._kept.ports['prometheus']}",
                    "--log.level=warn",
                ),
                probe=Probe("http", f"{url}/-/ready"),
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """The UI."""
        return {"Prometheus": self._kept.url("prometheus")}
