"""Airflow's metrics by the real statsd_exporter: what Airflow's own code sends comes out under the mapped names."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitoring import kubernetes
from pipelines.stack.statsd import MAPPING, airflow_settings, find, missing

MAPPINGS: list[dict[str, Any]] = yaml.safe_load(MAPPING.read_text(encoding="utf-8"))["mappings"]
MAPPED = [mapping for mapping in MAPPINGS if mapping.get("action") != "drop"]
DAG = "pre_visit.triage"

#: Run with Airflow's settings in the environment: sends every metric of Airflow's own list by Airflow's own code.
SEND = """
import json, sys, time
from datetime import timedelta
from airflow._shared.observability.metrics import stats
from airflow.configuration import conf
from airflow.observability.metrics.stats_utils import get_stats_factory

stats.initialize(
    factory=get_stats_factory(), export_legacy_names=conf.getboolean("metrics", "legacy_names_on")
)
everywhere = {"dag_id": "pre_visit.triage", "task_id": "carry", "run_id": "careloom-run-1", "run_type": "manual"}
for metric in json.load(sys.stdin):
    tags = {**everywhere, **{name: f"some-{name}" for name in metric["name_variables"] if name not in everywhere}}
    name = metric["name"].format(**tags)
    match metric["type"]:
        case "counter":
            stats.incr(name, tags=tags)
        case "gauge":
            stats.gauge(name, 3, tags=tags)
        case _:
            stats.timing(name, timedelta(milliseconds=1500), tags=tags)
    time.sleep(0.002)
"""


def airflows_list() -> list[dict[str, Any]]:
    """All metrics that Airflow may send, by its own list."""
    spec = find_spec("airflow._shared.observability.metrics.stats")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).with_name("metrics_template.yaml")
    found = yaml.safe_load(file.read_text(encoding="utf-8"))["metrics"]
    return [{**one, "name_variables": list(one.get("name_variables") or ())} for one in found]


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_mapping_is_of_a_metric_that_airflow_has_and_of_its_kind() -> None:
    kinds = {"counter": "counter", "gauge": "gauge", "timer": "observer"}
    listed = {f"airflow.{one['name']}": kinds[one["type"]] for one in airflows_list()}
    for mapping in MAPPED:
        assert listed[mapping["match"]] == mapping["match_metric_type"]


def test_mapped_names_are_as_prometheus_wants_them_and_each_is_explained() -> None:
    names = [mapping["name"] for mapping in MAPPED]
    assert len(set(names)) == len(names)
    endings = {"counter": "_total", "observer": "_seconds"}
    for mapping in MAPPED:
        assert mapping["help"].endswith(".")
        assert mapping["name"].startswith("airflow_")
        ending = endings.get(mapping["match_metric_type"])
        assert ending is None or mapping["name"].endswith(ending)


@pytest.fixture(scope="module", params=["ours", "chart"])
def exporter(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[int, Callable[[], str]]]:
    """The port that it listens on by UDP, and what it shows; with our mapping, and as Airflow's chart writes it."""
    if (why := missing()) is not None:
        pytest.skip(why)
    web, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    folder = tmp_path_factory.mktemp("statsd")
    log = (folder / "log").open("wb")
    mapping = MAPPING
    if request.param == "chart":
        values = yaml.safe_load(kubernetes.chart_values())
        mapping = folder / "mappings.yml"
        mapping.write_text(yaml.safe_dump({"mappings": values["statsd"]["overrideMappings"]}), encoding="utf-8")
    arguments = [
        f"--web.listen-address=127.0.0.1:{web}",
        f"--statsd.listen-udp=127.0.0.1:{udp}",
        "--statsd.listen-tcp=",
        f"--statsd.mapping-config={mapping}",
    ]
    process = subprocess.Popen([str(find()), *arguments], stdout=log, stderr=log)

    def page() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    try:
        for _ in range(300):
            try:
                page()
                break
            except OSError:
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.1)
        yield udp, page
    finally:
        process.terminate()
        process.wait()
        log.close()


Shown = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture(scope="module")
def shown(exporter: tuple[int, Callable[[], str]]) -> Shown:
    """Sample name -> labels and values, after Airflow's own code has sent every metric once."""
    udp, page = exporter
    settings = {f"AIRFLOW__{key}": value for key, value in airflow_settings(udp).items()}
    subprocess.run(
        [sys.executable, "-c", SEND],
        input=json.dumps(airflows_list()),
        env={**os.environ, **settings},
        text=True,
        check=True,
        timeout=120,
    )
    for _ in range(100):
        found: Shown = {}
        for family in text_string_to_metric_families(page()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        if MAPPED[-1]["name"] + "_count" in found:
            break
        time.sleep(0.1)
    return found


def test_everything_that_is_mapped_comes_out_under_its_name(shown: Shown) -> None:
    suffix = {"observer": "_count"}
    absent = [m["name"] for m in MAPPED if m["name"] + suffix.get(m["match_metric_type"], "") not in shown]
    assert absent == []


def test_nothing_that_is_not_mapped_comes_out(shown: Shown) -> None:
    names = {mapping["name"] for mapping in MAPPED}
    names |= {f"{name}_{part}" for name in names for part in ("bucket", "sum", "count")}
    others = {name for name in shown if name.startswith(("airflow", "dropped"))} - names
    assert others == set()


def test_what_airflow_tags_becomes_labels_and_runs_do_not(shown: Shown) -> None:
    (labels, value), *others = shown["airflow_ti_finished_total"]
    assert others == []
    assert value == 1
    assert (labels["dag_id"], labels["task_id"]) == (DAG, "carry")
    assert "state" in labels
    everything = {
        label for name, samples in shown.items() if name.startswith("airflow_") for one, _ in samples for label in one
    }
    assert not everything & {"run_id", "job_id", "run_type", "hostname", "file_name"}


def test_milliseconds_become_seconds(shown: Shown) -> None:
    assert [value for _, value in shown["airflow_task_queued_duration_seconds_sum"]] == [1.5]


def test_no_line_of_airflows_was_in_error(exporter: tuple[int, Callable[[], str]], shown: Shown) -> None:
    errors = [
        line
        for line in exporter[1]().splitlines()
        if line.startswith(("statsd_exporter_sample_errors_total{", "statsd_exporter_tag_errors_total "))
    ]
    assert all(float(line.rpartition(" ")[2]) == 0 for line in errors), errors
