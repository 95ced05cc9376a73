"""NEWS2, the Royal College of Physicians' early warning score, exactly as its 2017 table has it (`news2.toml`)."""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from importlib.resources import files
from typing import Any, Literal

from plugins.scenario import Text

Parameter = Literal[
    "respiration_rate", "spo2", "supply", "systolic_pressure", "pulse", "consciousness", "temperature"
]  # fmt: skip
PARAMETERS: tuple[Parameter, ...] = (
    "respiration_rate", "spo2", "supply", "systolic_pressure", "pulse", "consciousness", "temperature",
)  # fmt: skip

Value = Decimal | str
"""A number in the parameter's unit (/min, %, mmHg, degrees Celsius), or a state: "air", "oxygen", "alert", "confusion",
"voice", "pain", "unresponsive"."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the report asks for at a score.

    Attributes:
        code: stable id.
        risk: the report's name of the clinical risk.
        text: what is to be done.
        total: at least this aggregate score.
        single: or at least this score in one parameter.
    """

    code: str
    risk: str
    text: Text
    total: int | None
    single: int | None


@dataclass(frozen=True, slots=True)
class Score:
    """A set of measurements, scored.

    Attributes:
        points: of each parameter that was measured. What was not measured is absent; it is never taken as normal, so
            that `total` is the least that the full set would give.
        scale: which SpO2 scale was used.
    """

    points: Mapping[Parameter, int]
    scale: Literal[1, 2]

    @property
    def total(self) -> int:
        """The aggregate score."""
        return sum(self.points.values())

    @property
    def missing(self) -> tuple[Parameter, ...]:
        """The parameters without a value."""
        return tuple(p for p in PARAMETERS if p not in self.points)

    @property
    def response(self) -> Response:
        """The most urgent response that the score calls for."""
        return [r for r in RESPONSES if _meets(self, r)][-1]


def score(values: Mapping[Parameter, Value], *, scale: Literal[1, 2] = 1) -> Score:
    """Score what was measured.

    Args:
        values: parameter -> number or state.
        scale: SpO2 scale; 2 only where a clinician has set a target of 88-92 %.

    Raises:
        KeyError: a state that the table does not have.
    """
    return Score({p: _points(p, values, scale) for p in PARAMETERS if p in values}, scale)


def _points(parameter: Parameter, values: Mapping[Parameter, Value], scale: int) -> int:
    value = values[parameter]
    if isinstance(value, str):
        return _STATES[parameter][value]
    if parameter != "spo2":
        return _banded(parameter, value)
    if scale == 1:
        return _banded("spo2_scale_1", value)
    return _banded("spo2_scale_2_oxygen" if values.get("supply") == "oxygen" else "spo2_scale_2_air", value)


def _banded(table: str, value: Decimal) -> int:
    """The score of the band that holds `value`, rounded to the table's step; between two steps the higher one."""
    bands = _POINTS[table]
    near = {(value / bands.step).quantize(Decimal(1), mode) * bands.step for mode in (ROUND_HALF_UP, ROUND_HALF_DOWN)}
    return max(bands.scores[bisect_left(bands.upto, rounded)] for rounded in near)


def _meets(scored: Score, response: Response) -> bool:
    if response.single is not None:
        return max(scored.points.values(), default=0) >= response.single
    return scored.total >= (response.total or 0)


@dataclass(frozen=True, slots=True)
class _Bands:
    step: Decimal
    upto: tuple[Decimal, ...]
    scores: tuple[int, ...]


def _bands(row: Mapping[str, Any]) -> _Bands:
    return _Bands(Decimal(row["step"]), tuple(map(Decimal, row["upto"])), tuple(row["scores"]))


def _text(row: Mapping[str, Any]) -> Text:
    return Text(zh=row["zh"], en=row["en"])


_TABLE = tomllib.loads(files("plugins").joinpath("news2.toml").read_text(encoding="utf-8"), parse_float=Decimal)
_POINTS = {name: _bands(row) for name, row in _TABLE["points"].items()}
_STATES: Mapping[str, Mapping[str, int]] = _TABLE["states"]

CITATION: str = _TABLE["citation"]
#: The score is not for anybody younger, nor in pregnancy.
YOUNGEST_YEARS: int = _TABLE["youngest_years"]
NAMES: Mapping[str, Text] = {name: _text(row) for name, row in _TABLE["names"].items()}
UNITS: Mapping[str, str] = {name: row["unit"] for name, row in _TABLE["names"].items()}
WORDS: Mapping[str, Text] = {name: _text(row) for name, row in _TABLE["words"].items()}
RESPONSES = tuple(
    Response(row["code"], row["risk"], _text(row), row.get("total"), row.get("single")) for row in _TABLE["response"]
)
