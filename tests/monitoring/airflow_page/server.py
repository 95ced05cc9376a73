"""Starts `serve.py`: Airflow's API server with the page in it, over a ledger, for the tests and for the picture."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.least_config import write_least_config

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Served:
    """An API server that answers."""

    url: str
    log: Path


def password(name: str) -> str:
    """Of one of its people."""
    return f"{name}-secret"


@contextmanager
def serve(folder: Path, ledger_url: str, people: Mapping[str, str], *, whole: bool = False) -> Iterator[Served]:
    """Until the end of the block.

    Args:
        folder: empty; everything that it writes goes there.
        ledger_url: of the ledger.
        people: name -> role in the simple auth manager; their passwords are `password(name)`.
        whole: with Airflow's own REST API and UI.
    """
    write_least_config(folder, ledger={"url": ledger_url}, model={"name": "small"})
    (folder / "passwords.json").write_text(json.dumps({name: password(name) for name in people}))
    (folder / "airflow.cfg").touch()
    (folder / "none").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    command = [sys.executable, str(_HERE / "serve.py"), str(port), *(["whole"] if whole else [])]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=_environment(folder, url, people), stdout=out, stderr=out)
    try:
        _until_answering(f"{url}/api/v2/version" if whole else f"{url}/probe/plugins", process, log)
        yield Served(url, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _environment(folder: Path, url: str, people: Mapping[str, str]) -> dict[str, str]:
    settings = {
        "CORE__AUTH_MANAGER": "per_dag_auth.PerDag",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in people.items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "CORE__PLUGINS_FOLDER": str(folder / "none"),
        "CORE__DAGS_FOLDER": str(folder / "none"),
        "CORE__LOAD_EXAMPLES": "False",
        "API__BASE_URL": url,
        "API__SECRET_KEY": "secret",
        "API_AUTH__JWT_SECRET": "another secret, as long as the signature that it is for wants it to be, and more",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {
        **os.environ,
        **{f"AIRFLOW__{key}": value for key, value in settings.items()},
        "AIRFLOW_HOME": str(folder),
        "CARELOOM_CONFIG": str(folder / "careloom.toml"),
        "PYTHONPATH": str(_HERE),
    }


def _until_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 280
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(url, timeout=30, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())
