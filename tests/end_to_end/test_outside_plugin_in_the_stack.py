"""The plugin that `careloom new` writes, in a stack of its own: from an appointment at the hospital to a labelled Flag.

It is found as an installed package is, by its dist-info on the path; installing it for real is shown in
tests/plugins/test_outside_plugin.py.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.authoring.package import write_package
from pipelines.config import load
from pipelines.stack.environment import Stack

pytestmark = [pytest.mark.end_to_end, pytest.mark.long, pytest.mark.timeout(400)]

SCENARIO = "pre_visit.outside_flag"
PATIENT = {"resourceType": "Patient", "id": "outside-1", "gender": "female", "birthDate": "1980-05-01"}
ALLERGY = {
    "resourceType": "AllergyIntolerance",
    "id": "outside-allergy",
    "criticality": "high",
    "code": {"text": "Penicillin"},
    "patient": {"reference": "Patient/outside-1"},
}
APPOINTMENT = {
    "resourceType": "Appointment",
    "id": "outside-appointment",
    "status": "booked",
    "reasonCode": [{"text": "cough"}],
    "participant": [{"actor": {"reference": "Patient/outside-1"}, "status": "accepted"}],
}


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """A stack without a model and without a second hospital, with the plugin allowed."""
    with tempfile.TemporaryDirectory(prefix="careloom-outside-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        package = write_package("pre_visit", "outside-flag", folder)
        info = package / "outside_flag-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-flag\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[careloom]\noutside_flag = outside_flag.scenario\n")
        with pytest.MonkeyPatch.context() as patch:
            paths = (str(package), *filter(None, (os.environ.get("PYTHONPATH"),)))
            patch.setenv("PYTHONPATH", os.pathsep.join(paths))
            overrides = {"plugins": {"enabled": ["outside_flag"]}}
            with Stack(folder / "state", model="stand-in", overrides=overrides) as stack:
                stack.start()
                yield stack


def seen(what: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first thing that is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.3)
    return None


def test_an_appointment_becomes_a_flag_of_the_outside_plugin_and_is_counted(running: Stack) -> None:
    config = load(running.config)
    (source,) = config.sources
    assert source.server_token is not None
    headers = {"authorization": f"Bearer {source.server_token.get_secret_value()}", "cache-control": "no-cache"}
    with httpx.Client(base_url=f"{source.base_url}/", headers=headers, timeout=30) as hospital:
        for resource in (PATIENT, ALLERGY, APPOINTMENT):
            answer = hospital.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
            assert answer.is_success

        def flags() -> Any:
            return hospital.get("Flag", params={"subject": "Patient/outside-1"}).json().get("entry", [])

        (entry,) = seen(flags)
    flag = entry["resource"]
    assert flag["code"]["coding"][0]["code"] == "high-criticality-allergy"
    assert "AIAST" in str(flag["meta"]["security"])

    def finished() -> list[str]:
        page = httpx.get(running.kept.url("exporter", "/metrics")).text.splitlines()
        counted = [line for line in page if line.startswith("careloom_work_finished_total{") and SCENARIO in line]
        return [line for line in counted if not line.endswith(" 0.0")]  # all of them stand at 0 from the start

    assert [float(line.rpartition(" ")[2]) for line in seen(finished)] == [1.0]
