"""statsd_exporter, where it is to be had: Airflow's own metrics (StatsD) as Prometheus scrapes them.

Airflow sends by UDP and waits for nobody, so nothing needs this part; without it Airflow sends nothing.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence

from pipelines.stack.part import PROJECT
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Program

MAPPING = PROJECT / "monitoring" / "statsd_mapping.yml"


def find() -> str | None:
    """The program, or None."""
    beside = PROJECT.parent / "shared" / "bin" / "statsd_exporter"
    return str(beside) if beside.exists() else shutil.which("statsd_exporter")


def missing() -> str | None:
    """Why Airflow's metrics cannot be had and what to do, or None when they can."""
    if find() is None:
        return "statsd_exporter is not on PATH (github.com/prometheus/statsd_exporter): no metrics of Airflow's own"
    if importlib.util.find_spec("statsd") is None:
        return "Airflow cannot send its metrics without the Python package statsd (extra `stack`)"
    return None if MAPPING.exists() else "monitoring/statsd_mapping.yml is not here"


class StatsdExporter:
    """The exporter between Airflow's StatsD and Prometheus."""

    name = "statsd"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def prepare(self) -> None:
        """Nothing: the mapping is read in place."""

    def programs(self) -> Sequence[Program]:
        """The one process, on loopback."""
        ports = self._kept.ports
        return (
            Program(
                name="statsd",
                argv=(
                    find() or "statsd_exporter",
                    f"--web.listen-address=127.0.0.1:{ports['statsd']}",
                    f"--statsd.listen-udp=127.0.0.1:{ports['statsd-udp']}",
                    "--statsd.listen-tcp=",
                    f"--statsd.mapping-config={MAPPING}",
                    "--log.level=warn",
                ),
                probe=Probe("http", self._kept.url("statsd", "/metrics")),
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """None that a person would open."""
        return {}


def airflow_settings(port: int) -> Mapping[str, str]:
    """Airflow's [metrics], for its environment: StatsD to a port of this machine, with tags and today's names only."""
    return {
        "METRICS__STATSD_ON": "True",
        "METRICS__STATSD_HOST": "127.0.0.1",
        "METRICS__STATSD_PORT": str(port),
        "METRICS__STATSD_PREFIX": "airflow",
        "METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "METRICS__LEGACY_NAMES_ON": "False",
        # neither runs nor hosts nor files become labels: their number has no bound
        "METRICS__STATSD_DISABLED_TAGS": "job_id,run_id,hostname,dag_file,file_path,file_name,run_type",
    }
