"""What a stack keeps from one start to the next: its ports and its secrets, and the `careloom.toml` made of them."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.stack import ports

#: Each port the stack may need, with the one a person would look for first.
USUAL_PORTS = {
    "gateway": 8800,
    "dispatcher": 8801,
    "exporter": 8802,
    "airflow": 8080,
    "airflow-scheduler": 8974,
    "postgres": 5433,
    "kafka": 9092,
    "kafka-controller": 9093,
    "fhir": 8090,
    "hapi": 8091,
    "model": 8000,
    "prometheus": 9090,
    "statsd": 9102,
    "statsd-udp": 9125,
}
#: Each secret: (name, random bytes).
SECRETS = {
    "postgres-password": 24,
    "airflow-password": 18,
    "airflow-api-secret": 32,
    "airflow-jwt-secret": 64,
    "airflow-fernet-key": 32,
    "patient-salt": 32,
    "hospital-token": 24,
    "hospital-server-token": 24,
    "hapi-token": 24,
}


def write_private(file: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
    draft.replace(file)


@dataclass(frozen=True)
class Kept:
    """Ports and secrets of one state folder.

    Attributes:
        state_dir: absolute; holds everything that the stack writes.
        ports: name in `USUAL_PORTS` -> port on 127.0.0.1.
        secrets: name in `SECRETS` -> base64url text.
    """

    state_dir: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str] = field(repr=False)

    def folder(self, name: str) -> Path:
        """A folder of one part, made when it is not there."""
        folder = self.state_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def url(self, part: str, path: str = "") -> str:
        """`http://127.0.0.1:PORT` of a part."""
        return f"http://127.0.0.1:{self.ports[part]}{path}"

    def database(self, name: str, driver: str = "") -> str:
        """SQLAlchemy URL of a database of the embedded PostgreSQL; without a driver it is libpq's as well."""
        dialect = f"postgresql+{driver}" if driver else "postgresql"
        return f"{dialect}://postgres:{self.secrets['postgres-password']}@127.0.0.1:{self.ports['postgres']}/{name}"


def keep(state_dir: Path, *, usual_ports: bool) -> Kept:
    """What this state folder was given before, completed and written back; a port that is taken now is replaced.

    Args:
        state_dir: made when it is not there.
        usual_ports: prefer `USUAL_PORTS` for what has no port yet, instead of random ones.
    """
    state_dir = state_dir.absolute()
    state_dir.mkdir(parents=True, exist_ok=True)
    file = state_dir / "stack-kept.json"
    before = json.loads(file.read_text("utf-8")) if file.exists() else {"ports": {}, "secrets": {}}
    chosen: dict[str, int] = {}
    for name, usual in USUAL_PORTS.items():
        preferred = before["ports"].get(name, usual if usual_ports else None)
        chosen[name] = ports.choose(chosen.values(), preferred)
    kept_secrets = {name: before["secrets"].get(name) or _secret(size) for name, size in SECRETS.items()}
    write_private(file, json.dumps({"ports": chosen, "secrets": kept_secrets}, indent=1) + "\n")
    return Kept(state_dir, chosen, kept_secrets)


def _secret(size: int) -> str:
    text = secrets.token_urlsafe(size)
    return text + "=" * (-len(text) % 4)  # a Fernet key must be padded; for the others it does not matter


@dataclass(frozen=True)
class ModelServer:
    """Which model answers, as `[model]` of the configuration wants it."""

    url: str
    name: str
    version: str
    stand_in: bool = False
    why: str = ""


def configuration(
    kept: Kept,
    *,
    bootstrap: str,
    model: ModelServer,
    sources: Sequence[Mapping[str, Any]],
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The configuration as `pipelines.config.Config` takes it; `overrides` are merged in last, table by table."""
    data: dict[str, Any] = {
        "state_dir": ".",
        "patient_salt": kept.secrets["patient-salt"],
        "sources": [dict(source) for source in sources],
        "gateway": {"port": kept.ports["gateway"]},
        "kafka": {"bootstrap": bootstrap},
        "ledger": {"url": kept.database("careloom", "psycopg")},
        "airflow": {"url": kept.url("airflow"), "password": kept.secrets["airflow-password"]},
        "dispatcher": {"metrics_port": kept.ports["dispatcher"]},
        "exporter": {"port": kept.ports["exporter"]},
        "model": {"url": model.url, "name": model.name, "version": model.version, "stand_in": model.stand_in},
    }
    return _merged(data, overrides or {})


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def toml(data: Mapping[str, Any]) -> str:
    """TOML of plain values, lists of them, tables, and lists of tables; a table in a table is written in line."""
    plain = {key: value for key, value in data.items() if not isinstance(value, Mapping) and not _is_tables(value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in data.items():
        tables = [value] if isinstance(value, Mapping) else value if _is_tables(value) else []
        for table in tables:
            lines += ["", f"[{key}]" if isinstance(value, Mapping) else f"[[{key}]]"]
            lines += [f"{_key(name)} = {_value(one)}" for name, one in table.items() if one is not None]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    """Bare where TOML allows it; a scenario's id has a dot, and must not become a table."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(name)} = {_value(one)}' for name, one in value.items())}}}"
    return str(value)


def write_configuration(kept: Kept, data: Mapping[str, Any]) -> Path:
    """Write `careloom.toml` (0600: it holds secrets) and return its path."""
    file = kept.state_dir / "careloom.toml"
    head = "# Written by `careloom up` at every start; changes made here are lost. It holds secrets.\n"
    write_private(file, head + toml(data))
    return file
