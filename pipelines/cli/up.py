"""`careloom up`: the whole stack on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.stack.environment import Stack
    from pipelines.stack.settings import ModelServer

#: Where the stack of the project in this folder keeps everything it writes.
STATE = Path(".careloom/stack")


def up(
    state: Annotated[Path, typer.Option(help="Where the stack keeps its data, ports and secrets.")] = STATE,
    broker: Annotated[
        str | None,
        typer.Option(help="apache, tansu (memory only, to try out), or host:port; by default the best to be had."),
    ] = None,
    model: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="URL NAME", help="Any vLLM or OpenAI-compatible server; by default vLLM on this CPU."),
    ] = None,
    stand_in: Annotated[bool, typer.Option("--stand-in", help="No model: a stand-in answers, and says so.")] = False,
    fhir: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Another FHIR R4 server; its bearer token, if any, is read from CARELOOM_FHIR_TOKEN."
        ),
    ] = None,
    hapi: Annotated[bool, typer.Option("--hapi", help="HAPI FHIR as a second hospital.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An installed plugin that may run, by its entry point; may be repeated."),
    ] = None,
) -> None:
    """Keep the whole stack running on this machine until Ctrl-C.

    Everything listens on 127.0.0.1 only. What crashes is started again. Ctrl-C stops all of it; data, ports and
    secrets stay for the next time.

    Examples:

      careloom up

      careloom up --broker tansu --stand-in

      careloom up --model http://127.0.0.1:8000/v1 Qwen3-8B --fhir http://127.0.0.1:8090/fhir

      careloom up --plugin my_scenario
    """
    began = time.monotonic()
    try:
        _run(began, state, broker, _model(model, stand_in), fhir, hapi, _plugins(plugin or ()))
    except KeyboardInterrupt:
        _say(began, "stopped while it was starting; no process is left")
        raise typer.Exit(130) from None
    _say(began, "stopped; no process is left")


def _run(
    began: float,
    state: Path,
    broker: str | None,
    model: str | ModelServer | None,
    fhir: str | None,
    hapi: bool,
    overrides: Mapping[str, Any],
) -> None:
    from pipelines.stack.environment import Stack

    def say(text: str) -> None:
        _say(began, text)

    stopping = _stop_signals()
    with Stack(
        state, broker=broker, model=model, fhir=fhir, hapi=hapi, overrides=overrides, usual_ports=True, say=say
    ) as stack:
        say(f"broker {stack.broker.name}: {stack.broker.why}")
        say(f"model {stack.model.server.name}: {stack.model.why}")
        say(f"prometheus: {stack.monitor.why}")
        say(f"airflow's metrics: {stack.airflow_metrics.why}")
        stack.start()
        _welcome(stack, began)
        stopping.wait()
        say("stopping")


def _model(model: tuple[str, str] | None, stand_in: bool) -> str | ModelServer | None:
    from pipelines.stack.settings import ModelServer

    if model is not None:
        return ModelServer(model[0], model[1], "as served")
    return "stand-in" if stand_in else None


def _plugins(names: Sequence[str]) -> dict[str, Any]:
    """What of the configuration allows these plugins.

    Raises:
        ConfigError: one is not installed.
    """
    from importlib.metadata import entry_points

    from pipelines.errors import ConfigError

    installed = sorted(point.name for point in entry_points(group="careloom"))
    for name in names:
        if name not in installed:
            raise ConfigError(
                f"--plugin {name}: not installed (installed: {', '.join(installed) or 'none'}); "
                "install its package into this environment first"
            )
    return {"plugins": {"enabled": list(names)}} if names else {}


def _stop_signals() -> threading.Event:
    """Set by the first SIGINT or SIGTERM once the stack is up; while it starts they end the start."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            return
        stopping.set()
        if not _up.is_set():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    return stopping


_up = threading.Event()


def _welcome(stack: Stack, began: float) -> None:
    _up.set()
    _say(began, "up; to open:")
    for label, address in stack.addresses.items():
        typer.echo(f"    {label:<44} {address}", err=True)
    typer.echo(f"    {'configuration, with tokens and passwords':<44} {stack.config}", err=True)
    _say(began, "careloom status shows what happens, Ctrl-C stops everything")


def _say(began: float, text: str) -> None:
    typer.echo(f"[{time.monotonic() - began:5.1f} s] {text}", err=True)
