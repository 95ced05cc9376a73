"""The configuration: one frozen object, read once from TOML, printed with its secrets masked.

Where it is found: `--config FILE`, else `CARELOOM_CONFIG`, else `careloom.toml` in the working folder. Relative paths
are relative to the file's own folder. Unknown keys are errors.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator

from fhir_adapters.event import FhirVersion
from pipelines.errors import ConfigError
from pipelines.models.settings import Model as Model
from pipelines.models.settings import Registry
from pipelines.sections import Port, Seconds
from pipelines.sections import Section as _Section

ENVIRONMENT_VARIABLE = "CARELOOM_CONFIG"
DEFAULT_FILE = "careloom.toml"


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
    """The broker and the topic that carries events.

    Attributes:
        partitions: that the topic is made with; one that is there keeps those that it has.
        replication: copies of each record, that the topics are made with: 3 on a cluster of three or more brokers. Two
            of three must then have a record before its sender is told 2xx (min.insync.replicas): of three brokers one
            may be lost at any time; without two the gateway answers 503, and nothing is lost.
        dead_letter_topic: where records that are no events are copied to; None for `<topic>.dead-letters`.
        dead_letter_retention: seconds that it keeps them. They may hold patient data: no longer than somebody needs to
            look at them, and no shorter than the topic of events itself keeps its records.
    """

    bootstrap: str = "127.0.0.1:9092"
    topic: str = "careloom.events"
    partitions: Annotated[int, Field(ge=1)] = 6
    replication: Annotated[int, Field(ge=1)] = 1
    group: str = "careloom.dispatcher"
    dead_letter_topic: str | None = None
    dead_letter_retention: Seconds = 30 * 86_400.0

    @property
    def dead_letters(self) -> str:
        """The name of the dead-letter topic."""
        return self.dead_letter_topic or f"{self.topic}.dead-letters"

    @model_validator(mode="after")
    def _two_topics(self) -> Kafka:
        if self.dead_letters == self.topic:
            raise ValueError("dead_letter_topic must be another topic than topic, or every copy would be read again")
        return self


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
        metrics_host, metrics_port: where this process's /metrics listens.
    """

    linger: Seconds = 0.2
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 100
    max_open_runs: Annotated[int, Field(ge=1)] = 2
    max_waiting: Annotated[int, Field(ge=1)] = 20_000
    max_attempts: Annotated[int, Field(ge=1)] = 4
    backoff: Seconds = 1.0
    backoff_cap: Seconds = 60.0
    reap_every: Seconds = 2.0
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 8801


class Runner(_Section):
    """How a run works on its rows.

    Attributes:
        concurrency: rows of different patients worked on at the same time.
        lease: seconds after which rows of a silent worker may be taken over; renewed while it works.
        max_prompt_chars: facts beyond it are cut, oldest first, and the draft says so.
        stay: seconds that a run stays after its last row, to take further ones of its scenario at once; 0 for never.
        stay_rows, stay_life: rows that such a run takes, and seconds that it lives, at most: then another one begins.
        stay_runs: runs that stay at the same time, over all scenarios; in-visit goes before pre-visit, and that before
            post-visit.
        slots: tasks that Airflow runs at the same time for careloom (`core.parallelism`, or the pool's slots): while
            all are taken and a run waits for one, a run that stays makes room.
        standing: ids of scenarios of which a run always stays, however long none of their events came: their first
            event after a quiet hour is begun as fast as any other. Each takes one of `stay_runs` and one of `slots`.
    """

    concurrency: Annotated[int, Field(ge=1)] = 16
    lease: Seconds = 60.0
    max_prompt_chars: Annotated[int, Field(ge=500)] = 3000
    stay: Annotated[float, Field(ge=0)] = 30.0
    stay_rows: Annotated[int, Field(ge=1)] = 2000
    stay_life: Annotated[float, Field(gt=0, le=1200)] = 300.0  # a task's time limit is 30 minutes
    stay_runs: Annotated[int, Field(ge=0)] = 2
    slots: Annotated[int, Field(ge=1)] = 4
    standing: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _standing_fits(self) -> Runner:
        standing = len(set(self.standing))
        if standing and not self.stay:
            raise ValueError("standing names scenarios, but stay = 0 lets no run stay: set stay, or leave standing out")
        if standing > self.stay_runs:
            raise ValueError(
                f"standing names {standing} scenarios and stay_runs lets {self.stay_runs} runs stay: raise stay_runs"
            )
        if standing >= self.slots:
            raise ValueError(
                f"standing names {standing} scenarios and slots is {self.slots}: every other scenario needs a slot too"
            )
        return self


