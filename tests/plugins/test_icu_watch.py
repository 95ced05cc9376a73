"""The watch speaks once for a set of measurements, and misses none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from plugins.golden import run
from plugins.in_visit.icu_watch import IcuWatch
from plugins.scenario import Case

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
PATIENT = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1960-01-01"}


def vital(identity: str, code: str, value: float, unit: str, updated: str = "") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": identity,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2026-11-22T07:50:00Z",
        "valueQuantity": {"value": value, "code": unit},
        **({"meta": {"lastUpdated": updated}} if updated else {}),
    }


def vitals(*updated: str) -> list[dict[str, Any]]:
    return [
        vital("a", "9279-1", 30, "/min", updated[0]),
        vital("b", "8867-4", 140, "/min", updated[1]),
        vital("c", "8480-6", 85, "mm[Hg]", updated[2]),
    ]


def who_speaks(measured: list[dict[str, Any]]) -> list[str]:
    cases = [Case(one, PATIENT, {"vitals": measured}, "en", NOW) for one in measured]
    return [case.trigger["id"] for case in cases if run(IcuWatch(), case).drafts]


@pytest.mark.parametrize(
    ("updated", "speakers"),
    [
        (("2026-11-22T07:51:00.100Z",) * 3, ["c"]),
        (("2026-11-22T07:51:00.300Z", "2026-11-22T07:51:00.100Z", "2026-11-22T07:51:00.200Z"), ["a"]),
        (("2026-11-22T15:51:00.300+08:00", "2026-11-22T07:51:00.100Z", "2026-11-22T07:51:00.200Z"), ["a"]),
        (("2026-11-22T07:51:00Z",) * 3, ["a", "b", "c"]),
        (("", "2026-11-22T07:51:00.100Z", "2026-11-22T07:51:00.200Z"), ["a", "b", "c"]),
    ],
    ids=[
        "one transaction",
        "one after the other",
        "other time zones",
        "no fractions of a second",
        "one without a time",
    ],
)
def test_the_last_by_the_servers_clock_speaks_for_the_set_and_where_in_doubt_everyone(
    updated: tuple[str, ...], speakers: list[str]
) -> None:
    assert who_speaks(vitals(*updated)) == speakers


def test_the_first_of_a_set_that_arrives_alone_speaks_for_itself() -> None:
    (only,) = vitals("2026-11-22T07:51:00.100Z", "", "")[:1]
    assert who_speaks([only]) == ["a"]


def test_a_trigger_that_the_search_has_not_found_yet_is_scored_all_the_same() -> None:
    measured = vitals("", "", "")
    case = Case(measured[0], PATIENT, {"vitals": measured[1:]}, "en", NOW)
    assert [f.code for f in IcuWatch().rules(case)] == ["news2-7-or-more", "news2-incomplete"]


def test_the_red_flag_is_drafted_without_any_model() -> None:
    case = Case(vitals("", "", "")[0], PATIENT, {"vitals": vitals("", "", "")}, "zh", NOW)
    drafts = IcuWatch().rule_drafts(case, IcuWatch().rules(case))
    assert [d.resource["resourceType"] for d in drafts] == ["Flag", "Task"]
    assert {e["valueReference"]["reference"] for e in drafts[0].resource["extension"]} == set(drafts[0].sources)


def test_a_flag_of_another_rule_of_a_closed_one_or_of_long_ago_holds_nothing() -> None:
    measured = vitals("", "", "")
    case = Case(measured[0], PATIENT, {"vitals": measured}, "en", NOW)
    raised = run(IcuWatch(), case).drafts[0].resource
    held = dict(raised) | {"id": "f", "period": {"start": "2026-11-22T07:55:00Z"}}
    other = {"code": {"coding": [{"system": "urn:careloom:red-flag", "code": "chest-pain-acs"}]}}
    for flag, names in [
        (held, ["score"]),
        (held | {"status": "inactive"}, ["red-flag-news2-7-or-more", "score", "urgent-review"]),
        (held | {"period": {"start": "2026-11-22T06:59:00Z"}}, ["red-flag-news2-7-or-more", "score", "urgent-review"]),
        (held | other, ["red-flag-news2-7-or-more", "score", "urgent-review"]),
        (held | {"extension": []}, ["red-flag-news2-7-or-more", "score", "urgent-review"]),
    ]:
        again = replace(case, resources={"vitals": measured, "flags": [flag]})
        assert sorted(d.name for d in run(IcuWatch(), again).drafts) == names
