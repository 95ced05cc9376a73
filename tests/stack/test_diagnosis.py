"""The doctor names what is missing and what to do about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.stack import diagnosis, ports, prometheus, vllm
from pipelines.stack.diagnosis import Finding, diagnose


def _found(tmp_path: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose(tmp_path / "state")}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with nothing on it."""
    monkeypatch.setattr(shutil, "which", lambda command: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    monkeypatch.setattr(vllm, "ENVIRONMENT", tmp_path / "no-vllm")
    monkeypatch.setattr(vllm, "_EXCUSES", tmp_path)
    monkeypatch.setattr(ports, "free", lambda port: port != 8080)
    monkeypatch.setattr(diagnosis, "_available_memory", lambda: 2.0)


@pytest.mark.usefixtures("bare")
def test_on_a_bare_machine_everything_lacking_has_a_remedy(tmp_path: Path) -> None:
    found = _found(tmp_path)
    lacking = {name for name, finding in found.items() if finding.level != "ok"}
    assert lacking >= {"java", "kafka", "vllm", "prometheus", "promtool", "memory"}
    assert all(found[name].remedy for name in lacking)
    assert "apt-get install default-jre-headless" in found["java"].remedy
    assert "memory only" in found["kafka"].found
    assert "8080 (airflow)" in found["ports"].found


@pytest.mark.usefixtures("bare")
def test_the_reason_that_the_set_up_left_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "vllm.failed").write_text("needs 8 GB of disk, 3.0 GB are free\nand more\n")
    assert "needs 8 GB of disk, 3.0 GB are free" in _found(tmp_path)["vllm"].found


def test_what_is_there_is_ok_and_nothing_is_made(tmp_path: Path) -> None:
    found = _found(tmp_path)
    assert found["python"].level == "ok"
    assert found["disk"].level == "ok"
    assert not list(tmp_path.iterdir())


def test_prometheus_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda command: None)
    assert "apt-get install prometheus" in (prometheus.missing() or "")
