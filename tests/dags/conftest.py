"""An outside plugin with one scenario, one that is broken, and a configuration that enables both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.least_config import write_least_config

_SCENARIO = """
from datetime import timedelta
from plugins.hookspecs import hookimpl
from plugins.post_visit.follow_up import FollowUp
from plugins.scenario import Stage, Text, Trigger

class Fake(FollowUp):
    id = "pre_visit.fake"
    stage = Stage.PRE_VISIT
    title = Text(zh="假", en="A fake")
    triggers = (Trigger("Appointment", {"status": ("booked", "arrived")}, why="somebody comes"),)

@hookimpl
def careloom_scenarios():
    return [Fake()]
"""


@pytest.fixture
def airflow_environment(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a process that parses DAGs here, with Airflow's home in the test's own folder."""
    for name, source in (("fake", _SCENARIO), ("broken", "raise RuntimeError('on purpose')")):
        (tmp_path / f"careloom_{name}.py").write_text(source)
        info = tmp_path / f"careloom_{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: careloom-{name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[careloom]\n{name} = careloom_{name}\n")
    write_least_config(tmp_path, plugins={"enabled": ["fake", "broken"]})
    return {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "none"),
        "CARELOOM_CONFIG": str(tmp_path / "careloom.toml"),
        "PYTHONPATH": str(tmp_path),
    }
