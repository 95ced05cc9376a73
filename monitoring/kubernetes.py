"""Rules and scraping for Prometheus Operator, made of what stands here: `python -m monitoring.kubernetes`.

Writes deploy/kubernetes/monitoring/: a PrometheusRule with the groups of rules/ and alerts/, and a ServiceMonitor for
each of careloom's processes and for Airflow's statsd_exporter, whose jobs are named as the rules name them; and values
for Airflow's chart, which give that statsd_exporter our mapping.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parent
TARGET = MONITORING.parent / "deploy" / "kubernetes" / "monitoring"

#: For Airflow's chart, beside the values that are written by hand.
CHART_VALUES = TARGET.parent / "airflow-statsd-values.yaml"

_HEAD = """\
# Written by `python -m monitoring.kubernetes` from monitoring/; a test holds both together. Only checked.
# yamllint disable rule:line-length rule:indentation
"""
_LABELS = {"app.kubernetes.io/part-of": "careloom"}
#: Job, as rules name it -> the labels of its Service, and that Service's port.
_SERVICES: dict[str, tuple[dict[str, str], str]] = {
    "gateway": ({"app.kubernetes.io/name": "gateway", **_LABELS}, "http"),
    "dispatcher": ({"app.kubernetes.io/name": "dispatcher", **_LABELS}, "metrics"),
    "exporter": ({"app.kubernetes.io/name": "exporter", **_LABELS}, "metrics"),
    # of the official Airflow chart
    "airflow": ({"tier": "airflow", "component": "statsd"}, "statsd-scrape"),
}


def files() -> dict[str, str]:
    """File name in deploy/kubernetes/monitoring -> its text."""
    return {
        "rules.yaml": _text([_rules()]),
        "scraping.yaml": _text(list(_monitors())),
    }


def chart_values() -> str:
    """The text of `CHART_VALUES`.

    The chart's statsd_exporter has a place for mappings and none for `defaults`: each mapping says them itself.
    """
    said = yaml.safe_load((MONITORING / "statsd_mapping.yml").read_text(encoding="utf-8"))
    defaults, mappings = said["defaults"], []
    for mapping in said["mappings"]:
        kept = {} if mapping.get("action") == "drop" else {"ttl": defaults["ttl"]}
        if mapping.get("match_metric_type") == "observer":
            kept |= {key: defaults[key] for key in ("observer_type", "histogram_options")}
        mappings.append({**mapping, **kept})
    return _text([{"statsd": {"overrideMappings": mappings}}])


def _rules() -> dict[str, Any]:
    groups: list[Any] = []
    for folder in ("rules", "alerts"):
        for file in sorted((MONITORING / folder).glob("*.yml")):
            groups += yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return _resource("PrometheusRule", "careloom", {"groups": groups})


def _monitors() -> Iterator[dict[str, Any]]:
    for job, (labels, port) in _SERVICES.items():
        named = {"targetLabel": "job", "replacement": job}
        spec: dict[str, Any] = {
            "selector": {"matchLabels": labels},
            "endpoints": [{"port": port, "path": "/metrics", "interval": "15s", "relabelings": [named]}],
        }
        if job == "airflow":  # as a rule it has a namespace of its own
            spec["namespaceSelector"] = {"matchNames": ["careloom", "airflow"]}
        yield _resource("ServiceMonitor", job, spec)


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": _LABELS}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": kind, "metadata": metadata, "spec": spec}


class _Plain(yaml.SafeDumper):
    """Writes each value out where it stands."""

    def ignore_aliases(self, data: object) -> bool:
        """No anchors."""
        return True


def _text(documents: list[dict[str, Any]]) -> str:
    return _HEAD + yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=10_000, allow_unicode=True)


def main() -> None:
    """Write all files."""
    TARGET.mkdir(exist_ok=True)
    CHART_VALUES.write_text(chart_values(), encoding="utf-8")
    for name, text in files().items():
        (TARGET / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
