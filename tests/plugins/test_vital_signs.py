"""Vital signs are read by code and unit; what cannot be used is named, and never replaced by something older."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from plugins.vital_signs import Reading, newest, prescribed_scale, taken

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
HALF_A_DAY = timedelta(hours=12)


def vital(code: str, value: Any = None, unit: str = "", *, hours: float = 1, **more: Any) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "id": f"{code}-{hours}",
        "status": "final",
        "code": {"coding": [{"code": code}]},
        "effectiveDateTime": (NOW - timedelta(hours=hours)).isoformat(),
    }
    if value is not None:
        resource["valueQuantity"] = {"value": value, "code": unit}
    return resource | more


def read(*observations: dict[str, Any]) -> dict[str, Reading]:
    return {str(name): reading for name, reading in newest(observations, NOW, HALF_A_DAY).items()}


@pytest.mark.parametrize(
    ("code", "value", "unit", "parameter", "expected"),
    [
        ("9279-1", 18, "/min", "respiration_rate", Decimal(18)),
        ("9279-1", 18, "{breaths}/min", "respiration_rate", Decimal(18)),
        ("8867-4", 72, "/min", "pulse", Decimal(72)),
        ("2708-6", 97.5, "%", "spo2", Decimal("97.5")),
        ("59408-5", 97, "%", "spo2", Decimal(97)),
        ("8480-6", 120, "mm[Hg]", "systolic_pressure", Decimal(120)),
        ("8310-5", 36.60, "Cel", "temperature", Decimal("36.6")),
        ("8310-5", 98.6, "[degF]", "temperature", Decimal(37)),
        ("3151-8", 0, "L/min", "supply", "air"),
        ("3151-8", 0.5, "L/min", "supply", "oxygen"),
        ("3150-6", 21, "%", "supply", "air"),
        ("3150-6", 28, "%", "supply", "oxygen"),
    ],
)
def test_each_parameter_is_read_by_its_code_and_unit(
    code: str, value: float, unit: str, parameter: str, expected: Any
) -> None:
    assert read(vital(code, value, unit))[parameter].value == expected


@pytest.mark.parametrize(
    "observation",
    [
        vital("8310-5", 36.6), vital("8310-5", 36.6, "C"), vital("8310-5", 98.6, "degF"), vital("2708-6", 0.97, "1"),
        vital("8480-6", 16, "kPa"), vital("8867-4", 1.2, "Hz"), vital("8867-4"), vital("8310-5", 366, "Cel"),
        vital("2708-6", 101, "%"), vital("3151-8", -1, "L/min"), vital("8867-4", True, "/min"),
        vital("9279-1", valueQuantity={"value": 30, "code": "/min", "comparator": ">"}),
        vital("67775-7", valueString="drowsy"), vital("67775-7"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_kept_with_a_reason(observation: dict[str, Any]) -> None:
    (reading,) = read(observation).values()
    assert reading.value is None
    assert reading.why is not None
    assert reading.why.zh and reading.why.en


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"valueCodeableConcept": {"coding": [{"code": "248234008"}]}}, "alert"),
        ({"valueCodeableConcept": {"coding": [{"code": "130987000"}]}}, "confusion"),
        ({"valueCodeableConcept": {"coding": [{"code": "300202002"}]}}, "voice"),
        ({"valueCodeableConcept": {"coding": [{"code": "450847001"}]}}, "pain"),
        ({"valueCodeableConcept": {"coding": [{"code": "422768004"}]}}, "unresponsive"),
        ({"valueCodeableConcept": {"text": "Alert"}}, "alert"),
        ({"valueString": "神志清楚"}, "alert"),
        ({"valueString": "V"}, "voice"),
    ],
)
def test_consciousness_is_read_from_its_codes_and_words(more: dict[str, Any], state: str) -> None:
    assert read(vital("67775-7", **more))["consciousness"].value == state


def test_two_states_at_once_are_none() -> None:
    both = {"valueCodeableConcept": {"coding": [{"code": "248234008"}, {"code": "422768004"}]}}
    assert read(vital("67775-7", **both))["consciousness"].value is None


def test_a_pressure_is_read_from_the_component_of_its_panel_and_oxygen_from_that_of_the_saturation() -> None:
    def component(code: str, value: float, unit: str) -> dict[str, Any]:
        return {"code": {"coding": [{"code": code}]}, "valueQuantity": {"value": value, "code": unit}}

    pressure = vital("85354-9", component=[component("8480-6", 131, "mm[Hg]"), component("8462-4", 80, "mm[Hg]")])
    saturation = vital("59408-5", 95, "%", component=[component("3151-8", 2, "L/min")])
    found = read(pressure, saturation)
    assert found["systolic_pressure"].value == 131
    assert found["supply"].value == "oxygen"
    assert found["spo2"].value == 95


def test_the_newest_counts_whatever_the_order() -> None:
    old, new = vital("8867-4", 60, "/min", hours=5), vital("8867-4", 130, "/min", hours=1)
    assert read(old, new)["pulse"].value == read(new, old)["pulse"].value == 130


def test_a_newer_reading_that_cannot_be_used_hides_nothing_behind_an_older_one() -> None:
    assert read(vital("8867-4", 60, "/min", hours=5), vital("8867-4", 130, hours=1))["pulse"].value is None


def test_at_one_time_oxygen_counts_before_air() -> None:
    flow, concentration = vital("3151-8", 0, "L/min"), vital("3150-6", 40, "%")
    assert read(flow, concentration)["supply"].value == read(concentration, flow)["supply"].value == "oxygen"


def test_what_is_too_old_in_the_future_withdrawn_or_without_a_time_does_not_count() -> None:
    timeless = vital("8867-4", 60, "/min")
    del timeless["effectiveDateTime"]
    withdrawn = vital("8867-4", 60, "/min") | {"status": "entered-in-error"}
    assert read(vital("8867-4", 60, "/min", hours=12), vital("8867-4", 60, "/min", hours=-1), timeless, withdrawn) == {}


@pytest.mark.parametrize(
    "stated",
    [
        {"effectiveDateTime": NOW.isoformat()}, {"effectiveInstant": NOW.isoformat()}, {"issued": NOW.isoformat()},
        {"effectivePeriod": {"start": "2026-11-01T00:00:00Z", "end": NOW.isoformat()}},
        {"effectivePeriod": {"start": NOW.isoformat()}},
    ],
)  # fmt: skip
def test_when_it_was_taken_is_read_from_every_form(stated: dict[str, Any]) -> None:
    assert taken({"resourceType": "Observation"} | stated) == NOW


def goal(low: float, high: float, code: str = "59408-5", status: str = "active") -> dict[str, Any]:
    limits = {"low": {"value": low}, "high": {"value": high}}
    target = [{"measure": {"coding": [{"code": code}]}, "detailRange": limits}]
    return {"resourceType": "Goal", "id": "g", "lifecycleStatus": status, "target": target}


def test_scale_2_needs_an_active_goal_of_88_to_92_percent() -> None:
    assert prescribed_scale([goal(88, 92)]) == (2, ("Goal/g",))
    for other in (goal(94, 98), goal(88, 92, "8867-4"), goal(88, 92, status="cancelled"), {"resourceType": "Goal"}):
        assert prescribed_scale([other]) == (1, ())
