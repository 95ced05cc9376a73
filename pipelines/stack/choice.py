"""Which broker, model server and Prometheus: what was asked for, else the best that this machine has, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import ConfigError, StackError
from pipelines.stack import kafka, statsd, vllm
from pipelines.stack import prometheus as prom
from pipelines.stack.kafka import ApacheKafka
from pipelines.stack.part import Part
from pipelines.stack.prometheus import Prometheus
from pipelines.stack.settings import Kept, ModelServer
from pipelines.stack.stand_in_part import StandIn
from pipelines.stack.tansu import Tansu
from pipelines.stack.vllm import Vllm


@dataclass(frozen=True)
class Broker:
    """The chosen broker; `part` is None for one that somebody else runs."""

    name: str
    bootstrap: str
    part: Part | None
    why: str


@dataclass(frozen=True)
class Model:
    """The chosen model server; `part` is None for one that somebody else runs."""

    server: ModelServer
    part: Part | None
    why: str


@dataclass(frozen=True)
class Monitor:
    """Prometheus, or statsd_exporter; `part` is None where it is not to be had."""

    part: Part | None
    why: str


def broker(kept: Kept, wanted: str | None) -> Broker:
    """The broker: "apache", "tansu", an address (host:port, several with commas), or None to choose.

    Raises:
        StackError: "apache" was asked for and cannot be had.
        ConfigError: the word is unknown and no address.
    """
    why_not = kafka.missing()
    match wanted:
        case "apache" if why_not:
            raise StackError(f"Apache Kafka was asked for: {why_not}")
        case "apache":
            return _apache(kept, "asked for")
        case None if not why_not:
            return _apache(kept, "Java and Kafka's jars are here")
        case "tansu":
            return _tansu(kept, "asked for; memory only, for trying out")
        case None:
            return _tansu(kept, f"memory only, for trying out, since {why_not}")
        case address if all(":" in one for one in address.split(",")):
            return Broker("external", address, None, "asked for")
        case _:
            raise ConfigError(f"--broker {wanted}: neither apache nor tansu, and no host:port")


def _apache(kept: Kept, why: str) -> Broker:
    part = ApacheKafka(kept)
    return Broker("apache", part.bootstrap, part, why)


def _tansu(kept: Kept, why: str) -> Broker:
    part = Tansu(kept)
    return Broker("tansu", part.bootstrap, part, why)


def model(kept: Kept, wanted: str | ModelServer | None) -> Model:
    """The model server: "vllm", "stand-in", one that runs elsewhere, or None to choose.

    Raises:
        StackError: "vllm" was asked for and cannot be had.
        ConfigError: the word is unknown.
    """
    why_not = vllm.missing()
    match wanted:
        case ModelServer():
            return Model(wanted, None, "asked for")
        case "vllm" if why_not:
            raise StackError(f"vLLM was asked for: {why_not}")
        case "vllm":
            return _vllm(kept, "asked for")
        case None if not why_not:
            return _vllm(kept, "its environment and weights are here")
        case "stand-in":
            return _stand_in(kept, "asked for; no model answers")
        case None:
            return _stand_in(kept, f"no model answers, since {why_not}")
        case _:
            raise ConfigError(
                f"--model {wanted}: neither vllm nor stand-in; for another server give its URL and a name"
            )


def _vllm(kept: Kept, why: str) -> Model:
    part = Vllm(kept)
    return Model(part.server(), part, why)


def _stand_in(kept: Kept, why: str) -> Model:
    part = StandIn(kept)
    return Model(part.server(), part, why)


def monitor(kept: Kept, *, real_model: bool, airflow: bool = False) -> Monitor:
    """Prometheus where it is installed; `airflow`: whether there are metrics of Airflow's own."""
    if why_not := prom.missing():
        return Monitor(None, why_not)
    return Monitor(Prometheus(kept, real_model=real_model, airflow=airflow), "it is installed")


def airflow_metrics(kept: Kept) -> Monitor:
    """statsd_exporter where it is to be had."""
    if why_not := statsd.missing():
        return Monitor(None, why_not)
    return Monitor(statsd.StatsdExporter(kept), "statsd_exporter is here")
