"""NEWS2 is the Royal College of Physicians' table of 2017, at every value."""

from __future__ import annotations

from decimal import Decimal

import pytest

from plugins import news2
from plugins.news2 import PARAMETERS, RESPONSES, Parameter, Value, score


def points(parameter: Parameter, value: Value, scale: int = 1, supply: str | None = None) -> int:
    values: dict[Parameter, Value] = {parameter: value}
    if supply:
        values["supply"] = supply
    return score(values, scale=2 if scale == 2 else 1).points[parameter]


#: Chart 1 once more, written down apart from the table: parameter -> (lowest, highest, points) of each band.
CHART: dict[Parameter, list[tuple[int, int, int]]] = {
    "respiration_rate": [(0, 8, 3), (9, 11, 1), (12, 20, 0), (21, 24, 2), (25, 120, 3)],
    "spo2": [(0, 91, 3), (92, 93, 2), (94, 95, 1), (96, 100, 0)],
    "systolic_pressure": [(0, 90, 3), (91, 100, 2), (101, 110, 1), (111, 219, 0), (220, 400, 3)],
    "pulse": [(0, 40, 3), (41, 50, 1), (51, 90, 0), (91, 110, 1), (111, 130, 2), (131, 400, 3)],
}
SCALE_2_AIR = [(0, 83, 3), (84, 85, 2), (86, 87, 1), (88, 100, 0)]
SCALE_2_OXYGEN = [(0, 83, 3), (84, 85, 2), (86, 87, 1), (88, 92, 0), (93, 94, 1), (95, 96, 2), (97, 100, 3)]
TENTHS = [(250, 350, 3), (351, 360, 1), (361, 380, 0), (381, 390, 1), (391, 450, 2)]


@pytest.mark.parametrize("parameter", CHART)
def test_every_whole_number_scores_as_the_chart_says(parameter: Parameter) -> None:
    for low, high, expected in CHART[parameter]:
        for value in range(low, high + 1):
            assert points(parameter, Decimal(value)) == expected, value


@pytest.mark.parametrize(("supply", "bands"), [("air", SCALE_2_AIR), ("oxygen", SCALE_2_OXYGEN)])
def test_every_saturation_scores_as_scale_2_says(supply: str, bands: list[tuple[int, int, int]]) -> None:
    for low, high, expected in bands:
        for value in range(low, high + 1):
            assert points("spo2", Decimal(value), scale=2, supply=supply) == expected, value


def test_every_tenth_of_a_degree_scores_as_the_chart_says() -> None:
    for low, high, expected in TENTHS:
        for tenths in range(low, high + 1):
            assert points("temperature", Decimal(tenths) / 10) == expected, tenths


def test_scale_2_without_a_known_supply_gives_the_least_of_the_two() -> None:
    assert points("spo2", Decimal(98), scale=2) == 0


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("supply", "air", 0), ("supply", "oxygen", 2), ("consciousness", "alert", 0), ("consciousness", "confusion", 3),
        ("consciousness", "voice", 3), ("consciousness", "pain", 3), ("consciousness", "unresponsive", 3),
    ],
)  # fmt: skip
def test_states_score_as_the_chart_says(parameter: Parameter, value: str, expected: int) -> None:
    assert points(parameter, value) == expected


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("spo2", "95.4", 1), ("spo2", "95.6", 0), ("spo2", "95.5", 1), ("respiration_rate", "20.5", 2),
        ("respiration_rate", "20.4", 0), ("pulse", "90.5", 1), ("temperature", "38.04", 0), ("temperature", "38.05", 1),
        ("temperature", "36.05", 1), ("systolic_pressure", "219.5", 3),
    ],
)  # fmt: skip
def test_between_two_steps_the_nearer_counts_and_in_the_middle_the_higher_score(
    parameter: Parameter, value: str, expected: int
) -> None:
    assert points(parameter, Decimal(value)) == expected


def test_a_state_that_the_chart_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError):
        score({"consciousness": "sleepy"})


def test_what_was_not_measured_is_missing_and_adds_nothing() -> None:
    scored = score({"pulse": Decimal(140)})
    assert scored.total == 3
    assert set(scored.missing) == set(PARAMETERS) - {"pulse"}


def test_the_worst_set_scores_twenty() -> None:
    worst: dict[Parameter, Value] = {
        "respiration_rate": Decimal(30), "spo2": Decimal(80), "supply": "oxygen", "systolic_pressure": Decimal(70),
        "pulse": Decimal(150), "consciousness": "pain", "temperature": Decimal(34),
    }  # fmt: skip
    assert score(worst).total == 20


@pytest.mark.parametrize(
    ("values", "code", "risk"),
    [
        ({}, "news2-0", "low"),
        ({"pulse": 91}, "news2-1-4", "low"),
        ({"pulse": 111, "respiration_rate": 21}, "news2-1-4", "low"),
        ({"pulse": 131}, "news2-single-3", "low-medium"),
        ({"pulse": 131, "spo2": 95}, "news2-single-3", "low-medium"),
        ({"pulse": 131, "spo2": 93}, "news2-5-6", "medium"),
        ({"pulse": 111, "respiration_rate": 21, "spo2": 95}, "news2-5-6", "medium"),
        ({"pulse": 131, "respiration_rate": 25}, "news2-5-6", "medium"),
        ({"pulse": 131, "respiration_rate": 25, "spo2": 95}, "news2-7-or-more", "high"),
    ],
)
def test_the_response_is_that_of_chart_2(values: dict[Parameter, int], code: str, risk: str) -> None:
    response = score({parameter: Decimal(value) for parameter, value in values.items()}).response
    assert (response.code, response.risk) == (code, risk)


def test_every_parameter_and_state_has_a_name_in_both_languages_and_every_response_a_text() -> None:
    assert set(news2.NAMES) == set(PARAMETERS) == set(news2.UNITS)
    for text in (*news2.NAMES.values(), *news2.WORDS.values(), *(r.text for r in RESPONSES)):
        assert text.zh and text.en
    assert "Royal College of Physicians" in news2.CITATION
    assert news2.YOUNGEST_YEARS == 16
