"""Every golden case of the built-in scenarios comes out as a clinician wrote it down."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins import golden
from plugins.manager import load

FOLDER = Path(__file__).parent / "golden"
SCENARIOS = {scenario.id.split(".")[1]: scenario for scenario in load().scenarios.values()}
CASES = [(name, case) for name in SCENARIOS for case in golden.read(FOLDER / name)]


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}/{case.name}" for name, case in CASES])
def test_the_golden_case_comes_out_as_expected(name: str, case: golden.GoldenCase) -> None:
    golden.check(SCENARIOS[name], case)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_has_at_least_ten_golden_cases_in_both_languages(name: str) -> None:
    cases = golden.read(FOLDER / name)
    assert len(cases) >= 10
    assert {case.case.locale for case in cases} == {"zh", "en"}
    for kind in ("empty", "injected", "contradict"):
        assert any(kind in case.name for case in cases), kind
