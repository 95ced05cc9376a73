"""Grafana dashboards as code: each file describes one, and `python -m monitoring.dashboards` writes json/.

Grafana imports the JSON; the sources need grafana-foundation-sdk, of the development dependencies.
"""
