"""The least careloom.toml that loads, for tests that start a command or a process of its own with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.stack.settings import toml

#: Addresses at which nobody is: what a test asks for in earnest it gives itself.
_LEAST: Mapping[str, Any] = {
    "state_dir": ".",
    "patient_salt": "s",
    "sources": [{"name": "hospital", "fhir_version": "R4", "token": "t"}],
    "ledger": {"url": "postgresql://nobody@127.0.0.1:9/nothing"},
    "airflow": {"url": "http://127.0.0.1:9", "password": "p"},
    "kafka": {"bootstrap": "127.0.0.1:9"},
    "model": {"name": "m", "version": "1", "url": "http://127.0.0.1:9/v1"},
}


def write_least_config(folder: Path, **given: Any) -> Path:
    """Write `folder`/careloom.toml; returns it.

    Args:
        folder: its `state_dir`, too.
        given: sections to add to, key by key, or values of other kinds to have instead.
    """
    whole = dict(_LEAST)
    for name, value in given.items():
        before = whole.get(name)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        whole[name] = {**before, **value} if both else value  # type: ignore[dict-item]
    file = folder / "careloom.toml"
    file.write_text(toml(whole), encoding="utf-8")
    return file
