"""The configuration: one frozen object, read once from TOML, printed with its secrets masked.

Where it is found: `--config FILE`, else `CARELOOM_CONFIG`, else `careloom.toml` in the working folder. Relative paths
are relative to the file's own folder. Unknown keys are errors.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from fhir_adapters.event import FhirVersion
from pipelines.errors import ConfigError

ENVIRONMENT_VARIABLE = "CARELOOM_CONFIG"
DEFAULT_FILE = "careloom.toml"

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Section):
    """One hospital system that sends events, and where drafts about its patients are written.

    Attributes:
        name: stands in the gateway's path, in event identities and as a metric label: never change it.
        fhir_version: what this system speaks; there is no guessing.
        base_url: its FHIR base; None for a system that only sends (its events then find no record and no way back).
        token: what the system sends to the gateway as `Authorization: Bearer`.
        server_token: what careloom sends to `base_url` as a bearer token; None where it needs none.
        validation: "reject" refuses resources that are not valid, "flag" takes and counts them, "pass" does not look.
        subscription: how careloom asks to be told: "rest-hook" (classic R4), "backport" (topic-based), or "none".
        reconcile_every: seconds between searches for what was never notified; 0 for never.
        reconcile_overlap: seconds that each such search reaches back behind the last one.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    fhir_version: FhirVersion
    base_url: str | None = None
    token: SecretStr
    server_token: SecretStr | None = None
    validation: Literal["reject", "flag", "pass"] = "flag"
    subscription: Literal["rest-hook", "backport", "none"] = "backport"
    reconcile_every: Annotated[float, Field(ge=0)] = 30.0
    reconcile_overlap: Seconds = 10.0


class Gateway(_Section):
    """Where events come in."""

    host: str = "127.0.0.1"
    port: Port = 8800
    public_url: str | None = None
    max_body_bytes: Annotated[int, Field(gt=0)] = 8 * 1024 * 1024
    max_depth: Annotated[int, Field(gt=0, le=1000)] = 64

    @property
    def url(self) -> str:
        """The base URL that hospital systems reach the gateway at."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


class Kafka(_Section):
    """The broker and the topic that carries events."""

    bootstrap: str = "127.0.0.1:9092"
    topic: str = "careloom.events"
    partitions: Annotated[int, Field(ge=1)] = 6
    replication: Annotated[int, Field(ge=1)] = 1
    group: str = "careloom.dispatcher"


class LedgerDatabase(_Section):
    """The ledger's PostgreSQL."""

    url: SecretStr


class Airflow(_Section):
    """Airflow's REST API."""

    url: str = "http://127.0.0.1:8080"
    username: str = "admin"
    password: SecretStr


class Dispatcher(_Section):
    """How rows become Airflow runs.

    Attributes:
        linger: seconds that the oldest waiting row may wait for company while runs of its scenario are under way.
        batch_size: rows a run at most.
        max_open_runs: unfinished runs a scenario at most; beyond it rows wait in the ledger.
        max_waiting: waiting rows beyond which Kafka is no longer read.
        max_attempts: failures of its own after which a row is parked.
        backoff: seconds before the second attempt; doubles, with full jitter.
        backoff_cap: seconds that a wait never exceeds.
        reap_every: seconds between looks at runs that should have ended.
        metrics_port: of this process's /metrics.
    """

    linger: Seconds = 0.2
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 100
    max_open_runs: Annotated[int, Field(ge=1)] = 2
    max_waiting: Annotated[int, Field(ge=1)] = 20_000
    max_attempts: Annotated[int, Field(ge=1)] = 4
    backoff: Seconds = 1.0
    backoff_cap: Seconds = 60.0
    reap_every: Seconds = 2.0
    metrics_port: Port = 8801


class Runner(_Section):
    """How a run works on its rows.

    Attributes:
        concurrency: rows of different patients worked on at the same time.
        lease: seconds after which rows of a silent worker may be taken over; renewed while it works.
        max_prompt_chars: facts beyond it are cut, oldest first, and the draft says so.
    """

    concurrency: Annotated[int, Field(ge=1)] = 16
    lease: Seconds = 60.0
    max_prompt_chars: Annotated[int, Field(ge=500)] = 3000


class Model(_Section):
    """The model server and what must stand on each of its drafts.

    Attributes:
        url: base of an OpenAI-compatible server, ending in /v1.
        name: as the server knows it.
        version: of the weights.
        registration_number: the model's registration (备案号) where it has one.
        stand_in: true where no model answers but the test stand-in; every draft then says so.
        timeout: seconds for one answer.
        attempts: tries within one task for an answer that fails by transport, 429 or 5xx.
    """

    url: str = "http://127.0.0.1:8000/v1"
    name: str
    version: str
    registration_number: str | None = None
    api_key: SecretStr | None = None
    stand_in: bool = False
    max_in_flight: Annotated[int, Field(ge=1)] = 16
    timeout: Seconds = 120.0
    attempts: Annotated[int, Field(ge=1, le=5)] = 3


class Plugins(_Section):
    """Which scenarios run: an allow-list of entry points beside the built-in ones."""

    enabled: tuple[str, ...] = ()
    disabled_scenarios: tuple[str, ...] = ()


class Exporter(_Section):
    """The process that turns the ledger into metrics."""

    host: str = "127.0.0.1"
    port: Port = 8802
    fold_every: Seconds = 1.0


class Config(_Section):
    """All of it."""

    state_dir: Path
    locale: Literal["zh", "en"] = "zh"
    patient_salt: SecretStr
    sources: tuple[Source, ...]
    ledger: LedgerDatabase
    airflow: Airflow
    model: Model
    gateway: Gateway = Gateway()
    kafka: Kafka = Kafka()
    dispatcher: Dispatcher = Dispatcher()
    runner: Runner = Runner()
    plugins: Plugins = Plugins()
    exporter: Exporter = Exporter()

    def source(self, name: str) -> Source:
        """The source of that name.

        Raises:
            ConfigError: there is none.
        """
        for source in self.sources:
            if source.name == name:
                return source
        raise ConfigError(f"no source named {name!r} is configured; known: {', '.join(s.name for s in self.sources)}")


def find(explicit: Path | None = None) -> Path:
    """The configuration file that would be read."""
    return (explicit or Path(os.environ.get(ENVIRONMENT_VARIABLE, DEFAULT_FILE))).absolute()


def load(path: Path | None = None) -> Config:
    """Read the configuration.

    Raises:
        ConfigError: missing, not TOML, an unknown key, a missing key or a value out of range; no secret is echoed.
    """
    file = find(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: not found; name one with --config or {ENVIRONMENT_VARIABLE}, or let `careloom up` write one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    if isinstance(data.get("state_dir"), str):
        data["state_dir"] = file.parent / data["state_dir"]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg'].lower()}" for e in error.errors(include_input=False)
        )
        raise ConfigError(f"{file}: {problems}") from None
    names = [source.name for source in config.sources]
    if len(set(names)) != len(names):
        raise ConfigError(f"{file}: sources: two sources have the same name; a name is an identity")
    return config
