"""Every metric that careloom declares. Nothing is declared elsewhere; labels come from closed sets only."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

REGISTRY = CollectorRegistry(auto_describe=True)
