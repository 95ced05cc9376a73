"""`python -m pipelines.gateway [--config FILE]`: serve the gateway until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvicorn

from pipelines.config import Config, load
from pipelines.errors import ConfigError
from pipelines.gateway.app import create_app
from pipelines.telemetry import tracing
from pipelines.telemetry.log_lines import set_up
from plugins.manager import load as load_plugins
from plugins.matching import Matcher

log = logging.getLogger(__name__)

GRACE = 20
"""Seconds that requests under way have after SIGTERM; more than Kafka's acknowledgement may take."""


def types_to_hear_of(config: Config) -> tuple[str, ...]:
    """The resource types that the installed scenarios wait for, and Task, by which persons decide on their drafts.

    What could not be loaded is logged.
    """
    loaded = load_plugins(config.plugins.enabled, config.plugins.disabled_scenarios)
    for plugin, reason in loaded.refused:
        log.error("plugin %s: %s", plugin, reason)
    return tuple(sorted({*Matcher(loaded.scenarios.values()).types, "Task"}))


def main(arguments: list[str] | None = None) -> int:
    """Serve; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.gateway", description=__doc__)
    parser.add_argument("--config", type=Path, help="configuration file; else CARELOOM_CONFIG, else careloom.toml")
    options = parser.parse_args(arguments)
    set_up("gateway")
    try:
        config = load(options.config)
        tracing.start(config.tracing, "gateway")
    except ConfigError as error:
        log.error("%s", error)  # noqa: TRY400 the message is the remedy
        return 2
    set_up("gateway", config.logging)
    app = create_app(config, types_to_hear_of(config))
    uvicorn.run(
        app,
        host=config.gateway.host,
        port=config.gateway.port,
        log_config=None,
        access_log=config.logging.access,
        server_header=False,
        proxy_headers=False,  # nobody asks who the peer is: tokens say it
        lifespan="on",
        timeout_graceful_shutdown=GRACE,
    )
    tracing.flush(config.tracing.flush)
    return 0


if __name__ == "__main__":
    sys.exit(main())
