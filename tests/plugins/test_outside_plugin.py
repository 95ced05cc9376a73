"""A plugin of somebody else's, in a fresh environment beside careloom: seen everywhere, and gone when it is removed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pipelines.authoring.package import write_package
from tests.least_config import write_least_config

PROJECT = Path(__file__).parents[2]
SCENARIO = "pre_visit.outside_brief"

_COMMAND = "from pipelines.cli import main; main()"
_PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1], known_pools={"default_pool", "careloom_model"})
print(json.dumps({"dags": sorted(bag.dags), "errors": bag.import_errors}))
"""
_SCRAPE = """
import time, urllib.request
from monitoring import exporter
from pipelines.config import load
def wait(port):
    for _ in range(200):
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        finished = [line for line in page.splitlines() if line.startswith("careloom_work_finished_total{")]
        if any(not line.endswith(" 0.0") for line in finished):
            break
        time.sleep(0.1)
    print(page)
exporter.run(load(), wait)
"""


@dataclass(frozen=True)
class Venv:
    """An environment of its own, in which careloom and all that it needs are found beside what is installed here."""

    python: Path
    environment: Mapping[str, str]

    def run(self, program: str, *arguments: object, ok: tuple[int, ...] = (0,)) -> str:
        command = [str(self.python), "-c", program, *map(str, arguments)]
        done = subprocess.run(command, env=dict(self.environment), capture_output=True, text=True, timeout=180)
        assert done.returncode in ok, done.stderr[-2000:]
        return done.stdout

    def pip(self, *arguments: object) -> None:
        """The pip of this environment, working in that one; it asks no registry."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr

    def plugins(self, ok: tuple[int, ...] = (0,)) -> Any:
        """What `careloom plugins --json` says."""
        return json.loads(self.run(_COMMAND, "plugins", "--json", ok=ok))

    def dags(self) -> list[str]:
        found = json.loads(self.run(_PARSE, PROJECT / "dags").splitlines()[-1])
        assert found["errors"] == {}
        return list(found["dags"])


@pytest.fixture
def venv(tmp_path: Path, ledger_url: str) -> Venv:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (inside,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    beside = sysconfig.get_paths()["purelib"]
    (inside / "beside_careloom.pth").write_text(f"import site; site.addsitedir({beside!r})\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = write_least_config(
        tmp_path,
        ledger={"url": ledger_url},
        exporter={"port": port, "fold_every": 0.1},
        plugins={"enabled": ["outside_brief"]},
    )
    environment = {
        **os.environ,
        "CARELOOM_CONFIG": str(config),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "none"),
        "PYTHONPATH": str(PROJECT),
    }
    return Venv(python, environment)


@pytest.mark.long  # an environment of its own; `make tutorial` goes the same way
def test_it_is_seen_by_the_command_by_airflow_and_by_prometheus_and_removed_it_is_gone_but_its_work_is_kept(
    venv: Venv, tmp_path: Path, ledger_engine: Engine, fill_ledger: Callable[..., None]
) -> None:
    package = write_package("pre_visit", "outside-brief", tmp_path)
    venv.pip("install", "-q", "--no-deps", "--no-index", "--no-build-isolation", package)

    found = {one["name"]: one for one in venv.plugins()["plugins"]}["outside_brief"]
    assert (found["enabled"], found["why_not"]) == (True, "")
    assert (found["distribution"], found["version"]) == ("outside-brief", "0.1.0")
    assert found["scenarios"][0] == {
        "id": SCENARIO, "version": "0.1.0", "stage": "pre_visit", "risk": "A", "title": "outside-brief",
    }  # fmt: skip
    assert SCENARIO in venv.dags()
    fill_ledger(2, scenario=SCENARIO)
    fill_ledger(3, scenario=SCENARIO, state="waiting")
    page = venv.run(_SCRAPE).splitlines()
    finished = [line for line in page if line.startswith("careloom_work_finished_total{") and SCENARIO in line]
    counted: Counter[str] = Counter()
    for line in finished:  # some of another model, or of none, stand at 0 from the start
        counted[line.partition('state="')[2].partition('"')[0]] += int(float(line.rpartition(" ")[2]))
    assert counted == {"written": 2.0}
    assert any(line.startswith("careloom_deadline") and SCENARIO in line for line in page)
    tried = venv.run(_COMMAND, "try", SCENARIO, "--patient", package / "tests" / "golden" / "zh_red_flag.json")
    assert "high-criticality-allergy" in tried

    venv.pip("uninstall", "-q", "-y", "outside-brief")
    after = venv.plugins(ok=(1,))
    gone = {one["name"]: one for one in after["plugins"]}["outside_brief"]
    assert gone["enabled"] is False
    assert "no entry point 'outside_brief'" in gone["why_not"]
    assert after["waiting_for_nobody"] == {SCENARIO: 3}
    assert SCENARIO not in venv.dags()
    with ledger_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM work WHERE state = 'waiting'")).scalar_one() == 3
