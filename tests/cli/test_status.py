"""`careloom status` shows what the stack's status holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import build
from pipelines.stack import status as stack_status
from pipelines.stack.status import Health, Status


def _status(problem: str | None) -> Status:
    return Status(
        state="degraded" if problem else "up",
        seconds=12.3,
        programs={"gateway": Health("gateway", 4711, problem, 2, "/logs/gateway.log")},
        chosen={"broker": "tansu: asked for"},
        lag=5,
        work={"written": 3, "waiting": 0},
        unaccounted=0,
        addresses={"Airflow": "http://127.0.0.1:8080"},
        config="/state/careloom.toml",
    )


def test_text_shows_health_lag_counts_and_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stack_status, "status", lambda folder: _status(None))
    shown = CliRunner().invoke(build(), ["status", "--state", str(tmp_path)])
    assert shown.exit_code == 0
    for part in ("up, for 12 s", "broker: tansu", "healthy", "from Kafka: 5", "3 written; unaccounted for: 0", "8080"):
        assert part in shown.stdout


def test_what_is_not_healthy_is_shown_with_its_log_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_status, "status", lambda folder: _status("HTTP 503"))
    shown = CliRunner().invoke(build(), ["status"])
    assert shown.exit_code == 1
    assert "HTTP 503" in shown.stdout
    assert "/logs/gateway.log" in shown.stdout


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_status, "status", lambda folder: _status(None))
    shown = json.loads(CliRunner().invoke(build(), ["status", "--json"]).stdout)
    assert shown["programs"]["gateway"]["restarts"] == 2
    assert (shown["lag"], shown["work"], shown["unaccounted"]) == (5, {"written": 3, "waiting": 0}, 0)