class Plugins(_Section):
    """Which plugins run: an allow-list of entry points beside the built-in ones.

    Attributes:
        enabled: names of entry points.
        disabled_scenarios: ids of scenarios that do not run.
        settings: plugin -> what it is told (`plugins.hookspecs.Settings.own`); of a built-in one by its module's name.
    """

    enabled: tuple[str, ...] = ()
    disabled_scenarios: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)


class Knowledge(_Section):
    """The knowledge base; `careloom knowledge index` reads the folders and writes the index below `state_dir`.

    Attributes:
        folders: of documents (.md, .pdf), relative to this file; none for those that come with careloom.
    """

    folders: tuple[Path, ...] = ()


class Logging(_Section):
    """How careloom's processes write their logs, to standard error.

    Attributes:
        format: "json" (one object a line) or "text"; None for JSON, and text where standard error is a terminal.
        level: of careloom's own loggers; libraries say warnings only.
        access: whether the gateway writes a line for each request: method, path without ids and query, status.
    """

    format: Literal["json", "text"] | None = None
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = False


class Tracing(_Section):
    """OpenTelemetry spans, for looking; the ledger counts. Trace contexts are passed on with and without them.

    Attributes:
        endpoint: of an OTLP/HTTP receiver, without /v1/traces; None for no spans. Needs `pip install 'careloom[otel]'`.
        sample: share of events that are traced where their sender does not say, 0 to 1.
        headers: sent with every export, for example `authorization`.
        flush: seconds that a task waits at its end for its spans to be taken; what is not by then is lost.
    """

    endpoint: str | None = None
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    headers: Mapping[str, SecretStr] = Field(default_factory=dict)
    flush: Seconds = 2.0

    @property
    def share(self) -> float:
        """Of events that are traced; 0 without an endpoint."""
        return self.sample if self.endpoint else 0.0


class Exporter(_Section):
    """The process that turns the ledger into metrics.

    Attributes:
        fold_every: seconds between two folds of finished work.
        disks: name -> a folder on a file system whose free space is shown, relative to this file: those of the ledger's
            and the broker's data where they are on this host; none for `state_dir` alone.
    """

    host: str = "127.0.0.1"
    port: Port = 8802
    fold_every: Seconds = 1.0
    disks: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")], Path] = Field(default_factory=dict)


class Config(_Section):
    """All of it.

    Attributes:
        model: the model that is asked where no route says otherwise; the first of `models` where it is left out.
        models: all others, or all.
        routing: scenario id or stage -> name of a model, or several; see `pipelines.models.settings`.
    """

    state_dir: Path
    locale: Literal["zh", "en"] = "zh"
    patient_salt: SecretStr
    sources: tuple[Source, ...]
    ledger: LedgerDatabase
    airflow: Airflow
    model: Model
    models: tuple[Model, ...] = ()
    routing: Mapping[str, str | tuple[str, ...]] = Field(default_factory=dict)
    gateway: Gateway = Gateway()
    kafka: Kafka = Kafka()
    dispatcher: Dispatcher = Dispatcher()
    runner: Runner = Runner()
    plugins: Plugins = Plugins()
    knowledge: Knowledge = Knowledge()
    exporter: Exporter = Exporter()
    logging: Logging = Logging()
    tracing: Tracing = Tracing()

    @property
    def registry(self) -> Registry:
        """The models, and who is asked for which scenario."""
        return Registry(self.model, self.models, self.routing)

    @model_validator(mode="before")
    @classmethod
    def _first_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and "model" not in data and data.get("models"):
            return {**data, "model": data["models"][0]}
        return data

    @model_validator(mode="after")
    def _models_fit(self) -> Config:
        self.registry  # noqa: B018  it refuses what does not fit together
        return self

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
    if isinstance(knowledge := data.get("knowledge"), dict) and isinstance(folders := knowledge.get("folders"), list):
        knowledge["folders"] = [file.parent / folder if isinstance(folder, str) else folder for folder in folders]
    if isinstance(exporter := data.get("exporter"), dict) and isinstance(disks := exporter.get("disks"), dict):
        exporter["disks"] = {
            k: file.parent / folder if isinstance(folder, str) else folder for k, folder in disks.items()
        }
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
