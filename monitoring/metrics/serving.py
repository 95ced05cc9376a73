"""Build info of every process, and how its /metrics is served."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, start_http_server
from prometheus_client.exposition import choose_encoder

from monitoring.metrics.declaring import REGISTRIES, Metric, declare


def _version() -> str:
    try:
        return version("careloom")
    except PackageNotFoundError:
        return "unknown"


declare(Metric("careloom_build_info", "gauge", "1; what runs.", ("version", "python", "process"), "gateway"))
for _process, _registry in REGISTRIES.items():
    ProcessCollector(registry=_registry)
    Gauge("careloom_build_info", "1; what runs.", ("version", "python", "process"), registry=_registry).labels(
        _version(), platform.python_version(), _process
    ).set(1)


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """A /metrics page for an ASGI handler.

    Args:
        registry: of the process.
        accept: the request's Accept header.

    Returns:
        body and Content-Type.
    """
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


def serve(registry: CollectorRegistry, port: int, host: str = "127.0.0.1") -> tuple[WSGIServer, Thread]:
    """Serve a registry's /metrics from a daemon thread; end it by `server.shutdown()`, `server.server_close()`.

    Raises:
        OSError: the port is taken.
    """
    return start_http_server(port, addr=host, registry=registry)
