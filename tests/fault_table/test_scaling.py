"""The shorter copy of the rules: every wait and window, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.stack.part import PROJECT
from tests.fault_table.scaling import scaled

RULES = sorted([*(PROJECT / "monitoring" / "alerts").glob("*.yml"), *(PROJECT / "monitoring" / "rules").glob("*.yml")])


def test_waits_windows_and_offsets_are_shortened_and_thresholds_are_not() -> None:
    rule = {"alert": "A", "expr": "increase(x[10m]) > 300 unless x offset 1h", "for": "2m"}
    (changed,) = scaled({"groups": [{"name": "g", "rules": [rule]}]}, 0.25)["groups"][0]["rules"]
    assert changed == {"alert": "A", "expr": "increase(x[150s]) > 300 unless x offset 900s", "for": "30s"}


def test_no_window_is_shorter_than_a_rate_needs_and_no_wait_than_a_restart() -> None:
    rule = {"alert": "A", "expr": "increase(x[1m]) > 0", "for": "30s"}
    (changed,) = scaled({"groups": [{"name": "g", "rules": [rule]}]}, 0.1)["groups"][0]["rules"]
    assert changed == {"alert": "A", "expr": "increase(x[15s]) > 0", "for": "15s"}


@pytest.mark.parametrize("file", RULES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_prometheus_takes_the_shortened_rules(file: Path, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    copy = tmp_path / file.name
    copy.write_text(yaml.safe_dump(scaled(yaml.safe_load(file.read_text("utf-8")), 0.2)), "utf-8")
    done = subprocess.run(["promtool", "check", "rules", copy], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
